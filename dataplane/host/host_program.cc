// SPDX-License-Identifier: Apache-2.0
// weft-host's life: start, placements, loop, end.
#include "dataplane/host/host_program.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "spdlog/spdlog.h"

namespace weft::host {
namespace {

// A function without calls for this long, after its routes led elsewhere, gets no more: a message is in a
// ring for microseconds.
constexpr uint64_t kQuietNs = 20 * kNsPerMs;
// Longer where there is always something to do, which messages in rings wait for.
constexpr uint64_t kBusyQuietNs = kNsPerSecond;
// What a host that is told to end gives its calls.
constexpr uint64_t kEndNs = 10 * kNsPerSecond;
constexpr uint64_t kCheckNs = 5 * kNsPerMs;
constexpr uint32_t kLogLinesPerSecond = 100;
// With an engine inside: idle turns between two yields, of 100 ns and more each.
constexpr uint32_t kYieldEvery = 64;

absl::StatusOr<FunctionOptions> OptionsOf(const api::Function& function, const EngineOptions& engine) {
  FunctionOptions options;
  options.keep = function.state() == api::INSTANCE_KEEP;
  const api::GuestLimits& limits = function.guest_limits();
  if (limits.memory_bytes_max() != 0) options.memory_bytes_max = limits.memory_bytes_max();
  if (options.memory_bytes_max > engine.memory_bytes_max) {
    return absl::InvalidArgumentError(absl::StrCat("a memory limit of ", options.memory_bytes_max,
                                                   " bytes is above this host's ", engine.memory_bytes_max));
  }
  if (limits.run_ns_max() != 0) {
    const uint64_t ms = std::clamp<uint64_t>(limits.run_ns_max() / kNsPerMs, 1, UINT32_MAX - 1);
    options.time_limit_ms = static_cast<uint32_t>(ms);
  }
  return options;
}

}  // namespace

absl::StatusOr<std::unique_ptr<HostProgram>> HostProgram::Create(HostProgramOptions options) {
  std::unique_ptr<HostProgram> program(new HostProgram(std::move(options)));
  WEFT_RETURN_IF_ERROR(program->Prepare());
  return program;
}

HostProgram::~HostProgram() {
  loader_.reset();
  runner_.reset();
  if (bridge_) bridge_->set_inside_engine(nullptr);
  inside_.reset();
  host_.reset();  // Cancels what still runs, by way of the bridge.
}

absl::Status HostProgram::Prepare() {
  EngineOptions engine;
  if (options_.waiting_calls_max != 0) engine.fibers_max = options_.waiting_calls_max;
  engine.instances_max = std::max(engine.instances_max, engine.fibers_max);
  WEFT_ASSIGN_OR_RETURN(engine_, Engine::Create(engine));
  if (!options_.cache_dir.empty()) {
    absl::StatusOr<std::unique_ptr<ModuleCache>> cache = ModuleCache::Open(options_.cache_dir);
    if (cache.ok()) {
      cache_ = *std::move(cache);
    } else {
      spdlog::warn("compiled modules are not cached: {}", std::string(cache.status().message()));
    }
  }
  SessionOptions session;
  session.run_dir = options_.run_dir;
  session.host = options_.name;
  session.version = options_.version;
  session.inside_engine = options_.inside_engine;
  session.runs_once = true;
  // With an engine inside, this loop polls for both; what is left to the poller is to sleep.
  session.poll_time_ns = options_.inside_engine ? 0 : options_.poll_time_ns;
  if (options_.inside_engine && options_.poll_time_ns == kCalibratedPollTime)
    options_.poll_time_ns = CalibratedPollTimeNs();
  WEFT_ASSIGN_OR_RETURN(session_, Session::Create(session));
  session_->set_events(this);
  bridge_ = std::make_unique<MeshBridge>(*session_);
  host_ = std::make_unique<Host>(*engine_, HostOptions{}, *bridge_, *bridge_, *this);
  bridge_->Attach(host_.get());
  WEFT_ASSIGN_OR_RETURN(loader_, Loader::Create(cache_.get()));
  for (const HostProgramOptions::Served& served : options_.serve) WEFT_RETURN_IF_ERROR(ServeOwn(served));
  Poller& poller = session_->poller();
  WEFT_RETURN_IF_ERROR(poller.AddFd(loader_->done_fd(), EPOLLIN, [this](uint32_t) { TakeLoaded(); }));
  if (!options_.stop.valid()) return absl::OkStatus();
  return poller.AddFd(options_.stop.get(), EPOLLIN, [this](uint32_t) {
    session_->poller().RemoveFd(options_.stop.get());
    spdlog::info("told to end: draining");
    LeaveAll();
  });
}

absl::Status HostProgram::ServeOwn(const HostProgramOptions::Served& served) {
  WEFT_ASSIGN_OR_RETURN(std::shared_ptr<const Module> module,
                        Module::LoadFile(*engine_, served.path, std::nullopt, cache_.get()));
  FunctionOptions options;
  options.keep = served.keep;
  options.number = served.number;
  WEFT_ASSIGN_OR_RETURN(Function * function, host_->Add(served.function, std::move(module), options));
  bridge_->Serve(*function);
  session_->AddServed(served.function);
  spdlog::info("serving {} from {}, {} state{}", served.function, served.path, served.keep ? "kept" : "fresh",
               function->module().leaf() ? ", a leaf" : "");
  return absl::OkStatus();
}

absl::Status HostProgram::Run() {
  session_->Start();
  HostLoop<MeshBridge>& loop = bridge_->loop();
  while (!Ended()) {
    if (loaded_waits_) TakeLoaded();
    int work = inside_ ? inside_->Turn() : 0;
    work += loop.PollOnce();
    if (bridge_->has_waiting()) bridge_->RetryWaiting();
    work += host_->RunReady();
    session_->core().Publish();
    if (!leaving_.empty() && NowNs() >= leaving_due_ns_) RunLeaving(work != 0);
    if (work != 0) {
      idle_turns_ = 0;
      continue;
    }
    if (session_->refused() && !session_->welcomed()) return session_->last_error();
    if (host_->IdleWork()) continue;
    uint64_t wake_ns = host_->NextDueNs();
    if (bridge_->has_waiting()) wake_ns = std::min(wake_ns, NowNs() + kNsPerMs);
    if (!leaving_.empty() || ending_) wake_ns = std::min(wake_ns, NowNs() + kCheckNs);
    options_.inside_engine ? WaitWithEngine(wake_ns) : static_cast<void>(loop.Wait(wake_ns));
  }
  return absl::OkStatus();
}

void HostProgram::WaitWithEngine(uint64_t wake_ns) {
  const uint64_t now_ns = NowNs();
  if (idle_turns_++ == 0) worked_ns_ = now_ns;
  if (wake_ns <= now_ns) return;
  if (now_ns - worked_ns_ < options_.poll_time_ns && sharing_.MayPoll()) {
    // What others took of the core is no time without work.
    if (idle_turns_ % kYieldEvery == 0 || sharing_.yields_each_poll()) worked_ns_ += sharing_.Yield();
    return;
  }
  if (inside_ && !inside_->PrepareSleep(&wake_ns)) {
    if (inside_->LostXdp()) OnXdpLost();
    return;
  }
  bridge_->loop().Wait(wake_ns);
  if (inside_) inside_->EndSleep();
  idle_turns_ = 0;
}

void HostProgram::OnInsideEngine(const api::InsideEngine& given, UniqueFd agent, UniqueFd socket,
                                 UniqueFd twin) {
  if (!options_.inside_engine) return;
  bridge_->set_inside_engine(nullptr);
  inside_.reset();
  absl::StatusOr<std::unique_ptr<engine::InsideEngine>> inside = engine::InsideEngine::Create(
      given, std::move(agent), std::move(socket), std::move(twin), &session_->poller());
  if (!inside.ok()) {
    spdlog::error("no node engine inside, calls to other nodes go through the agent's: {}",
                  std::string(inside.status().message()));
    return;
  }
  inside_ = *std::move(inside);
  bridge_->set_inside_engine(inside_.get());
  const port::PortStatus port = inside_->port_status();
  spdlog::info("runs the node engine for its own calls: packet port {} at {}", port.port, port.detail);
}

void HostProgram::OnXdpSocket(const api::XdpSocket& given, std::vector<UniqueFd> fds) {
  const absl::Status taken = inside_ == nullptr
                                 ? absl::FailedPreconditionError("there is no engine inside this host")
                                 : inside_->TakeXdp(given, std::move(fds));
  xdp_number_ = given.number();
  session_->SendXdpTaken(xdp_number_, taken);
  if (!taken.ok()) {
    return spdlog::error("the node engine inside goes on without AF_XDP: {}", std::string(taken.message()));
  }
  const port::PortStatus port = inside_->port_status();
  spdlog::info("the node engine inside has packets by {} at {}", port.port, port.detail);
}

void HostProgram::OnXdpLost() {
  const absl::Status lost = absl::UnavailableError("its interface was deleted");
  session_->SendXdpTaken(xdp_number_, lost);
  spdlog::warn("the node engine inside goes on without AF_XDP: {}", std::string(lost.message()));
}

void HostProgram::OnAttached() {
  options_.notifier.Send("READY=1");
  spdlog::info("attached to node {} as host {}", session_->welcome().node(), session_->welcome().host());
}

void HostProgram::OnAway(const absl::Status& why) {
  if (session_->refused() && !session_->welcomed()) return;  // That ends the program, with these words.
  spdlog::warn("no agent: {}; trying again", std::string(why.message()));
}

void HostProgram::OnPlace(const api::Place& place, UniqueFd module) {
  const std::string& name = place.function().name();
  if (ending_) return;
  absl::StatusOr<FunctionOptions> options = OptionsOf(place.function(), engine_->options());
  if (options.ok() && place.sha256().size() != sizeof(Sha256)) {
    options = absl::InvalidArgumentError("the hash of the module is not one of SHA-256");
  }
  const uint64_t stack_bytes = place.function().guest_limits().stack_bytes_max();
  absl::StatusOr<Engine*> engine = stack_bytes == 0 ? engine_.get() : engine_->WithStack(stack_bytes);
  const absl::Status status = options.ok() ? engine.status() : options.status();
  if (!status.ok()) {
    session_->Report(name, api::FunctionReport::FAILED, status.message());
    return;
  }
  Loader::Job job;
  job.function = name;
  job.engine = *engine;
  job.module_fd = std::move(module);
  job.options = *options;
  std::memcpy(job.hash.data(), place.sha256().data(), sizeof(Sha256));
  auto known = std::find_if(placed_.begin(), placed_.end(), [&](const Placed& p) { return p.name == name; });
  if (known == placed_.end()) {
    placed_.push_back({name, nullptr, job.hash});
  } else {
    known->hash = job.hash;
  }
  loader_->Add(std::move(job));
}

void HostProgram::TakeLoaded() {
  // The agent is heard wherever the channels are polled, so within calls that guests make, too.
  loaded_waits_ = host_->InGuest();
  if (loaded_waits_) return;
  for (Loader::Done& done : loader_->TakeDone()) FinishLoad(std::move(done));
}

void HostProgram::FinishLoad(Loader::Done done) {
  const std::string& name = done.job.function;
  auto placed = std::find_if(placed_.begin(), placed_.end(), [&](const Placed& p) { return p.name == name; });
  // Taken back, or placed anew with another module, while this one was being compiled.
  if (placed == placed_.end() || placed->hash != done.job.hash || ending_) return;
  absl::Status status = done.module.status();
  Function* const old = placed->function;
  if (status.ok()) {
    // Calls of the old one go on; new ones go to the new one.
    absl::StatusOr<Function*> added = host_->Add(name, *done.module, done.job.options, old);
    status = added.status();
    if (added.ok()) {
      placed->function = *added;
      bridge_->Serve(**added);
      if (old != nullptr) Leave(*old, false, true);
    }
  }
  if (status.ok()) {
    spdlog::info("placed {}{}", name, (*done.module)->from_cache() ? " (compiled before)" : "");
    session_->Report(name, api::FunctionReport::READY);
  } else {
    spdlog::error("cannot serve {}: {}", name, std::string(status.message()));
    session_->Report(name, api::FunctionReport::FAILED, status.message());
  }
}

void HostProgram::OnUnplace(const std::string& function) {
  auto placed =
      std::find_if(placed_.begin(), placed_.end(), [&](const Placed& p) { return p.name == function; });
  if (placed == placed_.end() || placed->function == nullptr) {
    if (placed != placed_.end()) placed_.erase(placed);
    session_->Report(function, api::FunctionReport::GONE);
    return;
  }
  Function& leaving = *placed->function;
  placed_.erase(placed);
  Leave(leaving, true, false);
}

void HostProgram::OnRunOnce(const api::RunOnce& run, UniqueFd module) {
  absl::Status status = ending_ ? absl::UnavailableError("the host is about to end") : absl::OkStatus();
  if (status.ok() && runner_ == nullptr) {
    absl::StatusOr<std::unique_ptr<Runner>> runner = Runner::Create(engine_->options(), cache_.get());
    status = runner.status();
    if (status.ok()) {
      runner_ = *std::move(runner);
      status = session_->poller().AddFd(runner_->done_fd(), EPOLLIN, [this](uint32_t) {
        for (const api::RunEnded& ended : runner_->TakeDone()) session_->SendRunEnded(ended);
      });
      if (!status.ok()) runner_.reset();
    }
  }
  if (status.ok() && runner_->TryAdd(run, std::move(module))) return;
  if (status.ok()) status = absl::ResourceExhaustedError("the host has too many runs to do already");
  api::RunEnded ended;
  ended.set_run(run.run());
  ended.set_error(std::string(status.message()));
  session_->SendRunEnded(ended);
}

void HostProgram::OnDrain() {
  spdlog::info("drained by the agent");
  answer_drain_ = true;
  LeaveAll();
}

void HostProgram::Leave(Function& function, bool report, bool replaced) {
  leaving_.push_back({&function, function.counters().calls, NowNs(), report, replaced});
}

void HostProgram::LeaveAll() {
  if (ending_) return;
  ending_ = true;
  options_.notifier.Send("STOPPING=1");
  end_by_ns_ = NowNs() + kEndNs;
  placed_.clear();
  for (const std::unique_ptr<Function>& function : host_->functions()) {
    const bool known = std::any_of(leaving_.begin(), leaving_.end(), [&](const Leaving& leaving) {
      return leaving.function == function.get();
    });
    if (known) continue;
    // A host that was drained by the agent has no routes left; one that ends by itself says so first.
    if (!answer_drain_) session_->Report(function->name(), api::FunctionReport::GONE);
    Leave(*function, false, false);
  }
  if (leaving_.empty()) gone_ns_ = NowNs();
}

void HostProgram::RunLeaving(bool busy) {
  const uint64_t now_ns = NowNs();
  const uint64_t quiet_ns = busy ? kBusyQuietNs : kQuietNs;
  leaving_due_ns_ = now_ns + kCheckNs;
  std::erase_if(leaving_, [&](Leaving& leaving) {
    Function& function = *leaving.function;
    const bool late = ending_ && now_ns >= end_by_ns_;
    if (function.counters().calls != leaving.calls_seen || function.has_calls()) {
      leaving.calls_seen = function.counters().calls;
      leaving.quiet_since_ns = now_ns;
      if (!late) return false;
    }
    if (now_ns - leaving.quiet_since_ns < quiet_ns && !late) return false;
    const std::string name = function.name();
    if (!leaving.replaced) bridge_->StopServing(function);
    if (late && function.has_calls()) return true;  // Given up; the end of the process ends it.
    if (!host_->Remove(&function).ok()) return false;
    if (leaving.report) session_->Report(name, api::FunctionReport::GONE);
    return true;
  });
  if (!ending_ || !leaving_.empty()) return;
  if (answer_drain_) session_->SendDrained();
  gone_ns_ = now_ns;
}

std::vector<std::string> HostProgram::Loaded() {
  std::vector<std::string> names;
  for (const Placed& placed : placed_) {
    if (placed.function != nullptr) names.push_back(placed.name);
  }
  return names;
}

void HostProgram::Line(absl::string_view function, uint32_t level, absl::string_view text) {
  const uint64_t now_ns = host_->NowNs();
  if (now_ns - log_window_ns_ > kNsPerSecond) {
    log_window_ns_ = now_ns;
    log_lines_ = 0;
  }
  if (log_lines_ >= kLogLinesPerSecond) {
    ++log_dropped_;
    return;
  }
  ++log_lines_;
  constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::debug, spdlog::level::info,
                                                   spdlog::level::warn, spdlog::level::err};
  // The text is a stranger's: what is not printable is escaped.
  spdlog::log(kLevels[std::min(level, 3u)], "{}: {}", std::string(function), absl::Utf8SafeCEscape(text));
}

}  // namespace weft::host
