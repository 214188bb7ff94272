// SPDX-License-Identifier: Apache-2.0
// WASI preview 1 as far as a function may have it: clocks, random numbers, sleep, and standard output, which
// goes to the log. No files or sockets: those functions exist, because libraries import them, and fail with
// EBADF or ENOSYS. Arguments, environment and an output that is kept are only for what is run once. Our own,
// since the engine's brings an asynchronous runtime, minutes of build time and a context to be made for each
// clean instance.
#include <sys/random.h>
#include <time.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "dataplane/base/clock.h"
#include "dataplane/host/function.h"
#include "dataplane/host/host.h"
#include "dataplane/host/imports.h"

namespace weft::host {
namespace {

constexpr absl::string_view kWasiModule = "wasi_snapshot_preview1";

enum Errno : int32_t { kSuccess = 0, kBadf = 8, kFault = 21, kInval = 28, kNosys = 52 };

constexpr uint32_t kClockRealtime = 0;
constexpr uint32_t kClockMonotonic = 1;
constexpr uint32_t kIovecsMax = 64;
constexpr uint32_t kRandomBytesMax = 1 << 20;
constexpr uint32_t kSubscriptionsMax = 64;
// How long a guest may hold the thread by sleeping before it handles its first call.
constexpr uint64_t kStartSleepNsMax = 10 * kNsPerMs;

using Values = wasmtime_val_raw_t*;

uint32_t U32(const wasmtime_val_raw_t& value) { return static_cast<uint32_t>(value.i32); }

wasm_trap_t* Return(Values values, Errno error) {
  values[0].i32 = error;
  return nullptr;
}

template <typename T>
T Load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <typename T>
bool StoreAt(Instance& instance, uint32_t pointer, T value) {
  std::byte* to = instance.At(pointer, sizeof value);
  if (to == nullptr) return false;
  std::memcpy(to, &value, sizeof value);
  return true;
}

wasm_trap_t* NoSystem(void*, wasmtime_caller_t*, Values values, size_t) { return Return(values, kNosys); }
wasm_trap_t* BadDescriptor(void*, wasmtime_caller_t*, Values values, size_t) { return Return(values, kBadf); }
wasm_trap_t* Success(void*, wasmtime_caller_t*, Values values, size_t) { return Return(values, kSuccess); }

RunState* RunOf(Instance& instance) { return instance.function().options().run; }

// args_sizes_get and environ_sizes_get: none, of no bytes, but for what is run once.
template <std::vector<std::string> RunState::* kTexts>
wasm_trap_t* TextSizes(void* running, wasmtime_caller_t*, Values values, size_t) {
  Instance& instance = InstanceOf(running);
  uint32_t count = 0, bytes = 0;
  if (const RunState* run = RunOf(instance); run != nullptr) {
    for (const std::string& text : run->*kTexts) {
      ++count;
      bytes += static_cast<uint32_t>(text.size() + 1);
    }
  }
  const bool stored = StoreAt<uint32_t>(instance, U32(values[0]), count) &&
                      StoreAt<uint32_t>(instance, U32(values[1]), bytes);
  return Return(values, stored ? kSuccess : kFault);
}

// args_get and environ_get: a pointer to each text, and the texts, each with its NUL.
template <std::vector<std::string> RunState::* kTexts>
wasm_trap_t* TextsGet(void* running, wasmtime_caller_t*, Values values, size_t) {
  Instance& instance = InstanceOf(running);
  const RunState* run = RunOf(instance);
  if (run == nullptr) return Return(values, kSuccess);
  uint32_t pointers = U32(values[0]);
  uint32_t texts = U32(values[1]);
  for (const std::string& text : run->*kTexts) {
    const auto bytes = static_cast<uint32_t>(text.size() + 1);
    std::byte* to = instance.At(texts, bytes);
    if (to == nullptr || !StoreAt<uint32_t>(instance, pointers, texts)) return Return(values, kFault);
    std::memcpy(to, text.c_str(), bytes);
    pointers += sizeof(uint32_t);
    texts += bytes;
  }
  return Return(values, kSuccess);
}

bool ClockNs(Host& host, uint32_t clock, uint64_t* ns) {
  if (clock == kClockMonotonic) {
    *ns = host.NowNs();
  } else if (clock == kClockRealtime) {
    *ns = host.NowNs() + static_cast<uint64_t>(host.realtime_offset_ns());
  } else {
    return false;  // Processor time: a guest learns nothing of its neighbours' load.
  }
  return true;
}

wasm_trap_t* ClockTimeGet(void* running, wasmtime_caller_t*, Values values, size_t) {
  Instance& instance = InstanceOf(running);
  uint64_t ns;
  if (!ClockNs(instance.function().host(), U32(values[0]), &ns)) return Return(values, kInval);
  return Return(values, StoreAt(instance, U32(values[2]), ns) ? kSuccess : kFault);
}

wasm_trap_t* ClockResGet(void* running, wasmtime_caller_t*, Values values, size_t) {
  const bool known = U32(values[0]) <= kClockMonotonic;
  if (!known) return Return(values, kInval);
  return Return(values, StoreAt<uint64_t>(InstanceOf(running), U32(values[1]), 1) ? kSuccess : kFault);
}

wasm_trap_t* RandomGet(void* running, wasmtime_caller_t*, Values values, size_t) {
  const uint32_t bytes = U32(values[1]);
  std::byte* to = InstanceOf(running).At(U32(values[0]), bytes);
  if (to == nullptr) return Return(values, kFault);
  if (bytes > kRandomBytesMax) return Return(values, kInval);
  for (uint32_t have = 0; have < bytes;) {
    const ssize_t got = getrandom(to + have, bytes - have, 0);
    if (got > 0) have += static_cast<uint32_t>(got);
  }
  return Return(values, kSuccess);
}

// Standard output and error: each line of it is a line of the log, within the bounds of weft.log. No time
// limit ends this loop, so what a call can log bounds it: behind so many empty lines nothing is looked at.
void LogText(Instance& instance, uint32_t fd, absl::string_view text) {
  text = text.substr(0, kLogLinesOfCallMax * kLogLineBytesMax);
  while (!text.empty()) {
    const absl::string_view line = text.substr(0, std::min<size_t>(text.find('\n'), kLogLineBytesMax));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.empty()) continue;
    if (!instance.TakeLogLine()) return;
    instance.function().host().log().Line(instance.function().name(), fd == 2 ? 2 : 1, line);
  }
}

// Of what is run once, standard output is its result. The guest ends where that would be too long.
bool KeepText(RunState& run, absl::string_view text) {
  run.output_full = run.output.size() + text.size() > run.output_bytes_max;
  if (!run.output_full) run.output.append(text.data(), text.size());
  return !run.output_full;
}

wasm_trap_t* FdWrite(void* running, wasmtime_caller_t*, Values values, size_t) {
  Instance& instance = InstanceOf(running);
  const uint32_t fd = U32(values[0]);
  const uint32_t count = U32(values[2]);
  if (fd != 1 && fd != 2) return Return(values, kBadf);
  if (count > kIovecsMax) return Return(values, kInval);
  uint32_t written = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const std::byte* iovec = instance.At(U32(values[1]) + 8 * i, 8);
    if (iovec == nullptr) return Return(values, kFault);
    const uint32_t bytes = Load<uint32_t>(iovec + 4);
    const std::byte* text = instance.At(Load<uint32_t>(iovec), bytes);
    if (text == nullptr) return Return(values, kFault);
    const absl::string_view line(reinterpret_cast<const char*>(text), bytes);
    if (RunState* run = RunOf(instance); run == nullptr || fd == 2) {
      LogText(instance, fd, line);
    } else if (!KeepText(*run, line)) {
      constexpr absl::string_view kMessage = "the guest printed more than it may";
      return wasmtime_trap_new(kMessage.data(), kMessage.size());
    }
    written += bytes;
  }
  return Return(values, StoreAt(instance, U32(values[3]), written) ? kSuccess : kFault);
}

