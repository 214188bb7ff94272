// SPDX-License-Identifier: Apache-2.0
// MeshImpl: calls that this process makes.
#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/status.h"
#include "dataplane/client/mesh_impl.h"

namespace weft {
namespace {

// A ring that has no room is looked at again this often, where its peer's ring of the doorbell should get
// lost.
constexpr uint64_t kRoomCheckNs = 10 * kNsPerMs;
// For so long, calls one after another wait on their channel alone; then the poller has its turn.
constexpr uint64_t kDirectNs = 50 * kNsPerUs;

}  // namespace

// The end of a call that a thread waits for.
struct MeshImpl::SyncWait {
  bool done = false;
  absl::StatusCode code = absl::StatusCode::kOk;
  uint32_t bytes = 0;
  std::string text;
  std::string* response = nullptr;  // Of CallForString.

  static std::byte* Reserve(void* context, uint32_t bytes) {
    auto& wait = *static_cast<SyncWait*>(context);
    wait.response->resize(bytes);
    return reinterpret_cast<std::byte*>(wait.response->data());
  }
  static void Done(void* context, const CallOutcome& outcome) {
    auto& wait = *static_cast<SyncWait*>(context);
    wait.done = true;
    wait.code = outcome.code;
    wait.bytes = outcome.response_bytes;
    if (!outcome.text.empty()) [[unlikely]]
      wait.text.assign(outcome.text.data(), outcome.text.size());
  }
};

// A call that a thread waits for, while it is under way.
struct MeshImpl::Started {
  CallHandle handle;
  bool local = false;  // It runs in this process; then `local_id` names it, and `handle` nothing.
  uint32_t local_id = 0;
};

namespace {

absl::Status TooLate(const RouteEntry& route) {
  return absl::DeadlineExceededError(absl::StrCat("call of ", route.callee, ": no time left to send it"));
}

}  // namespace

// Both inlined: a call's header waits for them.
WEFT_HOT_INLINE uint64_t MeshImpl::DeadlineOf(const RouteEntry& route, const CallOptions& options,
                                              uint64_t now_ns) const {
  uint64_t timeout_ns = route.policy.timeout_ns;
  if (options.timeout > absl::ZeroDuration()) [[unlikely]] {
    // A century is for ever, and does not overflow.
    timeout_ns =
        static_cast<uint64_t>(absl::ToInt64Nanoseconds(std::min(options.timeout, absl::Hours(876'000))));
  }
  uint64_t deadline_ns = now_ns + timeout_ns;
  if (current_ != nullptr && current_->incoming_.deadline_ns != 0) {
    deadline_ns = std::min(deadline_ns, current_->incoming_.deadline_ns);
  }
  return deadline_ns;
}

WEFT_HOT_INLINE std::span<const std::byte> MeshImpl::TraceOf(const CallOptions& options) const {
  if (options.trace != nullptr) [[unlikely]]
    return options.trace->wire();
  if (current_ != nullptr && current_->trace_.has_value()) [[unlikely]]
    return current_->trace_->wire();
  return {};
}

// What a call costs the thread that makes it and waits; all that is odd is out of line.
WEFT_HOT_INLINE absl::Status MeshImpl::CallAndWait(RouteEntry& route, std::span<const std::byte> request,
                                                   std::span<std::byte> response, CallReserve reserve,
                                                   const CallOptions& options, SyncWait& wait) {
  core_.ExpectCall(route);  // First, since the lines take longer than all that follows.
  if (HandlerCancelled()) [[unlikely]]
    return RefuseCancelled(route);
  if (nesting_ > kNestingMax) [[unlikely]]
    return RefuseToWait(route);
  const uint64_t now_ns = loop_.NowNs();
  // All at once: where members are set after they were made, GCC first clears the record by a string
  // instruction, 5 ns of the 46 that a call takes until it is published.
  const CallSpec spec{.request = Payload(TraceOf(options), request),
                      .response = response,
                      .reserve = reserve,
                      .done = SyncWait::Done,
                      .context = &wait,
                      .deadline_ns = DeadlineOf(route, options, now_ns),
                      .timed = false};
  Started started;
  core_.Publish();  // What was started before goes first.
  StartState state = StartState::kNoRoom;
  if (route.known && now_ns < spec.deadline_ns) [[likely]]
    state = core_.StartNow(route, spec, now_ns, &started.handle);
  if (state != StartState::kStarted) [[unlikely]] {
    WEFT_RETURN_IF_ERROR(StartSlowly(route, spec, state, &started));
  } else if (now_ns < direct_until_ns_) [[likely]] {
    loop_.PollLinkFor(*core_.link(core_.table().At(started.handle.slot)->link), wait.done);
  } else if (served_.empty()) {
    direct_until_ns_ = now_ns + kDirectNs;
  }
  if (!wait.done) [[unlikely]]
    WEFT_RETURN_IF_ERROR(WaitForAnswer(route, spec, started, wait));
  if (wait.code != absl::StatusCode::kOk) [[unlikely]]
    return absl::Status(wait.code, wait.text);
  return absl::OkStatus();
}

[[gnu::noinline, gnu::cold]] absl::Status MeshImpl::RefuseCancelled(const RouteEntry& route) {
  return absl::CancelledError(
      absl::StrCat("call of ", route.callee, ": the call being handled was cancelled"));
}

[[gnu::noinline, gnu::cold]] absl::Status MeshImpl::RefuseToWait(const RouteEntry& route) {
  return absl::ResourceExhaustedError(
      absl::StrCat(route.callee, ": ", kNestingMax, " calls wait on top of each other"));
}

// Starts a call that did not start at once, as `state` says: its route is not known yet, there is no room,
// its callee is in this process, or the deadline has passed already.
absl::Status MeshImpl::StartSlowly(RouteEntry& route, const CallSpec& spec, StartState state,
                                   Started* started) {
  for (;;) {
    const uint64_t before_ns = loop_.NowNs();
    switch (state) {
      case StartState::kStarted:
        core_.Publish();
        return absl::OkStatus();
      case StartState::kFailed:
        return core_.start_error();
      case StartState::kLocal:
        started->local = true;
        return StartLocal(route, spec, before_ns, &started->local_id);
      case StartState::kNoRoom:
        if (route.known && before_ns < spec.deadline_ns)
          WaitTurn(std::min(spec.deadline_ns, before_ns + kRoomCheckNs));
    }
    WEFT_RETURN_IF_ERROR(WaitForRoute(route, spec.deadline_ns));
    const uint64_t now_ns = loop_.NowNs();
    if (now_ns >= spec.deadline_ns) return TooLate(route);
    core_.Publish();
    state = core_.Start(route, spec, now_ns, &started->handle);
  }
}

// Waits with the poller until the call is done; an error where it was given up without `wait` hearing of it.
absl::Status MeshImpl::WaitForAnswer(const RouteEntry& route, const CallSpec& spec, const Started& started,
                                     SyncWait& wait) {
  // The answer to what was sent just now is worth polling for, whatever this thread did before.
  loop_.NoteWork();
  while (!wait.done) {
    WaitTurn(spec.deadline_ns);
    if (wait.done) [[likely]]
      break;
    const bool cancelled = HandlerCancelled();
    if (!cancelled && loop_.NowNs() < spec.deadline_ns) continue;
    if (started.local) {
      LeaveLocal(started.local_id);
      return cancelled ? absl::CancelledError("the call being handled was cancelled") : TooLate(route);
    }
    cancelled ? core_.Cancel(started.handle) : core_.Expire(started.handle);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::size_t> Client::Call(Function function, std::span<const std::byte> request,
                                         std::span<std::byte> response, const CallOptions& options) {
  MeshImpl::Inside inside(impl_);
  MeshImpl::SyncWait wait;
  WEFT_RETURN_IF_ERROR(
      impl_.CallAndWait(*function.route(), request, response, /*reserve=*/nullptr, options, wait));
  return wait.bytes;
}

absl::StatusOr<std::string> Client::Call(Function function, absl::string_view request,
                                         const CallOptions& options) {
  MeshImpl::Inside inside(impl_);
  MeshImpl::SyncWait wait;
  std::string response;
  wait.response = &response;
  WEFT_RETURN_IF_ERROR(impl_.CallAndWait(*function.route(),
                                         std::as_bytes(std::span(request.data(), request.size())),
                                         /*response=*/{}, MeshImpl::SyncWait::Reserve, options, wait));
  return response;
}

absl::Status MeshImpl::Send(RouteEntry& route, std::span<const std::span<const std::byte>> messages,
                            const CallOptions& options, std::size_t* sent) {
  SyncWait wait;
  uint64_t now_ns = loop_.NowNs();
  CallSpec spec;
  spec.request.prefix = TraceOf(options);
  spec.deadline_ns =
      DeadlineOf(route, options, now_ns);  // One for all: messages with the same travel closer.
  spec.done = SyncWait::Done;
  spec.context = &wait;
  for (*sent = 0; *sent < messages.size();) {
    bool in_parts = false;
    StartState state;
    if (const auto left = messages.subspan(*sent); spec.request.prefix.empty() && CallCore::MayRun(left)) {
      uint32_t count = 0;
      state = core_.SendRun(route, left, spec.deadline_ns, &count);
      *sent += count;
      if (state == StartState::kStarted) [[likely]]
        continue;
      if (state == StartState::kNoRoom && core_.AwaitRoomBriefly(route)) continue;
      spec.request.body = left.front();  // Of a callee in this process, one by one.
    } else {
      spec.request.body = messages[*sent];
      state = core_.SendOneWay(route, spec, now_ns, &in_parts);
    }
    if (state != StartState::kStarted || in_parts) [[unlikely]]
      WEFT_RETURN_IF_ERROR(SendOddly(route, spec, state, in_parts, &now_ns));
    // What SendOddly waited for was room: the message is still to go.
    if (state != StartState::kNoRoom) ++*sent;
  }
  core_.Publish();
  return absl::OkStatus();
}

// A one-way that did not simply go out. OK: it went another way, or there may be room for it now.
absl::Status MeshImpl::SendOddly(RouteEntry& route, CallSpec& spec, StartState state, bool in_parts,
                                 uint64_t* now_ns) {
  auto& wait = *static_cast<SyncWait*>(spec.context);
  switch (state) {
    case StartState::kStarted:
      // The memory of a long message is the caller's: it is gone when this returns.
      while (in_parts && !wait.done) WaitTurn(weft::NowNs() + kRoomCheckNs);
      wait.done = false;
      *now_ns = loop_.NowNs();
      if (wait.code == absl::StatusCode::kOk) return absl::OkStatus();
      return absl::Status(wait.code, absl::StrCat("message to ", route.callee,
                                                  wait.code == absl::StatusCode::kDeadlineExceeded
                                                      ? ": its host did not read all of it in time"
                                                      : ": its host stopped reading"));
    case StartState::kLocal: {
      uint32_t local_id = 0;
      CallSpec one_way = spec;
      one_way.done = nullptr;
      return StartLocal(route, one_way, *now_ns, &local_id);
    }
    case StartState::kFailed:
      return core_.start_error();
    case StartState::kNoRoom:
      break;
  }
  if (nesting_ > kNestingMax) return RefuseToWait(route);
  WaitTurn(std::min(spec.deadline_ns, *now_ns + kRoomCheckNs));
  *now_ns = loop_.NowNs();
  return *now_ns >= spec.deadline_ns ? TooLate(route) : absl::OkStatus();
}

// --- Batches and callbacks

void MeshImpl::CallBatch(std::span<BatchCall> calls, const CallOptions& options) {
  struct Member {
    BatchCall* call;
    std::size_t* left;
  };
  std::vector<Member> members(calls.size());
  std::size_t left = 0;
  const Client::Callback callback = [](void* context, const CallResult& result) {
    auto& member = *static_cast<Member*>(context);
    member.call->result = result.status();
    member.call->response_bytes = result.response_bytes;
    --*member.left;
  };
  for (std::size_t i = 0; i < calls.size();) {
    members[i] = {&calls[i], &left};
    RouteEntry& route = *calls[i].function.route();
    absl::Status started;
    if (nesting_ > kNestingMax) {
      calls[i++].result = RefuseToWait(route);
      continue;
    }
    if (!route.known) started = WaitForRoute(route, DeadlineOf(route, options, loop_.NowNs()));
    if (started.ok()) {
      started =
          CallAsync(route, calls[i].request, calls[i].response, callback, &members[i], options).status();
    }
    if (started.ok()) {
      ++left;
    } else if (absl::IsResourceExhausted(started) && left != 0) {
      // What is under way makes room; all of it has deadlines.
      WaitTurn(kNoDeadline);
      continue;
    } else {
      calls[i].result = started;
    }
    ++i;
  }
  while (left != 0) WaitTurn(kNoDeadline);
}

MeshImpl::Async* MeshImpl::TakeAsync() {
  if (free_async_ == nullptr) {
    free_async_ = &asyncs_.emplace_back();
    free_async_->mesh = this;
  }
  Async* const async = free_async_;
  free_async_ = async->next;
  return async;
}

void MeshImpl::GiveAsync(Async* async) {
  async->callback = nullptr;
  async->next = free_async_;
  free_async_ = async;
}

void MeshImpl::RunOwned(void* context, const CallResult& result) {
  const std::unique_ptr<OwnedCallback> own(static_cast<OwnedCallback*>(context));
  (*own)(result);
}

void MeshImpl::AsyncDone(void* context, const CallOutcome& outcome) {
  auto* const async = static_cast<Async*>(context);
  async->result.code = outcome.code;
  async->result.response_bytes = outcome.response_bytes;
  async->text.assign(outcome.text.data(), outcome.text.size());
  async->next = nullptr;
  MeshImpl& mesh = *async->mesh;
  (mesh.ended_last_ != nullptr ? mesh.ended_last_->next : mesh.ended_first_) = async;
  mesh.ended_last_ = async;
}

void MeshImpl::RunCallbacks(int* ran) {
  while (ended_first_ != nullptr && *ran < kRunMax) {
    Async* const async = ended_first_;
    ended_first_ = async->next;
    if (ended_first_ == nullptr) ended_last_ = nullptr;
    async->result.text = async->text;
    const bool outer = std::exchange(calling_back_, true);
    // It may wait, as a handler may, and others run on top of it then.
    ++nesting_;
    {
      Outside outside(*this);
      async->callback(async->context, async->result);
    }
    --nesting_;
    calling_back_ = outer;
    GiveAsync(async);
    ++*ran;
    if (++callbacks_unpolled_ >= kRunMax && ready_.first() == nullptr) [[unlikely]]
      Poll();
  }
}

absl::StatusOr<CallId> MeshImpl::CallAsync(RouteEntry& route, std::span<const std::byte> request,
                                           std::span<std::byte> response, Client::Callback callback,
                                           void* context, const CallOptions& options) {
  if (!route.known) return absl::UnavailableError(absl::StrCat("call of ", route.callee, ": no route yet"));
  const uint64_t now_ns = loop_.NowNs();
  Async* const async = TakeAsync();
  async->callback = callback;
  async->context = context;
  CallSpec spec;
  spec.request = Payload(TraceOf(options), request);
  // The handler whose trace it inherits may return before the call is done.
  if (options.trace == nullptr && !spec.request.prefix.empty()) [[unlikely]] {
    async->trace = *current_->trace_;
    spec.request.prefix = async->trace.wire();
  }
  spec.response = response;
  spec.done = AsyncDone;
  spec.context = async;
  spec.deadline_ns = DeadlineOf(route, options, now_ns);
  CallHandle handle;
  absl::Status status;
  switch (core_.Start(route, spec, now_ns, &handle)) {
    case StartState::kStarted:
      return CallId{handle.slot, handle.generation};
    case StartState::kLocal: {
      uint32_t local_id = 0;
      status = StartLocal(route, spec, now_ns, &local_id);
      if (status.ok()) return CallId{kLocalSlot, local_id};
      break;
    }
    case StartState::kNoRoom:
      status =
          absl::ResourceExhaustedError(absl::StrCat("call of ", route.callee, ": no room to send it now"));
      break;
    case StartState::kFailed:
      status = core_.start_error();
      break;
  }
  GiveAsync(async);
  return status;
}

bool MeshImpl::Cancel(CallId call) {
  if (call.slot != kLocalSlot) return core_.Cancel({call.slot, call.generation});
  if (!GiveUpLocal(call.generation, absl::StatusCode::kCancelled, "cancelled")) return false;
  ++core_.counters().calls_cancelled;
  return true;
}

}  // namespace weft
