// SPDX-License-Identifier: Apache-2.0
// Calls that come in: their record, their room in a guest's memory, their instance, plain or on a fiber,
// their answer. Calls that guests make are in host_calls.cc.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/check.h"
#include "dataplane/host/host.h"

namespace weft::host {
InCall* Host::NewInCall() {
  if (in_free_ == nullptr) {
    if (in_calls_.size() == options_.in_calls_max) return nullptr;
    in_calls_.push_back(std::make_unique<InCall>());
    in_free_ = in_calls_.back().get();
    in_free_->index = static_cast<uint32_t>(in_calls_.size() - 1);
  }
  InCall* call = in_free_;
  in_free_ = call->next;
  call->next = nullptr;
  ++in_call_count_;
  return call;
}

void Host::FreeInCall(InCall* call) {
  DropPrivateRoom(call);
  call->function = nullptr;
  call->instance = nullptr;
  call->local_caller = nullptr;
  call->next = in_free_;
  in_free_ = call;
  --in_call_count_;
}

// Guest memory for a request of `bytes` and, where `trace_bytes` is not 0, a trace context before it. The
// request itself is aligned as weft_alloc aligned its room.
bool Host::AllocRoom(InCall* call, uint32_t trace_bytes) {
  constexpr uint32_t kTraceRoom = 32;
  static_assert(kTraceRoom >= Trace::kBytes && kTraceRoom % 16 == 0);
  const uint32_t before = trace_bytes == 0 ? 0 : kTraceRoom;
  Instance& instance = *call->instance;
  instance.BeginCall(&call->context, call);
  const uint32_t pointer = instance.Room(before + call->bytes);
  if (pointer != 0) [[likely]] {
    call->guest_ptr = pointer + before;
    call->room = instance.At(pointer, before + call->bytes) + before - trace_bytes;
    return true;
  }
  call->failure = instance.faulted() ? kInternal : kResourceExhausted;
  return false;
}

InCall* Host::Begin(Function& function, uint32_t bytes, const CallContext& context, bool has_trace,
                    bool one_way, Status* refusal) {
  InCall* call = nullptr;
  *refusal = kResourceExhausted;
  if (function.draining()) {
    *refusal = kUnavailable;
  } else if (bytes > kMessageBytesMax) {
    *refusal = kOutOfRange;
  } else {
    call = NewInCall();
  }
  if (call == nullptr) {
    ++function.counters().refused;
    return nullptr;
  }
  call->function = &function;
  call->bytes = bytes;
  call->trace_bytes = has_trace ? Trace::kBytes : 0;
  call->context = context;
  call->one_way = one_way;
  call->local = false;
  call->mesh = 0;
  call->stage = InCall::Stage::kFilling;
  call->wait = InCall::Wait::kNone;
  call->ready = false;
  call->failure = kOk;
  if (function.queued() == nullptr && !function.module().alloc_suspends()) [[likely]] {
    call->instance = function.Take();
    if (call->instance != nullptr && AllocRoom(call, call->trace_bytes)) [[likely]]
      return call;
    // The bytes are taken all the same, then the call fails with the guest's words.
    if (call->instance == nullptr && !function.start_fault().empty()) call->failure = function.start_status();
  }
  if (!function.Charge(bytes)) {
    if (call->instance != nullptr) ReleaseInstance(call);
    FreeInCall(call);
    ++function.counters().refused;
    return nullptr;
  }
  call->charged = true;
  call->large = std::make_unique_for_overwrite<std::byte[]>(call->trace_bytes + bytes);
  call->room = call->large.get();
  return call;
}

void Host::Run(InCall* call) {
  Function& function = *call->function;
  ++function.counters().calls;
  if (call->trace_bytes != 0) {
    std::memcpy(call->context.trace.wire.data(), call->room, Trace::kBytes);
    call->context.trace.present = true;
  }
  if (call->failure != kOk) [[unlikely]] {
    Refuse(call);
  } else if (call->instance != nullptr) [[likely]] {
    Execute(call);
  } else if (function.queued() != nullptr || !StartOnInstance(call)) {
    call->stage = InCall::Stage::kQueued;
    function.Enqueue(call);
  }
}

void Host::DropPrivateRoom(InCall* call) {
  if (call->charged) call->function->Uncharge(call->bytes);
  call->charged = false;
  call->large.reset();
}

void Host::Refuse(InCall* call) {
  if (call->instance != nullptr && call->instance->faulted()) {
    Complete(call, kInternal);
    return;
  }
  const bool started = call->instance != nullptr;
  if (started) ReleaseInstance(call);
  Fail(call, call->failure,
       started ? "the guest has no room for the request" : "the guest does not start up");
}

bool Host::StartOnInstance(InCall* call) {
  Function& function = *call->function;
  if (call->context.deadline_ns != 0 && NowNs() >= call->context.deadline_ns) {
    Fail(call, kDeadlineExceeded, "the deadline passed before an instance was free");
    return true;
  }
  call->instance = function.Take();
  if (call->instance == nullptr) {
    if (function.start_fault().empty()) return false;
    Fail(call, function.start_status(),
         absl::StrCat("the guest does not start up: ", function.start_fault()));
    return true;
  }
  if (function.module().alloc_suspends()) {
    call->instance->BeginCall(&call->context, call);
    call->stage = InCall::Stage::kAlloc;
    StartFiber(call);
    return true;
  }
  const std::byte* bytes = call->room + call->trace_bytes;
  if (!AllocRoom(call, 0)) {
    Refuse(call);
    return true;
  }
  std::memcpy(call->room, bytes, call->bytes);
  DropPrivateRoom(call);
  Execute(call);
  return true;
}

void Host::ReleaseInstance(InCall* call) {
  Instance* instance = std::exchange(call->instance, nullptr);
  instance->EndCall();
  call->function->GiveBack(instance);
  if (call->function->queued() != nullptr) queue_kick_ = true;
}

void Host::Execute(InCall* call) {
  call->stage = InCall::Stage::kHandle;
  // A leaf on trial for which no stack is left runs plainly, within the plain path's time limit.
  if (call->function->plain() || !call->instance->TakeStack()) {
    ExecutePlain(call);
  } else {
    StartFiber(call);
  }
}

void Host::ExecutePlain(InCall* call) {
  Instance& instance = *call->instance;
  FunctionCounters& counters = call->function->counters();
  const bool timed = counters.time.Due();
  const uint64_t begin_ns = timed ? NowNs() : 0;
  EnterGuest();
  const uint32_t status = instance.HandlePlain(call->guest_ptr, call->bytes);
  LeaveGuest();
  if (timed) [[unlikely]]
    counters.time.AddSample(NowNs() - begin_ns);
  ++counters.plain_calls;
  if (instance.overran()) [[unlikely]]
    call->function->Demote();
  Complete(call, status);
}

void Host::StartFiber(InCall* call) {
  Instance& instance = *call->instance;
  if (call->stage == InCall::Stage::kAlloc) {
    instance.set_phase(Instance::Phase::kAlloc);
    instance.fiber = instance.NewAllocFiber(call->bytes);
  } else {
    instance.set_phase(Instance::Phase::kHandle);
    instance.fiber = instance.NewHandleFiber(call->guest_ptr, call->bytes);
  }
  WEFT_CHECK(instance.fiber != nullptr);  // Module::Load() has checked the types.
  PollFiber(call);
}

bool Host::EnterHandleStage(InCall* call, uint32_t pointer) {
  std::byte* room = pointer == 0 ? nullptr : call->instance->At(pointer, call->bytes);
  if (room == nullptr) return false;
  std::memcpy(room, call->room + call->trace_bytes, call->bytes);
  call->guest_ptr = pointer;
  DropPrivateRoom(call);
  return true;
}

void Host::PollFiber(InCall* call) {
  Instance& instance = *call->instance;
  Function& function = *call->function;
  HandlerTime& time = function.counters().time;
  // The time of a leaf is read in any case: it may be on trial.
  const bool leaf = function.module().leaf();
  const bool timed = leaf || time.Due();
  RefreshCoarse();
  const uint64_t begin_ns = coarse_ns_;
  uint32_t result = 0;
  weft_fault* fault = nullptr;
  instance.yielded = false;
  EnterGuest();
  int32_t ended;
  {
    const Instance::Running running(instance);
    ended = weft_fiber_poll(instance.fiber, &result, &fault);
  }
  LeaveGuest();
  const uint64_t turn_ns = timed ? NowNs() - begin_ns : 0;
  if (leaf) {
    time.Add(turn_ns);
  } else if (timed) {
    time.AddSample(turn_ns);
  }
  if (ended == 0) {
    if (instance.yielded) PushYielded(call);
    return;
  }
  weft_fiber_delete(std::exchange(instance.fiber, nullptr));
  if (ended == 2) {
    instance.SetFault(fault);
  } else if (call->stage == InCall::Stage::kAlloc) {
    if (EnterHandleStage(call, result)) {
      Execute(call);
      return;
    }
    ReleaseInstance(call);
    Fail(call, kResourceExhausted, "the guest has no room for the request");
    return;
  }
  // A call that has overrun spent its earlier turns before `begin_ns`.
  if (leaf) function.CountTrial(instance.overran() ? UINT64_MAX : turn_ns);
  Complete(call, result);
}

void Host::Complete(InCall* call, uint32_t status) {
  Instance& instance = *call->instance;
  absl::Span<const std::byte> reply = instance.reply();
  char message[64];
  if (instance.faulted()) [[unlikely]] {
    ++call->function->counters().faults;
    status = kInternal;
    reply = AsBytes(instance.fault_text());
  } else if (status > kLastStatus) [[unlikely]] {
    const int size = snprintf(message, sizeof message, "the handler returned %u, which is no status", status);
    status = kInternal;
    reply = AsBytes({message, static_cast<size_t>(size)});
  } else if (status != kOk && reply.size() > kErrorBytesMax) {
    reply = reply.first(kErrorBytesMax);
  } else if (reply.size() > kMessageBytesMax) [[unlikely]] {
    status = kOutOfRange;
    reply = AsBytes("the reply is longer than messages may be");
  }
  if (instance.out_calls != nullptr) [[unlikely]]
    CancelOutCalls(instance);
  call->stage = InCall::Stage::kReplying;
  Function& function = *call->function;
  const uint32_t bytes = call->bytes;
  const bool sent = Answer(call, static_cast<Status>(status), reply);
  // Once the answer is out.
  function.CountAnswer(static_cast<Status>(status), bytes, reply.size());
  if (!sent) return;
  ReleaseInstance(call);
  FreeInCall(call);
}

void Host::ReplySent(InCall* call) {
  ReleaseInstance(call);
  FreeInCall(call);
}

bool Host::Answer(InCall* call, Status status, absl::Span<const std::byte> reply) {
  if (!call->local) return in_.Reply(*call, status, reply);
  out_.LeaveLocal(*call->function);
  if (call->local_caller != nullptr) {
    call->local_caller->local_call = nullptr;
    FinishWith(*call->local_caller, status, reply);
  }
  return true;
}

void Host::Fail(InCall* call, Status status, absl::string_view message) {
  message = message.substr(0, kErrorBytesMax);
  call->function->CountAnswer(status, call->bytes, message.size());
  Answer(call, status, AsBytes(message));
  FreeInCall(call);
}

void Host::Cancel(InCall* call) {
  Unlink(call);
  if (call->stage == InCall::Stage::kQueued) call->function->RemoveQueued(call);
  // One that is being filled has not been counted as a call, one that is being answered has as what it came
  // to.
  if (call->stage != InCall::Stage::kFilling && call->stage != InCall::Stage::kReplying)
    call->function->CountAnswer(kCancelled, call->bytes, 0);
  if (Instance* instance = call->instance; instance != nullptr) {
    CancelOutCalls(*instance);
    if (instance->fiber != nullptr) {
      WEFT_CHECK(!InGuest());
      // The guest is unwound where it stands. It must not start anything while that goes on.
      instance->set_phase(Instance::Phase::kIdle);
      weft_fiber_delete(std::exchange(instance->fiber, nullptr));
      instance->Spoil();
    }
    ReleaseInstance(call);
  }
  if (call->local) out_.LeaveLocal(*call->function);
  if (call->local_caller != nullptr) call->local_caller->local_call = nullptr;
  FreeInCall(call);
}

}  // namespace weft::host