wasm_trap_t* FdFdstatGet(void* running, wasmtime_caller_t*, Values values, size_t) {
  constexpr uint8_t kCharacterDevice = 2;
  constexpr uint64_t kRightWrite = 1 << 6;
  if (U32(values[0]) > 2) return Return(values, kBadf);
  std::byte* to = InstanceOf(running).At(U32(values[1]), 24);
  if (to == nullptr) return Return(values, kFault);
  std::memset(to, 0, 24);
  to[0] = std::byte{kCharacterDevice};
  if (U32(values[0]) != 0) std::memcpy(to + 8, &kRightWrite, sizeof kRightWrite);
  return Return(values, kSuccess);
}

wasm_trap_t* ProcExit(void* running, wasmtime_caller_t*, Values values, size_t) {
  if (RunState* run = RunOf(InstanceOf(running)); run != nullptr) run->exit_code = U32(values[0]);
  constexpr absl::string_view kMessage = "the guest ended itself by proc_exit";
  return wasmtime_trap_new(kMessage.data(), kMessage.size());
}

// ---- poll_oneoff: sleep. Descriptors are reported as bad at once.

struct Sleeping {
  Instance* instance;
  wasmtime_val_t* result;
  uint32_t in, out, count, event_count;
  uint64_t wake_ns;
};

