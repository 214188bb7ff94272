// SPDX-License-Identifier: Apache-2.0
// The guests of one process: its functions, the calls that come in and go out, the fibers that wait. One
// thread owns it and everything below it; weft-host's loop is
//
//     deliver what the channels hold (Begin, Run, Finish, Cancel)
//     RunReady()                       fibers whose answer came, fibers that gave up their turn
//     IdleWork() while nothing else    makes clean instances
//     sleep until a doorbell or NextDueNs()
#ifndef WEFT_DATAPLANE_HOST_HOST_H_
#define WEFT_DATAPLANE_HOST_HOST_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "dataplane/base/attributes.h"
#include "dataplane/base/clock.h"
#include "dataplane/host/engine.h"
#include "dataplane/host/function.h"
#include "dataplane/host/instance.h"
#include "dataplane/host/seam.h"

namespace weft::host {

struct HostOptions {
  // Calls that have come in and not been answered, and calls that guests have under way.
  uint32_t in_calls_max = 8192;
  uint32_t out_calls_max = 16384;
};

// The bytes of `text`, which stays its owner's.
inline absl::Span<const std::byte> AsBytes(absl::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

class Host {
 public:
  // `out`, `in` and `log` stay the caller's and outlive the host.
  Host(Engine& engine, const HostOptions& options, CallsOut& out, CallsIn& in, GuestLog& log);
  ~Host();
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  // ---- Functions. Control path: instantiates, allocates. Add and Remove not while a guest is on the stack.
  // `replaced`, the function of that name served so far, drains once the new one serves: where that does not
  // start up, it goes on.
  absl::StatusOr<Function*> Add(std::string name, std::shared_ptr<const Module> module,
                                const FunctionOptions& options, Function* replaced = nullptr);
  // Null where no function of that name is served; one that drains does not count.
  Function* Find(absl::string_view name) const;
  // Destroys a function without calls: FAILED_PRECONDITION while it has some. No Target may name it any
  // longer.
  absl::Status Remove(Function* function);
  const std::vector<std::unique_ptr<Function>>& functions() const { return functions_; }
  // What calls of `caller` are under way to. Looks at all calls.
  absl::flat_hash_set<const Callee*> CalleesUnderWay(const Function& caller) const;

  // ---- Calls that come in.
  // A request of `bytes` for `function` is about to arrive: where to put it is in the result's `room`. Null
  // where it must be refused, with the reason in `*refusal`: kResourceExhausted, kUnavailable (draining).
  WEFT_HOT InCall* Begin(Function& function, uint32_t bytes, const CallContext& context, bool has_trace,
                         bool one_way, Status* refusal);
  // The bytes are in place: runs the handler, now where it can. Ends in CallsIn::Reply, now or later.
  WEFT_HOT void Run(InCall* call);
  // As Run(), but by RunReady(): for whoever is inside a poll, where a guest that calls out must not run.
  void Defer(InCall* call) { PushReady(call); }
  // Run() would end at once, and on the plain path.
  bool RunsPlain(const InCall& call) const {
    return call.function->plain() && call.instance != nullptr && call.failure == kOk;
  }
  // The bytes given to CallsIn::Reply, which returned false, are no longer needed.
  void ReplySent(InCall* call);
  // The caller has given up, or the bytes will never come: stops the call wherever it is. No reply follows.
  // While a guest is on the stack, only for a call whose bytes are still coming: it, or a callee of it, may
  // be the one that runs.
  void Cancel(InCall* call);

  // ---- Calls that guests make, ended by CallsOut. `bytes` of answer (or error message) are where RoomFor()
  // said.
  WEFT_HOT void Finish(OutCall& call, Status status, uint32_t bytes);
  // The same with bytes that lie elsewhere: copies them.
  void FinishWith(OutCall& call, Status status, absl::Span<const std::byte> bytes);
  // Runs `call` in `callee`, a function of this process that CallsOut has admitted: when the caller has
  // suspended.
  void StartLocal(OutCall& call, Function& callee);
  // The same for a message without an answer: copies it, runs it with the next RunReady(). What is not kOk is
  // why it was refused; then it is no longer under way.
  Status SendLocal(Function& callee, absl::Span<const std::byte> message, const CallContext& context);

  // ---- The loop.
  // Resumes every fiber whose wait is over and one that gave up its turn. The number resumed.
  WEFT_HOT int RunReady();
  // Makes one instance clean; false where none needs it.
  bool IdleWork();
  // When RunReady() must be called next even if nothing happens; UINT64_MAX: never, 0: at once.
  uint64_t NextDueNs() const;
  // Something could run now; a CallsOut that polls should not dwell.
  bool has_runnable() const { return ready_head_ != nullptr || yielded_head_ != nullptr || queue_kick_; }
  uint32_t in_call_count() const { return in_call_count_; }
  uint32_t out_call_count() const { return out_call_count_; }
  // CLOCK_MONOTONIC, cheaply.
  WEFT_HOT uint64_t NowNs();
  // The same as it was when a guest's turn began or the ticker last interrupted it: some ten milliseconds
  // late at the worst, and free. For deadlines, which are not finer.
  uint64_t CoarseNs() const { return coarse_ns_; }
  void RefreshCoarse() { coarse_ns_ = NowNs(); }
  // CLOCK_REALTIME minus CLOCK_MONOTONIC.
  int64_t realtime_offset_ns() const { return realtime_offset_ns_; }
  Engine& engine() { return engine_; }
  GuestLog& log() { return log_; }

  // A guest is on this thread's stack, so whoever asks is within a call that it makes.
  bool InGuest() const { return guest_depth_ != 0; }
  // Around every stretch in which a guest runs on this thread: time passes for it meanwhile.
  WEFT_HOT void EnterGuest() {
    if (guest_depth_++ == 0) engine_.ticker().Enter();
  }
  WEFT_HOT void LeaveGuest() {
    if (--guest_depth_ == 0) engine_.ticker().Leave();
  }

  // ---- What the imports are made of. `room` and `request` have been checked; see docs/guest-abi.md for
  // results.
  struct OutRequest {
    uint32_t name_pointer;
    absl::string_view name;
    absl::Span<const std::byte> request;
    std::byte* room;
    uint32_t room_bytes;
    int64_t timeout_ns;
  };
  WEFT_HOT uint64_t GuestCall(Instance& instance, const OutRequest& request);
  uint64_t GuestStart(Instance& instance, const OutRequest& request);
  Status GuestSend(Instance& instance, const OutRequest& request);
  // The call behind a guest's handle, or null.
  WEFT_HOT OutCall* FindOutCall(Instance& instance, uint32_t handle);
  // The outcome of a finished call, which it forgets unless the answer is too long for the guest's room.
  WEFT_HOT uint64_t TakeOutcome(OutCall& call);
  // As TakeOutcome, into a room given now.
  uint64_t TakeResult(OutCall& call, std::byte* room, uint32_t room_bytes);
  static uint32_t HandleOf(const OutCall& call) { return call.generation << kIndexBits | call.index; }
  // Puts the call at hand to sleep until `wake_ns`; its fiber must suspend at once.
  void Sleep(InCall& call, uint64_t wake_ns);

 private:
  static constexpr uint32_t kIndexBits = 16;

  InCall* NewInCall();
  void FreeInCall(InCall* call);
  OutCall* NewOutCall(Instance& owner);
  void FreeOutCall(OutCall& call);
  void CancelOutCalls(Instance& instance);
  CallContext ContextFor(const Instance& instance, int64_t timeout_ns);
  uint64_t Start(Instance& instance, Callee& callee, const OutRequest& request, const CallContext& context,
                 Function* local, bool awaited);
  uint64_t Watched(OutCall& call);

  // The call's room in its instance's memory; false where the guest has none, with call->failure set.
  WEFT_HOT bool AllocRoom(InCall* call, uint32_t trace_bytes);
  void DropPrivateRoom(InCall* call);
  // Ends a call whose `failure` says that its guest cannot take it.
  void Refuse(InCall* call);
  // Gives a call whose bytes lie in a private buffer an instance and starts it; false where none is free.
  bool StartOnInstance(InCall* call);
  void ReleaseInstance(InCall* call);
  WEFT_HOT void Execute(InCall* call);
  WEFT_HOT void ExecutePlain(InCall* call);
  void StartFiber(InCall* call);
  void PollFiber(InCall* call);
  // The fiber of stage kAlloc has ended: copies the request into the room that it gave.
  bool EnterHandleStage(InCall* call, uint32_t pointer);
  WEFT_HOT void Complete(InCall* call, uint32_t status);
  // False: the reply is still being read.
  bool Answer(InCall* call, Status status, absl::Span<const std::byte> reply);
  // Ends a call that has no instance.
  void Fail(InCall* call, Status status, absl::string_view message);
  int RunQueued();

  // Calls between functions of this process.
  WEFT_HOT bool CallDirect(Instance& caller, Function& callee, const OutRequest& request,
                           const CallContext& context, uint64_t* outcome);
  void AddTimed(OutCall& call);
  void RunTimers(uint64_t now_ns);
  void RunDeadlines(uint64_t now_ns);
  void RunSleepers(uint64_t now_ns);

  void PushReady(InCall* call);
  void PushYielded(InCall* call);
  void Unlink(InCall* call);
  void ResyncClock();

  Engine& engine_;
  const HostOptions options_;
  CallsOut& out_;
  CallsIn& in_;
  GuestLog& log_;
  std::vector<std::unique_ptr<Function>> functions_;
  size_t idle_next_ = 0;  // IdleWork() takes the functions in turn.

  TickClock clock_;
  uint64_t resync_ticks_ = 0;
  uint64_t resync_every_ticks_ = 0;
  int64_t realtime_offset_ns_ = 0;
  uint64_t coarse_ns_ = 0;

  std::vector<std::unique_ptr<InCall>> in_calls_;
  InCall* in_free_ = nullptr;
  uint32_t in_call_count_ = 0;
  std::vector<std::unique_ptr<OutCall>> out_calls_;
  OutCall* out_free_ = nullptr;
  uint32_t out_call_count_ = 0;

  uint32_t guest_depth_ = 0;      // Guests on this thread's stack: above 1 within a direct call.
  bool queue_kick_ = false;       // An instance came free while calls were queued.
  InCall* ready_head_ = nullptr;  // Their wait is over.
  InCall* ready_tail_ = nullptr;
  InCall* yielded_head_ = nullptr;  // They used up their turn.
  InCall* yielded_tail_ = nullptr;
  InCall* sleepers_ = nullptr;
  OutCall* timed_ = nullptr;
  uint64_t next_due_ns_ = UINT64_MAX;
};

}  // namespace weft::host

#endif  // WEFT_DATAPLANE_HOST_HOST_H_
