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
#include "bench/pair_row.h"
#include "bench/remote_network.h"
#include "bench/remote_rows.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "dataplane/port/af_xdp_port.h"
#include "dataplane/port/memory_port.h"
#include "dataplane/port/udp_port.h"
#include "dataplane/transport/pump.h"

namespace weft::bench {
namespace {

using transport::Bytes;
using transport::Event;
using transport::EventKind;
using transport::SendResult;

constexpr std::size_t kCallBytes = 64;
constexpr std::size_t kBulkBytes = 1'000'000;
constexpr uint64_t kGiveUpNs = 2 * kNsPerSecond;
// What both sides go on for after the last answer, so that acknowledgements that wait for company are sent.
constexpr uint64_t kQuietNs = 300 * kNsPerUs;
// A process that has been off its core for seconds is not dead here: other work on the machine may have had
// it.
constexpr uint32_t kProbesMax = 12;
// The first path of every port.
constexpr uint64_t kPath = uint64_t{1} << 32;

Worker::Reply Failed(const char* why) {
  Worker::Reply reply;
  std::strncpy(reply.failure, why, sizeof(reply.failure) - 1);
  return reply;
}

// Makes the ports in their namespaces before the fork, since AF_XDP takes a privilege; each process then uses
// its own.
template <typename Port>
absl::StatusOr<std::unique_ptr<Port>> OpenPort(const RemoteNetwork& network, int side) {
  const test::InNamespace inside(network.of(side));
  const port::Address local = RemoteNetwork::AddressOf(side);
  std::unique_ptr<Port> made;
  if constexpr (std::is_same_v<Port, port::AfXdpPort>) {
    WEFT_ASSIGN_OR_RETURN(made, Port::Create({.interface = test::VethPair::kInterface,
                                              .xsks_map_fd = network.xsks_fd(side),
                                              .local = local}));
  } else {
    WEFT_ASSIGN_OR_RETURN(made, Port::Create({.local = local, .socket = {}}));
  }
  WEFT_ASSIGN_OR_RETURN(const uint64_t path, made->AddPath(RemoteNetwork::AddressOf(1 - side)));
  WEFT_CHECK(path == kPath);
  return made;
}

template <typename Port>
class EngineRow : public PairRow {
 public:
  EngineRow(RowSpec spec, bool coalesce) : PairRow(std::move(spec)), coalesce_(coalesce) {}

 protected:
  static constexpr bool kXdp = std::is_same_v<Port, port::AfXdpPort>;

  absl::Status Prepare() override {
    WEFT_ASSIGN_OR_RETURN(network_, RemoteNetwork::Create({.xdp = kXdp ? RemoteNetwork::Xdp::kSteer
                                                                       : RemoteNetwork::Xdp::kNone}));
    transport::Config config;
    config.coalesce = coalesce_;
    config.probes_max = kProbesMax;
    std::tie(ends_[kNear], ends_[kFar]) = MakeEnginePair(config, kPath, kPath);
    for (const int side : {kNear, kFar}) {
      if (kXdp) WEFT_RETURN_IF_ERROR(network_->Allow(side, ends_[side].key_id));
      WEFT_ASSIGN_OR_RETURN(ports_[side], OpenPort<Port>(*network_, side));
    }
    return absl::OkStatus();
  }
  void Release() override {
    for (auto& port : ports_) port.reset();
    for (auto& end : ends_) end = {};
    network_.reset();
  }

  // One turn of the engine's loop; `take(event)` is called for each event.
  template <typename Take>
  void Turn(int side, const TickClock& clock, Take take) {
    transport::Core& core = *ends_[side].core;
    const uint64_t now_ns = clock.NowNs();
    transport::PumpIn(core, *ports_[side], now_ns);
    Event event;
    while (core.NextEvent(&event)) {
      take(event, now_ns);
      core.Release(event);
    }
    transport::PumpOut(core, *ports_[side], now_ns);
  }
  void TurnUntilQuiet(int side, const TickClock& clock) {
    for (const uint64_t begin_ns = clock.NowNs(); clock.NowNs() - begin_ns < kQuietNs;) {
      Turn(side, clock, [](const Event&, uint64_t) {});
    }
  }

  transport::SendOptions OptionsFor(FunctionId function) const {
    transport::SendOptions options;
    options.peer = ends_[kNear].peer;
    options.function = function;
    options.response_bytes_max = kCallBytes;
    return options;
  }

  // Has the callee end its block, and waits for its answer.
  bool Stop(const TickClock& clock) {
    bool stopped = false;
    const uint64_t begin_ns = NowNs();
    if (ends_[kNear].core->TrySend(OptionsFor(kStopFunction), {}, {}, clock.NowNs(), nullptr) !=
        SendResult::kOk) {
      return false;
    }
    transport::PumpOut(*ends_[kNear].core, *ports_[kNear], clock.NowNs());
    while (!stopped && NowNs() - begin_ns < kGiveUpNs) {
      Turn(kNear, clock,
           [&](const Event& event, uint64_t) { stopped |= event.kind == EventKind::kCompleted; });
    }
    TurnUntilQuiet(kNear, clock);
    return stopped;
  }

