// SPDX-License-Identifier: Apache-2.0
// The pump between the core and a port that has no room.
#include "dataplane/transport/pump.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace weft::transport
