// SPDX-License-Identifier: Apache-2.0
// The sending half of a channel: fills cells and arena of the side memory that this process owns, and reads
// the peer's head and wait flags, which it trusts in nothing. Used through Channel, on the channel's owner
// thread only. Everything that decides where this half writes is private memory: the peer cannot move it.
#ifndef WEFT_DATAPLANE_CHANNEL_PRODUCER_H_
#define WEFT_DATAPLANE_CHANNEL_PRODUCER_H_

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "dataplane/base/attributes.h"
#include "dataplane/base/check.h"
#include "dataplane/channel/access.h"
#include "dataplane/channel/doorbell.h"
#include "dataplane/channel/layout.h"
#include "dataplane/channel/message.h"
#include "dataplane/channel/poison.h"

namespace weft {

// One message on its way in parts. Its payload stays the caller's and must stay as it is until the stream is
// done, failed or aborted. Not to be copied while under way.
struct SendStream {
  MessageHeader header;
  Payload payload;
  Lane lane = Lane::kRequest;
  uint32_t position = 0;  // Bytes handed over so far.
  uint32_t slot = 0;
  uint64_t progress_ns = 0;  // When the last chunk went out, or the stream began.
};

template <class Access>
class BasicProducer {
 public:
  // `arena_bytes` as ValidArenaBytes says. Both sides outlive the producer.
  BasicProducer(OwnSide own, PeerSide peer, uint32_t arena_bytes, uint32_t message_bytes_max)
      : own_(own), peer_(peer), arena_bytes_(arena_bytes), message_bytes_max_(message_bytes_max) {}

  // Puts a whole message into the ring, for the next Publish(), where it fits now; false, and nothing done,
  // where it does not: the ring or the arena has no room for this lane, or the message is longer than
  // whole_bytes_max() (then it needs a stream). Copies the payload before it returns.
  WEFT_HOT bool TrySend(const MessageHeader& header, const Payload& payload, Lane lane) {
    const std::size_t bytes = payload.bytes();
    if (bytes > kInlineBytesMax) return TrySendInArena(header, payload, lane);
    if (!HasCell(lane)) [[unlikely]]
      return false;
    Cell& cell = own_.cells[tail_ & kCellMask];
    if (payload.prefix.empty()) {
      CopySmall(cell.payload, payload.body.data(), bytes);
    } else {
      CopySmall(cell.payload, payload.prefix.data(), payload.prefix.size());
      CopySmall(cell.payload + payload.prefix.size(), payload.body.data(), payload.body.size());
    }
    cell.length = static_cast<uint32_t>(bytes);
    cell.header = header;
    EndCell();
    return true;
  }

  // Shows the peer everything sent since the last call, and rings the doorbell where the peer sleeps. One
  // locked instruction a call; a system call only where the peer sleeps.
  WEFT_HOT void Publish() {
    if (published_ == tail_) return;
    // Last cell first: the peer, which waits for the first, then finds the batch complete, and does not
    // take lines away while they are being written.
    uint32_t position = tail_;
    do {
      --position;
      // [C1] publishes the cell and its chunk; pairs with the load of the lap in the consumer.
      own_.cells[position & kCellMask].lap.store(position + 1, Access::kPublishOrder);
    } while (position != published_);
    published_ = tail_;
    // [C3] Store, then load: either this process sees the peer's flag, or the peer, which sets its flag
    // and then reads the tail, sees the tail.
    own_.lines->tail.exchange(published_, std::memory_order_seq_cst);
    const uint64_t flags = Access::LoadSeqCst(peer_.lines->flags);
    if ((flags & kFlagBits) != 0) [[unlikely]]
      OnPeerWaits(flags, kFlagAsleep);
  }

  // The longest message that TrySend takes, in bytes. One fits whenever the peer has read what came before.
  uint32_t whole_bytes_max() const { return std::min(arena_bytes_ / 4, kChunkBytesMax); }
  uint32_t message_bytes_max() const { return message_bytes_max_; }

  // Begins a message in parts; false, and nothing done, where as many are under way as `lane` may have.
  // At least 1 and at most message_bytes_max() bytes.
  bool TryStart(SendStream& stream, const MessageHeader& header, const Payload& payload, Lane lane,
                uint64_t now_ns);
  // Puts the next chunk into the ring, for the next Publish(); false where there is no room now or the
  // stream is complete.
  bool PushChunk(SendStream& stream);
  bool Complete(const SendStream& stream) const { return stream.position == stream.payload.bytes(); }
  // Gives the message up: the peer drops what it has of it.
  void Abort(SendStream& stream);

  // Something was refused for want of room since the peer's head last moved.
  bool wants_space() const { return wants_space_; }
  // Reads the peer's head; true where it moved. [C4]
  bool RefreshHead();
  // After this process published its head as a consumer: rings where `flags`, the peer's wait flags, ask for
  // it.
  void OnHeadPublished(uint64_t flags) {
    if ((flags & kFlagBits) != 0) [[unlikely]]
      OnPeerWaits(flags, kFlagWantsSpace);
  }

  void set_doorbell(Doorbell* doorbell) { doorbell_ = doorbell; }
  PoisonReason poison_reason() const { return poison_reason_; }
  // Cells that were published and that the peer has not reported as read, as far as this side has looked.
  uint32_t peer_head() const { return head_; }
  uint32_t unread_cells() const { return published_ - head_; }

