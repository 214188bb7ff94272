// SPDX-License-Identifier: Apache-2.0
#include "dataplane/route/target_set.h"

#include <algorithm>
#include <utility>

namespace weft {

TargetSet::TargetSet(std::vector<Target> targets) : targets_(std::move(targets)) {
  for (Target& target : targets_) target.weight = std::clamp(target.weight, 1u, kWeightMax);
  BuildSlots();
}

void TargetSet::RemoveLink(uint32_t link) {
  std::erase_if(targets_, [link](const Target& target) { return target.link == link; });
  BuildSlots();
}

void TargetSet::BuildSlots() {
  // By insertion, stable: sets are small, and Clang refuses a helper that std::stable_sort uses as
  // deprecated.
  const auto nearer = [](const Target& a, const Target& b) { return a.distance < b.distance; };
  for (auto at = targets_.begin(); at != targets_.end(); ++at)
    std::rotate(std::upper_bound(targets_.begin(), at, *at, nearer), at, at + 1);
  std::size_t count = 0;
  uint64_t total = 0;
  while (count < targets_.size() && targets_[count].distance == targets_.front().distance) {
    total += targets_[count++].weight;
  }
  slots_.assign(count, Slot{});
  // Each slot holds `total` of probability; target i brings weight × count. The poor are filled up by the
  // rich.
  std::vector<uint64_t> rest(count);
  std::vector<uint32_t> poor;
  std::vector<uint32_t> rich;
  for (uint32_t i = 0; i < count; ++i) {
    rest[i] = uint64_t{targets_[i].weight} * count;
    (rest[i] < total ? poor : rich).push_back(i);
  }
  while (!poor.empty() && !rich.empty()) {
    const uint32_t small = poor.back();
    poor.pop_back();
    const uint32_t large = rich.back();
    slots_[small].keep_below = static_cast<uint32_t>((rest[small] << 32) / total);
    slots_[small].alias = large;
    rest[large] -= total - rest[small];
    if (rest[large] < total) {
      rich.pop_back();
      poor.push_back(large);
    }
  }
}

const Target* TargetSet::AnyBut(uint32_t avoid, Random& random) const {
  std::size_t end = 0;
  for (std::size_t begin = 0; begin < targets_.size(); begin = end) {
    while (end < targets_.size() && targets_[end].distance == targets_[begin].distance) ++end;
    const std::size_t start = random.Below(end - begin);
    for (std::size_t i = 0; i < end - begin; ++i) {
      const Target& target = targets_[begin + (start + i) % (end - begin)];
      if (target.path != avoid) return &target;
    }
  }
  return &targets_.front();
}

}  // namespace weft
