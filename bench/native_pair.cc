// SPDX-License-Identifier: Apache-2.0
#include "bench/native_pair.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/message.h"
#include "bench/pair_row.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "weft/client.h"
#include "weft/mesh.h"
#include "weft/server.h"

namespace weft::bench {
namespace {

constexpr char kEcho[] = "bench/echo";
constexpr char kCounts[] = "bench/counts";
constexpr char kServerHost[] = "bench-server";
constexpr uid_t kIdleUid = 64992;
// So that many attach at the same time: each waits for the agent's answers.
constexpr int kIdlersPerProcess = 63;
constexpr uint32_t kBurst = 32;
constexpr std::size_t kBurstBytes = 64;
constexpr std::size_t kBytesMax = 1 << 20;
constexpr uint64_t kSleepPeriodNs = 1'000'000;
constexpr int kStartTimeoutMs = 60'000;
constexpr int kBlockTimeoutMs = 10'000;

// What bench/counts answers.
struct ServerCounts {
  uint64_t one_way = 0;  // Messages taken in all.
  uint64_t errors = 0;   // Of those.
  uint64_t sleeps = 0;   // Times that the server's thread blocked.
};

void Fail(Worker::Reply* reply, const std::string& why) {
  std::strncpy(reply->failure, why.c_str(), sizeof(reply->failure) - 1);
}

MeshOptions OptionsOf(const std::string& run_dir, const char* host) {
  MeshOptions options;
  options.run_dir = run_dir;
  options.host = host;
  return options;
}

template <class T>
std::span<std::byte> BytesOf(T& value) {
  return std::as_writable_bytes(std::span(&value, 1));
}

// --- The server.

class Echo {
 public:
  explicit Echo(Mesh* mesh) : mesh_(mesh) {}

  void OnEcho(ServerCall& call) {
    const std::span<const std::byte> request = call.request();
    uint64_t id = 0;
    if (request.size() < sizeof(id)) return call.ReplyError(absl::InvalidArgumentError("too short"));
    std::memcpy(&id, request.data(), sizeof(id));
    const auto bytes = static_cast<uint32_t>(request.size());
    if (call.one_way()) {
      ++counts_.one_way;
      counts_.errors += bench_check(request.data(), bytes, id) == 0 ? 1 : 0;
      return;
    }
    if ((id & BENCH_ID_VERIFY) != 0) {
      id &= ~BENCH_ID_VERIFY;
      if (id != checked_id_ || !checked_) return call.ReplyError(absl::DataLossError("wrong bytes"));
    } else if (bytes > kBenchCheckedBytesMax) {
      // Checked once it is answered, which is outside the interval, as its limit does; the caller's next call
      // asks what came of it.
      bench_fill(answer_.data(), kBenchAnswerBytes, id);
      call.Reply(answer_);
      checked_id_ = id;
      checked_ = bench_check(request.data(), bytes, id) != 0;
      return;
    } else if (bench_check(request.data(), bytes, id) == 0) {
      return call.ReplyError(absl::DataLossError("wrong bytes"));
    }
    bench_fill(answer_.data(), kBenchAnswerBytes, id);
    call.Reply(answer_);
  }

  void OnCounts(ServerCall& call) {
    counts_.sleeps = mesh_->Counter("sleeps");
    call.Reply(BytesOf(counts_));
  }

 private:
  Mesh* mesh_;
  ServerCounts counts_;
  std::array<std::byte, kBenchAnswerBytes> answer_;
  uint64_t checked_id_ = 0;  // Of the last large request.
  bool checked_ = false;     // Each of its bytes was right.
};

Worker::Reply Serve(const std::string& run_dir) {
  Worker::Reply reply;
  RaiseDescriptorLimit();
  absl::StatusOr<std::unique_ptr<Mesh>> mesh = Mesh::Create(OptionsOf(run_dir, kServerHost));
  if (!mesh.ok()) return Fail(&reply, mesh.status().ToString()), reply;
  Server server(**mesh);
  Echo echo(mesh->get());
  absl::Status status = server.Register(kEcho, [&](ServerCall& call) { echo.OnEcho(call); });
  status.Update(server.Register(kCounts, [&](ServerCall& call) { echo.OnCounts(call); }));
  if (status.ok()) status = (*mesh)->Attach();
  if (status.ok()) status = server.Run();  // Until this process is killed.
  Fail(&reply, status.ToString());
  return reply;
}

// --- The caller.

class Caller {
 public:
  static absl::StatusOr<std::unique_ptr<Caller>> Create(const std::string& run_dir, uint32_t* samples) {
    std::unique_ptr<Caller> caller(new Caller(samples));
    WEFT_ASSIGN_OR_RETURN(caller->mesh_, Mesh::Create(OptionsOf(run_dir, "")));
    WEFT_RETURN_IF_ERROR(caller->mesh_->Attach());
    caller->client_.emplace(*caller->mesh_);
    WEFT_ASSIGN_OR_RETURN(caller->echo_, caller->Await(kEcho));
    WEFT_ASSIGN_OR_RETURN(caller->counts_, caller->Await(kCounts));
    caller->request_.resize(kBytesMax);
    return caller;
  }

