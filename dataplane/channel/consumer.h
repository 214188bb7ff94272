// SPDX-License-Identifier: Apache-2.0
// The receiving half of a channel: reads cells and arena of the peer's side memory, which may change under
// its hands at any time. Each word is read once into private memory, checked there, and only then used;
// payloads are copied once into memory of the sink's. Used through Channel, on the channel's owner thread
// only.
#ifndef WEFT_DATAPLANE_CHANNEL_CONSUMER_H_
#define WEFT_DATAPLANE_CHANNEL_CONSUMER_H_

#include <array>
#include <bit>
#include <cstdint>

#include "dataplane/base/attributes.h"
#include "dataplane/base/clock.h"
#include "dataplane/channel/access.h"
#include "dataplane/channel/byte_budget.h"
#include "dataplane/channel/layout.h"
#include "dataplane/channel/message.h"
#include "dataplane/channel/poison.h"

namespace weft {

// A stream that brings nothing for this long has failed.
inline constexpr uint64_t kStreamStallNs = 100 * kNsPerMs;
// So has one that brings less than this, a quarter of the arena where that is less, or its rest, in
// kStreamSlowNs. The arena's size says nothing about how fast its sender is, which may have a slow machine.
inline constexpr uint32_t kStreamPaceBytes = 4 * kChunkBytesMax;
inline constexpr uint64_t kStreamSlowNs = kNsPerSecond;
// What counts of the time between two looks: in more than that this side did not run, so the peer's messages
// waited for it. Nor does time count in which it was busy with what stood before them in the ring.
inline constexpr uint64_t kStreamLookNs = kStreamStallNs / 2;

// What Poll tells of messages; duck-typed, so that it is inlined:
//   std::byte* OnBegin(const MessageHeader&, uint32_t bytes): where the payload is to go; `bytes` of it stay
//     valid until OnMessage or OnAbort. nullptr refuses the message: it is dropped, and the sink answers it
//     by itself. A message of 0 bytes needs a pointer as well.
//   void OnMessage(const MessageHeader&, std::byte* payload, uint32_t bytes): all of it is there.
//   void OnAbort(const MessageHeader&, std::byte* payload): nothing more will come: its sender gave it up,
//     fell behind (see ExpireStalled), died, or the channel was poisoned.
//   void OnNoBudget(const MessageHeader&, uint32_t bytes): refused before OnBegin for want of ByteBudget.
// A sink that takes runs whole has two more:
//   std::byte* OnRunBegin(const MessageHeader& first, const MessageRun&): where the run's block is to go.
//     nullptr: the sink wants the messages one by one, by OnBegin and OnMessage.
//   void OnRun(const MessageHeader& first, const MessageRun&, std::byte* payload): all of it is there, and
//     goes on being there; the run's lengths are the channel's until this returns.
// A sink may send on the channel and may call Poll again from OnMessage; it must not destroy the channel.

template <class Access>
class BasicConsumer {
 public:
  // `arena_bytes`: the peer's. `budget` may be nullptr: unlimited. All outlive the consumer.
  BasicConsumer(OwnSide own, PeerSide peer, uint32_t arena_bytes, uint32_t message_bytes_max,
                ByteBudget* budget)
      : own_(own),
        peer_(peer),
        arena_bytes_(arena_bytes),
        message_bytes_max_(message_bytes_max),
        budget_(budget) {}

  // Poll has something to do: a message, or a poisoned ring. One load, of a line that stays in this core's
  // cache until the peer writes.
  WEFT_HOT bool Ready() const {
    const Cell& cell = peer_.cells[head_ & kCellMask];
    PrefetchSecondLine(cell);
    // Relaxed: only a hint; Poll loads the word again and acquires.
    return cell.lap.load(std::memory_order_relaxed) != head_ + 1 - kCells;
  }

  // Takes at most `budget` cells and hands their messages to `sink`. Returns how many cells it took, where a
  // run counts as its messages and is taken whole; where poisoned, those before. `wake` is called as
  // wake(flags) after a publication of the head while the peer waits for space.
  template <class Sink, class Wake>
  WEFT_HOT_INLINE int Poll(Sink& sink, int budget, Wake&& wake) {
    int taken = 0;
    while (taken < budget && poison_reason_ == PoisonReason::kNone) {
      if (batch_left_ != 0) {
        taken += run_open_ ? TakeRunOneByOne(sink, budget - taken) : TakeRecords(sink, budget - taken);
      } else {
        const Cell& cell = peer_.cells[head_ & kCellMask];
        PrefetchSecondLine(cell);
        // [C1] acquires the cell and its chunk; pairs with Publish in the producer.
        const uint32_t lap = Access::LoadAcquire(cell.lap);
        if (lap != head_ + 1) {
          if (lap != head_ + 1 - kCells) [[unlikely]]
            Poison(PoisonReason::kBadLap);
          break;
        }
        const int messages = TakeCell(cell, sink);
        if (messages < 0) [[unlikely]]
          break;
        taken += messages;
      }
      if (head_ - published_head_ >= kHeadStepCells) wake(PublishHead());
    }
    return taken;
  }

