// SPDX-License-Identifier: Apache-2.0
// Two nodes as they ship, and one more sender on their wire that makes datagrams of its own out of one that
// it has seen. The far node takes none of them, counts each by its reason, and good calls go on.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "bpf/abi/packet.h"
#include "tests/integration/load_run.h"
#include "tests/integration/two_node_fixture.h"

namespace weft::test {
namespace {

constexpr uint16_t kPort = 4810;
constexpr std::size_t kHeaders4Bytes = ETH_HLEN + 20 + 8;

// The far node's packets go by AF_XDP behind the XDP program, or by the kernel's UDP.
class ForgeryTest : public TwoNodeTest, public testing::WithParamInterface<bool> {
 protected:
  void SetUp() override {
    if (!Prepare()) GTEST_SKIP() << "needs root: two namespaces, several users";
    // By UDP: what a socket of AF_XDP sends passes no tap.
    near_ = MakeNode("n1", veth_->near(), VethPair::kNearAddress);
    if (GetParam()) steer_ = VethPair::kInterface;
    far_ = MakeNode("n2", veth_->far(), VethPair::kFarAddress);
    SetMesh(CommonMesh());
    for (Mesh* node : {near_.get(), far_.get()}) {
      node->StartAgent();
      node->StartControl();
    }
  }

  // A datagram with a request from the near node to the far one, seen on the wire while calls go on.
  std::string Genuine() {
    const InNamespace inside(veth_->near());
    const UniqueFd tap(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL)));
    const timeval wait{5, 0};
    EXPECT_EQ(setsockopt(tap.get(), SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)), 0);
    std::string frame(65536, '\0');
    for (int i = 0; i < 10'000; ++i) {
      const ssize_t bytes = recv(tap.get(), frame.data(), frame.size(), 0);
      // A request: what cuts a byte off the shortest datagram makes another kind of it.
      if (bytes < static_cast<ssize_t>(kHeaders4Bytes + WEFT_PACKET_BYTES_MIN + 64)) continue;
      const auto at = [&frame](std::size_t place) { return static_cast<uint8_t>(frame[place]); };
      const bool udp = at(12) == 8 && at(13) == 0 && at(14) == 0x45 && at(23) == IPPROTO_UDP;
      const int port = at(36) << 8 | at(37);
      if (udp && port == kPort && at(33) == 2)  // To 10.77.0.2
        return frame.substr(kHeaders4Bytes, static_cast<std::size_t>(bytes) - kHeaders4Bytes);
    }
    ADD_FAILURE() << "no request was seen";
    return std::string(WEFT_PACKET_BYTES_MIN, '\0');
  }

  // What the far node has dropped by that reason, in its XDP program and in its engine.
  uint64_t Dropped(const std::string& reason) {
    const auto status = nlohmann::json::parse(far_->Ctl({"status", "-o", "json"}).output, nullptr, false);
    uint64_t sum = 0;
    for (const nlohmann::json& item : status.value("items", nlohmann::json::array())) {
      sum += item.value("drop_" + reason, uint64_t{0}) + item.value("dropped_" + reason, uint64_t{0});
    }
    return sum;
  }
};

TEST_P(ForgeryTest, AFloodOfEachKindIsCountedByItsReasonAndFailsNoCall) {
  constexpr uint64_t kRounds = 500;
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  ASSERT_TRUE(Answers(*near_)) << Logs();
  ASSERT_TRUE(far_->WaitForCtl({"status"}, GetParam() ? "af_xdp weft0" : "io_uring")) << Logs();
  Process client = near_run.StartClient(2, 1000);
  const std::string genuine = Genuine();
  const auto changed = [&genuine](std::size_t at, char bits) {
    std::string wire = genuine;
    wire[at] = static_cast<char>(wire[at] ^ bits);
    return wire;
  };
  // A counter that is far ahead is fresh.
  const std::string flipped = changed(11, 1);
  const std::vector<std::pair<std::string, std::string>> kinds = {
      {"replayed", genuine},
      {"bad_tag", flipped},
      {"bad_tag", flipped.substr(0, flipped.size() - 1)},
      {"too_short", genuine.substr(0, WEFT_PACKET_BYTES_MIN - 1)},
      {"too_long", genuine + std::string(WEFT_PACKET_BYTES_MAX, 'x')},
      {"bad_version", changed(0, 0x30)},
      {"wrong_epoch", changed(1, 1)},
      {"unknown_key", changed(7, 0x40)},
  };
  std::map<std::string, uint64_t> expected;
  for (const auto& [reason, wire] : kinds) expected[reason] = Dropped(reason);
  {
    const InNamespace inside(veth_->near());
    const UniqueFd stranger(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(kPort);
    inet_pton(AF_INET, VethPair::kFarAddress, &to.sin_addr);
    for (uint64_t round = 0; round < kRounds; ++round) {
      for (const auto& [reason, wire] : kinds) {
        ASSERT_EQ(
            sendto(stranger.get(), wire.data(), wire.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof(to)),
            static_cast<ssize_t>(wire.size()));
        ++expected[reason];
      }
      absl::SleepFor(absl::Milliseconds(1));
    }
  }
  for (const auto& [reason, count] : expected) {
    EXPECT_TRUE(Eventually([&, &reason = reason, &count = count] { return Dropped(reason) >= count; }))
        << reason;
    EXPECT_EQ(Dropped(reason), count) << reason << "\n" << far_->Ctl({"status", "-o", "json"}).output;
  }
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_EQ(result["ok"], result["started"]) << result << Logs();
  EXPECT_EQ(far_run.Totals().executed_twice, 0u);
}

INSTANTIATE_TEST_SUITE_P(Ports, ForgeryTest, testing::Bool(),
                         [](const auto& port) { return port.param ? "AfXdp" : "Udp"; });

}  // namespace
}  // namespace weft::test
