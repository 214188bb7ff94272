// SPDX-License-Identifier: Apache-2.0
// The call layer of one host: turns calls into messages and messages into calls, over any number of links.
// Pure mechanism: it neither polls nor sleeps nor reads a clock on the path of a message, and speaks to no
// agent; the loop of libweft or weft-host drives it, hands it the time, and tells it what the agent
// said.
//
// One thread at a time owns a CallCore and everything in it. Nothing allocates on the path of a message that
// is sent at once and arrives whole.
#ifndef WEFT_DATAPLANE_CALL_CALL_CORE_H_
#define WEFT_DATAPLANE_CALL_CALL_CORE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "dataplane/base/attributes.h"
#include "dataplane/base/random.h"
#include "dataplane/call/access_table.h"
#include "dataplane/call/call.h"
#include "dataplane/call/counters.h"
#include "dataplane/call/deadline_wheel.h"
#include "dataplane/call/link.h"
#include "dataplane/call/local_function.h"
#include "dataplane/call/outgoing_table.h"
#include "dataplane/call/wire.h"

namespace weft {

struct CallCoreOptions {
  uint32_t calls_max = 4096;  // Outgoing calls under way.
  uint64_t seed = 1;          // Of the choice among targets.
  // Replies to one peer that may wait for room, and the bytes that all waiting replies may hold, those to one
  // peer as many as are left; beside a quarter of its channel's arena, which is each peer's own. Beyond, they
  // are dropped and counted: the peer does not read.
  uint32_t reply_backlog_max = 4096;
  uint64_t reply_backlog_bytes_max = 128 * 1024 * 1024;
};

// One function that one caller may call, as the agent's table says.
struct AccessGrant {
  uint32_t caller_index = 0;
  std::string caller;
  FunctionId function;
};

class CallCore {
 public:
  explicit CallCore(const CallCoreOptions& options);
  CallCore(const CallCore&) = delete;
  CallCore& operator=(const CallCore&) = delete;

  // --- Links. Control path; allocates.
  // `channel` is open and was connected with `doorbell`. The caller adds it to its poller.
  Link& AddLink(std::unique_ptr<Channel> channel, std::unique_ptr<Doorbell> doorbell, absl::string_view peer);
  // Replaces what the peer may call. Rates of callers that stay go on.
  void SetAccess(Link& link, const std::vector<AccessGrant>& grants);
  // Lets go of names of callers, and of their rates, that no link's table has any more, nor a request on its
  // way in. `held`: those of requests that the owner has yet to end; on return all that are kept. For an
  // owner that knows of all of those, between two polls.
  void ForgetCallers(absl::flat_hash_set<const std::string*>* held);
  // Names of callers that are kept.
  std::size_t callers_kept() const { return names_.size(); }
  // So many records of names that come and go are looked at for ones to let go, and again once there are
  // twice as many as were left.
  static constexpr std::size_t kForgetMin = 64;
  // Ends a link: calls in flight there fail with `code`, or are tried elsewhere where that is allowed; it
  // leaves all routes; its channel is destroyed, which the caller has taken out of its poller, and which no
  // Poll is using.
  void CloseLink(Link& link, absl::StatusCode code, absl::string_view reason);
  // Names calls over `link` that its peer hands on to `node`: what is under way and what is learned is kept
  // for each alone. Good until the link closes; once a route was set, while one has it or a call is on it.
  uint32_t PathOf(const Link& link, absl::string_view node);
  static constexpr std::size_t kPathsMin = 64;
  // Our calls under way over `link`.
  uint32_t Outstanding(const Link& link) const;
  Link* link(uint32_t index) { return index < links_.size() ? links_[index].get() : nullptr; }
  uint32_t links_count() const { return static_cast<uint32_t>(links_.size()); }

