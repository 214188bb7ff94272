// SPDX-License-Identifier: Apache-2.0
// The imports of module `weft`: they check what the guest hands over and leave the work to Host. Called by
// guests, on the guest thread, on the guest's own stack.
#include "dataplane/host/imports.h"

#include <algorithm>
#include <cstring>

#include "dataplane/base/check.h"
#include "dataplane/host/function.h"
#include "dataplane/host/host.h"

namespace weft::host {
namespace {

constexpr absl::string_view kModule = "weft";
constexpr uint32_t kNameBytesMax = 2 * 63 + 1;

uint32_t U32(const wasmtime_val_raw_t& value) { return static_cast<uint32_t>(value.i32); }
void Return32(wasmtime_val_raw_t* values, uint32_t result) { values[0].i32 = static_cast<int32_t>(result); }
void Return64(wasmtime_val_raw_t* values, uint64_t result) { values[0].i64 = static_cast<int64_t>(result); }

Host& HostOf(Instance& instance) { return instance.function().host(); }

// (name, name_size, data, size): false where one of them lies outside the guest's memory.
bool ReadRequest(Instance& instance, const wasmtime_val_raw_t* values, Host::OutRequest* request) {
  const uint32_t name_bytes = U32(values[1]);
  const std::byte* name = name_bytes <= kNameBytesMax ? instance.At(U32(values[0]), name_bytes) : nullptr;
  const std::byte* data = instance.At(U32(values[2]), U32(values[3]));
  if (name == nullptr || data == nullptr) return false;
  request->name_pointer = U32(values[0]);
  request->name = {reinterpret_cast<const char*>(name), name_bytes};
  request->request = {data, U32(values[3])};
  return true;
}

// (name, name_size, data, size, room, room_size, timeout_ns) of call and start.
bool ReadCall(Instance& instance, const wasmtime_val_raw_t* values, Host::OutRequest* request) {
  if (!ReadRequest(instance, values, request)) return false;
  request->room = instance.At(U32(values[4]), U32(values[5]));
  request->room_bytes = U32(values[5]);
  request->timeout_ns = values[6].i64;
  return request->room != nullptr;
}

bool MayCall(const Instance& instance) { return instance.phase() == Instance::Phase::kHandle; }

wasm_trap_t* Reply(void* running, wasmtime_caller_t*, wasmtime_val_raw_t* values, size_t) {
  Instance& instance = InstanceOf(running);
  const uint32_t bytes = U32(values[1]);
  const std::byte* data = instance.At(U32(values[0]), bytes);
  if (data == nullptr || !MayCall(instance)) [[unlikely]] {
    Return32(values, data == nullptr ? kOutOfRange : kFailedPrecondition);
    return nullptr;
  }
  instance.SetReply(data, bytes);
  Return32(values, kOk);
  return nullptr;
}

template <uint64_t (Host::*kBegin)(Instance&, const Host::OutRequest&)>
wasm_trap_t* CallOrStart(void* running, wasmtime_caller_t*, wasmtime_val_raw_t* values, size_t) {
  Instance& instance = InstanceOf(running);
  Host::OutRequest request;
  if (!MayCall(instance)) [[unlikely]] {
    Return64(values, Outcome(kFailedPrecondition, 0));
  } else if (!ReadCall(instance, values, &request)) [[unlikely]] {
    Return64(values, Outcome(kOutOfRange, 0));
  } else {
    Return64(values, (HostOf(instance).*kBegin)(instance, request));
  }
  return nullptr;
}

wasm_trap_t* Send(void* running, wasmtime_caller_t*, wasmtime_val_raw_t* values, size_t) {
  Instance& instance = InstanceOf(running);
  Host::OutRequest request = {};
  Status status = kOutOfRange;
  if (!MayCall(instance)) {
    status = kFailedPrecondition;
  } else if (ReadRequest(instance, values, &request)) {
    status = HostOf(instance).GuestSend(instance, request);
  }
  Return32(values, status);
  return nullptr;
}

wasm_trap_t* Result(void* running, wasmtime_caller_t*, wasmtime_val_raw_t* values, size_t) {
  Instance& instance = InstanceOf(running);
  Host& host = HostOf(instance);
  OutCall* call = host.FindOutCall(instance, U32(values[0]));
  std::byte* room = instance.At(U32(values[1]), U32(values[2]));
  if (call == nullptr) {
    Return64(values, Outcome(kNotFound, 0));
  } else if (room == nullptr) {
    Return64(values, Outcome(kOutOfRange, 0));
  } else {
    Return64(values, host.TakeResult(*call, room, U32(values[2])));
  }
  return nullptr;
}

wasm_trap_t* Deadline(void* running, wasmtime_caller_t*, wasmtime_val_raw_t* values, size_t) {
  Instance& instance = InstanceOf(running);
  int64_t left_ns = INT64_MAX;
  if (MayCall(instance) && instance.context().deadline_ns != 0) {
    left_ns =
        std::max<int64_t>(0, static_cast<int64_t>(instance.context().deadline_ns - HostOf(instance).NowNs()));
  }
  values[0].i64 = left_ns;
  return nullptr;
}

wasm_trap_t* TraceParent(void* running, wasmtime_caller_t*, wasmtime_val_raw_t* values, size_t) {
  // As W3C Trace Context writes it: the fields in hexadecimal with '-' between them.
  constexpr size_t kFields[] = {1, 16, 8, 1};
  constexpr uint32_t kTextBytes = 2 * Trace::kBytes + 3;
  Instance& instance = InstanceOf(running);
  std::byte* room = instance.At(U32(values[0]), U32(values[1]));
  if (room == nullptr || U32(values[1]) < kTextBytes || !MayCall(instance) ||
      !instance.context().trace.present) {
    Return32(values, 0);
    return nullptr;
  }
  char* out = reinterpret_cast<char*>(room);
  const std::byte* from = instance.context().trace.wire.data();
  for (const size_t bytes : kFields) {
    if (from != instance.context().trace.wire.data()) *out++ = '-';
    for (size_t i = 0; i < bytes; ++i, ++from) {
      *out++ = "0123456789abcdef"[static_cast<uint8_t>(*from) >> 4];
      *out++ = "0123456789abcdef"[static_cast<uint8_t>(*from) & 15];
    }
  }
  Return32(values, kTextBytes);
  return nullptr;
}

wasm_trap_t* Log(void* running, wasmtime_caller_t*, wasmtime_val_raw_t* values, size_t) {
  Instance& instance = InstanceOf(running);
  const uint32_t bytes = std::min(U32(values[2]), kLogLineBytesMax);
  const std::byte* text = instance.At(U32(values[1]), bytes);
  if (text == nullptr || !instance.TakeLogLine()) return nullptr;
  HostOf(instance).log().Line(instance.function().name(), std::min(U32(values[0]), 3u),
                              {reinterpret_cast<const char*>(text), bytes});
  return nullptr;
}

// ---- The two that suspend. A continuation runs when the fiber is resumed; it says whether the wait is over.

void Finish64(wasmtime_val_t* result, uint64_t value) {
  result->kind = WASMTIME_I64;
  result->of.i64 = static_cast<int64_t>(value);
}

bool AlwaysReady(void*) { return true; }

// The results of a suspended import stay at one address until its continuation is done.
struct Waiting {
  Instance* instance;
  wasmtime_val_t* result;
};

bool WaitIsOver(void* data) {
  Waiting& waiting = *static_cast<Waiting*>(data);
  InCall& call = *waiting.instance->call();
  Host& host = HostOf(*waiting.instance);
  OutCall* out = host.FindOutCall(*waiting.instance, call.wait_handles[0]);
  if (out != nullptr && out->state != OutCall::State::kFinished) return false;
  call.wait = InCall::Wait::kNone;
  Finish64(waiting.result, out == nullptr ? Outcome(kNotFound, 0) : host.TakeOutcome(*out));
  return true;
}

bool WaitAnyIsOver(void* data) {
  Waiting& waiting = *static_cast<Waiting*>(data);
  InCall& call = *waiting.instance->call();
  Host& host = HostOf(*waiting.instance);
  uint32_t index = 0;
  for (; index < call.wait_count; ++index) {
    const OutCall* out = host.FindOutCall(*waiting.instance, call.wait_handles[index]);
    if (out == nullptr || out->state == OutCall::State::kFinished) break;
  }
  if (index == call.wait_count) return false;
  call.wait = InCall::Wait::kNone;
  waiting.result->kind = WASMTIME_I32;
  waiting.result->of.i32 = static_cast<int32_t>(index);
  return true;
}

void Suspend(Instance& instance, wasmtime_val_t* result, wasmtime_func_async_continuation_callback_t over,
             wasmtime_async_continuation_t* continuation) {
  continuation->callback = over;
  continuation->env = new Waiting{&instance, result};
  continuation->finalizer = [](void* data) { delete static_cast<Waiting*>(data); };
}

void Wait(void* running, wasmtime_caller_t*, const wasmtime_val_t* args, size_t, wasmtime_val_t* results,
          size_t, wasm_trap_t**, wasmtime_async_continuation_t* continuation) {
  Instance& instance = InstanceOf(running);
  continuation->callback = AlwaysReady;
  const uint32_t handle = static_cast<uint32_t>(args[0].of.i32);
  if (!MayCall(instance)) {
    Finish64(&results[0], Outcome(kFailedPrecondition, 0));
    return;
  }
  OutCall* out = HostOf(instance).FindOutCall(instance, handle);
  if (out == nullptr || out->state == OutCall::State::kFinished) {
    Finish64(&results[0], out == nullptr ? Outcome(kNotFound, 0) : HostOf(instance).TakeOutcome(*out));
    return;
  }
  InCall& call = *instance.call();
  call.wait = InCall::Wait::kOne;
  call.wait_count = 1;
  call.wait_handles[0] = handle;
  Suspend(instance, &results[0], WaitIsOver, continuation);
}

void WaitAny(void* running, wasmtime_caller_t*, const wasmtime_val_t* args, size_t, wasmtime_val_t* results,
             size_t, wasm_trap_t**, wasmtime_async_continuation_t* continuation) {
  Instance& instance = InstanceOf(running);
  continuation->callback = AlwaysReady;
  const uint32_t count = static_cast<uint32_t>(args[1].of.i32);
  results[0].kind = WASMTIME_I32;
  results[0].of.i32 = static_cast<int32_t>(count);
  if (!MayCall(instance) || count == 0 || count > kOutCallsOfInstanceMax) return;
  const std::byte* handles = instance.At(static_cast<uint32_t>(args[0].of.i32), count * sizeof(uint32_t));
  if (handles == nullptr) return;
  InCall& call = *instance.call();
  std::memcpy(call.wait_handles.data(), handles, count * sizeof(uint32_t));
  for (uint32_t i = 0; i < count; ++i) {
    if (HostOf(instance).FindOutCall(instance, call.wait_handles[i]) == nullptr) return;
  }
  call.wait = InCall::Wait::kAny;
  call.wait_count = count;
  Suspend(instance, &results[0], WaitAnyIsOver, continuation);
}

}  // namespace

ImportTraits TraitsOf(absl::string_view module, absl::string_view name) {
  ImportTraits traits;
  if (module == kModule) {
    traits.suspends = name == "wait" || name == "wait_any";
    traits.calls = traits.suspends || name == "call" || name == "start" || name == "result";
  } else if (name == "poll_oneoff") {
    traits.suspends = traits.sleeps = true;
  }
  return traits;
}

wasm_functype_t* FunctionType(absl::string_view signature) {
  const size_t colon = signature.find(':');
  auto types = [](absl::string_view letters) {
    wasm_valtype_vec_t vec;
    wasm_valtype_vec_new_uninitialized(&vec, letters.size());
    for (size_t i = 0; i < letters.size(); ++i)
      vec.data[i] = wasm_valtype_new(letters[i] == 'I' ? WASM_I64 : WASM_I32);
    return vec;
  };
  wasm_valtype_vec_t params = types(signature.substr(0, colon));
  wasm_valtype_vec_t results = types(signature.substr(colon + 1));
  return wasm_functype_new(&params, &results);
}

void DefinePlain(wasmtime_linker_t* linker, absl::string_view module, absl::string_view name,
                 absl::string_view signature, wasmtime_func_unchecked_callback_t function,
                 Instance** running) {
  wasm_functype_t* type = FunctionType(signature);
  wasmtime_error_t* error =
      wasmtime_linker_define_func_unchecked(linker, module.data(), module.size(), name.data(), name.size(),
                                            type, function, static_cast<void*>(running), nullptr);
  wasm_functype_delete(type);
  WEFT_CHECK(error == nullptr);  // Only a name defined twice is refused.
}

void DefineSuspending(wasmtime_linker_t* linker, absl::string_view module, absl::string_view name,
                      absl::string_view signature, wasmtime_func_async_callback_t function,
                      Instance** running) {
  wasm_functype_t* type = FunctionType(signature);
  wasmtime_error_t* error =
      wasmtime_linker_define_async_func(linker, module.data(), module.size(), name.data(), name.size(), type,
                                        function, static_cast<void*>(running), nullptr);
  wasm_functype_delete(type);
  WEFT_CHECK(error == nullptr);
}

wasmtime_linker_t* NewLinker(Engine& engine) {
  wasmtime_linker_t* linker = wasmtime_linker_new(engine.get());
  Instance** running = engine.running();
  DefinePlain(linker, kModule, "reply", "ii:i", Reply, running);
  DefinePlain(linker, kModule, "call", "iiiiiiI:I", CallOrStart<&Host::GuestCall>, running);
  DefinePlain(linker, kModule, "start", "iiiiiiI:I", CallOrStart<&Host::GuestStart>, running);
  DefinePlain(linker, kModule, "send", "iiii:i", Send, running);
  DefinePlain(linker, kModule, "result", "iii:I", Result, running);
  DefinePlain(linker, kModule, "deadline", ":I", Deadline, running);
  DefinePlain(linker, kModule, "trace", "ii:i", TraceParent, running);
  DefinePlain(linker, kModule, "log", "iii:", Log, running);
  DefineSuspending(linker, kModule, "wait", "i:I", Wait, running);
  DefineSuspending(linker, kModule, "wait_any", "ii:i", WaitAny, running);
  DefineWasi(linker, running);
  return linker;
}

}  // namespace weft::host
