// SPDX-License-Identifier: Apache-2.0
// Hosts that run the node engine inside themselves, on two nodes as they ship: calls from guest to guest that
// pass no process between, deaths, and what such a host may not do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "dataplane/api/host.pb.h"
#include "dataplane/api/protocol.h"
#include "dataplane/base/unix_socket.h"
#include "tests/integration/inside_fixture.h"

namespace weft::test {
namespace {

using testing::HasSubstr;

TEST_F(InsideTest, GuestsCallEachOtherThroughTheEnginesInsideTheirHosts) {
  SetMesh(InsideMesh());
  LoadRun far_run(*far_);
  Process server = far_run.StartGuestHost("a", kUidA, 3, {"--engine", "inside"});
  Process relay = StartRelay({"--engine", "inside"});
  WaitReachable();
  ASSERT_TRUE(Relays()) << Relay(7).error << Logs() << relay.Output();
  EXPECT_THAT(near_->Ctl({"get", "hosts"}).output, HasSubstr("inside"));
  EXPECT_THAT(near_->Ctl({"status"}).output, HasSubstr("udp (AF_XDP is for tenants with"));
  EXPECT_TRUE(Eventually([&] { return CounterOf(*near_, "engine:n1/b", "nodes_reached") >= 2; }));
  const int64_t before = CounterOf(*near_, "engine:n1/b", "engine_requests_out");
  const int64_t served = CounterOf(*far_, "engine:n2/a", "engine_requests_in");
  const int64_t shared = CounterOf(*near_, "engine:n1", "engine_requests_out");
  for (uint32_t i = 0; i < 20; ++i) EXPECT_EQ(Relay(i).output.size(), 8u) << i;
  EXPECT_EQ(CounterOf(*near_, "engine:n1/b", "engine_requests_out"), before + 20);
  EXPECT_EQ(CounterOf(*far_, "engine:n2/a", "engine_requests_in"), served + 20);
  EXPECT_EQ(CounterOf(*near_, "engine:n1", "engine_requests_out"), shared);
}

// Callers elsewhere hear of it at once, and find the host again when it is back.
TEST_F(InsideTest, AHostThatIsKilledWithItsEngineFailsItsCallsAndServesAgain) {
  SetMesh(InsideMesh());
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  near_run.WithoutLedger();
  const std::vector<std::string> inside = {"--engine", "inside"};
  Process server = far_run.StartGuestHost("a", kUidA, 3, inside);
  WaitReachable();
  Process client = near_run.StartClient(3, 1000);
  for (int i = 0; i < 2; ++i) {
    absl::SleepFor(absl::Milliseconds(500));
    server.Kill();
    absl::SleepFor(absl::Milliseconds(200));
    server = far_run.StartGuestHost("a", kUidA, 3, inside);
  }
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_EQ(result["wrong"], 0);
  EXPECT_GT(result["ok"], 1000) << result << Logs();
  for (const auto& [code, count] : result["codes"].items()) EXPECT_EQ(code, "UNAVAILABLE") << result;
  EXPECT_LT(result["failed_max_ns"], 500'000'000) << result;
  EXPECT_TRUE(GuestAnswers()) << Logs();
  EXPECT_GT(CounterOf(*far_, "engine:n2/a", "engine_requests_in"), 0);
}

// Its keys and its socket are its own: calls go on while its agent is gone, and after it is back the host has
// an engine again, with other keys.
TEST_F(InsideTest, CallsGoOnWhileTheAgentOfTheHostIsGone) {
  SetMesh(InsideMesh());
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  near_run.WithoutLedger();
  Process server = far_run.StartGuestHost("a", kUidA, 3, {"--engine", "inside"});
  WaitReachable();
  ASSERT_TRUE(Eventually([&] { return CounterOf(*far_, "engine:n2/a", "nodes_reached") >= 1; })) << Logs();
  Process client = near_run.StartClient(3, 1000);
  absl::SleepFor(absl::Milliseconds(300));
  far_->agent().Kill();
  absl::SleepFor(absl::Milliseconds(1500));
  far_->StartAgent();
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_EQ(result["wrong"], 0);
  // Half of the calls were made while there was no agent.
  EXPECT_GT(result["ok"].get<int>(), result["started"].get<int>() * 3 / 4) << result << Logs();
  for (const auto& [code, count] : result["codes"].items()) EXPECT_EQ(code, "UNAVAILABLE") << result;
  EXPECT_TRUE(Eventually([&] { return CounterOf(*far_, "engine:n2/a", "nodes_reached") >= 1; })) << Logs();
  EXPECT_TRUE(GuestAnswers()) << Logs();
}

TEST_F(InsideTest, KeysThatChangeUnderLoadFailNoCall) {
  SetMesh(InsideMesh());
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  near_run.WithoutLedger();
  Process server = far_run.StartGuestHost("a", kUidA, 3, {"--engine", "inside"});
  Process relay = StartRelay({"--engine", "inside"});
  WaitReachable();
  ASSERT_TRUE(Relays()) << Relay(7).error << Logs();
  Process client = near_run.StartClient(4, 1000);
  for (const char* const epoch : {"epoch 1", "epoch 2"}) {
    Issue(epoch[6] == '2' ? "n2" : "n1", validity_);
    EXPECT_TRUE(near_->WaitForCtl({"get", "nodes"}, epoch)) << Logs();
    EXPECT_EQ(Relay(9).output.size(), 8u);
  }
  const nlohmann::json result = near_run.Finish(client);
  EXPECT_EQ(result["ok"], result["started"]) << result << Logs();
}

// The control of n2 places app/relay on another host of n1 than the one that calls in its name.
TEST_F(InsideTest, AnEngineInsideAHostMayCallAsWhatIsPlacedOnThatHostOnly) {
  near_->SetMesh(InsideMesh());
  far_->SetMesh(InsideMesh("z"));
  LoadRun far_run(*far_);
  Process server = far_run.StartGuestHost("a", kUidA, 3, {"--engine", "inside"});
  Process relay = StartRelay({"--engine", "inside"});
  WaitReachable();
  EXPECT_TRUE(Eventually([&] { return CounterOf(*near_, "engine:n1/b", "nodes_reached") >= 2; }));
  EXPECT_TRUE(Eventually([&] { return absl::StrContains(Relay(1).error, "PERMISSION_DENIED"); }))
      << Relay(1).error;
  EXPECT_GT(CounterOf(*far_, "engine:n2/a", "engine_refused_caller"), 0);
  // Its node may: weftd speaks for all that is there.
  relay.Kill();
  relay = StartRelay({});
  EXPECT_TRUE(Relays()) << Relay(1).error;
}

TEST_F(InsideTest, AHostWhoseTenantMayNotIsRefusedByName) {
  Process host = far_->Start("weft-host",
                             {"--name", "stranger", "--no-cache", "--engine", "inside", "--serve",
                              "other/echo=" + Module(*far_, "test_load_echo")},
                             kUidStranger, "stranger.log");
  EXPECT_TRUE(host.WaitForOutput("engine_not_allowed", absl::Seconds(20))) << host.Output();
}

// A process that speaks to its agent as a host does, and lies.
class Liar {
 public:
  Liar(Mesh& node, uid_t uid) {
    // The kernel tells the agent whose thread connects.
    syscall(SYS_setresuid, -1, uid, -1);
    absl::StatusOr<UniqueFd> socket = ConnectUnix(node.run_dir() + "/agent.sock");
    syscall(SYS_setresuid, -1, 0, -1);
    EXPECT_TRUE(socket.ok()) << socket.status();
    host_ = *std::move(socket);
    api::FromHost message;
    api::Hello& hello = *message.mutable_hello();
    hello.set_protocol(kAgentProtocol);
    hello.set_host("a");
    hello.set_inside_engine(true);
    Say(host_, message);
  }
  static void Say(const UniqueFd& to, const api::FromHost& message) {
    EXPECT_TRUE(SendMessage(to.get(), message.SerializeAsString()).ok());
  }
  // The next message of that kind, whose serials are acknowledged; nothing where none comes.
  static bool Hear(const UniqueFd& from, api::ToHost::KindCase kind, api::ToHost* message,
                   std::vector<UniqueFd>* fds = nullptr) {
    while (WaitReady(from.get(), POLLIN, 5'000).ok()) {
      absl::StatusOr<ReceivedMessage> received = ReceiveMessage(from.get());
      if (!received.ok() || !message->ParseFromString(received->bytes)) return false;
      if (fds != nullptr) *fds = std::move(received->fds);
      if (message->serial() != 0) {
        api::FromHost applied;
        applied.mutable_applied()->set_serial(message->serial());
        (void)SendMessage(from.get(), applied.SerializeAsString());  // It may be cut off by now.
      }
      if (message->kind_case() == kind) return true;
    }
    return false;
  }
  const UniqueFd& host() const { return host_; }

 private:
  UniqueFd host_;
};

TEST_F(InsideTest, AnEngineInsideThatClaimsAnothersFunctionOrKeyIdGetsNothing) {
  SetMesh(InsideMesh());
  Process other = far_->Start("weft-test-echo", {"--name", "b", "--serve", "app/other", "--tag", "2"}, kUidB,
                              "other.log");
  ASSERT_TRUE(other.WaitForOutput("serving", absl::Seconds(20))) << other.Output();
  WaitReachable();
  const auto others_calls_go_on = [&] {
    return Eventually([&] {
      return absl::StrContains(near_->Ctl({"call", "app/other", "--as", "app", "x"}).error, "DATA_LOSS");
    });
  };
  ASSERT_TRUE(others_calls_go_on()) << Logs();
  const Liar liar(*far_, kUidA);
  api::ToHost said;
  std::vector<UniqueFd> fds;
  ASSERT_TRUE(Liar::Hear(liar.host(), api::ToHost::kInsideEngine, &said, &fds)) << Logs();
  ASSERT_EQ(fds.size(), 3u);
  const UniqueFd engine = std::move(fds[0]);
  const uint32_t bits = said.inside_engine().key_index_bits();
  api::FromHost hello;
  hello.mutable_hello()->set_protocol(kAgentProtocol);
  Liar::Say(engine, hello);

  // A key for the packets of n1's engine, which it answers later.
  ASSERT_TRUE(Liar::Hear(engine, api::ToHost::kPeerKeys, &said)) << Logs();
  while (said.peer_keys().what() != api::PeerKeys::RECEIVE)
    ASSERT_TRUE(Liar::Hear(engine, api::ToHost::kPeerKeys, &said)) << Logs();
  const api::PeerKeys asked = said.peer_keys();

  // The function of host b, which it may not hand calls to.
  api::FromHost claim;
  claim.mutable_subscribe()->set_caller("app/relay");
  claim.mutable_subscribe()->set_callee("app/other");
  Liar::Say(engine, claim);
  ASSERT_TRUE(Liar::Hear(engine, api::ToHost::kRoute, &said)) << Logs();
  EXPECT_EQ(said.route().targets_size(), 0);
  EXPECT_NE(said.route().code(), 0u);

  // An AF_XDP socket that it was never given: nothing is led there.
  api::FromHost taken;
  taken.mutable_xdp_taken()->set_number(1);
  Liar::Say(liar.host(), taken);

  // An id among weftd's own.
  api::FromHost answer;
  answer.mutable_peer_key_id()->set_peer(asked.peer());
  answer.mutable_peer_key_id()->set_session(asked.session());
  answer.mutable_peer_key_id()->set_epoch(asked.epoch());
  answer.mutable_peer_key_id()->set_key_id(1u << bits | 5);
  Liar::Say(engine, answer);
  ASSERT_TRUE(Liar::Hear(engine, api::ToHost::kRefused, &said)) << Logs();
  EXPECT_THAT(said.refused().reason(), HasSubstr("foreign_key"));
  EXPECT_FALSE(Liar::Hear(liar.host(), api::ToHost::kInsideEngine, &said)) << "it is cut off";
  const std::string status = far_->Ctl({"status"}).output;
  EXPECT_THAT(status, HasSubstr("refused_foreign_key"));
  EXPECT_THAT(status, HasSubstr("refused_foreign_function"));
  EXPECT_TRUE(others_calls_go_on()) << Logs();
  EXPECT_THAT(Logs(), testing::Not(HasSubstr("is no peer any more")));
}

}  // namespace
}  // namespace weft::test
