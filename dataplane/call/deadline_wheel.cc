// SPDX-License-Identifier: Apache-2.0
#include "dataplane/call/deadline_wheel.h"

#include <algorithm>
#include <bit>

#include "dataplane/base/check.h"

namespace weft {

void DeadlineWheel::Add(uint32_t index, uint64_t deadline_ns) {
  Node& node = nodes_[index];
  WEFT_CHECK(node.bucket == kNone);
  // One that has passed already goes where the next tick finds it.
  const uint64_t tick = std::max(deadline_ns >> kTickShift, done_tick_);
  const auto bucket = static_cast<uint32_t>(tick % kBuckets);
  node = {.deadline_ns = deadline_ns, .next = heads_[bucket], .previous = kNone, .bucket = bucket};
  if (node.next != kNone) nodes_[node.next].previous = index;
  heads_[bucket] = index;
  occupied_[bucket / 64] |= uint64_t{1} << (bucket % 64);
  ++size_;
}

void DeadlineWheel::Remove(uint32_t index) {
  Node& node = nodes_[index];
  if (node.bucket == kNone) return;
  if (node.previous != kNone) {
    nodes_[node.previous].next = node.next;
  } else {
    heads_[node.bucket] = node.next;
    if (node.next == kNone) occupied_[node.bucket / 64] &= ~(uint64_t{1} << (node.bucket % 64));
  }
  if (node.next != kNone) nodes_[node.next].previous = node.previous;
  node.bucket = kNone;
  --size_;
}

uint64_t DeadlineWheel::NextNs() const {
  if (size_ == 0) return kNever;
  const auto first = static_cast<uint32_t>(done_tick_ % kBuckets);
  for (uint32_t step = 0; step < kBuckets;) {
    const uint32_t bucket = (first + step) % kBuckets;
    const uint64_t bits = occupied_[bucket / 64] >> (bucket % 64);
    if (bits != 0) {
      step += static_cast<uint32_t>(std::countr_zero(bits));
      // Fires once the tick is over.
      return (done_tick_ + step + 1) << kTickShift;
    }
    step += 64 - bucket % 64;
  }
  return kNever;
}

}  // namespace weft
