// SPDX-License-Identifier: Apache-2.0
// Nodes, hosts and agents that die, move, come back or are replaced while two nodes call each other.
#include <gmock/gmock.h>

#include <atomic>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/dataplane/engine/two_nodes.h"
#include "tests/support/process.h"

namespace weft::engine::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using weft::test::Eventually;

// Host b, which serves demo/echo, counts the calls that it has begun and answers none.
struct KeepingHost {
  explicit KeepingHost(const std::string& run_dir)
      : host(run_dir, "b",
             {{"demo/echo",
               [this](ServerCall& call) {
                 ++begun;
                 kept.push_back(call.Defer());
               }}},
             [this] { kept.clear(); }) {}

  std::atomic<int> begun{0};
  std::vector<DeferredCall> kept;
  ServingHost host;
};

TEST_F(TwoNodesTest, ADeadNodeFailsCallsAtOnceAndServesAgainWhenItIsBack) {
  EchoAcross across(*this);
  auto& [echo, front, function] = across;
  cut_.store(true);
  const absl::Status status = front.client->Call(function, "x", kPatient).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  WaitReachable(0, false);
  // Refused by the engine until the caller's own route has been withdrawn, which tells why.
  EXPECT_TRUE(Eventually([&] {
    const absl::Status withdrawn = front.client->Call(function, "x", kPatient).status();
    EXPECT_EQ(withdrawn.code(), absl::StatusCode::kUnavailable) << withdrawn;
    return absl::StrContains(withdrawn.message(), "node not reachable");
  }));
  cut_.store(false);
  WaitReachable(0);
  EXPECT_TRUE(Eventually([&] { return front.client->Call(function, "x", kPatient).ok(); }));
}

TEST_F(TwoNodesTest, ARestartedPeerGetsANewSession) {
  ServingHost echo(nodes_[1].run_dir(), "b", {{"demo/echo", Echo}});
  CallingHost front(nodes_[0].run_dir(), "a", "web/front");
  ProgramBoth(CommonMesh());
  for (int i = 0; i < 3; ++i) {
    Connect();
    const absl::StatusOr<std::string> response =
        front.client->Call(front.Resolve("demo/echo"), absl::StrCat("x", i), kPatient);
    ASSERT_TRUE(response.ok()) << response.status();
  }
}

// Else its thread sleeps on it, and a node whose keys it brings stays out of reach until something else
// comes.
TEST_F(TwoNodesTest, MailWhoseWakeIsSpentKeepsTheEngineAwake) {
  OnWire([this] {
    NodeEngine& engine = *nodes_[0].engine;
    bool taken = false;
    ASSERT_TRUE(engine.Post([&taken](NodeEngine&) { taken = true; }));
    engine.Look();  // As a poll does after a while, or when its thread was off the CPU.
    EXPECT_FALSE(taken);
    const uint64_t now_ns = engine.NowNs();
    EXPECT_LE(engine.NextNs(now_ns), now_ns);
    engine.PollHosts();
    EXPECT_TRUE(taken);
    EXPECT_GT(engine.NextNs(now_ns), now_ns);
  });
}

// An engine that has nothing else to do sleeps after the turn that gave the peer up.
TEST_F(TwoNodesTest, APeerThatIsGivenUpIsToldOfBeforeTheEngineSleeps) {
  EchoAcross across(*this);
  const auto reached = [this] {
    uint64_t nodes = ~uint64_t{0};
    nodes_[0].engine->AddCounters([&nodes](absl::string_view name, uint64_t value) {
      if (name == "nodes_reached") nodes = value;
    });
    return nodes;
  };
  // Between two turns that have nothing to do: an acknowledgement that is due keeps it awake by itself.
  EXPECT_TRUE(Eventually([&] {
    bool idle = false;
    OnWire([&] {
      NodeEngine& engine = *nodes_[0].engine;
      const uint64_t before_ns = engine.NowNs();
      idle = engine.NextNs(before_ns) > before_ns;
      if (!idle) return;
      EXPECT_EQ(reached(), 1u);
      // As a timer does, which a turn looks at last.
      engine.transport().DeclareDead(transport::PeerIndex{0}, before_ns);
      EXPECT_LE(engine.NextNs(before_ns), before_ns);
      engine.TakeEvents(before_ns);
      EXPECT_EQ(reached(), 0u);
      EXPECT_GT(engine.NextNs(before_ns), before_ns);
    });
    return idle;
  }));
  WaitReachable(0);
}

