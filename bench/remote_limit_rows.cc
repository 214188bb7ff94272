// SPDX-License-Identifier: Apache-2.0
// The limits and the kernel's ways between two nodes.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/kernel_rows.h"
#include "bench/pair_row.h"
#include "bench/remote_network.h"
#include "bench/remote_rows.h"
#include "dataplane/base/attributes.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "dataplane/port/frame_headers.h"
#include "dataplane/port/xsk.h"

namespace weft::bench {
namespace {

// A datagram of weft that carries a call of 64 B: clear header, DATA frame, tag.
constexpr std::size_t kDatagramBytes = kEncryptedCallBytes;
constexpr std::size_t kFrameBytes = port::kHeaders4Bytes + kDatagramBytes;
constexpr uint64_t kStopId = 0;
constexpr uint64_t kAnswerTimeoutNs = 2 * kNsPerSecond;

// ---- limit/af_xdp_raw

// Echoes frames in place: the frame that came is the frame that goes.
class AfXdpRawRow final : public PairRow {
 public:
  AfXdpRawRow(std::string name, RemoteNetwork::Xdp xdp, std::string note)
      : PairRow({.name = std::move(name), .bytes = 64, .note = std::move(note)}), xdp_(xdp) {}

 private:
  absl::Status Prepare() override {
    WEFT_ASSIGN_OR_RETURN(network_, RemoteNetwork::Create({.xdp = xdp_}));
    for (const int side : {kNear, kFar}) {
      port::PortStatus status;
      const test::InNamespace inside(network_->of(side));
      WEFT_ASSIGN_OR_RETURN(xsk_[side], port::Xsk::Create({.interface = test::VethPair::kInterface,
                                                           .xsks_map_fd = network_->xsks_fd(side)},
                                                          &status));
    }
    return absl::OkStatus();
  }

  // One frame at a time is under way: it is sent, and its completion taken.
  static void Send(port::Xsk& xsk, uint64_t address, std::size_t bytes) {
    uint32_t place = 0;
    while (xsk_ring_prod__reserve(&xsk.tx, 1, &place) == 0) {
    }
    xdp_desc* const descriptor = xsk_ring_prod__tx_desc(&xsk.tx, place);
    *descriptor = {.addr = address, .len = static_cast<uint32_t>(bytes), .options = 0};
    xsk_ring_prod__submit(&xsk.tx, 1);
    sendto(xsk.fd(), nullptr, 0, MSG_DONTWAIT, nullptr, 0);
  }

  // False where nothing came in time.
  static bool Receive(port::Xsk& xsk, xdp_desc* out) {
    uint32_t place = 0;
    const uint64_t begin_ns = NowNs();
    for (uint32_t polls = 1; xsk_ring_cons__peek(&xsk.rx, 1, &place) == 0; ++polls) {
      if (polls % 65536 == 0 && NowNs() - begin_ns > kAnswerTimeoutNs) return false;
    }
    *out = *xsk_ring_cons__rx_desc(&xsk.rx, place);
    xsk_ring_cons__release(&xsk.rx, 1);
    return true;
  }

  // Frames that have been sent, and those only read, go back to be filled.
  static void Recycle(port::Xsk& xsk, uint64_t address) {
    uint32_t place = 0;
    if (xsk_ring_prod__reserve(&xsk.fill, 1, &place) != 1) return;
    *xsk_ring_prod__fill_addr(&xsk.fill, place) = address & ~uint64_t{xsk.frame_bytes() - 1};
    xsk_ring_prod__submit(&xsk.fill, 1);
  }
  static void RecycleSent(port::Xsk& xsk) {
    uint32_t place = 0;
    const uint32_t done = xsk_ring_cons__peek(&xsk.completion, 64, &place);
    for (uint32_t i = 0; i < done; ++i) Recycle(xsk, *xsk_ring_cons__comp_addr(&xsk.completion, place + i));
    if (done > 0) xsk_ring_cons__release(&xsk.completion, done);
  }
  static void TakeCompleted(port::Xsk& xsk) {
    uint32_t place = 0;
    const uint32_t done = xsk_ring_cons__peek(&xsk.completion, 64, &place);
    if (done > 0) xsk_ring_cons__release(&xsk.completion, done);
  }

