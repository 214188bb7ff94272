// SPDX-License-Identifier: Apache-2.0
// How long edits take from event to programmed: a histogram of all, and the last few by name, for `weftctl
// status`, the demo and the benchmarks. One thread.
#ifndef WEFT_CONTROL_DAEMON_RECORD_H_
#define WEFT_CONTROL_DAEMON_RECORD_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "dataplane/base/histogram.h"

namespace weft::control {

// One change of the mesh.
struct Change {
  uint64_t revision = 0;
  uint64_t generation = 0;     // 0: not sent yet
  std::string cause;           // Base name of the file
  uint64_t event_ns = 0;       // CLOCK_MONOTONIC; 0: no event (start, reconnect)
  uint64_t programmed_ns = 0;  // 0: not yet
  std::vector<std::string> cut_off;
  std::vector<std::string> failed;

  bool timed() const { return event_ns != 0 && programmed_ns >= event_ns; }
};

class Record {
 public:
  // Changes that are remembered one by one: some seconds of a busy mesh, about 200 B each.
  static constexpr std::size_t kChangesMax = 4096;

  void Add(uint64_t revision, std::string cause, uint64_t event_ns);
  void SetGeneration(uint64_t revision, uint64_t generation);
  // The time of an event counts once for each change that this acknowledgement brought into force. Returns
  // the newest of them; null where none was waiting.
  // It was in force at `at_ns`, and is known to be at `now_ns`: which is the time of an event that is younger
  // than what brings it into force, one that was taken back.
  const Change* SetProgrammed(uint64_t revision, uint64_t at_ns, uint64_t now_ns,
                              std::vector<std::string> cut_off, std::vector<std::string> failed);

  const std::deque<Change>& changes() const { return changes_; }  // Oldest first
  const Histogram& times() const { return times_; }

 private:
  std::deque<Change> changes_;
  Histogram times_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_DAEMON_RECORD_H_
