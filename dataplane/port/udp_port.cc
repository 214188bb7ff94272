// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/udp_port.h"

#include <netinet/udp.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/attributes.h"
#include "dataplane/base/status.h"
#include "dataplane/port/udp_socket.h"

namespace weft::port {
namespace {

// Invalid where there is none: then all use the port's own socket.
UniqueFd MakeTwin(int socket, UniqueFd given, const UdpPort::Options& options, PortStatus* status) {
  absl::StatusOr<UniqueFd> twin = absl::FailedPreconditionError("its worker would be chosen by the peer");
  if (given.valid()) {
    twin = std::move(given);
  } else if (options.workers <= 1) {
    twin = TwinOf(socket);
  }
  if (!twin.ok()) {
    status->choices.push_back({"connected socket", "no", std::string(twin.status().message())});
    return UniqueFd();
  }
  PortStatus alike;  // As the first one's.
  SetUpSocket(twin->get(), &alike);
  status->choices.push_back({"connected socket", "for the peer that gets nearly all",
                             "saves a look at the routes for each datagram, both ways"});
  return *std::move(twin);
}

std::size_t StrideOf(std::size_t bytes) { return (bytes + kCacheLineBytes - 1) & ~(kCacheLineBytes - 1); }

}  // namespace

absl::StatusOr<std::unique_ptr<UdpPort>> UdpPort::Create(Options options) {
  if (!std::has_single_bit(options.send_depth)) {
    return absl::InvalidArgumentError("a UDP port's send depth is a power of two");
  }
  if (options.receive_frames == 0)
    return absl::InvalidArgumentError("a UDP port needs a frame to receive into");
  PortStatus status;
  UniqueFd socket = std::move(options.socket);
  if (!socket.valid()) {
    WEFT_ASSIGN_OR_RETURN(socket, BindUdp(options.local, options.workers, &status));
  }
  WEFT_ASSIGN_OR_RETURN(const Address local, LocalAddressOf(socket.get()));
  status.detail = local.ToString();
  SetUpSocket(socket.get(), &status);
  UniqueFd twin = MakeTwin(socket.get(), std::move(options.twin), options, &status);
  WEFT_ASSIGN_OR_RETURN(SleepWatch sleep, SleepWatch::Create());
  return std::unique_ptr<UdpPort>(new UdpPort(std::move(options), std::move(socket), std::move(twin),
                                              std::move(sleep), local, std::move(status)));
}

UdpPort::UdpPort(Options options, UniqueFd socket, UniqueFd twin, SleepWatch sleep, Address local,
                 PortStatus status)
    : socket_(std::move(socket)),
      sleep_(std::move(sleep)),
      local_(local),
      datagram_bytes_max_(options.datagram_bytes_max),
      send_mask_(options.send_depth - 1),
      status_(std::move(status)),
      receive_memory_(new uint8_t[options.receive_frames * kReceiveFrameBytes]),
      receive_(options.receive_frames),
      send_memory_(new uint8_t[options.send_depth * StrideOf(options.datagram_bytes_max)]),
      send_(options.send_depth),
      send_vectors_(options.send_depth) {
  int family = AF_INET;
  socklen_t family_bytes = sizeof(family);
  getsockopt(socket_.get(), SOL_SOCKET, SO_DOMAIN, &family, &family_bytes);
  family_ = static_cast<sa_family_t>(family);
  if (twin.valid()) direct_ = DirectSocket(std::move(twin), family_, local_);
  segmentation_ = HasSegmentation(socket_.get(), &status_);
  may_coalesce_ = options.workers <= 1;
  if (!may_coalesce_) {
    status_.choices.push_back(
        {"UDP_GRO", "off", "the worker would be chosen by the first of several datagrams"});
  }
  free_.reserve(receive_.size());
  ready_.reserve(receive_.size());
  for (std::size_t i = receive_.size(); i-- > 0;) {
    receive_[i].data = receive_memory_.get() + i * kReceiveFrameBytes;
    free_.push_back(static_cast<uint32_t>(i));
  }
  for (std::size_t i = 0; i < send_.size(); ++i) {
    send_[i] = {.data = send_memory_.get() + i * StrideOf(datagram_bytes_max_)};
  }
  status_.port = "udp";
  if (!options.use_io_uring) {
    status_.choices.push_back({"io_uring", "not used", "plain system calls were asked for"});
    return;
  }
  absl::StatusOr<std::unique_ptr<UdpRing>> ring = UdpRing::Create(socket_.get(), direct_.fd(), &status_);
  if (!ring.ok()) {
    status_.fell_back = true;
    status_.choices.push_back(
        {"io_uring", "not used: plain UDP system calls", std::string(ring.status().message())});
    return;
  }
  ring_ = *std::move(ring);
  status_.port = "io_uring";
}

// ---- Paths.

absl::StatusOr<UdpPort::Target> UdpPort::TargetOf(const Address& address, std::size_t bytes_least) const {
  Target target{.address = address};
  target.name_bytes = address.ToSockaddr(family_, &target.name);
  if (target.name_bytes == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the IPv4 port ", local_.ToString(), " cannot reach ", address.ToString()));
  }
  // Where there is no way yet the path may still be named: it works once there is one.
  const absl::StatusOr<uint32_t> fits = DatagramBytesTo(local_, address);
  if (fits.ok()) WEFT_RETURN_IF_ERROR(CheckCarries(local_, address, *fits, bytes_least, datagram_bytes_max_));
  return target;
}

absl::StatusOr<uint64_t> UdpPort::AddPath(const Address& address, std::size_t bytes_least) {
  WEFT_ASSIGN_OR_RETURN(const Target target, TargetOf(address, bytes_least));
  return paths_.Add(target);
}

absl::Status UdpPort::SetPath(uint64_t path, const Address& address, std::size_t bytes_least) {
  Target* const known = paths_.Find(path);
  if (known == nullptr) return absl::NotFoundError(absl::StrCat("no path ", path));
  WEFT_ASSIGN_OR_RETURN(*known, TargetOf(address, bytes_least));
  if (direct_.Carries(path)) direct_.Part();
  return absl::OkStatus();
}

void UdpPort::RemovePath(uint64_t path) {
  paths_.Remove(path);
  if (direct_.Carries(path)) direct_.Part();
}

void UdpPort::ReviewDirect() {
  const uint64_t path = direct_.Review();
  const Target* const target = paths_.Find(path);
  // Where the kernel refuses, the next window asks again.
  if (target != nullptr) (void)direct_.Lead(path, target->address, target->name, target->name_bytes);
}

// ---- Rounds.

// Sends what is finished, as far as a round takes it, and tries to receive where that is wanted; by one
// system call, but for a kernel without io_uring. Returns how many sends were settled.
WEFT_HOT std::size_t UdpPort::Round(bool receive) {
  std::size_t sends = BuildMessages();
  // A path that was removed has no name to send to.
  for (std::size_t i = 0; i < sends;) {
    if (messages_[i].way != Message::kNowhere) {
      ++i;
      continue;
    }
    counters_.lost_unknown_path += messages_[i].count;
    for (uint32_t k = 0; k < messages_[i].count; ++k) Slot(messages_[i].first + k).done = true;
    std::move(messages_ + i + 1, messages_ + sends, messages_ + i);
    --sends;
    FinishMessages(sends);
  }
  const bool direct = receive && direct_.TakesTurn();
  const std::size_t receives = receive ? PostReceives(direct) : 0;
  int error = 0;
  // One operation alone is cheaper as a system call of its own than by a ring.
  if (ring_ == nullptr || sends + receives <= 1) {
    RoundBySystemCalls(sends, receives, direct);
  } else if (!ring_->Round(send_headers_, send_results_, sends, receive_headers_, receive_results_, receives,
                           direct, &error)) {
    LeaveRing(error);
    for (std::size_t i = 0; i < receives; ++i) free_.push_back(posted_[i]);
    return 0;
  }
  std::size_t settled = 0;
  for (std::size_t i = 0; i < sends; ++i) {
    settled += TakeSendResult(messages_[i], send_results_[i]) ? 1 : 0;
  }
  while (send_head_ != send_tail_ && Slot(send_head_).done) ++send_head_;
  std::size_t arrived = 0;
  for (std::size_t i = 0; i < receives; ++i) {
    TakeReceiveResult(posted_[i], direct, receive_results_[i]);
    arrived += receive_results_[i] >= 0 ? 1 : 0;
  }
  if (receives == 0) return settled;
  direct_.NoteReceived(direct, arrived, receive_results_[receives - 1] == -EAGAIN);
  NoteArrivals(direct, arrived, receives);
  return settled;
}

WEFT_HOT void UdpPort::RoundBySystemCalls(std::size_t sends, std::size_t receives, bool direct) {
  for (std::size_t i = 0; i < sends; ++i) {
    const msghdr& header = send_headers_[i].msg_hdr;
    const int fd = messages_[i].way == Message::kDirect ? direct_.fd() : socket_.get();
    const ssize_t sent =
        messages_[i].count > 1
            ? sendmsg(fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL)
            : sendto(fd, header.msg_iov->iov_base, header.msg_iov->iov_len, MSG_DONTWAIT | MSG_NOSIGNAL,
                     static_cast<const sockaddr*>(header.msg_name), header.msg_namelen);
    send_results_[i] = sent < 0 ? -errno : static_cast<int>(sent);
  }
  bool empty = false;
  const int fd = direct ? direct_.fd() : socket_.get();
  for (std::size_t i = 0; i < receives; ++i) {
    msghdr& header = *receive_headers_[i];
    ssize_t received = -1;
    if (!empty && coalescing_) {
      received = recvmsg(fd, &header, MSG_DONTWAIT);
    } else if (!empty) {
      received = recvfrom(fd, header.msg_iov->iov_base, header.msg_iov->iov_len, MSG_DONTWAIT,
                          static_cast<sockaddr*>(header.msg_name),
                          header.msg_name == nullptr ? nullptr : &header.msg_namelen);
    }
    receive_results_[i] = received >= 0 ? static_cast<int>(received) : empty ? -EAGAIN : -errno;
    // Before what waits comes the kernel's word on what was sent (ICMP).
    empty = receive_results_[i] == -EAGAIN;
  }
}

// From the first stream on the kernel may hand over several datagrams as one. Before, single ones are
// received without the control message that tells their size, which costs more than it brings.
void UdpPort::Coalesce() {
  may_coalesce_ = false;
  const int on = 1;
  coalescing_ = setsockopt(socket_.get(), IPPROTO_UDP, UDP_GRO, &on, sizeof(on)) == 0;
  if (coalescing_ && direct_.fd() >= 0)
    (void)setsockopt(direct_.fd(), IPPROTO_UDP, UDP_GRO, &on, sizeof(on));  // Else it gets single ones.
  status_.choices.push_back(
      {"UDP_GRO", coalescing_ ? "on" : "off",
       coalescing_ ? "there was a stream: several datagrams arrive by one receive" : std::strerror(errno)});
}

void UdpPort::LeaveRing(int error) {
  ring_.reset();
  status_.port = "udp";
  status_.fell_back = true;
  status_.choices.push_back({"io_uring", "given up: plain UDP system calls", std::strerror(error)});
}

bool UdpPort::PrepareSleep() {
  if (send_head_ != send_tail_) Flush();
  return send_head_ == send_tail_ && ready_head_ == ready_.size() &&
         sleep_.Arm(socket_.get(), direct_.open() ? direct_.fd() : -1);
}

FrameCounts UdpPort::frames() const {
  FrameCounts counts;
  counts.receive.total = static_cast<uint32_t>(receive_.size());
  counts.receive.free = static_cast<uint32_t>(free_.size());
  counts.receive.queued = static_cast<uint32_t>(ready_.size() - ready_head_);
  counts.receive.with_caller = held_;
  counts.send.total = static_cast<uint32_t>(send_.size());
  for (std::size_t number = send_head_; number != send_tail_; ++number) {
    counts.send.queued += send_[number & send_mask_].done ? 0 : 1;
  }
  counts.send.free = counts.send.total - counts.send.queued;
  return counts;
}

}  // namespace weft::port