  // --- Functions served here.
  // The record of `id`, made where there is none. It stays while the function is served, runs or has a policy
  // from the agent, a link's table names it, or its `held` says so; else until the next change of these.
  LocalFunction& Function(FunctionId id);
  std::size_t functions_kept() const { return functions_.size(); }
  LocalFunction& Serve(absl::string_view name, void* user);
  // Requests of it are refused from now on, before they run; running ones go on.
  void StopServing(LocalFunction& function) { function.served = function.policy_told = false; }
  void SetServePolicy(absl::string_view name, const Policy& policy);

  // --- Routes.
  // The entry of the pair, made where there is none.
  RouteEntry& Route(absl::string_view caller, absl::string_view callee);
  // The same, or null where there is none.
  RouteEntry* FindRoute(absl::string_view caller, absl::string_view callee);
  // Lets go of all routes but those in `asked`, and those that a call is under way by.
  void ForgetRoutes(const absl::flat_hash_set<const RouteEntry*>& asked);
  std::size_t routes_kept() const { return routes_.size(); }
  // No targets: calls fail with `code` and `reason`; else `refused_share` of 2^32 do. Targets without a path
  // get that of their link.
  void SetRoute(RouteEntry& route, std::vector<Target> targets, const Policy& policy, absl::StatusCode code,
                absl::string_view reason, uint32_t refused_share = 0);

  // --- Calling.
  // For a thread that will start a call of `route`, or reply to `incoming`, within 0.1 us or so: has the cell
  // of the message fetched meanwhile (BasicProducer::FetchNextCell). Of several near targets none is known
  // yet.
  WEFT_HOT void ExpectCall(const RouteEntry& route) const;
  WEFT_HOT void ExpectReply(const Incoming& incoming) const;
  // Sends a call for the next Publish(). `now_ns` dates its deadline. kStarted fills `handle`.
  WEFT_HOT StartState Start(RouteEntry& route, const CallSpec& spec, uint64_t now_ns, CallHandle* handle);
  // The same, and publishes at once, before it keeps its books: for a thread that will wait for the answer.
  WEFT_HOT StartState StartNow(RouteEntry& route, const CallSpec& spec, uint64_t now_ns, CallHandle* handle);
  // Sends a message that expects no answer. One longer than whole_bytes_max() goes out in parts: then
  // `spec.done` is called when its payload is no longer needed, at its deadline at the latest, with the code
  // OK or why not all of it went out; else `done` is not called.
  WEFT_HOT StartState SendOneWay(RouteEntry& route, const CallSpec& spec, uint64_t now_ns, bool* in_parts);
  // Sends and publishes the first of these as one run over one target, without prefix, callback or parts:
  // kStarted fills `*sent`, kNoRoom: a wait would make room. False result of MayRun: by SendOneWay, one by
  // one.
  WEFT_HOT StartState SendRun(RouteEntry& route, std::span<const std::span<const std::byte>> messages,
                              uint64_t deadline_ns, uint32_t* sent);
  static bool MayRun(std::span<const std::span<const std::byte>> messages) {
    return messages.size() >= kRunMessagesMin && messages.front().size() <= kInlineBytesMax;
  }
  // Looks for room in the rings to the route's targets for about a microsecond.
  bool AwaitRoomBriefly(const RouteEntry& route);
  // Why the last Start, SendRun or SendOneWay returned kFailed.
  const absl::Status& start_error() const { return start_error_; }
  // Gives the call up: the callee is told, `done` runs with CANCELLED. False where it has ended.
  bool Cancel(CallHandle handle);
  // The same with DEADLINE_EXCEEDED, for calls that are not `timed`.
  bool Expire(CallHandle handle);
  bool HasUnpublished() const { return dirty_ != nullptr; }
  // Publishes all that was sent on every link since the last time.
  WEFT_HOT void Publish() {
    while (dirty_ != nullptr) {
      Link& link = *dirty_;
      dirty_ = std::exchange(link.next_dirty, nullptr);
      link.dirty = false;
      link.channel->Publish();
    }
  }

