// SPDX-License-Identifier: Apache-2.0
// MeshImpl: making, attaching and running. Calls out are in mesh_call.cc, calls in in mesh_serve.cc.
#include "dataplane/client/mesh_impl.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/status.h"

namespace weft {
namespace {

// A server that is drained ends once nothing has come for this long, as weft-host does; looked at so often.
constexpr uint64_t kQuietNs = 20 * kNsPerMs;
constexpr uint64_t kDrainTurnNs = kNsPerMs;

}  // namespace

absl::StatusOr<std::unique_ptr<MeshImpl>> MeshImpl::Create(const MeshOptions& options) {
  WEFT_RETURN_IF_ERROR(Ownership::Prepare());
  SessionOptions session_options;
  session_options.run_dir = options.run_dir;
  session_options.host = options.host;
  session_options.call_as = options.call_as;
  session_options.admin = options.admin;
  session_options.calls_max = options.calls_max;
  if (options.poll_time >= absl::ZeroDuration()) {
    session_options.poll_time_ns = static_cast<uint64_t>(absl::ToInt64Nanoseconds(options.poll_time));
  }
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<Session> session, Session::Create(session_options));
  std::unique_ptr<MeshImpl> mesh(new MeshImpl(session_options, std::move(session)));
  mesh->stop_fd_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!mesh->stop_fd_.valid()) return absl::ErrnoToStatus(errno, "make an eventfd");
  MeshImpl* const raw = mesh.get();
  WEFT_RETURN_IF_ERROR(mesh->session_->poller().AddFd(mesh->stop_fd_.get(), EPOLLIN, [raw](uint32_t) {
    uint64_t ignored;
    [[maybe_unused]] const ssize_t bytes = read(raw->stop_fd_.get(), &ignored, sizeof(ignored));
  }));
  return mesh;
}

MeshImpl::MeshImpl(const SessionOptions& options, std::unique_ptr<Session> session)
    : options_(options), session_(std::move(session)), core_(session_->core()), loop_(*session_, *this) {
  session_->set_events(this);
}

MeshImpl::~MeshImpl() {
  keeper_.reset();
  // What callbacks that will not run any more and handlers hold may be deferred calls, which answer as they
  // go. By index: their ends may come here.
  for (std::size_t i = 0; i < asyncs_.size(); ++i) {
    Async& async = asyncs_[i];
    if (async.callback == RunOwned) delete static_cast<OwnedCallback*>(std::exchange(async.context, nullptr));
  }
  for (Served& served : served_) served.holder.reset();
  while (RequestBuffer* request = ready_.Pop()) pool_.Give(request);
}

absl::Status MeshImpl::Attach(absl::Duration timeout) {
  if (session_->welcomed()) return absl::FailedPreconditionError("attached already");
  const absl::Time until = absl::Now() + timeout;
  session_->Start();
  while (!session_->attached()) {
    if (session_->refused()) {
      session_->Stop();
      return session_->last_error();
    }
    const absl::Duration left = until - absl::Now();
    if (left <= absl::ZeroDuration()) {
      session_->Stop();
      const absl::string_view why = session_->last_error().message();
      return absl::DeadlineExceededError(absl::StrCat("attach to the agent in ", options_.run_dir, ": ",
                                                      why.empty() ? "no answer in time" : why));
    }
    loop_.Wait(weft::NowNs() + static_cast<uint64_t>(absl::ToInt64Nanoseconds(left)));
  }
  keeper_ = std::make_unique<Keeper>(*session_, ownership_, [this] { loop_.ServeAgent(); });
  return absl::OkStatus();
}

absl::Status MeshImpl::Register(absl::string_view name, Server::RawHandler handler, void* state,
                                std::shared_ptr<void> holder) {
  WEFT_RETURN_IF_ERROR(CheckFunctionName(name));
  if (core_.Function(FunctionIdOf(name)).user != nullptr) {
    return absl::AlreadyExistsError(absl::StrCat(name, " is served by this process already"));
  }
  served_.push_back({handler, state, std::move(holder)});
  served_.back().function = &core_.Serve(name, &served_.back());
  session_->AddServed(std::string(name));
  return absl::OkStatus();
}

