// SPDX-License-Identifier: Apache-2.0
// Two cores joined by memory, with a clock that the test turns. Datagrams arrive in the round after they were
// sent, unless a filter eats them.
#ifndef WEFT_TESTS_DATAPLANE_TRANSPORT_CORE_FIXTURE_H_
#define WEFT_TESTS_DATAPLANE_TRANSPORT_CORE_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/base/function_id.h"
#include "dataplane/base/random.h"
#include "dataplane/port/memory_port.h"
#include "dataplane/transport/core.h"
#include "dataplane/transport/pump.h"

namespace weft::transport {

// A turn that leaves the events in the core, for the test to take.
inline std::size_t Pump(Core& core, port::MemoryPort& port, uint64_t now_ns) {
  return Turn(core, port, now_ns, [] { return 0; });
}

inline const FunctionId kEcho = FunctionIdOf("test/echo");
inline constexpr uint64_t kPathToA = 1;
inline constexpr uint64_t kPathToB = 2;

inline SealSecret SecretFrom(uint64_t seed) {
  Random random(seed);
  SealSecret secret;
  for (auto& byte : secret.key) byte = static_cast<uint8_t>(random.Next());
  for (auto& byte : secret.iv) byte = static_cast<uint8_t>(random.Next());
  return secret;
}

inline Config SmallConfig() {
  Config config;
  config.peers_max = 4;
  config.slots_per_peer = 64;
  config.calls_max = 256;
  config.messages_out_max = 512;
  config.messages_in_max = 512;
  config.memory_bytes = 128u << 20;
  config.packets_in_flight_max = 1024;
  return config;
}

class TwoCores : public testing::Test {
 protected:
  void Start(const Config& config) { Start(config, config); }
  void Start(const Config& config_a, const Config& config_b) {
    a_ = std::move(*Core::Create(config_a));
    b_ = std::move(*Core::Create(config_b));
    for (Core* core : {a_.get(), b_.get()}) {
      core->SetTenantLimit({0}, 64u << 20);
      core->SetTenantLimit({1}, 64u << 20);
      ASSERT_TRUE(core->SetFunction(kEcho, {1}).ok());
    }
    to_b_ = *a_->AddPeer(kPathToB);
    to_a_ = *b_->AddPeer(kPathToA);
    Session(1);
  }

  // Both ends agree on new keys, epoch 0.
  void Session(uint64_t session) {
    a_->BeginSession(to_b_, session, now_ns_);
    b_->BeginSession(to_a_, session, now_ns_);
    Rotate(0, session);
  }
  void Rotate(uint8_t epoch, uint64_t seed) {
    const SealSecret ab = SecretFrom(seed * 1000 + epoch * 2), ba = SecretFrom(seed * 1000 + epoch * 2 + 1);
    const uint32_t at_b = b_->InstallReceiveKey(to_a_, epoch, ab);
    const uint32_t at_a = a_->InstallReceiveKey(to_b_, epoch, ba);
    a_->InstallSendKey(to_b_, epoch, at_b, 3, ab);
    b_->InstallSendKey(to_a_, epoch, at_a, 4, ba);
  }

  // What both sides have to send is sent, `step_ns` later received; until nothing moves or `rounds` are over.
  void Run(int rounds = 10'000, uint64_t step_ns = 5'000) {
    for (int i = 0; i < rounds; ++i) {
      const std::size_t moved = Pump(*a_, port_a_, now_ns_) + Pump(*b_, port_b_, now_ns_);
      Carry(port_a_, port_b_);
      Carry(port_b_, port_a_);
      if (!port_a_.HasReceived() && !port_b_.HasReceived() && moved == 0) return;
      now_ns_ += step_ns;
    }
  }
  // Runs for `ns`, timers included.
  void RunFor(uint64_t ns, uint64_t step_ns = 20'000) {
    for (const uint64_t end = now_ns_ + ns; now_ns_ < end; now_ns_ += step_ns) Run(8, 1'000);
  }

  void Carry(port::MemoryPort& from, port::MemoryPort& to) {
    for (const auto* datagram = from.Sent(); datagram != nullptr; datagram = from.Sent()) {
      const std::string wire(reinterpret_cast<const char*>(datagram->data), datagram->bytes);
      wire_.push_back(wire);
      if (!eat_ || !eat_(datagram->path, wire)) to.Deliver(datagram->data, datagram->bytes);
      from.PopSent();
    }
  }

  // Answers every request at `core` by `answer(payload)`; collects everything else.
  std::vector<Event> Events(Core& core) {
    std::vector<Event> events;
    Event event;
    while (core.NextEvent(&event)) events.push_back(event);
    return events;
  }
  int EchoAll(Core& core) {
    int served = 0;
    for (const Event& event : Events(core)) {
      if (event.kind == EventKind::kRequest) {
        EXPECT_EQ(core.TryRespond(event.handle, absl::StatusCode::kOk,
                                  Bytes(event.payload, event.payload_bytes), {}, now_ns_),
                  SendResult::kOk);
        ++served;
      }
      core.Release(event);
    }
    return served;
  }

  SendResult Call(uint32_t bytes, uint64_t user = 0, bool one_way = false, CallHandle* handle = nullptr) {
    std::string payload(bytes, '\0');
    for (uint32_t i = 0; i < bytes; ++i) payload[i] = static_cast<char>(i * 7 + user);
    SendOptions options;
    options.peer = to_b_;
    options.function = kEcho;
    options.user = user;
    options.one_way = one_way;
    return a_->TrySend(options, {}, Bytes(reinterpret_cast<const uint8_t*>(payload.data()), payload.size()),
                       now_ns_, handle);
  }
  static bool PayloadIs(const Event& event, uint32_t bytes, uint64_t user) {
    if (event.payload_bytes != bytes) return false;
    for (uint32_t i = 0; i < bytes; ++i) {
      if (event.payload[i] != static_cast<uint8_t>(i * 7 + user)) return false;
    }
    return true;
  }

  uint64_t now_ns_ = 1'000'000'000;
  std::unique_ptr<Core> a_, b_;
  PeerIndex to_a_, to_b_;
  port::MemoryPort port_a_{256, 9000}, port_b_{256, 9000};
  std::function<bool(uint64_t path, const std::string& wire)> eat_;
  std::vector<std::string> wire_;  // Everything that was sent, in order.
};

}  // namespace weft::transport

#endif  // WEFT_TESTS_DATAPLANE_TRANSPORT_CORE_FIXTURE_H_
