// SPDX-License-Identifier: Apache-2.0
// What it costs to wake another thread through a doorbell, measured once a process.
#include <poll.h>
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
constexpr uint64_t kPollTimeNsMax = 50 * kNsPerUs;
// The median of these; one in three may be spoilt by other work.
constexpr int kWakes = 15;
// Long enough for the other thread to be asleep again.
constexpr auto kPause = std::chrono::microseconds(100);

uint64_t MeasureWakeNs() {
  absl::StatusOr<DoorbellPair> pair = MakeDoorbellPair();
  if (!pair.ok()) return kPollTimeNsMax;
  std::array<uint64_t, kWakes> woken_ns{};
  std::thread sleeper([&] {
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
  return std::clamp(took_ns[kWakes / 2], kPollTimeNsMin, kPollTimeNsMax);
}

}  // namespace

uint64_t CalibratedPollTimeNs() {
  static const uint64_t wake_ns = MeasureWakeNs();
  return wake_ns;
}

}  // namespace weft
