// SPDX-License-Identifier: Apache-2.0
// The calls that this process has under way: fixed slots, found by request id in one load and one comparison.
// Ids rise by one a call and skip those whose place in the index is taken by a call that lasts. The index
// starts small and doubles in place as more calls are under way, so that a caller of depth 1 walks over half
// a kilobyte. Slots are handed out last in, first out, for the same reason. Owner thread only; nothing
// allocates after construction.
#ifndef WEFT_DATAPLANE_CALL_OUTGOING_TABLE_H_
#define WEFT_DATAPLANE_CALL_OUTGOING_TABLE_H_

#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>
#include <vector>

#include "dataplane/base/attributes.h"
#include "dataplane/base/check.h"

namespace weft {

// `Call` is default-constructible and has members request_id, slot and generation (uint32_t), which the table
// sets. `generation` rises whenever the slot is reused, so that (slot, generation) names a call for good.
template <class Call>
class OutgoingTable {
 public:
  static constexpr uint32_t kNone = ~uint32_t{0};

  explicit OutgoingTable(uint32_t calls_max)
      : slots_(calls_max),
        next_free_(calls_max),
        index_(std::max<uint32_t>(kIndexMin, std::bit_ceil(calls_max) * 2)) {
    for (uint32_t i = 0; i < calls_max; ++i) {
      slots_[i].slot = i;
      next_free_[i] = i + 1 < calls_max ? i + 1 : kNone;
    }
    free_ = calls_max > 0 ? 0 : kNone;
  }

  // A slot with a new request id, its other members as their last user left them; nullptr where calls_max are
  // under way.
  WEFT_HOT Call* Add() {
    if (free_ == kNone) [[unlikely]]
      return nullptr;
    Call& call = slots_[free_];
    free_ = next_free_[call.slot];
    next_free_[call.slot] = kInUse;
    if (++size_ > (mask_ + 1) / 2) [[unlikely]]
      Grow();
    Insert(call);
    return &call;
  }

  // Gives a call under way a new id, for a further try: no receiver takes an id twice.
  void Renew(Call& call) {
    index_[call.request_id & mask_].slot = kNone;
    Insert(call);
  }

  // The call with this id, or nullptr.
  WEFT_HOT Call* Find(uint32_t request_id) {
    const Entry& entry = index_[request_id & mask_];
    return entry.id == request_id && entry.slot != kNone ? &slots_[entry.slot] : nullptr;
  }
  // The call in `slot`, or nullptr where the slot is free.
  Call* At(uint32_t slot) { return next_free_[slot] == kInUse ? &slots_[slot] : nullptr; }
  // The call in `slot` while it is still the one that had `generation`, or nullptr.
  Call* At(uint32_t slot, uint32_t generation) {
    if (slot >= slots_.size() || next_free_[slot] != kInUse) return nullptr;
    return slots_[slot].generation == generation ? &slots_[slot] : nullptr;
  }

  WEFT_HOT void Remove(Call& call) {
    WEFT_DCHECK(next_free_[call.slot] == kInUse);
    index_[call.request_id & mask_].slot = kNone;
    ++call.generation;
    next_free_[call.slot] = free_;
    free_ = call.slot;
    --size_;
  }

  // An id of the same sequence for a message that expects no answer.
  WEFT_HOT uint32_t TakeId() { return next_id_++; }
  // The first of the ids that the next messages would take.
  uint32_t next_id() const { return next_id_; }
  // As many of them.
  WEFT_HOT void TakeIds(uint32_t count) { next_id_ += count; }

  // visit(call) for every call under way; it may remove that call, and add others, which are visited or not.
  template <typename Visit>
  void ForEach(Visit&& visit) {
    for (uint32_t i = 0; i < slots_.size(); ++i) {
      if (next_free_[i] == kInUse) visit(slots_[i]);
    }
  }
  uint32_t size() const { return size_; }
  uint32_t capacity() const { return static_cast<uint32_t>(slots_.size()); }
  // For tests of the wrap of ids.
  void set_next_id(uint32_t id) { next_id_ = id; }

 private:
  static constexpr uint32_t kIndexMin = 64;
  static constexpr uint32_t kInUse = kNone - 1;
  struct Entry {
    uint32_t id = 0;
    uint32_t slot = kNone;
  };

  void Insert(Call& call) {
    // At most half of the index is taken, so this ends, after two looks in the mean.
    while (index_[next_id_ & mask_].slot != kNone) ++next_id_;
    call.request_id = next_id_++;
    index_[call.request_id & mask_] = {call.request_id, call.slot};
  }
  // Doubles the part of the index in use: an entry stays, or moves into the new half, which is empty.
  void Grow() {
    const uint32_t old_size = mask_ + 1;
    if (old_size >= index_.size()) return;
    for (uint32_t i = 0; i < old_size; ++i) {
      if (index_[i].slot == kNone || (index_[i].id & old_size) == 0) continue;
      index_[i + old_size] = std::exchange(index_[i], Entry{});
    }
    mask_ = 2 * old_size - 1;
  }

  std::vector<Call> slots_;
  std::vector<uint32_t> next_free_;
  std::vector<Entry> index_;
  uint32_t mask_ = kIndexMin - 1;
  uint32_t free_ = kNone;
  uint32_t next_id_ = 1;
  uint32_t size_ = 0;
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_CALL_OUTGOING_TABLE_H_
