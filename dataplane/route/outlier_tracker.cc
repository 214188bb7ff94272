// SPDX-License-Identifier: Apache-2.0
#include "dataplane/route/outlier_tracker.h"

#include <algorithm>
#include <utility>

namespace weft {

void OutlierTracker::SetTargets(std::vector<Target> targets) {
  std::vector<Tracked> tracked(targets.size());
  for (std::size_t i = 0; i < targets.size(); ++i) {
    for (const Tracked& old : tracked_) {
      if (old.target.path == targets[i].path) tracked[i] = old;
    }
    tracked[i].target = targets[i];
  }
  tracked_ = std::move(tracked);
  KeepHalf();
}

void OutlierTracker::RemoveLink(uint32_t link) {
  std::erase_if(tracked_, [link](const Tracked& tracked) { return tracked.target.link == link; });
  KeepHalf();
}

void OutlierTracker::KeepHalf() {
  // Where targets have gone, those that are away may now be more than half: the first back are let in.
  while (ejected() * 2 > tracked_.size()) {
    Tracked* first = nullptr;
    for (Tracked& t : tracked_) {
      if (t.state == State::kEjected && (first == nullptr || t.back_ns < first->back_ns)) first = &t;
    }
    first->state = State::kProbed;
  }
}

uint32_t OutlierTracker::ejected() const {
  return static_cast<uint32_t>(std::count_if(tracked_.begin(), tracked_.end(), [](const Tracked& tracked) {
    return tracked.state == State::kEjected;
  }));
}

bool OutlierTracker::OnResult(uint32_t path, bool failed, uint64_t now_ns) {
  for (Tracked& tracked : tracked_) {
    if (tracked.target.path != path) continue;
    if (tracked.state == State::kEjected) return false;  // Of a call from before.
    if (!failed) {
      tracked.failures = 0;
      if (tracked.state != State::kProbed) return false;
      tracked.state = State::kGood;
      tracked.ejections = 0;
      return true;
    }
    ++tracked.failures;
    const bool enough = tracked.state == State::kProbed || tracked.failures >= failures_max_;
    return enough && TryEject(tracked, now_ns);
  }
  return false;
}

bool OutlierTracker::TryEject(Tracked& tracked, uint64_t now_ns) {
  if ((ejected() + 1) * 2 > tracked_.size()) return false;
  tracked.state = State::kEjected;
  tracked.failures = 0;
  tracked.back_ns = now_ns + (eject_ns_ << std::min(tracked.ejections, kDoublingsMax));
  ++tracked.ejections;
  ++ejections_;
  due_ns_ = std::min(due_ns_, tracked.back_ns);
  return true;
}

bool OutlierTracker::Refresh(uint64_t now_ns) {
  if (now_ns < due_ns_) return false;
  bool changed = false;
  due_ns_ = kNever;
  for (Tracked& tracked : tracked_) {
    if (tracked.state != State::kEjected) continue;
    if (tracked.back_ns > now_ns) {
      due_ns_ = std::min(due_ns_, tracked.back_ns);
      continue;
    }
    tracked.state = State::kProbed;
    changed = true;
  }
  return changed;
}

std::vector<Target> OutlierTracker::Present() const {
  // A probe gets its part of the calls, not all of them, also where its target is nearer than those that
  // serve.
  uint16_t near = 0;
  bool any = false;
  for (const Tracked& tracked : tracked_) {
    if (tracked.state != State::kGood) continue;
    near = any ? std::min(near, tracked.target.distance) : tracked.target.distance;
    any = true;
  }
  std::vector<Target> present;
  for (const Tracked& tracked : tracked_) {
    if (tracked.state == State::kEjected) continue;
    present.push_back(tracked.target);
    if (tracked.state != State::kProbed) continue;
    present.back().weight = std::max(1u, tracked.target.weight / kProbeShare);
    present.back().distance = std::max(near, tracked.target.distance);
  }
  return present;
}

}  // namespace weft
