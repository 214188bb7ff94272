// SPDX-License-Identifier: Apache-2.0
#include "bench/guest_pair.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "bench/message.h"
#include "bench/pair_row.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "dataplane/client/weft/client.h"

namespace weft::bench {
namespace {

constexpr uid_t kInvokerUid = 64993;
constexpr char kCallerHost[] = "bench-caller";
constexpr char kCalleeHost[] = "bench-callee";
constexpr char kCaller[] = "bench/caller";
constexpr std::array<const char*, 3> kCallees = {"bench/keep", "bench/fresh", "bench/local"};
// 20 ms of calls of 170 ns; half a megabyte of answer.
constexpr uint32_t kGuestSamplesMax = 120'000;
constexpr int kStartTimeoutMs = 60'000;
constexpr int kBlockTimeoutMs = 10'000;

void Fail(Worker::Reply* reply, const std::string& why) {
  std::strncpy(reply->failure, why.c_str(), sizeof(reply->failure) - 1);
}

// The process that asks the calling guest for blocks.
class Invoker {
 public:
  explicit Invoker(uint32_t* samples) : samples_(samples) {}

  absl::Status Connect(const std::string& run_dir) {
    MeshOptions options;
    options.run_dir = run_dir;
    WEFT_ASSIGN_OR_RETURN(mesh_, Mesh::Create(options));
    WEFT_RETURN_IF_ERROR(mesh_->Attach());
    client_.emplace(*mesh_);
    answer_.resize(sizeof(bench_result) + kGuestSamplesMax * sizeof(uint32_t));
    // The hosts compile their modules and register at their own pace.
    const uint64_t end_ns = NowNs() + 30 * kNsPerSecond;
    for (;;) {
      absl::StatusOr<Function> function = client_->Resolve(kCaller);
      absl::Status status = function.status();
      if (status.ok()) {
        caller_ = *function;
        status = CallAll();
      }
      if (status.ok() || NowNs() > end_ns) return status;
      client_->Wait(absl::Milliseconds(20));
    }
  }

  absl::Status Run(const GuestPair::Order& what, uint64_t duration_ns, Worker::Reply* reply) {
    bench_order order{};
    order.duration_ns = duration_ns;
    order.warm_up_ns = Samples::WarmUpOf(duration_ns);
    order.period_ns = what.period_ns;
    order.first_id = next_id_;
    order.bytes = static_cast<uint32_t>(what.bytes);
    order.samples_max = kGuestSamplesMax;
    std::strncpy(order.callee, kCallees[static_cast<std::size_t>(what.callee)], sizeof(order.callee) - 1);
    next_id_ += 1'000'000;  // More than a block can make.
    const absl::StatusOr<std::size_t> bytes =
        client_->Call(caller_, std::as_bytes(std::span(&order, 1)), answer_, {.timeout = absl::Seconds(5)});
    if (!bytes.ok()) return bytes.status();
    bench_result result;
    if (*bytes < sizeof(result)) return absl::InternalError("the calling guest answered too little");
    std::memcpy(&result, answer_.data(), sizeof(result));
    if (result.errors != 0) {
      return absl::Status(static_cast<absl::StatusCode>(result.last_status & 15),
                          absl::StrCat("a call of the calling guest to ", order.callee, " ended with status ",
                                       result.last_status));
    }
    if (*bytes != sizeof(result) + result.samples * sizeof(uint32_t) || result.samples > kGuestSamplesMax) {
      return absl::InternalError("the calling guest's answer has a wrong length");
    }
    std::memcpy(samples_, answer_.data() + sizeof(result), result.samples * sizeof(uint32_t));
    reply->messages = reply->samples = result.samples;
    reply->elapsed_ns = result.elapsed_ns;
    return absl::OkStatus();
  }

 private:
  // One short block to each callee: all of them are there.
  absl::Status CallAll() {
    for (const GuestPair::Callee callee :
         {GuestPair::Callee::kKeep, GuestPair::Callee::kFresh, GuestPair::Callee::kLocal}) {
      Worker::Reply ignored;
      WEFT_RETURN_IF_ERROR(Run({.callee = callee}, kNsPerMs, &ignored));
    }
    return absl::OkStatus();
  }

