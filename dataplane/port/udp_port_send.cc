// SPDX-License-Identifier: Apache-2.0
// UdpPort's sends: finished datagrams wait in slots; those of one path that lie one behind the other go to
// the kernel as one message, which it cuts (UDP_SEGMENT). Rounds, which carry them, are in udp_port.cc.
#include <netinet/udp.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "bpf/abi/packet.h"
#include "dataplane/base/attributes.h"
#include "dataplane/base/check.h"
#include "dataplane/port/udp_port.h"

namespace weft::port {

WEFT_HOT uint8_t* UdpPort::BeginSend() {
  return send_tail_ - send_head_ > send_mask_ ? nullptr : Slot(send_tail_).data;
}

WEFT_HOT void UdpPort::FinishSend(uint64_t path, std::size_t bytes) {
  WEFT_CHECK(bytes <= datagram_bytes_max_);
  SendSlot& slot = Slot(send_tail_++);
  slot.path = path;
  slot.bytes = static_cast<uint32_t>(bytes);
  slot.done = slot.alone = slot.named = false;
}

// What Round(false) comes to for one datagram to the peer of the connected socket, without messages and
// headers: one system call. False where it is to go another way at once, by name and in a round; true too
// where the kernel is busy, and it waits.
WEFT_HOT bool UdpPort::SendAlone() {
  const SendSlot& slot = Slot(send_head_);
  const ssize_t sent = send(direct_.fd(), slot.data, slot.bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0) [[unlikely]] {
    return !TakeSendResult({.first = send_head_, .count = 1, .bytes = slot.bytes, .way = Message::kDirect},
                           -errno);
  }
  ++counters_.sent;
  counters_.sent_bytes += slot.bytes;
  direct_.NoteSent(slot.path, 1);
  ++send_head_;
  return true;
}

WEFT_HOT void UdpPort::Flush() {
  if (!InStream() && send_tail_ - send_head_ == 1 && direct_.Carries(Slot(send_head_).path) &&
      !Slot(send_head_).named && SendAlone()) {
    return;
  }
  // Each round takes a number of messages and all their datagrams, so this many rounds are enough for all
  // there are.
  for (std::size_t round = 0; round <= send_mask_ / kRoundSendsMax; ++round) {
    // In a stream there is probably something to receive, and it comes along; else what was sent is yet to be
    // answered.
    if (send_head_ == send_tail_ || Round(InStream()) == 0) return;
  }
}

WEFT_HOT bool UdpPort::JoinMessage(Message* message, std::size_t number) const {
  const SendSlot& first = send_[message->first & send_mask_];
  const SendSlot& slot = send_[number & send_mask_];
  // The kernel's bounds: 64 segments, the payload of one IP packet.
  constexpr uint32_t kSegmentsMax = 64;
  constexpr uint32_t kBytesMax = 65'535 - 48;
  // The receiver's kernel chooses the worker once for them all.
  constexpr std::size_t kHint = offsetof(weft_packet_header, worker_hint);
  if (slot.bytes < sizeof(weft_packet_header) || std::memcmp(slot.data + kHint, first.data + kHint, 2) != 0)
    return false;
  if ((first.data[kHint] & WEFT_WORKER_HINT_ALONE >> 8) != 0) return false;
  if (message->closed || slot.alone || slot.named != first.named || slot.path != first.path ||
      slot.bytes > message->segment || message->count == kSegmentsMax ||
      message->bytes + slot.bytes > kBytesMax || message->first + message->count != number) {
    return false;
  }
  if ((number & send_mask_) == 0) return false;  // A message's vectors lie one behind the other.
  ++message->count;
  message->bytes += slot.bytes;
  message->closed = slot.bytes < message->segment;
  return true;
}

WEFT_HOT std::size_t UdpPort::BuildMessages() {
  std::size_t count = 0;
  for (std::size_t number = send_head_; number != send_tail_; ++number) {
    SendSlot& slot = Slot(number);
    if (slot.done) continue;
    send_vectors_[number & send_mask_] = {slot.data, slot.bytes};
    if (count > 0 && segmentation_ && JoinMessage(&messages_[count - 1], number)) continue;
    if (count == kRoundSendsMax) break;
    messages_[count] = {.first = number,
                        .count = 1,
                        .bytes = slot.bytes,
                        .segment = slot.bytes,
                        .closed = slot.alone || !segmentation_};
    ++count;
  }
  FinishMessages(count);
  return count;
}

WEFT_HOT void UdpPort::FinishMessages(std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    Message& message = messages_[i];
    msghdr& header = send_headers_[i].msg_hdr;
    header = {};
    const SendSlot& first = Slot(message.first);
    message.way = Message::kNowhere;
    if (direct_.Carries(first.path) && !first.named) {
      message.way = Message::kDirect;
    } else if (Target* const target = paths_.Find(first.path); target != nullptr) {
      message.way = Message::kByName;
      header.msg_name = &target->name;
      header.msg_namelen = target->name_bytes;
    }
    header.msg_iov = &send_vectors_[message.first & send_mask_];
    header.msg_iovlen = message.count;
    if (message.count == 1) continue;
    header.msg_control = message.control;
    header.msg_controllen = sizeof(message.control);
    cmsghdr* const control = CMSG_FIRSTHDR(&header);
    control->cmsg_level = IPPROTO_UDP;
    control->cmsg_type = UDP_SEGMENT;
    control->cmsg_len = CMSG_LEN(sizeof(uint16_t));
    const auto segment = static_cast<uint16_t>(message.segment);
    std::memcpy(CMSG_DATA(control), &segment, sizeof(segment));
  }
}

void UdpPort::CountLost(int error, uint32_t datagrams) {
  switch (error) {
    case ENOBUFS:
    case ENOMEM:
      counters_.lost_no_buffers += datagrams;
      break;
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENETUNREACH:
    case ENETDOWN:
    case ENODEV:
    case EADDRNOTAVAIL:
    case EACCES:
    case EPERM:
      counters_.lost_unreachable += datagrams;
      break;
    case EMSGSIZE:
      counters_.lost_too_long += datagrams;
      break;
    default:
      counters_.lost_other += datagrams;
  }
}

// Whether that led to something: it was taken, lost, or is to be tried another way.
WEFT_HOT bool UdpPort::TakeSendResult(const Message& message, int result) {
  if (result == -EAGAIN || result == -EWOULDBLOCK || result == -EINTR) {
    counters_.send_busy += message.count;
    return false;
  }
  const int error = -result;
  if (error > 0 && message.way == Message::kDirect) {
    // A connected socket also tells what became of earlier datagrams (ICMP) and then sends nothing. The other
    // one's word counts.
    for (uint32_t i = 0; i < message.count; ++i) Slot(message.first + i).named = true;
    return true;
  }
  if (error > 0 && message.count > 1 && (error == EIO || error == EINVAL || error == EMSGSIZE)) {
    // Refused as company, for want of the device's help or because a segment is longer than the path takes:
    // each is tried alone, which tells which is at fault.
    if (error == EIO) {
      segmentation_ = false;
      status_.choices.push_back({"UDP_SEGMENT", "off", "the device takes no segmented sends (EIO)"});
    }
    for (uint32_t i = 0; i < message.count; ++i) Slot(message.first + i).alone = true;
    return true;
  }
  if (error > 0) {
    CountLost(error, message.count);
  } else {
    counters_.sent += message.count;
    counters_.sent_bytes += message.bytes;
  }
  direct_.NoteSent(Slot(message.first).path, message.count);
  for (uint32_t i = 0; i < message.count; ++i) Slot(message.first + i).done = true;
  return true;
}

}  // namespace weft::port