constexpr uint32_t kSubscriptionBytes = 48;
constexpr uint32_t kEventBytes = 32;
constexpr uint8_t kEventClock = 0;

// When the subscription at `from` is due; false where its clock is unknown or it is none of a clock.
bool DueOf(Host& host, const std::byte* from, uint64_t* due_ns) {
  if (Load<uint8_t>(from + 8) != kEventClock) return false;
  uint64_t now_ns;
  const uint32_t clock = Load<uint32_t>(from + 16);
  if (!ClockNs(host, clock, &now_ns)) return false;
  const uint64_t timeout_ns = Load<uint64_t>(from + 24);
  const bool absolute = (Load<uint16_t>(from + 40) & 1) != 0;
  const uint64_t left_ns = !absolute ? timeout_ns : timeout_ns > now_ns ? timeout_ns - now_ns : 0;
  const uint64_t now = host.NowNs();
  *due_ns = left_ns > UINT64_MAX - now ? UINT64_MAX - 1 : now + left_ns;
  return true;
}

// Writes an event for every subscription that is due at `now_ns` or is bad; their number, or -1 on a bad
// pointer.
int64_t WriteEvents(const Sleeping& sleeping, uint64_t base_ns, uint64_t now_ns) {
  Host& host = sleeping.instance->function().host();
  const std::byte* in = sleeping.instance->At(sleeping.in, sleeping.count * kSubscriptionBytes);
  std::byte* out = sleeping.instance->At(sleeping.out, sleeping.count * kEventBytes);
  if (in == nullptr || out == nullptr) return -1;
  int64_t events = 0;
  for (uint32_t i = 0; i < sleeping.count; ++i, in += kSubscriptionBytes) {
    std::byte event[kEventBytes] = {};
    uint64_t due_ns = 0;
    const bool clock = DueOf(host, in, &due_ns);
    // A relative time counts from the call, not from now.
    if (clock && Load<uint16_t>(in + 40) % 2 == 0) {
      const uint64_t timeout_ns = Load<uint64_t>(in + 24);
      due_ns = timeout_ns > UINT64_MAX - base_ns ? UINT64_MAX : base_ns + timeout_ns;
    }
    if (clock && due_ns > now_ns) continue;
    std::memcpy(event, in, 8);
    const uint16_t error = clock ? kSuccess : kBadf;
    std::memcpy(event + 8, &error, sizeof error);
    event[10] = in[8];
    std::memcpy(out + kEventBytes * events++, event, sizeof event);
  }
  return events;
}