  // Tells the peer what was read, and returns its wait flags. [C4] store, then load: either this side sees
  // that the peer waits for space, or the peer sees the head before it sleeps.
  uint64_t PublishHead() {
    if (published_head_ == head_) return 0;
    published_head_ = head_;
    unpublished_bytes_ = 0;
    // [C2] publishes that the cells below were read; pairs with RefreshHead in the producer.
    own_.lines->head.exchange(head_, std::memory_order_seq_cst);
    return Access::LoadSeqCst(peer_.lines->flags);
  }

  // For a thread about to sleep, after it has set its flag: true where the peer published nothing that was
  // not taken. [C3]
  bool EmptyForSleep() {
    const uint32_t tail = Access::LoadSeqCst(peer_.lines->tail);
    // The tail may lag behind the laps by the batch that is being published. That producer has yet to read
    // the flag, and will ring.
    if (tail - head_ + kCells > 2 * kCells) {
      Poison(PoisonReason::kBadTail);
      return false;
    }
    const bool ready = Ready();
    // Cells get their lap before the tail that counts them, so the next cell shows it.
    if (!ready && static_cast<int32_t>(tail - head_) > 0) Poison(PoisonReason::kBadTail);
    return !ready && poison_reason_ == PoisonReason::kNone;
  }

  // Fails messages in parts that fell behind, by OnAbort: whose deadline has passed, which brought nothing
  // for kStreamStallNs, or too little for kStreamSlowNs, be the ring empty or not. Call it again and again
  // while receiving() is not 0, with polls in between; one that finds cells which were there at the one
  // before does not count.
  template <class Sink>
  void ExpireStalled(uint64_t now_ns, Sink& sink);
  // The message whose payload goes to `payload` is no longer wanted: what is still to come of it is dropped,
  // its memory is not touched again, and the sink hears nothing of it. No-op where there is none.
  void Forget(const std::byte* payload) {
    for (Partial& partial : partials_) {
      if (partial.state == Partial::kReceiving && partial.payload == payload)
        EndPartial(partial, Partial::kDiscarding);
    }
  }
  // All messages in parts fail.
  template <class Sink>
  void AbortPartials(Sink& sink) {
    for (Partial& partial : partials_) {
      if (partial.state == Partial::kReceiving) Drop(partial, sink, Partial::kDiscarding);
    }
  }

  void Poison(PoisonReason reason) {
    if (poison_reason_ == PoisonReason::kNone) poison_reason_ = reason;
  }
  PoisonReason poison_reason() const { return poison_reason_; }
  int receiving() const { return receiving_; }
  uint64_t stalled() const { return stalled_; }
  uint32_t head() const { return head_; }

 private:
  // What a chunk's cell says, in private memory.
  struct Descriptor {
    MessageHeader header;
    ChunkDescriptor chunk;
  };

  static constexpr int kPoisoned = -1;

  struct Partial {
    enum State : uint8_t { kFree, kReceiving, kDiscarding };
    MessageHeader header;
    std::byte* payload = nullptr;
    uint32_t total = 0;
    uint32_t received = 0;
    uint64_t progress_ns = 0;
    uint64_t paced_looked_ns = 0;  // looked_ns_ when it was last found to be fast enough,
    uint32_t paced_bytes = 0;      // and what had been received then.
    State state = kFree;
  };

  // Both lines of a cell then cross at the same time, instead of the second after the first was seen.
  static void PrefetchSecondLine(const Cell& cell) {
    __builtin_prefetch(reinterpret_cast<const std::byte*>(&cell) + kCacheLineBytes);
  }
  static bool KnownKind(MessageKind kind) {
    return static_cast<uint8_t>(static_cast<uint8_t>(kind) - 1) < kMessageKindLast;
  }
  // Takes the cell at head_, whose lap is the one due. Returns its messages, 1 where it names a block that is
  // to be taken message by message; kPoisoned where it poisoned the channel.
  template <class Sink>
  WEFT_HOT_INLINE int TakeCell(const Cell& cell, Sink& sink) {
    // Lap (not used), length and header in two blocks, from which the sink may load words of any width.
    struct {
      uint32_t lap;
      uint32_t length;
      MessageHeader header;
    } own;
    static_assert(sizeof(own) == offsetof(Cell, payload));
    Access::CopyFromPeer(&own, &cell, sizeof(own));
    const uint32_t length = own.length;
    const MessageHeader& header = own.header;
    if (!KnownKind(header.kind)) [[unlikely]]
      return PoisonCell(PoisonReason::kBadKind);
    if (length > kInlineBytesMax) [[unlikely]]
      return TakeLarge(cell, length, header, sink);
    std::byte* to = sink.OnBegin(header, length);
    if (to == nullptr) [[unlikely]] {
      ++head_;
      return 1;
    }
    Access::CopySmallFromPeer(to, cell.payload, length);
    // The cell is done with before the sink runs, which may poll again.
    ++head_;
    sink.OnMessage(header, to, length);
    return 1;
  }

