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

StartState CallCore::Start(RouteEntry& route, const CallSpec& spec, uint64_t now_ns, CallHandle* handle) {
  const Target* target = route.targets.Choose(random_, [this](uint32_t link) {
    return link == kLocalLink ? local_outstanding_ : links_[link]->outstanding;
  });
  if (target == nullptr) [[unlikely]]
    return NoTarget(route);
  if (target->link == kLocalLink) [[unlikely]]
    return StartState::kLocal;
  if (spec.request.bytes() > message_bytes_max_) [[unlikely]] {
    return Fail(absl::StatusCode::kInvalidArgument,
                absl::StrCat("call of ", route.callee, ": a request of ", spec.request.bytes(),
                             " bytes is longer than the limit of ", message_bytes_max_));
  }
  OutgoingCall* const call = table_.Add();
  if (call == nullptr) [[unlikely]] {
    ++counters_.ring_full;
    return StartState::kNoRoom;
  }
  call->tries = 1;
  call->route = &route;
  call->receiving = nullptr;
  call->spec = spec;
  call->deadline_ns = spec.deadline_ns != 0 ? spec.deadline_ns : now_ns + route.policy.timeout_ns;
  if (!SendRequest(*call, *target)) [[unlikely]] {
    table_.Remove(*call);
    return StartState::kNoRoom;
  }
  if (spec.timed) wheel_.Add(call->slot, call->deadline_ns);
  ++counters_.calls_started;
  *handle = {call->slot, call->generation};
  return StartState::kStarted;
}

MessageHeader CallCore::RequestHeader(const OutgoingCall& call, const Target& target) const {
  return MessageHeader{.function_id = call.route->callee_id.value,
                       .deadline_ns = call.deadline_ns,
                       .request_id = call.request_id,
                       .caller_index = target.caller_index,
                       .kind = MessageKind::kRequest,
                       .flags = call.spec.request.prefix.empty() ? uint8_t{0} : kFlagTrace};
}

// Sends it, or puts it on its way in parts. False, and nothing done, where there is no room now.
bool CallCore::SendRequest(OutgoingCall& call, const Target& target) {
  Link& link = *links_[target.link];
  const MessageHeader header = RequestHeader(call, target);
  if (link.channel->TrySend(header, call.spec.request, Lane::kRequest)) [[likely]] {
    call.state = OutgoingCall::State::kSent;
    ++link.requests_sent;
    ++counters_.requests_sent;
    MarkDirty(link);
  } else if (call.spec.request.bytes() > link.channel->whole_bytes_max()) {
    call.state = OutgoingCall::State::kSending;
    AddJob(link, header, call.spec.request, Lane::kRequest).call_slot = call.slot;
    PumpLink(link, NowNs());
  } else {
    ++counters_.ring_full;
    return false;
  }
  call.link = link.index;
  ++link.outstanding;
  return true;
}

StartState CallCore::SendOneWay(RouteEntry& route, const CallSpec& spec, uint64_t now_ns, bool* in_parts) {
  *in_parts = false;
  const Target* target = route.targets.Choose(random_, [this](uint32_t link) {
    return link == kLocalLink ? local_outstanding_ : links_[link]->outstanding;
  });
  if (target == nullptr) [[unlikely]]
    return NoTarget(route);
  if (target->link == kLocalLink) [[unlikely]]
    return StartState::kLocal;
  Link& link = *links_[target->link];
  const MessageHeader header{
      .function_id = route.callee_id.value,
      .deadline_ns = spec.deadline_ns != 0 ? spec.deadline_ns : now_ns + route.policy.timeout_ns,
      .request_id = table_.TakeId(),
      .caller_index = target->caller_index,
      .kind = MessageKind::kOneWay,
      .flags = spec.request.prefix.empty() ? uint8_t{0} : kFlagTrace};
  if (link.channel->TrySend(header, spec.request, Lane::kRequest)) [[likely]] {
    ++link.requests_sent;
    ++counters_.requests_sent;
    ++counters_.one_way_sent;
    MarkDirty(link);
    return StartState::kStarted;
  }
  if (spec.request.bytes() > message_bytes_max_) {
    return Fail(absl::StatusCode::kInvalidArgument,
                absl::StrCat("message to ", route.callee, ": ", spec.request.bytes(),
                             " bytes are more than the limit of ", message_bytes_max_));
  }
  if (spec.request.bytes() <= link.channel->whole_bytes_max()) {
    ++counters_.ring_full;
    return StartState::kNoRoom;
  }
  SendJob& job = AddJob(link, header, spec.request, Lane::kRequest);
  *in_parts = true;
  job.one_way_done = spec.done;
  job.context = spec.context;
  PumpLink(link, now_ns);
  return StartState::kStarted;
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
  const bool not_executed = call.state != OutgoingCall::State::kSent;
  if (call.state == OutgoingCall::State::kSent) {
    Link& link = *links_[call.link];
    // Where there is no room for it the callee finds the deadline by itself.
    const MessageHeader header{.request_id = call.request_id, .kind = MessageKind::kCancel};
    if (link.channel->TrySend(header, {}, Lane::kReply)) MarkDirty(link);
  }
  Complete(call, {.code = code, .not_executed = not_executed, .text = text});
}

