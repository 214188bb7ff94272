// SPDX-License-Identifier: Apache-2.0
// The receiving half of a channel: reads cells and arena of the peer's side memory, which may change under
// its hands at any time. Each word is read once into private memory, checked there, and only then used;
// payloads are copied once into memory of the sink's. Used through Channel, on the channel's owner thread
// only.
#ifndef WEFT_DATAPLANE_CHANNEL_CONSUMER_H_
#define WEFT_DATAPLANE_CHANNEL_CONSUMER_H_

#include <algorithm>
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

// What Poll tells of messages; duck-typed, so that it is inlined:
//   std::byte* OnBegin(const MessageHeader&, uint32_t bytes): where the payload is to go; `bytes` of it stay
//     valid until OnMessage or OnAbort. nullptr refuses the message: it is dropped, and the sink answers it
//     by itself. A message of 0 bytes needs a pointer as well.
//   void OnMessage(const MessageHeader&, std::byte* payload, uint32_t bytes): all of it is there.
//   void OnAbort(const MessageHeader&, std::byte* payload): nothing more will come: its sender gave it up,
//   brought
//     nothing for kStreamStallNs, died, or the channel was poisoned.
//   void OnNoBudget(const MessageHeader&, uint32_t bytes): refused before OnBegin for want of ByteBudget.
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
    // Relaxed: only a hint; Poll loads the word again and acquires.
    return peer_.cells[head_ & kCellMask].lap.load(std::memory_order_relaxed) != head_ + 1 - kCells;
  }

  // Takes at most `budget` cells and hands their messages to `sink`. Returns how many cells it took; where
  // poisoned, those before. `wake` is called as wake(flags) after a publication of the head while the peer
  // waits for space.
  template <class Sink, class Wake>
  WEFT_HOT int Poll(Sink& sink, int budget, Wake&& wake) {
    int taken = 0;
    while (taken < budget) {
      const Cell& cell = peer_.cells[head_ & kCellMask];
      // [C1] acquires the cell and its chunk; pairs with Publish in the producer.
      const uint32_t lap = Access::LoadAcquire(cell.lap);
      if (lap != head_ + 1) {
        if (lap != head_ + 1 - kCells) [[unlikely]]
          Poison(PoisonReason::kBadLap);
        break;
      }
      if (poison_reason_ != PoisonReason::kNone) [[unlikely]]
        break;
      if (!TakeCell(cell, sink)) [[unlikely]]
        break;
      ++taken;
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

  // Messages in parts that brought nothing since `now_ns - kStreamStallNs` fail: OnAbort. Call it after a
  // Poll that found the ring empty.
  template <class Sink>
  void ExpireStalled(uint64_t now_ns, Sink& sink) {
    if (receiving_ == 0) return;
    for (Partial& partial : partials_) {
      if (partial.state != Partial::kReceiving || now_ns - partial.progress_ns < kStreamStallNs) continue;
      ++stalled_;
      Drop(partial, sink, Partial::kDiscarding);
    }
  }
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
  // What a cell says, in private memory.
  struct Descriptor {
    uint32_t lap;
    uint32_t length;
    MessageHeader header;
    ChunkDescriptor chunk;
  };
  static_assert(offsetof(Descriptor, chunk) == offsetof(Cell, payload));

  struct Partial {
    enum State : uint8_t { kFree, kReceiving, kDiscarding };
    MessageHeader header;
    std::byte* payload = nullptr;
    uint32_t total = 0;
    uint32_t received = 0;
    uint64_t progress_ns = 0;
    State state = kFree;
  };

  static bool KnownKind(const MessageHeader& header) {
    return static_cast<uint8_t>(static_cast<uint8_t>(header.kind) - 1) < kMessageKindLast;
  }

  template <class Sink>
  bool TakeCell(const Cell& cell, Sink& sink) {
    Descriptor own;
    Access::CopyFromPeer(&own, &cell, offsetof(Descriptor, chunk));
    if (!KnownKind(own.header)) [[unlikely]]
      return Refuse(PoisonReason::kBadKind);
    if (own.length > kInlineBytesMax) [[unlikely]]
      return TakeChunk(cell, own, sink);
    std::byte* to = sink.OnBegin(own.header, own.length);
    if (to == nullptr) [[unlikely]] {
      ++head_;
      return true;
    }
    Access::CopySmallFromPeer(to, cell.payload, own.length);
    // The cell is done with before the sink runs, which may poll again.
    ++head_;
    sink.OnMessage(own.header, to, own.length);
    return true;
  }

  bool Refuse(PoisonReason reason) {
    Poison(reason);
    return false;
  }

  template <class Sink>
  [[gnu::noinline]] bool TakeChunk(const Cell& cell, Descriptor& own, Sink& sink);
  PoisonReason CheckChunk(const ChunkDescriptor& chunk, uint32_t bytes) const;
  template <class Sink>
  void BeginPartial(Partial& partial, const Descriptor& own, Sink& sink);
  template <class Sink>
  void Drop(Partial& partial, Sink& sink, typename Partial::State next);
  void EndPartial(Partial& partial, typename Partial::State next) {
    if (partial.state == Partial::kReceiving) {
      --receiving_;
      if (budget_ != nullptr) budget_->Release(partial.total);
    }
    partial.state = next;
  }
  void EndChunk(uint32_t bytes) {
    ++head_;
    unpublished_bytes_ += bytes;
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
  uint32_t unpublished_bytes_ = 0;
  PoisonReason poison_reason_ = PoisonReason::kNone;
  int receiving_ = 0;
  uint64_t stalled_ = 0;
  Partial partials_[kPartialsMax];
};

// The reason for which a chunk is wrong by itself.
template <class Access>
PoisonReason BasicConsumer<Access>::CheckChunk(const ChunkDescriptor& chunk, uint32_t bytes) const {
  if (bytes > kChunkBytesMax || chunk.total > message_bytes_max_) return PoisonReason::kBadLength;
  if (bytes > arena_bytes_ || chunk.offset > arena_bytes_ - bytes) return PoisonReason::kBadOffset;
  if (chunk.slot >= kPartialsMax) return PoisonReason::kTooManyPartials;
  if (bytes != 0 && (chunk.position > chunk.total || bytes > chunk.total - chunk.position)) {
    return PoisonReason::kBadChunk;
  }
  return PoisonReason::kNone;
}

template <class Access>
template <class Sink>
bool BasicConsumer<Access>::TakeChunk(const Cell& cell, Descriptor& own, Sink& sink) {
  if ((own.length & kChunkBit) == 0) return Refuse(PoisonReason::kBadLength);
  const uint32_t bytes = own.length & ~kChunkBit;
  Access::CopyFromPeer(&own.chunk, cell.payload, sizeof(own.chunk));
  const ChunkDescriptor& chunk = own.chunk;
  if (const PoisonReason reason = CheckChunk(chunk, bytes); reason != PoisonReason::kNone)
    return Refuse(reason);
  const std::byte* from = peer_.arena + chunk.offset;

  if (bytes != 0 && bytes == chunk.total) {  // The usual case: a whole message in one chunk.
    std::byte* to = sink.OnBegin(own.header, bytes);
    if (to != nullptr) Access::CopyFromPeer(to, from, bytes);
    EndChunk(bytes);
    if (to != nullptr) sink.OnMessage(own.header, to, bytes);
    return true;
  }

  Partial& partial = partials_[chunk.slot];
  if (bytes == 0) {  // Its sender gave the message up.
    if (partial.state == Partial::kFree || chunk.position == 0) return Refuse(PoisonReason::kBadChunk);
    if (chunk.position != partial.received) return Refuse(PoisonReason::kBadChunk);
    EndChunk(0);
    Drop(partial, sink, Partial::kFree);
    return true;
  }
  if ((chunk.position == 0) != (partial.state == Partial::kFree)) return Refuse(PoisonReason::kBadChunk);
  if (chunk.position == 0) {
    BeginPartial(partial, own, sink);
  } else if (chunk.position != partial.received || chunk.total != partial.total) {
    return Refuse(PoisonReason::kBadChunk);
  }
  // BeginPartial ran the sink; nothing of the channel that it may have changed is used from here on but
  // `partial`, which only a Poll from OnMessage could change.
  if (partial.state == Partial::kReceiving)
    Access::CopyFromPeer(partial.payload + partial.received, from, bytes);
  partial.received += bytes;
  partial.progress_ns = NowNs();
  EndChunk(bytes);
  if (partial.received != partial.total) return true;
  const Partial done = partial;
  EndPartial(partial, Partial::kFree);
  if (done.state == Partial::kReceiving) sink.OnMessage(done.header, done.payload, done.total);
  return true;
}

template <class Access>
template <class Sink>
void BasicConsumer<Access>::BeginPartial(Partial& partial, const Descriptor& own, Sink& sink) {
  partial.header = own.header;
  partial.total = own.chunk.total;
  partial.received = 0;
  partial.state = Partial::kDiscarding;
  if (budget_ != nullptr && !budget_->TryCharge(partial.total)) {
    sink.OnNoBudget(own.header, partial.total);
    return;
  }
  partial.payload = sink.OnBegin(own.header, partial.total);
  if (partial.payload == nullptr) {
    if (budget_ != nullptr) budget_->Release(partial.total);
    return;
  }
  partial.state = Partial::kReceiving;
  ++receiving_;
}

template <class Access>
template <class Sink>
void BasicConsumer<Access>::Drop(Partial& partial, Sink& sink, typename Partial::State next) {
  const bool was_receiving = partial.state == Partial::kReceiving;
  EndPartial(partial, next);
  if (was_receiving) sink.OnAbort(partial.header, partial.payload);
}

}  // namespace weft

#endif  // WEFT_DATAPLANE_CHANNEL_CONSUMER_H_
