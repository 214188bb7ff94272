// SPDX-License-Identifier: Apache-2.0
// The path of a message through CallCore, inlined into whoever calls and polls: what a call costs when
// nothing odd happens. Everything else (…Oddly, …InParts, refusals, errors, retries) is out of line. Included
// by call_core.h only.
//
// Order matters here: a message is put into its cell and published before the books are kept, which the
// flight of the message then hides; and headers are built where they are sent, so that they go from registers
// to the cell.
#ifndef WEFT_DATAPLANE_CALL_CALL_PATH_H_
#define WEFT_DATAPLANE_CALL_CALL_PATH_H_

#include "dataplane/call/call_core.h"

namespace weft {

// --- Out

inline const Target* CallCore::ChooseTarget(const RouteEntry& route, uint32_t avoid) {
  return route.targets.Choose(random_, [this](uint32_t path) { return outstanding_[path]; }, avoid);
}

inline const Target* CallCore::ChooseFirst(RouteEntry& route) {
  if (route.refused_share != 0) [[unlikely]] {
    if (Refuses(route)) return nullptr;
  }
  return ChooseTarget(route);
}

inline MessageHeader CallCore::RequestHeader(const OutgoingCall& call, const Target& target) {
  return MessageHeader{.function_id = call.route->callee_id.value,
                       .deadline_ns = call.deadline_ns,
                       .request_id = call.request_id,
                       .caller_index = target.caller_index,
                       .kind = MessageKind::kRequest,
                       .flags = call.spec.request.prefix.empty() ? uint8_t{0} : kFlagTrace};
}

WEFT_HOT_INLINE void CallCore::ExpectCall(const RouteEntry& route) const {
  const std::span<const Target> near = route.targets.near();
  if (near.size() == 1 && near[0].link != kLocalLink) [[likely]]
    links_[near[0].link]->channel->FetchNextCell();
}

WEFT_HOT_INLINE void CallCore::ExpectReply(const Incoming& incoming) const {
  if (!incoming.one_way()) links_[incoming.link]->channel->FetchNextCell();
}

template <bool kNow>
WEFT_HOT_INLINE StartState CallCore::StartCall(RouteEntry& route, const CallSpec& spec, uint64_t now_ns,
                                               CallHandle* handle) {
  const Target* target = ChooseFirst(route);
  if (target == nullptr || target->link == kLocalLink || spec.request.bytes() > message_bytes_max_)
      [[unlikely]] {
    if (!SpillsOver(route, spec, &target)) return StartOddly(route, spec, target);
  }
  OutgoingCall* const call = table_.Add();
  if (call == nullptr) [[unlikely]]
    return StartOddly(route, spec, target);
  Link& link = *links_[target->link];
  const uint64_t deadline_ns = spec.deadline_ns != 0 ? spec.deadline_ns : now_ns + route.policy.timeout_ns;
  const bool sent =
      link.channel->TrySend(MessageHeader{.function_id = route.callee_id.value,
                                          .deadline_ns = deadline_ns,
                                          .request_id = call->request_id,
                                          .caller_index = target->caller_index,
                                          .kind = MessageKind::kRequest,
                                          .flags = spec.request.prefix.empty() ? uint8_t{0} : kFlagTrace},
                            spec.request, Lane::kRequest);
  if (sent) [[likely]] {
    if constexpr (kNow) {
      link.channel->Publish();
    } else {
      MarkDirty(link);
    }
  }
  call->tries = 1;
  call->route = &route;
  call->receiving = nullptr;
  call->deadline_ns = deadline_ns;
  call->spec = spec;
  if (spec.timed) wheel_.Add(call->slot, deadline_ns);
  ++counters_.calls_started;
  *handle = {call->slot, call->generation};
  if (!sent) [[unlikely]]
    return StartInParts(*call, *target);
  call->state = OutgoingCall::State::kSent;
  call->link = link.index;
  call->path = target->path;
  ++outstanding_[target->path];
  ++link.requests_sent;
  ++counters_.requests_sent;
  if (route.adaptive != nullptr) [[unlikely]]
    Watch(*call);
  return StartState::kStarted;
}

inline StartState CallCore::Start(RouteEntry& route, const CallSpec& spec, uint64_t now_ns,
                                  CallHandle* handle) {
  return StartCall<false>(route, spec, now_ns, handle);
}
WEFT_HOT_INLINE StartState CallCore::StartNow(RouteEntry& route, const CallSpec& spec, uint64_t now_ns,
                                              CallHandle* handle) {
  return StartCall<true>(route, spec, now_ns, handle);
}

inline StartState CallCore::SendOneWay(RouteEntry& route, const CallSpec& spec, uint64_t now_ns,
                                       bool* in_parts) {
  *in_parts = false;
  const Target* target = ChooseFirst(route);
  if (target == nullptr || target->link == kLocalLink || spec.request.bytes() > message_bytes_max_)
      [[unlikely]] {
    if (!SpillsOver(route, spec, &target)) return StartOddly(route, spec, target);
  }
  Link& link = *links_[target->link];
  const MessageHeader header{
      .function_id = route.callee_id.value,
      .deadline_ns = spec.deadline_ns != 0 ? spec.deadline_ns : now_ns + route.policy.timeout_ns,
      .request_id = table_.TakeId(),
      .caller_index = target->caller_index,
      .kind = MessageKind::kOneWay,
      .flags = spec.request.prefix.empty() ? uint8_t{0} : kFlagTrace};
  if (!link.channel->TrySend(header, spec.request, Lane::kRequest)) [[unlikely]]
    return SendOneWayInParts(route, link, header, spec, now_ns, in_parts);
  MarkDirty(link);
  ++link.requests_sent;
  ++counters_.requests_sent;
  ++counters_.one_way_sent;
  return StartState::kStarted;
}

inline StartState CallCore::SendRun(RouteEntry& route, std::span<const std::span<const std::byte>> messages,
                                    uint64_t deadline_ns, uint32_t* sent) {
  // One choice for all of them: they travel together.
  const Target* target = ChooseFirst(route);
  if (target == nullptr || target->link == kLocalLink) [[unlikely]] {
    if (!SpillsOver(route, {}, &target)) return StartOddly(route, {}, target);
  }
  Link& link = *links_[target->link];
  const MessageHeader first{.function_id = route.callee_id.value,
                            .deadline_ns = deadline_ns,
                            .request_id = table_.next_id(),
                            .caller_index = target->caller_index,
                            .kind = MessageKind::kOneWay};
  const uint32_t count = link.channel->TrySendRun(first, messages, Lane::kRequest);
  if (count == 0) [[unlikely]] {
    ++counters_.ring_full;
    return NoRoom(route);
  }
  link.channel->Publish();
  table_.TakeIds(count);
  link.requests_sent += count;
  counters_.requests_sent += count;
  counters_.one_way_sent += count;
  *sent = count;
  return StartState::kStarted;
}

WEFT_HOT_INLINE void CallCore::Detach(OutgoingCall& call, absl::StatusCode code) {
  if (wheel_.Contains(call.slot)) wheel_.Remove(call.slot);
  if (call.state != OutgoingCall::State::kSent || call.receiving != nullptr) [[unlikely]] {
    DetachOddly(call, code);
    return;
  }
  --outstanding_[call.path];
}

WEFT_HOT_INLINE void CallCore::Complete(OutgoingCall& call, const CallOutcome& outcome) {
  Detach(call, outcome.code);
  ++(outcome.code == absl::StatusCode::kOk ? counters_.calls_ok : counters_.calls_failed);
  const CallDone done = call.spec.done;
  void* const context = call.spec.context;
  table_.Remove(call);
  done(context, outcome);
}

WEFT_HOT_INLINE std::byte* CallCore::ResponseRoom(Link& link, const MessageHeader& header, uint32_t bytes) {
  ++counters_.responses_received;
  ++link.responses_received;
  OutgoingCall* const call = table_.Find(header.request_id);
  // A peer can answer only what was sent to it, and once.
  if (call == nullptr || call->link != link.index || call->state != OutgoingCall::State::kSent ||
      call->receiving != nullptr) [[unlikely]] {
    if (call == nullptr || !MayAnswerOddly(*call, link, header)) {
      ++counters_.responses_unexpected;
      if (call != nullptr) RefuseWatchedAnswer(*call, link);
      return nullptr;
    }
  }
  if (header.caller_index == 0 && bytes <= call->spec.response.size() &&
      (bytes != 0 || call->spec.reserve == nullptr)) [[likely]] {
    // Even an empty response needs a place.
    std::byte* const room = call->spec.response.data();
    call->receiving = room != nullptr ? room : error_text_;
    return call->receiving;
  }
  return OddResponseRoom(*call, link, header, bytes);
}

WEFT_HOT_INLINE void CallCore::TakeResponse(Link& link, const MessageHeader& header, std::byte* payload,
                                            uint32_t bytes) {
  OutgoingCall* const call = table_.Find(header.request_id);
  if (call == nullptr) [[unlikely]]
    return;
  call->receiving = nullptr;
  if (header.caller_index != 0) [[unlikely]] {
    TakeError(*call, header, payload, bytes);
    return;
  }
  Complete(*call, {.response = payload, .response_bytes = bytes});
}

// --- In

WEFT_HOT_INLINE void CallCore::Begin(Link& link, const MessageHeader& header, const AccessEntry& entry) {
  link.begun = Incoming{.function = entry.function,
                        .caller = entry.caller,
                        .deadline_ns = header.deadline_ns,
                        .link = link.index,
                        .link_epoch = link.epoch,
                        .request_id = header.request_id,
                        .kind = header.kind,
                        .flags = header.flags};
  link.begun_open = true;
  ++link.incoming;
  ++incoming_;
}

WEFT_HOT_INLINE bool CallCore::Admit(Link& link, const MessageHeader& header, uint32_t bytes,
                                     uint64_t now_ns) {
  ++counters_.requests_received;
  ++link.requests_received;
  const AccessEntry* const entry = link.access.Find(header.caller_index, header.function_id);
  // All that an ordinary request passes, each with its counter in AdmitOddly, which looks again from the
  // start.
  if (entry == nullptr || !entry->function->served || !IdAfter(header.request_id, link.last_request_id) ||
      header.deadline_ns - 1 < now_ns || (header.flags & kFlagTrace) != 0 || entry->rate->limited() ||
      link.begun_open || link.partials_count != 0 || !entry->function->limit.TryEnter()) [[unlikely]]
    return AdmitOddly(link, header, bytes, now_ns);
  link.last_request_id = header.request_id;
  Begin(link, header, *entry);
  return true;
}

inline const AccessEntry* CallCore::MayAdmitRun(const Link& link, const MessageHeader& first, uint32_t count,
                                                uint64_t now_ns) const {
  const AccessEntry* const entry = link.access.Find(first.caller_index, first.function_id);
  if (entry == nullptr || !entry->function->served || !IdAfter(first.request_id, link.last_request_id) ||
      first.deadline_ns - 1 < now_ns || first.flags != 0 || entry->rate->limited() || link.begun_open ||
      !entry->function->limit.MayEnter(count)) [[unlikely]]
    return nullptr;
  return entry;
}

// What Admit, Begin and OnMessage do for each message.
inline Incoming CallCore::BeginRun(Link& link, const MessageHeader& first, uint32_t count,
                                   const AccessEntry& entry) {
  counters_.requests_received += count;
  counters_.requests_admitted += count;
  counters_.one_way_received += count;
  link.requests_received += count;
  link.last_request_id = first.request_id + count - 1;
  link.incoming += count;
  incoming_ += count;
  entry.function->limit.Enter(count);
  entry.function->admitted += count;
  return Incoming{.function = entry.function,
                  .caller = entry.caller,
                  .deadline_ns = first.deadline_ns,
                  .link = link.index,
                  .link_epoch = link.epoch,
                  .request_id = first.request_id,
                  .kind = first.kind,
                  .flags = first.flags};
}

WEFT_HOT_INLINE const Incoming& CallCore::TakeBegun(Link& link, uint32_t request_id) {
  if (!link.begun_open || link.begun.request_id != request_id) [[unlikely]]
    return TakePartial(link, request_id);
  link.begun_open = false;
  return link.begun;
}

WEFT_HOT_INLINE void CallCore::EndIncoming(const Incoming& incoming) {
  incoming.function->limit.Leave();
  --incoming_;
  Link& link = *links_[incoming.link];
  if (link.epoch == incoming.link_epoch) [[likely]]
    --link.incoming;
}

template <bool kNow>
WEFT_HOT_INLINE void CallCore::ReplyTo(const Incoming& incoming, absl::StatusCode code,
                                       const Payload& payload, SendDone done, void* context,
                                       bool not_executed) {
  Link& link = *links_[incoming.link];
  // Made anew for each use: one that also goes to ReplyOddly lies in memory, stored field by field, and the
  // channel would load it by wider words.
  const auto header = [&] {
    return MessageHeader{.request_id = incoming.request_id,
                         .caller_index = static_cast<uint16_t>(code),
                         .kind = MessageKind::kResponse,
                         .flags = not_executed ? kFlagNotExecuted : uint8_t{0}};
  };
  if (incoming.one_way() || link.epoch != incoming.link_epoch || link.reply_jobs != 0 ||
      !link.channel->TrySend(header(), payload, Lane::kReply)) [[unlikely]] {
    EndIncoming(incoming);
    ReplyOddly(link, incoming, header(), payload, done, context);
    return;
  }
  if constexpr (kNow) {
    link.channel->Publish();
  } else {
    MarkDirty(link);
  }
  EndIncoming(incoming);
  ++link.responses_sent;
  ++counters_.responses_sent;
  if (done != nullptr) [[unlikely]]
    done(context, true);
}

inline void CallCore::Reply(const Incoming& incoming, absl::StatusCode code, const Payload& payload,
                            SendDone done, void* context, bool not_executed) {
  ReplyTo<false>(incoming, code, payload, done, context, not_executed);
}
WEFT_HOT_INLINE void CallCore::ReplyNow(const Incoming& incoming, absl::StatusCode code,
                                        const Payload& payload, SendDone done, void* context) {
  ReplyTo<true>(incoming, code, payload, done, context, false);
}

}  // namespace weft

#endif  // WEFT_DATAPLANE_CALL_CALL_PATH_H_
