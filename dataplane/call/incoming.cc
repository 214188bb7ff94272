// SPDX-License-Identifier: Apache-2.0
// CallCore: calls of other hosts on their way in, their checks, and the replies.
#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "dataplane/base/clock.h"
#include "dataplane/call/call_core.h"

namespace weft {

// A request that fails one of the checks of Admit, or comes behind one in parts; true where it is admitted
// after all.
bool CallCore::AdmitOddly(Link& link, const MessageHeader& header, uint32_t bytes, uint64_t now_ns) {
  // Ids are the calling process's: the first one on a link may be any.
  if ((link.requests_received != 1 && IdMayBeOld(header.request_id, link.last_request_id)) ||
      IsComing(link, header.request_id)) {
    ++counters_.dropped_duplicate;
    return false;
  }
  link.last_request_id = header.request_id;
  const AccessEntry* const entry = link.access.Find(header.caller_index, header.function_id);
  if (entry == nullptr) return RefuseUnlisted(link, header);
  LocalFunction& function = *entry->function;
  if (!function.served) return RefuseAbsent(link, header, *entry);
  if (header.deadline_ns <= now_ns && header.deadline_ns != 0) {
    ++counters_.dropped_expired;
    return false;
  }
  if ((header.flags & kFlagTrace) != 0 && bytes < kTraceBytes) {
    ++counters_.refused_malformed;
    Refuse(link, header, absl::StatusCode::kInvalidArgument, "a trace flag without a trace context");
    return false;
  }
  if (!entry->rate->TryTake(now_ns)) return RefuseRate(link, header, *entry);
  if (!function.limit.TryEnter()) return RefuseConcurrency(link, header, *entry);
  if (link.begun_open) {
    // The one before comes in parts; the channel bounds how many there are.
    link.partials[link.partials_count++] = link.begun;
  }
  Begin(link, header, *entry);
  return true;
}

// Whether a part of a request with this id has come. Records are found by their id, so a peer that had two
// of one id under way could have one checked and the other run.
bool CallCore::IsComing(const Link& link, uint32_t request_id) {
  if (link.begun_open && link.begun.request_id == request_id) return true;
  const auto end = link.partials.begin() + link.partials_count;
  return std::any_of(link.partials.begin(), end,
                     [&](const Incoming& partial) { return partial.request_id == request_id; });
}

bool CallCore::RefuseUnlisted(Link& link, const MessageHeader& header) {
  const bool known = link.access.KnowsCaller(header.caller_index);
  ++(known ? counters_.refused_function : counters_.refused_caller);
  auto function = functions_.find(header.function_id);
  const std::string callee = function != functions_.end() && !function->second->name.empty()
                                 ? function->second->name
                                 : absl::StrFormat("function %016x", header.function_id);
  std::string caller = absl::StrCat("caller ", header.caller_index);
  link.access.ForEach([&](const AccessEntry& entry) {
    if (entry.caller_index == header.caller_index) caller = *entry.caller;
  });
  Refuse(link, header, absl::StatusCode::kPermissionDenied,
         absl::StrCat("host ", host_name_, ": ", caller, " of host ", link.peer, " may not call ", callee));
  return false;
}

bool CallCore::RefuseAbsent(Link& link, const MessageHeader& header, const AccessEntry& entry) {
  ++counters_.refused_absent;
  Refuse(link, header, absl::StatusCode::kUnavailable,
         absl::StrCat("host ", host_name_, " does not serve ", entry.function->name));
  return false;
}

bool CallCore::RefuseRate(Link& link, const MessageHeader& header, const AccessEntry& entry) {
  ++counters_.refused_rate;
  Refuse(link, header, absl::StatusCode::kResourceExhausted,
         absl::StrCat(entry.function->name, " on host ", host_name_, ": ", *entry.caller, " calls more than ",
                      entry.function->calls_per_second_max, " times a second"));
  return false;
}

bool CallCore::RefuseConcurrency(Link& link, const MessageHeader& header, const AccessEntry& entry) {
  ++counters_.refused_concurrency;
  Refuse(link, header, absl::StatusCode::kResourceExhausted,
         absl::StrCat(entry.function->name, " on host ", host_name_, ": ", entry.function->limit.calls_max(),
                      " calls are in flight"));
  return false;
}

void CallCore::RefuseNoBudget(Link& link, const MessageHeader& header, uint32_t bytes) {
  ++counters_.requests_received;
  ++counters_.refused_room;
  ++link.requests_received;
  // A hostile id would block the honest ones after it; it is taken like any other.
  if (link.requests_received == 1 || !IdMayBeOld(header.request_id, link.last_request_id)) {
    link.last_request_id = header.request_id;
  }
  Refuse(link, header, absl::StatusCode::kResourceExhausted,
         absl::StrCat("host ", host_name_, ": no memory for a message of ", bytes, " bytes now"));
}

// The loop had no room for a request that was admitted.
void CallCore::RefuseAdmitted(Link& link, const Incoming& incoming) {
  ++counters_.refused_room;
  const std::string text =
      absl::StrCat(incoming.function->name, " on host ", host_name_, ": no room for a further call now");
  Reply(incoming, absl::StatusCode::kResourceExhausted, std::as_bytes(std::span(text)), nullptr, nullptr,
        true);
}

void CallCore::Refuse(Link& link, const MessageHeader& header, absl::StatusCode code,
                      absl::string_view text) {
  ++link.refused;
  if (header.kind == MessageKind::kOneWay) return;
  text = text.substr(0, kErrorTextBytesMax);
  const MessageHeader reply{.request_id = header.request_id,
                            .caller_index = static_cast<uint16_t>(code),
                            .kind = MessageKind::kResponse,
                            .flags = kFlagNotExecuted};
  QueueReply(link, reply, std::as_bytes(std::span(text.data(), text.size())), nullptr, nullptr);
}

// One of the requests that come in parts.
const Incoming& CallCore::TakePartial(Link& link, uint32_t request_id) {
  for (uint32_t i = 0; i < link.partials_count; ++i) {
    if (link.partials[i].request_id != request_id) continue;
    link.whole = link.partials[i];
    link.partials[i] = link.partials[--link.partials_count];
    return link.whole;
  }
  WEFT_CHECK(false && "the channel ends only messages that it began");
  return link.whole;
}

void CallCore::AbortIncoming(const Incoming& incoming) {
  ++counters_.dropped_aborted;
  EndIncoming(incoming);
}

// A reply that its ring did not take at once, or that nobody waits for.
void CallCore::ReplyOddly(Link& link, const Incoming& incoming, const MessageHeader& header,
                          const Payload& payload, SendDone done, void* context) {
  if (incoming.one_way() || link.epoch != incoming.link_epoch) {
    if (!incoming.one_way()) ++counters_.responses_dropped;
    if (done != nullptr) done(context, false);
    return;
  }
  QueueReply(link, header, payload, done, context);
}

absl::Status CallCore::AdmitLocal(LocalFunction& function, absl::string_view caller, uint64_t deadline_ns,
                                  uint64_t now_ns) {
  if (!function.served) {
    ++counters_.refused_absent;
    return absl::UnavailableError(absl::StrCat("host ", host_name_, " does not serve ", function.name));
  }
  if (deadline_ns != 0 && deadline_ns <= now_ns) {
    ++counters_.dropped_expired;
    return absl::DeadlineExceededError(absl::StrCat("call of ", function.name, ": no time left"));
  }
  if (function.calls_per_second_max != 0 && !Rate(Intern(caller), function)->TryTake(now_ns)) {
    ++counters_.refused_rate;
    return absl::ResourceExhaustedError(absl::StrCat(function.name, " on host ", host_name_, ": ", caller,
                                                     " calls more than ", function.calls_per_second_max,
                                                     " times a second"));
  }
  if (!function.limit.TryEnter()) {
    ++counters_.refused_concurrency;
    return absl::ResourceExhaustedError(absl::StrCat(function.name, " on host ", host_name_, ": ",
                                                     function.limit.calls_max(), " calls are in flight"));
  }
  ++outstanding_[kLocalPath];
  ++function.admitted;
  return absl::OkStatus();
}

void CallCore::EndLocal(LocalFunction& function) {
  function.limit.Leave();
  --outstanding_[kLocalPath];
}

}  // namespace weft
