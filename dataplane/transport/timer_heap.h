// SPDX-License-Identifier: Apache-2.0
// The next time at which each peer needs attention: a binary heap that knows where each member lies. A member
// whose time moves later stays where it is and is looked at early, which is cheaper than moving it for each
// packet. Owner worker only.
#ifndef WEFT_DATAPLANE_TRANSPORT_TIMER_HEAP_H_
#define WEFT_DATAPLANE_TRANSPORT_TIMER_HEAP_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "dataplane/transport/index_list.h"

namespace weft::transport {

class TimerHeap {
 public:
  explicit TimerHeap(uint32_t members_max) : position_(members_max, kNone) { heap_.reserve(members_max); }

  // ~0 where nothing is armed.
  uint64_t NextNs() const { return heap_.empty() ? ~uint64_t{0} : heap_[0].due_ns; }
  uint32_t Front() const { return heap_[0].member; }

  // Wakes `member` at `due_ns` or before. Does nothing where it is armed for then or before.
  void ArmAtLatest(uint32_t member, uint64_t due_ns) {
    uint32_t at = position_[member];
    if (at == kNone) {
      if (due_ns == ~uint64_t{0}) return;
      at = static_cast<uint32_t>(heap_.size());
      heap_.push_back({due_ns, member});
      position_[member] = at;
    } else {
      if (heap_[at].due_ns <= due_ns) return;
      heap_[at].due_ns = due_ns;
    }
    while (at > 0 && heap_[(at - 1) / 2].due_ns > heap_[at].due_ns) {
      Swap(at, (at - 1) / 2);
      at = (at - 1) / 2;
    }
  }

  // Takes the front member out; it is armed again as needed.
  void PopFront() {
    position_[heap_[0].member] = kNone;
    const Entry last = heap_.back();
    heap_.pop_back();
    if (heap_.empty()) return;
    heap_[0] = last;
    position_[last.member] = 0;
    uint32_t at = 0;
    while (true) {
      uint32_t least = at;
      for (uint32_t child = 2 * at + 1; child <= 2 * at + 2 && child < heap_.size(); ++child) {
        if (heap_[child].due_ns < heap_[least].due_ns) least = child;
      }
      if (least == at) return;
      Swap(at, least);
      at = least;
    }
  }

 private:
  struct Entry {
    uint64_t due_ns;
    uint32_t member;
  };
  void Swap(uint32_t a, uint32_t b) {
    std::swap(heap_[a], heap_[b]);
    position_[heap_[a].member] = a;
    position_[heap_[b].member] = b;
  }

  std::vector<Entry> heap_;
  std::vector<uint32_t> position_;
};

}  // namespace weft::transport

#endif  // WEFT_DATAPLANE_TRANSPORT_TIMER_HEAP_H_
