// SPDX-License-Identifier: Apache-2.0
// Calls and messages from engine to engine over a real port: transport core, sealing and port as they ship,
// driven by the two halves of the engine's loop (dataplane/transport/pump.h), without hosts and channels.
#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/engine_pair.h"
#include "bench/engine_row.h"
#include "bench/pair_row.h"
#include "bench/remote_network.h"
#include "bench/remote_rows.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "dataplane/port/af_xdp_port.h"
#ifdef WEFT_HAS_DPDK
#include "dataplane/port/dpdk_port.h"
#endif
#include "dataplane/port/memory_port.h"
#include "dataplane/port/udp_port.h"
#include "dataplane/transport/pump.h"

namespace weft::bench {
namespace {

constexpr std::size_t kBulkBytes = 1'000'000;

// As many at once as `window`; calls of 64 B or one-way messages.
template <typename Port>
class EngineRateRow final : public EngineRow<Port> {
 public:
  using Base = EngineRow<Port>;
  EngineRateRow(RowSpec spec, uint64_t window, bool one_way, int mtu)
      : Base(spec, {.mtu = mtu}), bytes_(spec.bytes), window_(window), one_way_(one_way), message_(bytes_) {}

 private:
  Worker::Reply Call(uint32_t*, uint64_t duration_ns) override {
    TickClock clock;
    transport::Core& core = *this->ends_[kNear].core;
    RateMeter meter(duration_ns);
    transport::SendOptions options = this->OptionsFor(kEchoFunction);
    options.one_way = one_way_;
    uint64_t id = 0, done = 0, errors = 0, last_ns = clock.NowNs();
    bool more = true;
    while (more || done < id) {
      const uint64_t now_ns = clock.NowNs();
      // Bounded by a burst, so that what comes is looked at in between.
      for (uint64_t burst = 0; more && id - done < window_ && burst < kBurst; ++burst) {
        Base::Fill(message_.data(), bytes_, ++id);
        options.user = id;
        if (core.TrySend(options, {}, Bytes(message_.data(), bytes_), now_ns, nullptr) != SendResult::kOk) {
          --id;
          break;
        }
      }
      uint64_t ended = 0;
      this->Turn(kNear, clock, [&](const Event& event, uint64_t) {
        ++ended;
        errors += event.code == absl::StatusCode::kOk && (one_way_ || IsAnswer(event)) ? 0 : 1;
      });
      if (ended > 0) {
        done += ended;
        last_ns = now_ns;
        more = meter.Add(NowNs(), ended) && more;
      } else if (now_ns - last_ns > kGiveUpNs) {
        return Failed("no answer came");
      }
    }
    if (!this->Stop(clock)) return Failed("the callee does not stop");
    return {.messages = meter.messages(), .elapsed_ns = meter.elapsed_ns(), .errors = errors};
  }

  bool IsAnswer(const Event& event) const {
    uint64_t id = 0;
    if (event.payload_bytes != bytes_) return false;
    std::memcpy(&id, event.payload, sizeof(id));
    return id == event.user && CheckPayload(event.payload + sizeof(id), bytes_ - sizeof(id), id);
  }

  static constexpr uint64_t kBurst = 64;
  std::size_t bytes_;
  uint64_t window_;
  bool one_way_;
  std::vector<uint8_t> message_;
};

// Both cores and the wire between them in one process.
class CoreInMemoryRow final : public PairRow {
 public:
  CoreInMemoryRow()
      : PairRow({.name = "weft/core_in_memory",
                 .bytes = kCallBytes,
                 .is_rate = true,
                 .note = "both ends on one core, one message a datagram"}) {}

 private:
  static constexpr int kDepth = 32;
  static constexpr int kEmptyRoundsMax = 1'000'000;

  absl::Status Prepare() override {
    transport::Config config;
    config.coalesce = false;
    config.probes_max = kProbesMax;
    std::tie(a_, b_) = MakeEnginePair(config, 2, 1);
    return absl::OkStatus();
  }
  void Release() override {
    a_ = {};
    b_ = {};
  }

  static void Carry(port::MemoryPort& from, port::MemoryPort& to) {
    for (const auto* datagram = from.Sent(); datagram != nullptr; datagram = from.Sent()) {
      WEFT_CHECK(to.Deliver(datagram->data, datagram->bytes));
      from.PopSent();
    }
  }

  void Echo(uint64_t now_ns) {
    Event event;
    while (b_.core->NextEvent(&event)) {
      WEFT_CHECK(b_.core->TryRespond(event.handle, absl::StatusCode::kOk,
                                     Bytes(event.payload, event.payload_bytes), {},
                                     now_ns) == SendResult::kOk);
      b_.core->Release(event);
    }
  }