  // Takes at most `budget` records of the open block; returns how many. Fewer than there are where it
  // poisoned.
  template <class Sink>
  int TakeRecords(Sink& sink, int budget);

  // For messages that do not stand alone in their cell; calls, where TakeCell has the sink inlined.
  template <class Sink>
  [[gnu::noinline]] static std::byte* BeginApart(Sink& sink, const MessageHeader& header, uint32_t bytes) {
    return sink.OnBegin(header, bytes);
  }
  template <class Sink>
  [[gnu::noinline]] static void EndApart(Sink& sink, const MessageHeader& header, std::byte* payload,
                                         uint32_t bytes) {
    sink.OnMessage(header, payload, bytes);
  }
  bool Refuse(PoisonReason reason) {
    Poison(reason);
    return false;
  }
  int PoisonCell(PoisonReason reason) {
    Poison(reason);
    return kPoisoned;
  }

  // The same for messages of a run that the sink does not take whole.
  template <class Sink>
  int TakeRunOneByOne(Sink& sink, int budget);
  template <class Sink>
  int TakeRun(const Cell& cell, const Descriptor& own, uint32_t bytes, Sink& sink);
  template <class Sink>
  [[gnu::noinline]] int TakeLarge(const Cell& cell, uint32_t length, MessageHeader header, Sink& sink);
  template <class Sink>
  bool TakeChunk(const Descriptor& own, uint32_t bytes, Sink& sink);
  bool BeginBatch(const ChunkDescriptor& chunk, uint32_t bytes);
  PoisonReason CheckChunk(const ChunkDescriptor& chunk, uint32_t bytes) const;
  template <class Sink>
  void BeginPartial(Partial& partial, const Descriptor& own, Sink& sink);
  void CountLook(uint64_t now_ns, bool empty);
  template <class Sink>
  void Drop(Partial& partial, Sink& sink, typename Partial::State next);
  void EndPartial(Partial& partial, typename Partial::State next) {
    if (partial.state == Partial::kReceiving) {
      --receiving_;
      Release(partial.total);
    }
    partial.state = next;
  }
  uint32_t PaceBytes() const {
    return arena_bytes_ / 4 < kStreamPaceBytes ? arena_bytes_ / 4 : kStreamPaceBytes;
  }
  bool TryCharge(uint32_t bytes) {
    if (budget_ != nullptr && !budget_->TryCharge(bytes, charged_bytes_)) return false;
    charged_bytes_ += bytes;
    return true;
  }
  void Release(uint32_t bytes) {
    charged_bytes_ -= bytes;
    if (budget_ != nullptr) budget_->Release(bytes);
  }
  void EndChunk(uint32_t bytes) {
    ++head_;
    // In lines, as the producer counts them: many short chunks fill more of the arena than they have bytes.
    unpublished_bytes_ += (bytes + kCacheLineBytes - 1) & ~(kCacheLineBytes - 1);
    // Made to look like a full step of cells, so that the hot loop has one condition.
    if (unpublished_bytes_ >= arena_bytes_ / 4) published_head_ = head_ - kHeadStepCells;
  }

