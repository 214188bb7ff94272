// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/dpdk_port.h"

#include <rte_config.h>
#undef RTE_USE_LIBBSD  // It would take libbsd-dev for strlcpy, of which DPDK has its own.

#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/attributes.h"
#include "dataplane/base/check.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "dataplane/port/neighbour_frames.h"

namespace weft::port {
namespace {

static_assert(RTE_PKTMBUF_HEADROOM >= kHeadersRoomBytes);

constexpr std::size_t kBurst = 32;
// An empty poll takes about 20 ns: 20 us.
constexpr uint32_t kIdlePollsPerTick = 1024;
constexpr uint64_t kTickNs = 10 * kNsPerMs;
// A neighbour that does not answer is asked again after the first, one that has is confirmed by the second.
constexpr uint64_t kAskAgainNs = 100 * kNsPerMs;
constexpr uint64_t kConfirmNs = 30 * kNsPerSecond;
constexpr uint64_t kReconnectNs = 200 * kNsPerMs;

bool SameIp(const Address& a, const Address& b) { return std::memcmp(a.ip, b.ip, sizeof(a.ip)) == 0; }

}  // namespace

absl::StatusOr<std::unique_ptr<DpdkPort>> DpdkPort::Create(const Options& options) {
  const std::string& name = options.device.device;
  if (options.local.is_any() || options.local.port == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("DPDK device ", name, ": its address on the link must be told, as in 192.0.2.1:4810"));
  }
  PortStatus status;
  status.port = "dpdk";
  status.detail = absl::StrCat(name.empty() ? "net_ring" : name, ", ", options.local.ToString());
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<DpdkDevice> device, DpdkDevice::Create(options.device, &status));
  std::unique_ptr<NextHops> hops;
  if (!device->interface().empty()) {
    WEFT_ASSIGN_OR_RETURN(hops, NextHops::Create(device->interface()));
  }
  const uint32_t mtu = hops != nullptr ? hops->mtu() : device->mtu();
  if (mtu < options.datagram_bytes_max + IpHeadersBytes(options.local)) {
    return absl::FailedPreconditionError(absl::StrCat("DPDK device ", name, ": its MTU is ", mtu,
                                                      ": too small for datagrams of ",
                                                      options.datagram_bytes_max, " bytes"));
  }
  status.choices.push_back({"waiting",
                            absl::StrCat("looks every ", kIdleStepFirstNs / kNsPerUs, " us to ",
                                         kIdleStepLastNs / kNsPerUs, " us when idle"),
                            "no descriptor of the device tells of a packet"});
  std::unique_ptr<DpdkPort> port(new DpdkPort(options, std::move(device), std::move(hops)));
  port->status_ = std::move(status);
  port->reconnected_ns_ = NowNs();
  port->Tick();
  return port;
}

DpdkPort::DpdkPort(const Options& options, std::unique_ptr<DpdkDevice> device, std::unique_ptr<NextHops> hops)
    : local_(options.local),
      datagram_bytes_max_(options.datagram_bytes_max),
      device_(std::move(device)),
      hops_(std::move(hops)),
      held_(kHeldMax) {
  places_.reserve(kHeldMax);
  for (uint32_t i = kHeldMax; i-- > 0;) places_.push_back(i);
  released_.reserve(kHeldMax);
  pending_.reserve(kPendingMax);
}

DpdkPort::~DpdkPort() {
  for (const Held& held : held_) rte_pktmbuf_free(held.frame);
  FreeReleased();
  for (rte_mbuf* const frame : pending_) rte_pktmbuf_free(frame);
  rte_pktmbuf_free(begun_);
}

// ---- Paths.