  static uint8_t* Payload(port::Xsk& xsk, uint64_t address) { return xsk.at(address) + port::kHeaders4Bytes; }
  static void Fill(uint8_t* payload, uint64_t id) {
    std::memcpy(payload, &id, sizeof(id));
    FillPayload(payload + sizeof(id), kDatagramBytes - sizeof(id), id);
  }
  static uint64_t Check(const uint8_t* payload, uint64_t* id) {
    std::memcpy(id, payload, sizeof(*id));
    return CheckPayload(payload + sizeof(*id), kDatagramBytes - sizeof(*id), *id) ? 0 : 1;
  }

  Worker::Reply Call(uint32_t* out, uint64_t duration_ns) override {
    port::Xsk& xsk = *xsk_[kNear];
    const uint64_t own = uint64_t{xsk.options().receive_frames} * xsk.frame_bytes();
    // The peer's address on the link does not matter to a veth, which hands over all it gets.
    constexpr uint8_t kMac[6] = {2, 0, 0, 0, 0, 1};
    const port::HeaderTemplate headers =
        port::MakeHeaders(kMac, kMac, RemoteNetwork::AddressOf(kNear), RemoteNetwork::AddressOf(kFar));
    Samples samples(out, duration_ns);
    uint64_t id = kStopId, begin_ns = 0, end_ns = 0, errors = 0, answered = 0;
    xdp_desc answer{};
    do {
      Fill(Payload(xsk, own), ++id);
      begin_ns = NowNs();
      port::WriteHeaders(headers, Payload(xsk, own), kDatagramBytes);
      Send(xsk, own, kFrameBytes);
      TakeCompleted(xsk);
      if (!Receive(xsk, &answer)) return Failed("no answer came");
      end_ns = NowNs();
      errors += Check(Payload(xsk, answer.addr), &answered) + (answered == id ? 0 : 1);
      Recycle(xsk, answer.addr);
    } while (samples.Add(begin_ns, end_ns));
    Fill(Payload(xsk, own), kStopId);
    port::WriteHeaders(headers, Payload(xsk, own), kDatagramBytes);
    Send(xsk, own, kFrameBytes);
    TakeCompleted(xsk);
    return {.messages = samples.count(),
            .samples = samples.count(),
            .elapsed_ns = samples.elapsed_ns(),
            .errors = errors};
  }

  Worker::Reply Answer() override {
    port::Xsk& xsk = *xsk_[kFar];
    uint64_t errors = 0, id = 0;
    xdp_desc request{};
    for (;;) {
      if (!Receive(xsk, &request)) return Failed("no request came");
      errors += Check(Payload(xsk, request.addr), &id);
      if (id == kStopId) {
        Recycle(xsk, request.addr);
        RecycleSent(xsk);
        return {.errors = errors};
      }
      uint8_t* const ip = xsk.at(request.addr) + port::kEthernetBytes;
      for (int i = 0; i < 4; ++i) std::swap(ip[12 + i], ip[16 + i]);  // The checksums stay right.
      Send(xsk, request.addr, request.len);
      RecycleSent(xsk);
    }
  }

  static Worker::Reply Failed(const char* why) {
    Worker::Reply reply;
    std::strncpy(reply.failure, why, sizeof(reply.failure) - 1);
    return reply;
  }

  void Release() override {
    for (auto& xsk : xsk_) xsk.reset();
    network_.reset();
  }