std::vector<api::FunctionStats> MeshImpl::Functions() {
  std::vector<api::FunctionStats> all;
  for (const Served& served : served_) {
    api::FunctionStats& stats = all.emplace_back();
    stats.set_function(served.function->name);
    stats.set_calls(served.calls);
    stats.set_failures(served.failures);
    stats.set_bytes_in(served.bytes_in);
    stats.set_bytes_out(served.bytes_out);
  }
  return all;
}

absl::Status MeshImpl::Run() {
  if (!session_->welcomed()) return absl::FailedPreconditionError("run a server: not attached");
  while (!stop_.load(std::memory_order_relaxed)) {  // Relaxed: the eventfd wakes, and orders.
    WaitTurn(draining_ ? weft::NowNs() + kDrainTurnNs : kNoDeadline);
    if (draining_ && QuietForDrain()) {
      session_->SendDrained();
      drained_ = true;
      break;
    }
  }
  stop_.store(false, std::memory_order_relaxed);
  return absl::OkStatus();
}

void MeshImpl::Stop() {
  stop_.store(true, std::memory_order_relaxed);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(stop_fd_.get(), &one, sizeof(one));
}

// All routes led elsewhere before the agent asked to drain. What is still to come is in the rings already,
// but for what found no room in one before, and one-ways that another node has just handed over.
bool MeshImpl::QuietForDrain() {
  const bool quiet =
      loop_.PollOnce() == 0 && ready_.size() == 0 && core_.incoming_in_flight() == 0 && !core_.Busy();
  const uint64_t now_ns = weft::NowNs();
  const uint64_t received = core_.counters().requests_received;
  if (!quiet || quiet_since_ns_ == 0 || received != quiet_received_) quiet_since_ns_ = now_ns;
  quiet_received_ = received;
  return now_ns - quiet_since_ns_ >= kQuietNs;
}

absl::StatusOr<RouteEntry*> MeshImpl::Resolve(absl::string_view name, absl::string_view caller) {
  WEFT_RETURN_IF_ERROR(CheckFunctionName(name));
  if (!caller.empty() && caller.find('/') != absl::string_view::npos) {
    WEFT_RETURN_IF_ERROR(CheckFunctionName(caller));
  }
  if (!session_->welcomed()) return absl::FailedPreconditionError("resolve a function: not attached");
  if (caller.empty() && session_->welcome().call_as().empty()) {
    return absl::PermissionDeniedError(absl::StrCat(
        "call of ", name, ": the agent lets this user call as no namespace (`call_as` in weftd.yaml)"));
  }
  return &session_->Subscribe(caller, name);
}

// What a handler or a callback interrupts may be about to call by any route, and nothing counts that.
bool MeshImpl::Forget(absl::string_view name, absl::string_view caller) {
  if (current_ != nullptr || calling_back_) return false;
  RouteEntry* const route =
      core_.FindRoute(caller.empty() ? session_->welcome().call_as() : std::string(caller), name);
  if (route == nullptr) return true;
  bool in_use = false;
  core_.table().ForEach([&](const OutgoingCall& call) { in_use = in_use || call.route == route; });
  // A handler here reads its caller's name in the route, also after it has been given up.
  if (!served_.empty()) in_use = in_use || core_.Function(route->callee_id).limit.calls() != 0;
  if (!in_use) session_->Unsubscribe(*route);
  return !in_use;
}

absl::Status MeshImpl::WaitForRoute(RouteEntry& route, uint64_t deadline_ns) {
  while (!route.known) {
    if (weft::NowNs() >= deadline_ns) {
      return absl::DeadlineExceededError(
          absl::StrCat("call of ", route.callee, ": the agent has not said where it is", attached_text()));
    }
    WaitTurn(deadline_ns);
  }
  return absl::OkStatus();
}

const char* MeshImpl::attached_text() const { return session_->attached() ? "" : "; the agent is away"; }

}  // namespace weft