TEST_F(TwoNodesTest, ManyMorePeersComeAndGoThanThereAreAtOnce) {
  EchoAcross across(*this);
  auto& [echo, front, function] = across;
  OnWire([this] {
    NodeEngine& engine = *nodes_[0].engine;
    for (uint64_t i = 0; i < 100; ++i) {  // Of 8 that it has room for.
      const std::string name = absl::StrCat("passer-by-", i);
      const absl::Status begun = engine.BeginSession(name, 1000 + i, "elsewhere");
      ASSERT_TRUE(begun.ok()) << name << ": " << begun;
      ASSERT_NE(engine.InstallReceiveKey(name, 1000 + i, 0, {}), 0u) << name;
      engine.InstallSendKey(name, 1000 + i, 0, 1, 0, {});
      EXPECT_TRUE(engine.Reaches(name));
      engine.EndSession(name, 1000 + i);
      EXPECT_FALSE(engine.Reaches(name));
    }
    EXPECT_EQ(nodes_[0].paths, 1);
  });
  EXPECT_TRUE(front.client->Call(function, "x", kPatient).ok());
}

TEST_F(TwoNodesTest, OfNodesThatHaveLeftNoRecordStays) {
  EchoAcross across(*this);
  auto& [echo, front, function] = across;
  NodeEngine& engine = *nodes_[0].engine;
  // More than a record each, and never more of them at once than this.
  constexpr uint64_t kNodes = 5000;
  OnWire([&] {
    for (uint64_t i = 0; i < kNodes; ++i) {
      const std::string name = absl::StrCat("passer-by-", i);
      ASSERT_TRUE(engine.BeginSession(name, 1000 + i, "elsewhere").ok());
      engine.EndSession(name, 1000 + i);
      engine.TakeEvents(engine.NowNs());
      ASSERT_LE(engine.records(), NodeEngine::kRecordsMin) << name;
    }
  });
  EXPECT_TRUE(front.client->Call(function, "x", kPatient).ok());
}

// What is known by caller and node: the agent names each caller once more for each node that it can choose.
TEST_F(TwoNodesTest, OfNodesThatWereCalledAndHaveLeftNoRecordStays) {
  EchoAcross across(*this);
  auto& [echo, front, function] = across;
  NodeEngine& engine = *nodes_[0].engine;
  constexpr uint64_t kRounds = 60;
  constexpr uint64_t kNodes = 5;  // With n2, of 8 that the engine has room for.
  uint64_t sent = CountersOf(0).requests_out;
  for (uint64_t round = 0; round < kRounds; ++round) {
    api::Mesh mesh = CommonMesh();
    for (uint64_t i = 0; i < kNodes; ++i) {
      const uint64_t number = round * kNodes + i;
      const std::string name = absl::StrCat("passer-by-", number);
      OnWire([&] {
        ASSERT_TRUE(engine.BeginSession(name, 1000 + number, "elsewhere").ok());
        engine.InstallSendKey(name, 1000 + number, 0, 1, 0, {});
      });
      api::Node& node = *mesh.add_nodes();
      node.set_name(name);
      node.set_address("192.0.2.1:4810");
      AddEndpoint(&mesh, "demo/echo", name, "b");
    }
    Program(0, mesh);
    for (uint64_t i = 0; i < 4 * kNodes; ++i) ASSERT_TRUE(front.client->Send(function, {}).ok());
    sent += 4 * kNodes;
    EXPECT_TRUE(Eventually([&] { return CountersOf(0).requests_out == sent; }));
    OnWire([&] {
      for (uint64_t i = 0; i < kNodes; ++i)
        engine.EndSession(absl::StrCat("passer-by-", round * kNodes + i), 1000 + round * kNodes + i);
    });
    Program(0, CommonMesh());
    std::size_t records = 0;
    OnWire([&] { records = engine.records(); });
    ASSERT_LE(records, NodeEngine::kRecordsMin) << round;
  }
  EXPECT_TRUE(front.client->Call(function, "x", kPatient).ok());
}

TEST_F(TwoNodesTest, AWayThatThePortHadNoRoomForIsMadeWhenThePeerMoves) {
  EchoAcross across(*this);
  auto& [echo, front, function] = across;
  OnWire([this] {
    nodes_[0].no_paths = true;
    EXPECT_FALSE(nodes_[0].engine->ChangeWays([] {}).ok());
    EXPECT_EQ(nodes_[0].paths, 0);
    nodes_[0].no_paths = false;
    const absl::Status moved = nodes_[0].engine->MoveSession(nodes_[1].name, session_, "there");
    EXPECT_TRUE(moved.ok()) << moved;
    EXPECT_EQ(nodes_[0].paths, 1);
  });
  EXPECT_TRUE(front.client->Call(function, "x", kPatient).ok());
}

