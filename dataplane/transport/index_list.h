// SPDX-License-Identifier: Apache-2.0
// Doubly linked lists through members of objects that lie in a fixed array and are named by index. Inserting
// and removing cost a few stores and allocate nothing; an object is on as many lists as it has hooks. Owner
// worker only.
#ifndef WEFT_DATAPLANE_TRANSPORT_INDEX_LIST_H_
#define WEFT_DATAPLANE_TRANSPORT_INDEX_LIST_H_

#include <array>
#include <bit>
#include <cstdint>

#include "dataplane/base/check.h"

namespace weft::transport {

inline constexpr uint32_t kNone = ~uint32_t{0};

struct ListHook {
  uint32_t next = kNone;
  uint32_t previous = kNone;
  bool linked = false;
};

// A first-in first-out list of objects of `T` through the hook named by `kHook`.
template <typename T, ListHook T::* kHook>
class IndexList {
 public:
  bool empty() const { return head_ == kNone; }
  uint32_t front() const { return head_; }
  uint32_t back() const { return tail_; }
  static uint32_t Next(const T* objects, uint32_t index) { return (objects[index].*kHook).next; }
  static bool Linked(const T& object) { return (object.*kHook).linked; }

  void PushBack(T* objects, uint32_t index) {
    ListHook& hook = objects[index].*kHook;
    WEFT_DCHECK(!hook.linked);
    hook = {kNone, tail_, true};
    if (tail_ == kNone) {
      head_ = index;
    } else {
      (objects[tail_].*kHook).next = index;
    }
    tail_ = index;
  }

  // `index` is on this very list.
  void Remove(T* objects, uint32_t index) {
    ListHook& hook = objects[index].*kHook;
    WEFT_DCHECK(hook.linked);
    (hook.previous == kNone ? head_ : (objects[hook.previous].*kHook).next) = hook.next;
    (hook.next == kNone ? tail_ : (objects[hook.next].*kHook).previous) = hook.previous;
    hook = ListHook{};
  }

 private:
  uint32_t head_ = kNone;
  uint32_t tail_ = kNone;
};

// Sizes in classes, four a power of two, so that neighbours of a class differ by at most a quarter.
inline constexpr uint32_t kSizeClasses = 128;
constexpr uint32_t SizeClassOf(uint32_t bytes) {
  if (bytes < 4) return bytes;
  const uint32_t power = static_cast<uint32_t>(std::bit_width(bytes)) - 1;
  return power * 4 + ((bytes >> (power - 2)) & 3);
}
static_assert(SizeClassOf(~uint32_t{0}) < kSizeClasses);
static_assert(SizeClassOf(4) == 8 && SizeClassOf(5) == 9 && SizeClassOf(8) == 12);

// Objects ordered by a size class, first-in first-out within one: shortest-remaining-first to within a
// quarter, in constant time.
template <typename T, ListHook T::* kHook, uint32_t T::* kClass>
class ClassQueue {
 public:
  void Push(T* objects, uint32_t index, uint32_t bytes) {
    const uint32_t size_class = SizeClassOf(bytes);
    objects[index].*kClass = size_class;
    lists_[size_class].PushBack(objects, index);
    busy_[size_class / 64] |= uint64_t{1} << (size_class % 64);
  }
  void Remove(T* objects, uint32_t index) {
    const uint32_t size_class = objects[index].*kClass;
    lists_[size_class].Remove(objects, index);
    if (lists_[size_class].empty()) busy_[size_class / 64] &= ~(uint64_t{1} << (size_class % 64));
  }
  // The first object of the smallest class, or kNone.
  uint32_t front() const {
    if (busy_[0] != 0) return lists_[static_cast<uint32_t>(std::countr_zero(busy_[0]))].front();
    if (busy_[1] != 0) return lists_[64 + static_cast<uint32_t>(std::countr_zero(busy_[1]))].front();
    return kNone;
  }
  // The object behind `index`: of its class, else the first of the next class that has one; kNone at the end.
  uint32_t Next(const T* objects, uint32_t index) const {
    const uint32_t behind = (objects[index].*kHook).next;
    if (behind != kNone) return behind;
    for (uint32_t c = objects[index].*kClass + 1; c < kSizeClasses; c = (c | 63) + 1) {
      const uint64_t rest = busy_[c / 64] >> (c % 64);
      if (rest != 0) return lists_[c + static_cast<uint32_t>(std::countr_zero(rest))].front();
    }
    return kNone;
  }
  bool empty() const { return (busy_[0] | busy_[1]) == 0; }

 private:
  std::array<IndexList<T, kHook>, kSizeClasses> lists_;
  std::array<uint64_t, kSizeClasses / 64> busy_{};
};

}  // namespace weft::transport

#endif  // WEFT_DATAPLANE_TRANSPORT_INDEX_LIST_H_
