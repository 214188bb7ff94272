// SPDX-License-Identifier: Apache-2.0
// The whole agent over real sockets: brokering, programming, restart. Questions are in
// server_questions_test.cc.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "dataplane/base/clock.h"
#include "dataplane/channel/layout.h"
#include "tests/dataplane/agent/server_fixture.h"
#include "tests/support/process.h"

namespace weft::agent::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

api::Endpoint* AddEndpoint(api::Mesh* mesh, const std::string& function, const std::string& host,
                           const std::string& module) {
  api::Endpoint* endpoint = mesh->add_endpoints();
  endpoint->set_function(function);
  endpoint->set_node("n1");
  endpoint->set_host(host);
  endpoint->set_module(module);
  if (!module.empty()) endpoint->set_sha256(std::string(32, 'x'));
  return endpoint;
}

TEST_F(ServerTest, TwoHostsGetTheSameChannelWithMemoriesAndDoorbells) {
  Start();
  ConnectBystanders();
  ASSERT_EQ(front_->channels(), back_->channels());
  const std::string id = *front_->channels().begin();
  std::vector<UniqueFd>& fds = front_->channel_fds()[id];
  const auto arena_bytes = static_cast<uint32_t>(front_->welcome().arena_bytes());
  EXPECT_TRUE(CheckSideMemory(fds[0].get(), SideMemoryBytes(arena_bytes)).ok());
  // The peer's memory cannot be mapped for writing, and the doorbells are two ends of one pair.
  EXPECT_EQ(mmap(nullptr, 4096, PROT_WRITE, MAP_SHARED, fds[0].get(), 0), MAP_FAILED);
  ASSERT_EQ(send(fds[1].get(), "r", 1, MSG_DONTWAIT), 1);
  char ring = 0;
  EXPECT_EQ(recv(back_->channel_fds()[id][1].get(), &ring, 1, MSG_DONTWAIT), 1);
  ExpectBystandersWell();
}

TEST_F(ServerTest, AgentKeepsNeitherEndOfADoorbell) {
  Start();
  ConnectBystanders();
  const std::string id = *front_->channels().begin();
  back_->channel_fds()[id].clear();
  char ring = 0;
  EXPECT_EQ(recv(front_->channel_fds()[id][1].get(), &ring, 1, MSG_DONTWAIT), 0)
      << "the peer's end hangs up with its owner";
}

