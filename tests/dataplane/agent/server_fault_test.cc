// SPDX-License-Identifier: Apache-2.0
// What strangers and broken hosts say to the agent's sockets: each is refused by name and counted, and two
// bystanders notice nothing. What they do with descriptors is in descriptor_fault_test.cc.
#include "tests/dataplane/agent/server_fault.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "dataplane/api/protocol.h"
#include "dataplane/base/random.h"
#include "tests/support/process.h"

namespace weft::agent::test {
namespace {

using testing::HasSubstr;

TEST_F(ServerFaultTest, GarbageIsRefused) {
  Start();
  ConnectBystanders();
  Peer peer(agent_sock());
  peer.SendBytes("\xff\xff\xff this is no message");
  ExpectRefusal(peer, "garbage");
}

TEST_F(ServerFaultTest, TruncatedMessageIsRefused) {
  Start();
  ConnectBystanders();
  Peer peer(agent_sock());
  api::FromHost message;
  message.mutable_hello()->set_protocol(1);
  message.mutable_hello()->set_host("c");
  const std::string bytes = message.SerializeAsString();
  peer.SendBytes(bytes.substr(0, bytes.size() - 1));
  ExpectRefusal(peer, "garbage");
}

TEST_F(ServerFaultTest, EmptyPacketEndsTheConversationQuietly) {
  Start();
  ConnectBystanders();
  Peer peer(agent_sock());
  ASSERT_EQ(send(peer.fd(), "", 0, 0), 0);
  EXPECT_TRUE(peer.PumpUntilClosed());
  ExpectBystandersWell();
}

TEST_F(ServerFaultTest, OversizedMessageIsRefused) {
  Start();
  ConnectBystanders();
  for (const std::size_t bytes : {kControlMessageBytesMax + 1, std::size_t{150'000}}) {
    Peer peer(agent_sock());
    const std::string large(bytes, 'x');
    ASSERT_EQ(send(peer.fd(), large.data(), large.size(), 0), static_cast<ssize_t>(bytes));
    ExpectRefusal(peer, "oversized");
  }
}

TEST_F(ServerFaultTest, ConversationThatBeginsWrongIsRefused) {
  Start();
  ConnectBystanders();
  Peer early(agent_sock());
  early.Subscribe("web", "web/back");
  ExpectRefusal(early, "hello_missing");
  Peer twice(agent_sock());
  ASSERT_TRUE(twice.Hello("c"));
  twice.Hello("c");
  ExpectRefusal(twice, "hello_twice");
  Peer old(agent_sock());
  api::FromHost message;
  message.mutable_hello()->set_protocol(999);
  old.Send(message);
  ExpectRefusal(old, "protocol");
}

TEST_F(ServerFaultTest, OnlyATenantOfPodsHasHostsCalledByTheirUids) {
  constexpr char kUid[] = "0c7f1b0e-4a1d-4e57-9d3c-2f6a1e8b9d40";
  {
    Start();
    ConnectBystanders();
    Peer host(agent_sock());
    EXPECT_FALSE(host.Hello(kUid));
    ExpectRefusal(host, "host_not_allowed");
    Stop();
  }
  config_.tenants[0].pods = true;
  Start();
  ConnectBystanders();
  Peer host(agent_sock());
  EXPECT_TRUE(host.Hello(kUid, {"web/mine"}));
  for (const char* name : {"stranger", "0c7f1b0e-4a1d-4e57-9d3c-2f6a1e8b9d4",
                           "0C7F1B0E-4a1d-4e57-9d3c-2f6a1e8b9d40", "0c7f1b0e04a1d-4e57-9d3c-2f6a1e8b9d40"}) {
    Peer other(agent_sock());
    EXPECT_FALSE(other.Hello(name)) << name;
  }
}

TEST_F(ServerFaultTest, NamesOfOthersAreRefused) {
  Start();
  ConnectBystanders();
  Peer host(agent_sock());
  EXPECT_FALSE(host.Hello("stranger"));
  ExpectRefusal(host, "host_not_allowed");
  Peer function(agent_sock());
  EXPECT_FALSE(function.Hello("c", {"vision/scale"}));
  ExpectRefusal(function, "function_not_allowed");
  Peer taken(agent_sock());
  EXPECT_FALSE(taken.Hello("a"));
  ExpectRefusal(taken, "host_taken");
  Peer later(agent_sock());
  ASSERT_TRUE(later.Hello("c"));
  api::FromHost report;
  report.mutable_function_report()->set_function("vision/scale");
  later.Send(report);
  ExpectRefusal(later, "function_not_allowed");
  Peer serving_client(agent_sock());
  EXPECT_FALSE(serving_client.Hello("", {"web/mine"}));
  ExpectRefusal(serving_client, "function_not_allowed");
}

TEST_F(ServerFaultTest, WhoSaysNothingAtAllIsClosed) {
  Start();
  ConnectBystanders();
  Peer peer(agent_sock());
  ExpectRefusal(peer, "hello_late");
}

TEST_F(ServerFaultTest, NonsenseOfAnAdmittedHostIsRefusedByName) {
  Start();
  ConnectBystanders();
  Peer name(agent_sock());
  EXPECT_FALSE(name.Hello("c", {"no-slash"}));
  ExpectRefusal(name, "bad_name");
  Peer stranger(agent_sock());
  ASSERT_TRUE(stranger.Hello("c"));
  api::FromHost message;
  message.mutable_function_report()->set_function("web/not-here");
  message.mutable_function_report()->set_state(api::FunctionReport::GONE);
  stranger.Send(message);
  ExpectRefusal(stranger, "unknown_function");
  Peer early(agent_sock());
  ASSERT_TRUE(early.Hello("c"));
  message.mutable_applied()->set_serial(1'000'000);
  early.Send(message);
  ExpectRefusal(early, "bad_serial");
  Peer as_other(agent_sock());
  message.mutable_hello()->set_protocol(kAgentProtocol);
  message.mutable_hello()->set_call_as("vision");
  as_other.Send(message);
  ExpectRefusal(as_other, "call_as_not_allowed");
}

TEST_F(ServerFaultTest, WhatIsBeyondALimitIsRefusedByName) {
  config_.tenants[0].limits.hosts = 3;
  config_.tenants[0].limits.functions = 40;
  config_.tenants[0].limits.channels = 2;
  Start();
  ConnectBystanders();
  Peer functions(agent_sock());
  std::vector<std::string> serves;
  for (int i = 0; i < 40; ++i) serves.push_back(absl::StrCat("web/of-c-", i));
  EXPECT_FALSE(functions.Hello("c", serves));
  ExpectRefusal(functions, "function_limit");
  Peer channels(agent_sock());
  api::FromHost message;
  message.mutable_hello()->set_protocol(kAgentProtocol);
  message.mutable_hello()->set_host("c");
  for (char id = 'a'; id < 'd'; ++id) message.mutable_hello()->add_channels()->set_id(std::string(16, id));
  channels.Send(message);
  ExpectRefusal(channels, "channel_limit");
  Peer third(agent_sock());
  ASSERT_TRUE(third.Hello("c"));
  Peer fourth(agent_sock());
  EXPECT_FALSE(fourth.Hello("d"));
  ExpectRefusal(fourth, "host_limit");
}

TEST_F(ServerFaultTest, UserOfNoTenantIsRefused) {
  config_.tenants[0].uid = geteuid() + 1;
  Start();
  Peer peer(agent_sock());
  EXPECT_TRUE(peer.PumpUntilClosed());
  EXPECT_THAT(peer.refusal(), HasSubstr("not_admitted"));
}

TEST_F(ServerFaultTest, OnlyControlUserMayProgram) {
  SKIP_UNLESS_ROOT();
  StartWithStranger();
  AdminPeer admin(admin_sock(), kStranger);  // The group of the socket lets it in.
  EXPECT_FALSE(admin.Program(1, api::Mesh()).has_value());
  EXPECT_GE(Refused("not_control"), 1u);
  ExpectBystandersWell();
}

TEST_F(ServerFaultTest, ForgedCallerIsAnsweredAndCounted) {
  Start();
  ConnectBystanders();
  Peer peer(agent_sock());
  ASSERT_TRUE(peer.Hello("c", {"web/mine"}));
  peer.Subscribe("web/front", "web/back");
  ASSERT_TRUE(peer.PumpUntil([&] { return !peer.routes().empty(); }));
  EXPECT_EQ(peer.routes().begin()->second.code(), 7u);
  EXPECT_EQ(Refused("forged_caller"), 1u);
  ExpectBystandersWell();
}

TEST_F(ServerFaultTest, ClientThatNeverReadsIsCutOff) {
  Start();
  ConnectBystanders();
  Peer peer(agent_sock());
  ASSERT_TRUE(peer.Hello("c", {"web/mine"}));
  // Each is answered at once, without a round: only the queue bounds them.
  api::FromHost message;
  message.mutable_subscribe()->set_caller("web/forged");
  message.mutable_subscribe()->set_callee("web/back");
  const std::string bytes = message.SerializeAsString();
  const auto closed = [&] {
    const absl::Status sent = SendMessage(peer.fd(), bytes);
    return !sent.ok() && !absl::IsUnavailable(sent);
  };
  EXPECT_TRUE(weft::test::Eventually([&] {
    for (int i = 0; i < 1000; ++i) {
      if (closed()) return true;
    }
    return false;
  }));
  EXPECT_EQ(Refused("never_reads"), 1u);
  ExpectBystandersWell();
}

TEST_F(ServerFaultTest, HostThatStopsAnsweringIsCutOffAndTheOthersGoOn) {
  Start();
  ConnectBystanders();
  Peer peer(agent_sock());
  ASSERT_TRUE(peer.Hello("c", {"web/mine"}));
  peer.Subscribe("web/mine", "web/front");  // Asked for its memory, it says nothing.
  ExpectBystandersWell();
  EXPECT_TRUE(peer.PumpUntilClosed());
  EXPECT_EQ(Refused("silent"), 1u);
}

TEST_F(ServerFaultTest, TenThousandConnectionsOfOneUserStayWithinItsLimit) {
  SKIP_UNLESS_ROOT();
  StartWithStranger();
  std::vector<UniqueFd> sockets;
  int connected = 0;
  for (int i = 0; i < 10'000; ++i) {
    absl::StatusOr<UniqueFd> socket = ConnectAs(agent_sock(), kStranger);
    if (!socket.ok()) continue;  // The backlog is full for a moment.
    ++connected;
    sockets.push_back(*std::move(socket));
  }
  EXPECT_GT(connected, 5'000);
  ExpectBystandersWell();
  EXPECT_TRUE(weft::test::Eventually([&] { return Refused("too_many_connections") > 4'000; }));
  AdminPeer admin(admin_sock());
  uint64_t held = 0;
  EXPECT_TRUE(absl::SimpleAtoi(Field(admin.Ask(api::Query::STATUS).at(0), "connections"), &held));
  EXPECT_LE(held, 90u);
  sockets.clear();
  Peer peer(agent_sock());
  EXPECT_TRUE(peer.Hello("c"));
}

// Messages of the right form and random content, from sessions that are admitted or not.
TEST_F(ServerFaultTest, RandomMessagesNeverHarmTheAgentOrItsOtherSessions) {
  Start();
  ConnectBystanders();
  Random random(20261123);
  const std::string channel = *front_->channels().begin();
  const std::vector<std::string> words = {"",         "a",        "c",       "web",   "web/front",
                                          "web/mine", "vision/x", "no name", channel, std::string(16, 'z')};
  const auto word = [&] { return words[random.Below(words.size())]; };
  const UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  std::unique_ptr<Peer> peer;
  for (int i = 0; i < 5'000; ++i) {
    if (peer == nullptr || random.Below(40) == 0) {
      peer = std::make_unique<Peer>(agent_sock());
      if (random.Below(3) != 0) peer->Hello("c", {"web/mine"});
    }
    api::FromHost message;
    switch (random.Below(8)) {
      case 0:
        message.mutable_hello()->set_protocol(static_cast<uint32_t>(random.Below(3)));
        message.mutable_hello()->set_host(word());
        message.mutable_hello()->add_serves(word());
        message.mutable_hello()->add_channels()->set_id(word());
        break;
      case 1:
        message.mutable_function_report()->set_function(word());
        message.mutable_function_report()->set_state(
            static_cast<api::FunctionReport::State>(random.Below(5)));
        break;
      case 2:
        message.mutable_subscribe()->set_caller(word());
        message.mutable_subscribe()->set_callee(word());
        break;
      case 3:
        message.mutable_channel_memory()->set_id(word());
        break;
      case 4:
        message.mutable_channel_closed()->set_id(word());
        message.mutable_channel_closed()->set_reason(std::string(random.Below(1000), 'r'));
        break;
      case 5:
        message.mutable_applied()->set_serial(random.Below(4) == 0 ? random.Next() : random.Below(3));
        break;
      case 6:
        message.mutable_stats()->set_query(random.Below(4));
        break;
      default:
        message.mutable_drained();
        break;
    }
    std::string bytes = message.SerializeAsString();
    if (random.Below(4) == 0 && !bytes.empty())
      bytes[random.Below(bytes.size())] = static_cast<char>(random.Next());
    const int fd = null.get();
    (void)SendMessage(peer->fd(), bytes, {&fd, random.Below(6) == 0 ? std::size_t{1} : 0});
    if (peer->closed() || random.Below(20) == 0) peer.reset();
  }
  peer.reset();
  ExpectBystandersWell();
}

}  // namespace
}  // namespace weft::agent::test
