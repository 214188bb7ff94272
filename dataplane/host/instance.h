// SPDX-License-Identifier: Apache-2.0
// One instance of a guest: its store, its linear memory, and the state of the call that it handles. Guest
// thread only. An Instance object outlives the engine's instance: Reset() gives it a clean one.
#ifndef WEFT_DATAPLANE_HOST_INSTANCE_H_
#define WEFT_DATAPLANE_HOST_INSTANCE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "dataplane/base/attributes.h"
#include "dataplane/host/engine_ext.h"
#include "dataplane/host/seam.h"

namespace weft::host {

class Instance {
 public:
  // Room asked for at first, so that most requests need no second question.
  static constexpr uint32_t kInboxBytes = 1024;

  // What the guest's code is running for; only kHandle may call out.
  enum class Phase : uint8_t { kIdle, kInitialize, kAlloc, kHandle, kRun };

  explicit Instance(Function& function);
  ~Instance() { Drop(); }
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;

  // Replaces the engine's instance by a clean one and runs its `_initialize`. Errors say what the guest did.
  absl::Status Reset();
  // Frees the engine's instance. No call may be under way.
  void Drop();

  // Host address of `bytes` at guest address `pointer`, or null where they are not all in its memory.
  WEFT_HOT std::byte* At(uint32_t pointer, uint32_t bytes) {
    if (uint64_t{pointer} + bytes <= memory_bytes_) [[likely]]
      return memory_ + pointer;
    return AtGrown(pointer, bytes);
  }

  // Guest address of room for `bytes`: the room that weft_alloc gave last where it suffices, else what it
  // gives now, on this stack. 0 where the guest gave no usable room or failed (then fault() says how).
  WEFT_HOT uint32_t Room(uint32_t bytes) {
    if (bytes <= inbox_bytes_) [[likely]]
      return inbox_;
    return NewRoom(bytes);
  }
  // Runs weft_handle on this stack; the status, or kInternal with fault() set.
  WEFT_HOT uint32_t HandlePlain(uint32_t pointer, uint32_t bytes);

  // Of a module that is run once: calls the function that it exports as `entry`, or else the first of _start,
  // run and main that is there, on this thread until it ends. `*value` is what it returned, in decimals;
  // empty where that is nothing. INVALID_ARGUMENT where it cannot be called so, DEADLINE_EXCEEDED at its time
  // limit.
  absl::Status RunExport(const std::string& entry, const std::vector<int64_t>& inputs, std::string* value);

  // Of the memory that it exports, which never shrinks; 0 without one.
  uint64_t MemoryBytes() {
    AtGrown(0, 0);
    return memory_bytes_;
  }

  // Makes sure of a stack for this instance's fibers, which it has until Drop(); false where the engine has
  // none left. One whose module suspends has it from Reset() on.
  WEFT_HOT bool TakeStack();
  // The same on a fiber, which the caller polls until it ends. After TakeStack().
  weft_fiber* NewAllocFiber(uint32_t bytes);
  weft_fiber* NewHandleFiber(uint32_t pointer, uint32_t bytes);

  // While one lives, this instance's guest is the one that runs. They nest.
  class Running {
   public:
    explicit Running(Instance& instance) : slot_(instance.running_), before_(*slot_) { *slot_ = &instance; }
    ~Running() { *slot_ = before_; }
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;

   private:
    Instance** const slot_;
    Instance* const before_;
  };

  // Begins a call: counts time anew.
  WEFT_HOT void BeginCall(const CallContext* context, InCall* call) {
    context_ = context;
    call_ = call;
    ran_ms_ = 0;
    log_lines_ = 0;
    reply_ = nullptr;
    reply_bytes_ = 0;
  }
  WEFT_HOT void EndCall() {
    context_ = nullptr;
    call_ = nullptr;
    phase_ = Phase::kIdle;
  }

  Function& function() const { return function_; }
  wasmtime_context_t* store_context() const { return context_of_store_; }
  bool live() const { return store_ != nullptr; }

  // State of the call at hand, used by the imports.
  Phase phase() const { return phase_; }
  void set_phase(Phase phase) { phase_ = phase; }
  const CallContext& context() const { return *context_; }
  InCall* call() const { return call_; }
  void SetReply(const std::byte* data, uint32_t bytes) {
    reply_ = data;
    reply_bytes_ = bytes;
  }
  absl::Span<const std::byte> reply() const { return {reply_, reply_bytes_}; }
  bool TakeLogLine() { return log_lines_++ < kLogLinesOfCallMax; }
  // The call has run for a millisecond at least: the first tick may have passed before it began and the
  // second just after, but the third cannot come sooner.
  bool overran() const { return ran_ms_ >= 3; }

  // The calls that the guest has under way or has not yet taken the outcome of.
  OutCall* out_calls = nullptr;
  uint32_t out_call_count = 0;

  // The fiber that the call runs on; null on the plain path.
  weft_fiber* fiber = nullptr;
  bool yielded = false;  // The fiber gave up its turn; it is not waiting for anything.

  // Why the guest failed. The text is kept until the next call.
  bool faulted() const { return faulted_; }
  const std::string& fault_text() const { return fault_text_; }
  void SetFault(weft_fault* fault);
  // The call was cut off: its memory is in no state to be kept.
  void Spoil() { faulted_ = true; }

 private:
  static wasmtime_error_t* OnEpoch(wasmtime_context_t* context, void* data, uint64_t* delta,
                                   wasmtime_update_deadline_kind_t* kind);
  uint32_t NewRoom(uint32_t bytes);
  std::byte* AtGrown(uint32_t pointer, uint32_t bytes);
  absl::Status Instantiate();
  absl::Status FindExports();
  absl::Status Initialize();
  absl::Status FindEntry(const std::string& entry, wasmtime_func_t* function, std::string* name);
  absl::Status RunToEnd(wasmtime_call_future_t* future, wasm_trap_t** trap, wasmtime_error_t** error);

  Function& function_;
  Instance** const running_;  // The engine's; see there.
  wasmtime_store_t* store_ = nullptr;
  wasmtime_context_t* context_of_store_ = nullptr;
  std::byte* memory_ = nullptr;  // Never moves: each memory has its 4 GiB reserved.
  uint64_t memory_bytes_ = 0;    // Never shrinks; refreshed when an address lies beyond.
  uint32_t inbox_ = 0;  // The room that the guest gave for requests, the host's until it asks for more.
  uint32_t inbox_bytes_ = 0;
  const CallContext* context_ = nullptr;
  InCall* call_ = nullptr;
  const std::byte* reply_ = nullptr;
  uint32_t reply_bytes_ = 0;
  uint32_t ran_ms_ = 0;  // Of the call, as ticks tell it: 0, 1 and 2 up to the second.
  uint32_t log_lines_ = 0;
  Phase phase_ = Phase::kIdle;
  bool faulted_ = false;
  bool has_stack_ = false;
  const char* cause_ = nullptr;  // Of a fault that the host itself caused, in place of the engine's text.
  std::string fault_text_;
  wasmtime_instance_t instance_ = {};
  wasmtime_memory_t memory_handle_ = {};
  wasmtime_func_t alloc_ = {};
  wasmtime_func_t handle_ = {};
};

}  // namespace weft::host

#endif  // WEFT_DATAPLANE_HOST_INSTANCE_H_
