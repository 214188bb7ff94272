// SPDX-License-Identifier: Apache-2.0
// The ticker's own thread, and the rare hand-over by which a guest thread wakes it.
#include "dataplane/host/ticker.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <utility>

#include "dataplane/base/check.h"

namespace weft::host {
namespace {

bool Membarrier(int command) { return syscall(SYS_membarrier, command, 0, 0) == 0; }

}  // namespace

Ticker::Ticker(wasm_engine_t* engine) : fenced_(Membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)) {
  Add(engine);
  thread_ = std::thread([this] { Run(); });
  pthread_setname_np(thread_.native_handle(), "weft-ticker");
}

Ticker::~Ticker() {
  stop_.store(true, std::memory_order_release);  // [T3] pairs with Run()
  Wake();
  thread_.join();
}

void Ticker::Add(wasm_engine_t* engine) {
  const uint32_t count = count_.load(std::memory_order_relaxed);  // Only the guest thread adds.
  WEFT_CHECK(count < kEnginesMax);
  engines_[count] = engine;
  count_.store(count + 1, std::memory_order_release);  // [T4] publishes the entry; pairs with Run()
}

void Ticker::Tick(uint32_t interval_ms) {
  interval_ms_.store(interval_ms, std::memory_order_relaxed);
  const uint32_t count = count_.load(std::memory_order_acquire);  // [T4]
  for (uint32_t i = 0; i < count; ++i) wasmtime_engine_increment_epoch(engines_[i]);
  ticks_.fetch_add(1, std::memory_order_relaxed);
}

void Ticker::Run() {
  uint64_t seen = 0;
  uint32_t passed_ms = 0, idle_ms = 0;
  uint32_t close_ticks = 0;                         // Still to come.
  bool closer = false;                              // The last look found a guest running: is it there still?
  while (!stop_.load(std::memory_order_acquire)) {  // [T3]
    const uint32_t wait_ms = close_ticks > 0 || closer ? kTickMs : kLookMs;
    std::this_thread::sleep_for(std::chrono::milliseconds(wait_ms));
    passed_ms += wait_ms;
    const uint64_t entries = entries_.load(std::memory_order_relaxed);  // [T1] a late value costs one look
    const bool running = entries % 2 == 1;
    if (running && entries == seen) {
      close_ticks = kCloseTicks;
    } else if (close_ticks > 0) {
      --close_ticks;
    }
    if (!closer || close_ticks > 0) Tick(std::exchange(passed_ms, 0));
    closer = running && !closer && close_ticks == 0;
    idle_ms = entries != seen || running ? 0 : idle_ms + wait_ms;
    seen = entries;
    // A kernel without membarrier leaves the race open that it closes; there the ticker never sleeps.
    if (idle_ms >= kIdleMs && fenced_) {
      Sleep(seen);
      idle_ms = passed_ms = 0;
    }
  }
}

void Ticker::Sleep(uint64_t seen) {
  asleep_.store(true, std::memory_order_relaxed);  // [T2]
  // From here on every guest thread either sees asleep_ in Enter(), or its entry is seen below.
  Membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
  if (entries_.load(std::memory_order_relaxed) != seen) {  // [T1]
    asleep_.store(false, std::memory_order_relaxed);
    return;
  }
  if (stop_.load(std::memory_order_acquire)) return;
  asleep_.wait(true, std::memory_order_acquire);
}

void Ticker::Wake() {
  asleep_.store(false, std::memory_order_release);
  asleep_.notify_one();
}

}  // namespace weft::host