  Worker::Reply Call(uint32_t*, uint64_t duration_ns) override {
    RateMeter meter(duration_ns);
    transport::SendOptions options;
    options.peer = a_.peer;
    options.function = kEchoFunction;
    options.response_bytes_max = kCallBytes;
    std::array<uint8_t, kCallBytes> request;
    uint64_t errors = 0, id = 0, now_ns = NowNs();
    int empty_rounds = 0;
    for (bool more = true; more;) {
      now_ns = NowNs();
      int sent = 0;
      while (sent < kDepth) {
        FillPayload(request.data(), request.size(), options.user = ++id);
        // Full where acknowledgements wait for company; turning lets them out.
        if (a_.core->TrySend(options, {}, Bytes(request.data(), request.size()), now_ns, nullptr) !=
            SendResult::kOk) {
          break;
        }
        ++sent;
      }
      if (sent == 0 && ++empty_rounds == kEmptyRoundsMax) return Failed("the core takes no call");
      for (int answered = 0; answered < sent || sent == 0; now_ns = NowNs()) {
        transport::PumpOut(*a_.core, port_a_, now_ns);
        Carry(port_a_, port_b_);
        transport::PumpIn(*b_.core, port_b_, now_ns);
        Echo(now_ns);
        transport::PumpOut(*b_.core, port_b_, now_ns);
        Carry(port_b_, port_a_);
        transport::PumpIn(*a_.core, port_a_, now_ns);
        Event event;
        while (a_.core->NextEvent(&event)) {
          errors += event.payload_bytes == kCallBytes && CheckPayload(event.payload, kCallBytes, event.user)
                        ? 0
                        : 1;
          a_.core->Release(event);
          ++answered;
        }
        if (sent == 0) break;
      }
      more = meter.Add(now_ns, static_cast<uint64_t>(sent));
    }
    return {.messages = meter.messages(), .elapsed_ns = meter.elapsed_ns(), .errors = errors};
  }
  // The other core stays idle.
  Worker::Reply Answer() override { return {}; }

  EngineEnd a_, b_;
  port::MemoryPort port_a_{128, 2048}, port_b_{128, 2048};
};

constexpr char kLoopNote[] = "the engine's loop without hosts";

}  // namespace

void AddEngineRows(std::vector<std::unique_ptr<Row>>* rows) {
  rows->push_back(std::make_unique<EngineCallRow<port::AfXdpPort>>(
      RowSpec{.name = "weft/engine_af_xdp",
              .bytes = kCallBytes,
              .against = {"limit/af_xdp_raw", "limit/af_xdp_raw_generic", "limit/udp_spin"},
              .note = kLoopNote}));
  rows->push_back(std::make_unique<EngineCallRow<port::UdpPort>>(RowSpec{.name = "weft/engine_io_uring",
                                                                         .bytes = kCallBytes,
                                                                         .against = {"limit/udp_spin"},
                                                                         .note = kLoopNote}));
#ifdef WEFT_HAS_DPDK
  rows->push_back(std::make_unique<EngineCallRow<port::DpdkPort>>(
      RowSpec{.name = "weft/engine_dpdk",
              .bytes = kCallBytes,
              .against = {"limit/dpdk_raw"},
              .note = "the engine's loop without hosts, over net_memif"}));
#endif
  rows->push_back(std::make_unique<EngineRateRow<port::AfXdpPort>>(
      RowSpec{.name = "weft/rate_af_xdp_coalesced", .bytes = kCallBytes, .is_rate = true, .note = kLoopNote},
      /*window=*/512, /*one_way=*/false, /*mtu=*/1500));
  rows->push_back(std::make_unique<EngineRateRow<port::AfXdpPort>>(
      RowSpec{.name = "weft/bulk",
              .bytes = kBulkBytes,
              .is_rate = true,
              .against = {"kernel/tcp_bulk", "limit/af_xdp_bulk"},
              .note = "over AF_XDP"},
      /*window=*/4, /*one_way=*/true, kBulkMtu));
  rows->push_back(
      std::make_unique<EngineRateRow<port::UdpPort>>(RowSpec{.name = "weft/bulk_io_uring",
                                                             .bytes = kBulkBytes,
                                                             .is_rate = true,
                                                             .against = {"kernel/tcp_bulk"},
                                                             .note = "over UDP, interface with offloads"},
                                                     /*window=*/4, /*one_way=*/true, kBulkMtu));
}

std::unique_ptr<Row> NewCoreInMemoryRow() { return std::make_unique<CoreInMemoryRow>(); }

}  // namespace weft::bench
