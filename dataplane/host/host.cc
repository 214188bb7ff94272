// SPDX-License-Identifier: Apache-2.0
// The host's functions and its loop: what is resumed when, deadlines and sleepers, the clock. Calls that come
// in are in host_serve.cc, calls that guests make in host_calls.cc.
#include "dataplane/host/host.h"

#include <time.h>

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/check.h"
#include "dataplane/base/status.h"

namespace weft::host {
namespace {

// Fibers resumed by one RunReady() before the channels get their turn again.
constexpr int kResumedMax = 256;

}  // namespace

Host::Host(Engine& engine, const HostOptions& options, CallsOut& out, CallsIn& in, GuestLog& log)
    : engine_(engine), options_(options), out_(out), in_(in), log_(log) {
  WEFT_CHECK(options_.out_calls_max <= (1u << kIndexBits));
  resync_every_ticks_ = static_cast<uint64_t>(TicksPerSecond() / 2);
  in_calls_.reserve(options_.in_calls_max);
  out_calls_.reserve(options_.out_calls_max);
  ResyncClock();
  RefreshCoarse();
}

Host::~Host() {
  // Whoever delivered a call still under way has gone or is about to; the guests' fibers must end before
  // their stores do.
  for (const std::unique_ptr<InCall>& call : in_calls_) {
    if (call->function != nullptr) Cancel(call.get());
  }
}

absl::StatusOr<Function*> Host::Add(std::string name, std::shared_ptr<const Module> module,
                                    const FunctionOptions& options, Function* replaced) {
  WEFT_CHECK(!InGuest());  // RunQueued() may be below it, within functions_.
  if (Function* found = Find(name); found != nullptr && found != replaced) {
    return absl::AlreadyExistsError(absl::StrCat(name, " is already served here"));
  }
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<Function> function,
                        Function::Create(*this, std::move(name), std::move(module), options));
  if (replaced != nullptr) replaced->Drain();
  functions_.push_back(std::move(function));
  return functions_.back().get();
}

Function* Host::Find(absl::string_view name) const {
  for (const std::unique_ptr<Function>& function : functions_) {
    if (function->name() == name && !function->draining()) return function.get();
  }
  return nullptr;
}

absl::Status Host::Remove(Function* function) {
  WEFT_CHECK(!InGuest());
  if (function->has_calls()) {
    return absl::FailedPreconditionError(absl::StrCat(function->name(), " still has calls"));
  }
  auto at =
      std::find_if(functions_.begin(), functions_.end(), [&](const auto& f) { return f.get() == function; });
  WEFT_CHECK(at != functions_.end());
  function->ReleaseCallees(out_);
  functions_.erase(at);
  return absl::OkStatus();
}

absl::flat_hash_set<const Callee*> Host::CalleesUnderWay(const Function& caller) const {
  absl::flat_hash_set<const Callee*> callees;
  for (const std::unique_ptr<OutCall>& call : out_calls_) {
    if (call->state != OutCall::State::kFree && &call->owner->function() == &caller)
      callees.insert(call->callee);
  }
  return callees;
}

void Host::ResyncClock() {
  clock_.Resync();
  resync_ticks_ = Ticks();
  timespec real;
  clock_gettime(CLOCK_REALTIME, &real);
  const uint64_t real_ns =
      static_cast<uint64_t>(real.tv_sec) * kNsPerSecond + static_cast<uint64_t>(real.tv_nsec);
  realtime_offset_ns_ = static_cast<int64_t>(real_ns - weft::NowNs());
}

uint64_t Host::NowNs() {
  const uint64_t ticks = Ticks();
  if (ticks - resync_ticks_ > resync_every_ticks_) [[unlikely]] {
    ResyncClock();
    return weft::NowNs();
  }
  return clock_.NsAt(ticks);
}

void Host::PushReady(InCall* call) {
  if (call->ready) return;
  call->ready = true;
  call->next = nullptr;
  (ready_head_ == nullptr ? ready_head_ : ready_tail_->next) = call;
  ready_tail_ = call;
}

void Host::PushYielded(InCall* call) {
  call->next = nullptr;
  (yielded_head_ == nullptr ? yielded_head_ : yielded_tail_->next) = call;
  yielded_tail_ = call;
}

