// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/af_xdp_port.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "dataplane/base/attributes.h"
#include "dataplane/base/check.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"

namespace weft::port {
namespace {

constexpr uint32_t kIdlePollsPerLook = 1024;
// Two bursts.
constexpr std::size_t kReleasedMax = 64;
// A small message with its headers, and the beginning of a large one.
constexpr uint32_t kPrefetchBytes = 256;
// Of a packet that has yet to come: a call of 64 B with its headers.
constexpr uint32_t kAheadBytes = 192;
// A look reads one line, the rest of an engine's turn many: a packet is found sooner by several looks a turn.
constexpr uint32_t kLooks = 16;
// A neighbour that does not answer is asked for again after the first; one that goes stale is confirmed by
// the second, as the kernel would if it sent there itself.
constexpr uint64_t kAskAgainNs = 100 * kNsPerMs;
constexpr uint64_t kConfirmNs = 10 * kNsPerSecond;
constexpr uint64_t kNeverAsked = 0;

}  // namespace

// ---- Paths.

absl::Status AfXdpPort::Resolve(Path* path) {
  path->headers = {};
  WEFT_ASSIGN_OR_RETURN(const NextHop hop, hops_->Find(path->peer, local_));
  const std::size_t headers = IpHeadersBytes(path->peer);
  path->datagram_bytes_max = static_cast<uint32_t>(hop.mtu > headers ? hop.mtu - headers : 0);
  const uint64_t now_ns = NowNs();
  if ((!hop.known && now_ns - path->asked_ns > kAskAgainNs) ||
      (!hop.fresh && now_ns - path->asked_ns > kConfirmNs)) {
    path->asked_ns = now_ns;
    hops_->Ask(path->peer);
  }
  if (hop.known) {
    Address source = hop.source;
    source.port = local_.port;
    path->headers = MakeHeaders(hops_->mac(), hop.mac, source, path->peer);
  }
  return absl::OkStatus();
}

absl::StatusOr<AfXdpPort::Path> AfXdpPort::NewPath(const Address& address, std::size_t bytes_least) {
  Path path{.peer = address, .asked_ns = kNeverAsked};
  absl::Status status = Resolve(&path);
  // Where there is no route yet the path may still be named: it works once there is one.
  if (absl::IsUnavailable(status)) return path;
  if (status.ok())
    status = CheckCarries(local_, address, path.datagram_bytes_max, bytes_least, datagram_bytes_max_);
  if (!status.ok()) return status;
  return path;
}

absl::StatusOr<uint64_t> AfXdpPort::AddPath(const Address& address, std::size_t bytes_least) {
  Refresh();
  WEFT_ASSIGN_OR_RETURN(const Path path, NewPath(address, bytes_least));
  return paths_.Add(path);
}

absl::Status AfXdpPort::SetPath(uint64_t id, const Address& address, std::size_t bytes_least) {
  Path* const known = paths_.Find(id);
  if (known == nullptr) return absl::NotFoundError(absl::StrCat("no path ", id));
  WEFT_ASSIGN_OR_RETURN(*known, NewPath(address, bytes_least));
  return absl::OkStatus();
}

// Off the packet path: follows what the kernel has changed, and asks for what it does not know.
void AfXdpPort::Refresh() {
  if (!hops_->TakeChanges()) return;
  paths_.ForEach([this](Path& path) { (void)Resolve(&path); });
}

// ---- Receiving.

WEFT_HOT const uint8_t* AfXdpPort::NextPacket() const {
  return xsk_->at(*xsk_ring_prod__fill_addr(&xsk_->fill, next_fill_place_) + data_offset_);
}

WEFT_HOT uint32_t AfXdpPort::Look(uint32_t count, uint32_t* first) {
  uint32_t got = 0;
  for (uint32_t looks = 0; got == 0 && looks < kLooks; ++looks) {
    got = xsk_ring_cons__peek(&xsk_->rx, count, first);
  }
  return got;
}

// Fetches the lines that the next packet will be in. The kernel, on the sender's core, writes a packet, then
// its descriptor, and a good while later, at the end of its batch, how many there are; a receiver that only
// polls the latter fetches the three one after the other, each when it has the one before. Polling in between
// has the first two here by then. A hint: where the kernel takes another frame, a fetch is in vain. Inline
// always: a function that does nothing else is one without effect to GCC, which then leaves out its calls.
WEFT_HOT_INLINE void AfXdpPort::FetchAhead() const {
  __builtin_prefetch(xsk_ring_cons__rx_desc(&xsk_->rx, xsk_->rx.cached_cons));
  const uint8_t* const packet = NextPacket();
  for (uint32_t at = 0; at < kAheadBytes; at += kCacheLineBytes) __builtin_prefetch(packet + at);
}

WEFT_HOT std::size_t AfXdpPort::Receive(Received* burst, std::size_t count) {
  if (released_.size() >= kReleasedMax) GiveBack();
  uint32_t first = 0;
  const uint32_t got = Look(static_cast<uint32_t>(count), &first);
  if (got == 0) {
    GiveBack();
    FetchAhead();
    if (xsk_ring_prod__needs_wakeup(&xsk_->fill))
      recvfrom(xsk_->fd(), nullptr, 0, MSG_DONTWAIT, nullptr, nullptr);
    if (++idle_polls_ % kIdlePollsPerLook == 0) Refresh();
    return 0;
  }
  // The sender's core has them: all at once rather than line by line.
  for (uint32_t i = 0; i < got; ++i) {
    const xdp_desc* const descriptor = xsk_ring_cons__rx_desc(&xsk_->rx, first + i);
    const uint32_t ahead = std::min<uint32_t>(descriptor->len, kPrefetchBytes);
    for (uint32_t at = 0; at < ahead; at += kCacheLineBytes)
      __builtin_prefetch(xsk_->at(descriptor->addr) + at);
  }
  std::size_t given = 0;
  for (uint32_t i = 0; i < got; ++i) {
    const xdp_desc* const descriptor = xsk_ring_cons__rx_desc(&xsk_->rx, first + i);
    const auto frame = static_cast<uint32_t>(descriptor->addr / xsk_->frame_bytes());
    const uint8_t* const data = xsk_->at(descriptor->addr);
    const ParsedFrame parsed = ParseFrame(data, descriptor->len, local_.port);
    WEFT_CHECK(frame < parsed_.size());
    parsed_[frame] = parsed;
    ++held_;
    if (parsed.offset == 0) {
      ++counters_.receive_invalid;
      const Received invalid{data, 0, frame};
      Release(&invalid, 1);
      continue;
    }
    counters_.received_bytes += parsed.bytes;
    burst[given++] = {data + parsed.offset, parsed.bytes, frame};
  }
  const uint64_t last = xsk_ring_cons__rx_desc(&xsk_->rx, first + got - 1)->addr;
  next_fill_place_ = fill_places_[last / xsk_->frame_bytes()] + 1;
  data_offset_ = static_cast<uint32_t>(last % xsk_->frame_bytes());
  xsk_ring_cons__release(&xsk_->rx, got);
  counters_.received += given;
  return given;
}

WEFT_HOT void AfXdpPort::Release(const Received* burst, std::size_t count) {
  WEFT_CHECK(count <= held_);
  held_ -= static_cast<uint32_t>(count);
  for (std::size_t i = 0; i < count; ++i) released_.push_back(burst[i].frame);
}

// The fill ring's lines are in the cache of the core that the kernel fills frames on: what is written there
// just before a send is waited for by the send. So frames go back after it.
WEFT_HOT void AfXdpPort::GiveBack() {
  if (released_.empty()) return;
  const auto count = static_cast<uint32_t>(released_.size());
  uint32_t first = 0;
  // The fill ring has room for every receive frame there is, twice.
  WEFT_CHECK(xsk_ring_prod__reserve(&xsk_->fill, count, &first) == count);
  for (uint32_t i = 0; i < count; ++i) {
    fill_places_[released_[i]] = first + i;
    *xsk_ring_prod__fill_addr(&xsk_->fill, first + i) =
        static_cast<uint64_t>(released_[i]) * xsk_->frame_bytes();
  }
  xsk_ring_prod__submit(&xsk_->fill, count);
  released_.clear();
}

Address AfXdpPort::SourceOf(const Received& received) const {
  const ParsedFrame& parsed = parsed_[received.frame];
  return SourceOfFrame(received.data - parsed.offset, parsed);
}

// ---- Sending.

WEFT_HOT void AfXdpPort::ReclaimSent() {
  uint32_t first = 0;
  const uint32_t done = xsk_ring_cons__peek(&xsk_->completion, xsk_->options().send_frames, &first);
  for (uint32_t i = 0; i < done; ++i) {
    free_.push_back(
        static_cast<uint32_t>(*xsk_ring_cons__comp_addr(&xsk_->completion, first + i) / xsk_->frame_bytes()));
  }
  if (done > 0) xsk_ring_cons__release(&xsk_->completion, done);
  sent_ -= done;
}

WEFT_HOT uint8_t* AfXdpPort::BeginSend() {
  if (free_.empty()) {
    ReclaimSent();
    if (free_.empty()) return nullptr;
  }
  return xsk_->at(static_cast<uint64_t>(free_.back()) * xsk_->frame_bytes()) + kHeadersRoomBytes;
}

WEFT_HOT void AfXdpPort::FinishSend(uint64_t id, std::size_t bytes) {
  WEFT_CHECK(bytes <= datagram_bytes_max_ && !free_.empty());
  Path* const path = paths_.Find(id);
  if (path == nullptr) {
    ++counters_.lost_unknown_path;
    return;
  }
  if (path->headers.size == 0) {
    // Off the beaten path: system calls are all right here.
    Refresh();
    if (path->headers.size == 0 && NowNs() - path->asked_ns > kAskAgainNs) (void)Resolve(path);
    if (path->headers.size == 0) {
      ++counters_.lost_unreachable;
      return;
    }
  }
  if (bytes > path->datagram_bytes_max) {
    ++counters_.lost_too_long;
    return;
  }
  uint32_t place = 0;
  // The tx ring has room for every send frame there is, twice.
  WEFT_CHECK(xsk_ring_prod__reserve(&xsk_->tx, 1, &place) == 1);
  const uint64_t address = static_cast<uint64_t>(free_.back()) * xsk_->frame_bytes() + kHeadersRoomBytes;
  free_.pop_back();
  WriteHeaders(path->headers, xsk_->at(address), bytes);
  xdp_desc* const descriptor = xsk_ring_prod__tx_desc(&xsk_->tx, place);
  descriptor->addr = address - path->headers.size;
  descriptor->len = static_cast<uint32_t>(bytes) + path->headers.size;
  descriptor->options = 0;
  ++finished_;
  ++counters_.sent;
  counters_.sent_bytes += bytes;
}

uint32_t AfXdpPort::InTxRing() const {
  return *xsk_->tx.producer - __atomic_load_n(xsk_->tx.consumer, __ATOMIC_ACQUIRE);
}

WEFT_HOT void AfXdpPort::Flush() {
  device_down_ = false;
  if (finished_ > 0) {
    xsk_ring_prod__submit(&xsk_->tx, finished_);
    sent_ += finished_;
    finished_ = 0;
  }
  // In copy mode the call itself sends; a zero-copy driver needs it only where it says so. Each try takes a
  // batch or, on a link without carrier, drops one packet, so this bound is reached only where the device
  // takes nothing.
  const uint32_t tries_max = InTxRing() + 1;
  for (uint32_t tries = 0; tries < tries_max && InTxRing() > 0; ++tries) {
    if (!xsk_ring_prod__needs_wakeup(&xsk_->tx)) break;
    const uint32_t before = InTxRing();
    if (sendto(xsk_->fd(), nullptr, 0, MSG_DONTWAIT, nullptr, 0) >= 0) continue;
    if (errno == EBUSY && InTxRing() < before) {
      ++counters_.lost_unreachable;  // Dropped by the device: no carrier, or its queue is full.
    } else if (errno != EAGAIN && errno != EINTR && errno != EBUSY) {
      // ENETDOWN and its like: the ring keeps what it has until the interface is back.
      ++counters_.send_busy;
      device_down_ = true;
      if (errno == ENXIO) gone_ = true;
      break;
    } else if (InTxRing() == before) {
      ++counters_.send_busy;
      break;
    }
  }
  ReclaimSent();
  GiveBack();
}

bool AfXdpPort::PrepareSleep() {
  Flush();
  Refresh();
  if (xsk_ring_prod__needs_wakeup(&xsk_->fill))
    recvfrom(xsk_->fd(), nullptr, 0, MSG_DONTWAIT, nullptr, nullptr);
  // A device that is down takes nothing: the kernel tells of its return by netlink, which ends the sleep.
  return (InTxRing() == 0 || device_down_) &&
         __atomic_load_n(xsk_->rx.producer, __ATOMIC_ACQUIRE) == *xsk_->rx.consumer && sleep_.Arm(xsk_->fd());
}

FrameCounts AfXdpPort::frames() const {
  FrameCounts counts;
  const XskOptions& options = xsk_->options();
  counts.receive.total = options.receive_frames;
  counts.receive.queued = __atomic_load_n(xsk_->rx.producer, __ATOMIC_ACQUIRE) - *xsk_->rx.consumer;
  counts.receive.with_caller = held_;
  counts.receive.free = static_cast<uint32_t>(released_.size());
  const uint32_t posted = *xsk_->fill.producer - __atomic_load_n(xsk_->fill.consumer, __ATOMIC_ACQUIRE);
  // In copy mode no frame is anywhere else; a zero-copy driver holds some in its own rings.
  counts.receive.with_kernel = xsk_->zero_copy() ? counts.receive.total - counts.receive.queued -
                                                       counts.receive.with_caller - counts.receive.free
                                                 : posted;
  counts.send.total = options.send_frames;
  counts.send.free = static_cast<uint32_t>(free_.size());
  counts.send.queued = finished_;
  counts.send.with_kernel = sent_;
  return counts;
}

}  // namespace weft::port
