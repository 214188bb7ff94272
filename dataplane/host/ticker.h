// SPDX-License-Identifier: Apache-2.0
// The clock of running guests: a thread that raises the engine's epoch once a millisecond while a guest runs
// on and on, every eight while guests come and go, and sleeps otherwise. Each of its looks takes the guest's
// core away for some 25 us of the call at hand, and at 1 ms 2 % of a core (measured), which an idle host must
// not pay.
//
// A guest's thread says Enter() before the guest runs and Leave() afterwards; both cost a store and, for
// Enter(), one load of a line that is rarely written. A look that finds a guest running is followed by a
// closer one, 1 ms later: where that finds the same guest, ticks come each millisecond until none has run
// for so long lately. So a guest that runs on meets its second tick 9 ms after it began at the latest. One
// ticker serves one guest thread.
#ifndef WEFT_DATAPLANE_HOST_TICKER_H_
#define WEFT_DATAPLANE_HOST_TICKER_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <thread>

#include "dataplane/base/attributes.h"
#include "dataplane/host/engine_ext.h"

namespace weft::host {

class Ticker {
 public:
  static constexpr uint32_t kTickMs = 1;  // While a guest runs on.
  static constexpr uint32_t kLookMs = 8;  // While they come and go.
  // Ticks that come each millisecond after the last that met a guest that had run since the one before.
  static constexpr uint32_t kCloseTicks = 20;
  // A guest that has not run for this long lets the thread sleep. At one call a millisecond it then stays
  // awake, so that no call pays for waking it.
  static constexpr uint32_t kIdleMs = 20;

  explicit Ticker(wasm_engine_t* engine);
  ~Ticker();
  Ticker(const Ticker&) = delete;
  Ticker& operator=(const Ticker&) = delete;

  // Guest thread only. Calls do not nest: the caller counts depth where it has to.
  WEFT_HOT void Enter() {
    // Odd while a guest runs. Only this thread writes it.
    entries_.store(entries_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);  // [T1]
    // The store above must be visible before the load below: the ticker's half of that fence is membarrier(2)
    // between its store of asleep_ and its load of entries_, so this half only has to stop the compiler.
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (asleep_.load(std::memory_order_relaxed)) [[unlikely]]
      Wake();  // [T2]
  }
  WEFT_HOT void Leave() {
    entries_.store(entries_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);  // [T1]
  }

  // Between the two, where the guest has called out and nobody waits for its thread: as if another guest ran
  // from here on.
  WEFT_HOT void Progress() {
    entries_.store(entries_.load(std::memory_order_relaxed) + 2, std::memory_order_relaxed);  // [T1]
  }

  // A further engine whose guests run on the same thread; it outlives the ticker. At most kEnginesMax in all.
  void Add(wasm_engine_t* engine);
  static constexpr uint32_t kEnginesMax = 8;

  bool asleep() const { return asleep_.load(std::memory_order_relaxed); }
  // Ticks since the start. Any thread.
  uint64_t ticks() const { return ticks_.load(std::memory_order_relaxed); }
  // What the newest tick stands for, as time since the one before. Any thread.
  uint32_t interval_ms() const { return interval_ms_.load(std::memory_order_relaxed); }

 private:
  void Run();
  void Tick(uint32_t interval_ms);
  void Wake();
  // Returns once Enter() or the destructor asks for ticks; at once where a guest slipped in meanwhile.
  void Sleep(uint64_t seen);

  // The first count_ are set, and stay.
  std::array<wasm_engine_t*, kEnginesMax> engines_ = {};
  std::atomic<uint32_t> count_{0};
  alignas(kCacheLineBytes) std::atomic<uint64_t> entries_{0};  // Written by the guest thread.
  alignas(kCacheLineBytes) std::atomic<bool> asleep_{false};   // Written by both, seldom.
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> ticks_{0};
  std::atomic<uint32_t> interval_ms_{kTickMs};
  bool fenced_ = false;  // The process may use membarrier.
  std::thread thread_;
};

}  // namespace weft::host

#endif  // WEFT_DATAPLANE_HOST_TICKER_H_
