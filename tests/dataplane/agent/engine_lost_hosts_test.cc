// SPDX-License-Identifier: Apache-2.0
// Hosts that die, stop or do not answer, and channels that close, in the engine's rounds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/dataplane/agent/engine_fixture.h"

namespace weft::agent::test {
namespace {

using Hosts = std::set<std::string>;

TEST_F(EngineTest, DeathOfAHostWithdrawsItsTargetsAtOnce) {
  FakeHost& front = Attach("a", "web", {"web/front"});
  FakeHost& b = Attach("b", "web", {"web/back"});
  Attach("c", "web", {"web/back"});
  Subscribe(front, "web/front", "web/back");
  Settle();
  ASSERT_EQ(TargetsAt(front, "web/front", "web/back"), (Hosts{"b", "c"}));
  // Even while a round is stuck on another host.
  FakeHost& deaf = Attach("d", "web", {"web/deaf"});
  Settle();
  deaf.deaf = true;
  Subscribe(front, "web/front", "web/deaf");
  Settle();
  Kill(b);
  Settle();
  EXPECT_EQ(TargetsAt(front, "web/front", "web/back"), Hosts{"c"});
  ASSERT_EQ(front.closed.size(), 1u);
  EXPECT_EQ(front.closed.begin()->second.first, kUnavailable);
  EXPECT_THAT(front.closed.begin()->second.second, testing::HasSubstr("host b"));
}

TEST_F(EngineTest, HostThatDoesNotAnswerIsCutOffAfter100MsAndNamed) {
  FakeHost& front = Attach("a", "web", {"web/front"});
  FakeHost& other = Attach("d", "web", {"web/other"});
  Attach("b", "web", {"web/back"});
  Subscribe(front, "web/front", "web/back");
  Subscribe(other, "web/other", "web/back");
  Settle();
  front.deaf = true;
  Attach("c", "web", {"web/back"});
  api::Mesh mesh;
  AddEndpoint(&mesh, "web/back", "c");
  const uint64_t generation = Program(mesh);
  Pass(99 * kNsPerMs);
  EXPECT_FALSE(Acknowledged(generation));
  Pass(30 * kNsPerMs);
  ASSERT_TRUE(Acknowledged(generation));
  ASSERT_EQ(programmed_[generation].cut_off_size(), 1);
  EXPECT_EQ(programmed_[generation].cut_off(0), "a");
  EXPECT_EQ(TargetsAt(other, "web/other", "web/back"), Hosts{"c"});
}

// Both ways of telling it: the first host takes no lists of routes, the second does.
TEST_F(EngineTest, HostHasTimeForEachOfTheRoutesThatItIsTold) {
  constexpr uint64_t kRoutes = 1'000;
  for (const char* const name : {"a", "b"}) {
    FakeHost& host = Attach(name, "web", {absl::StrCat("web/", name)});
    for (uint64_t i = 0; i < kRoutes; ++i)
      Subscribe(host, host.name == "a" ? "web/a" : "web/b", absl::StrCat("video/", i));
    Settle();
    host.deaf = true;
    api::Mesh mesh;
    AddAllow(&mesh, "web/*", "video/*");
    const uint64_t generation = Program(mesh);
    Pass(kAnswerNs + kRoutes * kAnswerEachNs - kNsPerMs);
    EXPECT_FALSE(Acknowledged(generation)) << name;
    host.deaf = false;
    const std::size_t messages = host.inbox.size();
    Settle();
    EXPECT_TRUE(Acknowledged(generation)) << name;
    EXPECT_EQ(cut_off_, Hosts{}) << name;
    EXPECT_EQ(host.applied.back().has_route_list(), messages < kRoutes) << name;
    // One that says nothing has no more than the time for these, however much it was told before.
    host.deaf = true;
    Program(api::Mesh());
    Pass(kAnswerNs + (kRoutes + 2) * kAnswerEachNs);
    EXPECT_EQ(cut_off_, Hosts{name});
    cut_off_.clear();
  }
}

TEST_F(EngineTest, TimeThatTheAgentLostIsNotHeldAgainstHosts) {
  FakeHost& front = Attach("a", "web", {"web/front"});
  Attach("b", "web", {"web/back"});
  Subscribe(front, "web/front", "web/back");
  Settle();
  front.deaf = true;
  FakeHost& maker = Attach("c", "web", {"web/back"});
  maker.deaf = true;  // Owes its memory, while the other will owe an answer.
  api::Mesh mesh;
  AddEndpoint(&mesh, "web/back", "c");
  const uint64_t generation = Program(mesh);
  Pass(50 * kNsPerMs);
  now_ns_ += 400 * kNsPerMs;
  engine_->Excuse(400 * kNsPerMs, now_ns_);
  Settle();
  EXPECT_EQ(cut_off_, Hosts{});
  // The machine goes on, and so does who was there all the time.
  maker.deaf = false;
  front.deaf = false;
  Settle();
  EXPECT_TRUE(Acknowledged(generation));
  EXPECT_EQ(cut_off_, Hosts{});
  EXPECT_EQ(TargetsAt(front, "web/front", "web/back"), Hosts{"c"});
}

TEST_F(EngineTest, TwoStoppedHostsCostOneWait) {
  // The receiver of a new permission and the caller of a changed route are asked in different phases.
  FakeHost& caller = Attach("a", "web", {"web/front"});
  FakeHost& receiver = Attach("b", "web", {"web/back", "web/deep"});
  Attach("c", "web", {"web/deep"});
  FakeHost& free = Attach("d", "web", {"web/free"});
  Subscribe(caller, "web/front", "web/back");
  Subscribe(free, "web/free", "web/back");
  Settle();
  caller.deaf = receiver.deaf = true;
  api::Mesh mesh;
  AddEndpoint(&mesh, "web/back", "c");
  Attach("e", "web", {"web/back"});
  AddEndpoint(&mesh, "web/back", "e");
  Subscribe(free, "web/free", "web/deep");
  const uint64_t generation = Program(mesh);
  Pass(150 * kNsPerMs);
  EXPECT_TRUE(Acknowledged(generation));
  EXPECT_EQ(cut_off_, (Hosts{"a", "b"}));
}

TEST_F(EngineTest, HostThatNeverHandsItsMemoryOverIsCutOff) {
  FakeHost& front = Attach("a", "web", {"web/front"});
  FakeHost& back = Attach("b", "web", {"web/back"});
  Settle();
  back.deaf = true;
  Subscribe(front, "web/front", "web/back");
  Pass(120 * kNsPerMs);
  EXPECT_EQ(cut_off_, Hosts{"b"});
  EXPECT_EQ((front.routes[{"web/front", "web/back"}].code()), kNotFound);
}

TEST_F(EngineTest, ClosedChannelIsMadeAnewWithABackoff) {
  FakeHost& front = Attach("a", "web", {"web/front"});
  FakeHost& back = Attach("b", "web", {"web/back"});
  Subscribe(front, "web/front", "web/back");
  Settle();
  const ChannelId first = *front.channels.begin();
  api::ChannelClosed closed;
  closed.set_id(first);
  closed.set_reason("poisoned: bad lap");
  front.channels.erase(first);
  ASSERT_TRUE(engine_->ChannelClosed(front.id, closed, now_ns_).ok());
  Settle();
  EXPECT_TRUE(back.channels.empty());
  EXPECT_EQ((front.routes[{"web/front", "web/back"}].code()), kUnavailable);
  EXPECT_THAT((front.routes[{"web/front", "web/back"}].reason()), testing::HasSubstr("bad lap"));
  Pass(2 * kNsPerMs);
  EXPECT_EQ(TargetsAt(front, "web/front", "web/back"), Hosts{"b"});
  EXPECT_NE(*front.channels.begin(), first);
}

}  // namespace
}  // namespace weft::agent::test
