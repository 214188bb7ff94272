// SPDX-License-Identifier: Apache-2.0
// limit/af_xdp_bulk: what messages of 1 MB cost over bare AF_XDP sockets, so that it can be told what of
// weft/bulk is weft's. As there, the caller fills each message and copies it into frames, the callee copies
// it out of them and checks it; nothing is encrypted, acknowledged one by one or sent again.
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "bench/pair_row.h"
#include "bench/remote_network.h"
#include "bench/remote_rows.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "dataplane/port/frame_headers.h"
#include "dataplane/port/xsk.h"

namespace weft::bench {
namespace {

constexpr std::size_t kBulkBytes = 1'000'000;
constexpr std::size_t kPieceBytes = kBulkMtu - (port::kHeaders4Bytes - port::kEthernetBytes);
constexpr uint64_t kPieces = (kBulkBytes + kPieceBytes - 1) / kPieceBytes;
// As many as AF_XDP's port hands to the kernel at once.
constexpr uint64_t kBurst = 32;
// Frames under way: less than the 512 that the callee's socket has. It tells how many have come, every so
// many.
constexpr uint64_t kWindow = 384;
constexpr uint64_t kTellEvery = 64;
constexpr uint64_t kGiveUpNs = 2 * kNsPerSecond;

class AfXdpBulkRow final : public PairRow {
 public:
  AfXdpBulkRow()
      : PairRow({.name = "limit/af_xdp_bulk",
                 .bytes = kBulkBytes,
                 .is_rate = true,
                 .note = "bare AF_XDP sockets, unencrypted"}) {}

 private:
  absl::Status Prepare() override {
    WEFT_ASSIGN_OR_RETURN(network_,
                          RemoteNetwork::Create({.xdp = RemoteNetwork::Xdp::kRedirect, .mtu = kBulkMtu}));
    for (const int side : {kNear, kFar}) {
      port::PortStatus status;
      const test::InNamespace inside(network_->of(side));
      WEFT_ASSIGN_OR_RETURN(xsk_[side], port::Xsk::Create({.interface = test::VethPair::kInterface,
                                                           .xsks_map_fd = network_->xsks_fd(side),
                                                           .frame_bytes = 4096},
                                                          &status));
      // The peer's address on the link does not matter to a veth, which hands over all it gets.
      constexpr uint8_t kMac[6] = {2, 0, 0, 0, 0, 1};
      headers_[side] =
          port::MakeHeaders(kMac, kMac, RemoteNetwork::AddressOf(side), RemoteNetwork::AddressOf(1 - side));
    }
    message_.resize(kBulkBytes);
    return absl::OkStatus();
  }
  void Release() override {
    for (auto& xsk : xsk_) xsk.reset();
    network_.reset();
  }

  // Writes a frame of `bytes` of payload into the tx ring, to be sent by Push. Frames are used in turn: one
  // that is used again has been sent long since.
  void Put(int side, const void* payload, std::size_t bytes) {
    port::Xsk& xsk = *xsk_[side];
    const uint64_t frame = xsk.options().receive_frames + sent_++ % xsk.options().send_frames;
    const uint64_t address = frame * xsk.frame_bytes();
    uint8_t* const out = xsk.at(address) + port::kHeaders4Bytes;
    std::memcpy(out, payload, bytes);
    port::WriteHeaders(headers_[side], out, bytes);
    uint32_t place = 0;
    while (xsk_ring_prod__reserve(&xsk.tx, 1, &place) == 0) Push(side);
    *xsk_ring_prod__tx_desc(&xsk.tx, place) = {
        .addr = address, .len = static_cast<uint32_t>(port::kHeaders4Bytes + bytes), .options = 0};
    xsk_ring_prod__submit(&xsk.tx, 1);
  }
  void Push(int side) {
    port::Xsk& xsk = *xsk_[side];
    // A call sends 32 frames at the most.
    for (uint64_t tries = 0; tries < kWindow; ++tries) {
      if (*xsk.tx.producer == __atomic_load_n(xsk.tx.consumer, __ATOMIC_ACQUIRE)) break;
      sendto(xsk.fd(), nullptr, 0, MSG_DONTWAIT, nullptr, 0);
    }
    uint32_t place = 0;
    const uint32_t done = xsk_ring_cons__peek(&xsk.completion, xsk.options().send_frames, &place);
    if (done > 0) xsk_ring_cons__release(&xsk.completion, done);
  }

