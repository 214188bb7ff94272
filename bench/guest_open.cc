// SPDX-License-Identifier: Apache-2.0
// A node with one host of four calling guests on core 0 and two hosts of one function on core 1, and a
// process that starts a block on all four callers at once. Each block finds the peak first, since a virtual
// machine's placement changes it by a factor of two within a run.
#include "bench/guest_open.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/message.h"
#include "bench/node.h"
#include "bench/pair_row.h"
#include "bench/worker.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "dataplane/client/weft/client.h"

namespace weft::bench {
namespace {

constexpr uid_t kInvokerUid = 64993;
constexpr std::size_t kCallers = 4;
constexpr char kCallee[] = "bench/target";
constexpr double kLoad = 0.8;
constexpr uint32_t kCallerSamplesMax = 60'000;  // 20 ms of calls of 333 ns.
constexpr int kStartTimeoutMs = 60'000;
constexpr int kBlockTimeoutMs = 10'000;

std::string CallerName(std::size_t i) { return absl::StrCat("bench/open", i); }

// The process that asks the calling guests for blocks.
class Invoker {
 public:
  explicit Invoker(uint32_t* samples) : samples_(samples) {}

  absl::Status Connect(const std::string& run_dir) {
    MeshOptions options;
    options.run_dir = run_dir;
    WEFT_ASSIGN_OR_RETURN(mesh_, Mesh::Create(options));
    WEFT_RETURN_IF_ERROR(mesh_->Attach());
    client_.emplace(*mesh_);
    for (std::vector<std::byte>& answer : answers_)
      answer.resize(sizeof(bench_open_result) + kCallerSamplesMax * sizeof(uint32_t));
    // The hosts compile their modules and register at their own pace.
    const uint64_t end_ns = NowNs() + 30 * kNsPerSecond;
    for (;;) {
      Worker::Reply ignored;
      absl::Status status = Resolve();
      if (status.ok()) status = Run(0, kNsPerMs, &ignored);
      if (status.ok() || NowNs() > end_ns) return status;
      client_->Wait(absl::Milliseconds(20));
    }
  }

  // `mean_period_ns`: of each caller; 0: a closed loop, without samples.
  absl::Status Run(uint64_t mean_period_ns, uint64_t duration_ns, Worker::Reply* reply) {
    std::array<bench_open_order, kCallers> orders = {};
    std::array<BatchCall, kCallers> calls;
    for (std::size_t i = 0; i < kCallers; ++i) {
      bench_open_order& order = orders[i];
      order.warm_up_ns = Samples::WarmUpOf(duration_ns);
      order.duration_ns = duration_ns;
      order.mean_period_ns = mean_period_ns;
      order.seed = ++seed_ * 0x9e3779b97f4a7c15ull;
      order.first_id = seed_ * 1'000'000;  // More than a block can make.
      order.bytes = kBenchAnswerBytes;
      order.samples_max = mean_period_ns == 0 ? 0 : kCallerSamplesMax;
      std::strncpy(order.callee, kCallee, sizeof(order.callee) - 1);
      calls[i].function = callers_[i];
      calls[i].request = std::as_bytes(std::span(&order, 1));
      calls[i].response = answers_[i];
    }
    client_->CallBatch(calls, {.timeout = absl::Seconds(5)});
    for (const BatchCall& call : calls) WEFT_RETURN_IF_ERROR(Take(call, reply));
    return absl::OkStatus();
  }

 private:
  absl::Status Resolve() {
    for (std::size_t i = 0; i < kCallers; ++i) {
      WEFT_ASSIGN_OR_RETURN(callers_[i], client_->Resolve(CallerName(i)));
    }
    return absl::OkStatus();
  }

  // Adds what one caller answered.
  absl::Status Take(const BatchCall& call, Worker::Reply* reply) {
    WEFT_RETURN_IF_ERROR(call.result);
    bench_open_result result;
    if (call.response_bytes < sizeof(result))
      return absl::InternalError("a calling guest answered too little");
    std::memcpy(&result, call.response.data(), sizeof(result));
    if (result.errors != 0) {
      return absl::Status(static_cast<absl::StatusCode>(result.last_status & 15),
                          absl::StrCat("a call to ", kCallee, " ended with status ", result.last_status));
    }
    if (call.response_bytes != sizeof(result) + result.samples * sizeof(uint32_t) ||
        result.samples > kCallerSamplesMax || reply->samples + result.samples > kSamplesMax) {
      return absl::InternalError("a calling guest's answer has a wrong length");
    }
    std::memcpy(samples_ + reply->samples, call.response.data() + sizeof(result),
                result.samples * sizeof(uint32_t));
    reply->samples += result.samples;
    reply->messages += result.calls;
    reply->elapsed_ns = std::max(reply->elapsed_ns, result.elapsed_ns);
    return absl::OkStatus();
  }

  uint32_t* samples_;
  std::unique_ptr<Mesh> mesh_;
  std::optional<Client> client_;
  std::array<Function, kCallers> callers_;
  std::array<std::vector<std::byte>, kCallers> answers_;
  uint64_t seed_ = 0;
};

class GuestOpenRow final : public Row {
 public:
  GuestOpenRow()
      : Row({.name = "weft/guest_to_guest_open_80",
             .bytes = kBenchAnswerBytes,
             .against = {"weft/guest_to_guest"},
             .note =
                 "Poisson at 80 % of the peak of the same 4 callers, from the intended send; 2 targets"}) {}

