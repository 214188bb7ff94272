// SPDX-License-Identifier: Apache-2.0
// The memory of all messages of a worker: a buddy allocator over one arena that is reserved at start and made
// resident by use. Blocks are contiguous, from 256 B to 32 MiB. Freed blocks are kept apart, as they are, in
// short stacks, so that the small blocks of a steady stream of calls are neither split nor merged each time.
// Owner worker only; allocating and freeing make no system call.
#ifndef WEFT_DATAPLANE_TRANSPORT_BLOCK_POOL_H_
#define WEFT_DATAPLANE_TRANSPORT_BLOCK_POOL_H_

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "dataplane/base/check.h"

namespace weft::transport {

inline constexpr uint32_t kBlockUnitBytes = 256;
// 256 B << 17 = 32 MiB holds the largest message.
inline constexpr uint32_t kBlockOrderMax = 17;

struct Block {
  static constexpr uint32_t kNoUnit = ~uint32_t{0};
  uint32_t unit = kNoUnit;
  uint32_t order = 0;
  bool valid() const { return unit != kNoUnit; }
  std::size_t bytes() const { return valid() ? std::size_t{kBlockUnitBytes} << order : 0; }
};

class BlockPool {
 public:
  // An arena of `bytes`, a power of two of at least 64 KiB. RESOURCE_EXHAUSTED where the kernel refuses the
  // mapping.
  static absl::StatusOr<BlockPool> Create(std::size_t bytes);
  BlockPool(BlockPool&& other) noexcept;
  BlockPool& operator=(BlockPool&&) = delete;
  ~BlockPool();

  // Smallest order whose block holds `bytes`.
  static uint32_t OrderOf(std::size_t bytes) {
    if (bytes <= kBlockUnitBytes) return 0;
    const std::size_t units = (bytes + kBlockUnitBytes - 1) / kBlockUnitBytes;
    return static_cast<uint32_t>(std::bit_width(units - 1));
  }
  // False where no block of that size is free; `*block` is untouched then.
  [[nodiscard]] bool TryAllocate(std::size_t bytes, Block* block) {
    return TryAllocateOrder(OrderOf(bytes), block);
  }
  [[nodiscard]] bool TryAllocateOrder(uint32_t order, Block* block) {
    if (order > top_order_) return false;
    Held& held = held_[order];
    uint32_t unit = held.head;
    if (unit != Block::kNoUnit) [[likely]] {
      held.head = LinksOf(unit)->next;
      --held.count;
    } else if (!TakeFreeOrHeld(order, &unit)) {
      return false;
    }
    *block = {unit, order};
    used_bytes_ += std::size_t{kBlockUnitBytes} << order;
    return true;
  }
  // Takes a valid block back and resets `*block`.
  void Free(Block* block) {
    WEFT_DCHECK(block->valid());
    used_bytes_ -= std::size_t{kBlockUnitBytes} << block->order;
    Held& held = held_[block->order];
    if (held.count < kHeldMax) [[likely]] {
      LinksOf(block->unit)->next = held.head;
      held.head = block->unit;
      ++held.count;
    } else {
      Merge(block->unit, block->order);
    }
    *block = Block{};
  }
  uint8_t* Data(Block block) const { return arena_ + std::size_t{block.unit} * kBlockUnitBytes; }
  std::size_t used_bytes() const { return used_bytes_; }

 private:
  // 64 blocks of each order: enough for a burst; above it they merge at once.
  static constexpr uint32_t kHeldMax = 64;
  // Written into a free block's first bytes.
  struct Links {
    uint32_t next;
    uint32_t previous;
  };
  struct Held {
    uint32_t head = Block::kNoUnit;
    uint32_t count = 0;
  };

  BlockPool(uint8_t* arena, std::size_t bytes);
  Links* LinksOf(uint32_t unit) const {
    return reinterpret_cast<Links*>(arena_ + std::size_t{unit} * kBlockUnitBytes);
  }
  void PushFree(uint32_t unit, uint32_t order);
  void RemoveFree(uint32_t unit, uint32_t order);
  bool TakeFree(uint32_t order, uint32_t* unit);
  bool TakeFreeOrHeld(uint32_t order, uint32_t* unit);
  void Merge(uint32_t unit, uint32_t order);
  void MergeHeld();

  uint8_t* arena_;
  std::size_t arena_bytes_;
  uint32_t top_order_;
  std::size_t used_bytes_ = 0;
  std::array<uint32_t, kBlockOrderMax + 1> free_;
  std::array<Held, kBlockOrderMax + 1> held_;
  std::vector<uint8_t> free_order_;  // Per unit: order + 1 where a free, unheld block begins; else 0.
};

}  // namespace weft::transport

#endif  // WEFT_DATAPLANE_TRANSPORT_BLOCK_POOL_H_
