// SPDX-License-Identifier: Apache-2.0
#include "dataplane/transport/block_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

#include "dataplane/base/attributes.h"
#include "dataplane/base/check.h"

namespace weft::transport {

absl::StatusOr<BlockPool> BlockPool::Create(std::size_t bytes) {
  if (!std::has_single_bit(bytes) || bytes < 64 * 1024) {
    return absl::InvalidArgumentError("message memory must be a power of two of at least 64 KiB");
  }
  void* const arena =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (arena == MAP_FAILED) return absl::ErrnoToStatus(errno, "map the memory of messages");
  return BlockPool(static_cast<uint8_t*>(arena), bytes);
}

BlockPool::BlockPool(uint8_t* arena, std::size_t bytes)
    : arena_(arena), arena_bytes_(bytes), free_order_(bytes / kBlockUnitBytes) {
  free_.fill(Block::kNoUnit);
  const auto units = static_cast<uint32_t>(bytes / kBlockUnitBytes);
  top_order_ = std::min<uint32_t>(kBlockOrderMax, static_cast<uint32_t>(std::bit_width(units)) - 1);
  for (uint32_t unit = units; unit > 0; unit -= 1u << top_order_)
    PushFree(unit - (1u << top_order_), top_order_);
}

BlockPool::BlockPool(BlockPool&& other) noexcept
    : arena_(std::exchange(other.arena_, nullptr)),
      arena_bytes_(other.arena_bytes_),
      top_order_(other.top_order_),
      used_bytes_(other.used_bytes_),
      free_(other.free_),
      held_(other.held_),
      free_order_(std::move(other.free_order_)) {}

BlockPool::~BlockPool() {
  if (arena_ != nullptr) munmap(arena_, arena_bytes_);
}

void BlockPool::PushFree(uint32_t unit, uint32_t order) {
  *LinksOf(unit) = {free_[order], Block::kNoUnit};
  if (free_[order] != Block::kNoUnit) LinksOf(free_[order])->previous = unit;
  free_[order] = unit;
  free_order_[unit] = static_cast<uint8_t>(order + 1);
}

void BlockPool::RemoveFree(uint32_t unit, uint32_t order) {
  const Links links = *LinksOf(unit);
  (links.previous == Block::kNoUnit ? free_[order] : LinksOf(links.previous)->next) = links.next;
  if (links.next != Block::kNoUnit) LinksOf(links.next)->previous = links.previous;
  free_order_[unit] = 0;
}

bool BlockPool::TakeFree(uint32_t order, uint32_t* unit) {
  uint32_t from = order;
  while (from <= top_order_ && free_[from] == Block::kNoUnit) ++from;
  if (from > top_order_) return false;
  *unit = free_[from];
  RemoveFree(*unit, from);
  // Give the upper half back until the rest is as small as wanted: at most kBlockOrderMax steps.
  while (from > order) {
    --from;
    PushFree(*unit + (1u << from), from);
  }
  return true;
}

void BlockPool::Merge(uint32_t unit, uint32_t order) {
  while (order < top_order_) {
    const uint32_t buddy = unit ^ (1u << order);
    if (free_order_[buddy] != order + 1) break;
    RemoveFree(buddy, order);
    unit = std::min(unit, buddy);
    ++order;
  }
  PushFree(unit, order);
}

void BlockPool::MergeHeld() {
  for (uint32_t order = 0; order <= top_order_; ++order) {
    for (Held& held = held_[order]; held.head != Block::kNoUnit;) {
      const uint32_t unit = held.head;
      held.head = LinksOf(unit)->next;
      Merge(unit, order);
    }
    held_[order].count = 0;
  }
}

// Small blocks that are held are merged only where nothing else is left.
bool BlockPool::TakeFreeOrHeld(uint32_t order, uint32_t* unit) {
  if (TakeFree(order, unit)) return true;
  MergeHeld();
  return TakeFree(order, unit);
}

}  // namespace weft::transport
