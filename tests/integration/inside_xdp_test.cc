// SPDX-License-Identifier: Apache-2.0
// Engines inside hosts that have AF_XDP sockets of their own: what carries their packets while daemons and
// hosts come and go.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cinttypes>
#include <cstdio>
#include <optional>
#include <sstream>
#include <string>

#include "absl/strings/match.h"
#include "tests/integration/inside_fixture.h"

namespace weft::test {
namespace {

using testing::HasSubstr;

// weftd has the first queue of the interface, the engine inside a host the second.
class RawInsideTest : public InsideTest {
 protected:
  RawInsideTest() {
    steer_ = VethPair::kInterface;
    raw_packets_ = true;
    veth_options_.queues = 2;
  }
  void SetUp() override {
    InsideTest::SetUp();
    if (IsSkipped()) return;
    SetMesh(InsideMesh());
    far_run_.emplace(*far_);
    server_.emplace(far_run_->StartGuestHost("a", kUidA, 3, {"--engine", "inside"}));
    relay_.emplace(StartRelay({"--engine", "inside"}));
    WaitReachable();
    ASSERT_TRUE(Relays()) << Relay(7).error << Logs() << relay_->Output();
  }
  static bool ByAfXdp(Mesh& node) { return node.WaitForCtl({"status"}, "af_xdp of 1, udp of 0"); }
  // Datagrams that the node's UDP sockets have been given.
  int64_t UdpReceived(const NetworkNamespace& network) const {
    const InNamespace inside(network);
    std::istringstream lines(ReadFile("/proc/thread-self/net/snmp"));
    std::string line;
    while (std::getline(lines, line)) {
      int64_t received = 0;
      if (std::sscanf(line.c_str(), "Udp: %" SCNd64, &received) == 1) return received;
    }
    ADD_FAILURE() << "no count of UDP";
    return 0;
  }
  // Calls that go on from both engines inside, with what their packets pass.
  void ExpectCalls(int calls) {
    for (int i = 0; i < calls; ++i) EXPECT_EQ(Relay(static_cast<uint32_t>(i)).output.size(), 8u) << i;
  }

  std::optional<LoadRun> far_run_;
  std::optional<Process> server_, relay_;
};

TEST_F(RawInsideTest, EnginesInsideHaveTheirPacketsByAfXdpAlone) {
  ASSERT_TRUE(ByAfXdp(*near_)) << Logs() << relay_->Output();
  ASSERT_TRUE(ByAfXdp(*far_)) << Logs() << server_->Output();
  EXPECT_THAT(relay_->Output(), HasSubstr("has packets by af_xdp at weft0 queue 1"));
  ExpectCalls(5);  // Each kernel has found the other.
  const int64_t before = CounterOf(*near_, "engine:n1/b", "engine_requests_out");
  const int64_t near_udp = UdpReceived(veth_->near());
  const int64_t far_udp = UdpReceived(veth_->far());
  ExpectCalls(20);
  EXPECT_EQ(CounterOf(*near_, "engine:n1/b", "engine_requests_out"), before + 20);
  EXPECT_EQ(UdpReceived(veth_->near()), near_udp);
  EXPECT_EQ(UdpReceived(veth_->far()), far_udp);
}

// The socket is the host's: calls go on while weftd is gone, and the next weftd gives another.
TEST_F(RawInsideTest, CallsGoOnByAfXdpWhileTheAgentIsGoneAndAfter) {
  ASSERT_TRUE(ByAfXdp(*near_) && ByAfXdp(*far_)) << Logs();
  ExpectCalls(5);
  for (int life = 0; life < 2; ++life) {
    far_->agent().Kill();
    const int64_t far_udp = UdpReceived(veth_->far());
    ExpectCalls(5);
    EXPECT_EQ(UdpReceived(veth_->far()), far_udp);
    far_->StartAgent();
    ASSERT_TRUE(ByAfXdp(*far_)) << Logs() << server_->Output();
    ASSERT_TRUE(Relays()) << Logs();
  }
}

// What the kernel lets go when the program is detached is entered into the next one's map.
TEST_F(RawInsideTest, AProgramThatIsAttachedAnewLeadsToTheSameSockets) {
  ASSERT_TRUE(ByAfXdp(*near_) && ByAfXdp(*far_)) << Logs();
  far_->control().Kill();
  far_->RunControl({"--steer-detach", VethPair::kInterface});
  ExpectCalls(5);  // By the kernel's socket.
  far_->StartControl();
  EXPECT_TRUE(Eventually([&] {
    const int64_t far_udp = UdpReceived(veth_->far());
    ExpectCalls(3);
    return UdpReceived(veth_->far()) == far_udp;
  })) << Logs();
}

TEST_F(RawInsideTest, AnInterfaceThatIsDeletedAndComesBackIsUsedAgain) {
  ASSERT_TRUE(ByAfXdp(*near_) && ByAfXdp(*far_)) << Logs();
  ExpectCalls(3);
  veth_->Unplug();
  for (const Process* host : {&*server_, &*relay_}) {
    EXPECT_TRUE(Eventually([&] {
      return absl::StrContains(host->Output(), "goes on without AF_XDP: its interface was deleted");
    })) << host->Output();
  }
  for (Mesh* node : {near_.get(), far_.get()})
    EXPECT_TRUE(node->WaitForCtl({"status"}, "udp (AF_XDP is for tenants with")) << Logs();
  veth_->Plug();
  ASSERT_TRUE(ByAfXdp(*near_) && ByAfXdp(*far_)) << Logs();
  ASSERT_TRUE(Relays()) << Logs();
  const int64_t far_udp = UdpReceived(veth_->far());
  ExpectCalls(5);
  EXPECT_EQ(UdpReceived(veth_->far()), far_udp);
}

TEST_F(RawInsideTest, AHostThatIsKilledLeavesItsQueueToTheNext) {
  ASSERT_TRUE(ByAfXdp(*far_)) << Logs();
  for (int life = 0; life < 3; ++life) {
    server_->Kill();
    server_.emplace(far_run_->StartGuestHost("a", kUidA, 3, {"--engine", "inside"}));
    ASSERT_TRUE(ByAfXdp(*far_)) << Logs() << server_->Output();
    ASSERT_TRUE(Relays()) << Logs();
  }
}

class RawInsideOneQueueTest : public RawInsideTest {
 protected:
  RawInsideOneQueueTest() { veth_options_.queues = 1; }
};

TEST_F(RawInsideOneQueueTest, WithoutAQueueOfItsOwnAnEngineInsideKeepsToUdpAndItIsSaidWhy) {
  EXPECT_TRUE(Eventually([&] {
    return absl::StrContains(near_->agent().Output(), "weft0 has 1 queues, and each of them another socket");
  })) << Logs();
  ExpectCalls(5);
  EXPECT_THAT(near_->Ctl({"status"}).output, HasSubstr("udp (AF_XDP is for tenants with"));
}

}  // namespace
}  // namespace weft::test
