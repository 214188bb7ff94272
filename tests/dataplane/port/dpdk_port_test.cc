// SPDX-License-Identifier: Apache-2.0
// What is the DPDK port's own: its link address, its waiting, its errors. The rest is in the conformance
// suite.
#include "dataplane/port/dpdk_port.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "dataplane/port/neighbour_frames.h"
#include "tests/support/huge_pages.h"
#include "tests/support/process.h"

namespace weft::port {
namespace {

using testing::HasSubstr;

constexpr char kExpectHugePages[] = "WEFT_TEST_EXPECT_HUGE_PAGES";
constexpr uint8_t kStrangerMac[6] = {2, 0, 0, 0, 0, 7};

Address OwnAddress() { return *Address::Parse("10.77.0.1:4810"); }
Address PeerAddress() { return *Address::Parse("10.77.0.2:4811"); }

// A port on one end of a wire, the bare device on the other.
class DpdkPortOnWire : public testing::Test {
 protected:
  void SetUp() override {
    auto wire = DpdkWire::Create("weft_port_test");
    ASSERT_TRUE(wire.ok()) << wire.status();
    auto port = DpdkPort::Create({.device = {.device = "", .wire = *wire, .side = 0}, .local = OwnAddress()});
    ASSERT_TRUE(port.ok()) << port.status();
    port_ = *std::move(port);
    PortStatus status;
    auto peer = DpdkDevice::Create({.device = "", .wire = *wire, .side = 1}, &status);
    ASSERT_TRUE(peer.ok()) << peer.status();
    peer_ = *std::move(peer);
  }

  // The next frame that the port sent, as bytes; empty where there is none.
  std::string Sent() {
    DpdkFrame frame;
    if (!peer_->Receive(&frame)) return "";
    std::string bytes(reinterpret_cast<const char*>(frame.data), frame.bytes);
    DpdkDevice::Free(frame);
    return bytes;
  }
  void Drain() {
    while (!Sent().empty()) {
    }
  }
  void Give(const uint8_t* bytes, std::size_t count) {
    DpdkFrame frame;
    ASSERT_TRUE(peer_->New(&frame));
    std::memcpy(frame.data, bytes, count);
    frame.bytes = static_cast<uint32_t>(count);
    ASSERT_TRUE(peer_->Send(frame));
  }
  static NeighbourMessage Parse(const std::string& frame) {
    return ParseNeighbour(reinterpret_cast<const uint8_t*>(frame.data()), frame.size());
  }
  void SendDatagram(uint64_t path) {
    uint8_t* const out = port_->BeginSend();
    ASSERT_NE(out, nullptr);
    std::memset(out, 1, 64);
    port_->FinishSend(path, 64);
    port_->Flush();
  }

