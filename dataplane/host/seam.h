// SPDX-License-Identifier: Apache-2.0
// Where guests meet the mesh: what the host asks of whatever carries its calls out (CallsOut), whom it tells
// how a call that came in ended (CallsIn), and the records of both. weft-host joins them to libweft, tests to
// fakes. Everything here happens on the guest thread.
#ifndef WEFT_DATAPLANE_HOST_SEAM_H_
#define WEFT_DATAPLANE_HOST_SEAM_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "dataplane/host/abi.h"

namespace weft::host {

class Function;
class Host;
class Instance;
struct InCall;

// W3C trace context as it travels with a call: version, trace id, parent id and flags in binary. Most calls
// have none, and then neither making nor copying one touches `wire`.
struct Trace {
  static constexpr uint32_t kBytes = 1 + 16 + 8 + 1;

  Trace() {}  // NOLINT(cppcoreguidelines-pro-type-member-init): `wire` is read only where `present`.
  Trace(const Trace& other) { *this = other; }  // NOLINT(cppcoreguidelines-pro-type-member-init)
  Trace& operator=(const Trace& other) {
    present = other.present;
    if (present) [[unlikely]]
      wire = other.wire;
    return *this;
  }

  std::array<std::byte, kBytes> wire;
  bool present = false;
};

// What a call being handled knows of itself, and passes on to the calls it makes.
struct CallContext {
  uint64_t deadline_ns = 0;  // CLOCK_MONOTONIC; 0: none.
  uint32_t depth = 0;        // Calls within this process above this one.
  Trace trace = {};
};

// A function as one of this host's functions calls it. Made by CallsOut::Resolve, which may keep more than
// this in it; alive until CallsOut is destroyed.
struct Callee {};

// One call that a guest makes. The host owns it; CallsOut may touch it from Start() until it is finished or
// cancelled.
struct OutCall {
  // ---- For CallsOut.
  Callee* callee = nullptr;
  absl::Span<const std::byte> request;  // Guest memory. Stays until the call is finished or cancelled.
  CallContext context;                  // Start() may set an earlier deadline, which the host then watches.
  bool own_timeout = false;             // The guest set the deadline itself.
  bool awaited = false;                 // The guest does nothing else meanwhile: to be sent at once.
  uint32_t mesh_slot = 0;               // CallsOut's own.
  uint32_t mesh_generation = 0;
  // Where to write an answer of `bytes`: the guest's own room where it fits, else a private buffer. Null
  // where it is longer than messages may be.
  std::byte* RoomFor(uint32_t bytes);

  // ---- The host's.
  enum class State : uint8_t { kFree, kRunning, kFinished };
  Instance* owner = nullptr;
  std::byte* room = nullptr;
  uint32_t room_bytes = 0;
  uint32_t status = kOk;
  uint32_t bytes = 0;       // Of the answer.
  uint32_t generation = 0;  // Upper half of the handle: a stale handle is not mistaken for a new one.
  uint32_t index = 0;
  State state = State::kFree;
  bool timed = false;            // On the host's list of deadlines of calls within this process.
  InCall* local_call = nullptr;  // The callee's record of it, while that runs in this process.
  std::unique_ptr<std::byte[]> large;
  OutCall* next = nullptr;  // Free list, or the list of the owner's calls.
  OutCall* previous = nullptr;
  OutCall* timed_next = nullptr;
};

// Carries calls out of this process.
class CallsOut {
 public:
  virtual ~CallsOut() = default;
  // The callee behind a name that `caller` uses for the first time. May allocate. The status goes to the
  // guest.
  virtual absl::StatusOr<Callee*> Resolve(Function& caller, absl::string_view name) = 0;
  // What Resolve() gave is needed no more, by no call under way either. Once for each Resolve().
  virtual void Release(Callee& callee) = 0;
  // The function of this process that a call must go to, counted as under way until LeaveLocal, with the
  // deadline in `context` brought forward where a policy says so. Null: start it. Null and a `refusal` that
  // is not kOk: it may not run.
  virtual Function* EnterLocal(Callee& callee, CallContext& context, bool own_timeout, Status* refusal) = 0;
  virtual void LeaveLocal(Function& function) = 0;
  // Begins `call`. May finish it at once by Host::Finish, or turn it over to Host::StartLocal.
  virtual void Start(OutCall& call) = 0;
  // Looks for the end of `call` for a moment (some round trips of shared memory, less where other work
  // waits). Of guests it may run leaves only.
  virtual void PollBriefly(OutCall& call) = 0;
  // Sends a message without an answer: kOk when it was handed over. The message is copied. May turn it over
  // to Host::SendLocal.
  virtual Status Send(Callee& callee, absl::Span<const std::byte> message, const CallContext& context) = 0;
  // Forgets `call`: its room may vanish as soon as this returns. A Finish meanwhile has no effect.
  virtual void Cancel(OutCall& call) = 0;
  // The deadline of `call` has passed: finishes it so.
  virtual void Expire(OutCall& call) = 0;
};

// One call that comes in. The host owns it from Host::Begin until CallsIn::Reply or Host::Cancel.
struct InCall {
  // ---- For whoever delivers it.
  std::byte* room = nullptr;  // Where the request goes, the trace first: guest memory or a private buffer.
  uint32_t index = 0;         // Of this record among all; below HostOptions::in_calls_max.
  uint64_t mesh = 0;          // Theirs.

  // ---- The host's.
  enum class Stage : uint8_t { kFilling, kQueued, kAlloc, kHandle, kReplying };
  enum class Wait : uint8_t { kNone, kOne, kAny, kSleep };
  Function* function = nullptr;
  Instance* instance = nullptr;
  CallContext context;
  OutCall* local_caller = nullptr;  // A guest of this process called.
  bool local = false;               // From a guest of this process; CallsIn never hears of it.
  bool one_way = false;
  bool charged = false;  // Its private buffer counts against the function's queue.
  Status failure = kOk;  // It will be refused when its bytes have come.
  Stage stage = Stage::kFilling;
  Wait wait = Wait::kNone;
  bool ready = false;        // On the list of calls to resume.
  uint32_t bytes = 0;        // Of the request proper.
  uint32_t trace_bytes = 0;  // Before it in `room`: Trace::kBytes or none.
  uint32_t guest_ptr = 0;    // Of the request proper.
  uint32_t wait_count = 0;
  uint64_t wake_ns = 0;  // Of Wait::kSleep.
  std::array<uint32_t, kOutCallsOfInstanceMax> wait_handles;
  std::unique_ptr<std::byte[]> large;
  InCall* next = nullptr;
  InCall* sleep_next = nullptr;
};

// Told how calls that came in ended.
class CallsIn {
 public:
  virtual ~CallsIn() = default;
  // `reply` is guest memory, or, for a failed call, the error's message, of at most kErrorBytesMax. True: it
  // has been taken, and `call` is gone when this returns. False, for replies in guest memory only: it is
  // still being read, until Host::ReplySent. Called for one-way messages too. Must not call the host in any
  // other way.
  virtual bool Reply(InCall& call, Status status, absl::Span<const std::byte> reply) = 0;
};

// Receives the guests' log lines.
class GuestLog {
 public:
  virtual ~GuestLog() = default;
  // `level`: 0 debug to 3 error. `text` is from the guest: any bytes.
  virtual void Line(absl::string_view function, uint32_t level, absl::string_view text) = 0;
};

}  // namespace weft::host

#endif  // WEFT_DATAPLANE_HOST_SEAM_H_