  OwnSide own_;
  PeerSide peer_;
  uint32_t arena_bytes_;
  uint32_t message_bytes_max_;
  ByteBudget* budget_;
  uint32_t head_ = 0;  // The next cell to take.
  uint32_t published_head_ = 0;
  uint32_t unpublished_bytes_ = 0;  // Of the arena, in whole lines.
  uint32_t batch_left_ = 0;         // Bytes of the block of records that is being read; 0: none is.
  uint32_t batch_bytes_ = 0;
  const std::byte* batch_at_ = nullptr;
  uint64_t batch_function_ = 0;
  uint64_t batch_deadline_ns_ = 0;
  // A run that is taken one by one uses the batch's members, batch_left_ for the messages left, and these.
  bool run_open_ = false;
  uint32_t run_taken_ = 0;
  MessageHeader run_first_;
  std::array<uint8_t, kRunMessagesMax> run_lengths_;
  PoisonReason poison_reason_ = PoisonReason::kNone;
  int receiving_ = 0;
  uint64_t stalled_ = 0;
  uint64_t charged_bytes_ = 0;  // Of messages in parts.
  uint64_t look_ns_ = 0;        // When ExpireStalled last looked, as far as that counts,
  uint32_t look_tail_ = 0;      // up to which cell the peer had published then,
  uint64_t looked_ns_ = 0;      // and the time in which it did, but for gaps above kStreamLookNs.
  Partial partials_[kPartialsMax];
};

template <class Access>
template <class Sink>
int BasicConsumer<Access>::TakeLarge(const Cell& cell, uint32_t length, MessageHeader header, Sink& sink) {
  Descriptor own{header, {}};
  Access::CopyFromPeer(&own.chunk, cell.payload, sizeof(own.chunk));
  bool good;
  if ((length & kChunkBit) != 0) {
    good = TakeChunk(own, length & ~kChunkBit, sink);
  } else if ((length & kBatchBit) != 0) {
    good = BeginBatch(own.chunk, length & ~kBatchBit);
  } else if ((length & kRunBit) != 0) {
    return TakeRun(cell, own, length & ~kRunBit, sink);
  } else {
    good = Refuse(PoisonReason::kBadLength);
  }
  return good ? 1 : kPoisoned;
}

template <class Access>
bool BasicConsumer<Access>::BeginBatch(const ChunkDescriptor& chunk, uint32_t bytes) {
  if (bytes < sizeof(BatchRecord) || bytes > kBatchBytesMax || bytes % kRecordAlign != 0) {
    return Refuse(PoisonReason::kBadLength);
  }
  if (bytes > arena_bytes_ || chunk.offset > arena_bytes_ - bytes || chunk.offset % kRecordAlign != 0) {
    return Refuse(PoisonReason::kBadOffset);
  }
  batch_at_ = peer_.arena + chunk.offset;
  batch_left_ = batch_bytes_ = bytes;
  batch_function_ = batch_deadline_ns_ = 0;
  run_open_ = false;
  return true;
}

template <class Access>
template <class Sink>
int BasicConsumer<Access>::TakeRecords(Sink& sink, int budget) {
  int taken = 0;
  while (taken < budget && batch_left_ != 0 && !run_open_) {
    const std::byte* at = batch_at_;
    const auto* words = reinterpret_cast<const uint32_t*>(at);
    if (batch_left_ < sizeof(BatchRecord)) [[unlikely]] {
      Poison(PoisonReason::kBadLength);
      break;
    }
    const std::array<uint32_t, 3> own = {Access::LoadOnce(words[0]), Access::LoadOnce(words[1]),
                                         Access::LoadOnce(words[2])};
    const auto record = std::bit_cast<BatchRecord>(own);
    const uint32_t function_bytes = (record.kind & kRecordHasFunction) != 0 ? 8 : 0;
    const uint32_t deadline_bytes = (record.kind & kRecordHasDeadline) != 0 ? 8 : 0;
    const uint32_t before = sizeof(BatchRecord) + function_bytes + deadline_bytes;
    const uint32_t bytes = before + ((record.length + kRecordAlign - 1) & ~(kRecordAlign - 1));
    if (record.length > kInlineBytesMax || bytes > batch_left_) [[unlikely]] {
      Poison(PoisonReason::kBadLength);
      break;
    }
    if (function_bytes != 0) Access::CopyFromPeer(&batch_function_, at + sizeof(record), 8);
    if (deadline_bytes != 0) Access::CopyFromPeer(&batch_deadline_ns_, at + before - 8, 8);
    const MessageHeader header{
        batch_function_,
        batch_deadline_ns_,
        record.request_id,
        record.caller_index,
        static_cast<MessageKind>(record.kind & ~(kRecordHasFunction | kRecordHasDeadline)),
        record.flags};
    if (!KnownKind(header.kind)) [[unlikely]] {
      Poison(PoisonReason::kBadKind);
      break;
    }
    std::byte* to = BeginApart(sink, header, record.length);
    if (to != nullptr) Access::CopySmallFromPeer(to, at + before, record.length);
    // The record is done with before the sink runs, which may poll again.
    batch_at_ = at + bytes;
    batch_left_ -= bytes;
    if (batch_left_ == 0) EndChunk(batch_bytes_);
    ++taken;
    if (to != nullptr) EndApart(sink, header, to, record.length);
  }
  return taken;
}

}  // namespace weft

#include "dataplane/channel/consumer_parts.h"  // IWYU pragma: export
#include "dataplane/channel/consumer_run.h"    // IWYU pragma: export

#endif  // WEFT_DATAPLANE_CHANNEL_CONSUMER_H_