  // The callee of all rows: answers calls with their own payload, checks what comes.
  Worker::Reply Answer() override {
    TickClock clock;
    transport::Core& core = *ends_[kFar].core;
    uint64_t errors = 0, last_ns = clock.NowNs();
    bool stop = false;
    while (!stop) {
      Turn(kFar, clock, [&](const Event& event, uint64_t now_ns) {
        last_ns = now_ns;
        if (event.kind != EventKind::kRequest && event.kind != EventKind::kOneWay) return;
        const Bytes payload(event.payload, event.payload_bytes);
        if (event.function == kStopFunction.value) {
          stop = true;
          errors +=
              core.TryRespond(event.handle, absl::StatusCode::kOk, {}, {}, now_ns) == SendResult::kOk ? 0 : 1;
          return;
        }
        uint64_t id = 0;
        std::memcpy(&id, payload.data(), sizeof(id));
        errors += CheckPayload(payload.data() + sizeof(id), payload.size() - sizeof(id), id) ? 0 : 1;
        if (event.kind == EventKind::kOneWay) return;
        errors += core.TryRespond(event.handle, absl::StatusCode::kOk, {}, payload, now_ns) == SendResult::kOk
                      ? 0
                      : 1;
      });
      if (clock.NowNs() - last_ns > kGiveUpNs) return Failed("nothing came from the caller");
    }
    TurnUntilQuiet(kFar, clock);
    return {.errors = errors};
  }

  static void Fill(uint8_t* message, std::size_t bytes, uint64_t id) {
    std::memcpy(message, &id, sizeof(id));
    FillPayload(message + sizeof(id), bytes - sizeof(id), id);
  }

  bool coalesce_;
  std::unique_ptr<RemoteNetwork> network_;
  EngineEnd ends_[2];
  std::unique_ptr<Port> ports_[2];
};

// One call at a time.
template <typename Port>
class EngineCallRow final : public EngineRow<Port> {
 public:
  using Base = EngineRow<Port>;
  explicit EngineCallRow(RowSpec spec) : Base(std::move(spec), /*coalesce=*/true) {}

 private:
  Worker::Reply Call(uint32_t* out, uint64_t duration_ns) override {
    TickClock clock;
    transport::Core& core = *this->ends_[kNear].core;
    Samples samples(out, duration_ns);
    std::array<uint8_t, kCallBytes> request;
    uint64_t id = 0, begin_ns = 0, end_ns = 0, errors = 0;
    do {
      Base::Fill(request.data(), request.size(), ++id);
      begin_ns = NowNs();
      const uint64_t now_ns = clock.NowNs();
      const SendResult sent = core.TrySend(this->OptionsFor(kEchoFunction), {},
                                           Bytes(request.data(), request.size()), now_ns, nullptr);
      if (sent != SendResult::kOk)
        return Failed(sent == SendResult::kFull ? "the engine is full" : "the peer is down");
      transport::PumpOut(core, *this->ports_[kNear], now_ns);
      bool done = false;
      for (uint32_t turns = 1; !done; ++turns) {
        this->Turn(kNear, clock, [&](const Event& event, uint64_t) {
          done = true;
          errors += event.code == absl::StatusCode::kOk && event.payload_bytes == kCallBytes &&
                            std::memcmp(event.payload, request.data(), kCallBytes) == 0
                        ? 0
                        : 1;
        });
        if (turns % 65536 == 0 && NowNs() - begin_ns > kGiveUpNs) return Failed("no answer came");
      }
      end_ns = NowNs();
    } while (samples.Add(begin_ns, end_ns));
    if (!this->Stop(clock)) return Failed("the callee does not stop");
    return {.messages = samples.count(),
            .samples = samples.count(),
            .elapsed_ns = samples.elapsed_ns(),
            .errors = errors};
  }
};

// As many at once as `window`; calls of 64 B or one-way messages.
template <typename Port>
class EngineRateRow final : public EngineRow<Port> {
 public:
  using Base = EngineRow<Port>;
  EngineRateRow(RowSpec spec, uint64_t window, bool one_way)
      : Base(spec, /*coalesce=*/true),
        bytes_(spec.bytes),
        window_(window),
        one_way_(one_way),
        message_(bytes_) {}

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
              .against = {"limit/af_xdp_raw", "limit/udp_spin"},
              .note = kLoopNote}));
  rows->push_back(std::make_unique<EngineCallRow<port::UdpPort>>(RowSpec{.name = "weft/engine_io_uring",
                                                                         .bytes = kCallBytes,
                                                                         .against = {"limit/udp_spin"},
                                                                         .note = kLoopNote}));
  rows->push_back(std::make_unique<EngineRateRow<port::AfXdpPort>>(
      RowSpec{.name = "weft/rate_af_xdp_coalesced", .bytes = kCallBytes, .is_rate = true, .note = kLoopNote},
      /*window=*/512, /*one_way=*/false));
  rows->push_back(std::make_unique<EngineRateRow<port::AfXdpPort>>(RowSpec{.name = "weft/bulk",
                                                                           .bytes = kBulkBytes,
                                                                           .is_rate = true,
                                                                           .against = {"kernel/tcp_bulk"},
                                                                           .note = "over AF_XDP"},
                                                                   /*window=*/4, /*one_way=*/true));
  rows->push_back(
      std::make_unique<EngineRateRow<port::UdpPort>>(RowSpec{.name = "weft/bulk_io_uring",
                                                             .bytes = kBulkBytes,
                                                             .is_rate = true,
                                                             .against = {"kernel/tcp_bulk"},
                                                             .note = "over UDP, interface with offloads"},
                                                     /*window=*/4, /*one_way=*/true));
}

std::unique_ptr<Row> NewCoreInMemoryRow() { return std::make_unique<CoreInMemoryRow>(); }

}  // namespace weft::bench
