// SPDX-License-Identifier: Apache-2.0
// The host by itself, without channels: calls into guests on each path, resets, calls within the process,
// beside the engine's own cost of a call (WasmCall) and the kernel's of a reset (KernelReset).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "dataplane/base/check.h"
#include "dataplane/host/host.h"
#include "dataplane/host/probe.h"

namespace weft::host {
namespace {

// Takes replies and finds functions of this process; carries nothing.
class NoMesh final : public CallsOut, public CallsIn, public GuestLog {
 public:
  struct Local : Callee {
    Function* function = nullptr;
  };
  void Attach(Host* host) { host_ = host; }
  void Release(Callee&) override {}
  absl::StatusOr<Callee*> Resolve(Function&, absl::string_view name) override {
    auto local = std::make_unique<Local>();
    local->function = host_->Find(name);
    if (local->function == nullptr) return absl::NotFoundError("not here");
    locals_.push_back(std::move(local));
    return locals_.back().get();
  }
  Function* EnterLocal(Callee& callee, CallContext&, bool, Status*) override {
    return static_cast<Local&>(callee).function;
  }
  void LeaveLocal(Function&) override {}
  void Start(OutCall& call) override { host_->Finish(call, kUnavailable, 0); }
  void PollBriefly(OutCall&) override {}
  Status Send(Callee&, absl::Span<const std::byte>, const CallContext&) override { return kOk; }
  void Cancel(OutCall&) override {}
  void Expire(OutCall&) override {}
  bool Reply(InCall&, Status status, absl::Span<const std::byte> reply) override {
    WEFT_CHECK(status == kOk);
    ++replies;
    last.assign(reinterpret_cast<const char*>(reply.data()), std::min<size_t>(reply.size(), kept_bytes));
    return true;
  }
  void Line(absl::string_view, uint32_t, absl::string_view) override {}

  uint64_t replies = 0;
  size_t kept_bytes = 0;
  std::string last;

 private:
  Host* host_ = nullptr;
  std::vector<std::unique_ptr<Local>> locals_;
};

Engine& TheEngine() {
  static std::unique_ptr<Engine> engine = *Engine::Create({.instances_max = 256});
  return *engine;
}

struct Fixture {
  Fixture() : host(TheEngine(), {}, mesh, mesh, mesh) { mesh.Attach(&host); }

  Function& Serve(const std::string& name, const std::string& guest, const FunctionOptions& options) {
    auto module = Module::LoadFile(TheEngine(), absl::StrCat(WEFT_GUEST_DIR, "/", guest, ".wasm"),
                                   std::nullopt, nullptr);
    WEFT_CHECK(module.ok());
    auto function = host.Add(name, *module, options);
    WEFT_CHECK(function.ok());
    return **function;
  }
  void Call(Function& function, absl::string_view request) {
    Status refusal;
    InCall* call = host.Begin(function, static_cast<uint32_t>(request.size()), {}, false, false, &refusal);
    memcpy(call->room, request.data(), request.size());
    const uint64_t before = mesh.replies;
    host.Run(call);
    while (mesh.replies == before) host.RunReady();
  }
  void Promote(Function& function, absl::string_view request) {
    while (!function.plain()) Call(function, request);
  }

  NoMesh mesh;
  Host host;
};

void WasmCall(benchmark::State& state) {
  auto probe = *WasmCallProbe::Create(TheEngine());
  while (state.KeepRunningBatch(1000)) probe->Run(1000);
}
BENCHMARK(WasmCall);

void KernelReset(benchmark::State& state) {
  auto probe = *ResetProbe::Create(static_cast<size_t>(state.range(0)));
  while (state.KeepRunningBatch(100)) probe->Run(100);
}
BENCHMARK(KernelReset)->Arg(1)->Arg(3)->Arg(16);

// Room, handler, reply; 64 B or more into a kept instance of a leaf.
void PlainCall(benchmark::State& state) {
  Fixture fixture;
  Function& answer = fixture.Serve("demo/answer", "micro_answer", {.keep = true});
  const std::string request(static_cast<size_t>(state.range(0)), 'x');
  fixture.Promote(answer, request);
  for (auto _ : state) fixture.Call(answer, request);
}
BENCHMARK(PlainCall)->Arg(64)->Arg(4096);

// The same on a fiber, as every guest that may wait runs.
void FiberCall(benchmark::State& state) {
  Fixture fixture;
  Function& caller = fixture.Serve("demo/caller", "micro_caller", {.keep = true});
  const std::string request(10, '\0');  // No calls.
  for (auto _ : state) fixture.Call(caller, request);
}
BENCHMARK(FiberCall);

// A clean instance for each call, made in between, as in idle moments, or on the path.
void FreshCall(benchmark::State& state) {
  Fixture fixture;
  Function& answer = fixture.Serve("demo/answer", "micro_answer", {});
  const std::string request(64, 'x');
  fixture.Promote(answer, request);
  for (auto _ : state) {
    if (state.range(0) == 1) {
      state.PauseTiming();
      while (fixture.host.IdleWork()) {
      }
      state.ResumeTiming();
    }
    fixture.Call(answer, request);
  }
}
BENCHMARK(FreshCall)->ArgName("clean")->Arg(0)->Arg(1);

// Engine instance dropped, made anew and started up, after one call has dirtied it.
void InstanceReset(benchmark::State& state) {
  Fixture fixture;
  Function& answer = fixture.Serve("demo/answer", "micro_answer", {.clean_target = 1});
  const std::string request(64, 'x');
  fixture.Promote(answer, request);
  while (fixture.host.IdleWork()) {
  }
  for (auto _ : state) {
    state.PauseTiming();
    fixture.Call(answer, request);
    state.ResumeTiming();
    benchmark::DoNotOptimize(fixture.host.IdleWork());
  }
}
BENCHMARK(InstanceReset);

// Guest to guest of one process, the clock read by the calling guest around each call: p50 in ns as `p50`.
void SameProcessCall(benchmark::State& state) {
  Fixture fixture;
  fixture.mesh.kept_bytes = 1 << 20;
  Function& answer = fixture.Serve("demo/answer", "micro_answer", {.keep = state.range(1) == 1});
  Function& caller = fixture.Serve("demo/caller", "micro_caller", {.keep = true, .time_limit_ms = 60'000});
  fixture.Promote(answer, std::string(64, 'x'));
  constexpr uint32_t kCalls = 4096;
  const uint32_t head[] = {kCalls, static_cast<uint32_t>(state.range(0))};
  const std::string request =
      absl::StrCat(absl::string_view(reinterpret_cast<const char*>(head), sizeof head), "demo/answer",
                   std::string(1, '\0'));
  std::vector<uint32_t> ns(kCalls);
  while (state.KeepRunningBatch(kCalls)) fixture.Call(caller, request);
  memcpy(ns.data(), fixture.mesh.last.data(),
         std::min(fixture.mesh.last.size(), ns.size() * sizeof(uint32_t)));
  std::nth_element(ns.begin(), ns.begin() + kCalls / 2, ns.end());
  state.counters["p50"] = ns[kCalls / 2];
}
BENCHMARK(SameProcessCall)->ArgNames({"bytes", "keep"})->Args({64, 1})->Args({4096, 1})->Args({64, 0});

}  // namespace
}  // namespace weft::host
