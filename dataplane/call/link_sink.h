// SPDX-License-Identifier: Apache-2.0
// What a channel's Poll is given: takes each message through the checks of CallCore and hands admitted
// requests to the embedding loop, all inlined. One per link and loop; owner thread only.
#ifndef WEFT_DATAPLANE_CALL_LINK_SINK_H_
#define WEFT_DATAPLANE_CALL_LINK_SINK_H_

#include <cstddef>
#include <cstdint>

#include "dataplane/base/attributes.h"
#include "dataplane/call/call_core.h"

namespace weft {

// `Local` is duck-typed:
//   uint64_t NowNs(): dates the messages of this poll; need not read a clock.
//   std::byte* OnRequestBegin(const Incoming&, uint32_t bytes): where an admitted request goes: `bytes` of
//   it, the
//     first kTraceBytes of which are the trace context where incoming.flags has kFlagTrace. nullptr: no room;
//     it is refused with RESOURCE_EXHAUSTED.
//   void OnRequest(const Incoming&, std::byte* payload, uint32_t bytes): it is whole. The function runs now
//   or later;
//     CallCore::Reply ends it. The record is the link's: copy it (CopyIncoming) before anything is polled.
//   void OnRequestAbort(const Incoming&, std::byte* payload): it will not become whole; it has ended.
//   void OnCancel(uint32_t link, uint32_t request_id): nobody waits for the reply; it must be ended all the
//   same.
// A Local that takes runs of one-ways whole has two more:
//   std::byte* OnRunBegin(const MessageRun&): room for the block of a run that would be admitted, or nullptr:
//   none.
//   void OnRun(const Incoming& first, const MessageRun&, std::byte* payload): it is admitted. Each of its
//   messages, whose ids rise from the first's, is ended by CallCore::EndOneWay. Record and lengths are the
//   link's, as above.
// None of them may destroy a channel. All may start calls and reply.
template <class Local>
class LinkSink {
 public:
  LinkSink(CallCore& core, Local& local, Link& link) : core_(core), local_(local), link_(link) {}

  WEFT_HOT_INLINE std::byte* OnBegin(const MessageHeader& header, uint32_t bytes) {
    if (header.kind == MessageKind::kResponse) return core_.ResponseRoom(link_, header, bytes);
    switch (header.kind) {
      case MessageKind::kResponse:
        break;
      case MessageKind::kRequest:
      case MessageKind::kOneWay: {
        if (!core_.Admit(link_, header, bytes, local_.NowNs())) [[unlikely]]
          return nullptr;
        std::byte* const room = local_.OnRequestBegin(link_.begun, bytes);
        if (room == nullptr) [[unlikely]]
          core_.RefuseAdmitted(link_, core_.TakeBegun(link_, header.request_id));
        return room;
      }
      case MessageKind::kCancel:
        ++core_.counters_.cancels_received;
        local_.OnCancel(link_.index, header.request_id);
        return nullptr;
    }
    return nullptr;
  }

  WEFT_HOT_INLINE void OnMessage(const MessageHeader& header, std::byte* payload, uint32_t bytes) {
    if (header.kind == MessageKind::kResponse) {
      core_.TakeResponse(link_, header, payload, bytes);
      return;
    }
    const Incoming& incoming = core_.TakeBegun(link_, header.request_id);
    ++core_.counters_.requests_admitted;
    ++incoming.function->admitted;
    if (incoming.one_way()) ++core_.counters_.one_way_received;
    local_.OnRequest(incoming, payload, bytes);
  }

  WEFT_HOT std::byte* OnRunBegin(const MessageHeader& first, const MessageRun& run)
    requires requires(Local& local) { local.OnRunBegin(run); }
  {
    run_entry_ = core_.MayAdmitRun(link_, first, run.count, local_.NowNs());
    return run_entry_ != nullptr ? local_.OnRunBegin(run) : nullptr;
  }
  WEFT_HOT void OnRun(const MessageHeader& first, const MessageRun& run, std::byte* payload) {
    local_.OnRun(core_.BeginRun(link_, first, run.count, *run_entry_), run, payload);
  }

  void OnAbort(const MessageHeader& header, std::byte* payload) {
    if (header.kind == MessageKind::kResponse) {
      core_.ResponseAborted(link_, header, "broke off");
      return;
    }
    const Incoming& incoming = core_.TakeBegun(link_, header.request_id);
    core_.AbortIncoming(incoming);
    local_.OnRequestAbort(incoming, payload);
  }

  void OnNoBudget(const MessageHeader& header, uint32_t bytes) {
    if (header.kind == MessageKind::kResponse) {
      core_.ResponseAborted(link_, header, "found no memory");
    } else if (header.kind != MessageKind::kCancel) {
      core_.RefuseNoBudget(link_, header, bytes);
    }
  }

  Link& link() { return link_; }

 private:
  CallCore& core_;
  Local& local_;
  Link& link_;
  const AccessEntry* run_entry_ = nullptr;  // Of the run whose block is being copied.
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_CALL_LINK_SINK_H_
