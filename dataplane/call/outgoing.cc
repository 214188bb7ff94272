// SPDX-License-Identifier: Apache-2.0
// CallCore: calls of this host on their way out, and their responses.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "dataplane/base/clock.h"
#include "dataplane/call/call_core.h"
#include "dataplane/route/retry.h"

namespace weft {

StartState CallCore::Fail(absl::StatusCode code, absl::string_view text) {
  start_error_ = absl::Status(code, text);
  return StartState::kFailed;
}

StartState CallCore::NoTarget(RouteEntry& route) {
  ++counters_.no_route;
  return Fail(route.code == absl::StatusCode::kOk ? absl::StatusCode::kUnavailable : route.code,
              route.reason.empty() ? absl::StrCat("no host serves ", route.callee) : route.reason);
}

// The part of a route that is not to be had is drawn once a call, by numbers of its own: those that choose
// among targets are even rather than random, and half of them would be gone.
bool CallCore::Refuses(RouteEntry& route) {
  if (route.targets.empty()) return false;
  if (route.spared_calls != 0) {
    --route.spared_calls;
    return false;
  }
  return static_cast<uint32_t>(random_.Next() >> 32) < route.refused_share;
}

// For a call that had its draw and is to come again.
StartState CallCore::NoRoom(RouteEntry& route) {
  // Bounded, since not all do.
  if (route.refused_share != 0 && route.spared_calls < options_.calls_max) ++route.spared_calls;
  return StartState::kNoRoom;
}

// Whether a call or message that was to run here goes to the next target instead, since the function has as
// many under way as it may.
bool CallCore::SpillsOver(const RouteEntry& route, const CallSpec& spec, const Target** target) {
  if (*target == nullptr || (*target)->link != kLocalLink || spec.request.bytes() > message_bytes_max_) {
    return false;
  }
  if (Function(route.callee_id).limit.MayEnter(1)) return false;
  *target = route.targets.AnyBut(kLocalPath, random_);
  return (*target)->link != kLocalLink;
}

// Calls and messages that Start and SendOneWay do not send at once.
StartState CallCore::StartOddly(RouteEntry& route, const CallSpec& spec, const Target* target) {
  if (target == nullptr) return NoTarget(route);
  if (target->link == kLocalLink) return StartState::kLocal;
  if (spec.request.bytes() > message_bytes_max_) {
    return Fail(absl::StatusCode::kInvalidArgument,
                absl::StrCat("call of ", route.callee, ": a request of ", spec.request.bytes(),
                             " bytes is longer than the limit of ", message_bytes_max_));
  }
  ++counters_.ring_full;  // Or the table of calls is.
  return NoRoom(route);
}

// A request that its ring did not take whole: puts it on its way in parts, or takes its call back.
StartState CallCore::StartInParts(OutgoingCall& call, const Target& target) {
  RouteEntry& route = *call.route;
  if (SendRequest(call, target)) {
    // It earns for the budgets like a small one; it is not hedged.
    if (route.adaptive != nullptr && route.adaptive->OnCall(NowNs())) {
      route.targets = TargetSet(route.adaptive->Present());
    }
    return StartState::kStarted;
  }
  wheel_.Remove(call.slot);
  table_.Remove(call);
  --counters_.calls_started;
  return NoRoom(route);
}

bool CallCore::AwaitRoomBriefly(const RouteEntry& route) {
  constexpr int kLooks = 1024;
  for (int look = 0; look < kLooks; ++look) {
    for (const Target& target : route.targets.targets()) {
      if (target.link != kLocalLink && links_[target.link]->channel->producer().RefreshHead()) return true;
    }
  }
  return false;
}

StartState CallCore::SendOneWayInParts(RouteEntry& route, Link& link, const MessageHeader& header,
                                       const CallSpec& spec, uint64_t now_ns, bool* in_parts) {
  if (spec.request.bytes() <= link.channel->whole_bytes_max()) {
    ++counters_.ring_full;
    return NoRoom(route);
  }
  // Nobody would learn how long the payload has to stay.
  if (spec.done == nullptr) return NoRoom(route);
  SendJob& job = AddJob(link, header, spec.request, Lane::kRequest);
  *in_parts = true;
  job.one_way_done = spec.done;
  job.context = spec.context;
  link.one_ways_due_ns = std::min(link.one_ways_due_ns, header.deadline_ns);
  PumpLink(link, now_ns);
  return StartState::kStarted;
}

// Sends the request of a call, or puts it on its way in parts. False, and nothing done, where there is no
// room now.
bool CallCore::SendRequest(OutgoingCall& call, const Target& target) {
  Link& link = *links_[target.link];
  const MessageHeader header = RequestHeader(call, target);
  const bool sent = link.channel->TrySend(header, call.spec.request, Lane::kRequest);
  if (!sent && call.spec.request.bytes() <= link.channel->whole_bytes_max()) {
    ++counters_.ring_full;
    return false;
  }
  call.link = link.index;
  call.path = target.path;
  ++outstanding_[target.path];
  if (sent) {
    call.state = OutgoingCall::State::kSent;
    if (call.route->adaptive != nullptr) Observe(call);
    ++link.requests_sent;
    ++counters_.requests_sent;
    MarkDirty(link);
  } else {
    call.state = OutgoingCall::State::kSending;
    AddJob(link, header, call.spec.request, Lane::kRequest).call_slot = call.slot;
    PumpLink(link, NowNs());  // The end of another job may have ended this call, or changed the targets.
  }
  return true;
}

bool CallCore::Cancel(CallHandle handle) {
  OutgoingCall* call = table_.At(handle.slot, handle.generation);
  if (call == nullptr) return false;
  ++counters_.calls_cancelled;
  GiveUp(*call, absl::StatusCode::kCancelled, absl::StrCat("call of ", call->route->callee, ": cancelled"));
  Publish();
  return true;
}

bool CallCore::Expire(CallHandle handle) {
  OutgoingCall* call = table_.At(handle.slot, handle.generation);
  if (call == nullptr) return false;
  ++counters_.deadlines_fired;
  GiveUp(*call, absl::StatusCode::kDeadlineExceeded,
         absl::StrCat("call of ", call->route->callee, ": no answer before the deadline"));
  Publish();
  return true;
}

void CallCore::GiveUp(OutgoingCall& call, absl::StatusCode code, absl::string_view text) {
  using State = OutgoingCall::State;
  const bool not_executed = call.state == State::kSending || call.state == State::kWaiting;
  if (!not_executed && call.state != State::kParked) TellCancelled(call);
  Complete(call, {.code = code, .not_executed = not_executed, .text = text});
}

// What Detach does for a call that is not simply sent and unanswered.
void CallCore::DetachOddly(OutgoingCall& call, absl::StatusCode code) {
  if (call.state >= OutgoingCall::State::kWatched) return EndWatched(call, code);
  if (call.state == OutgoingCall::State::kWaiting) {
    std::erase_if(waiting_, [&](CallHandle waiting) { return waiting.slot == call.slot; });
    return;
  }
  LeaveLink(call);
  Link& link = *links_[call.link];
  if (call.state != OutgoingCall::State::kSending) return;
  auto job = std::find_if(link.jobs.begin(), link.jobs.end(),
                          [&](const SendJob& j) { return j.call_slot == call.slot; });
  if (job == link.jobs.end()) return;
  job->call_slot = SendJob::kNoCall;
  EndJob(link, job, false, false);
}

void CallCore::TryFailed(OutgoingCall& call, absl::StatusCode code, bool not_executed,
                         absl::string_view text) {
  if (call.state == OutgoingCall::State::kHedged) return FailOneOfPair(call, code, text);
  const FailedTry failed{.code = code, .not_executed = not_executed, .tries = call.tries};
  AdaptiveRoute* const adaptive = call.route->adaptive.get();
  if (!MayRetry(failed, call.route->policy) || call.route->targets.empty() ||
      (adaptive != nullptr && !adaptive->TrySpendRetry())) {
    Complete(call, {.code = code, .not_executed = not_executed, .text = text});
    return;
  }
  ++counters_.retries;
  ++call.tries;
  const bool timed = wheel_.Contains(call.slot);
  Detach(call, code);
  if (timed) wheel_.Add(call.slot, call.deadline_ns);
  Retry(call);
}

// A further try of a call that is detached. Another target than the last one is preferred.
void CallCore::Retry(OutgoingCall& call) {
  const uint32_t last_path = call.path;
  call.state = OutgoingCall::State::kWaiting;
  const Target* target = ChooseTarget(*call.route, last_path);
  // This very host, which a call on its way cannot enter.
  if (target != nullptr && target->link == kLocalLink)
    target = call.route->targets.AnyBut(kLocalPath, random_);
  if (target != nullptr && target->link != kLocalLink) {
    table_.Renew(call);
    if (SendRequest(call, *target)) return;
  }
  // No room now, or no target but this very host: the next turn tries again, until the deadline.
  waiting_.push_back({call.slot, call.generation});
}

void CallCore::ResumeWaiting() {
  const std::size_t count = waiting_.size();
  // Whoever is told of an end may cancel others of these.
  for (std::size_t i = 0; i < count && !waiting_.empty(); ++i) {
    const CallHandle handle = waiting_.front();
    waiting_.erase(waiting_.begin());
    OutgoingCall* call = table_.At(handle.slot, handle.generation);
    if (call == nullptr) continue;
    if (call->route->targets.empty()) {
      Complete(*call, {.code = call->route->code, .not_executed = true, .text = call->route->reason});
    } else {
      Retry(*call);
    }
  }
}

// Whether a response may be taken for a call that is not simply sent and unanswered.
bool CallCore::MayAnswerOddly(const OutgoingCall& call, const Link& link, const MessageHeader& header) {
  if (call.state != OutgoingCall::State::kSending) return MayAnswerWatched(call, link);
  // A callee refuses a request by its first part.
  return call.link == link.index && call.receiving == nullptr && header.caller_index != 0 &&
         (header.flags & kFlagNotExecuted) != 0;
}

std::byte* CallCore::OddResponseRoom(OutgoingCall& call, Link& link, const MessageHeader& header,
                                     uint32_t bytes) {
  if (header.caller_index != 0) {
    // Taken at once by TakeResponse. A text in parts would share the buffer with others.
    if (bytes <= kInlineBytesMax ||
        (bytes <= kErrorTextBytesMax && bytes <= link.channel->whole_bytes_max())) {
      call.receiving = error_text_;
      return error_text_;
    }
    TakeResponse(link, header, error_text_, 0);
    return nullptr;
  }
  if (call.spec.reserve != nullptr) {
    call.receiving = call.spec.reserve(call.spec.context, bytes);
    if (call.receiving != nullptr) return call.receiving;
  }
  ++counters_.responses_too_large;
  Complete(call,
           {.code = absl::StatusCode::kResourceExhausted,
            .text = absl::StrCat("call of ", call.route->callee, ": the response of ", bytes,
                                 " bytes does not fit the caller's buffer of ", call.spec.response.size())});
  return nullptr;
}

void CallCore::ResponseAborted(Link& link, const MessageHeader& header, absl::string_view why) {
  OutgoingCall* const call = table_.Find(header.request_id);
  if (call == nullptr || call->link != link.index) return;
  // `receiving` stays: a peer may have begun a second response to the same call, and what the first one still
  // brings must be forgotten by the channel before the caller's buffer goes.
  const std::string text = absl::StrCat("call of ", call->route->callee, ": the response ", why);
  if (call->state == OutgoingCall::State::kHedged) {
    return FailOneOfPair(*call, absl::StatusCode::kUnavailable, text);
  }
  Complete(*call, {.code = absl::StatusCode::kUnavailable, .text = text});
}

// A response that is an error.
void CallCore::TakeError(OutgoingCall& call, const MessageHeader& header, std::byte* payload,
                         uint32_t bytes) {
  // Copied, since what the failure sets off may receive another text.
  const std::string text(reinterpret_cast<const char*>(payload), bytes);
  TryFailed(call, CodeFromWire(header.caller_index), (header.flags & kFlagNotExecuted) != 0, text);
}

}  // namespace weft