  absl::Status Setup() override {
    WEFT_ASSIGN_OR_RETURN(samples_, SharedMemory(kSamplesMax * sizeof(uint32_t)));
    WEFT_RETURN_IF_ERROR(StartNode());
    const absl::Status status = StartInvoker();
    if (status.ok()) return absl::OkStatus();
    return absl::Status(status.code(),
                        absl::StrCat(status.message(), "; hosts said: ", node_->LogOf(kHosts[0]),
                                     node_->LogOf(kHosts[1]), node_->LogOf(kHosts[2])));
  }

  absl::StatusOr<Block> RunBlock(uint64_t duration_ns) override {
    if (node_ == nullptr) return absl::FailedPreconditionError("not set up");
    WEFT_ASSIGN_OR_RETURN(const Worker::Reply peak, Run(0, duration_ns / 4));
    if (peak.messages == 0 || peak.elapsed_ns == 0) return absl::InternalError("no call of the peak ended");
    const double per_ns = static_cast<double>(peak.messages) / static_cast<double>(peak.elapsed_ns);
    const auto period_ns = static_cast<uint64_t>(static_cast<double>(kCallers) / (kLoad * per_ns));
    const uint64_t cpu_before_ns = HostsCpuNs(), before_ns = NowNs();
    WEFT_ASSIGN_OR_RETURN(const Worker::Reply open, Run(period_ns, duration_ns - duration_ns / 4));
    const uint64_t wall_ns = NowNs() - before_ns;
    Block block;
    const auto* samples = reinterpret_cast<const uint32_t*>(samples_.data());
    block.samples_ns.assign(samples, samples + open.samples);
    block.messages = open.messages;
    block.elapsed_ns = open.elapsed_ns;
    // The hosts ran for all of the block, and messages count only after the warm-up.
    block.cpu_ns = static_cast<uint64_t>(static_cast<double>(HostsCpuNs() - cpu_before_ns) *
                                         static_cast<double>(open.elapsed_ns) / static_cast<double>(wall_ns));
    block.counts["peak_calls"] = static_cast<double>(peak.messages);
    block.counts["peak_ns"] = static_cast<double>(peak.elapsed_ns);
    return block;
  }

  void Teardown() override {
    invoker_.Kill();
    node_.reset();
    samples_ = Mapping();
  }

 private:
  static constexpr std::array<const char*, 3> kHosts = {"bench-callers", "bench-target-1", "bench-target-2"};

  absl::Status StartNode() {
    std::vector<NodeTenant> tenants = {{.uid = kInvokerUid, .hosts = {}, .serve = {}, .call_as = "bench"}};
    for (std::size_t i = 0; i < kHosts.size(); ++i) {
      tenants.push_back({.uid = UidOf(i), .hosts = {kHosts[i]}, .serve = {"bench/*"}, .call_as = "bench"});
    }
    WEFT_ASSIGN_OR_RETURN(node_, Node::Start(tenants, /*mesh_yaml=*/""));
    std::vector<std::string> callers = {"--no-cache"};
    for (std::size_t i = 0; i < kCallers; ++i) {
      callers.insert(callers.end(), {"--keep", absl::StrCat(CallerName(i), "=", GuestPath("bench_open"))});
    }
    WEFT_RETURN_IF_ERROR(node_->StartHost(
        {.name = kHosts[0], .uid = UidOf(0), .core = kCallerCore, .serve = {}, .arguments = callers}));
    for (std::size_t i = 1; i < kHosts.size(); ++i) {
      WEFT_RETURN_IF_ERROR(node_->StartHost(
          {.name = kHosts[i],
           .uid = UidOf(i),
           .core = kCalleeCore,
           .serve = {},
           .arguments = {"--no-cache", "--keep", absl::StrCat(kCallee, "=", GuestPath("bench_callee"))}}));
    }
    return absl::OkStatus();
  }

  absl::Status StartInvoker() {
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
            status = (*invoker)->Run(command.number, command.duration_ns, &reply);
          }
          if (!status.ok()) std::strncpy(reply.failure, status.ToString().c_str(), sizeof(reply.failure) - 1);
          return reply;
        }));
    WEFT_RETURN_IF_ERROR(invoker_.Run({}));
    return invoker_.Finish(kStartTimeoutMs).status();
  }

  absl::StatusOr<Worker::Reply> Run(uint64_t mean_period_ns, uint64_t duration_ns) {
    WEFT_RETURN_IF_ERROR(invoker_.Run({.duration_ns = duration_ns, .number = mean_period_ns}));
    return invoker_.Finish(kBlockTimeoutMs);
  }

  // Users of their own, beside those of the other guest rows.
  static uid_t UidOf(std::size_t host) { return kInvokerUid + 1 + static_cast<uid_t>(host); }
  uint64_t HostsCpuNs() const {
    uint64_t sum_ns = 0;
    for (const char* host : kHosts) sum_ns += ProcessCpuNsOf(node_->pid(host));
    return sum_ns;
  }

  Mapping samples_;
  std::unique_ptr<Node> node_;
  Worker invoker_;
};

}  // namespace

std::unique_ptr<Row> NewGuestOpenRow() { return std::make_unique<GuestOpenRow>(); }

}  // namespace weft::bench
