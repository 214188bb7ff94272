// SPDX-License-Identifier: Apache-2.0
// What rows between two engines share: a transport core and a port on each side of a veth pair, the two
// halves of the engine's loop (dataplane/transport/pump.h), and the callee, which answers and checks. Without
// hosts and channels.
#ifndef WEFT_BENCH_ENGINE_ROW_H_
#define WEFT_BENCH_ENGINE_ROW_H_

#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "absl/strings/string_view.h"
#include "bench/engine_pair.h"
#include "bench/pair_row.h"
#include "bench/remote_network.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "dataplane/port/af_xdp_port.h"
#ifdef WEFT_HAS_DPDK
#include "bench/remote_dpdk.h"
#endif
#include "dataplane/port/udp_port.h"
#include "dataplane/transport/pump.h"

namespace weft::bench {

using transport::Bytes;
using transport::Event;
using transport::EventKind;
using transport::SendResult;

inline constexpr std::size_t kCallBytes = 64;
// Longer than other work on the machine has kept a side off its core, shorter than a row's limit of a block.
inline constexpr uint64_t kGiveUpNs = 8 * kNsPerSecond;
// So long the callee stays for the acknowledgement of its last answer, which may have been lost: six probes.
inline constexpr uint64_t kLingerNs = 200 * kNsPerMs;
// What both sides go on for after the last answer, so that acknowledgements that wait for company are sent.
inline constexpr uint64_t kQuietNs = 300 * kNsPerUs;
// A process that has been off its core for seconds is not dead here: other work on the machine may have had
// it.
inline constexpr uint32_t kProbesMax = 12;
// The first path of every port.
inline constexpr uint64_t kPath = uint64_t{1} << 32;

inline Worker::Reply Failed(absl::string_view why) {
  Worker::Reply reply;
  std::strncpy(reply.failure, std::string(why).c_str(), sizeof(reply.failure) - 1);
  return reply;
}

// DPDK's environment has threads, so its port is made after the fork, in the process that uses it, at its
// first block.
#ifdef WEFT_HAS_DPDK
template <typename Port>
inline constexpr bool kOpensLate = std::is_same_v<Port, port::DpdkPort>;
#else
template <typename Port>
inline constexpr bool kOpensLate = false;
#endif

// Makes the ports in their namespaces before the fork, since AF_XDP takes a privilege; each process then uses
// its own.
template <typename Port>
absl::StatusOr<std::unique_ptr<Port>> OpenPort(const RemoteNetwork& network, int side,
                                               std::size_t datagram_bytes_max) {
  const test::InNamespace inside(network.of(side));
  const port::Address local = RemoteNetwork::AddressOf(side);
  std::unique_ptr<Port> made;
  if constexpr (std::is_same_v<Port, port::AfXdpPort>) {
    WEFT_ASSIGN_OR_RETURN(made, Port::Create({.interface = test::VethPair::kInterface,
                                              .xsks_map_fd = network.xsks_fd(side),
                                              .local = local,
                                              .datagram_bytes_max = datagram_bytes_max}));
  } else {
    WEFT_ASSIGN_OR_RETURN(
        made, Port::Create({.local = local, .socket = {}, .datagram_bytes_max = datagram_bytes_max}));
  }
  WEFT_ASSIGN_OR_RETURN(const uint64_t path, made->AddPath(RemoteNetwork::AddressOf(1 - side)));
  WEFT_CHECK(path == kPath);
  return made;
}

template <typename Port>
class EngineRow : public PairRow {
 public:
  struct Options {
    bool coalesce = true;  // Several messages a datagram.
    int mtu = 1500;
  };
  EngineRow(RowSpec spec, Options options) : PairRow(std::move(spec)), options_(options) {}

 protected:
  static constexpr bool kXdp = std::is_same_v<Port, port::AfXdpPort>;

  absl::Status Prepare() override {
    WEFT_ASSIGN_OR_RETURN(
        network_, RemoteNetwork::Create({.xdp = kXdp ? RemoteNetwork::Xdp::kSteer : RemoteNetwork::Xdp::kNone,
                                         .mtu = options_.mtu}));
    transport::Config config;
    config.datagram_bytes_max = static_cast<uint32_t>(options_.mtu) - 28;  // IPv4 and UDP.
    config.coalesce = options_.coalesce;
    config.probes_max = kProbesMax;
    config.unfinished_ns = kGiveUpNs;
    std::tie(ends_[kNear], ends_[kFar]) = MakeEnginePair(config, kPath, kPath);
    if constexpr (!kOpensLate<Port>) {
      for (const int side : {kNear, kFar}) {
        if (kXdp) WEFT_RETURN_IF_ERROR(network_->Allow(side, ends_[side].key_id));
        WEFT_ASSIGN_OR_RETURN(ports_[side], OpenPort<Port>(*network_, side, config.datagram_bytes_max));
      }
    }
    return absl::OkStatus();
  }
  void Release() override {
    for (auto& port : ports_) port.reset();
    for (auto& end : ends_) end = {};
    network_.reset();
  }