  // Calls `take(payload, bytes)` for each frame that has come, a burst at the most. Returns how many.
  template <typename Take>
  uint32_t Receive(int side, Take take) {
    port::Xsk& xsk = *xsk_[side];
    uint32_t first = 0, place = 0;
    const uint32_t got = xsk_ring_cons__peek(&xsk.rx, kBurst, &first);
    if (got == 0) return 0;
    std::array<uint64_t, kBurst> back;
    for (uint32_t i = 0; i < got; ++i) {
      const xdp_desc* const descriptor = xsk_ring_cons__rx_desc(&xsk.rx, first + i);
      take(xsk.at(descriptor->addr) + port::kHeaders4Bytes, descriptor->len - port::kHeaders4Bytes);
      back[i] = descriptor->addr & ~uint64_t{xsk.frame_bytes() - 1};
    }
    xsk_ring_cons__release(&xsk.rx, got);
    if (xsk_ring_prod__reserve(&xsk.fill, got, &place) == got) {
      for (uint32_t i = 0; i < got; ++i) *xsk_ring_prod__fill_addr(&xsk.fill, place + i) = back[i];
      xsk_ring_prod__submit(&xsk.fill, got);
    }
    return got;
  }

  // Follows what the callee tells; false where it tells nothing any more.
  bool WaitFor(uint64_t arrived) {
    const uint64_t begin_ns = NowNs();
    for (uint32_t polls = 1; arrived_ < arrived; ++polls) {
      Receive(kNear, [this](const uint8_t* payload, std::size_t) {
        std::memcpy(&arrived_, payload, sizeof(arrived_));
      });
      if (polls % 65536 == 0 && NowNs() - begin_ns > kGiveUpNs) return false;
    }
    return true;
  }

  Worker::Reply Call(uint32_t*, uint64_t duration_ns) override {
    RateMeter meter(duration_ns);
    uint64_t put = 0, id = 0, done = 0;
    arrived_ = 0;
    for (bool more = true; more;) {
      ++id;
      std::memcpy(message_.data(), &id, sizeof(id));
      FillPayload(message_.data() + sizeof(id), kBulkBytes - sizeof(id), id);
      for (std::size_t at = 0; at < kBulkBytes; at += kPieceBytes) {
        if (put >= kWindow && !WaitFor(put - kWindow + 1)) return Failed();
        Put(kNear, message_.data() + at, std::min(kPieceBytes, kBulkBytes - at));
        if (++put % kBurst == 0) Push(kNear);
      }
      Push(kNear);
      if (const uint64_t now_done = arrived_ / kPieces; now_done > done) {
        more = meter.Add(NowNs(), now_done - done);
        done = now_done;
      }
    }
    if (!WaitFor(put)) return Failed();
    Put(kNear, &id, sizeof(id));  // A short frame ends the block.
    Push(kNear);
    return {.messages = meter.messages(), .elapsed_ns = meter.elapsed_ns()};
  }

  Worker::Reply Answer() override {
    uint64_t came = 0, told = 0, errors = 0, last_ns = NowNs();
    std::size_t at = 0;
    bool stop = false;
    for (uint32_t polls = 1; !stop; ++polls) {
      const uint32_t got = Receive(kFar, [&](const uint8_t* payload, std::size_t bytes) {
        stop = bytes < kTellEvery;
        if (stop) return;
        ++came;
        const std::size_t kept = std::min(bytes, kBulkBytes - at);
        std::memcpy(message_.data() + at, payload, kept);
        at += kept;
        if (at < kBulkBytes) return;
        uint64_t id = 0;
        std::memcpy(&id, message_.data(), sizeof(id));
        errors += CheckPayload(message_.data() + sizeof(id), kBulkBytes - sizeof(id), id) ? 0 : 1;
        at = 0;
      });
      if (came - told >= kTellEvery || (came > told && at == 0)) {
        Put(kFar, &(told = came), sizeof(told));
        Push(kFar);
      }
      if (got > 0) {
        last_ns = NowNs();
      } else if (polls % 65536 == 0 && NowNs() - last_ns > kGiveUpNs) {
        return Failed();
      }
    }
    return {.errors = errors};
  }

  static Worker::Reply Failed() {
    Worker::Reply reply;
    std::strncpy(reply.failure, "the other side is silent", sizeof(reply.failure) - 1);
    return reply;
  }

  std::unique_ptr<RemoteNetwork> network_;
  std::unique_ptr<port::Xsk> xsk_[2];
  port::HeaderTemplate headers_[2];
  std::vector<uint8_t> message_;
  uint64_t sent_ = 0;
  uint64_t arrived_ = 0;  // As the callee last told.
};

}  // namespace

std::unique_ptr<Row> NewAfXdpBulkRow() { return std::make_unique<AfXdpBulkRow>(); }

}  // namespace weft::bench
