// SPDX-License-Identifier: Apache-2.0
// Takes targets that keep failing out of a set and lets them back by a probe. A target is ejected after some
// failures in a row, for a time that doubles with each ejection; then it gets a tenth of its weight among the
// nearest good ones, and the first call that ends there decides. Never more than half of the targets are
// away. Pure: results and time come in, the targets to choose among go out. Owner thread only.
#ifndef WEFT_DATAPLANE_ROUTE_OUTLIER_TRACKER_H_
#define WEFT_DATAPLANE_ROUTE_OUTLIER_TRACKER_H_

#include <cstdint>
#include <vector>

#include "dataplane/route/target_set.h"

namespace weft {

class OutlierTracker {
 public:
  static constexpr uint64_t kNever = ~uint64_t{0};

  // `failures` in a row eject for `eject_ns` at first.
  OutlierTracker(uint32_t failures, uint64_t eject_ns) : failures_max_(failures), eject_ns_(eject_ns) {}

  // What is known of paths that stay is kept. Allocates.
  void SetTargets(std::vector<Target> targets);
  void RemoveLink(uint32_t link);
  // A call on `path` has ended. True: Present() has changed.
  bool OnResult(uint32_t path, bool failed, uint64_t now_ns);
  // Lets those back on probation whose time is over. True: Present() has changed.
  bool Refresh(uint64_t now_ns);
  // When Refresh has something to do; kNever: not.
  uint64_t due_ns() const { return due_ns_; }
  // The targets that calls may go to. Allocates.
  std::vector<Target> Present() const;
  uint32_t ejected() const;
  // How often a target was ejected so far.
  uint64_t ejections() const { return ejections_; }
  // visit(const Target&) for all, also those that are away.
  template <typename Visit>
  void ForEach(Visit&& visit) const {
    for (const Tracked& tracked : tracked_) visit(tracked.target);
  }

 private:
  enum class State : uint8_t { kGood, kEjected, kProbed };
  struct Tracked {
    Target target;
    State state = State::kGood;
    uint32_t failures = 0;   // In a row.
    uint32_t ejections = 0;  // Since it was last good.
    uint64_t back_ns = 0;    // kEjected
  };
  static constexpr uint32_t kProbeShare = 10;
  static constexpr uint32_t kDoublingsMax = 5;

  void KeepHalf();
  bool TryEject(Tracked& tracked, uint64_t now_ns);

  uint32_t failures_max_;
  uint64_t eject_ns_;
  uint64_t due_ns_ = kNever;
  uint64_t ejections_ = 0;
  std::vector<Tracked> tracked_;
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_ROUTE_OUTLIER_TRACKER_H_
