// SPDX-License-Identifier: Apache-2.0
// What it costs to wake a thread of another core through a doorbell, measured once a process.
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <thread>

#include "dataplane/base/clock.h"
#include "dataplane/channel/doorbell.h"
#include "dataplane/channel/poller.h"

namespace weft {
namespace {

constexpr uint64_t kPollTimeNsMin = 5 * kNsPerUs;
constexpr uint64_t kPollTimeNsMax = 100 * kNsPerUs;
// A thread that polls for just as long as its peer takes to wake misses the answer half of the time and
// sleeps as well; then its peer, which has polled that long meanwhile, sleeps again, and every call costs two
// wakes for ever (56 us instead of 0.18 a round trip, bench row layer/channel). Twice that long breaks the
// circle.
constexpr uint64_t kWakesToPollFor = 2;
// The median of these; one in three may be spoilt by other work.
constexpr int kWakes = 15;
// Long enough for the other thread to be asleep again.
constexpr auto kPause = std::chrono::microseconds(100);

// Moves the calling thread away from the core it is on, which it may have inherited with a process pinned to
// it: a wake on one's own core is a context switch and costs a tenth. Stays where there is no other core.
void LeaveCore(int core) {
  cpu_set_t others;
  CPU_ZERO(&others);
  for (int other = 0; other < CPU_SETSIZE; ++other) {
    if (other != core) CPU_SET(other, &others);
  }
  sched_setaffinity(0, sizeof(others), &others);
}

uint64_t MeasureWakeNs() {
  absl::StatusOr<DoorbellPair> pair = MakeDoorbellPair();
  if (!pair.ok()) return kPollTimeNsMax;
  std::array<uint64_t, kWakes> woken_ns{};
  const int core = sched_getcpu();
  std::thread sleeper([&] {
    LeaveCore(core);
    for (uint64_t& woken : woken_ns) {
      char byte;
      pollfd entry{pair->second.get(), POLLIN, 0};
      poll(&entry, 1, 1000);
      woken = NowNs();
      recv(pair->second.get(), &byte, 1, MSG_DONTWAIT);
    }
  });
  std::array<uint64_t, kWakes> rung_ns{};
  for (uint64_t& rung : rung_ns) {
    std::this_thread::sleep_for(kPause);
    const char byte = 0;
    rung = NowNs();
    send(pair->first.get(), &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  sleeper.join();
  std::array<uint64_t, kWakes> took_ns;
  for (int i = 0; i < kWakes; ++i) took_ns[i] = woken_ns[i] - std::min(woken_ns[i], rung_ns[i]);
  std::sort(took_ns.begin(), took_ns.end());
  return std::clamp(kWakesToPollFor * took_ns[kWakes / 2], kPollTimeNsMin, kPollTimeNsMax);
}

}  // namespace

uint64_t CalibratedPollTimeNs() {
  static const uint64_t wake_ns = MeasureWakeNs();
  return wake_ns;
}

}  // namespace weft