  // --- Being called; see LinkSink for how requests come in.
  // Ends an admitted request: answers it with `payload`, which is the response, or the text of an error where
  // `code` is not OK; a one-way only ends. The payload is copied before this returns, unless `done` is
  // given: then it stays as it is until `done` runs, which is before this returns where the payload has at
  // most whole_bytes_max(), and else once it is sent, or the peer has read nothing for kStreamStallNs.
  // `not_executed`: the function was not run.
  WEFT_HOT void Reply(const Incoming& incoming, absl::StatusCode code, const Payload& payload,
                      SendDone done = nullptr, void* context = nullptr, bool not_executed = false);
  // The same, and publishes at once, before it keeps its books.
  WEFT_HOT void ReplyNow(const Incoming& incoming, absl::StatusCode code, const Payload& payload,
                         SendDone done = nullptr, void* context = nullptr);
  // Ends a one-way, which nobody answers.
  WEFT_HOT void EndOneWay(const Incoming& incoming) { EndIncoming(incoming); }
  // Checks a call that stays inside this host against the callee's limits, like one that comes in; OK: it is
  // in flight until EndLocal.
  absl::Status AdmitLocal(LocalFunction& function, absl::string_view caller, uint64_t deadline_ns,
                          uint64_t now_ns);
  void EndLocal(LocalFunction& function);

  // --- Driving.
  // Fires deadlines, sends what waited for room, fails streams that stall. Whenever the loop turns and
  // Busy().
  void Advance(uint64_t now_ns);
  // Sends what waits for room, as far as there is some; true where anything moved.
  bool PumpJobs(uint64_t now_ns);
  // For the next one, or the late ones, since the beginning.
  uint64_t jobs_looked_at() const { return jobs_looked_at_; }
  bool HasJobs() const { return jobs_ != 0 || !waiting_.empty(); }
  bool Busy() const {
    return wheel_.size() != 0 || jobs_ != 0 || !waiting_.empty() ||
           (hedges_ != nullptr && hedges_->size() != 0);
  }
  // When Advance is needed at the latest if nothing else happens; DeadlineWheel::kNever: not at all.
  uint64_t NextNs(uint64_t now_ns) const;

  uint32_t calls_in_flight() const { return table_.size(); }
  uint32_t incoming_in_flight() const { return incoming_; }
  uint32_t message_bytes_max() const { return message_bytes_max_; }
  void set_message_bytes_max(uint32_t bytes) { message_bytes_max_ = bytes; }
  void set_host_name(absl::string_view name) { host_name_ = std::string(name); }
  const CallCounters& counters() const { return counters_; }
  CallCounters& counters() { return counters_; }
  OutgoingTable<OutgoingCall>& table() { return table_; }

 private:
  template <class Local>
  friend class LinkSink;

  // A way that calls go, by Target::path.
  struct Path {
    uint32_t link = kLocalLink;  // TargetSet::kNoLink: this place is free.
    std::string node;            // To which the link's peer hands them on; empty: it runs them.
  };

