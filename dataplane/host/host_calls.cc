// SPDX-License-Identifier: Apache-2.0
// Calls that guests make: to functions of this process directly or through their queue, to others through
// CallsOut; their records, handles and outcomes.
#include <algorithm>
#include <cstring>

#include "dataplane/base/check.h"
#include "dataplane/host/host.h"

namespace weft::host {

std::byte* OutCall::RoomFor(uint32_t answer_bytes) {
  if (answer_bytes <= room_bytes) [[likely]]
    return room;
  if (answer_bytes > kMessageBytesMax) return nullptr;
  large = std::make_unique_for_overwrite<std::byte[]>(answer_bytes);
  return large.get();
}

OutCall* Host::NewOutCall(Instance& owner) {
  if (owner.out_call_count == kOutCallsOfInstanceMax) return nullptr;
  if (out_free_ == nullptr) {
    if (out_calls_.size() == options_.out_calls_max) return nullptr;
    out_calls_.push_back(std::make_unique<OutCall>());
    out_free_ = out_calls_.back().get();
    out_free_->index = static_cast<uint32_t>(out_calls_.size() - 1);
  }
  OutCall* call = out_free_;
  out_free_ = call->next;
  ++out_call_count_;
  call->generation = (call->generation + 1) & ((1u << (32 - kIndexBits)) - 1);
  call->state = OutCall::State::kRunning;
  call->owner = &owner;
  call->local_call = nullptr;
  call->previous = nullptr;
  call->next = owner.out_calls;
  if (call->next != nullptr) call->next->previous = call;
  owner.out_calls = call;
  ++owner.out_call_count;
  return call;
}

void Host::FreeOutCall(OutCall& call) {
  Instance& owner = *call.owner;
  (call.previous == nullptr ? owner.out_calls : call.previous->next) = call.next;
  if (call.next != nullptr) call.next->previous = call.previous;
  --owner.out_call_count;
  call.state = OutCall::State::kFree;  // If it is on the list of deadlines it leaves that at the next round.
  call.owner = nullptr;
  call.large.reset();
  call.next = out_free_;
  out_free_ = &call;
  --out_call_count_;
}

void Host::CancelOutCalls(Instance& instance) {
  while (OutCall* call = instance.out_calls) {
    const bool running = call->state == OutCall::State::kRunning;
    call->state = OutCall::State::kFinished;  // Whatever ends it now, nobody is to be woken.
    if (call->local_call != nullptr) {
      Cancel(call->local_call);
    } else if (running) {
      out_.Cancel(*call);
    }
    FreeOutCall(*call);
  }
}

OutCall* Host::FindOutCall(Instance& instance, uint32_t handle) {
  const uint32_t index = handle & ((1u << kIndexBits) - 1);
  if (index >= out_calls_.size()) return nullptr;
  OutCall* call = out_calls_[index].get();
  const bool own =
      call->state != OutCall::State::kFree && call->owner == &instance && HandleOf(*call) == handle;
  return own ? call : nullptr;
}

void Host::Finish(OutCall& call, Status status, uint32_t bytes) {
  if (call.state != OutCall::State::kRunning) return;
  call.state = OutCall::State::kFinished;
  call.status = status;
  call.bytes = bytes;
  InCall* waiter = call.owner->call();
  if (waiter == nullptr || waiter->wait == InCall::Wait::kNone || waiter->wait == InCall::Wait::kSleep)
    return;
  const auto end = waiter->wait_handles.begin() + waiter->wait_count;
  if (std::find(waiter->wait_handles.begin(), end, HandleOf(call)) != end) PushReady(waiter);
}

void Host::FinishWith(OutCall& call, Status status, absl::Span<const std::byte> bytes) {
  // An error's message is cut to the room; it is not worth a second fetch.
  if (status != kOk) bytes = bytes.first(std::min<size_t>(bytes.size(), call.room_bytes));
  if (!bytes.empty())
    std::memcpy(call.RoomFor(static_cast<uint32_t>(bytes.size())), bytes.data(), bytes.size());
  Finish(call, status, static_cast<uint32_t>(bytes.size()));
}

uint64_t Host::TakeOutcome(OutCall& call) {
  if (call.large != nullptr) [[unlikely]] {
    if (call.status == kOk) return Outcome(kShort, HandleOf(call));
    call.bytes = std::min(call.bytes, call.room_bytes);
    std::memcpy(call.room, call.large.get(), call.bytes);
  }
  const uint64_t outcome = Outcome(call.status, std::min(call.bytes, call.room_bytes));
  FreeOutCall(call);
  return outcome;
}

uint64_t Host::TakeResult(OutCall& call, std::byte* room, uint32_t room_bytes) {
  if (call.state == OutCall::State::kRunning) return Outcome(kPending, HandleOf(call));
  if (call.large == nullptr || call.status != kOk) return TakeOutcome(call);
  if (call.bytes > room_bytes) return Outcome(kShort, call.bytes);
  const uint32_t bytes = call.bytes;
  std::memcpy(room, call.large.get(), bytes);
  FreeOutCall(call);
  return Outcome(kOk, bytes);
}

CallContext Host::ContextFor(const Instance& instance, int64_t timeout_ns) {
  CallContext context = instance.context();
  ++context.depth;
  if (timeout_ns > 0) {
    const uint64_t own_ns = NowNs() + static_cast<uint64_t>(timeout_ns);
    context.deadline_ns = context.deadline_ns == 0 ? own_ns : std::min(context.deadline_ns, own_ns);
  }
  return context;
}

uint64_t Host::GuestCall(Instance& instance, const OutRequest& request) {
  Status status = kOk;
  Callee* callee = instance.function().Resolve(request.name_pointer, request.name, out_, &status);
  if (callee == nullptr) return Outcome(status, 0);
  CallContext context = ContextFor(instance, request.timeout_ns);
  Function* local = out_.EnterLocal(*callee, context, request.timeout_ns > 0, &status);
  uint64_t outcome;
  if (local != nullptr && CallDirect(instance, *local, request, context, &outcome)) return outcome;
  if (status != kOk) return Outcome(status, 0);
  outcome = Start(instance, *callee, request, context, local, /*awaited=*/true);
  if (outcome >> 32 != kPending) return outcome;
  if (!has_runnable()) engine_.ticker().Progress();
  OutCall& call = *out_calls_[outcome & ((1u << kIndexBits) - 1)];
  if (call.local_call == nullptr && call.state == OutCall::State::kRunning) out_.PollBriefly(call);
  return call.state == OutCall::State::kFinished ? TakeOutcome(call) : Watched(call);
}

uint64_t Host::GuestStart(Instance& instance, const OutRequest& request) {
  Status status = kOk;
  Callee* callee = instance.function().Resolve(request.name_pointer, request.name, out_, &status);
  if (callee == nullptr) return Outcome(status, 0);
  CallContext context = ContextFor(instance, request.timeout_ns);
  Function* local = out_.EnterLocal(*callee, context, request.timeout_ns > 0, &status);
  if (status != kOk) return Outcome(status, 0);
  const uint64_t outcome = Start(instance, *callee, request, context, local, /*awaited=*/false);
  if (outcome >> 32 != kPending) return outcome;
  return Watched(*out_calls_[outcome & ((1u << kIndexBits) - 1)]);
}

// Makes sure that a call under way ends at its deadline, now that nobody looks at it in person.
uint64_t Host::Watched(OutCall& call) {
  if (call.state == OutCall::State::kRunning) AddTimed(call);
  return Outcome(kPending, HandleOf(call));
}

uint64_t Host::Start(Instance& instance, Callee& callee, const OutRequest& request,
                     const CallContext& context, Function* local, bool awaited) {
  Status status = kOk;
  if (request.request.size() > kMessageBytesMax) {
    status = kOutOfRange;
  } else if (local == nullptr && context.deadline_ns != 0 && CoarseNs() >= context.deadline_ns) {
    status = kDeadlineExceeded;
  }
  OutCall* call = status == kOk ? NewOutCall(instance) : nullptr;
  if (call == nullptr) {
    if (local != nullptr) out_.LeaveLocal(*local);
    return Outcome(status == kOk ? kResourceExhausted : status, 0);
  }
  call->callee = &callee;
  call->request = request.request;
  call->room = request.room;
  call->room_bytes = request.room_bytes;
  call->context = context;
  call->own_timeout = request.timeout_ns > 0;
  call->awaited = awaited;
  if (local != nullptr) {
    StartLocal(*call, *local);
  } else {
    out_.Start(*call);
  }
  // Failed at once: the guest learns it at once. An answer it takes like one that came quickly.
  if (call->state == OutCall::State::kFinished && call->status != kOk) return TakeOutcome(*call);
  return Outcome(kPending, HandleOf(*call));
}

Status Host::GuestSend(Instance& instance, const OutRequest& request) {
  Status status = kOk;
  Callee* callee = instance.function().Resolve(request.name_pointer, request.name, out_, &status);
  if (callee == nullptr) return status;
  CallContext context = ContextFor(instance, 0);
  Function* local = out_.EnterLocal(*callee, context, false, &status);
  if (status != kOk) return status;
  if (local == nullptr) return out_.Send(*callee, request.request, context);
  return SendLocal(*local, request.request, context);
}

Status Host::SendLocal(Function& callee, absl::Span<const std::byte> message, const CallContext& context) {
  Status refusal = kResourceExhausted;
  InCall* call = nullptr;
  if (context.depth <= kDepthMax) {
    call = Begin(callee, static_cast<uint32_t>(message.size()), context, false, true, &refusal);
  } else {
    ++callee.counters().refused;
  }
  if (call == nullptr) {
    out_.LeaveLocal(callee);
    return refusal;
  }
  call->local = true;
  std::memcpy(call->room, message.data(), message.size());
  PushReady(call);
  return kOk;
}

void Host::StartLocal(OutCall& call, Function& callee) {
  Status refusal = kResourceExhausted;
  InCall* incoming = nullptr;
  if (call.context.depth <= kDepthMax) {
    const uint32_t bytes = static_cast<uint32_t>(call.request.size());
    incoming = Begin(callee, bytes, call.context, false, false, &refusal);
  } else {
    ++callee.counters().refused;
  }
  if (incoming == nullptr) {
    out_.LeaveLocal(callee);
    Finish(call, refusal, 0);
    return;
  }
  incoming->local = true;
  incoming->local_caller = &call;
  call.local_call = incoming;
  std::memcpy(incoming->room, call.request.data(), call.request.size());
  // The caller's guest is on the stack now; the callee runs once it has suspended.
  PushReady(incoming);
}

void Host::AddTimed(OutCall& call) {
  if (call.context.deadline_ns == 0) return;
  next_due_ns_ = std::min(next_due_ns_, call.context.deadline_ns);
  if (call.timed) return;  // Still there from the call before that had this record.
  call.timed = true;
  call.timed_next = timed_;
  timed_ = &call;
}

bool Host::CallDirect(Instance& caller, Function& callee, const OutRequest& request,
                      const CallContext& context, uint64_t* outcome) {
  if (!callee.plain() || callee.draining() || callee.queued() != nullptr || context.depth > kDepthMax)
    return false;
  Instance* instance = callee.Take();
  if (instance == nullptr) return false;
  const uint32_t bytes = static_cast<uint32_t>(request.request.size());
  FunctionCounters& counters = callee.counters();
  ++counters.calls;
  ++counters.plain_calls;
  ++counters.direct_calls;
  const bool timed = counters.time.Due();
  const uint64_t begin_ns = timed ? NowNs() : 0;
  instance->BeginCall(&context, nullptr);
  uint32_t status = kResourceExhausted;
  ++guest_depth_;
  if (const uint32_t pointer = instance->Room(bytes); pointer != 0) [[likely]] {
    std::memcpy(instance->At(pointer, bytes), request.request.data(), bytes);
    status = instance->HandlePlain(pointer, bytes);
  }
  --guest_depth_;
  if (timed) [[unlikely]]
    counters.time.AddSample(NowNs() - begin_ns);
  absl::Span<const std::byte> reply = instance->reply();
  if (instance->faulted()) [[unlikely]] {
    ++counters.faults;
    status = kInternal;
    reply = {reinterpret_cast<const std::byte*>(instance->fault_text().data()),
             instance->fault_text().size()};
  } else if (status > kLastStatus) {
    status = kInternal;
    reply = {};
  } else if (status != kOk && reply.size() > kErrorBytesMax) [[unlikely]] {
    reply = reply.first(kErrorBytesMax);
  }
  if (instance->overran()) [[unlikely]]
    callee.Demote();
  callee.CountAnswer(static_cast<Status>(status), bytes, reply.size());
  if (reply.size() <= request.room_bytes) [[likely]] {
    if (!reply.empty()) std::memcpy(request.room, reply.data(), reply.size());
    *outcome = Outcome(status, static_cast<uint32_t>(reply.size()));
  } else {
    *outcome = Outcome(kResourceExhausted, 0);
    if (OutCall* kept = reply.size() <= kMessageBytesMax ? NewOutCall(caller) : nullptr; kept != nullptr) {
      kept->room = request.room;
      kept->room_bytes = request.room_bytes;
      FinishWith(*kept, static_cast<Status>(status), reply);
      *outcome = TakeOutcome(*kept);
    }
  }
  instance->EndCall();
  callee.GiveBack(instance);
  out_.LeaveLocal(callee);
  return true;
}

}  // namespace weft::host
