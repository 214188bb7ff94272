// SPDX-License-Identifier: Apache-2.0
// UdpPort's receives: frames that a round posts and takes back, what lately came and how often the next round
// tries. Rounds, which carry them, are in udp_port.cc.
#include <netinet/udp.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "dataplane/base/attributes.h"
#include "dataplane/base/check.h"
#include "dataplane/port/udp_port.h"

namespace weft::port {
namespace {

// So many datagrams of that size without a smaller one among them are a stream, however fast they are taken.
// The kernel cuts what the peer sent as one for a socket that does not coalesce, on the sender's core where
// the wire is a veth pair.
constexpr uint32_t kLargeBytes = 1200;
constexpr uint32_t kStreamDatagrams = 64;

}  // namespace

WEFT_HOT std::size_t UdpPort::Receive(Received* burst, std::size_t count) {
  if (ready_head_ == ready_.size()) {
    if (direct_.due() && held_ == 0) [[unlikely]]
      ReviewDirect();
    if (send_head_ != send_tail_ || !ReceiveAlone()) Round(true);
  }
  std::size_t given = 0;
  while (given < count && ready_head_ < ready_.size()) {
    const uint32_t index = ready_[ready_head_];
    ReceiveFrame& frame = receive_[index];
    const uint32_t at = frame.given * frame.segment;
    burst[given++] = {frame.data + at, std::min(frame.segment, frame.bytes - at), index};
    if (++frame.given == frame.parts) {
      ++held_;
      ++ready_head_;
    }
  }
  if (ready_head_ == ready_.size()) {
    ready_.clear();
    ready_head_ = 0;
  }
  return given;
}

WEFT_HOT void UdpPort::Release(const Received* burst, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    ReceiveFrame& frame = receive_[burst[i].frame];
    WEFT_CHECK(frame.held > 0);
    if (--frame.held > 0) continue;
    --held_;
    free_.push_back(burst[i].frame);
  }
}

Address UdpPort::SourceOf(const Received& received) const {
  const ReceiveFrame& frame = receive_[received.frame];
  // The peer changes only while no frame is out.
  if (frame.header.msg_name == nullptr) return direct_.peer();
  return Address::FromSockaddr(reinterpret_cast<const sockaddr*>(&frame.source));
}

// What Round(true) comes to where nothing waits to be sent and one attempt is due, without messages and
// headers, by one system call: most rounds of a port that polls. False, and nothing done, where there is more
// to it.
WEFT_HOT bool UdpPort::ReceiveAlone() {
  if (coalescing_ || free_.empty() || attempts_[0].a_round > 1 || attempts_[1].a_round > 1) return false;
  const bool direct = direct_.TakesTurn();
  const uint32_t index = free_.back();
  ReceiveFrame& frame = receive_[index];
  const bool named = !direct || !direct_.sources_known();
  socklen_t name_bytes = sizeof(sockaddr_in6);
  frame.header.msg_name = named ? &frame.source : nullptr;
  frame.header.msg_controllen = 0;
  const ssize_t received =
      recvfrom(direct ? direct_.fd() : socket_.get(), frame.data, kReceiveFrameBytes, MSG_DONTWAIT,
               static_cast<sockaddr*>(frame.header.msg_name), named ? &name_bytes : nullptr);
  if (received < 0 && errno == EAGAIN) {
    direct_.NoteReceived(direct, 0, /*empty=*/true);
    attempts_[direct].had_all = false;
    return true;
  }
  free_.pop_back();
  TakeReceiveResult(index, direct, received < 0 ? -errno : static_cast<int>(received));
  const std::size_t arrived = received < 0 ? 0 : 1;
  direct_.NoteReceived(direct, arrived, /*empty=*/false);
  NoteArrivals(direct, arrived, 1);
  return true;
}

WEFT_HOT std::size_t UdpPort::PostReceives(bool direct) {
  const std::size_t count = std::min(attempts_[direct].a_round, free_.size());
  const bool named = !direct || !direct_.sources_known();
  for (std::size_t i = 0; i < count; ++i) {
    const uint32_t index = free_.back();
    free_.pop_back();
    ReceiveFrame& frame = receive_[index];
    frame.vector = {frame.data, kReceiveFrameBytes};
    frame.header = {};
    if (named) {
      frame.header.msg_name = &frame.source;
      frame.header.msg_namelen = sizeof(sockaddr_in6);
    }
    frame.header.msg_iov = &frame.vector;
    frame.header.msg_iovlen = 1;
    if (coalescing_) {
      frame.header.msg_control = frame.control;
      frame.header.msg_controllen = sizeof(frame.control);
    }
    posted_[i] = index;
    receive_headers_[i] = &frame.header;
  }
  return count;
}

WEFT_HOT void UdpPort::TakeReceiveResult(uint32_t index, bool direct, int result) {
  ReceiveFrame& frame = receive_[index];
  if (result < 0) {
    // The direct socket also tells what became of what was sent (ICMP).
    if (result != -EAGAIN && result != -EWOULDBLOCK && result != -EINTR && !direct)
      ++counters_.receive_errors;
    free_.push_back(index);
    return;
  }
  frame.bytes = static_cast<uint32_t>(result);
  frame.segment = frame.bytes;
  if (frame.header.msg_controllen > 0) {
    for (cmsghdr* c = CMSG_FIRSTHDR(&frame.header); c != nullptr; c = CMSG_NXTHDR(&frame.header, c)) {
      if (c->cmsg_level != IPPROTO_UDP || c->cmsg_type != UDP_GRO) continue;
      int segment;
      std::memcpy(&segment, CMSG_DATA(c), sizeof(segment));
      if (segment > 0) frame.segment = static_cast<uint32_t>(segment);
    }
  }
  large_in_a_row_ = frame.segment >= kLargeBytes ? large_in_a_row_ + 1 : 0;
  frame.given = 0;
  frame.parts = frame.bytes == 0 ? 1 : (frame.bytes + frame.segment - 1) / frame.segment;
  frame.held = frame.parts;
  counters_.received += frame.parts;
  counters_.received_bytes += frame.bytes;
  ready_.push_back(index);
}

// As many attempts as lately had something, and one more: at low load one, in a stream many. From one to two
// only where a second attempt in a row brought something: else the answer to what came would be sent with
// attempts to receive, which find nothing and cost a ring's enter instead of a plain call.
WEFT_HOT void UdpPort::NoteArrivals(bool direct, std::size_t arrived, std::size_t attempts) {
  Attempts& next = attempts_[direct];
  const bool all = arrived == attempts;
  if (all && (attempts > 1 || next.had_all)) {
    next.a_round = std::min(2 * attempts, kRoundReceivesMax);
  } else {
    next.a_round = attempts > 1 ? std::min(arrived + 1, kRoundReceivesMax) : 1;
  }
  next.had_all = all;
  const bool stream = next.a_round == kRoundReceivesMax || large_in_a_row_ >= kStreamDatagrams;
  if (stream && may_coalesce_) Coalesce();
}

}  // namespace weft::port