 private:
  static constexpr uint32_t kArenaAlign = kCacheLineBytes;

  bool HasCell(Lane lane) {
    const uint32_t limit = lane == Lane::kRequest ? kCells - kReplyCells : kCells;
    if (tail_ - head_ < limit) [[likely]]
      return true;
    if (RefreshHead() && tail_ - head_ < limit) return true;
    wants_space_ = true;
    return false;
  }
  bool HasArena(uint32_t bytes, Lane lane) {
    const uint32_t limit = lane == Lane::kRequest ? arena_bytes_ - arena_bytes_ / 4 : arena_bytes_;
    if (arena_tail_ - arena_head_ + bytes <= limit) return true;
    if (RefreshHead() && arena_tail_ - arena_head_ + bytes <= limit) return true;
    wants_space_ = true;
    return false;
  }
  void EndCell() {
    arena_end_[tail_ & kCellMask] = arena_tail_;
    ++tail_;
  }
  bool TrySendInArena(const MessageHeader& header, const Payload& payload, Lane lane);
  // Writes `bytes` of the payload from `position` on into the arena, which has room without a wrap, and the
  // cell that names them.
  void PutChunk(const MessageHeader& header, const Payload& payload, ChunkDescriptor descriptor,
                uint32_t bytes);
  void FlushAborts();
  // `wanted`: which flag asks for what was just published.
  [[gnu::noinline]] void OnPeerWaits(uint64_t flags, uint64_t wanted);
  static void CopyPart(std::byte* to, const Payload& payload, std::size_t position, std::size_t bytes);

  OwnSide own_;
  PeerSide peer_;
  uint32_t arena_bytes_;
  uint32_t message_bytes_max_;
  uint32_t tail_ = 0;        // The next cell to fill.
  uint32_t published_ = 0;   // Cells below this one have their lap.
  uint32_t head_ = 0;        // Cells below this one are free again: the peer's word, checked.
  uint32_t arena_tail_ = 0;  // The next byte of the arena to fill, before its remainder is taken.
  uint32_t arena_head_ = 0;  // Bytes below this one are free again.
  uint32_t slots_used_ = 0;  // One bit a message in parts.
  uint32_t aborts_due_ = 0;  // Messages given up of which the peer does not know yet.
  bool wants_space_ = false;
  PoisonReason poison_reason_ = PoisonReason::kNone;
  Doorbell* doorbell_ = nullptr;
  uint64_t rung_asleep_ = 0;  // The last episodes of the peer for which this side rang.
  uint64_t rung_space_ = 0;
  uint32_t slot_position_[kPartialsMax] = {};
  MessageHeader slot_header_[kPartialsMax];
  uint32_t arena_end_[kCells] = {};  // For each cell: arena_tail_ after it.
};

template <class Access>
bool BasicProducer<Access>::RefreshHead() {
  if (poison_reason_ != PoisonReason::kNone) return false;
  // [C2] acquires the cells and arena that the peer has read; pairs with PublishHead in the consumer.
  const uint32_t head = Access::LoadAcquire(peer_.lines->head);
  if (head == head_) return false;
  if (head - head_ > published_ - head_) {
    poison_reason_ = PoisonReason::kBadHead;
    return false;
  }
  head_ = head;
  arena_head_ = arena_end_[(head - 1) & kCellMask];
  wants_space_ = false;
  return true;
}

template <class Access>
void BasicProducer<Access>::OnPeerWaits(uint64_t flags, uint64_t wanted) {
  if ((flags & kFlagReserved) != 0) {
    if (poison_reason_ == PoisonReason::kNone) poison_reason_ = PoisonReason::kBadFlag;
    return;
  }
  if ((flags & wanted) == 0 || doorbell_ == nullptr) return;
  // One ring an episode: the peer reads everything when it wakes, and counts a new one before it sleeps
  // again.
  uint64_t& rung = wanted == kFlagAsleep ? rung_asleep_ : rung_space_;
  const uint64_t episode = flags >> kFlagEpisodeShift;
  if (rung == episode) return;
  rung = episode;
  doorbell_->Ring();
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
  if (bytes != 0) std::memcpy(to, payload.body.data() + (position - payload.prefix.size()), bytes);
}

template <class Access>
void BasicProducer<Access>::PutChunk(const MessageHeader& header, const Payload& payload,
                                     ChunkDescriptor descriptor, uint32_t bytes) {
  descriptor.offset = arena_tail_ & (arena_bytes_ - 1);
  descriptor.total = static_cast<uint32_t>(payload.bytes());
  CopyPart(own_.arena + descriptor.offset, payload, descriptor.position, bytes);
  arena_tail_ += (bytes + kArenaAlign - 1) & ~(kArenaAlign - 1);
  Cell& cell = own_.cells[tail_ & kCellMask];
  std::memcpy(cell.payload, &descriptor, sizeof(descriptor));
  cell.length = kChunkBit | bytes;
  cell.header = header;
  EndCell();
}

template <class Access>
bool BasicProducer<Access>::TrySendInArena(const MessageHeader& header, const Payload& payload, Lane lane) {
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

#endif  // WEFT_DATAPLANE_CHANNEL_PRODUCER_H_
