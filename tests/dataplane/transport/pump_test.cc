// SPDX-License-Identifier: Apache-2.0
// The pump between the core and a port: one that has no room, and how often one is asked.
#include "dataplane/transport/pump.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>

#include "dataplane/port/port.h"

namespace weft::transport {
namespace {

// Whose every send buffer is taken until it is flushed.
struct FullPort {
  using Received = port::ReceivedDatagram;
  std::size_t Receive(Received* /*burst*/, std::size_t /*count*/) { return 0; }
  void Release(const Received* /*burst*/, std::size_t /*count*/) {}
  uint8_t* BeginSend() { return nullptr; }
  void FinishSend(uint64_t /*path*/, std::size_t /*bytes*/) { ++finished; }
  void Flush() { ++flushed; }
  int finished = 0;
  int flushed = 0;
};

// Nothing else would push it: the core has something to send and nowhere to put it.
TEST(PumpTest, APortWithoutRoomIsPushedThoughNothingWasSent) {
  Config config;
  config.memory_bytes = 1 << 20;
  const std::unique_ptr<Core> core = Core::Create(config).value();
  FullPort port;
  EXPECT_EQ(PumpOut(*core, port, 1), 0u);
  EXPECT_EQ(port.finished, 0);
  EXPECT_EQ(port.flushed, 1);
}

// With room for one datagram after the other, which counts how often it is asked for it.
struct CountingPort : FullPort {
  uint8_t* BeginSend() { return ++begun, buffer.data(); }
  std::array<uint8_t, 2048> buffer = {};
  int begun = 0;
};

// A core with `messages` to send, a datagram each.
std::unique_ptr<Core> CoreThatSends(int messages) {
  Config config;
  config.memory_bytes = 1 << 20;
  config.coalesce = false;
  std::unique_ptr<Core> core = Core::Create(config).value();
  core->SetTenantLimit({0}, config.memory_bytes);
  const PeerIndex peer = core->AddPeer(1).value();
  core->BeginSession(peer, 1, 1);
  core->InstallSendKey(peer, 0, 1, 0, {});
  SendOptions options;
  options.peer = peer;
  options.function = FunctionId{42};
  const uint8_t payload[8] = {};
  for (int i = 0; i < messages; ++i) {
    EXPECT_EQ(core->TrySend(options, {}, payload, 1, nullptr), SendResult::kOk);
  }
  return core;
}

// What comes after the last datagram comes before the port is flushed, so an answer would wait for it.
TEST(PumpTest, AfterTheLastDatagramThePortIsNotAskedForRoomAgain) {
  for (const int messages : {1, 3}) {
    CountingPort port;
    const std::unique_ptr<Core> core = CoreThatSends(messages);
    EXPECT_EQ(PumpOut(*core, port, 1), static_cast<std::size_t>(messages));
    EXPECT_EQ(port.begun, messages);
    EXPECT_EQ(port.finished, messages);
    EXPECT_EQ(port.flushed, 1);
  }
}

TEST(PumpTest, ABurstIsTheMostThatLeavesInOneRound) {
  CountingPort port;
  const std::unique_ptr<Core> core = CoreThatSends(static_cast<int>(kPumpBurst) + 1);
  EXPECT_EQ(PumpOut(*core, port, 1), kPumpBurst);
  EXPECT_EQ(PumpOut(*core, port, 1), 1u);
  EXPECT_EQ(port.flushed, 2);
}

}  // namespace
}  // namespace weft::transport
