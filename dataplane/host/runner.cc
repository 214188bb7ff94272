// SPDX-License-Identifier: Apache-2.0
// The runner's thread: a small engine for each run, the run, and what is said of it.
#include "dataplane/host/runner.h"

#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "dataplane/api/run_once.h"
#include "dataplane/base/status.h"
#include "dataplane/base/text.h"
#include "dataplane/host/function.h"
#include "dataplane/host/host.h"
#include "dataplane/host/module.h"
#include "spdlog/spdlog.h"

namespace weft::host {
namespace {

// What is run once neither calls nor is called. What it says on standard error goes to the log.
class Alone final : public CallsOut, public CallsIn, public GuestLog {
 public:
  void Release(Callee&) override {}
  absl::StatusOr<Callee*> Resolve(Function&, absl::string_view) override {
    return absl::FailedPreconditionError("what is run once calls nothing");
  }
  Function* EnterLocal(Callee&, CallContext&, bool, Status*) override { return nullptr; }
  void LeaveLocal(Function&) override {}
  void Start(OutCall&) override {}
  void PollBriefly(OutCall&) override {}
  Status Send(Callee&, absl::Span<const std::byte>, const CallContext&) override {
    return kFailedPrecondition;
  }
  void Cancel(OutCall&) override {}
  void Expire(OutCall&) override {}
  bool Reply(InCall&, Status, absl::Span<const std::byte>) override { return true; }
  // The instance bounds how many there are.
  void Line(absl::string_view function, uint32_t, absl::string_view text) override {
    spdlog::info("{}: {}", std::string(function), absl::Utf8SafeCEscape(text));
  }
};

// Of the engine's chain of causes the trap, where there is one; else the first line.
std::string CauseOf(absl::string_view text) {
  constexpr absl::string_view kTrap = "wasm trap: ";
  if (const size_t at = text.rfind(kTrap); at != absl::string_view::npos)
    text.remove_prefix(at + kTrap.size());
  return std::string(text.substr(0, text.find('\n')));
}

std::string ErrorOf(const absl::Status& status, const RunState& state, uint64_t run_ns) {
  if (state.stopped()) return "the host ended while it ran";
  std::string late = absl::StrCat("it ran longer than its limit of ", run_ns / kNsPerMs, " ms");
  if (state.late) return late;
  if (state.output_full) return absl::StrCat("it printed more than ", state.output_bytes_max, " bytes");
  if (state.exit_code.has_value()) {
    return *state.exit_code == 0 ? std::string() : absl::StrCat("it exited with code ", *state.exit_code);
  }
  if (status.ok()) return "";
  if (absl::IsDeadlineExceeded(status)) return late;
  if (absl::IsInvalidArgument(status)) return std::string(status.message());
  return absl::StrCat("it failed: ", CauseOf(status.message()));
}

uint64_t ThreadCpuNs() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<uint64_t>(now.tv_sec) * kNsPerSecond + static_cast<uint64_t>(now.tv_nsec);
}

absl::Status RunIn(Function& function, const api::RunOnce& run, std::string* value, api::RunEnded* ended) {
  Instance* const instance = function.Take();  // The clean one that Create() has made
  if (instance == nullptr) return absl::ResourceExhaustedError(function.start_fault());
  const absl::Status status =
      instance->RunExport(run.entry(), {run.inputs().begin(), run.inputs().end()}, value);
  ended->set_memory_bytes(instance->MemoryBytes());
  instance->Spoil();
  function.GiveBack(instance);
  return status;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Runner>> Runner::Create(const EngineOptions& engine,
                                                       const ModuleCache* cache) {
  WEFT_ASSIGN_OR_RETURN(UniqueFd done_fd, (JobQueue<Job, api::RunEnded>::MakeFd()));
  return std::unique_ptr<Runner>(new Runner(engine, cache, std::move(done_fd)));
}

Runner::Runner(const EngineOptions& engine, const ModuleCache* cache, UniqueFd done_fd)
    : engine_options_(engine), cache_(cache), queue_(std::move(done_fd)), thread_([this] { Loop(); }) {
  pthread_setname_np(thread_.native_handle(), "weft-runner");
}

Runner::~Runner() {
  queue_.Stop();
  stop_.store(true, std::memory_order_relaxed);  // Relaxed: join() orders what the thread did.
  thread_.join();
}

bool Runner::TryAdd(api::RunOnce run, UniqueFd module) {
  return queue_.TryAdd({std::move(run), std::move(module)}, kRunsMax);
}

void Runner::Loop() {
  while (const std::optional<Job> job = queue_.Take()) queue_.Finish(Run(*job));
}

// The limits of this run: its function's, within the host's.
absl::Status Runner::Prepare(const api::RunOnce& run, EngineOptions* engine, uint64_t* memory_bytes,
                             uint64_t* run_ns) const {
  WEFT_RETURN_IF_ERROR(CheckRunOnce(run));
  const api::GuestLimits& limits = run.function().guest_limits();
  *engine = engine_options_;
  engine->instances_max = engine->fibers_max = 1;
  if (limits.stack_bytes_max() != 0) engine->wasm_stack_bytes = limits.stack_bytes_max();
  if (engine->wasm_stack_bytes > engine_options_.wasm_stack_bytes ||
      engine->wasm_stack_bytes < Engine::kStackBytesMin) {
    return absl::InvalidArgumentError(absl::StrCat("a stack limit of ", engine->wasm_stack_bytes,
                                                   " bytes is outside this host's ", Engine::kStackBytesMin,
                                                   " to ", engine_options_.wasm_stack_bytes));
  }
  *memory_bytes =
      limits.memory_bytes_max() != 0 ? limits.memory_bytes_max() : FunctionOptions().memory_bytes_max;
  if (*memory_bytes > engine_options_.memory_bytes_max) {
    return absl::InvalidArgumentError(absl::StrCat("a memory limit of ", *memory_bytes,
                                                   " bytes is above this host's ",
                                                   engine_options_.memory_bytes_max));
  }
  *run_ns = limits.run_ns_max() != 0 ? limits.run_ns_max() : kRunNs;
  *run_ns = std::clamp<uint64_t>(*run_ns, kNsPerMs, uint64_t{UINT32_MAX - 2} * kNsPerMs);
  return absl::OkStatus();
}

api::RunEnded Runner::Run(const Job& job) const {
  const api::RunOnce& run = job.run;
  RunState state;
  state.stop = &stop_;
  state.output_bytes_max = kRunResultBytesMax;
  state.args.push_back(run.entry());
  state.args.insert(state.args.end(), run.args().begin(), run.args().end());
  state.env.assign(run.env().begin(), run.env().end());
  uint64_t run_ns = 0;
  std::string value;
  api::RunEnded ended;
  ended.set_run(run.run());
  const auto ran = [&]() -> absl::Status {
    EngineOptions engine_options;
    FunctionOptions options;
    WEFT_RETURN_IF_ERROR(Prepare(run, &engine_options, &options.memory_bytes_max, &run_ns));
    Sha256 hash;
    std::memcpy(hash.data(), run.sha256().data(), hash.size());
    WEFT_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, Engine::Create(engine_options));
    WEFT_ASSIGN_OR_RETURN(
        std::shared_ptr<const Module> module,
        Module::LoadFd(*engine, job.module.get(), "the module", hash, cache_, ModuleUse::kRunOnce));
    Alone alone;
    Host host(*engine, {1, 1}, alone, alone, alone);
    options.keep = true;  // One instance, and it is never made clean.
    options.time_limit_ms = static_cast<uint32_t>(run_ns / kNsPerMs);
    options.run = &state;
    const uint64_t begin_ns = NowNs(), begin_cpu_ns = ThreadCpuNs();
    state.end_ns = begin_ns + run_ns;
    WEFT_ASSIGN_OR_RETURN(const std::unique_ptr<Function> function,
                          Function::Create(host, run.function().name(), std::move(module), options));
    const absl::Status status = RunIn(*function, run, &value, &ended);
    ended.set_cpu_ns(ThreadCpuNs() - begin_cpu_ns);
    ended.set_elapsed_ns(NowNs() - begin_ns);
    return status;
  };
  const absl::Status status = ran();
  ended.set_error(std::string(Utf8Prefix(ErrorOf(status, state, run_ns), kRunErrorBytesMax)));
  // What it printed before it failed helps to find out why.
  ended.set_result(state.output.empty() ? value : state.output);
  return ended;
}

}  // namespace weft::host
