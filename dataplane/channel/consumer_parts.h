// SPDX-License-Identifier: Apache-2.0
// How a consumer takes chunks: whole messages, and messages in parts, which it puts together and gives up
// where they fall behind. Included by consumer.h only.
#ifndef WEFT_DATAPLANE_CHANNEL_CONSUMER_PARTS_H_
#define WEFT_DATAPLANE_CHANNEL_CONSUMER_PARTS_H_

#include <algorithm>

#include "dataplane/base/clock.h"
#include "dataplane/channel/consumer.h"

namespace weft {

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
bool BasicConsumer<Access>::TakeChunk(const Descriptor& own, uint32_t bytes, Sink& sink) {
  const ChunkDescriptor& chunk = own.chunk;
  if (const PoisonReason reason = CheckChunk(chunk, bytes); reason != PoisonReason::kNone)
    return Refuse(reason);
  const std::byte* from = peer_.arena + chunk.offset;

  if (bytes != 0 && bytes == chunk.total) {  // The usual case: a whole message in one chunk.
    std::byte* to = BeginApart(sink, own.header, bytes);
    if (to != nullptr) Access::CopyFromPeer(to, from, bytes);
    EndChunk(bytes);
    if (to != nullptr) EndApart(sink, own.header, to, bytes);
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
  if (partial.received - partial.paced_bytes >= PaceBytes()) {
    partial.paced_bytes = partial.received;
    partial.paced_looked_ns = looked_ns_;
  }
  EndChunk(bytes);
  if (partial.received != partial.total) return true;
  const Partial done = partial;
  EndPartial(partial, Partial::kFree);
  if (done.state == Partial::kReceiving) EndApart(sink, done.header, done.payload, done.total);
  return true;
}

template <class Access>
template <class Sink>
void BasicConsumer<Access>::BeginPartial(Partial& partial, const Descriptor& own, Sink& sink) {
  partial.header = own.header;
  partial.total = own.chunk.total;
  partial.received = partial.paced_bytes = 0;
  partial.paced_looked_ns = looked_ns_;
  partial.state = Partial::kDiscarding;
  if (!TryCharge(partial.total)) {
    sink.OnNoBudget(own.header, partial.total);
    return;
  }
  partial.payload = BeginApart(sink, own.header, partial.total);
  if (partial.payload == nullptr) return Release(partial.total);
  partial.state = Partial::kReceiving;
  ++receiving_;
}

// A look counts once all is taken that the peer had published at the last one that did: until then what is
// to come of a message may stand behind that. As the ring is finite, so is the time until then for whoever
// keeps it filled.
template <class Access>
void BasicConsumer<Access>::CountLook(uint64_t now_ns, bool empty) {
  // More than a ring full: the last look is billions of messages ago.
  if (const uint32_t ahead = look_tail_ - head_; !empty && ahead != 0 && ahead <= kCells) return;
  looked_ns_ += std::min(now_ns - std::min(look_ns_, now_ns), kStreamLookNs);
  look_ns_ = now_ns;
  // A tail that cannot be is the peer's loss.
  const uint32_t tail = Access::LoadAcquire(peer_.lines->tail);
  look_tail_ = tail - head_ <= kCells ? tail : head_;
}

template <class Access>
template <class Sink>
void BasicConsumer<Access>::ExpireStalled(uint64_t now_ns, Sink& sink) {
  if (receiving_ == 0) return;
  const bool empty = !Ready();
  CountLook(now_ns, empty);
  for (Partial& partial : partials_) {
    if (partial.state != Partial::kReceiving) continue;
    const uint64_t deadline_ns = partial.header.deadline_ns;
    const bool late = deadline_ns != 0 && now_ns >= deadline_ns;
    const bool silent = empty && now_ns >= partial.progress_ns + kStreamStallNs;
    const bool slow = looked_ns_ - partial.paced_looked_ns >= kStreamSlowNs;
    if (!late && !silent && !slow) continue;
    ++stalled_;
    Drop(partial, sink, Partial::kDiscarding);
  }
}

template <class Access>
template <class Sink>
void BasicConsumer<Access>::Drop(Partial& partial, Sink& sink, typename Partial::State next) {
  const bool was_receiving = partial.state == Partial::kReceiving;
  EndPartial(partial, next);
  if (was_receiving) sink.OnAbort(partial.header, partial.payload);
}

}  // namespace weft

#endif  // WEFT_DATAPLANE_CHANNEL_CONSUMER_PARTS_H_
