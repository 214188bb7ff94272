// SPDX-License-Identifier: Apache-2.0
// The call layer on one thread: what both ends of a call cost in instructions, without the transfer of cache
// lines between cores. Subtract the channel's own benchmark to see the call layer alone.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "dataplane/base/check.h"
#include "dataplane/base/function_id.h"
#include "dataplane/call/call_core.h"
#include "dataplane/call/link_sink.h"

namespace weft {
namespace {

// Answers each request at once with its own bytes.
struct EchoLocal {
  explicit EchoLocal(CallCore& call_core) : core(call_core) {}
  uint64_t NowNs() const { return now_ns; }
  std::byte* OnRequestBegin(const Incoming&, uint32_t) { return buffer.data(); }
  void OnRequest(const Incoming& incoming, std::byte* payload, uint32_t bytes) {
    core.Reply(incoming, absl::StatusCode::kOk, std::span<const std::byte>(payload, bytes));
  }
  void OnRequestAbort(const Incoming&, std::byte*) {}
  void OnCancel(uint32_t, uint32_t) {}

  CallCore& core;
  uint64_t now_ns = kNsPerSecond;
  alignas(kCacheLineBytes) std::array<std::byte, 64 * 1024> buffer{};
};

// Two call layers joined by a channel.
class Pair {
 public:
  explicit Pair(const Policy& policy) : caller_(CallCoreOptions{}), callee_(CallCoreOptions{}) {
    absl::StatusOr<DoorbellPair> bells = MakeDoorbellPair();
    WEFT_CHECK(bells.ok());
    auto out_bell = std::make_unique<Doorbell>(*Doorbell::Create(std::move(bells->first)));
    auto in_bell = std::make_unique<Doorbell>(*Doorbell::Create(std::move(bells->second)));
    std::unique_ptr<Channel> out = *Channel::Create({});
    std::unique_ptr<Channel> in = *Channel::Create({});
    WEFT_CHECK(out->Connect(UniqueFd(dup(in->memory_fd())), out_bell.get()).ok());
    WEFT_CHECK(in->Connect(UniqueFd(dup(out->memory_fd())), in_bell.get()).ok());
    out_ = &caller_.AddLink(std::move(out), std::move(out_bell), "callee");
    in_ = &callee_.AddLink(std::move(in), std::move(in_bell), "caller");
    callee_.Serve("bench/echo", nullptr);
    callee_.SetServePolicy("bench/echo", policy);
    callee_.SetAccess(*in_, {{3, "bench", FunctionIdOf("bench/echo")}});
    route_ = &caller_.Route("bench", "bench/echo");
    caller_.SetRoute(*route_, {{.link = out_->index, .weight = 1, .caller_index = 3}}, policy,
                     absl::StatusCode::kOk, "");
    out_sink_.emplace(caller_, caller_local_, *out_);
    in_sink_.emplace(callee_, callee_local_, *in_);
  }

  void Call(std::span<const std::byte> request, std::span<std::byte> response) {
    CallSpec spec;
    spec.request = request;
    spec.response = response;
    spec.done = [](void* context, const CallOutcome& outcome) {
      *static_cast<bool*>(context) = outcome.code == absl::StatusCode::kOk;
    };
    bool done = false;
    spec.context = &done;
    spec.timed = false;
    CallHandle handle;
    WEFT_CHECK(caller_.Start(*route_, spec, kNsPerSecond, &handle) == StartState::kStarted);
    caller_.Publish();
    in_->channel->Poll(*in_sink_, 32);
    callee_.Publish();
    out_->channel->Poll(*out_sink_, 32);
    WEFT_CHECK(done);
  }

  void Burst(std::span<const std::byte> message, int count) {
    CallSpec spec;
    spec.request = message;
    bool in_parts = false;
    for (int i = 0; i < count; ++i) {
      WEFT_CHECK(caller_.SendOneWay(*route_, spec, kNsPerSecond, &in_parts) == StartState::kStarted);
    }
    caller_.Publish();
    while (in_->channel->Poll(*in_sink_, count) != 0) {
    }
  }

 private:
  CallCore caller_;
  CallCore callee_;
  EchoLocal caller_local_{caller_};
  EchoLocal callee_local_{callee_};
  Link* out_ = nullptr;
  Link* in_ = nullptr;
  RouteEntry* route_ = nullptr;
  std::optional<LinkSink<EchoLocal>> out_sink_;
  std::optional<LinkSink<EchoLocal>> in_sink_;
};

void BM_Call(benchmark::State& state) {
  Pair pair(Policy{.calls_per_second_max = 2'000'000'000});
  std::vector<std::byte> request(static_cast<std::size_t>(state.range(0)));
  std::vector<std::byte> response(request.size());
  for (auto _ : state) pair.Call(request, response);
}
BENCHMARK(BM_Call)->Arg(64)->Arg(1024)->Arg(65536);

void BM_OneWayBurst(benchmark::State& state) {
  Pair pair(Policy{});
  const std::array<std::byte, 64> message{};
  for (auto _ : state) pair.Burst(message, 32);
  state.SetItemsProcessed(state.iterations() * 32);
}
BENCHMARK(BM_OneWayBurst);

}  // namespace
}  // namespace weft