  Worker::Reply Run(const Worker::Command& command) {
    Worker::Reply reply;
    const uint64_t cpu_before_ns = ProcessCpuNs();
    const uint64_t before_ns = NowNs();
    const auto kind = static_cast<NativePair::Kind>(command.kind);
    const absl::Status status = kind == NativePair::Kind::kBatched
                                    ? SendBursts(command.duration_ns, &reply)
                                    : MakeCalls(kind, command.bytes, command.duration_ns, &reply);
    reply.wall_ns = NowNs() - before_ns;
    reply.cpu_ns = ProcessCpuNs() - cpu_before_ns;
    if (!status.ok()) Fail(&reply, status.ToString());
    return reply;
  }

 private:
  explicit Caller(uint32_t* samples) : samples_(samples) {}

  // The server registers at about the same time.
  absl::StatusOr<Function> Await(const char* name) {
    const uint64_t end_ns = NowNs() + 10 * kNsPerSecond;
    for (;;) {
      absl::StatusOr<Function> function = client_->Resolve(name);
      if (function.ok() || NowNs() > end_ns) return function;
      client_->Wait(absl::Milliseconds(2));
    }
  }

  absl::Status CallOnce(std::span<const std::byte> request, uint64_t number, uint64_t* begin_ns,
                        uint64_t* end_ns) {
    *begin_ns = NowNs();
    const absl::StatusOr<std::size_t> bytes = client_->Call(echo_, request, answer_);
    *end_ns = NowNs();
    if (!bytes.ok()) return bytes.status();
    if (*bytes != kBenchAnswerBytes || bench_check(answer_.data(), kBenchAnswerBytes, number) == 0) {
      return absl::DataLossError("the answer is not what it had to be");
    }
    return absl::OkStatus();
  }

  absl::Status MakeCalls(NativePair::Kind kind, std::size_t bytes, uint64_t duration_ns,
                         Worker::Reply* reply) {
    WEFT_ASSIGN_OR_RETURN(const ServerCounts before, Counts());
    const uint64_t calls_before = calls_;
    Samples samples(samples_, duration_ns);
    const std::span<std::byte> request = std::span(request_).first(bytes);
    uint64_t begin_ns = 0, end_ns = 0;
    bench_fill(request.data(), static_cast<uint32_t>(bytes), ++number_);
    do {
      if (kind == NativePair::Kind::kSleeping) {
        // Counted from the end of the call before: one that was held up is not followed by another at once.
        for (const uint64_t due_ns = NowNs() + kSleepPeriodNs; NowNs() < due_ns;) {
        }
      }
      WEFT_RETURN_IF_ERROR(CallOnce(request, number_, &begin_ns, &end_ns));
      ++calls_;
      // The next request is made while the server looks at a large one, as in the limit.
      bench_fill(request.data(), static_cast<uint32_t>(bytes), ++number_);
      if (bytes > kBenchCheckedBytesMax) WEFT_RETURN_IF_ERROR(Verify(number_ - 1));
    } while (samples.Add(begin_ns, end_ns));
    WEFT_ASSIGN_OR_RETURN(const ServerCounts after, Counts());
    reply->messages = reply->samples = samples.count();
    reply->elapsed_ns = samples.elapsed_ns();
    reply->extra = after.sleeps - before.sleeps;
    reply->total = calls_ - calls_before;
    return absl::OkStatus();
  }

  absl::Status Verify(uint64_t number) {
    std::array<std::byte, kBenchAnswerBytes> request;
    uint64_t begin_ns, end_ns;
    bench_fill(request.data(), kBenchAnswerBytes, number | BENCH_ID_VERIFY);
    return CallOnce(request, number, &begin_ns, &end_ns);
  }