absl::Status DpdkPort::Resolve(Path* path) {
  NextHop hop;
  hop.source = local_;
  hop.neighbour = path->peer;
  hop.mtu = device_->mtu();
  if (hops_ != nullptr) {
    WEFT_ASSIGN_OR_RETURN(hop, hops_->Find(path->peer, local_));
    hop.source.port = local_.port;
  }
  if (!SameIp(path->neighbour, hop.neighbour)) path->headers = {};
  path->neighbour = hop.neighbour;
  const std::size_t headers = IpHeadersBytes(path->peer);
  path->datagram_bytes_max = static_cast<uint32_t>(hop.mtu > headers ? hop.mtu - headers : 0);
  if (path->headers.size == 0 && hop.known) {
    path->headers = MakeHeaders(device_->mac(), hop.mac, hop.source, path->peer);
  }
  return absl::OkStatus();
}

absl::StatusOr<DpdkPort::Path> DpdkPort::NewPath(const Address& address, std::size_t bytes_least) {
  if (address.is_ipv4() != local_.is_ipv4()) {
    return absl::InvalidArgumentError(
        absl::StrCat(address.ToString(), " cannot be reached from ", local_.ToString(), ": another family"));
  }
  Path path{.peer = address};
  absl::Status status = Resolve(&path);
  if (status.ok())
    status = CheckCarries(local_, address, path.datagram_bytes_max, bytes_least, datagram_bytes_max_);
  // Where there is no route yet the path may still be named: it works once there is one.
  if (!status.ok() && !absl::IsUnavailable(status)) return status;
  // Its neighbour may be known from another path.
  paths_.ForEach([&](const Path& other) {
    if (other.headers.size == 0 || !SameIp(other.neighbour, path.neighbour)) return;
    uint8_t mac[6];
    std::memcpy(mac, other.headers.bytes, sizeof(mac));
    path.headers = MakeHeaders(device_->mac(), mac, local_, path.peer);
  });
  if (path.headers.size == 0) Ask(&path, NowNs());
  return path;
}

absl::StatusOr<uint64_t> DpdkPort::AddPath(const Address& address, std::size_t bytes_least) {
  WEFT_ASSIGN_OR_RETURN(const Path path, NewPath(address, bytes_least));
  return paths_.Add(path);
}

absl::Status DpdkPort::SetPath(uint64_t id, const Address& address, std::size_t bytes_least) {
  Path* const known = paths_.Find(id);
  if (known == nullptr) return absl::NotFoundError(absl::StrCat("no path ", id));
  WEFT_ASSIGN_OR_RETURN(*known, NewPath(address, bytes_least));
  return absl::OkStatus();
}

bool DpdkPort::Ready(uint64_t id) {
  const Path* const path = paths_.Find(id);
  return path != nullptr && path->headers.size != 0 && device_->LinkUp();
}

void DpdkPort::Ask(Path* path, uint64_t now_ns) {
  path->asked_ns = now_ns;
  uint8_t frame[kNeighbourFrameBytesMax];
  SendNow(frame, WriteQuestion(frame, device_->mac(), local_, path->neighbour));
}

void DpdkPort::Learn(const Address& address, const uint8_t (&mac)[6]) {
  paths_.ForEach([&](Path& path) {
    if (!SameIp(path.neighbour, address)) return;
    path.headers = MakeHeaders(device_->mac(), mac, local_, path.peer);
  });
}

void DpdkPort::SendNow(const uint8_t* frame, std::size_t bytes) {
  rte_mbuf* out = rte_pktmbuf_alloc(device_->pool());
  if (out == nullptr || !device_->started()) return rte_pktmbuf_free(out);
  std::memcpy(rte_pktmbuf_mtod(out, uint8_t*), frame, bytes);
  out->data_len = static_cast<uint16_t>(bytes);
  out->pkt_len = static_cast<uint32_t>(bytes);
  if (rte_eth_tx_burst(device_->id(), 0, &out, 1) == 0) rte_pktmbuf_free(out);
}

