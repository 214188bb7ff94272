// SPDX-License-Identifier: Apache-2.0
// How a producer puts messages into its arena: runs and blocks of small ones, whole ones, and streams.
// Included by producer.h only.
#ifndef WEFT_DATAPLANE_CHANNEL_PRODUCER_ARENA_H_
#define WEFT_DATAPLANE_CHANNEL_PRODUCER_ARENA_H_

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>

#include "dataplane/channel/producer.h"

namespace weft {

template <class Access>
bool BasicProducer<Access>::OpenBatch(Lane lane) {
  CloseBatch();
  const uint32_t left = arena_bytes_ - (arena_tail_ & (arena_bytes_ - 1));
  const uint32_t skipped = left < 2 * kRecordBytesMax ? left : 0;
  const uint32_t bytes = std::min({kBatchBytesMax, whole_bytes_max(), skipped == 0 ? left : arena_bytes_});
  if (!HasCell(lane) || !HasArena(skipped + bytes, lane)) return false;
  arena_tail_ += skipped;
  batch_at_ = own_.arena + (arena_tail_ & (arena_bytes_ - 1));
  batch_room_ = batch_at_ + bytes;
  batch_lane_ = lane;
  batch_fresh_ = true;
  return true;
}

template <class Access>
WEFT_HOT_INLINE void BasicProducer<Access>::AppendRecord(MessageHeader header, const Payload& payload,
                                                         uint32_t bytes) {
  std::byte* const record = batch_at_;
  std::byte* at = record + sizeof(BatchRecord);
  uint32_t kind = static_cast<uint32_t>(header.kind);
  if (header.function_id != batch_function_ || batch_fresh_) {
    kind |= kRecordHasFunction;
    batch_function_ = header.function_id;
    std::memcpy(at, &header.function_id, 8);
    at += 8;
  }
  if (header.deadline_ns != batch_deadline_ns_ || batch_fresh_) {
    kind |= kRecordHasDeadline;
    batch_deadline_ns_ = header.deadline_ns;
    std::memcpy(at, &header.deadline_ns, 8);
    at += 8;
  }
  batch_fresh_ = false;
  // In three words made in registers: a struct put together in memory would have to be stored before it is
  // copied.
  static_assert(offsetof(BatchRecord, kind) == 6 && offsetof(BatchRecord, flags) == 7);
  const uint32_t rest = header.caller_index | kind << 16 | static_cast<uint32_t>(header.flags) << 24;
  std::memcpy(record, &header.request_id, 4);
  std::memcpy(record + 4, &rest, 4);
  std::memcpy(record + 8, &bytes, 4);
  CopyInline(at, payload);
  batch_at_ = at + ((bytes + kRecordAlign - 1) & ~(kRecordAlign - 1));
}

template <class Access>
void BasicProducer<Access>::CloseBatch() {
  if (batch_at_ == nullptr) return;
  const std::byte* begin = own_.arena + (arena_tail_ & (arena_bytes_ - 1));
  const uint32_t bytes = static_cast<uint32_t>(batch_at_ - begin);
  batch_at_ = batch_room_ = nullptr;
  if (bytes == 0) return;
  const ChunkDescriptor descriptor{arena_tail_ & (arena_bytes_ - 1), bytes, 0, 0};
  arena_tail_ += (bytes + kArenaAlign - 1) & ~(kArenaAlign - 1);
  Cell& cell = own_.cells[tail_ & kCellMask];
  std::memcpy(cell.payload, &descriptor, sizeof(descriptor));
  cell.length = kBatchBit | bytes;
  cell.header = MessageHeader{};
  EndCell();
}

template <class Access>
uint32_t BasicProducer<Access>::TrySendRun(const MessageHeader& first,
                                           std::span<const std::span<const std::byte>> messages, Lane lane) {
  CloseBatch();
  const uint32_t left = arena_bytes_ - (arena_tail_ & (arena_bytes_ - 1));
  const uint32_t skipped = left < 8 * kInlineBytesMax ? left : 0;
  const uint32_t room = std::min({kRunBytesMax, whole_bytes_max(), skipped == 0 ? left : arena_bytes_});
  if (!HasCell(lane) || !HasArena(skipped + room, lane)) return 0;
  const uint32_t offset = (arena_tail_ + skipped) & (arena_bytes_ - 1);
  Cell& cell = own_.cells[tail_ & kCellMask];
  // Into the cell at the end, so that the stores of the payloads follow each other.
  std::array<uint8_t, kRunMessagesMax> lengths;
  const std::byte* const block = own_.arena + offset;
  std::byte* at = own_.arena + offset;
  const std::size_t count_max = std::min<std::size_t>(messages.size(), kRunMessagesMax);
  uint32_t count = 0;
  for (; count < count_max; ++count) {
    const std::span<const std::byte> message = messages[count];
    if (message.size() > kInlineBytesMax) break;
    const uint32_t stride = RunStride(static_cast<uint32_t>(message.size()));
    if (static_cast<uint32_t>(at - block) + stride > room) break;
    CopySmallRising(at, message.data(), message.size());
    lengths[count] = static_cast<uint8_t>(message.size());
    at += stride;
  }
  WEFT_DCHECK(count != 0);
  const auto bytes = static_cast<uint32_t>(at - block);
  const ChunkDescriptor descriptor{offset, bytes, count, 0};
  std::memcpy(cell.payload + sizeof(descriptor), lengths.data(), count);
  std::memcpy(cell.payload, &descriptor, sizeof(descriptor));
  cell.length = kRunBit | bytes;
  cell.header = first;
  arena_tail_ += skipped + ((bytes + kArenaAlign - 1) & ~(kArenaAlign - 1));
  EndCell();
  return count;
}

template <class Access>
void BasicProducer<Access>::CopyPart(std::byte* to, const Payload& payload, std::size_t position,
                                     std::size_t bytes) {
  if (position < payload.prefix.size()) {
    const std::size_t part = std::min(bytes, payload.prefix.size() - position);
    std::memcpy(to, payload.prefix.data() + position, part);
    to += part;
    position += part;
    bytes -= part;
  }
  if (bytes != 0) bulk_.Copy(to, payload.body.data() + (position - payload.prefix.size()), bytes);
}

template <class Access>
void BasicProducer<Access>::PutChunk(const MessageHeader& header, const Payload& payload,
                                     ChunkDescriptor descriptor, uint32_t bytes) {
  descriptor.offset = arena_tail_ & (arena_bytes_ - 1);
  descriptor.total = static_cast<uint32_t>(payload.bytes());
  CopyPart(own_.arena + descriptor.offset, payload, descriptor.position, bytes);
  if (bytes <= kDemotedBytesMax && bytes == descriptor.total && tail_ == published_) {
    for (uint32_t at = 0; at < bytes; at += kCacheLineBytes) DemoteLine(own_.arena + descriptor.offset + at);
  }
  arena_tail_ += (bytes + kArenaAlign - 1) & ~(kArenaAlign - 1);
  Cell& cell = own_.cells[tail_ & kCellMask];
  std::memcpy(cell.payload, &descriptor, sizeof(descriptor));
  cell.length = kChunkBit | bytes;
  cell.header = header;
  EndCell();
}

template <class Access>
bool BasicProducer<Access>::TrySendInArena(MessageHeader header, const Payload& payload, Lane lane) {
  CloseBatch();
  const std::size_t length = payload.bytes();
  if (length > whole_bytes_max() || length > message_bytes_max_) return false;
  const uint32_t bytes = static_cast<uint32_t>(length);
  // A message in one chunk skips the end of the arena rather than wrap. What it skips is shorter than itself,
  // so both stay below the half that is free once the peer has read everything (three quarters for requests,
  // less the quarter that the consumer may not have reported).
  const uint32_t left = arena_bytes_ - (arena_tail_ & (arena_bytes_ - 1));
  const uint32_t skipped = bytes <= left ? 0 : left;
  if (!HasCell(lane) || !HasArena(skipped + bytes, lane)) return false;
  arena_tail_ += skipped;
  PutChunk(header, payload, ChunkDescriptor{}, bytes);
  return true;
}

template <class Access>
bool BasicProducer<Access>::TryStart(SendStream& stream, const MessageHeader& header, const Payload& payload,
                                     Lane lane, uint64_t now_ns) {
  WEFT_DCHECK(payload.bytes() > 0 && payload.bytes() <= message_bytes_max_);
  FlushAborts();
  const uint32_t slots = lane == Lane::kRequest ? kPartialsMax - kReplyPartials : kPartialsMax;
  for (uint32_t slot = 0; slot < slots; ++slot) {
    if ((slots_used_ >> slot & 1) != 0) continue;
    slots_used_ |= 1u << slot;
    stream = SendStream{header, payload, lane, 0, slot, now_ns};
    return true;
  }
  return false;
}

template <class Access>
bool BasicProducer<Access>::PushChunk(SendStream& stream) {
  if (aborts_due_ != 0) FlushAborts();
  const uint32_t left = static_cast<uint32_t>(stream.payload.bytes()) - stream.position;
  if (left == 0) return false;
  CloseBatch();
  const uint32_t contiguous = arena_bytes_ - (arena_tail_ & (arena_bytes_ - 1));
  const uint32_t bytes = std::min({left, whole_bytes_max(), contiguous});
  if (!HasCell(stream.lane) || !HasArena(bytes, stream.lane)) return false;
  PutChunk(stream.header, stream.payload, ChunkDescriptor{0, 0, stream.position, stream.slot}, bytes);
  stream.position += bytes;
  if (Complete(stream)) slots_used_ &= ~(1u << stream.slot);
  return true;
}

template <class Access>
void BasicProducer<Access>::Abort(SendStream& stream) {
  if (Complete(stream)) return;
  if (stream.position == 0) {
    slots_used_ &= ~(1u << stream.slot);  // The peer has never heard of it.
    return;
  }
  slot_position_[stream.slot] = stream.position;
  slot_header_[stream.slot] = stream.header;
  aborts_due_ |= 1u << stream.slot;
  FlushAborts();
}

template <class Access>
void BasicProducer<Access>::FlushAborts() {
  if (aborts_due_ != 0) CloseBatch();
  while (aborts_due_ != 0 && HasCell(Lane::kReply)) {
    const uint32_t slot = static_cast<uint32_t>(std::countr_zero(aborts_due_));
    aborts_due_ &= aborts_due_ - 1;
    slots_used_ &= ~(1u << slot);
    const ChunkDescriptor descriptor{0, 0, slot_position_[slot], slot};
    Cell& cell = own_.cells[tail_ & kCellMask];
    std::memcpy(cell.payload, &descriptor, sizeof(descriptor));
    cell.length = kChunkBit;
    cell.header = slot_header_[slot];
    EndCell();
  }
}

}  // namespace weft

#endif  // WEFT_DATAPLANE_CHANNEL_PRODUCER_ARENA_H_