// What is run once has a thread of its own to sleep on. False where its time is over before.
bool SleepOfRun(Host& host, RunState& run, uint64_t wake_ns) {
  run.late = wake_ns > run.end_ns;
  wake_ns = std::min(wake_ns, run.end_ns);
  for (uint64_t now_ns = host.NowNs(); now_ns < wake_ns && !run.stopped(); now_ns = host.NowNs()) {
    const timespec pause = {0, static_cast<long>(std::min(wake_ns - now_ns, kStartSleepNsMax))};
    nanosleep(&pause, nullptr);
  }
  return !run.late;
}

struct SleepState {
  Sleeping sleeping;
  uint64_t base_ns;
};

bool SleepIsOver(void* data) {
  SleepState& state = *static_cast<SleepState*>(data);
  Sleeping& sleeping = state.sleeping;
  // The host's list of sleepers decides, not the clock: what is on that list must stay suspended.
  const InCall* call = sleeping.instance->call();
  if (call != nullptr && call->wait == InCall::Wait::kSleep) return false;
  const uint64_t now_ns = sleeping.instance->function().host().NowNs();
  const int64_t events = WriteEvents(sleeping, state.base_ns, std::max(now_ns, sleeping.wake_ns));
  sleeping.result->kind = WASMTIME_I32;
  const bool stored =
      events >= 0 && StoreAt(*sleeping.instance, sleeping.event_count, static_cast<uint32_t>(events));
  sleeping.result->of.i32 = stored ? kSuccess : kFault;
  return true;
}

void PollOneoff(void* running, wasmtime_caller_t*, const wasmtime_val_t* args, size_t,
                wasmtime_val_t* results, size_t, wasm_trap_t** trap,
                wasmtime_async_continuation_t* continuation) {
  Instance& instance = InstanceOf(running);
  Host& host = instance.function().host();
  Sleeping sleeping = {&instance,
                       &results[0],
                       static_cast<uint32_t>(args[0].of.i32),
                       static_cast<uint32_t>(args[1].of.i32),
                       static_cast<uint32_t>(args[2].of.i32),
                       static_cast<uint32_t>(args[3].of.i32),
                       UINT64_MAX};
  results[0].kind = WASMTIME_I32;
  results[0].of.i32 = kInval;
  continuation->callback = [](void*) { return true; };
  if (sleeping.count == 0 || sleeping.count > kSubscriptionsMax) return;
  const std::byte* in = instance.At(sleeping.in, sleeping.count * kSubscriptionBytes);
  results[0].of.i32 = kFault;
  if (in == nullptr) return;
  const uint64_t now_ns = host.NowNs();
  for (uint32_t i = 0; i < sleeping.count; ++i) {
    uint64_t due_ns = now_ns;  // Of a bad subscription: at once.
    DueOf(host, in + i * kSubscriptionBytes, &due_ns);
    sleeping.wake_ns = std::min(sleeping.wake_ns, due_ns);
  }
  if (RunState* run = RunOf(instance); run != nullptr) {
    if (!SleepOfRun(host, *run, sleeping.wake_ns)) {
      constexpr absl::string_view kMessage = "the guest sleeps longer than it may run";
      *trap = wasmtime_trap_new(kMessage.data(), kMessage.size());
      return;
    }
  } else if (instance.call() == nullptr) {
    // Start-up has no call to suspend. It may sleep on the thread, briefly, and is then woken early.
    sleeping.wake_ns = std::min(sleeping.wake_ns, now_ns + kStartSleepNsMax);
    const timespec pause = {0, static_cast<long>(sleeping.wake_ns - std::min(now_ns, sleeping.wake_ns))};
    nanosleep(&pause, nullptr);
  } else if (sleeping.wake_ns > now_ns) {
    host.Sleep(*instance.call(), sleeping.wake_ns);
  }
  continuation->callback = SleepIsOver;
  continuation->env = new SleepState{sleeping, now_ns};
  continuation->finalizer = [](void* data) { delete static_cast<SleepState*>(data); };
}