// What came and is no datagram for this port.
void DpdkPort::OnOtherFrame(const uint8_t* frame, std::size_t bytes) {
  const NeighbourMessage message = ParseNeighbour(frame, bytes);
  if (message.kind == NeighbourMessage::Kind::kNone) {
    ++counters_.receive_invalid;
    return;
  }
  if (!message.has_mac) return;
  // A question tells of its sender too.
  const Address& whose = message.kind == NeighbourMessage::Kind::kAnswer ? message.subject : message.sender;
  if (!whose.is_any() && !SameIp(whose, local_)) Learn(whose, message.mac);
  if (message.kind == NeighbourMessage::Kind::kQuestion && SameIp(message.subject, local_) &&
      !whose.is_any()) {
    uint8_t answer[kNeighbourFrameBytesMax];
    SendNow(answer, WriteAnswer(answer, device_->mac(), local_, message.sender, message.mac));
  }
}

void DpdkPort::Tick() {
  const uint64_t now_ns = NowNs();
  if (now_ns - ticked_ns_ < kTickNs) return;
  ticked_ns_ = now_ns;
  const bool up = device_->LinkUp();
  if (!up && now_ns - reconnected_ns_ > kReconnectNs) {
    reconnected_ns_ = now_ns;
    device_->Reconnect();
  }
  if (up && !link_up_) {
    uint8_t frame[kNeighbourFrameBytesMax];
    SendNow(frame, WriteAnnouncement(frame, device_->mac(), local_));
  }
  const bool changed = (hops_ != nullptr && hops_->TakeChanges()) || up != link_up_;
  link_up_ = up;
  paths_.ForEach([&](Path& path) {
    if (changed) (void)Resolve(&path);
    if (up && now_ns - path.asked_ns > (path.headers.size == 0 ? kAskAgainNs : kConfirmNs))
      Ask(&path, now_ns);
  });
}

// ---- Receiving.

WEFT_HOT std::size_t DpdkPort::Receive(Received* burst, std::size_t count) {
  DpdkDevice::RegisterThread();
  rte_mbuf* frames[kBurst];
  if (released_.size() >= kBurst) FreeReleased();
  const std::size_t room = std::min({count, kBurst, places_.size()});
  const uint16_t got =
      device_->started() ? rte_eth_rx_burst(device_->id(), 0, frames, static_cast<uint16_t>(room)) : 0;
  if (got == 0) {
    FreeReleased();
    if (++idle_polls_ % kIdlePollsPerTick == 0) Tick();
    return 0;
  }
  idle_step_ns_ = kIdleStepFirstNs;
  std::size_t given = 0;
  for (uint16_t i = 0; i < got; ++i) {
    rte_mbuf* const frame = frames[i];
    const auto* const data = rte_pktmbuf_mtod(frame, const uint8_t*);
    // A datagram fits into one buffer; what is longer is none.
    const ParsedFrame parsed =
        frame->nb_segs == 1 ? ParseFrame(data, frame->data_len, local_.port) : ParsedFrame{};
    if (parsed.offset == 0) {
      OnOtherFrame(data, frame->data_len);
      rte_pktmbuf_free(frame);
      continue;
    }
    const uint32_t place = places_.back();
    places_.pop_back();
    held_[place] = {frame, parsed};
    counters_.received_bytes += parsed.bytes;
    burst[given++] = {data + parsed.offset, parsed.bytes, place};
  }
  counters_.received += given;
  return given;
}

WEFT_HOT void DpdkPort::Release(const Received* burst, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    Held& held = held_[burst[i].frame];
    WEFT_CHECK(held.frame != nullptr);
    released_.push_back(std::exchange(held.frame, nullptr));
    places_.push_back(burst[i].frame);
  }
}

// Frames go back to the pool when what answers them has been sent: nobody waits for it.
WEFT_HOT void DpdkPort::FreeReleased() {
  for (rte_mbuf* const frame : released_) rte_pktmbuf_free(frame);
  released_.clear();
}