void Host::Unlink(InCall* call) {
  auto remove = [call](InCall*& head, InCall*& tail) {
    InCall* before = nullptr;
    for (InCall* at = head; at != nullptr; before = at, at = at->next) {
      if (at != call) continue;
      (before == nullptr ? head : before->next) = at->next;
      if (tail == at) tail = before;
      return;
    }
  };
  if (call->ready) {
    remove(ready_head_, ready_tail_);
    call->ready = false;
  } else if (call->instance != nullptr && call->instance->yielded) {
    remove(yielded_head_, yielded_tail_);
  }
  for (InCall** at = &sleepers_; *at != nullptr; at = &(*at)->sleep_next) {
    if (*at != call) continue;
    *at = call->sleep_next;
    break;
  }
}

int Host::RunQueued() {
  queue_kick_ = false;
  int started = 0;
  for (const std::unique_ptr<Function>& function : functions_) {
    while (InCall* call = function->queued()) {
      if (started == kResumedMax) {
        queue_kick_ = true;
        return started;
      }
      // Out of the queue first: a call that ends at once is gone when this returns.
      function->RemoveQueued(call);
      call->stage = InCall::Stage::kFilling;
      if (!StartOnInstance(call)) {
        call->stage = InCall::Stage::kQueued;
        function->Requeue(call);
        break;
      }
      ++started;
    }
  }
  return started;
}

int Host::RunReady() {
  int resumed = 0;
  if (next_due_ns_ != UINT64_MAX) {
    if (const uint64_t now_ns = NowNs(); now_ns >= next_due_ns_) RunTimers(now_ns);
  }
  while (ready_head_ != nullptr && resumed < kResumedMax) {
    InCall* call = ready_head_;
    ready_head_ = call->next;
    call->ready = false;
    ++resumed;
    if (call->stage == InCall::Stage::kFilling) {
      Run(call);  // A call from within this process.
    } else {
      PollFiber(call);
    }
  }
  if (queue_kick_) resumed += RunQueued();
  // One that gave up its turn runs for a millisecond again, so only one of them, after all the others.
  if (InCall* call = yielded_head_; call != nullptr) {
    yielded_head_ = call->next;
    PollFiber(call);
    ++resumed;
  }
  return resumed;
}

bool Host::IdleWork() {
  for (size_t i = 0; i < functions_.size(); ++i) {
    idle_next_ = idle_next_ + 1 < functions_.size() ? idle_next_ + 1 : 0;
    if (functions_[idle_next_]->IdleWork()) return true;
  }
  return false;
}

uint64_t Host::NextDueNs() const { return has_runnable() ? 0 : next_due_ns_; }

void Host::Sleep(InCall& call, uint64_t wake_ns) {
  call.wait = InCall::Wait::kSleep;
  call.wake_ns = wake_ns;
  call.sleep_next = sleepers_;
  sleepers_ = &call;
  next_due_ns_ = std::min(next_due_ns_, wake_ns);
}

void Host::RunTimers(uint64_t now_ns) {
  next_due_ns_ = UINT64_MAX;
  RunSleepers(now_ns);
  RunDeadlines(now_ns);
}

void Host::RunSleepers(uint64_t now_ns) {
  for (InCall** at = &sleepers_; *at != nullptr;) {
    InCall* call = *at;
    if (now_ns >= call->wake_ns) {
      *at = call->sleep_next;
      call->wait = InCall::Wait::kNone;
      PushReady(call);
    } else {
      next_due_ns_ = std::min(next_due_ns_, call->wake_ns);
      at = &call->sleep_next;
    }
  }
}

void Host::RunDeadlines(uint64_t now_ns) {
  for (OutCall** at = &timed_; *at != nullptr;) {
    OutCall* call = *at;
    const bool running = call->state == OutCall::State::kRunning;
    if (running && now_ns < call->context.deadline_ns) {
      next_due_ns_ = std::min(next_due_ns_, call->context.deadline_ns);
      at = &call->timed_next;
      continue;
    }
    *at = call->timed_next;
    call->timed = false;
    if (!running) continue;
    if (call->local_call == nullptr) {
      out_.Expire(*call);
    } else {
      Cancel(call->local_call);
      FinishWith(*call, kDeadlineExceeded, AsBytes("the deadline passed"));
    }
  }
}

}  // namespace weft::host