  // --- Requests on their way in; for LinkSink.
  WEFT_HOT bool Admit(Link& link, const MessageHeader& header, uint32_t bytes, uint64_t now_ns);
  bool AdmitOddly(Link& link, const MessageHeader& header, uint32_t bytes, uint64_t now_ns);
  WEFT_HOT void Begin(Link& link, const MessageHeader& header, const AccessEntry& entry);
  // The entry of a run all of whose messages pass the checks of Admit; nullptr: look at them one by one.
  WEFT_HOT const AccessEntry* MayAdmitRun(const Link& link, const MessageHeader& first, uint32_t count,
                                          uint64_t now_ns) const;
  WEFT_HOT Incoming BeginRun(Link& link, const MessageHeader& first, uint32_t count,
                             const AccessEntry& entry);
  static bool IsComing(const Link& link, uint32_t request_id);
  bool RefuseUnlisted(Link& link, const MessageHeader& header);
  bool RefuseAbsent(Link& link, const MessageHeader& header, const AccessEntry& entry);
  bool RefuseRate(Link& link, const MessageHeader& header, const AccessEntry& entry);
  bool RefuseConcurrency(Link& link, const MessageHeader& header, const AccessEntry& entry);
  void RefuseAdmitted(Link& link, const Incoming& incoming);
  void RefuseNoBudget(Link& link, const MessageHeader& header, uint32_t bytes);
  void Refuse(Link& link, const MessageHeader& header, absl::StatusCode code, absl::string_view text);
  // The result stays until the next request of the link begins.
  WEFT_HOT const Incoming& TakeBegun(Link& link, uint32_t request_id);
  const Incoming& TakePartial(Link& link, uint32_t request_id);
  void AbortIncoming(const Incoming& incoming);
  WEFT_HOT void EndIncoming(const Incoming& incoming);
  template <bool kNow>
  void ReplyTo(const Incoming& incoming, absl::StatusCode code, const Payload& payload, SendDone done,
               void* context, bool not_executed);
  void ReplyOddly(Link& link, const Incoming& incoming, const MessageHeader& header, const Payload& payload,
                  SendDone done, void* context);

  // --- Responses on their way in; for LinkSink.
  WEFT_HOT std::byte* ResponseRoom(Link& link, const MessageHeader& header, uint32_t bytes);
  bool MayAnswerOddly(const OutgoingCall& call, const Link& link, const MessageHeader& header);
  std::byte* OddResponseRoom(OutgoingCall& call, Link& link, const MessageHeader& header, uint32_t bytes);
  WEFT_HOT void TakeResponse(Link& link, const MessageHeader& header, std::byte* payload, uint32_t bytes);
  void TakeError(OutgoingCall& call, const MessageHeader& header, std::byte* payload, uint32_t bytes);
  void ResponseAborted(Link& link, const MessageHeader& header, absl::string_view why);

  // --- Calls under way.
  StartState Fail(absl::StatusCode code, absl::string_view text);
  StartState NoTarget(RouteEntry& route);
  template <bool kNow>
  StartState StartCall(RouteEntry& route, const CallSpec& spec, uint64_t now_ns, CallHandle* handle);
  StartState StartOddly(RouteEntry& route, const CallSpec& spec, const Target* target);
  StartState StartInParts(OutgoingCall& call, const Target& target);
  StartState NoRoom(RouteEntry& route);
  StartState SendOneWayInParts(RouteEntry& route, Link& link, const MessageHeader& header,
                               const CallSpec& spec, uint64_t now_ns, bool* in_parts);
  bool SendRequest(OutgoingCall& call, const Target& target);
  static MessageHeader RequestHeader(const OutgoingCall& call, const Target& target);
  const Target* ChooseTarget(const RouteEntry& route, uint32_t avoid = kNoPath);
  // The target of a call that is not tried again; null where the route has none, or fails this one.
  const Target* ChooseFirst(RouteEntry& route);
  bool Refuses(RouteEntry& route);
  bool SpillsOver(const RouteEntry& route, const CallSpec& spec, const Target** target);
  // The try of a call has ended without success: tries again or ends it.
  void TryFailed(OutgoingCall& call, absl::StatusCode code, bool not_executed, absl::string_view text);
  void Retry(OutgoingCall& call);
  WEFT_HOT void Complete(OutgoingCall& call, const CallOutcome& outcome);
  // Detaches the call from its link: nothing of its memory is read or written any more.
  WEFT_HOT void Detach(OutgoingCall& call, absl::StatusCode code);
  void DetachOddly(OutgoingCall& call, absl::StatusCode code);
  void GiveUp(OutgoingCall& call, absl::StatusCode code, absl::string_view text);
  void ResumeWaiting();