struct Entry {
  absl::string_view name;
  absl::string_view signature;
  wasmtime_func_unchecked_callback_t function;
};

// Every function of the snapshot but poll_oneoff. i is i32, I is i64.
constexpr Entry kEntries[] = {
    {"args_get", "ii:i", TextsGet<&RunState::args>},
    {"args_sizes_get", "ii:i", TextSizes<&RunState::args>},
    {"environ_get", "ii:i", TextsGet<&RunState::env>},
    {"environ_sizes_get", "ii:i", TextSizes<&RunState::env>},
    {"clock_res_get", "ii:i", ClockResGet},
    {"clock_time_get", "iIi:i", ClockTimeGet},
    {"fd_advise", "iIIi:i", BadDescriptor},
    {"fd_allocate", "iII:i", BadDescriptor},
    {"fd_close", "i:i", BadDescriptor},
    {"fd_datasync", "i:i", BadDescriptor},
    {"fd_fdstat_get", "ii:i", FdFdstatGet},
    {"fd_fdstat_set_flags", "ii:i", BadDescriptor},
    {"fd_fdstat_set_rights", "iII:i", BadDescriptor},
    {"fd_filestat_get", "ii:i", BadDescriptor},
    {"fd_filestat_set_size", "iI:i", BadDescriptor},
    {"fd_filestat_set_times", "iIIi:i", BadDescriptor},
    {"fd_pread", "iiiIi:i", BadDescriptor},
    {"fd_prestat_dir_name", "iii:i", BadDescriptor},
    {"fd_prestat_get", "ii:i", BadDescriptor},
    {"fd_pwrite", "iiiIi:i", BadDescriptor},
    {"fd_read", "iiii:i", BadDescriptor},
    {"fd_readdir", "iiiIi:i", BadDescriptor},
    {"fd_renumber", "ii:i", BadDescriptor},
    {"fd_seek", "iIii:i", BadDescriptor},
    {"fd_sync", "i:i", BadDescriptor},
    {"fd_tell", "ii:i", BadDescriptor},
    {"fd_write", "iiii:i", FdWrite},
    {"path_create_directory", "iii:i", NoSystem},
    {"path_filestat_get", "iiiii:i", NoSystem},
    {"path_filestat_set_times", "iiiiIIi:i", NoSystem},
    {"path_link", "iiiiiii:i", NoSystem},
    {"path_open", "iiiiiIIii:i", NoSystem},
    {"path_readlink", "iiiiii:i", NoSystem},
    {"path_remove_directory", "iii:i", NoSystem},
    {"path_rename", "iiiiii:i", NoSystem},
    {"path_symlink", "iiiii:i", NoSystem},
    {"path_unlink_file", "iii:i", NoSystem},
    {"proc_exit", "i:", ProcExit},
    {"proc_raise", "i:i", NoSystem},
    {"random_get", "ii:i", RandomGet},
    {"sched_yield", ":i", Success},
    {"sock_accept", "iii:i", BadDescriptor},
    {"sock_recv", "iiiiii:i", BadDescriptor},
    {"sock_send", "iiiii:i", BadDescriptor},
    {"sock_shutdown", "ii:i", BadDescriptor},
};

}  // namespace

void DefineWasi(wasmtime_linker_t* linker, Instance** running) {
  for (const Entry& entry : kEntries)
    DefinePlain(linker, kWasiModule, entry.name, entry.signature, entry.function, running);
  DefineSuspending(linker, kWasiModule, "poll_oneoff", "iiii:i", PollOneoff, running);
}

}  // namespace weft::host
