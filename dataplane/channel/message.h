// SPDX-License-Identifier: Apache-2.0
// What a channel carries: the header that precedes each message's payload, and the payload as its sender
// holds it. Users of channels (call, client, host) build and read these on the channel's owner thread.
#ifndef WEFT_DATAPLANE_CHANNEL_MESSAGE_H_
#define WEFT_DATAPLANE_CHANNEL_MESSAGE_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace weft {

enum class MessageKind : uint8_t {
  kRequest = 1,   // Wants a response with the same request id.
  kOneWay = 2,    // Wants none.
  kResponse = 3,  // `caller_index` holds the status code.
  kCancel = 4,    // The caller no longer waits for `request_id`.
};
inline constexpr uint8_t kMessageKindLast = 4;

// Travels as it stands, in the byte order of the node: both ends are processes of one machine. A value of
// zero is distinguishable from every kind, so cells of fresh memory hold no valid message.
struct MessageHeader {
  uint64_t function_id = 0;
  uint64_t deadline_ns = 0;  // CLOCK_MONOTONIC; 0: none.
  uint32_t request_id = 0;
  uint16_t caller_index = 0;  // In responses: the status code.
  MessageKind kind = MessageKind::kRequest;
  uint8_t flags = 0;  // Of the call layer; the channel carries all eight bits as they are.
};
static_assert(sizeof(MessageHeader) == 24);

// A message's bytes as its sender holds them: a prefix (the call layer's trace context; may be empty) and a
// body, sent one after the other as one payload, so that a prefix costs no copy. Borrowed.
struct Payload {
  Payload() = default;
  // NOLINTNEXTLINE(google-explicit-constructor): a plain span is the common payload.
  Payload(std::span<const std::byte> whole) : body(whole) {}
  Payload(std::span<const std::byte> first, std::span<const std::byte> second)
      : prefix(first), body(second) {}

  std::size_t bytes() const { return prefix.size() + body.size(); }

  std::span<const std::byte> prefix;
  std::span<const std::byte> body;
};

// One-way messages that one cell names together: they share a header, but for their ids, which rise by one. A
// block of memory holds their payloads one behind the other, each taking RunStride of its length.
struct MessageRun {
  uint32_t count = 0;
  uint32_t bytes = 0;                // Of the block: the sum of the strides.
  const uint8_t* lengths = nullptr;  // [count]; each at most kInlineBytesMax.
};
// Words stay aligned.
inline constexpr uint32_t RunStride(uint32_t length) { return (length + 7) & ~7u; }

// Requests leave room in the ring that only replies (responses, cancels) may use, so that requests which
// wait for each other's replies cannot fill the way back.
enum class Lane : uint8_t { kRequest, kReply };

}  // namespace weft

#endif  // WEFT_DATAPLANE_CHANNEL_MESSAGE_H_