TEST_F(ServerTest, SocketsHaveTheModesThatAdmissionNeeds) {
  Start();
  struct stat about;
  ASSERT_EQ(stat(agent_sock().c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0666u);
  ASSERT_EQ(stat(admin_sock().c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0660u);
}

TEST_F(ServerTest, ProgrammedModuleIsPassedReadOnlyAndRouted) {
  weft::test::WriteFile(directory_ / "m.wasm", "module");
  Start();
  ConnectBystanders();
  front_->Subscribe("web/front", "web/placed");
  AdminPeer admin(admin_sock());
  api::Mesh mesh;
  AddEndpoint(&mesh, "web/placed", "b", directory_ / "m.wasm");
  std::optional<api::Programmed> programmed;
  WhileObeying(*front_, [&] { WhileObeying(*back_, [&] { programmed = admin.Program(1, mesh); }); });
  ASSERT_TRUE(programmed.has_value());
  EXPECT_EQ(programmed->generation(), 1u);
  EXPECT_EQ(programmed->failed_size(), 0);
  EXPECT_THAT(back_->placed(), ElementsAre("web/placed"));
  ASSERT_EQ(back_->module_fds().size(), 1u);
  const int module = back_->module_fds()[0].get();
  EXPECT_EQ(fcntl(module, F_GETFL) & O_ACCMODE, O_RDONLY);
  char bytes[16];
  EXPECT_EQ(read(module, bytes, sizeof(bytes)), 6);
  EXPECT_EQ((front_->routes().at({"web/front", "web/placed"}).targets_size()), 1);
}

TEST_F(ServerTest, ModuleThatDoesNotOpenFailsItsPlacementByName) {
  Start();
  ConnectBystanders();
  AdminPeer admin(admin_sock());
  api::Mesh mesh;
  AddEndpoint(&mesh, "web/placed", "b", directory_ / "nothing.wasm");
  AddEndpoint(&mesh, "web/other", "b", directory_.path());
  const std::optional<api::Programmed> programmed = admin.Program(1, mesh);
  ASSERT_TRUE(programmed.has_value());
  ASSERT_EQ(programmed->failed_size(), 2);
  EXPECT_THAT(programmed->failed(0), HasSubstr("web/other on host b: module"));
  EXPECT_THAT(programmed->failed(0), HasSubstr("not a regular file"));
  EXPECT_THAT(programmed->failed(1), HasSubstr("nothing.wasm"));
  EXPECT_THAT(programmed->failed(1), HasSubstr("No such file"));
}

TEST_F(ServerTest, AGenerationIsSaidToBeInForceByThisMachinesClock) {
  Start();
  AdminPeer admin(admin_sock());
  for (uint64_t generation = 1; generation <= 3; ++generation) {
    const uint64_t before_ns = NowNs();
    const std::optional<api::Programmed> programmed = admin.Program(generation, api::Mesh());
    ASSERT_TRUE(programmed.has_value());
    EXPECT_GE(programmed->at_ns(), before_ns);
    EXPECT_LE(programmed->at_ns(), NowNs());
  }
}

TEST_F(ServerTest, GenerationOutlivesTheAgent) {
  Start();
  {
    AdminPeer admin(admin_sock());
    api::Mesh mesh;
    mesh.add_allow()->set_from("web/*");
    mesh.mutable_allow(0)->set_to("vision/*");
    ASSERT_TRUE(admin.Program(41, mesh).has_value());
  }
  Stop();
  Start();
  AdminPeer admin(admin_sock());
  EXPECT_EQ(Field(admin.Ask(api::Query::STATUS).at(0), "generation"), "41");
  EXPECT_EQ(admin.registrations().generation(), 41u);
  EXPECT_EQ(Field(admin.Explain("web/front", "vision/scale").at(0), "verdict"), "unreachable");
  EXPECT_EQ(Field(admin.Explain("web/front", "shop/cart").at(0), "verdict"), "denied");
}

TEST_F(ServerTest, DamagedStateIsSetAsideAndTheNodeStarts) {
  ASSERT_EQ(mkdir((directory_ / "state").c_str(), 0700), 0);
  weft::test::WriteFile(directory_ / "state/routes.pb", "garbage");
  ServerOptions options;
  options.run_dir = run_dir();
  options.state_dir = directory_ / "state";
  options.config = config_;
  const auto server = Server::Create(std::move(options));
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ(weft::test::ReadFile(directory_ / "state/routes.pb.damaged"), "garbage");
}

TEST_F(ServerTest, SecondAgentInTheSameDirectoryIsRefused) {
  Start();
  ServerOptions options;
  options.run_dir = run_dir();
  options.state_dir = directory_ / "state";
  options.config = config_;
  EXPECT_EQ(Server::Create(std::move(options)).status().code(), absl::StatusCode::kAlreadyExists);
  ConnectBystanders();
}

// A second one cuts off what it takes for torn, which the first is about to finish.
TEST_F(ServerTest, SecondAgentOnTheSameStateLeavesItAlone) {
  Start();
  AdminPeer admin(admin_sock());
  ASSERT_TRUE(admin.Program(1, api::Mesh()).has_value());
  const std::string log = directory_ / "state/routes.log";
  const std::string written = weft::test::ReadFile(log) + "the beginning of a record";
  weft::test::WriteFile(log, written);
  ServerOptions options;
  options.run_dir = directory_ / "run2";
  options.state_dir = directory_ / "state";
  options.config = config_;
  const absl::Status refused = Server::Create(std::move(options)).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(refused.message(), absl::StrCat("directory ", directory_ / "state",
                                            " is used by another weftd, process ", getpid()));
  EXPECT_EQ(weft::test::ReadFile(log), written);
}

TEST_F(ServerTest, DrainedHostIsReportedOnceItsCallsAreDone) {
  Start();
  ConnectBystanders();
  AdminPeer admin(admin_sock());
  api::AdminRequest drain;
  drain.mutable_drain_host()->set_host("a");
  WhileObeying(*front_, [&] {
    WhileObeying(*back_, [&] {
      admin.Send(drain);
      // web/front is served by no other host: nobody calls it, so nothing holds the drain up.
      const std::optional<api::AdminReply> reply = admin.Next();
      ASSERT_TRUE(reply.has_value() && reply->has_query_reply());
      EXPECT_EQ(Field(reply->query_reply().items(0), "state"), "drained");
      drain.mutable_drain_host()->set_host("b");
      admin.Send(drain);
      const std::optional<api::AdminReply> last = admin.Next();
      ASSERT_TRUE(last.has_value() && last->has_query_reply());
      EXPECT_EQ(Field(last->query_reply().items(0), "state"), "draining");
      EXPECT_EQ(Field(last->query_reply().items(0), "function"), "web/back");
    });
  });
  drain.mutable_drain_host()->set_host("nobody");
  admin.Send(drain);
  const std::optional<api::AdminReply> reply = admin.Next();
  ASSERT_TRUE(reply.has_value() && reply->has_failed());
  EXPECT_THAT(reply->failed().reason(), HasSubstr("unknown_host"));
}

TEST_F(ServerTest, SessionOfTheAdminSocketCallsAsTheNamespaceItNames) {
  config_.tenants[0].hosts = {"a", "b"};
  Start();
  ConnectBystanders();
  WhileObeying(*back_, [&] {
    Peer caller(admin_sock());
    api::FromHost hello;
    hello.mutable_hello()->set_protocol(1);
    hello.mutable_hello()->set_call_as("web");
    caller.Send(hello);
    caller.Subscribe("web", "web/back");
    EXPECT_TRUE(caller.PumpUntilRouted("web", "web/back"));
  });
  Peer plain(agent_sock());
  api::FromHost hello;
  hello.mutable_hello()->set_protocol(1);
  hello.mutable_hello()->set_call_as("vision");
  plain.Send(hello);
  EXPECT_TRUE(plain.PumpUntilClosed());
  EXPECT_THAT(plain.refusal(), HasSubstr("call_as_not_allowed"));
}

// As where its links to other nodes take long to set up.
TEST_F(ServerTest, AgentThatIsSlowToStartKeepsChannelsOfHostsThatComeBack) {
  std::unique_ptr<Peer> back, front;
  const auto come_back = [this](const std::string& name, const std::string& other) {
    auto peer = std::make_unique<Peer>(agent_sock());
    api::FromHost message;
    api::Hello& hello = *message.mutable_hello();
    hello.set_protocol(1);
    hello.set_host(name);
    api::HeldChannel& held = *hello.add_channels();
    held.set_id(std::string(16, 'c'));
    held.set_peer(other);
    peer->Send(message);
    return peer;
  };
  Start([&] {
    absl::SleepFor(absl::Nanoseconds(kSettleNs + 100 * kNsPerMs));
    back = come_back("b", "a");
    front = come_back("a", "b");
  });
  for (const auto& [peer, name] : {std::pair(back.get(), "b"), std::pair(front.get(), "a")}) {
    ASSERT_TRUE(peer->PumpUntil([&] { return peer->welcome().host() == name; }));
    EXPECT_EQ(peer->welcome().keep_channels_size(), 1) << name;
  }
}

TEST_F(ServerTest, HelloInPartsIsOneHello) {
  Start();
  ConnectBystanders();
  Peer peer(agent_sock());
  api::FromHost part;
  part.mutable_hello()->set_protocol(1);
  part.mutable_hello()->set_host("c");
  part.mutable_hello()->add_serves("web/one");
  part.mutable_hello()->set_more(true);
  peer.Send(part);
  part.Clear();
  part.mutable_hello()->add_serves("web/two");
  peer.Send(part);
  ASSERT_TRUE(peer.PumpUntil([&] { return peer.welcome().host() == "c"; }));
  AdminPeer admin(admin_sock());
  EXPECT_EQ(admin.Ask(api::Query::FUNCTIONS).size(), 5u);
}

TEST_F(ServerTest, RegistrationsReachWhoeverPrograms) {
  Start();
  AdminPeer admin(admin_sock());
  ASSERT_TRUE(admin.Program(1, api::Mesh()).has_value());
  ConnectBystanders();
  ASSERT_TRUE(back_->PumpUntil([&] {
    (void)admin.Ask(api::Query::STATUS);  // Reads past the pushes, of which the second takes its time.
    return admin.registrations().hosts_size() == 2;
  }));
  EXPECT_EQ(admin.registrations().hosts(0).name(), "a");
  EXPECT_EQ(admin.registrations().hosts(0).serves(0), "web/front");
}

TEST_F(ServerTest, AHostThatComesAndGoesWithoutEndIsToldOfAtABoundedRate) {
  Start();
  AdminPeer admin(admin_sock());
  ASSERT_TRUE(admin.Program(1, api::Mesh()).has_value());
  uint64_t told = 0;
  bool serves_last = false;
  admin.set_on_registrations([&](const api::Registrations& part) {
    ++told;
    serves_last =
        part.hosts_size() == 1 && part.hosts(0).serves_size() == 1 && part.hosts(0).serves(0) == "web/last";
  });
  Peer peer(agent_sock());
  const uint64_t begun_ns = NowNs();
  ASSERT_TRUE(peer.Hello("c"));
  api::FromHost report;
  for (int i = 0; i < 4000; ++i) {
    pollfd room{peer.fd(), POLLOUT, 0};
    ASSERT_EQ(poll(&room, 1, 10'000), 1);
    report.mutable_function_report()->set_function("web/flicker");
    report.mutable_function_report()->set_state(i % 2 == 0 ? api::FunctionReport::READY
                                                           : api::FunctionReport::GONE);
    peer.Send(report);
  }
  report.mutable_function_report()->set_function("web/last");
  report.mutable_function_report()->set_state(api::FunctionReport::READY);
  pollfd room{peer.fd(), POLLOUT, 0};
  ASSERT_EQ(poll(&room, 1, 10'000), 1);
  peer.Send(report);
  ASSERT_TRUE(peer.PumpUntil([&] {
    (void)admin.Ask(api::Query::FUNCTIONS);
    return serves_last;
  }));
  EXPECT_GE(told, 1u);
  EXPECT_LE(told, (NowNs() - begun_ns) / kRegistrationsPauseNs + 2);
}

TEST_F(ServerTest, HostThatEndsIsWithdrawnAndItsNameIsFreeAtOnce) {
  Start();
  ConnectBystanders();
  back_ = std::make_unique<Peer>(
      agent_sock());  // The old one's socket closes only now, after this one connected.
  ASSERT_TRUE(back_->Hello("b", {"web/back"}));
  EXPECT_TRUE(front_->PumpUntil([&] { return !front_->closes().empty(); }));
  EXPECT_EQ(front_->closes().begin()->second.code(), 14u);
}

// weftd made them itself. This tenant's user is weftd's own, as on a machine of one person; a host's engine
// inside is counted, or not, alike.
TEST_F(ServerTest, ConnectionsOfEnginesAreNoneOfTheTenants) {
  config_.tenants[0].limits.hosts = 1;
  config_.tenants[0].limits.clients = 1;
  Start();
  const absl::StatusOr<UniqueFd> first = engine_door().Connect(0);
  const absl::StatusOr<UniqueFd> second = engine_door().Connect(1);
  ASSERT_TRUE(first.ok() && second.ok());
  AdminPeer admin(admin_sock());
  ASSERT_TRUE(weft::test::Eventually(
      [&] { return Field(admin.Ask(api::Query::STATUS).at(0), "connections") == "3"; }));
  Peer host(agent_sock());
  EXPECT_TRUE(host.Hello("a"));
  Peer client(agent_sock());
  EXPECT_TRUE(client.Hello(""));
  Peer one_more(agent_sock());
  EXPECT_FALSE(one_more.Hello("")) << "what the tenant makes is counted as before";
  EXPECT_EQ(Refused("too_many_connections"), 1u);
}

// The channels that all tenants can pay for have their other ends at the node engine, and what one tenant
// uses there is not another's.
TEST(NodeEngineLimitsTest, TheyAreThoseOfAllTenantsTogether) {
  std::vector<Tenant> tenants(40);
  uint64_t bytes = TenantLimits().bytes;
  for (Tenant& tenant : tenants) bytes += tenant.limits.bytes = (&tenant - tenants.data() + 1) * (1u << 30);
  const TenantLimits limits = NodeEngineLimits(tenants, TenantLimits());
  EXPECT_EQ(limits.bytes, bytes);
  EXPECT_EQ(limits.hosts + limits.clients, 1u) << "it is one process: what streams in is not divided";
}

}  // namespace
}  // namespace weft::agent::test