  // --- watched.cc: calls of routes that learn and hedge.
  void Watch(OutgoingCall& call);
  void Observe(OutgoingCall& call);
  void StartHedge(OutgoingCall& call);
  bool MayAnswerWatched(const OutgoingCall& call, const Link& link);
  void NoteResult(const OutgoingCall& call, absl::StatusCode code);
  void EndWatched(OutgoingCall& call, absl::StatusCode code);
  void DropTwin(OutgoingCall& twin);
  void RefuseWatchedAnswer(OutgoingCall& call, const Link& link);
  void FailOneOfPair(OutgoingCall& call, absl::StatusCode code, absl::string_view text);
  void LeaveLink(OutgoingCall& call);
  void TellCancelled(const OutgoingCall& call);

  // --- Messages that wait for room.
  std::list<SendJob>::iterator NextJob(Link& link, uint64_t number);
  SendJob& AddJob(Link& link, const MessageHeader& header, const Payload& payload, Lane lane);
  void RenewJob(SendJob& job);
  bool PumpJob(Link& link, SendJob& job, uint64_t now_ns);
  bool PumpLink(Link& link, uint64_t now_ns);
  void EndJob(Link& link, std::list<SendJob>::iterator job, bool sent, bool stalled);
  bool DropBorrowed(Link& link, uint64_t now_ns);
  bool DropLate(Link& link, uint64_t now_ns);
  static uint64_t SharedReplyBytes(const Link& link, uint64_t bytes);
  bool MayKeepReply(const Link& link, uint64_t bytes) const;
  void SetReplyBytes(Link& link, uint64_t bytes);
  void QueueReply(Link& link, const MessageHeader& header, const Payload& payload, SendDone done,
                  void* context);

  void MarkDirty(Link& link) {
    if (link.dirty) return;
    link.dirty = true;
    link.next_dirty = dirty_;
    dirty_ = &link;
  }
  void FreePath(Path& path);
  void ForgetPaths();
  void ForgetFunctions();
  static void Name(LocalFunction& function, absl::string_view name);
  CallRate* Rate(const std::string* caller, LocalFunction& function);
  const std::string* Intern(absl::string_view name);

  CallCoreOptions options_;
  CallCounters counters_;
  OutgoingTable<OutgoingCall> table_;
  DeadlineWheel wheel_;
  std::unique_ptr<DeadlineWheel>
      hedges_;  // When calls are hedged; made with the first route that asks for it.
  Random random_;
  std::vector<std::unique_ptr<Link>> links_;
  Link* dirty_ = nullptr;            // Links with something to publish; a list.
  std::vector<CallHandle> waiting_;  // Calls between two tries, for want of room.
  uint32_t jobs_ = 0;                // Over all links
  uint64_t jobs_looked_at_ = 0;
  uint32_t incoming_ = 0;
  std::vector<Path> paths_ = std::vector<Path>(1);                // The first is kLocalPath.
  std::vector<uint32_t> outstanding_ = std::vector<uint32_t>(1);  // Calls under way, by path.
  uint32_t message_bytes_max_ = kMessageBytesMaxDefault;
  uint64_t reply_bytes_ = 0;  // Held by waiting replies, beside what each peer has for itself.
  absl::Status start_error_;
  std::string host_name_;
  std::byte error_text_[kErrorTextBytesMax];
  absl::flat_hash_map<uint64_t, std::unique_ptr<LocalFunction>> functions_;
  std::map<std::pair<std::string, std::string>, std::unique_ptr<RouteEntry>> routes_;
  // Keyed by the interned caller.
  std::map<std::pair<const std::string*, LocalFunction*>, std::unique_ptr<CallRate>> rates_;
  absl::flat_hash_map<std::string, std::unique_ptr<std::string>> names_;
  std::size_t forget_functions_at_ = kForgetMin;
  std::size_t paths_used_ = 1;               // Places of paths_ that are not free.
  std::size_t forget_paths_at_ = kPathsMin;  // So many make ForgetPaths look at all.
};

}  // namespace weft

#include "dataplane/call/call_path.h"  // IWYU pragma: export

#endif  // WEFT_DATAPLANE_CALL_CALL_CORE_H_