Address DpdkPort::SourceOf(const Received& received) const {
  const ParsedFrame& parsed = held_[received.frame].parsed;
  return SourceOfFrame(received.data - parsed.offset, parsed);
}

// ---- Sending.

WEFT_HOT uint8_t* DpdkPort::BeginSend() {
  if (pending_.size() == kPendingMax) return nullptr;
  if (begun_ == nullptr) {
    begun_ = rte_pktmbuf_alloc(device_->pool());
    if (begun_ == nullptr) return nullptr;
  }
  return static_cast<uint8_t*>(begun_->buf_addr) + RTE_PKTMBUF_HEADROOM;
}

WEFT_HOT void DpdkPort::FinishSend(uint64_t id, std::size_t bytes) {
  WEFT_CHECK(bytes <= datagram_bytes_max_ && begun_ != nullptr);
  Path* const path = paths_.Find(id);
  if (path == nullptr) {
    ++counters_.lost_unknown_path;
    return;
  }
  if (path->headers.size == 0) {
    // Off the beaten path: the clock and a system call are all right here.
    Tick();
    const uint64_t now_ns = NowNs();
    if (path->headers.size == 0 && now_ns - path->asked_ns > kAskAgainNs) Ask(path, now_ns);
    ++counters_.lost_unreachable;
    return;
  }
  if (bytes > path->datagram_bytes_max) {
    ++counters_.lost_too_long;
    return;
  }
  rte_mbuf* const frame = std::exchange(begun_, nullptr);
  WriteHeaders(path->headers, static_cast<uint8_t*>(frame->buf_addr) + RTE_PKTMBUF_HEADROOM, bytes);
  frame->data_off = static_cast<uint16_t>(RTE_PKTMBUF_HEADROOM - path->headers.size);
  frame->data_len = static_cast<uint16_t>(bytes + path->headers.size);
  frame->pkt_len = frame->data_len;
  pending_.push_back(frame);
  ++counters_.sent;
  counters_.sent_bytes += bytes;
}

WEFT_HOT void DpdkPort::Flush() {
  std::size_t sent = 0;
  while (sent < pending_.size() && device_->started()) {
    const uint16_t took = rte_eth_tx_burst(device_->id(), 0, pending_.data() + sent,
                                           static_cast<uint16_t>(pending_.size() - sent));
    if (took == 0) break;
    sent += took;
  }
  FreeReleased();
  if (sent == pending_.size()) {
    pending_.clear();
    return;
  }
  pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(sent));
  ++counters_.send_busy;
  if (!device_->LinkUp()) DropPending();
}

// A link that is down takes nothing: what waits would be old when it is up again.
void DpdkPort::DropPending() {
  for (rte_mbuf* const frame : pending_) rte_pktmbuf_free(frame);
  counters_.lost_unreachable += pending_.size();
  counters_.sent -= pending_.size();
  pending_.clear();
}

bool DpdkPort::PrepareSleep() {
  Flush();
  Tick();
  idle_step_ns_ = std::min(2 * idle_step_ns_, kIdleStepLastNs);
  return true;  // What the device does not take now waits for the next look, no longer than a step.
}

FrameCounts DpdkPort::frames() const {
  FrameCounts counts;
  const auto gathered = static_cast<uint32_t>(pending_.size());
  counts.receive.total = device_->frames();
  // What the port has begun or gathered is no longer the device's.
  counts.receive.free = device_->frames_free() + gathered + (begun_ != nullptr ? 1 : 0) +
                        static_cast<uint32_t>(released_.size());
  counts.receive.with_caller = static_cast<uint32_t>(held_.size() - places_.size());
  counts.receive.with_kernel = counts.receive.total - counts.receive.free - counts.receive.with_caller;
  counts.send.total = kPendingMax;
  counts.send.queued = gathered;
  counts.send.free = counts.send.total - gathered;
  return counts;
}

}  // namespace weft::port
