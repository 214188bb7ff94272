// SPDX-License-Identifier: Apache-2.0
// What befalls two nodes and the wire between them while they run: addresses, certificates, keys, the wire.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <ctime>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "dataplane/identity/endpoint.h"
#include "tests/integration/load_run.h"
#include "tests/integration/two_node_fixture.h"

namespace weft::test {
namespace {

using testing::HasSubstr;
using testing::Not;

class FollowTest : public TwoNodeTest {
 protected:
  void SetUp() override {
    if (!Prepare()) GTEST_SKIP() << "needs root: two namespaces, several users";
    near_ = MakeNode("n1", veth_->near(), VethPair::kNearAddress);
    far_ = MakeNode("n2", veth_->far(), "0.0.0.0");  // Where it is, its peers see.
    SetMesh(CommonMesh());
    for (Mesh* node : {near_.get(), far_.get()}) {
      node->StartAgent();
      node->StartControl();
    }
  }
};

TEST_F(FollowTest, APeerWhoseAddressChangesIsFollowedWithinItsSession) {
  LoadRun far_run(*far_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  ASSERT_TRUE(Answers(*near_)) << Logs();
  // Of another prefix, so that the kernel does not take it for a secondary of the one that goes.
  veth_->far().Run({"/sbin/ip", "address", "add", "10.77.0.3/16", "dev", VethPair::kInterface});
  veth_->far().Run({"/sbin/ip", "address", "del", "10.77.0.2/24", "dev", VethPair::kInterface});
  SetMesh(CommonMesh("call_as: [app]", "10.77.0.3"));
  EXPECT_TRUE(Answers(*near_)) << Logs();
  EXPECT_THAT(Logs(), Not(HasSubstr("is no peer any more"))) << "the session went on";
}

// What calls may fail with while there is no way to the other node.
void ExpectOnlyUnreachable(const nlohmann::json& result) {
  EXPECT_EQ(result["wrong"], 0) << result;
  for (const auto& [code, count] : result["codes"].items())
    EXPECT_THAT(code, testing::AnyOf("UNAVAILABLE", "DEADLINE_EXCEEDED")) << result;
}

using NodeFaultTest = TwoNodeTest;

TEST_F(NodeFaultTest, KeysThatChangeUnderLoadFailNoCall) {
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  Process client = near_run.StartClient(8, 2000);
  // Each renewal is shown on a new connection, which begins an epoch of new keys.
  for (const char* const epoch : {"epoch 1", "epoch 2", "epoch 3"}) {
    Issue(epoch[6] == '2' ? "n2" : "n1", validity_);
    EXPECT_TRUE(near_->WaitForCtl({"get", "nodes"}, epoch)) << Logs();
  }
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_EQ(result["ok"], result["started"]) << result << Logs();
  EXPECT_THAT(Logs(), Not(HasSubstr("is no peer any more")));
}

TEST_F(NodeFaultTest, ACertificateThatEndsClosesTheRoutesAndItsRenewalOpensThem) {
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  Process client = near_run.StartClient(8, 500);
  const int64_t now_s = time(nullptr);
  Issue("n2", {now_s - 60, now_s + 4});
  EXPECT_TRUE(near_->WaitForCtl({"get", "nodes"}, "not reachable")) << Logs();
  EXPECT_GE(time(nullptr), now_s + 4) << "it was believed to its end";
  EXPECT_TRUE(far_->agent().WaitForOutput("has expired", absl::Seconds(5))) << Logs();
  EXPECT_THAT(near_->Ctl({"call", "app/echo", "--as", "app", "x"}).error, HasSubstr("UNAVAILABLE"));
  Issue("n2", validity_);
  EXPECT_TRUE(Answers(*near_)) << Logs();
  const nlohmann::json result = near_run.Finish(client);
  ExpectOnlyUnreachable(result);
  EXPECT_GT(result["ok"], 500) << result;
  EXPECT_EQ(far_run.Totals().executed_twice, 0u);
}

TEST_F(NodeFaultTest, ARevokedNodeIsNoPeerAnyMoreUntilItHasANewCertificate) {
  LoadRun far_run(*far_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  ASSERT_TRUE(Answers(*near_)) << Logs();
  const absl::StatusOr<std::string> list = authority_->Revoke({ReadFile(files_ / "n2.crt")}, validity_);
  ASSERT_TRUE(list.ok()) << list.status();
  WriteOwned(files_ / "ca.crt", authority_->ToPem().certificate + *list);
  EXPECT_TRUE(near_->WaitForCtl({"get", "nodes"}, "revoked: certificate revoked")) << Logs();
  EXPECT_THAT(near_->Ctl({"call", "app/echo", "--as", "app", "x"}).error, HasSubstr("UNAVAILABLE"));
  // Its own agent says so too, and goes on with what it has.
  EXPECT_TRUE(far_->agent().WaitForOutput("certificate revoked", absl::Seconds(10))) << Logs();
  EXPECT_TRUE(far_->WaitForCtl({"status"}, "certificate_problem  ")) << Logs();
  Issue("n2", validity_);
  EXPECT_TRUE(Answers(*near_)) << Logs();
  const std::string status = far_->Ctl({"status"}).output;
  EXPECT_THAT(status, testing::Not(HasSubstr("certificate_problem")));
  EXPECT_THAT(status, HasSubstr("spiffe://two-node.test/node/n2"));
}

// Ten seconds: longer than the silence after which the agents' connection is given up.
TEST_F(NodeFaultTest, APartitionFailsCallsAndEndsWithoutADoubleExecution) {
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  Process client = near_run.StartClient(12, 500);
  absl::SleepFor(absl::Milliseconds(500));
  veth_->far().Run({"/sbin/ip", "link", "set", VethPair::kInterface, "down"});
  const absl::Time end = absl::Now() + absl::Seconds(10);
  EXPECT_TRUE(near_->WaitForCtl({"get", "nodes"}, "not reachable")) << Logs();
  EXPECT_THAT(near_->Ctl({"call", "app/echo", "--as", "app", "x"}).error, HasSubstr("UNAVAILABLE"));
  absl::SleepFor(end - absl::Now());
  veth_->far().Run({"/sbin/ip", "link", "set", VethPair::kInterface, "up"});
  EXPECT_TRUE(Answers(*near_)) << Logs();
  const nlohmann::json result = near_run.Finish(client);
  ExpectOnlyUnreachable(result);
  EXPECT_GT(result["ok"], 200) << result;
  EXPECT_EQ(far_run.Totals().executed_twice, 0u);
}

class NarrowWireTest : public TwoNodeTest {
 protected:
  NarrowWireTest() { veth_options_.mtu = 1280; }
};

TEST_F(NarrowWireTest, AnMtuTooSmallIsSaidAndItsCallsFailAtOnce) {
  EXPECT_TRUE(near_->agent().WaitForOutput("carries datagrams of 1252 bytes", absl::Seconds(10))) << Logs();
  EXPECT_THAT(near_->Ctl({"call", "app/echo", "--as", "app", "x"}).error, HasSubstr("UNAVAILABLE"));
  EXPECT_TRUE(near_->WaitForCtl({"get", "nodes"}, "carries datagrams of 1252 bytes")) << Logs();
}

// A wire of another MTU than the usual one, which the settings of both nodes name.
template <int kMtu>
class NamedMtuTest : public TwoNodeTest {
 protected:
  NamedMtuTest() {
    veth_options_.mtu = kMtu;
    for (const char* node : {"n1", "n2"}) more_settings_[node] = absl::StrCat("mtu: ", kMtu, "\n");
  }

  // Bytes of payload of a call to the far node, over the packets that the near one sent for it.
  double BytesAPacket() {
    constexpr std::size_t kBytes = 500'000;
    // Segmentation by the kernel, not by the device, so that each datagram counts.
    veth_->near().Run({"/sbin/ip", "link", "set", VethPair::kInterface, "gso_max_segs", "1"});
    WriteFile(files_ / "payload", std::string(kBytes, 'x'));
    const uint64_t before = PacketsSent();
    EXPECT_THAT(near_->Ctl({"call", "app/echo", "--as", "app", "--file", files_ / "payload"}).error,
                HasSubstr("DATA_LOSS"))
        << Logs();  // The server knows its requests by their pattern.
    return static_cast<double>(kBytes) / static_cast<double>(PacketsSent() - before);
  }

 private:
  uint64_t PacketsSent() {
    const InNamespace inside(veth_->near());
    std::ifstream table("/proc/thread-self/net/dev");
    for (std::string line; std::getline(table, line);) {
      const std::size_t colon = line.find(absl::StrCat(VethPair::kInterface, ":"));
      if (colon == std::string::npos) continue;
      std::istringstream words(line.substr(line.find(':') + 1));
      uint64_t value = 0;
      for (int i = 0; i < 10; ++i) words >> value;  // The second of those that count what was sent.
      return value;
    }
    ADD_FAILURE() << "no counters of the interface";
    return 0;
  }
};

using NamedNarrowWireTest = NamedMtuTest<1280>;
TEST_F(NamedNarrowWireTest, CallsCrossAWireOfTheLeastMtu) {
  LoadRun far_run(*far_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  EXPECT_LT(BytesAPacket(), 1280);
}

using NamedWideWireTest = NamedMtuTest<9000>;
TEST_F(NamedWideWireTest, PacketsAreAsLargeAsTheSettingsSay) {
  LoadRun far_run(*far_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  EXPECT_GT(BytesAPacket(), 1500);
}

// As beyond a router: the node's own packets would be longer than the path carries, those that both take are
// not.
class MixedMtuTest : public TwoNodeTest {
 protected:
  MixedMtuTest() { more_settings_["n1"] = "mtu: 9000\n"; }
};

TEST_F(MixedMtuTest, APathNeedsToCarryTheSmallerOfBothMtus) {
  LoadRun far_run(*far_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  EXPECT_TRUE(Answers(*near_)) << Logs();
  for (auto* const side : {&veth_->near(), &veth_->far()})
    side->Run({"/sbin/ip", "link", "set", VethPair::kInterface, "mtu", "1280"});
  EXPECT_TRUE(near_->WaitForCtl({"get", "nodes"}, "1252 bytes, less than the 1472 in use")) << Logs();
}

TEST_F(NodeFaultTest, APeerWhoseMtuIsTooSmallIsNotReachedAndSaysSo) {
  LoadRun far_run(*far_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  far_->agent().Kill();
  veth_->far().Run({"/sbin/ip", "link", "set", VethPair::kInterface, "mtu", "1280"});
  far_->StartAgent();
  EXPECT_TRUE(far_->agent().WaitForOutput("carries datagrams of 1252 bytes", absl::Seconds(10))) << Logs();
  EXPECT_TRUE(near_->WaitForCtl({"get", "nodes"}, "not reachable"));
  EXPECT_THAT(near_->Ctl({"call", "app/echo", "--as", "app", "x"}).error, HasSubstr("UNAVAILABLE"));
}

TEST_F(NodeFaultTest, APathThatNarrowsUnderALiveSessionCarriesLongCallsOn) {
  LoadRun far_run(*far_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  WriteFile(files_ / "payload", std::string(100'000, 'x'));
  const auto call = [this] {
    return near_->Ctl({"call", "app/echo", "--as", "app", "--file", files_ / "payload"}).error;
  };
  EXPECT_THAT(call(), HasSubstr("DATA_LOSS"));  // The server knows its requests by their pattern.
  for (auto* const side : {&veth_->near(), &veth_->far()})
    side->Run({"/sbin/ip", "link", "set", VethPair::kInterface, "mtu", "1280"});
  EXPECT_TRUE(near_->WaitForCtl({"get", "nodes"}, "carries datagrams of 1252 bytes")) << Logs();
  EXPECT_TRUE(far_->WaitForCtl({"get", "nodes"}, "carries datagrams of 1252 bytes")) << Logs();
  EXPECT_THAT(call(), HasSubstr("DATA_LOSS")) << Logs();
  EXPECT_THAT(near_->Ctl({"check"}).output, HasSubstr("carries datagrams of 1252 bytes"));
  for (auto* const side : {&veth_->near(), &veth_->far()})
    side->Run({"/sbin/ip", "link", "set", VethPair::kInterface, "mtu", "1500"});
  EXPECT_TRUE(near_->agent().WaitForOutput("carries what is in use again", absl::Seconds(10))) << Logs();
  EXPECT_THAT(call(), HasSubstr("DATA_LOSS")) << Logs();
}

// Strangers on the far node's TLS port, from many addresses, while the good pair makes new keys under load.
TEST_F(NodeFaultTest, AFloodOfTheTlsPortStopsNoGoodPeer) {
  constexpr int kConnections = 10'000;
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_cur < kConnections + 1'000) GTEST_SKIP() << "needs " << kConnections << " descriptors";
  veth_->near().Run({"/sbin/ip", "route", "add", "local", "10.88.0.0/16", "dev", "lo"});
  veth_->far().Run({"/sbin/ip", "route", "add", "10.88.0.0/16", "via", VethPair::kNearAddress});
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  WaitReachable();
  Process client = near_run.StartClient(6, 500);
  const identity::Endpoint target = *identity::Endpoint::Parse("10.77.0.2:4810");
  const std::string inputs[] = {"", "\x16\x03\x01\x02", "GET / HTTP/1.1\r\n\r\n",
                                std::string(70'000, '\xff')};
  std::vector<UniqueFd> open;
  {
    const InNamespace inside(veth_->near());
    for (int i = 0; i < kConnections; ++i) {
      if (i == kConnections / 4) Issue("n1", validity_);
      UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      sockaddr_storage from, to;
      const identity::Endpoint source =
          *identity::Endpoint::Parse(absl::StrCat("10.88.", i % 100, ".", 1 + i / 100, ":1"));
      const socklen_t bytes = source.ToSockaddr(&from);
      reinterpret_cast<sockaddr_in*>(&from)->sin_port = 0;
      ASSERT_EQ(bind(socket.get(), reinterpret_cast<sockaddr*>(&from), bytes), 0);
      const socklen_t to_bytes = target.ToSockaddr(&to);
      ASSERT_EQ(connect(socket.get(), reinterpret_cast<sockaddr*>(&to), to_bytes), 0) << i;
      const std::string& says = inputs[i % 4];
      (void)send(socket.get(), says.data(), says.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      open.push_back(std::move(socket));
    }
  }
  // They hang on.
  EXPECT_TRUE(near_->WaitForCtl({"get", "nodes"}, "epoch 1")) << Logs();
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_EQ(result["ok"], result["started"]) << result << Logs();
  const std::string status = far_->Ctl({"status"}).output;
  EXPECT_THAT(status, HasSubstr("tls_refused_garbage"));
  EXPECT_THAT(status, HasSubstr("tls_refused_too_many_unfinished"));
}

}  // namespace
}  // namespace weft::test