  RemoteNetwork::Xdp xdp_;
  std::unique_ptr<RemoteNetwork> network_;
  std::unique_ptr<port::Xsk> xsk_[2];
};

// ---- Sockets

socklen_t NameOf(int side, uint16_t port, sockaddr_storage* name) {
  port::Address address = RemoteNetwork::AddressOf(side);
  address.port = port;
  return address.ToSockaddr(AF_INET, name);
}

absl::StatusOr<UniqueFd> BoundSocket(const RemoteNetwork& network, int side, int type) {
  const test::InNamespace inside(network.of(side));
  UniqueFd fd(socket(AF_INET, type | SOCK_CLOEXEC, 0));
  sockaddr_storage name;
  const socklen_t bytes = NameOf(side, 4811, &name);
  if (!fd.valid() || bind(fd.get(), reinterpret_cast<const sockaddr*>(&name), bytes) != 0) {
    return absl::ErrnoToStatus(errno, "bind a socket in a namespace");
  }
  return fd;
}

absl::Status Connect(int fd, int to) {
  sockaddr_storage name;
  const socklen_t bytes = NameOf(to, 4811, &name);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&name), bytes) != 0) {
    return absl::ErrnoToStatus(errno, "connect two sockets over a veth pair");
  }
  return absl::OkStatus();
}

absl::StatusOr<SocketPair> UdpOver(const RemoteNetwork& network) {
  SocketPair pair;
  WEFT_ASSIGN_OR_RETURN(pair.caller, BoundSocket(network, kNear, SOCK_DGRAM));
  WEFT_ASSIGN_OR_RETURN(pair.callee, BoundSocket(network, kFar, SOCK_DGRAM));
  WEFT_RETURN_IF_ERROR(Connect(pair.caller.get(), kFar));
  WEFT_RETURN_IF_ERROR(Connect(pair.callee.get(), kNear));
  return pair;
}

absl::StatusOr<SocketPair> TcpOver(const RemoteNetwork& network) {
  SocketPair pair;
  WEFT_ASSIGN_OR_RETURN(const UniqueFd listener, BoundSocket(network, kFar, SOCK_STREAM));
  if (listen(listener.get(), 1) != 0) return absl::ErrnoToStatus(errno, "listen in a namespace");
  WEFT_ASSIGN_OR_RETURN(pair.caller, BoundSocket(network, kNear, SOCK_STREAM));
  WEFT_RETURN_IF_ERROR(Connect(pair.caller.get(), kFar));
  pair.callee.Reset(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!pair.callee.valid()) return absl::ErrnoToStatus(errno, "accept a TCP connection over a veth pair");
  const int on = 1;
  for (const int fd : {pair.caller.get(), pair.callee.get()}) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }
  return pair;
}

// A row of sockets keeps the network that they are in.
using Connector = absl::StatusOr<SocketPair> (*)(const RemoteNetwork&);
std::unique_ptr<Row> SocketsOver(std::string name, Connector connect, bool spin) {
  auto network = std::make_shared<std::unique_ptr<RemoteNetwork>>();
  return NewSocketRow(
      std::move(name),
      [network, connect]() -> absl::StatusOr<SocketPair> {
        WEFT_ASSIGN_OR_RETURN(*network, RemoteNetwork::Create({}));
        return connect(**network);
      },
      [network] { network->reset(); }, spin);
}

// ---- kernel/tcp_bulk

constexpr std::size_t kBulkBytes = 1'000'000;
constexpr uint64_t kBulkWindow = 4;

class TcpBulkRow final : public PairRow {
 public:
  TcpBulkRow(std::string name, bool offloads, std::string note)
      : PairRow({.name = std::move(name), .bytes = kBulkBytes, .is_rate = true, .note = std::move(note)}),
        offloads_(offloads) {}

 private:
  absl::Status Prepare() override {
    WEFT_ASSIGN_OR_RETURN(network_, RemoteNetwork::Create({.offloads = offloads_, .mtu = kBulkMtu}));
    WEFT_ASSIGN_OR_RETURN(pair_, TcpOver(*network_));
    message_.resize(kBulkBytes);
    return absl::OkStatus();
  }

