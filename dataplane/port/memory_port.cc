// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/memory_port.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "dataplane/base/attributes.h"
#include "dataplane/base/check.h"

namespace weft::port {

MemoryPort::MemoryPort(std::size_t depth, std::size_t datagram_bytes_max)
    : mask_(depth - 1),
      datagram_bytes_max_(datagram_bytes_max),
      memory_(new uint8_t[2 * depth * datagram_bytes_max]),
      send_(depth),
      receive_(depth),
      queue_(depth) {
  WEFT_CHECK(std::has_single_bit(depth));
  free_.reserve(depth);
  for (std::size_t i = 0; i < depth; ++i) {
    send_[i] = {memory_.get() + i * datagram_bytes_max, 0, 0};
    receive_[i] = {memory_.get() + (depth + i) * datagram_bytes_max, 0, 0};
    free_.push_back(static_cast<uint32_t>(i));
  }
}

WEFT_HOT std::size_t MemoryPort::Receive(Received* burst, std::size_t count) {
  const std::size_t ready = std::min(count, queue_tail_ - queue_head_);
  for (std::size_t i = 0; i < ready; ++i) {
    const uint32_t frame = queue_[queue_head_++ & mask_];
    burst[i] = {receive_[frame].data, receive_[frame].bytes, frame};
  }
  return ready;
}

WEFT_HOT void MemoryPort::Release(const Received* burst, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) free_.push_back(burst[i].frame);
}

uint8_t* MemoryPort::BeginSend() {
  return send_tail_ - send_head_ > mask_ ? nullptr : send_[send_tail_ & mask_].data;
}

void MemoryPort::FinishSend(uint64_t path, std::size_t bytes) {
  Datagram& datagram = send_[send_tail_++ & mask_];
  datagram.bytes = static_cast<uint32_t>(bytes);
  datagram.path = path;
}

const MemoryPort::Datagram* MemoryPort::Sent() const {
  return send_head_ == send_tail_ ? nullptr : &send_[send_head_ & mask_];
}

void MemoryPort::PopSent() { ++send_head_; }

WEFT_HOT bool MemoryPort::Deliver(const uint8_t* data, std::size_t bytes) {
  if (bytes > datagram_bytes_max_ || free_.empty()) return false;
  const uint32_t frame = free_.back();
  free_.pop_back();
  std::memcpy(receive_[frame].data, data, bytes);
  receive_[frame].bytes = static_cast<uint32_t>(bytes);
  queue_[queue_tail_++ & mask_] = frame;
  return true;
}

}  // namespace weft::port
