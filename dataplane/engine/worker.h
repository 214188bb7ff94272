// SPDX-License-Identifier: Apache-2.0
// The engine's loop: joins a NodeEngine, its transport core and a port, and runs each turn to its end. A
// template over the port, so that a test's memory port runs the very loop that ships. Owner thread only.
//
// Waiting. After its last work it polls for about the cost of a wake, giving the core away to others that
// want it (CoreSharing), or not at all where one of them computes; then it blocks in one epoll with the
// doorbells of all hosts, the agent and the port. A port that no descriptor wakes for (DPDK) says for how
// long (idle_step_ns); then it is looked at once and, where nothing is there, the thread blocks again without
// polling.
#ifndef WEFT_DATAPLANE_ENGINE_WORKER_H_
#define WEFT_DATAPLANE_ENGINE_WORKER_H_

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "dataplane/base/attributes.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/core_sharing.h"
#include "dataplane/channel/poller.h"
#include "dataplane/engine/node_engine.h"
#include "dataplane/transport/pump.h"

namespace weft::engine {

template <typename Port>
class Worker {
 public:
  // Both outlive the worker. `poll_time_ns`: how long it polls without work. `hosts_first`: what hosts gave
  // leaves before the port is asked for more, which costs a system call where it is the kernel's; without, it
  // may share a datagram with what answers that.
  Worker(NodeEngine& engine, Port& port, uint64_t poll_time_ns = CalibratedPollTimeNs(),
         bool hosts_first = false)
      : engine_(engine), port_(port), poll_time_ns_(poll_time_ns), hosts_first_(hosts_first) {}

  // Takes what there is, from hosts and from the wire, and sends what follows from it. Never blocks. Returns
  // how much it moved.
  WEFT_HOT std::size_t Turn() {
    auto moved = static_cast<std::size_t>(engine_.PollHosts());
    const uint64_t now_ns = engine_.NowNs();
    if (hosts_first_ && moved != 0) moved += transport::PumpOut(engine_.transport(), port_, now_ns);
    return moved + transport::Turn(engine_.transport(), port_, now_ns,
                                   [this, now_ns] { return engine_.TakeEvents(now_ns); });
  }

  // Takes leave of all peers, as far as a few datagrams go out at once: a peer that hears of it fails what it
  // has under way here without waiting.
  void TakeLeave() {
    engine_.CloseAll();
    for (int i = 0; i < kLastTurns; ++i) Turn();
  }

  // Turns until `stop` is set, which needs a Post to be seen by a thread that sleeps.
  void Run(const std::atomic<bool>& stop) {
    uint64_t worked_ns = engine_.NowNs();
    while (!stop.load(std::memory_order_relaxed)) {  // It publishes nothing.
      if (Turn() != 0) {
        worked_ns = engine_.NowNs();
        empty_turns_ = 0;
        continue;
      }
      const uint64_t now_ns = engine_.NowNs();
      if (now_ns - worked_ns < poll_time_ns_ && sharing_.MayPoll()) {
        // What others took is no time of polling.
        if (sharing_.yields_each_poll() || ++empty_turns_ % kYieldEvery == 0) worked_ns += sharing_.Yield();
        continue;
      }
      Sleep(now_ns);
      if constexpr (!kSleepsByStep) worked_ns = engine_.NowNs();
    }
  }

 private:
  // An empty turn takes about 60 ns: a yield every 4 us, so that none falls into an ordinary round trip.
  static constexpr uint32_t kYieldEvery = 64;
  static constexpr int kLastTurns = 8;
  static constexpr bool kSleepsByStep = requires(Port port) { port.idle_step_ns(); };

  void Sleep(uint64_t now_ns) {
    uint64_t wake_ns = engine_.NextNs(now_ns);
    if (wake_ns <= now_ns || !port_.PrepareSleep()) return;
    if constexpr (kSleepsByStep) wake_ns = std::min(wake_ns, now_ns + port_.idle_step_ns());
    engine_.Sleep(wake_ns);
    port_.EndSleep();
  }

  NodeEngine& engine_;
  Port& port_;
  const uint64_t poll_time_ns_;
  const bool hosts_first_;
  uint32_t empty_turns_ = 0;
  CoreSharing sharing_;
};

}  // namespace weft::engine

#endif  // WEFT_DATAPLANE_ENGINE_WORKER_H_