  static bool SendAll(int fd, const uint8_t* data, std::size_t bytes) {
    for (std::size_t at = 0; at < bytes;) {
      const ssize_t sent = send(fd, data + at, bytes - at, MSG_NOSIGNAL);
      if (sent <= 0 && errno != EINTR) return false;
      at += sent > 0 ? static_cast<std::size_t>(sent) : 0;
    }
    return true;
  }
  static bool ReceiveAll(int fd, uint8_t* data, std::size_t bytes) {
    for (std::size_t at = 0; at < bytes;) {
      const ssize_t got = recv(fd, data + at, bytes - at, 0);
      if (got == 0 || (got < 0 && errno != EINTR)) return false;
      at += got > 0 ? static_cast<std::size_t>(got) : 0;
    }
    return true;
  }

  bool SendMessage(uint64_t id) {
    std::memcpy(message_.data(), &id, sizeof(id));
    FillPayload(message_.data() + sizeof(id), kBulkBytes - sizeof(id), id);
    return SendAll(pair_.caller.get(), message_.data(), kBulkBytes);
  }

  Worker::Reply Call(uint32_t*, uint64_t duration_ns) override {
    RateMeter meter(duration_ns);
    uint64_t sent = 0, answered = 0, errors = 0, answer = 0;
    bool more = true;
    while (more || answered < sent) {
      if (more && sent - answered < kBulkWindow) {
        if (!SendMessage(++sent)) return {.errors = errors + 1};
        continue;
      }
      if (!ReceiveAll(pair_.caller.get(), reinterpret_cast<uint8_t*>(&answer), sizeof(answer))) {
        return {.errors = errors + 1};
      }
      errors += answer == ++answered ? 0 : 1;
      more = meter.Add(NowNs(), 1) && more;
    }
    errors += SendMessage(kStopId) ? 0 : 1;
    return {.messages = meter.messages(), .elapsed_ns = meter.elapsed_ns(), .errors = errors};
  }

  Worker::Reply Answer() override {
    uint64_t errors = 0;
    for (;;) {
      if (!ReceiveAll(pair_.callee.get(), message_.data(), kBulkBytes)) return {.errors = errors + 1};
      uint64_t id = 0;
      std::memcpy(&id, message_.data(), sizeof(id));
      errors += CheckPayload(message_.data() + sizeof(id), kBulkBytes - sizeof(id), id) ? 0 : 1;
      if (id == kStopId) return {.errors = errors};
      if (!SendAll(pair_.callee.get(), reinterpret_cast<const uint8_t*>(&id), sizeof(id))) {
        return {.errors = errors + 1};
      }
    }
  }

  void Release() override {
    pair_ = SocketPair();
    network_.reset();
  }

  bool offloads_;
  std::unique_ptr<RemoteNetwork> network_;
  SocketPair pair_;
  std::vector<uint8_t> message_;
};

}  // namespace

void AddAfXdpRawRows(std::vector<std::unique_ptr<Row>>* rows) {
  rows->push_back(
      std::make_unique<AfXdpRawRow>("limit/af_xdp_raw", RemoteNetwork::Xdp::kRedirectNative,
                                    "frames as long as an encrypted call of 64 B, echoed in place"));
  rows->push_back(std::make_unique<AfXdpRawRow>("limit/af_xdp_raw_generic", RemoteNetwork::Xdp::kRedirect,
                                                "the same with the XDP program on socket buffers"));
}

void AddRemoteSocketRows(std::vector<std::unique_ptr<Row>>* rows) {
  rows->push_back(SocketsOver("limit/udp_spin", UdpOver, /*spin=*/true));
  rows->push_back(SocketsOver("limit/udp_blocking", UdpOver, /*spin=*/false));
  rows->push_back(SocketsOver("kernel/tcp", TcpOver, /*spin=*/false));
}

void AddTcpBulkRows(std::vector<std::unique_ptr<Row>>* rows) {
  rows->push_back(std::make_unique<TcpBulkRow>("kernel/tcp_bulk", /*offloads=*/false,
                                               "no segmentation, no coalescing on the interfaces"));
  rows->push_back(std::make_unique<TcpBulkRow>("kernel/tcp_bulk_offload", /*offloads=*/true, ""));
}

}  // namespace weft::bench
