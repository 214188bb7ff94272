// SPDX-License-Identifier: Apache-2.0
// Changes at a source at a fixed rate, for a time: when each was written, when the bare watcher saw it, when
// weft-control did, and when the agent had acknowledged it. Open loop: an event that is late is written late
// and counts from when it was written. Starts threads, which end with the call.
#ifndef WEFT_BENCH_CONTROL_CHANGE_RUN_H_
#define WEFT_BENCH_CONTROL_CHANGE_RUN_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/control/change_source.h"
#include "dataplane/base/histogram.h"

namespace weft::bench {

// When event `event` was about to be written, and the number that the source gave it.
struct WrittenEvent {
  uint64_t written_ns = 0;
  uint64_t number = 0;
};

// How many that are. The next run goes on behind them: one that was left out would make another later change
// nothing.
inline uint64_t EventCount(double rate, uint64_t duration_ns) {
  return static_cast<uint64_t>(rate * static_cast<double>(duration_ns) / 1e9);
}

// Writes `rate` events a second for `duration_ns`, the first of which is number `first_event`. Returns them
// in the order of their numbers.
absl::StatusOr<std::vector<WrittenEvent>> WriteEvents(ChangeSource& source, uint64_t first_event, double rate,
                                                      uint64_t duration_ns);

// What a bare watcher saw at one rate.
struct BareRun {
  Histogram delay;           // From written to arrival
  double idle_fraction = 0;  // Of the machine meanwhile
  uint64_t missed = 0;
};
absl::StatusOr<BareRun> RunBareWatcher(ChangeSource& source, uint64_t first_event, double rate,
                                       uint64_t duration_ns);

// How late an idle thread of the same priority is woken by its timer, a few hundred times a second, while
// `work` runs.
Histogram MeasureWake(const std::function<void()>& work);

struct ChangeRun {
  Histogram
      ours;  // By event, from the arrival at weft-control of the change that holds it until it is in force
  Histogram total;  // By event, from written to that
  Histogram wake;   // As MeasureWake(), during the same time
  uint64_t events = 0;
  uint64_t changes = 0;      // Generations that held them
  uint64_t missed = 0;       // Events that no change held within kMissedNs
  double idle_fraction = 0;  // Of the machine meanwhile
};

// weft-control answers at `control_socket`, and is synced. `events_before`: what it has counted at the source
// so far.
absl::StatusOr<ChangeRun> RunChanges(ChangeSource& source, const std::string& control_socket,
                                     uint64_t events_before, uint64_t first_event, double rate,
                                     uint64_t duration_ns);

}  // namespace weft::bench

#endif  // WEFT_BENCH_CONTROL_CHANGE_RUN_H_