  uint32_t* samples_;
  std::unique_ptr<Mesh> mesh_;
  std::optional<Client> client_;
  Function caller_;
  std::vector<std::byte> answer_;
  uint64_t next_id_ = 1;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GuestPair>> GuestPair::Start(int poll_us) {
  std::unique_ptr<GuestPair> pair(new GuestPair);
  WEFT_ASSIGN_OR_RETURN(pair->samples_, SharedMemory(kSamplesMax * sizeof(uint32_t)));
  const std::vector<NodeTenant> tenants = {
      {.uid = kCallerUid, .hosts = {kCallerHost}, .serve = {"bench/*"}, .call_as = "bench"},
      {.uid = kCalleeUid, .hosts = {kCalleeHost}, .serve = {"bench/*"}, .call_as = "bench"},
      {.uid = kInvokerUid, .hosts = {}, .serve = {}, .call_as = "bench"},
  };
  WEFT_ASSIGN_OR_RETURN(pair->node_, Node::Start(tenants, /*mesh_yaml=*/""));
  std::vector<std::string> common = {"--no-cache"};
  if (poll_us >= 0) common.insert(common.end(), {"--poll-us", absl::StrCat(poll_us)});
  auto with = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), common.begin(), common.end());
    return arguments;
  };
  const std::string callee = GuestPath("bench_callee");
  WEFT_RETURN_IF_ERROR(pair->node_->StartHost(
      {.name = kCallerHost,
       .uid = kCallerUid,
       .core = kCallerCore,
       .serve = {},
       .arguments = with({"--keep", absl::StrCat(kCaller, "=", GuestPath("bench_caller")), "--keep",
                          absl::StrCat("bench/local=", callee)})}));
  WEFT_RETURN_IF_ERROR(
      pair->node_->StartHost({.name = kCalleeHost,
                              .uid = kCalleeUid,
                              .core = kCalleeCore,
                              .serve = {absl::StrCat("bench/fresh=", callee)},
                              .arguments = with({"--keep", absl::StrCat("bench/keep=", callee)})}));
  const absl::Status status = pair->StartInvoker();
  if (status.ok()) return pair;
  return absl::Status(status.code(),
                      absl::StrCat(status.message(), "; hosts said: ", pair->node_->LogOf(kCallerHost),
                                   pair->node_->LogOf(kCalleeHost)));
}

absl::Status GuestPair::StartInvoker() {
  auto* samples = reinterpret_cast<uint32_t*>(samples_.data());
  const std::string run_dir = node_->run_dir();
  auto invoker = std::make_shared<std::unique_ptr<Invoker>>();
  WEFT_ASSIGN_OR_RETURN(
      invoker_, Worker::Start({-1, kInvokerUid, "bench-invoker"}, [=](const Worker::Command& command) {
        Worker::Reply reply;
        absl::Status status;
        if (*invoker == nullptr) {
          // The first command only connects.
          *invoker = std::make_unique<Invoker>(samples);
          status = (*invoker)->Connect(run_dir);
        } else {
          status = (*invoker)->Run({static_cast<Callee>(command.kind), command.bytes, command.number},
                                   command.duration_ns, &reply);
        }
        if (!status.ok()) Fail(&reply, status.ToString());
        return reply;
      }));
  WEFT_RETURN_IF_ERROR(invoker_.Run({}));
  return invoker_.Finish(kStartTimeoutMs).status();
}

absl::StatusOr<Block> GuestPair::RunBlock(const Order& order, uint64_t duration_ns) {
  auto hosts_cpu_ns = [&] {
    return ProcessCpuNsOf(node_->pid(kCallerHost)) + ProcessCpuNsOf(node_->pid(kCalleeHost));
  };
  const uint64_t cpu_before_ns = hosts_cpu_ns();
  const uint64_t before_ns = NowNs();
  WEFT_RETURN_IF_ERROR(invoker_.Run({.duration_ns = duration_ns,
                                     .kind = static_cast<uint64_t>(order.callee),
                                     .bytes = order.bytes,
                                     .number = order.period_ns}));
  WEFT_ASSIGN_OR_RETURN(const Worker::Reply reply, invoker_.Finish(kBlockTimeoutMs));
  const uint64_t wall_ns = NowNs() - before_ns;
  Block block;
  const auto* samples = reinterpret_cast<const uint32_t*>(samples_.data());
  block.samples_ns.assign(samples, samples + reply.samples);
  block.messages = reply.messages;
  block.elapsed_ns = reply.elapsed_ns;
  // Both hosts ran for all of the block, and messages count only after the warm-up.
  block.cpu_ns = static_cast<uint64_t>(static_cast<double>(hosts_cpu_ns() - cpu_before_ns) *
                                       static_cast<double>(reply.elapsed_ns) / static_cast<double>(wall_ns));
  return block;
}

absl::StatusOr<uint64_t> GuestPair::CalleeCounter(const std::string& name) const {
  const std::string command =
      absl::StrCat(SiblingProgram("weftctl"), " --run-dir ", node_->run_dir(), " -o json get hosts 2>&1");
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return absl::InternalError("run weftctl");
  std::string output;
  std::array<char, 4096> part;
  while (const std::size_t bytes = fread(part.data(), 1, part.size(), pipe))
    output.append(part.data(), bytes);
  pclose(pipe);
  const nlohmann::json report = nlohmann::json::parse(output, nullptr, /*allow_exceptions=*/false);
  if (report.is_object() && report.contains("items")) {
    for (const nlohmann::json& item : report["items"]) {
      if (item.value("host", "") != kCalleeHost) continue;
      const nlohmann::json value = item.value(name, nlohmann::json());
      if (value.is_number()) return value.get<uint64_t>();
    }
  }
  return absl::NotFoundError(
      absl::StrCat("weftctl tells no counter ", name, " of ", kCalleeHost, ": ", output.substr(0, 300)));
}

}  // namespace weft::bench
