// SPDX-License-Identifier: Apache-2.0
// Deadlines of calls that nobody waits for in person: a hashed timing wheel (Varghese, Lauck 1987) over
// indices of somebody else's table. Adding and removing is O(1) and allocates nothing; a deadline fires at
// most one tick (1.05 ms) late. Owner thread only; time comes in.
#ifndef WEFT_DATAPLANE_CALL_DEADLINE_WHEEL_H_
#define WEFT_DATAPLANE_CALL_DEADLINE_WHEEL_H_

#include <array>
#include <cstdint>
#include <vector>

namespace weft {

class DeadlineWheel {
 public:
  static constexpr uint64_t kNever = ~uint64_t{0};
  // 2^20 ns. Finer ticks would not be seen: a sleeping thread wakes by whole milliseconds.
  static constexpr int kTickShift = 20;
  // A turn of 4,096 ticks is 4.3 s: most deadlines are nearer, and one farther away costs a look a turn.
  static constexpr uint32_t kBuckets = 4096;

  // For indices below `capacity`. Allocates.
  explicit DeadlineWheel(uint32_t capacity) : nodes_(capacity) { heads_.fill(kNone); }

  // `index` must not be in the wheel.
  void Add(uint32_t index, uint64_t deadline_ns);
  // No-op where `index` is not in the wheel.
  void Remove(uint32_t index);
  bool Contains(uint32_t index) const { return nodes_[index].bucket != kNone; }
  uint32_t size() const { return size_; }

  // Takes out every index whose deadline is a whole tick before `now_ns` or earlier, calling fire(index) once
  // it is out; fire may add and remove others.
  template <typename Fire>
  void Advance(uint64_t now_ns, Fire&& fire) {
    const uint64_t now_tick = now_ns >> kTickShift;
    if (size_ == 0 || now_tick <= done_tick_) {
      if (now_tick > done_tick_) done_tick_ = now_tick;
      return;
    }
    // After a turn every bucket has been seen.
    uint64_t tick = now_tick - done_tick_ > kBuckets ? now_tick - kBuckets : done_tick_;
    for (; tick < now_tick; ++tick) FireBucket(static_cast<uint32_t>(tick % kBuckets), now_tick, fire);
    done_tick_ = now_tick;
  }

  // A time by which Advance should be called next: no later than the tick after the first deadline, and
  // earlier where a far one shares a bucket with it. kNever of an empty wheel.
  uint64_t NextNs() const;

 private:
  static constexpr uint32_t kNone = ~uint32_t{0};
  struct Node {
    uint64_t deadline_ns = 0;
    uint32_t next = kNone;
    uint32_t previous = kNone;
    uint32_t bucket = kNone;
  };

  template <typename Fire>
  void FireBucket(uint32_t bucket, uint64_t now_tick, Fire& fire) {
    uint32_t index = heads_[bucket];
    while (index != kNone) {
      if (nodes_[index].deadline_ns >> kTickShift >= now_tick) {  // Of a later turn
        index = nodes_[index].next;
        continue;
      }
      Remove(index);
      fire(index);
      index = heads_[bucket];  // `fire` may have changed the list; what stays in it is looked at again.
    }
  }

  std::vector<Node> nodes_;
  std::array<uint32_t, kBuckets> heads_;
  std::array<uint64_t, kBuckets / 64> occupied_{};  // One bit a bucket
  uint64_t done_tick_ = 0;                          // Ticks below this one have fired.
  uint32_t size_ = 0;
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_CALL_DEADLINE_WHEEL_H_
