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

// W3C trace context as it travels with a call.
struct Trace {
  std::array<uint8_t, 16> id = {};
  std::array<uint8_t, 8> span = {};
  uint8_t flags = 0;
  bool present = false;
};

// What a call being handled knows of itself, and passes on to the calls it makes.
struct CallContext {
  uint64_t deadline_ns = 0;  // CLOCK_MONOTONIC; 0: none.
  uint32_t depth = 0;        // Calls within this process above this one.
  Trace trace = {};
};

// A function that guests here call. Made by CallsOut::Resolve, owned by it, alive until it is destroyed.
struct Target {
  Function* local = nullptr;  // Served by this host, and the policy lets the caller reach it directly.
  void* mesh = nullptr;       // CallsOut's own.
};

// One call that a guest makes. The host owns it; CallsOut may touch it from Start() until it is finished or
// cancelled.
struct OutCall {
  // ---- For CallsOut.
  Target* target = nullptr;
  absl::Span<const std::byte> request;  // Guest memory. Valid within Start() only.
  CallContext context;
  void* mesh = nullptr;  // CallsOut's own; null at Start().
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
  // The target behind a name that `caller` uses for the first time. May allocate. The status goes to the
  // guest.
  virtual absl::StatusOr<Target*> Resolve(Function& caller, absl::string_view name) = 0;
  // Begins `call`. May finish it at once by Host::Finish. Never runs a guest.
  virtual void Start(OutCall& call) = 0;
  // Looks for the end of `call` for a moment (some round trips of shared memory, less where other work
  // waits). Never runs a guest.
  virtual void PollBriefly(OutCall& call) = 0;
  // Sends a message without an answer: kOk when it was handed over.
  virtual Status Send(Target& target, absl::Span<const std::byte> message, const CallContext& context) = 0;
  // Forgets `call`: its room may vanish as soon as this returns.
  virtual void Cancel(OutCall& call) = 0;
};

// One call that comes in. The host owns it from Host::Begin until CallsIn::Reply or Host::Cancel.
struct InCall {
  // ---- For whoever delivers it.
  std::byte* room = nullptr;  // Where the request's bytes go: guest memory or a private buffer.
  uint32_t bytes = 0;
  void* mesh = nullptr;

  // ---- The host's.
  enum class Stage : uint8_t { kFilling, kQueued, kAlloc, kHandle };
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
  bool ready = false;  // On the list of calls to resume.
  uint32_t guest_ptr = 0;
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
  // `reply` is guest memory, valid within this function; for a failed call the error's message. `call` is
  // gone when it returns. Not called for one-way messages whose handler succeeded. Must not call the host.
  virtual void Reply(InCall& call, Status status, absl::Span<const std::byte> reply) = 0;
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
