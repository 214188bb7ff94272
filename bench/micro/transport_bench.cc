// SPDX-License-Identifier: Apache-2.0
// The transport core alone. `CoreInMemory` is the row weft/core_in_memory: two cores and the shipping loop on
// one processor core, every packet sealed and opened, one message a datagram, 64 B each way; with one call at
// a time it shows what waits within the call.
#include <benchmark/benchmark.h>

#include <memory>
#include <utility>
#include <vector>

#include "dataplane/base/check.h"
#include "dataplane/base/random.h"
#include "dataplane/port/memory_port.h"
#include "dataplane/transport/core.h"
#include "dataplane/transport/pump.h"
#include "dataplane/transport/sealing.h"

namespace weft::transport {
namespace {

constexpr FunctionId kEcho{42};

SealSecret SecretFrom(uint64_t seed) {
  Random random(seed);
  SealSecret secret;
  for (auto& byte : secret.key) byte = static_cast<uint8_t>(random.Next());
  for (auto& byte : secret.iv) byte = static_cast<uint8_t>(random.Next());
  return secret;
}

void Carry(port::MemoryPort& from, port::MemoryPort& to) {
  for (const auto* datagram = from.Sent(); datagram != nullptr; datagram = from.Sent()) {
    WEFT_CHECK(to.Deliver(datagram->data, datagram->bytes));
    from.PopSent();
  }
}

template <typename On>
void TurnOf(Core& core, port::MemoryPort& port, uint64_t now_ns, On on) {
  Turn(core, port, now_ns, [&] {
    Event event;
    int taken = 0;
    for (; core.NextEvent(&event); ++taken) {
      on(event);
      core.Release(event);
    }
    return taken;
  });
}

struct TwoCores {
  explicit TwoCores(bool coalesce) {
    Config config;
    config.coalesce = coalesce;
    for (auto* core : {&a, &b}) {
      *core = std::move(*Core::Create(config));
      (*core)->SetTenantLimit({0}, 32u << 20);
      WEFT_CHECK((*core)->SetFunction(kEcho, {0}).ok());
    }
    to_b = *a->AddPeer(2);
    const PeerIndex to_a = *b->AddPeer(1);
    a->BeginSession(to_b, 1, 1);
    b->BeginSession(to_a, 1, 1);
    const SealSecret ab = SecretFrom(1), ba = SecretFrom(2);
    a->InstallSendKey(to_b, 0, b->InstallReceiveKey(to_a, 0, ab), 0, ab);
    b->InstallSendKey(to_a, 0, a->InstallReceiveKey(to_b, 0, ba), 0, ba);
  }

  // `depth` calls of `bytes` there and back. Returns how many were answered.
  int Round(int depth, Bytes payload) {
    SendOptions options;
    options.peer = to_b;
    options.function = kEcho;
    options.response_bytes_max = static_cast<uint32_t>(payload.size());
    for (int i = 0; i < depth; ++i) {
      WEFT_CHECK(a->TrySend(options, {}, payload, now_ns, nullptr) == SendResult::kOk);
    }
    int answered = 0;
    while (answered < depth) {
      now_ns += 2'000;
      TurnOf(*a, port_a, now_ns, [&](const Event& event) {
        WEFT_CHECK(event.code == absl::StatusCode::kOk && event.payload_bytes == payload.size());
        ++answered;
      });
      Carry(port_a, port_b);
      TurnOf(*b, port_b, now_ns, [&](const Event& event) {
        WEFT_CHECK(b->TryRespond(event.handle, absl::StatusCode::kOk,
                                 Bytes(event.payload, event.payload_bytes), {}, now_ns) == SendResult::kOk);
      });
      Carry(port_b, port_a);
    }
    return answered;
  }

  uint64_t now_ns = 1'000'000'000;
  std::unique_ptr<Core> a, b;
  PeerIndex to_b;
  port::MemoryPort port_a{128, 2048}, port_b{128, 2048};
};

void CoreInMemory(benchmark::State& state) {
  TwoCores cores(state.range(1) != 0);
  const std::vector<uint8_t> payload(static_cast<size_t>(state.range(0)), 0x5a);
  const auto depth = static_cast<int>(state.range(2));
  int64_t calls = 0;
  for (auto _ : state) calls += cores.Round(depth, Bytes(payload.data(), payload.size()));
  state.SetItemsProcessed(calls);
}
BENCHMARK(CoreInMemory)
    ->ArgNames({"bytes", "coalesce", "calls"})
    ->Args({64, 0, 32})
    ->Args({64, 1, 32})
    ->Args({1024, 0, 32})
    ->Args({64, 1, 1});

void OneWayMegabyte(benchmark::State& state) {
  TwoCores cores(true);
  const std::vector<uint8_t> payload(1'000'000, 0x5a);
  SendOptions options;
  options.peer = cores.to_b;
  options.function = kEcho;
  options.one_way = true;
  for (auto _ : state) {
    WEFT_CHECK(cores.a->TrySend(options, {}, Bytes(payload.data(), payload.size()), cores.now_ns, nullptr) ==
               SendResult::kOk);
    for (bool arrived = false; !arrived;) {
      cores.now_ns += 2'000;
      TurnOf(*cores.a, cores.port_a, cores.now_ns, [](const Event&) {});
      Carry(cores.port_a, cores.port_b);
      TurnOf(*cores.b, cores.port_b, cores.now_ns, [&](const Event&) { arrived = true; });
      Carry(cores.port_b, cores.port_a);
    }
  }
  state.SetBytesProcessed(state.iterations() * 1'000'000);
}
BENCHMARK(OneWayMegabyte);

void Seal(benchmark::State& state) {
  SealKey key;
  key.Install(SecretFrom(3), static_cast<SealBackend>(state.range(1)));
  std::vector<uint8_t> text(static_cast<size_t>(state.range(0)) + 16);
  const uint8_t header[16] = {};
  uint64_t counter = 0;
  for (auto _ : state) key.Seal(counter++, header, text.data(), text.size() - 16);
}
BENCHMARK(Seal)
    ->ArgNames({"bytes", "backend"})
    ->ArgsProduct({{64, 1400},
                   {static_cast<int>(SealBackend::kIpsecMb), static_cast<int>(SealBackend::kOpenSsl)}});

}  // namespace
}  // namespace weft::transport
