// SPDX-License-Identifier: Apache-2.0
#include "bench/guest_invoker.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/message.h"
#include "bench/pair_row.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "dataplane/client/weft/client.h"

namespace weft::bench {
namespace {

using Callee = GuestInvoker::Callee;

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
  Invoker(uint32_t* samples, std::vector<Callee> callees) : samples_(samples), callees_(std::move(callees)) {}

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
      absl::StatusOr<Function> function = client_->Resolve(kBenchCaller);
      absl::Status status = function.status();
      if (status.ok()) {
        caller_ = *function;
        status = CallAll();
      }
      if (status.ok() || NowNs() > end_ns) return status;
      client_->Wait(absl::Milliseconds(20));
    }
  }

  absl::Status Run(const GuestInvoker::Order& what, uint64_t duration_ns, Worker::Reply* reply) {
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
    for (const Callee callee : callees_) {
      Worker::Reply ignored;
      WEFT_RETURN_IF_ERROR(Run({.callee = callee}, kNsPerMs, &ignored));
    }
    return absl::OkStatus();
  }

  uint32_t* samples_;
  const std::vector<Callee> callees_;
  std::unique_ptr<Mesh> mesh_;
  std::optional<Client> client_;
  Function caller_;
  std::vector<std::byte> answer_;
  uint64_t next_id_ = 1;
};

}  // namespace

absl::Status GuestInvoker::Start(const std::string& run_dir, std::vector<Callee> callees) {
  WEFT_ASSIGN_OR_RETURN(samples_, SharedMemory(kSamplesMax * sizeof(uint32_t)));
  auto* samples = reinterpret_cast<uint32_t*>(samples_.data());
  auto invoker = std::make_shared<std::unique_ptr<Invoker>>();
  WEFT_ASSIGN_OR_RETURN(
      worker_, Worker::Start({-1, kInvokerUid, "bench-invoker"}, [=](const Worker::Command& command) {
        Worker::Reply reply;
        absl::Status status;
        if (*invoker == nullptr) {
          // The first command only connects.
          *invoker = std::make_unique<Invoker>(samples, callees);
          status = (*invoker)->Connect(run_dir);
        } else {
          status = (*invoker)->Run({static_cast<Callee>(command.kind), command.bytes, command.number},
                                   command.duration_ns, &reply);
        }
        if (!status.ok()) Fail(&reply, status.ToString());
        return reply;
      }));
  WEFT_RETURN_IF_ERROR(worker_.Run({}));
  return worker_.Finish(kStartTimeoutMs).status();
}

absl::StatusOr<Block> GuestInvoker::RunBlock(const Order& order, uint64_t duration_ns,
                                             const std::vector<pid_t>& pids) {
  auto cpu_ns = [&] {
    return std::accumulate(pids.begin(), pids.end(), uint64_t{0},
                           [](uint64_t sum, pid_t pid) { return sum + ProcessCpuNsOf(pid); });
  };
  const uint64_t cpu_before_ns = cpu_ns();
  const uint64_t before_ns = NowNs();
  WEFT_RETURN_IF_ERROR(worker_.Run({.duration_ns = duration_ns,
                                    .kind = static_cast<uint64_t>(order.callee),
                                    .bytes = order.bytes,
                                    .number = order.period_ns}));
  WEFT_ASSIGN_OR_RETURN(const Worker::Reply reply, worker_.Finish(kBlockTimeoutMs));
  const uint64_t wall_ns = NowNs() - before_ns;
  Block block;
  const auto* samples = reinterpret_cast<const uint32_t*>(samples_.data());
  block.samples_ns.assign(samples, samples + reply.samples);
  block.messages = reply.messages;
  block.elapsed_ns = reply.elapsed_ns;
  // All of them ran for all of the block, and messages count only after the warm-up.
  block.cpu_ns = static_cast<uint64_t>(static_cast<double>(cpu_ns() - cpu_before_ns) *
                                       static_cast<double>(reply.elapsed_ns) / static_cast<double>(wall_ns));
  return block;
}

}  // namespace weft::bench
