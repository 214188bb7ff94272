// SPDX-License-Identifier: Apache-2.0
// The one shared-memory contract of a channel. Each of the two processes makes one side memory, which it
// alone writes: as producer its tail, cells and arena; as consumer its head and wait flags. The peer maps it
// read-only.
//
// clang-format off
//   0x0000  tail line  owner's producer: cells published so far          the peer reads it before it sleeps
//   0x0080  head line  owner's consumer: cells of the peer read so far   the peer reads it when its ring looks full
//   0x0100  wait line  owner's poller: asleep, wants space               the peer reads it at every publication
//   0x0200  cells      kCells of 128 bytes
//   0x5000  arena      a power of two of bytes; payloads above kInlineBytesMax, and blocks of smaller ones
// clang-format on
//
// Lines of different readers stand 128 bytes apart, since some processors fetch lines in pairs.
#ifndef WEFT_DATAPLANE_CHANNEL_LAYOUT_H_
#define WEFT_DATAPLANE_CHANNEL_LAYOUT_H_

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "dataplane/base/attributes.h"
#include "dataplane/channel/message.h"

namespace weft {

// Both directions of 128 cells are as large as a first-level cache. Of a bare ring the round trip of one
// message takes 1.22 times the flag's with 256 cells, 1.14 with 128 or 64, 1.16 with 32, 1.23 with 16.
// Messages of a burst share a cell, so a burst needs no more.
inline constexpr uint32_t kCells = 128;
inline constexpr uint32_t kCellMask = kCells - 1;
inline constexpr std::size_t kCellBytes = 128;
// 128 B cell - 4 B lap - 4 B length - 24 B header.
inline constexpr uint32_t kInlineBytesMax = 96;
// The consumer publishes its head every quarter ring: 32 cells a line transfer, and 96 cells in use at
// least.
inline constexpr uint32_t kHeadStepCells = kCells / 4;
// Cells that requests leave to replies.
inline constexpr uint32_t kReplyCells = kCells / 4;

// Payloads above kInlineBytesMax travel in chunks of at most this size, each published by itself, so that
// the copies of both ends overlap.
inline constexpr uint32_t kChunkBytesMax = 64 * 1024;
inline constexpr uint32_t kArenaBytesMin = 4 * 1024;
// As much as a core's own cache holds: what is written again has by then left the reader's cache, and a line
// that has to be taken from there costs 6 ns instead of 2 (1 MiB goes in 31 us through 1 MiB, in 64 through
// 512 KiB, in 104 through 256 KiB).
inline constexpr uint32_t kArenaBytesDefault = 1024 * 1024;
inline constexpr uint32_t kArenaBytesMax = 64 * 1024 * 1024;
inline constexpr uint32_t kMessageBytesMaxDefault = 16 * 1024 * 1024;
inline constexpr uint32_t kMessageBytesMaxLimit = 1u << 30;
// Messages in parts that one direction may have under way; requests leave the last two to replies.
inline constexpr uint32_t kPartialsMax = 8;
inline constexpr uint32_t kReplyPartials = 2;

// In Cell::length: the cell names a chunk in the arena; the other bits are the chunk's bytes.
inline constexpr uint32_t kChunkBit = 1u << 31;

// In Cell::length: the cell names a run: a block of the arena that holds nothing but the payloads of one-way
// messages to one target (MessageRun); the low bits are the block's bytes. The cell's descriptor holds their
// number in `position`, and behind it stand their lengths, a byte each. 64 B cost one line and a thirtieth.
inline constexpr uint32_t kRunBit = 1u << 29;
// 63 messages of 64 B; with the record and the lengths that a receiver keeps beside it, a page.
inline constexpr uint32_t kRunBytesMax = 4032;
inline constexpr uint32_t kRunMessagesMax = 64;
// Fewer than this go by cells of their own.
inline constexpr uint32_t kRunMessagesMin = 3;

// In Cell::length: the cell names a block of the arena that holds many small messages, one record behind the
// other; the low bits are the block's bytes. A message alone in a cell costs two lines, in a block 1.2
// to 1.7.
inline constexpr uint32_t kBatchBit = 1u << 30;
// What one block may take: 53 records of 64 B to one target.
inline constexpr uint32_t kBatchBytesMax = 4 * 1024;
// The third message of a publication opens a block: up to two, a cell each moves fewer lines.
inline constexpr uint32_t kBatchAfter = 2;

// A message in a block: this, then where the bits of `kind` say so 8 bytes of function id and 8 of deadline,
// which otherwise are those of the record before, then the payload, then up to 3 bytes that bring the next
// record to a multiple of 4.
struct BatchRecord {
  uint32_t request_id;
  uint16_t caller_index;
  uint8_t kind;  // MessageKind, with kRecordHas... bits.
  uint8_t flags;
  uint32_t length;
};
static_assert(sizeof(BatchRecord) == 12);
inline constexpr uint8_t kRecordHasFunction = 0x80;
inline constexpr uint8_t kRecordHasDeadline = 0x40;
inline constexpr uint32_t kRecordAlign = 4;
inline constexpr uint32_t kRecordBytesMax = sizeof(BatchRecord) + 8 + 8 + kInlineBytesMax;

// Wait flags. The upper 56 bits count episodes of sleep, so that a producer rings once for each; the bits
// between must be zero.
inline constexpr uint64_t kFlagAsleep = 1u << 0;      // Ring when you publish cells.
inline constexpr uint64_t kFlagWantsSpace = 1u << 1;  // Ring when you publish your head.
inline constexpr uint64_t kFlagReserved = 0xfcu;
inline constexpr uint64_t kFlagBits = 0xffu;
inline constexpr int kFlagEpisodeShift = 8;

struct alignas(kCacheLineBytes) Cell {
  // Position of the message + 1, in the number's ring of 2^32, written last. One lap before, and in fresh
  // memory, it is that less kCells.
  std::atomic<uint32_t> lap;
  uint32_t length;
  MessageHeader header;
  std::byte payload[kInlineBytesMax];  // A ChunkDescriptor where kChunkBit, kBatchBit or kRunBit is set.
};
static_assert(sizeof(Cell) == kCellBytes && offsetof(Cell, header) == 8 && offsetof(Cell, payload) == 32);

// Bytes of an inline payload that stand in the cell's first line.
inline constexpr uint32_t kFirstLineBytes = kCacheLineBytes - offsetof(Cell, payload);

struct ChunkDescriptor {
  uint32_t offset;    // Of the chunk in the arena; it never wraps around the arena's end.
  uint32_t total;     // Bytes of the whole message.
  uint32_t position;  // Bytes of the message that earlier chunks carried.
  uint32_t slot;      // Which of the messages in parts; free again after the last chunk.
};
static_assert(sizeof(ChunkDescriptor) == 16);
static_assert(32 + sizeof(ChunkDescriptor) <= kCacheLineBytes, "A chunk's cell costs one line.");
static_assert(sizeof(ChunkDescriptor) + kRunMessagesMax <= kInlineBytesMax, "A run's lengths fit its cell.");
static_assert(kRunMessagesMax * kInlineBytesMax < kRunBit && kInlineBytesMax < 256);

// The owner's lines, each 128 bytes from the next.
struct SideLines {
  alignas(2 * kCacheLineBytes) std::atomic<uint32_t> tail;
  alignas(2 * kCacheLineBytes) std::atomic<uint32_t> head;
  alignas(2 * kCacheLineBytes) std::atomic<uint64_t> flags;
};

inline constexpr std::size_t kCellsOffset = 0x200;
inline constexpr std::size_t kArenaOffset = 0x5000;
static_assert(sizeof(SideLines) <= kCellsOffset && kCellsOffset + kCells * kCellBytes <= kArenaOffset);
static_assert(std::atomic<uint32_t>::is_always_lock_free && std::atomic<uint64_t>::is_always_lock_free);

inline constexpr bool ValidArenaBytes(uint64_t arena_bytes) {
  return std::has_single_bit(arena_bytes) && arena_bytes >= kArenaBytesMin && arena_bytes <= kArenaBytesMax;
}
inline constexpr std::size_t SideMemoryBytes(uint32_t arena_bytes) { return kArenaOffset + arena_bytes; }

// Where the parts of a side memory lie in this process. The owner's view is writable, the peer's is not.
struct OwnSide {
  explicit OwnSide(std::byte* base)
      : lines(reinterpret_cast<SideLines*>(base)),
        cells(reinterpret_cast<Cell*>(base + kCellsOffset)),
        arena(base + kArenaOffset) {}
  SideLines* lines;
  Cell* cells;
  std::byte* arena;
};
struct PeerSide {
  explicit PeerSide(const std::byte* base)
      : lines(reinterpret_cast<const SideLines*>(base)),
        cells(reinterpret_cast<const Cell*>(base + kCellsOffset)),
        arena(base + kArenaOffset) {}
  const SideLines* lines;
  const Cell* cells;
  const std::byte* arena;
};

// Gives fresh, zeroed memory the laps of a ring before its first lap.
inline void InitialiseSide(const OwnSide& side) {
  for (uint32_t i = 0; i < kCells; ++i) {
    // Relaxed: the peer learns of this memory only through the descriptor passed later.
    side.cells[i].lap.store(i + 1 - kCells, std::memory_order_relaxed);
  }
}

}  // namespace weft

#endif  // WEFT_DATAPLANE_CHANNEL_LAYOUT_H_
