// SPDX-License-Identifier: Apache-2.0
// CallCore: calls of routes whose policy learns from them: the time of each is noted, some are sent a second
// time, and targets that fail are left alone. A hedged call is a pair of entries in the table: the one that
// the caller knows, and the hedge. The first good answer ends both; while one of the two is under way, the
// failure of the other is not the call's.
#include "dataplane/base/clock.h"
#include "dataplane/call/call_core.h"

namespace weft {

// A call of such a route was sent.
void CallCore::Watch(OutgoingCall& call) {
  RouteEntry& route = *call.route;
  Observe(call);
  if (route.adaptive->OnCall(call.begun_ns)) route.targets = TargetSet(route.adaptive->Present());
  const uint64_t delay_ns = route.adaptive->hedge_delay_ns();
  if (delay_ns == 0 || call.begun_ns + delay_ns >= call.deadline_ns) return;
  hedges_->Add(call.slot, call.begun_ns + delay_ns);
}

void CallCore::Observe(OutgoingCall& call) {
  call.state = OutgoingCall::State::kWatched;
  call.begun_ns = NowNs();
  call.twin = OutgoingCall::kNoTwin;
  call.is_hedge = false;
}

// The call has taken long: where there is another target, room and budget, it is sent there as well.
void CallCore::StartHedge(OutgoingCall& call) {
  RouteEntry& route = *call.route;
  if (call.state != OutgoingCall::State::kWatched || call.receiving != nullptr || !route.adaptive) return;
  if (route.adaptive->hedge_delay_ns() == 0) return;  // The policy has changed: it may run but once by now.
  const Target* const target = ChooseTarget(route, call.path);
  if (target == nullptr || target->link == kLocalLink || target->path == call.path) return;
  Link& link = *links_[target->link];
  if (call.spec.request.bytes() > link.channel->whole_bytes_max()) return;
  if (!route.adaptive->TrySpendHedge()) return;
  OutgoingCall* const hedge = table_.Add();
  if (hedge == nullptr) return;
  hedge->tries = 1;
  hedge->route = &route;
  hedge->receiving = nullptr;
  hedge->deadline_ns = call.deadline_ns;
  hedge->spec = call.spec;
  hedge->link = link.index;
  hedge->path = target->path;
  if (!link.channel->TrySend(RequestHeader(*hedge, *target), hedge->spec.request, Lane::kRequest)) {
    table_.Remove(*hedge);
    return;
  }
  MarkDirty(link);
  ++outstanding_[target->path];
  ++link.requests_sent;
  ++counters_.requests_sent;
  ++counters_.hedges;
  Observe(*hedge);
  hedge->state = call.state = OutgoingCall::State::kHedged;
  hedge->is_hedge = true;
  hedge->twin = call.slot;
  call.twin = hedge->slot;
}

// Whether a response on `link` may be taken. Both of a pair write to one buffer, so while one response comes
// in parts the other is dropped.
bool CallCore::MayAnswerWatched(const OutgoingCall& call, const Link& link) {
  if (call.link != link.index || call.receiving != nullptr) return false;
  if (call.state == OutgoingCall::State::kWatched) return true;
  return call.state == OutgoingCall::State::kHedged && table_.At(call.twin)->receiving == nullptr;
}

// One of a pair has answered while the other's answer comes in parts: it cannot answer again, so its try is
// over and the call does not wait for it should the other break off.
void CallCore::RefuseWatchedAnswer(OutgoingCall& call, const Link& link) {
  if (call.state != OutgoingCall::State::kHedged || call.link != link.index || call.receiving != nullptr)
    return;
  FailOneOfPair(call, absl::StatusCode::kCancelled, {});
}

void CallCore::NoteResult(const OutgoingCall& call, absl::StatusCode code) {
  RouteEntry& route = *call.route;
  if (route.adaptive == nullptr) return;  // The policy has changed meanwhile.
  const uint64_t now_ns = NowNs();
  const uint64_t ejections = route.adaptive->outliers().ejections();
  if (route.adaptive->OnResult(call.path, code, now_ns - call.begun_ns, now_ns)) {
    route.targets = TargetSet(route.adaptive->Present());
    counters_.ejections += route.adaptive->outliers().ejections() - ejections;
  }
}

void CallCore::LeaveLink(OutgoingCall& call) {
  Link& link = *links_[call.link];
  --outstanding_[call.path];
  if (call.receiving == nullptr) return;
  link.channel->Forget(call.receiving);
  call.receiving = nullptr;
}

void CallCore::TellCancelled(const OutgoingCall& call) {
  Link& link = *links_[call.link];
  // Where there is no room for it the callee finds the deadline by itself.
  const MessageHeader header{.request_id = call.request_id, .kind = MessageKind::kCancel};
  if (link.channel->TrySend(header, {}, Lane::kReply)) MarkDirty(link);
}

// What Detach does for a watched call, and for the other one of a pair.
void CallCore::EndWatched(OutgoingCall& call, absl::StatusCode code) {
  if (hedges_ != nullptr && hedges_->Contains(call.slot)) hedges_->Remove(call.slot);
  if (call.state != OutgoingCall::State::kParked) {
    LeaveLink(call);
    NoteResult(call, code);
  }
  if (call.twin == OutgoingCall::kNoTwin) return;
  DropTwin(*table_.At(call.twin));
  call.twin = OutgoingCall::kNoTwin;
}

void CallCore::DropTwin(OutgoingCall& twin) {
  if (wheel_.Contains(twin.slot)) wheel_.Remove(twin.slot);
  if (twin.state == OutgoingCall::State::kHedged) {
    TellCancelled(twin);
    LeaveLink(twin);
  }
  table_.Remove(twin);
}

void CallCore::FailOneOfPair(OutgoingCall& call, absl::StatusCode code, absl::string_view text) {
  LeaveLink(call);
  NoteResult(call, code);
  if (!call.is_hedge) {
    call.state = OutgoingCall::State::kParked;
    return;
  }
  OutgoingCall& first = *table_.At(call.twin);
  table_.Remove(call);
  first.twin = OutgoingCall::kNoTwin;
  if (first.state == OutgoingCall::State::kHedged) {
    first.state = OutgoingCall::State::kWatched;
    return;
  }
  // The first one, which failed before, may have run.
  Complete(first, {.code = code, .not_executed = false, .text = text});
}

}  // namespace weft