void CallCore::Detach(OutgoingCall& call) {
  wheel_.Remove(call.slot);
  if (call.state == OutgoingCall::State::kWaiting) {
    std::erase_if(waiting_, [&](CallHandle waiting) { return waiting.slot == call.slot; });
    return;
  }
  Link& link = *links_[call.link];
  --link.outstanding;
  if (call.receiving != nullptr) {
    link.channel->Forget(call.receiving);
    call.receiving = nullptr;
  }
  if (call.state == OutgoingCall::State::kSending) {
    auto job = std::find_if(link.jobs.begin(), link.jobs.end(),
                            [&](const SendJob& j) { return j.call_slot == call.slot; });
    if (job != link.jobs.end()) {
      job->call_slot = SendJob::kNoCall;
      EndJob(link, job, false, false);
    }
  }
}

void CallCore::Complete(OutgoingCall& call, const CallOutcome& outcome) {
  Detach(call);
  if (outcome.code == absl::StatusCode::kOk) {
    ++counters_.calls_ok;
  } else {
    ++counters_.calls_failed;
  }
  const CallDone done = call.spec.done;
  void* const context = call.spec.context;
  table_.Remove(call);
  done(context, outcome);
}

void CallCore::TryFailed(OutgoingCall& call, absl::StatusCode code, bool not_executed,
                         absl::string_view text) {
  const FailedTry failed{.code = code, .not_executed = not_executed, .tries = call.tries};
  if (!MayRetry(failed, call.route->policy) || call.route->targets.empty()) {
    Complete(call, {.code = code, .not_executed = not_executed, .text = text});
    return;
  }
  ++counters_.retries;
  ++call.tries;
  const bool timed = wheel_.Contains(call.slot);
  Detach(call);
  if (timed) wheel_.Add(call.slot, call.deadline_ns);
  Retry(call);
}

// A further try of a call that is detached. Another target than the last one is preferred.
void CallCore::Retry(OutgoingCall& call) {
  const uint32_t last_link = call.link;
  call.state = OutgoingCall::State::kWaiting;
  const Target* target = call.route->targets.Choose(
      random_,
      [this](uint32_t link) { return link == kLocalLink ? local_outstanding_ : links_[link]->outstanding; },
      last_link);
  if (target != nullptr && target->link != kLocalLink) {
    table_.Renew(call);
    if (SendRequest(call, *target)) return;
  }
  // No room now, or, of several targets, this very host was drawn, which a call on its way cannot enter: the
  // next turn tries again, until the deadline.
  waiting_.push_back({call.slot, call.generation});
}

void CallCore::ResumeWaiting() {
  const std::size_t count = waiting_.size();
  for (std::size_t i = 0; i < count; ++i) {
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

std::byte* CallCore::ResponseRoom(Link& link, const MessageHeader& header, uint32_t bytes) {
  ++counters_.responses_received;
  ++link.responses_received;
  OutgoingCall* const call = table_.Find(header.request_id);
  // A peer can answer only what was sent to it, and once.
  if (call == nullptr || call->link != link.index || call->state != OutgoingCall::State::kSent ||
      call->receiving != nullptr) [[unlikely]] {
    ++counters_.responses_unexpected;
    return nullptr;
  }
  if (header.caller_index == 0 && bytes <= call->spec.response.size()) [[likely]] {
    call->receiving = call->spec.response.data();
    // Even an empty response needs a place.
    return call->receiving != nullptr ? call->receiving : (call->receiving = error_text_);
  }
  return OddResponseRoom(*call, link, header, bytes);
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

void CallCore::TakeResponse(Link& link, const MessageHeader& header, std::byte* payload, uint32_t bytes) {
  OutgoingCall* const call = table_.Find(header.request_id);
  if (call == nullptr) return;
  call->receiving = nullptr;
  if (header.caller_index == 0) [[likely]] {
    Complete(*call, {.response = payload, .response_bytes = bytes});
    return;
  }
  // Copied, since what the failure sets off may receive another text.
  const std::string text(reinterpret_cast<const char*>(payload), bytes);
  TryFailed(*call, CodeFromWire(header.caller_index), (header.flags & kFlagNotExecuted) != 0, text);
}

void CallCore::ResponseAborted(Link& link, const MessageHeader& header, absl::string_view why) {
  OutgoingCall* const call = table_.Find(header.request_id);
  if (call == nullptr || call->link != link.index) return;
  call->receiving = nullptr;
  Complete(*call, {.code = absl::StatusCode::kUnavailable,
                   .text = absl::StrCat("call of ", call->route->callee, ": the response ", why)});
}

}  // namespace weft
