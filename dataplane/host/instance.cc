// SPDX-License-Identifier: Apache-2.0
// Life of one guest instance: instantiation, plain and fiber entry, the epoch callback that bounds its time.
#include "dataplane/host/instance.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "dataplane/base/check.h"
#include "dataplane/base/status.h"
#include "dataplane/host/function.h"
#include "dataplane/host/host.h"
#include "dataplane/host/module.h"

namespace weft::host {

Instance::Instance(Function& function)
    : function_(function), running_(function.module().engine().running()) {}

void Instance::Drop() {
  WEFT_CHECK(fiber == nullptr && out_calls == nullptr);
  if (store_ != nullptr) wasmtime_store_delete(store_);
  store_ = nullptr;
  context_of_store_ = nullptr;
  memory_ = nullptr;
  memory_bytes_ = 0;
  inbox_ = inbox_bytes_ = 0;
  if (has_stack_) function_.module().engine().ReturnStack();
  has_stack_ = false;
}

bool Instance::TakeStack() {
  if (!has_stack_) has_stack_ = function_.module().engine().TakeStack();
  return has_stack_;
}

absl::Status Instance::Reset() {
  Drop();
  if (function_.module().suspends() && !TakeStack()) {
    return absl::ResourceExhaustedError(absl::StrCat("this host has ",
                                                     function_.module().engine().options().fibers_max,
                                                     " stacks for calls that wait, and all are taken"));
  }
  faulted_ = false;
  cause_ = nullptr;
  ran_ms_ = 0;
  log_lines_ = 0;
  store_ = wasmtime_store_new(function_.module().engine().get(), this, nullptr);
  context_of_store_ = wasmtime_store_context(store_);
  // One instance, one memory, one table: what the pool has slots for.
  wasmtime_store_limiter(store_, static_cast<int64_t>(function_.options().memory_bytes_max), -1, 1, 1, 1);
  wasmtime_store_epoch_deadline_callback(store_, &Instance::OnEpoch, this, nullptr);
  wasmtime_context_set_epoch_deadline(context_of_store_, 1);
  phase_ = Phase::kInitialize;
  const Running running(*this);
  function_.host().EnterGuest();
  absl::Status status = Instantiate();
  if (status.ok()) status = FindExports();
  if (status.ok()) status = Initialize();
  // Ahead of the first request. A guest that has no room says so again when one comes.
  const bool serves = function_.module().use() == ModuleUse::kServe;
  if (status.ok() && serves && !function_.module().alloc_suspends()) NewRoom(kInboxBytes);
  if (faulted_) status = absl::InternalError(fault_text_);
  function_.host().LeaveGuest();
  phase_ = Phase::kIdle;
  if (!status.ok()) Drop();
  return status;
}

absl::Status Instance::RunToEnd(wasmtime_call_future_t* future, wasm_trap_t** trap,
                                wasmtime_error_t** error) {
  // The time limit ends this loop: each poll that does not finish has used up a tick.
  while (!wasmtime_call_future_poll(future)) {
  }
  wasmtime_call_future_delete(future);
  if (*trap != nullptr) return absl::InternalError(TakeMessage(*trap));
  if (*error != nullptr) return absl::InternalError(TakeMessage(*error));
  return absl::OkStatus();
}

absl::Status Instance::Instantiate() {
  const Module& module = function_.module();
  wasm_trap_t* trap = nullptr;
  wasmtime_error_t* error = nullptr;
  if (module.suspends()) {
    return RunToEnd(
        wasmtime_instance_pre_instantiate_async(module.pre(), context_of_store_, &instance_, &trap, &error),
        &trap, &error);
  }
  error = wasmtime_instance_pre_instantiate(module.pre(), context_of_store_, &instance_, &trap);
  if (trap != nullptr) return absl::InternalError(TakeMessage(trap));
  if (error != nullptr) return absl::ResourceExhaustedError(TakeMessage(error));
  return absl::OkStatus();
}

absl::Status Instance::FindExports() {
  auto find = [this](absl::string_view name, wasmtime_extern_kind_t kind, wasmtime_extern_t* item) {
    return wasmtime_instance_export_get(context_of_store_, &instance_, name.data(), name.size(), item) &&
           item->kind == kind;
  };
  wasmtime_extern_t item;
  if (!function_.module().has_memory()) return absl::OkStatus();
  // Module::Load() has checked that these are there and of these types.
  WEFT_CHECK(find("memory", WASMTIME_EXTERN_MEMORY, &item));
  memory_handle_ = item.of.memory;
  if (function_.module().use() == ModuleUse::kServe) {
    WEFT_CHECK(find("weft_alloc", WASMTIME_EXTERN_FUNC, &item));
    alloc_ = item.of.func;
    WEFT_CHECK(find("weft_handle", WASMTIME_EXTERN_FUNC, &item));
    handle_ = item.of.func;
  }
  memory_ = reinterpret_cast<std::byte*>(wasmtime_memory_data(context_of_store_, &memory_handle_));
  memory_bytes_ = wasmtime_memory_data_size(context_of_store_, &memory_handle_);
  return absl::OkStatus();
}

absl::Status Instance::Initialize() {
  const Module& module = function_.module();
  if (!module.has_initialize()) return absl::OkStatus();
  wasmtime_extern_t item;
  constexpr absl::string_view kName = "_initialize";
  WEFT_CHECK(wasmtime_instance_export_get(context_of_store_, &instance_, kName.data(), kName.size(), &item));
  weft_fault* failed = nullptr;
  if (module.suspends()) {
    weft_fiber* initialize = weft_fiber_new0(context_of_store_, &item.of.func);
    uint32_t result = 0;
    while (weft_fiber_poll(initialize, &result, &failed) == 0) {
      // It sleeps or has used up a tick; either way its time limit comes nearer.
    }
    weft_fiber_delete(initialize);
  } else {
    failed = weft_call_plain(context_of_store_, &item.of.func, nullptr, 0);
  }
  if (failed == nullptr) return absl::OkStatus();
  SetFault(failed);
  return absl::InternalError(absl::StrCat("_initialize: ", fault_text_));
}

std::byte* Instance::AtGrown(uint32_t pointer, uint32_t bytes) {
  if (store_ == nullptr || !function_.module().has_memory()) return nullptr;
  memory_bytes_ = wasmtime_memory_data_size(context_of_store_, &memory_handle_);
  return uint64_t{pointer} + bytes <= memory_bytes_ ? memory_ + pointer : nullptr;
}

uint32_t Instance::NewRoom(uint32_t bytes) {
  bytes = std::max(bytes, kInboxBytes);
  inbox_ = inbox_bytes_ = 0;
  wasmtime_val_raw_t value;
  value.i32 = static_cast<int32_t>(bytes);
  phase_ = Phase::kAlloc;
  function_.host().EnterGuest();
  weft_fault* fault;
  {
    const Running running(*this);
    fault = weft_call_plain(context_of_store_, &alloc_, &value, 1);
  }
  function_.host().LeaveGuest();
  phase_ = Phase::kIdle;
  if (fault != nullptr) [[unlikely]] {
    SetFault(fault);
    return 0;
  }
  const uint32_t pointer = static_cast<uint32_t>(value.i32);
  if (pointer == 0 || At(pointer, bytes) == nullptr) return 0;
  inbox_ = pointer;
  inbox_bytes_ = bytes;
  return pointer;
}

uint32_t Instance::HandlePlain(uint32_t pointer, uint32_t bytes) {
  wasmtime_val_raw_t values[3];
  values[0].i32 = static_cast<int32_t>(function_.options().number);
  values[1].i32 = static_cast<int32_t>(pointer);
  values[2].i32 = static_cast<int32_t>(bytes);
  phase_ = Phase::kHandle;
  const Running running(*this);
  weft_fault* fault = weft_call_plain(context_of_store_, &handle_, values, 3);
  phase_ = Phase::kIdle;
  if (fault != nullptr) [[unlikely]] {
    SetFault(fault);
    return kInternal;
  }
  return static_cast<uint32_t>(values[0].i32);
}

weft_fiber* Instance::NewAllocFiber(uint32_t bytes) {
  return weft_fiber_new1(context_of_store_, &alloc_, bytes);
}

weft_fiber* Instance::NewHandleFiber(uint32_t pointer, uint32_t bytes) {
  return weft_fiber_new3(context_of_store_, &handle_, function_.options().number, pointer, bytes);
}

void Instance::SetFault(weft_fault* fault) {
  faulted_ = true;
  fault_text_ = TakeMessage(fault);
  if (cause_ != nullptr) fault_text_ = cause_;
  cause_ = nullptr;
  if (fault_text_.size() > kErrorBytesMax) fault_text_.resize(kErrorBytesMax);
}

wasmtime_error_t* Instance::OnEpoch(wasmtime_context_t* context, void* data, uint64_t* delta,
                                    wasmtime_update_deadline_kind_t* kind) {
  Instance& self = *static_cast<Instance*>(data);
  *delta = 1;
  *kind = WASMTIME_UPDATE_DEADLINE_CONTINUE;
  self.function_.host().RefreshCoarse();
  // The first tick may be one that passed while the instance was idle, the second one just after the call
  // began: neither stands for the time since the one before.
  self.ran_ms_ += self.ran_ms_ < 2 ? 1 : self.function_.module().engine().ticker().interval_ms();
  if (self.ran_ms_ == 1) return nullptr;
  const FunctionOptions& options = self.function_.options();
  // Start-up holds the thread as a plain call does, also that of a module that suspends. What is run once has
  // a thread to itself.
  const bool plain = self.fiber == nullptr && options.run == nullptr;
  const uint32_t limit_ms =
      plain ? std::min(options.time_limit_ms, options.plain_limit_ms) : options.time_limit_ms;
  if (RunState* const run = options.run; run != nullptr) {
    if (run->stopped()) return wasmtime_error_new("stopped");
    // What it has slept counts, too.
    run->late = self.function_.host().NowNs() >= run->end_ns;
    if (run->late) return wasmtime_error_new("time limit");
  }
  if (self.ran_ms_ > limit_ms + 1) {
    self.cause_ = "the call exceeded its time limit";
    self.function_.CountTimeLimit();
    return wasmtime_error_new("time limit");
  }
  if (self.fiber != nullptr) {
    *kind = WASMTIME_UPDATE_DEADLINE_YIELD;
    self.yielded = true;
  }
  return nullptr;
}

}  // namespace weft::host