TEST_F(TwoNodesTest, APeerOverANarrowPathIsReachedThroughWhateverPortAndAddress) {
  EchoAcross across(*this);
  auto& [echo, front, function] = across;
  const std::string& peer = nodes_[1].name;
  OnWire([&] {
    NodeEngine& engine = *nodes_[0].engine;
    nodes_[0].carries = 1200;
    engine.SetPathBytes(peer, session_, 1200);
    const absl::Status changed = engine.ChangeWays([] {});
    EXPECT_TRUE(changed.ok()) << changed;
    const absl::Status moved = engine.MoveSession(peer, session_, "there");
    EXPECT_TRUE(moved.ok()) << moved;
    EXPECT_EQ(engine.BeginSession("n3", 1000, "elsewhere").code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(nodes_[0].paths, 1);
  });
  EXPECT_TRUE(front.client->Call(function, "x", kPatient).ok());
  // Too narrow for anything, until it widens.
  OnWire([&] {
    NodeEngine& engine = *nodes_[0].engine;
    nodes_[0].carries = 100;
    EXPECT_FALSE(engine.ChangeWays([] {}).ok());
    EXPECT_EQ(nodes_[0].paths, 0);
    nodes_[0].carries = SIZE_MAX;
    engine.SetPathBytes(peer, session_, 1472);
    EXPECT_EQ(nodes_[0].paths, 1);
  });
  EXPECT_TRUE(front.client->Call(function, "x", kPatient).ok());
}

// Its own datagrams would be longer than the path takes.
TEST_F(TwoNodesTest, APathNeedsToCarryNoMoreThanBothNodesTake) {
  OnWire([&] {
    NodeEngine& engine = *nodes_[0].engine;
    nodes_[0].carries = 1300;
    const absl::Status first = engine.BeginSession("n3", 1000, "elsewhere", 1300);
    EXPECT_TRUE(first.ok()) << first;
    const absl::Status next = engine.BeginSession("n3", 1001, "elsewhere", 1300);
    EXPECT_TRUE(next.ok()) << next;
    EXPECT_FALSE(engine.BeginSession("n3", 1002, "elsewhere", 1301).ok());
    EXPECT_FALSE(engine.BeginSession("n3", 1002, "elsewhere").ok());
    engine.EndSession("n3", 1001);
  });
}

// A hint at a path that carries all there is would be one at a cause that is none.
TEST_F(TwoNodesTest, ACallThatFailsNamesItsPathOnlyWhereThatHasNarrowed) {
  EchoAcross across(*this);
  auto& [echo, front, function] = across;
  Connect(1300);
  const auto failure = [&, this](uint32_t carries) {
    OnWire([&] { nodes_[0].engine->SetPathBytes(nodes_[1].name, session_, carries); });
    EXPECT_TRUE(Eventually([&] { return front.client->Call(function, "x", kPatient).ok(); }));
    cut_.store(true);
    const absl::Status status = front.client->Call(function, "x", kPatient).status();
    cut_.store(false);
    WaitReachable(0);
    return std::string(status.message());
  };
  EXPECT_THAT(failure(1300), AllOf(HasSubstr("does not answer"), Not(HasSubstr("its path"))));
  EXPECT_THAT(failure(1299), HasSubstr("its path carries datagrams of 1299 bytes"));
}

// A table in front of the port, as the XDP program's: a place holds one id until that is forgotten.
TEST_F(TwoNodesTest, TheKeyPlacesOfAPeerThatClosesAreForOthers) {
  constexpr uint32_t kPlaces = 32;  // Four for each of the fixture's eight peers.
  std::map<uint32_t, uint32_t> table;
  EchoAcross across(*this);
  OnWire([&] {
    EXPECT_TRUE(nodes_[0]
                    .engine
                    ->SetGate({.allow =
                                   [&table](uint32_t id) {
                                     const uint32_t held = table.emplace(id % kPlaces, id).first->second;
                                     return held == id ? absl::OkStatus() : absl::AlreadyExistsError("held");
                                   },
                               .forget = [&table](uint32_t id) { table.erase(id % kPlaces); }})
                    .ok());
    EXPECT_EQ(table.size(), 1u);
    nodes_[1].engine->CloseAll();
  });
  WaitReachable(0, false);
  OnWire([&] {
    NodeEngine& engine = *nodes_[0].engine;
    EXPECT_EQ(engine.ReceiveIds().size(), 0u);
    ASSERT_TRUE(engine.BeginSession("n3", 1000, "there").ok());
    for (uint32_t epoch = 0; epoch < 2 * kPlaces; ++epoch)
      EXPECT_NE(engine.InstallReceiveKey("n3", 1000, static_cast<uint8_t>(epoch), {}), 0u) << epoch;
    EXPECT_EQ(engine.ReceiveIds().size(), 2u);
    EXPECT_EQ(table.size(), 2u);
    engine.EndSession("n3", 1000);
    (void)engine.SetGate({.allow = [](uint32_t) { return absl::OkStatus(); }, .forget = {}});
  });
}

TEST_F(TwoNodesTest, CallsOfAHostThatDiesAreCancelledThere) {
  const KeepingHost host(nodes_[1].run_dir());
  ProgramBoth(CommonMesh());
  {
    CallingHost front(nodes_[0].run_dir(), "a", "web/front");
    Connect();
    const Function function = front.Resolve("demo/echo");
    ASSERT_EQ(front.client->Call(function, "warm", {.timeout = absl::Milliseconds(200)}).status().code(),
              absl::StatusCode::kDeadlineExceeded);
    std::byte room[8];
    ASSERT_TRUE(front.client
                    ->CallAsync(function, {}, room, [](void*, const CallResult&) {}, nullptr,
                                {.timeout = absl::Seconds(100)})
                    .ok());
    front.client->Poll();
    EXPECT_TRUE(Eventually([&] { return host.begun == 2; }));
  }
  // Its deadline is far away: only the death of its caller can have ended it.
  const auto under_way = [&] {
    uint32_t count = 0;
    OnWire([&] { count = nodes_[0].engine->outbound_in_use() + nodes_[1].engine->inbound_in_use(); });
    return count;
  };
  EXPECT_TRUE(Eventually([&] { return under_way() == 0; })) << under_way();
  EXPECT_GE(CountersOf(1).cancels_in, 1u);
}

TEST_F(TwoNodesTest, WhatAHostThatDiesHasWaitingIsNotSent) {
  const KeepingHost host(nodes_[1].run_dir());
  // Memory for one call at a time, with the room for its answer: others wait in the engine.
  OnWire([this] { nodes_[0].engine->transport().SetTenantLimit({kWeb}, 2'000); });
  ProgramBoth(CommonMesh());
  {
    CallingHost front(nodes_[0].run_dir(), "a", "web/front");
    Connect();
    const Function function = front.Resolve("demo/echo");
    ASSERT_EQ(front.client->Call(function, "warm", {.timeout = absl::Milliseconds(200)}).status().code(),
              absl::StatusCode::kDeadlineExceeded);
    std::byte room[3][8];
    for (auto& bytes : room) {
      ASSERT_TRUE(front.client
                      ->CallAsync(function, {}, bytes, [](void*, const CallResult&) {}, nullptr,
                                  {.timeout = absl::Seconds(100)})
                      .ok());
    }
    front.client->Poll();
    EXPECT_TRUE(Eventually([&] { return host.begun == 2 && CountersOf(0).waited == 2; }));
  }
  const auto under_way = [&] {
    uint32_t count = 0;
    OnWire([&] { count = nodes_[0].engine->outbound_in_use() + nodes_[1].engine->inbound_in_use(); });
    return count;
  };
  EXPECT_TRUE(Eventually([&] { return under_way() == 0; })) << under_way();
  EXPECT_EQ(host.begun.load(), 2);  // The first of the three, after the one before.
}

TEST_F(TwoNodesTest, DataFlowsWhileTheAgentIsReplaced) {
  EchoAcross across(*this);
  auto& [echo, front, function] = across;
  StopAgent(1);
  for (int i = 0; i < 100; ++i) {
    const absl::StatusOr<std::string> response = front.client->Call(function, "x", kPatient);
    ASSERT_TRUE(response.ok()) << response.status();
  }
  StartAgent(1);
  WaitReachable(1);
  for (int i = 0; i < 100; ++i) {
    const absl::StatusOr<std::string> response = front.client->Call(function, "x", kPatient);
    ASSERT_TRUE(response.ok()) << response.status();
  }
}

}  // namespace
}  // namespace weft::engine::test
