// SPDX-License-Identifier: Apache-2.0
// MeshBridge: between CallCore's records and the host's.
#include "dataplane/host/mesh_bridge.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "absl/strings/str_cat.h"
#include "dataplane/base/check.h"

namespace weft::host {
namespace {

static_assert(Trace::kBytes == kTraceBytes);

// What CallsIn::Reply leaves in InCall::mesh while a reply is being read, and OnCancel until the call is
// stopped. A new call begins with 0.
constexpr uint64_t kReplyStarting = 1;
constexpr uint64_t kReplyReading = 2;
constexpr uint64_t kReplyOver = 3;
constexpr uint64_t kCancelNoted = 4;

Payload WithTrace(const CallContext& context, absl::Span<const std::byte> body) {
  const std::span<const std::byte> bytes(body.data(), body.size());
  if (!context.trace.present) return {bytes};
  return {context.trace.wire, bytes};
}

}  // namespace

MeshBridge::MeshBridge(Session& session) : loop_(session, *this), session_(session), core_(session.core()) {}

void MeshBridge::Serve(Function& function) { function.user = &core_.Serve(function.name(), &function); }

void MeshBridge::StopServing(Function& function) {
  auto* local = static_cast<LocalFunction*>(function.user);
  if (local == nullptr) return;
  core_.StopServing(*local);
  local->user = nullptr;
}

// ---- Calls of guests.

absl::StatusOr<Callee*> MeshBridge::Resolve(Function& caller, absl::string_view name) {
  MeshCallee& callee = callees_[{caller.name(), std::string(name)}];
  if (callee.uses++ == 0) {
    callee.route = &session_.Subscribe(caller.name(), name);
    callee.function = &core_.Function(callee.route->callee_id);
    ++callee.function->held;
  }
  return &callee;
}

void MeshBridge::Release(Callee& callee) {
  MeshCallee& mine = static_cast<MeshCallee&>(callee);
  if (--mine.uses != 0) return;
  --mine.function->held;
  const auto found = callees_.find({mine.route->caller, mine.route->callee});
  session_.Unsubscribe(*mine.route);
  callees_.erase(found);
}

// An inherited deadline, and the policy's timeout where the guest did not set one of its own.
uint64_t MeshBridge::DeadlineNs(const RouteEntry& route, uint64_t deadline_ns, bool own_timeout) const {
  if (own_timeout) return deadline_ns;
  // A read of the clock would cost a tenth of a call; only for short timeouts it tells.
  constexpr uint64_t kFineNs = 250 * kNsPerMs;
  const uint64_t timeout_ns = route.policy.timeout_ns;
  const uint64_t policy_ns = (timeout_ns > kFineNs ? host_->CoarseNs() : host_->NowNs()) + timeout_ns;
  return deadline_ns == 0 ? policy_ns : std::min(deadline_ns, policy_ns);
}

Function* MeshBridge::EnterLocal(Callee& callee, CallContext& context, bool own_timeout, Status* refusal) {
  MeshCallee& mine = static_cast<MeshCallee&>(callee);
  // First, since the lines take longer than all that follows. In vain for a one-way that joins a batch.
  core_.ExpectCall(*mine.route);
  const std::span<const weft::Target> near = mine.route->targets.near();
  // Of several targets, or where a part of the calls fails, the call layer chooses: where it chooses this
  // host, Start() comes back to it.
  if (near.size() != 1 || near[0].link != kLocalLink || mine.route->refused_share != 0) return nullptr;
  if (mine.route->targets.targets().size() != 1 && !mine.function->limit.MayEnter(1)) [[unlikely]]
    return nullptr;
  context.deadline_ns = DeadlineNs(*mine.route, context.deadline_ns, own_timeout);
  const absl::Status admitted =
      core_.AdmitLocal(*mine.function, mine.route->caller, context.deadline_ns, host_->CoarseNs());
  if (!admitted.ok()) [[unlikely]] {
    *refusal = static_cast<Status>(admitted.code());
    return nullptr;
  }
  return static_cast<Function*>(mine.function->user);
}

void MeshBridge::LeaveLocal(Function& function) {
  core_.EndLocal(*static_cast<LocalFunction*>(function.user));
}

void MeshBridge::Start(OutCall& call) {
  const MeshCallee& callee = *static_cast<MeshCallee*>(call.callee);
  call.context.deadline_ns = DeadlineNs(*callee.route, call.context.deadline_ns, call.own_timeout);
  if (!TryStart(call)) waiting_.push_back(&call);
}

// False where it must be tried again later.
bool MeshBridge::TryStart(OutCall& call) {
  const MeshCallee& callee = *static_cast<MeshCallee*>(call.callee);
  if (!callee.route->known) [[unlikely]]
    return false;
  CallSpec spec;
  spec.request = WithTrace(call.context, call.request);
  spec.response = {call.room, call.room_bytes};
  spec.reserve = ResponseRoom;
  spec.done = CallEnded;
  spec.context = &call;
  spec.deadline_ns = call.context.deadline_ns;
  spec.timed = false;  // The host watches it, once the guest has been suspended.
  CallHandle handle;
  // A guest that waits for the answer has its request published before anything else; a fan-out goes out as
  // one batch, with the turn of the loop.
  const StartState state = call.awaited ? core_.StartNow(*callee.route, spec, spec.deadline_ns, &handle)
                                        : core_.Start(*callee.route, spec, spec.deadline_ns, &handle);
  switch (state) {
    case StartState::kStarted:
      call.mesh_slot = handle.slot;
      call.mesh_generation = handle.generation;
      return true;
    case StartState::kLocal: {
      const absl::Status admitted =
          core_.AdmitLocal(*callee.function, callee.route->caller, call.context.deadline_ns, host_->NowNs());
      if (admitted.ok()) {
        host_->StartLocal(call, *static_cast<Function*>(callee.function->user));
      } else {
        FinishText(call, admitted.code(), admitted.message());
      }
      return true;
    }
    case StartState::kNoRoom:
      return false;
    case StartState::kFailed:
      FinishText(call, core_.start_error().code(), core_.start_error().message());
      return true;
  }
  return true;
}

void MeshBridge::FinishText(OutCall& call, absl::StatusCode code, absl::string_view text) {
  host_->FinishWith(call, static_cast<Status>(code),
                    {reinterpret_cast<const std::byte*>(text.data()), text.size()});
}

std::byte* MeshBridge::ResponseRoom(void* context, uint32_t bytes) {
  return static_cast<OutCall*>(context)->RoomFor(bytes);
}

void MeshBridge::CallEnded(void* context, const CallOutcome& outcome) {
  OutCall& call = *static_cast<OutCall*>(context);
  Host& host = call.owner->function().host();
  call.mesh_slot = CallHandle{}.slot;
  if (outcome.code == absl::StatusCode::kOk) [[likely]] {
    host.Finish(call, kOk, outcome.response_bytes);
    return;
  }
  host.FinishWith(call, static_cast<Status>(outcome.code),
                  {reinterpret_cast<const std::byte*>(outcome.text.data()), outcome.text.size()});
}

void MeshBridge::PollBriefly(OutCall& call) {
  core_.Publish();
  if (!cancels_.empty()) [[unlikely]]
    return;  // This guest may be meant: it is to suspend.
  for (int i = 0; i < kBriefPolls; ++i) {
    if (inside_ != nullptr) inside_->Turn();
    loop_.PollOnce();
    if (call.state != OutCall::State::kRunning || host_->has_runnable()) return;
  }
}

void MeshBridge::Cancel(OutCall& call) {
  if (std::erase(waiting_, &call) != 0) return;
  core_.Cancel({call.mesh_slot, call.mesh_generation});
}

void MeshBridge::Expire(OutCall& call) {
  if (std::erase(waiting_, &call) != 0) {
    const MeshCallee& callee = *static_cast<MeshCallee*>(call.callee);
    FinishText(call, absl::StatusCode::kDeadlineExceeded,
               absl::StrCat("call of ", callee.route->callee,
                            callee.route->known ? ": no room to send it" : ": no route to it became known"));
    return;
  }
  core_.Expire({call.mesh_slot, call.mesh_generation});
}

Status MeshBridge::Send(Callee& callee, absl::Span<const std::byte> message, const CallContext& context) {
  if (message.size() > core_.message_bytes_max()) return kOutOfRange;
  PendingSend send;
  send.callee = &static_cast<MeshCallee&>(callee);
  send.size = static_cast<uint32_t>(message.size());
  send.context = context;
  RouteEntry& route = *send.callee->route;
  send.context.deadline_ns = DeadlineNs(route, context.deadline_ns, false);
  // One that fits into the ring now needs no copy but the ring's own; and of any size, the guest is told
  // where it is refused now.
  if (route.known && sends_.empty()) {
    CallSpec spec;
    spec.request = WithTrace(send.context, message);
    spec.deadline_ns = send.context.deadline_ns;
    bool in_parts = false;
    const StartState state = core_.SendOneWay(route, spec, spec.deadline_ns, &in_parts);
    if (state == StartState::kStarted && !in_parts) return kOk;
    if (state == StartState::kLocal) return SendLocal(*send.callee, message, send.context);
    if (state == StartState::kFailed) return static_cast<Status>(core_.start_error().code());
  }
  if (sends_.size() >= kSendsMax || send_bytes_ + send.size > kSendBytesMax + core_.message_bytes_max()) {
    return kResourceExhausted;
  }
  send.bytes = std::make_unique_for_overwrite<std::byte[]>(send.size);
  if (send.size != 0) std::memcpy(send.bytes.get(), message.data(), send.size);
  send_bytes_ += send.size;
  ++send.callee->uses;
  sends_.push_back(std::move(send));
  return kOk;
}

// A message that the call layer leaves to this host.
Status MeshBridge::SendLocal(const MeshCallee& callee, absl::Span<const std::byte> message,
                             const CallContext& context) {
  const absl::Status admitted =
      core_.AdmitLocal(*callee.function, callee.route->caller, context.deadline_ns, host_->NowNs());
  if (!admitted.ok()) return static_cast<Status>(admitted.code());
  return host_->SendLocal(*static_cast<Function*>(callee.function->user), message, context);
}

// False where it must be tried again later; else it is gone, or on its way with `in_parts`. Nobody is left to
// hear of a refusal, whether by this host or by another: each has a counter.
bool MeshBridge::TrySend(PendingSend& send) {
  RouteEntry& route = *send.callee->route;
  const uint64_t now_ns = host_->NowNs();
  if (now_ns >= send.context.deadline_ns) {
    ++core_.counters().one_way_expired;
    return true;
  }
  if (!route.known) return false;
  CallSpec spec;
  spec.request = WithTrace(send.context, {send.bytes.get(), send.size});
  spec.deadline_ns = send.context.deadline_ns;
  spec.done = [](void* context, const CallOutcome&) { static_cast<PendingSend*>(context)->sent = true; };
  spec.context = &send;
  const StartState state = core_.SendOneWay(route, spec, now_ns, &send.in_parts);
  if (state == StartState::kLocal) SendLocal(*send.callee, {send.bytes.get(), send.size}, send.context);
  return state != StartState::kNoRoom;
}

void MeshBridge::RetryWaiting() {
  RunCancels();
  for (size_t count = waiting_.size(), at = 0; count > 0; --count) {
    if (at >= waiting_.size()) break;  // Starting one may have ended others.
    OutCall* call = waiting_[at];
    if (TryStart(*call)) {
      std::erase(waiting_, call);
    } else {
      ++at;
    }
  }
  for (auto send = sends_.begin(); send != sends_.end();) {
    const bool over = send->in_parts ? send->sent : TrySend(*send) && (!send->in_parts || send->sent);
    if (!over) {
      ++send;
      continue;
    }
    send_bytes_ -= send->size;
    Release(*send->callee);
    send = sends_.erase(send);
  }
}

// ---- Calls that come in.

std::byte* MeshBridge::OnRequestBegin(const Incoming& incoming, uint32_t bytes) {
  Function* function = static_cast<Function*>(incoming.function->user);
  if (function == nullptr) [[unlikely]]
    return nullptr;
  const bool has_trace = (incoming.flags & kFlagTrace) != 0;
  Status refusal;
  InCall* call = host_->Begin(*function, has_trace ? bytes - kTraceBytes : bytes,
                              {.deadline_ns = incoming.deadline_ns}, has_trace, incoming.one_way(), &refusal);
  if (call == nullptr) [[unlikely]]
    return nullptr;
  begun_.push_back(call);
  return call->room;
}

InCall* MeshBridge::TakeBegun(std::byte* room) {
  auto at = std::find_if(begun_.rbegin(), begun_.rend(), [room](InCall* call) { return call->room == room; });
  WEFT_CHECK(at != begun_.rend());  // The channel ends only messages that it began.
  InCall* call = *at;
  *at = begun_.back();
  begun_.pop_back();
  return call;
}

void MeshBridge::OnRequest(const Incoming& incoming, std::byte* payload, uint32_t bytes) {
  InCall* call = TakeBegun(payload);
  if (host_->RunsPlain(*call)) [[likely]] {
    // Answered before this returns: what the reply needs of `incoming` is read where it lies.
    plain_call_ = call;
    plain_incoming_ = &incoming;
    core_.ExpectReply(incoming);
    host_->Run(call);
    plain_call_ = nullptr;
    return;
  }
  if (call->index >= incoming_.size()) [[unlikely]]
    incoming_.resize(call->index + 64);
  incoming_[call->index] = incoming;
  // A guest that calls out polls the channels, one of which is being polled here.
  running_[KeyOf(incoming.link, incoming.request_id)] = call;
  host_->Defer(call);
}

void MeshBridge::OnRequestAbort(const Incoming& incoming, std::byte* payload) {
  host_->Cancel(TakeBegun(payload));
}

void MeshBridge::OnCancel(uint32_t link, uint32_t request_id) {
  const auto found = running_.find(KeyOf(link, request_id));
  if (found == running_.end()) return;
  InCall* call = found->second;
  // One of a peer whose link this was before.
  if (incoming_[call->index].link_epoch != core_.link(link)->epoch) return;
  if (!host_->InGuest()) return CancelRunning(call);
  // The guest that polls here is within a call that it makes. It may be the one that this cancels, or one
  // that that called: neither can be unwound while it runs.
  if (call->mesh == kCancelNoted) return;
  call->mesh = kCancelNoted;
  cancels_.push_back(call);
}

void MeshBridge::CancelRunning(InCall* call) {
  const Incoming incoming = incoming_[call->index];
  EraseRunning(incoming, call);
  host_->Cancel(call);
  core_.Reply(incoming, absl::StatusCode::kCancelled, {});
}

// Another call may stand there: of a peer that has the link now, with an id that the one before gave too.
void MeshBridge::EraseRunning(const Incoming& incoming, const InCall* call) {
  const auto found = running_.find(KeyOf(incoming.link, incoming.request_id));
  if (found != running_.end() && found->second == call) running_.erase(found);
}

void MeshBridge::RunCancels() {
  for (InCall* call : cancels_) {
    // One that has ended since has no function; where a new call has its record, or its reply is being read,
    // the mark is gone.
    if (call->function != nullptr && call->mesh == kCancelNoted) CancelRunning(call);
  }
  cancels_.clear();
}

void MeshBridge::ReplyOut(void* context, bool sent) {
  InCall* call = static_cast<InCall*>(context);
  if (call->mesh == kReplyReading) {
    call->function->host().ReplySent(call);
  } else {
    call->mesh = kReplyOver;
  }
}

// Shows the caller its reply before this side does its own clearing up, unless more requests lie there: their
// replies then go out together, with the turn of the loop.
void MeshBridge::PublishReply(uint32_t link) {
  const Link& from = *core_.link(link);
  if (from.channel != nullptr && from.channel->Ready()) return;  // Null: it closed while the guest ran.
  core_.Publish();
}

bool MeshBridge::Reply(InCall& call, Status status, absl::Span<const std::byte> reply) {
  const Incoming& incoming = &call == plain_call_ ? *plain_incoming_ : incoming_[call.index];
  if (!running_.empty()) EraseRunning(incoming, &call);
  const Payload payload(std::span<const std::byte>(reply.data(), reply.size()));
  const auto code = static_cast<absl::StatusCode>(status);
  // Errors are short and lie in the host's memory: copied. So is what the ring takes whole.
  if (status != kOk || reply.size() <= kErrorBytesMax) [[likely]] {
    core_.Reply(incoming, code, payload);
    PublishReply(incoming.link);
    return true;
  }
  call.mesh = kReplyStarting;
  core_.Reply(incoming, code, payload, ReplyOut, &call);
  if (call.mesh == kReplyOver) return true;
  call.mesh = kReplyReading;
  return false;
}

}  // namespace weft::host