  absl::Status SendBursts(uint64_t duration_ns, Worker::Reply* reply) {
    const uint64_t start_ns = NowNs();
    WEFT_RETURN_IF_ERROR(SendUntil(start_ns + Samples::WarmUpOf(duration_ns)));
    WEFT_ASSIGN_OR_RETURN(const ServerCounts before, Counts());
    const uint64_t first_ns = NowNs();
    const uint64_t sent_before = sent_;
    WEFT_RETURN_IF_ERROR(SendUntil(start_ns + duration_ns));
    // Answered in order, so all that was sent has been taken by then.
    WEFT_ASSIGN_OR_RETURN(const ServerCounts after, Counts());
    reply->elapsed_ns = NowNs() - first_ns;
    reply->messages = after.one_way - before.one_way;
    reply->errors = after.errors - before.errors;
    if (reply->messages != sent_ - sent_before) {
      return absl::DataLossError(
          absl::StrCat(sent_ - sent_before, " one-way messages sent, ", reply->messages, " taken"));
    }
    return absl::OkStatus();
  }

  absl::Status SendUntil(uint64_t end_ns) {
    std::array<std::array<std::byte, kBurstBytes>, kBurst> bytes;
    std::array<std::span<const std::byte>, kBurst> messages;
    for (uint32_t i = 0; i < kBurst; ++i) messages[i] = bytes[i];
    while (NowNs() < end_ns) {
      for (int burst = 0; burst < 32; ++burst) {  // The clock is read once per 1,024 messages.
        for (auto& message : bytes) bench_fill(message.data(), kBurstBytes, ++sent_);
        WEFT_RETURN_IF_ERROR(client_->SendBatch(echo_, messages));
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<ServerCounts> Counts() {
    ServerCounts counts;
    std::byte none{};
    const absl::StatusOr<std::size_t> bytes = client_->Call(counts_, std::span(&none, 1), BytesOf(counts));
    if (!bytes.ok()) return bytes.status();
    return counts;
  }

  uint32_t* samples_;
  std::unique_ptr<Mesh> mesh_;
  std::optional<Client> client_;
  Function echo_;
  Function counts_;
  std::vector<std::byte> request_;
  std::array<std::byte, kBenchAnswerBytes> answer_;
  uint64_t number_ = 0;
  uint64_t calls_ = 0;
  uint64_t sent_ = 0;
};

// --- Processes that only hold channels open.

Worker::Reply HoldChannels(const std::string& run_dir, uint64_t first, uint64_t count,
                           std::vector<std::unique_ptr<Mesh>>* held) {
  Worker::Reply reply;
  RaiseDescriptorLimit();
  for (uint64_t i = first; i < first + count; ++i) {
    absl::StatusOr<std::unique_ptr<Mesh>> mesh = Mesh::Create(OptionsOf(run_dir, ""));
    if (!mesh.ok()) return Fail(&reply, mesh.status().ToString()), reply;
    absl::Status status = (*mesh)->Attach();
    Client client(**mesh);
    absl::StatusOr<Function> echo = client.Resolve(kEcho);
    status.Update(echo.status());
    // One call proves that the channel works.
    std::array<std::byte, kBenchAnswerBytes> request, answer;
    bench_fill(request.data(), kBenchAnswerBytes, i);
    if (status.ok()) status = client.Call(*echo, request, answer).status();
    if (!status.ok()) return Fail(&reply, absl::StrCat("channel ", i, ": ", status.ToString())), reply;
    held->push_back(*std::move(mesh));
  }
  reply.messages = held->size();
  return reply;
}

}  // namespace

absl::StatusOr<std::unique_ptr<NativePair>> NativePair::Start(int idle_channels) {
  std::unique_ptr<NativePair> pair(new NativePair(idle_channels));
  WEFT_ASSIGN_OR_RETURN(pair->samples_, SharedMemory(kSamplesMax * sizeof(uint32_t)));
  std::vector<NodeTenant> tenants = {
      {.uid = kCalleeUid, .hosts = {kServerHost}, .serve = {"bench/*"}, .call_as = "bench"},
      {.uid = kCallerUid, .hosts = {}, .serve = {}, .call_as = "bench"},
      {.uid = kIdleUid, .hosts = {}, .serve = {}, .call_as = "bench"},
  };
  if (idle_channels > 0) {
    // Small arenas, since none of the idle channels carries anything.
    for (NodeTenant& tenant : tenants) tenant.limits = "{hosts: 1024, channels: 4000, arena: 16KiB}";
  }
  WEFT_ASSIGN_OR_RETURN(pair->node_, Node::Start(tenants, /*mesh_yaml=*/""));
  WEFT_RETURN_IF_ERROR(pair->StartProcesses());
  return pair;
}

absl::Status NativePair::StartProcesses() {
  const std::string run_dir = node_->run_dir();
  WEFT_ASSIGN_OR_RETURN(server_, Worker::Start({kCalleeCore, kCalleeUid, "bench-server"},
                                               [run_dir](const Worker::Command&) { return Serve(run_dir); }));
  WEFT_RETURN_IF_ERROR(server_.Run({}));
  auto* samples = reinterpret_cast<uint32_t*>(samples_.data());
  std::shared_ptr<std::unique_ptr<Caller>> caller = std::make_shared<std::unique_ptr<Caller>>();
  WEFT_ASSIGN_OR_RETURN(
      caller_, Worker::Start({kCallerCore, kCallerUid, "bench-caller"}, [=](const Worker::Command& command) {
        if (*caller == nullptr) {
          // The first command only connects.
          absl::StatusOr<std::unique_ptr<Caller>> made = Caller::Create(run_dir, samples);
          Worker::Reply reply;
          if (made.ok()) {
            *caller = *std::move(made);
          } else {
            Fail(&reply, made.status().ToString());
          }
          return reply;
        }
        return (*caller)->Run(command);
      }));
  WEFT_RETURN_IF_ERROR(caller_.Run({}));
  WEFT_RETURN_IF_ERROR(caller_.Finish(kStartTimeoutMs).status());
  return OpenIdleChannels();
}

absl::Status NativePair::OpenIdleChannels() {
  const std::string run_dir = node_->run_dir();
  for (int first = 0; first < idle_channels_; first += kIdlersPerProcess) {
    const auto count = static_cast<uint64_t>(std::min(kIdlersPerProcess, idle_channels_ - first));
    auto held = std::make_shared<std::vector<std::unique_ptr<Mesh>>>();
    WEFT_ASSIGN_OR_RETURN(Worker idler,
                          Worker::Start({-1, kIdleUid, "bench-idler"}, [=](const Worker::Command& command) {
                            return HoldChannels(run_dir, command.number, command.bytes, held.get());
                          }));
    WEFT_RETURN_IF_ERROR(idler.Run({.bytes = count, .number = static_cast<uint64_t>(first)}));
    idlers_.push_back(std::move(idler));
  }
  uint64_t opened = 0;
  for (Worker& idler : idlers_) {
    WEFT_ASSIGN_OR_RETURN(const Worker::Reply reply, idler.Finish(kStartTimeoutMs));
    opened += reply.messages;
  }
  if (opened != static_cast<uint64_t>(idle_channels_))
    return absl::InternalError("an idle channel was not opened");
  return absl::OkStatus();
}

absl::StatusOr<Block> NativePair::RunBlock(Kind kind, uint64_t bytes, uint64_t duration_ns) {
  const uint64_t server_before_ns = ProcessCpuNsOf(server_.pid());
  WEFT_RETURN_IF_ERROR(
      caller_.Run({.duration_ns = duration_ns, .kind = static_cast<uint64_t>(kind), .bytes = bytes}));
  WEFT_ASSIGN_OR_RETURN(const Worker::Reply reply, caller_.Finish(kBlockTimeoutMs));
  const uint64_t server_ns = ProcessCpuNsOf(server_.pid()) - server_before_ns;
  if (reply.errors != 0)
    return absl::DataLossError(absl::StrCat(reply.errors, " messages were not what was sent"));
  Block block;
  const auto* samples = reinterpret_cast<const uint32_t*>(samples_.data());
  block.samples_ns.assign(samples, samples + reply.samples);
  block.messages = reply.messages;
  block.elapsed_ns = reply.elapsed_ns;
  // Both ran for the whole block, warm-up included, and messages count only after it.
  const double counted =
      reply.wall_ns == 0 ? 1 : static_cast<double>(reply.elapsed_ns) / static_cast<double>(reply.wall_ns);
  block.cpu_ns = static_cast<uint64_t>(static_cast<double>(reply.cpu_ns + server_ns) * counted);
  if (kind != Kind::kBatched) {
    // Of all calls of the block, warm-up included.
    block.counts["sleeps"] = static_cast<double>(reply.extra);
    block.counts["calls"] = static_cast<double>(reply.total);
  }
  return block;
}

}  // namespace weft::bench
