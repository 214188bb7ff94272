// SPDX-License-Identifier: Apache-2.0
// How a consumer takes runs: the cell is copied and checked like any other, then the whole block in one go,
// so that checks and books cost once for up to 64 messages. Included by consumer.h only.
#ifndef WEFT_DATAPLANE_CHANNEL_CONSUMER_RUN_H_
#define WEFT_DATAPLANE_CHANNEL_CONSUMER_RUN_H_

#include <algorithm>

#include "dataplane/channel/consumer.h"

namespace weft {

template <class Access>
template <class Sink>
int BasicConsumer<Access>::TakeRun(const Cell& cell, const Descriptor& own, uint32_t bytes, Sink& sink) {
  const uint32_t count = own.chunk.position;
  const uint32_t offset = own.chunk.offset;
  if (own.header.kind != MessageKind::kOneWay) return PoisonCell(PoisonReason::kBadKind);
  if (count == 0 || count > kRunMessagesMax || bytes > kRunBytesMax) {
    return PoisonCell(PoisonReason::kBadLength);
  }
  if (bytes > arena_bytes_ || offset > arena_bytes_ - bytes) {
    return PoisonCell(PoisonReason::kBadOffset);
  }
  Access::CopyFromPeer(run_lengths_.data(), cell.payload + sizeof(ChunkDescriptor), run_lengths_.size());
  uint32_t sum = 0;
  uint32_t longest = 0;
  for (uint32_t i = 0; i < count; ++i) {
    sum += RunStride(run_lengths_[i]);
    longest = std::max<uint32_t>(longest, run_lengths_[i]);
  }
  if (sum != bytes || longest > kInlineBytesMax) return PoisonCell(PoisonReason::kBadLength);

  const std::byte* const from = peer_.arena + offset;
  if constexpr (requires(const MessageRun& run) { sink.OnRunBegin(own.header, run); }) {
    const MessageRun run{count, bytes, run_lengths_.data()};
    if (std::byte* const to = sink.OnRunBegin(own.header, run); to != nullptr) [[likely]] {
      Access::CopyFromPeer(to, from, bytes);
      // The cell is done with before the sink runs, which may poll again.
      EndChunk(bytes);
      sink.OnRun(own.header, run, to);
      return static_cast<int>(count);
    }
  }
  run_open_ = true;
  run_taken_ = 0;
  run_first_ = own.header;
  batch_at_ = from;
  batch_left_ = count;
  batch_bytes_ = bytes;
  return 1;
}

template <class Access>
template <class Sink>
int BasicConsumer<Access>::TakeRunOneByOne(Sink& sink, int budget) {
  int taken = 0;
  while (taken < budget && batch_left_ != 0 && run_open_) {
    MessageHeader header = run_first_;
    header.request_id += run_taken_;
    const uint32_t length = run_lengths_[run_taken_];
    std::byte* const to = BeginApart(sink, header, length);
    if (to != nullptr) Access::CopySmallFromPeer(to, batch_at_, length);
    // The message is done with before the sink runs, which may poll again.
    batch_at_ += RunStride(length);
    ++run_taken_;
    if (--batch_left_ == 0) EndChunk(batch_bytes_);
    ++taken;
    if (to != nullptr) EndApart(sink, header, to, length);
  }
  return taken;
}

}  // namespace weft

#endif  // WEFT_DATAPLANE_CHANNEL_CONSUMER_RUN_H_
