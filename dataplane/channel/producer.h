// SPDX-License-Identifier: Apache-2.0
// The sending half of a channel: fills cells and arena of the side memory that this process owns, and reads
// the peer's head and wait flags, which it trusts in nothing. Used through Channel, on the channel's owner
// thread only. Everything that decides where this half writes is private memory: the peer cannot move it.
#ifndef WEFT_DATAPLANE_CHANNEL_PRODUCER_H_
#define WEFT_DATAPLANE_CHANNEL_PRODUCER_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>

#include "dataplane/base/attributes.h"
#include "dataplane/base/check.h"
#include "dataplane/channel/access.h"
#include "dataplane/channel/bulk_copy.h"
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
  // The header by value and inlined: it is then stored from registers, field by field. Stored by the caller
  // and loaded again here as wider words, it would wait for the store buffer; so would a copy of the
  // payload's spans.
  WEFT_HOT_INLINE bool TrySend(MessageHeader header, const Payload& payload, Lane lane) {
    const std::size_t bytes = payload.bytes();
    if (bytes > kInlineBytesMax) [[unlikely]]
      return TrySendInArena(header, payload, lane);
    if (tail_ - published_ >= kBatchAfter) {
      if (batch_room_ - batch_at_ >= static_cast<std::ptrdiff_t>(kRecordBytesMax) || OpenBatch(lane)) {
        if (lane == Lane::kReply || batch_lane_ == Lane::kRequest) {
          AppendRecord(header, payload, static_cast<uint32_t>(bytes));
          return true;
        }
      }
      CloseBatch();
    }
    if (!HasCell(lane)) [[unlikely]]
      return false;
    Cell& cell = own_.cells[tail_ & kCellMask];
    CopyInline(cell.payload, payload);
    if (bytes > kFirstLineBytes && tail_ == published_)
      DemoteLine(reinterpret_cast<const std::byte*>(&cell) + kCacheLineBytes);
    cell.length = static_cast<uint32_t>(bytes);
    cell.header = header;
    EndCell();
    return true;
  }

  // A message will probably be sent within the next 0.1 us or so: takes the lines of the cell that it will
  // get from the peer, which polls one of them, while the message is still being made. Where the message
  // comes later the peer has the polled one back by then, and nothing is gained. Both lines or none: with the
  // polled one alone the stores wait for the other, and lose it again.
  WEFT_HOT_INLINE void FetchNextCell() const {
    const auto* const cell = reinterpret_cast<const std::byte*>(&own_.cells[tail_ & kCellMask]);
    FetchToWrite(cell);
    FetchToWrite(cell + kCacheLineBytes);
  }

  // TrySend, not inlined.
  [[gnu::noinline]] bool TrySendAgain(MessageHeader header, const Payload& payload, Lane lane) {
    return TrySend(header, payload, lane);
  }

  // Puts messages into the ring as one run, from the first on, for the next Publish(); returns how many. They
  // are one-ways that share `first` but for the ids, which rise from the first's. 0, and nothing done, where
  // there is no room now. A message above kInlineBytesMax ends the run, so the first must not be one.
  WEFT_HOT uint32_t TrySendRun(const MessageHeader& first,
                               std::span<const std::span<const std::byte>> messages, Lane lane);

  // Shows the peer everything sent since the last call, and rings the doorbell where the peer sleeps. One
  // locked instruction a call; a system call only where the peer sleeps.
  WEFT_HOT_INLINE void Publish() {
    if (published_ == tail_) return;
    if (batch_at_ != nullptr) CloseBatch();
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
  // More of the arena is unread than one chunk, and since the last look this side has sent more of it or the
  // peer has read on: the peer is copying. Not where room is waited for, of which RefreshHead tells.
  bool CopyGoesOn() {
    if (wants_space_ || arena_tail_ - arena_head_ <= kChunkBytesMax) return false;
    const bool sent = looked_tail_ != arena_tail_;
    looked_tail_ = arena_tail_;
    return RefreshHead() || sent;
  }

 private:
  static constexpr uint32_t kArenaAlign = kCacheLineBytes;
  // Of a message that begins a publication all lines but the polled one are demoted up to this size: 1 KiB
  // takes an eighth less there and back so, 4 KiB 4 % more, 1 MiB 2.4 times as long
  // (bench/micro/channel_bench).
  static constexpr uint32_t kDemotedBytesMax = 1024;

  WEFT_HOT_INLINE bool HasCell(Lane lane) {
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
  WEFT_HOT_INLINE void EndCell() {
    arena_end_[tail_ & kCellMask] = arena_tail_;
    ++tail_;
  }
  WEFT_HOT_INLINE static void CopyInline(std::byte* to, const Payload& payload) {
    if (payload.prefix.empty()) [[likely]] {
      CopySmall<Load8And8>(to, payload.body.data(), payload.body.size());
    } else {
      CopySmall<Load8And8>(to + payload.prefix.size(), payload.body.data(), payload.body.size());
      CopySmall<Load8And8>(to, payload.prefix.data(), payload.prefix.size());
    }
  }
  // A new block for records, in a cell of its own; false where there is no room for one.
  bool OpenBatch(Lane lane);
  void AppendRecord(MessageHeader header, const Payload& payload, uint32_t bytes);
  // The open block, if there is one, gets no more records.
  void CloseBatch();
  [[gnu::noinline]] bool TrySendInArena(MessageHeader header, const Payload& payload, Lane lane);
  // Writes `bytes` of the payload from `position` on into the arena, which has room without a wrap, and the
  // cell that names them.
  void PutChunk(const MessageHeader& header, const Payload& payload, ChunkDescriptor descriptor,
                uint32_t bytes);
  void FlushAborts();
  // `wanted`: which flag asks for what was just published.
  [[gnu::noinline]] void OnPeerWaits(uint64_t flags, uint64_t wanted);
  void CopyPart(std::byte* to, const Payload& payload, std::size_t position, std::size_t bytes);

  OwnSide own_;
  PeerSide peer_;
  uint32_t arena_bytes_;
  uint32_t message_bytes_max_;
  uint32_t tail_ = 0;                // The next cell to fill.
  uint32_t published_ = 0;           // Cells below this one have their lap.
  uint32_t head_ = 0;                // Cells below this one are free again: the peer's word, checked.
  uint32_t arena_tail_ = 0;          // The next byte of the arena to fill, before its remainder is taken.
  uint32_t arena_head_ = 0;          // Bytes below this one are free again.
  uint32_t looked_tail_ = 0;         // arena_tail_ as CopyGoesOn saw it last.
  uint32_t slots_used_ = 0;          // One bit a message in parts.
  uint32_t aborts_due_ = 0;          // Messages given up of which the peer does not know yet.
  std::byte* batch_at_ = nullptr;    // Where the next record of the open block goes; null: none is open.
  std::byte* batch_room_ = nullptr;  // Its end.
  uint64_t batch_function_ = 0;
  uint64_t batch_deadline_ns_ = 0;
  Lane batch_lane_ = Lane::kRequest;
  bool batch_fresh_ = false;  // No record yet.
  bool wants_space_ = false;
  PoisonReason poison_reason_ = PoisonReason::kNone;
  BulkWriter bulk_;
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

}  // namespace weft

#include "dataplane/channel/producer_arena.h"  // IWYU pragma: export

#endif  // WEFT_DATAPLANE_CHANNEL_PRODUCER_H_
