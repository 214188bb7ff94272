// SPDX-License-Identifier: Apache-2.0
// Calls while the caller's own thread sends forged datagrams: limit/flood_foreign has them go to a port of
// the callee's node that is not weft's, weft/flood to weft's own.
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "bench/engine_row.h"
#include "bench/remote_rows.h"
#include "bpf/abi/drop_reason.h"
#include "bpf/abi/packet.h"
#include "dataplane/base/random.h"

namespace weft::bench {
namespace {

constexpr uint32_t kForgedPerCall = 20;
constexpr uint16_t kForeignPort = 4899;
// Far above any counter that is in use, so that the tag alone can refuse them.
constexpr uint64_t kForgedCounter = uint64_t{1} << 40;

class FloodRow final : public EngineCallRow<port::AfXdpPort> {
 public:
  FloodRow(RowSpec spec, bool foreign) : EngineCallRow(std::move(spec)), foreign_(foreign) {}

 private:
  // Half of them name a key that is in use, half one that is not; all are well formed and none has a tag.
  void Forge() {
    Random random(7);
    for (uint32_t i = 0; i < kForgedPerCall; ++i) {
      for (uint8_t& byte : forged_[i]) byte = static_cast<uint8_t>(random.Next());
      const uint32_t known = ends_[kFar].key_id;
      weft_packet_header header{};
      header.version_and_suite = WEFT_PACKET_VERSION_AND_SUITE;
      header.key_id = __builtin_bswap32(i % 2 == 0 ? known : known ^ 0x40000000);
      header.counter = __builtin_bswap64(kForgedCounter + i);
      std::memcpy(forged_[i].data(), &header, sizeof(header));
      vectors_[i] = {forged_[i].data(), forged_[i].size()};
      messages_[i] = {};
      messages_[i].msg_hdr.msg_iov = &vectors_[i];
      messages_[i].msg_hdr.msg_iovlen = 1;
      messages_[i].msg_hdr.msg_name = &target_;
      messages_[i].msg_hdr.msg_namelen = target_bytes_;
    }
  }

  absl::Status Prepare() override {
    WEFT_RETURN_IF_ERROR(EngineCallRow::Prepare());
    port::Address target = RemoteNetwork::AddressOf(kFar);
    if (foreign_) target.port = kForeignPort;
    target_bytes_ = target.ToSockaddr(AF_INET, &target_);
    const test::InNamespace inside(network_->of(kNear));
    socket_.Reset(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!socket_.valid()) return absl::ErrnoToStatus(errno, "create the socket of a flood");
    Forge();
    return absl::OkStatus();
  }
  void Release() override {
    socket_.Reset();
    EngineCallRow::Release();
  }

  void BeforeCall() override {
    for (uint32_t sent = 0; sent < kForgedPerCall;) {
      const int more = sendmmsg(socket_.get(), messages_.data() + sent, kForgedPerCall - sent, 0);
      if (more > 0) sent += static_cast<uint32_t>(more);
    }
    forged_count_ += kForgedPerCall;
  }

  Worker::Reply Call(uint32_t* out, uint64_t duration_ns) override {
    forged_count_ = 0;
    Worker::Reply reply = EngineCallRow::Call(out, duration_ns);
    reply.extra = forged_count_;
    return reply;
  }

  // What steer and the engine have dropped so far.
  uint64_t Dropped() const {
    uint64_t dropped = network_->UnknownDrops(kFar);
    for (const uint64_t drops : ends_[kFar].core->counters().drops) dropped += drops;
    return dropped;
  }
  Worker::Reply Answer() override {
    const uint64_t before = Dropped();
    Worker::Reply reply = EngineCallRow::Answer();
    reply.extra = Dropped() - before;
    return reply;
  }

  void AddCounts(const Worker::Reply& caller, const Worker::Reply& callee, Block* block) override {
    block->counts["forged"] = static_cast<double>(caller.extra);
    block->counts["dropped"] = static_cast<double>(callee.extra);
  }

  bool foreign_;
  UniqueFd socket_;
  sockaddr_storage target_{};
  socklen_t target_bytes_ = 0;
  std::array<std::array<uint8_t, kEncryptedCallBytes>, kForgedPerCall> forged_{};
  std::array<iovec, kForgedPerCall> vectors_{};
  std::array<mmsghdr, kForgedPerCall> messages_{};
  uint64_t forged_count_ = 0;
};

}  // namespace

void AddFloodRows(std::vector<std::unique_ptr<Row>>* rows) {
  rows->push_back(std::make_unique<FloodRow>(RowSpec{.name = "limit/flood_foreign",
                                                     .bytes = kCallBytes,
                                                     .by_p99 = true,
                                                     .note = "20 forged datagrams a call to another port"},
                                             /*foreign=*/true));
  rows->push_back(std::make_unique<FloodRow>(RowSpec{.name = "weft/flood",
                                                     .bytes = kCallBytes,
                                                     .by_p99 = true,
                                                     .against = {"limit/flood_foreign"},
                                                     .note = "20 forged datagrams a call; ratio of p99"},
                                             /*foreign=*/false));
}

}  // namespace weft::bench