  // In the process of that side, at the start of each block.
  absl::Status Open([[maybe_unused]] int side) {
#ifdef WEFT_HAS_DPDK
    if constexpr (kOpensLate<Port>) {
      if (ports_[side] == nullptr) {
        WEFT_ASSIGN_OR_RETURN(ports_[side], OpenDpdkPort(side, kPath));
      }
    }
#endif
    return absl::OkStatus();
  }

  // One turn of the engine's loop; `take(event)` is called for each event.
  template <typename Take>
  void Turn(int side, TickClock& clock, Take take) {
    transport::Core& core = *ends_[side].core;
    const uint64_t now_ns = clock.NowNs();
    transport::Turn(core, *ports_[side], now_ns, [&] {
      Event event;
      int taken = 0;
      for (; core.NextEvent(&event); ++taken) {
        take(event, now_ns);
        core.Release(event);
      }
      return taken;
    });
  }
  // The last turn begins when the time is over, also where this side was off its core meanwhile.
  void TurnUntilQuiet(int side, TickClock& clock) {
    const uint64_t begin_ns = clock.NowNs();
    for (uint64_t now_ns = begin_ns; now_ns - begin_ns < kQuietNs;) {
      now_ns = clock.NowNs();
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
  bool Stop(TickClock& clock) {
    transport::Core& core = *ends_[kNear].core;
    SendResult asked = SendResult::kFull;
    bool stopped = false;
    const uint64_t begin_ns = clock.NowNs();
    for (uint64_t now_ns = begin_ns; !stopped && now_ns - begin_ns < kGiveUpNs;) {
      now_ns = clock.NowNs();
      if (asked == SendResult::kFull)
        asked = core.TrySend(OptionsFor(kStopFunction), {}, {}, now_ns, nullptr);
      Turn(kNear, clock, [&](const Event& event, uint64_t) {
        stopped |= event.kind == EventKind::kCompleted && event.code == absl::StatusCode::kOk;
      });
    }
    TurnUntilQuiet(kNear, clock);
    return stopped;
  }

  // The callee of all rows: answers calls with their own payload, checks what comes.
  Worker::Reply Answer() override {
    if (const absl::Status opened = Open(kFar); !opened.ok()) return Failed(opened.message());
    TickClock clock;
    transport::Core& core = *ends_[kFar].core;
    uint64_t errors = 0, last_ns = clock.NowNs();
    bool stop = false;
    while (!stop) {
      const uint64_t looked_ns = clock.NowNs();
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
      if (looked_ns > last_ns + kGiveUpNs) return Failed("nothing came from the caller");
    }
    const uint64_t stopped_ns = clock.NowNs();
    do {
      TurnUntilQuiet(kFar, clock);
    } while (core.messages_out() != 0 && clock.NowNs() - stopped_ns < kLingerNs);
    return {.errors = errors};
  }

  static void Fill(uint8_t* message, std::size_t bytes, uint64_t id) {
    std::memcpy(message, &id, sizeof(id));
    FillPayload(message + sizeof(id), bytes - sizeof(id), id);
  }

  Options options_;
  std::unique_ptr<RemoteNetwork> network_;
  EngineEnd ends_[2];
  std::unique_ptr<Port> ports_[2];
};

// One call at a time.
template <typename Port>
class EngineCallRow : public EngineRow<Port> {
 public:
  using Base = EngineRow<Port>;
  explicit EngineCallRow(RowSpec spec) : Base(std::move(spec), {}) {}

 protected:
  // On the caller's side before each call, outside the measured time.
  virtual void BeforeCall() {}

  Worker::Reply Call(uint32_t* out, uint64_t duration_ns) override {
    if (const absl::Status opened = this->Open(kNear); !opened.ok()) return Failed(opened.message());
    TickClock clock;
    transport::Core& core = *this->ends_[kNear].core;
    Samples samples(out, duration_ns);
    std::array<uint8_t, kCallBytes> request;
    uint64_t id = 0, begin_ns = 0, end_ns = 0, errors = 0;
    do {
      Base::Fill(request.data(), request.size(), ++id);
      BeforeCall();
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

}  // namespace weft::bench

#endif  // WEFT_BENCH_ENGINE_ROW_H_