  std::unique_ptr<DpdkPort> port_;
  std::unique_ptr<DpdkDevice> peer_;
};

TEST_F(DpdkPortOnWire, AsksForANeighbourAndSendsOnceItIsKnown) {
  Drain();
  const uint64_t path = port_->AddPath(PeerAddress()).value();
  const NeighbourMessage question = Parse(Sent());
  EXPECT_EQ(question.kind, NeighbourMessage::Kind::kQuestion);
  Address peer_ip = PeerAddress();
  peer_ip.port = 0;
  EXPECT_EQ(question.subject, peer_ip);
  SendDatagram(path);
  EXPECT_EQ(port_->counters().lost_unreachable, 1u);
  EXPECT_EQ(port_->counters().sent, 0u);
  uint8_t answer[kNeighbourFrameBytesMax];
  Give(answer, WriteAnswer(answer, kStrangerMac, peer_ip, OwnAddress(), kStrangerMac));
  ReceivedDatagram none;
  EXPECT_EQ(port_->Receive(&none, 1), 0u);
  SendDatagram(path);
  const std::string frame = Sent();
  ASSERT_EQ(frame.size(), kHeaders4Bytes + 64);
  EXPECT_EQ(std::memcmp(frame.data(), kStrangerMac, 6), 0);
  EXPECT_EQ(port_->counters().sent, 1u);
}

TEST_F(DpdkPortOnWire, AnswersForItsOwnAddressOnly) {
  Drain();
  uint8_t question[kNeighbourFrameBytesMax];
  Give(question, WriteQuestion(question, kStrangerMac, PeerAddress(), *Address::Parse("10.77.0.9:0")));
  Give(question, WriteQuestion(question, kStrangerMac, PeerAddress(), OwnAddress()));
  ReceivedDatagram burst[4];
  EXPECT_EQ(port_->Receive(burst, 4), 0u);
  const std::string answer = Sent();
  EXPECT_EQ(Parse(answer).kind, NeighbourMessage::Kind::kAnswer);
  EXPECT_EQ(std::memcmp(answer.data(), kStrangerMac, 6), 0);
  EXPECT_EQ(Sent(), "");
}

TEST_F(DpdkPortOnWire, FramesOfOthersAreCountedAndGoBack) {
  const uint32_t free_before = port_->frames().receive.free;
  uint8_t junk[90] = {};
  for (int i = 0; i < 100; ++i) Give(junk, static_cast<std::size_t>(i % 90 + 1));
  ReceivedDatagram burst[32];
  for (int i = 0; i < 10; ++i) EXPECT_EQ(port_->Receive(burst, 32), 0u);
  EXPECT_EQ(port_->counters().receive_invalid, 100u);
  EXPECT_EQ(port_->frames().receive.free, free_before);
}

TEST_F(DpdkPortOnWire, StepOfWaitingDoublesToItsEndAndBeginsAnewWithADatagram) {
  const uint64_t path = port_->AddPath(PeerAddress()).value();
  EXPECT_EQ(port_->idle_step_ns(), DpdkPort::kIdleStepFirstNs);
  for (int i = 0; i < 20; ++i) {
    const uint64_t before = port_->idle_step_ns();
    EXPECT_TRUE(port_->PrepareSleep());
    EXPECT_EQ(port_->idle_step_ns(), std::min(2 * before, DpdkPort::kIdleStepLastNs));
  }
  EXPECT_EQ(port_->sleep_fd(), -1);
  uint8_t memory[kHeadersRoomBytes + 64] = {};
  WriteHeaders(MakeHeaders(kStrangerMac, kStrangerMac, PeerAddress(), OwnAddress()),
               memory + kHeadersRoomBytes, 64);
  Give(memory + kHeadersRoomBytes - kHeaders4Bytes, kHeaders4Bytes + 64);
  ReceivedDatagram one;
  ASSERT_EQ(port_->Receive(&one, 1), 1u);
  EXPECT_EQ(port_->idle_step_ns(), DpdkPort::kIdleStepFirstNs);
  EXPECT_EQ(port_->SourceOf(one), PeerAddress());
  // A stranger is answered where the path is set to it.
  port_->Release(&one, 1);
  EXPECT_TRUE(port_->SetPath(path, *Address::Parse("10.77.0.3:5000")).ok());
  EXPECT_EQ(port_->SetPath(path, *Address::Parse("[fd77::3]:5000")).code(),
            absl::StatusCode::kInvalidArgument);
}

// Its worker backs off all the same, by a step at most.
TEST_F(DpdkPortOnWire, SleepsThoughThePeerTakesNothingAnyMore) {
  const uint64_t path = port_->AddPath(PeerAddress()).value();
  Address peer_ip = PeerAddress();
  peer_ip.port = 0;
  uint8_t answer[kNeighbourFrameBytesMax];
  Give(answer, WriteAnswer(answer, kStrangerMac, peer_ip, OwnAddress(), kStrangerMac));
  ReceivedDatagram none;
  EXPECT_EQ(port_->Receive(&none, 1), 0u);
  const uint32_t free_before = port_->frames().send.free;
  for (int i = 0; i < 100'000 && port_->frames().send.free == free_before; ++i) SendDatagram(path);
  ASSERT_LT(port_->frames().send.free, free_before) << "the wire never fills";
  EXPECT_TRUE(port_->PrepareSleep());
}

TEST_F(DpdkPortOnWire, StatusTellsWhatWasChosenAndWhy) {
  const PortStatus& status = port_->status();
  EXPECT_EQ(status.port, "dpdk");
  EXPECT_FALSE(status.fell_back);
  std::string all;
  for (const PortChoice& choice : status.choices) {
    EXPECT_FALSE(choice.why.empty()) << choice.feature;
    absl::StrAppend(&all, choice.feature, ": ", choice.chosen, "\n");
  }
  EXPECT_THAT(all, HasSubstr("driver: net_ring"));
  EXPECT_THAT(all, HasSubstr("looks every 50 us to 2000 us"));
  EXPECT_THAT(all, HasSubstr(getenv(kExpectHugePages) == nullptr ? "memory: up to 128 MiB in normal pages"
                                                                 : "memory: huge pages"));
}

// In a process of its own, since DPDK's environment starts once in each.
TEST(DpdkPort, UsesHugePagesWhereThereAreEnough) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to reserve huge pages";
  const auto on_wire = [](const std::string& expected) {
    return test::Run({"/usr/bin/env", expected, std::filesystem::read_symlink("/proc/self/exe"),
                      "--gtest_filter=DpdkPortOnWire.*"});
  };
  {
    const test::HugePages pages(80);
    const test::Ran ran = on_wire(absl::StrCat(kExpectHugePages, "=1"));
    EXPECT_EQ(ran.exit_code, 0) << "with " << pages.count() << ": " << ran.output << ran.error;
  }
  const test::HugePages too_few(8);
  const test::Ran ran = on_wire(absl::StrCat("--unset=", kExpectHugePages));
  EXPECT_EQ(ran.exit_code, 0) << ran.output << ran.error;
}

absl::Status Refused(const std::string& device, const Address& local = OwnAddress()) {
  DpdkPort::Options options;
  options.device.device = device;
  options.local = local;
  return DpdkPort::Create(options).status();
}

TEST(DpdkPort, ErrorsNameTheDeviceAndTheCause) {
  EXPECT_THAT(std::string(Refused("net_no_such0").message()), HasSubstr("net_no_such0"));
  EXPECT_THAT(std::string(Refused("net_memif0,role=king").message()), HasSubstr("net_memif0,role=king"));
  const absl::Status no_interface = Refused("net_af_xdp0,iface=nowhere0");
  EXPECT_THAT(std::string(no_interface.message()), HasSubstr("net_af_xdp0,iface=nowhere0"));
  EXPECT_THAT(std::string(Refused("net_memif0", *Address::Parse("0.0.0.0:4810")).message()),
              HasSubstr("its address"));
  // A device that is refused leaves nothing behind that stands in the way of the next.
  EXPECT_THAT(std::string(Refused("net_memif0,role=king").message()), testing::Not(HasSubstr("File exists")));
}

}  // namespace
}  // namespace weft::port
