// SPDX-License-Identifier: Apache-2.0
// What agents tell each other of hosts that are drained, and what they make of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/unix_socket.h"
#include "tests/dataplane/agent/engine_fixture.h"

namespace weft::agent::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::SizeIs;

// web/back on host b here and on host a of n2, which can be reached and has said nothing of drains yet.
class DrainsTest : public EngineTest {
 protected:
  void SetUp() override {
    front_ = &Attach("front", "web", {"web/front"});
    b_ = &Attach("b", "web", {"web/back"});
    node_engine_ = &AttachNodeEngine();
    api::NodeReport report;
    report.set_node("n2");
    report.set_up(true);
    ASSERT_TRUE(engine_->ReportNode(node_engine_->id, report).ok());
    engine_->PeerSays("n2", {});
    api::Mesh mesh;
    AddEndpoint(&mesh, "web/back", "b");
    AddEndpoint(&mesh, "web/back", "a");
    mesh.mutable_endpoints(1)->set_node("n2");
    Program(mesh);
    Subscribe(*front_, "web/front", "web/back");
    Settle();
  }
  void Says(const PeerDrains& drains) {
    engine_->PeerSays("n2", drains);
    Settle();
  }
  // That it drains its host a, or that its calls have left b.
  void SaysItDrains(uint64_t number) {
    PeerDrains says;
    says.draining["a"] = number;
    Says(says);
  }
  void SaysItLeft(uint64_t number) {
    PeerDrains says;
    says.left["b"] = number;
    Says(says);
  }
  const PeerDrains& Told() const { return engine_->drains_to_tell().at("n2"); }
  // What the node engine was asked for last, 0 where it was not.
  const api::LeaveEnds& Asked() const {
    const api::LeaveEnds* last = &api::LeaveEnds::default_instance();
    for (const api::ToHost& message : node_engine_->applied) {
      if (message.has_leave_ends()) last = &message.leave_ends();
    }
    return *last;
  }
  // The engine inside `host`.
  FakeHost& AttachInside(const FakeHost& host, const std::string& tenant) {
    AttachRequest request;
    request.session = 2000 + host.id;
    request.tenant = &tenants_.at(tenant);
    request.host = absl::StrCat(kEnginePrefix, "n1/", host.name);
    request.is_client = request.is_engine = true;
    request.inside_of = host.id;
    EXPECT_TRUE(engine_->Attach(request, now_ns_).ok());
    FakeHost& inside = *(hosts_[request.host] = std::make_unique<FakeHost>());
    inside.id = request.session;
    return inside;
  }
  static bool WasAsked(const FakeHost& engine) {
    return std::any_of(engine.applied.begin(), engine.applied.end(),
                       [](const api::ToHost& message) { return message.has_leave_ends(); });
  }
  int targets() { return front_->routes[{"web/front", "web/back"}].targets_size(); }

  FakeHost* front_ = nullptr;
  FakeHost* b_ = nullptr;
  FakeHost* node_engine_ = nullptr;
};

TEST_F(DrainsTest, AHostElsewhereIsLeftOnceNoCallToItIsUnderWay) {
  EXPECT_EQ(targets(), 2);
  SaysItDrains(7);
  EXPECT_EQ(targets(), 1);
  ASSERT_THAT(Asked().ends(), SizeIs(2));
  EXPECT_EQ(Asked().ends(0).end(), "n2");
  EXPECT_THAT(Asked().ends(0).callee_ids(), ElementsAre(FunctionIdOf("web/back").value));
  EXPECT_EQ(Asked().ends(1).end(), "n2/a");
  EXPECT_THAT(Told().left, IsEmpty());
  EXPECT_TRUE(engine_->EndsLeft(node_engine_->id, Asked().number() + 1).ok());
  Settle();
  EXPECT_THAT(Told().left, IsEmpty());
  EXPECT_TRUE(engine_->EndsLeft(node_engine_->id, Asked().number()).ok());
  Settle();
  EXPECT_THAT(Told().left, ElementsAre(Pair("a", 7)));
  EXPECT_FALSE(engine_->EndsLeft(front_->id, Asked().number()).ok());
}

TEST_F(DrainsTest, AHostOfVeryManyFunctionsIsAskedForInParts) {
  constexpr int kFunctions = 9000;
  api::Mesh mesh;
  for (int i = 0; i < kFunctions; ++i) {
    AddEndpoint(&mesh, absl::StrCat("web/f", i), "a");
    mesh.mutable_endpoints(i)->set_node("n2");
  }
  Program(mesh);
  Settle();
  SaysItDrains(7);
  std::map<std::string, std::set<uint64_t>> asked;
  int parts = 0;
  for (const api::ToHost& message : node_engine_->applied) {
    if (!message.has_leave_ends()) continue;
    ++parts;
    EXPECT_LE(message.ByteSizeLong(), kControlMessageBytesMax);
    EXPECT_EQ(message.leave_ends().more(), parts < 5);
    EXPECT_EQ(message.leave_ends().number(), Asked().number());
    for (const auto& end : message.leave_ends().ends())
      asked[end.end()].insert(end.callee_ids().begin(), end.callee_ids().end());
  }
  EXPECT_EQ(parts, 5);
  EXPECT_THAT(asked, ElementsAre(Pair("n2", SizeIs(kFunctions)), Pair("n2/a", SizeIs(kFunctions))));
  EXPECT_TRUE(engine_->EndsLeft(node_engine_->id, Asked().number()).ok());
  Settle();
  EXPECT_THAT(Told().left, ElementsAre(Pair("a", 7)));
}

// A change of one function looks at that one whoever calls it, and it has no other host.
TEST_F(DrainsTest, AFunctionThatNobodyHereCallsNeedsNoHostThatIsDrained) {
  SaysItDrains(7);
  api::Program delta;
  AddEndpoint(delta.mutable_upsert(), "web/alone", "a");
  delta.mutable_upsert()->mutable_endpoints(0)->set_node("n2");
  ProgramDelta(delta);
  Settle();
  EXPECT_THAT(Told().needed, IsEmpty());
  Subscribe(*front_, "web/front", "web/alone");
  Settle();
  EXPECT_THAT(Told().needed, ElementsAre("a"));
}

// As where many nodes take turns: all of them hear of all drains, at each change of whatever.
TEST_F(DrainsTest, ManyDrainsCostARoundOneLookAtTheMesh) {
  constexpr int kHosts = 20;
  constexpr uint64_t kEndpoints = 50 * kHosts;
  api::Mesh mesh;
  AddEndpoint(&mesh, "web/back", "b");
  for (uint64_t i = 0; i + 1 < kEndpoints; ++i) {
    AddEndpoint(&mesh, absl::StrCat("web/f", i), absl::StrCat("h", i % kHosts));
    mesh.mutable_endpoints(static_cast<int>(i) + 1)->set_node("n2");
  }
  Program(mesh);
  Settle();
  EXPECT_EQ(engine_->endpoints_looked_at(), 0u) << "nobody drains";
  PeerDrains says;
  for (int i = 0; i < kHosts; ++i) says.draining[absl::StrCat("h", i)] = 7;
  Says(says);
  EXPECT_EQ(engine_->endpoints_looked_at(), kEndpoints);
  // A change of one function looks at that one's.
  const uint64_t asked = Asked().number();
  api::Program delta;
  AddEndpoint(delta.mutable_upsert(), "web/f0", "h1");
  delta.mutable_upsert()->mutable_endpoints(0)->set_node("n2");
  ProgramDelta(delta);
  Settle();
  EXPECT_EQ(engine_->endpoints_looked_at(), kEndpoints + 2);
  EXPECT_GT(Asked().number(), asked) << "calls of it may be under way there";
}

TEST_F(DrainsTest, ANewDrainOfOneNameIsLeftAnew) {
  SaysItDrains(7);
  EXPECT_TRUE(engine_->EndsLeft(node_engine_->id, Asked().number()).ok());
  Settle();
  const uint64_t before = Asked().number();
  SaysItDrains(8);
  EXPECT_THAT(Told().left, IsEmpty());
  EXPECT_GT(Asked().number(), before);
  EXPECT_TRUE(engine_->EndsLeft(node_engine_->id, Asked().number()).ok());
  Settle();
  EXPECT_THAT(Told().left, ElementsAre(Pair("a", 8)));
  Says({});
  EXPECT_EQ(targets(), 2);
  EXPECT_THAT(Told().left, IsEmpty());
}

// It may be another tenant's, and need not answer.
TEST_F(DrainsTest, AnEngineInsideAHostIsAskedOnlyWhereThatHostMayCallWhatIsLeft) {
  FakeHost& caller = Attach("c", "web", {"web/caller"});
  FakeHost& idle = Attach("d", "web", {"web/idle"});
  FakeHost& foreign = Attach("v", "vision", {"vision/scale"});
  FakeHost& of_caller = AttachInside(caller, "web");
  FakeHost& of_idle = AttachInside(idle, "web");
  FakeHost& of_foreign = AttachInside(foreign, "vision");
  Subscribe(caller, "web/caller", "web/back");
  Subscribe(idle, "web/idle", "web/front");
  Subscribe(foreign, "vision/scale", "web/back");  // No rule allows it.
  Subscribe(foreign, "web/caller", "web/back");    // Not its name.
  Settle();
  SaysItDrains(7);
  EXPECT_TRUE(WasAsked(of_caller));
  EXPECT_FALSE(WasAsked(of_idle));
  EXPECT_FALSE(WasAsked(of_foreign));
  EXPECT_TRUE(engine_->EndsLeft(node_engine_->id, Asked().number()).ok());
  Settle();
  EXPECT_THAT(Told().left, IsEmpty());
  EXPECT_TRUE(engine_->EndsLeft(of_caller.id, Asked().number()).ok());
  Settle();
  EXPECT_THAT(Told().left, ElementsAre(Pair("a", 7)));
}

TEST_F(DrainsTest, ANodeEngineThatHasLeftIsNotWaitedFor) {
  SaysItDrains(7);
  engine_->Detach(node_engine_->id, "its process ended", now_ns_);
  hosts_.erase(EngineName("n1", 0));
  Settle();
  EXPECT_THAT(Told().left, ElementsAre(Pair("a", 7)));
}

TEST_F(DrainsTest, AHostElsewhereThatIsTheLastIsSaidToBeNeeded) {
  Kill(*b_);
  SaysItDrains(7);
  EXPECT_EQ(targets(), 1);
  EXPECT_THAT(Told().left, IsEmpty());
  EXPECT_THAT(Told().needed, ElementsAre("a"));
}

TEST_F(DrainsTest, AHostIsAskedToFinishOnceOtherNodesHaveLeftThisDrain) {
  ASSERT_TRUE(engine_->DrainHost("b").ok());
  Settle();
  EXPECT_THAT(Told().draining, ElementsAre(Pair("b", b_->id)));
  EXPECT_THAT(engine_->WhatHolds(*engine_->state().FindHost("b")), IsEmpty());
  SaysItLeft(b_->id + 1);
  EXPECT_FALSE(b_->drain_asked);
  SaysItLeft(b_->id);
  EXPECT_TRUE(b_->drain_asked);
  Kill(*b_);
  Settle();
  EXPECT_THAT(Told().gone, ElementsAre("b"));
  Attach("b", "web", {"web/back"});
  Settle();
  EXPECT_THAT(Told().gone, IsEmpty());
  EXPECT_THAT(Told().draining, IsEmpty());
}

// Else other nodes would call it at once.
TEST_F(DrainsTest, AHostThatComesBackIsToldOfOnceItIsRoutedTo) {
  ASSERT_TRUE(engine_->DrainHost("b").ok());
  SaysItLeft(b_->id);
  Kill(*b_);
  Settle();
  // It attaches while a round goes on whose plan does not know it.
  front_->deaf = true;
  Subscribe(*front_, "web/front", "web/other");
  Settle();
  FakeHost& b = Attach("b", "web", {"web/back"});
  b.deaf = true;
  Settle();
  front_->deaf = false;
  Settle();
  EXPECT_THAT(Told().gone, ElementsAre("b"));
  b.deaf = false;
  Settle();
  EXPECT_THAT(Told().gone, IsEmpty());
  EXPECT_EQ(targets(), 2);
}

// Other nodes may call it directly, whatever else serves the function here.
TEST_F(DrainsTest, AHostWithAnEngineInsideServesUntilOtherNodesHaveLeft) {
  Attach("c", "web", {"web/back"});
  FakeHost& inside = AttachInside(*b_, "web");
  api::Mesh mesh;
  for (const char* host : {"b", "c"}) AddEndpoint(&mesh, "web/back", host);
  AddEndpoint(&mesh, "web/far", "x");
  mesh.mutable_endpoints(2)->set_node("n2");
  Program(mesh);
  Subscribe(inside, "web/far", "web/back");
  Settle();
  ASSERT_TRUE(engine_->DrainHost("b").ok());
  Settle();
  EXPECT_EQ(TargetsAt(inside, "web/far", "web/back"), std::set<std::string>{"b"});
  EXPECT_FALSE(b_->drain_asked);
  SaysItLeft(b_->id);
  EXPECT_TRUE(b_->drain_asked);
}

TEST_F(DrainsTest, ANodeThatGoesIsNotWaitedForAndOneThatComesIs) {
  ASSERT_TRUE(engine_->DrainHost("b").ok());
  engine_->PeerSays("n3", {});
  SaysItLeft(b_->id);
  EXPECT_FALSE(b_->drain_asked);
  engine_->PeerGone("n3");
  Settle();
  EXPECT_TRUE(b_->drain_asked);
}

TEST_F(DrainsTest, ANodeOfAnEarlierVersionIsNamedAsWhatHolds) {
  ASSERT_TRUE(engine_->DrainHost("b").ok());
  PeerDrains deaf;
  deaf.deaf = true;
  Says(deaf);
  EXPECT_FALSE(b_->drain_asked);
  EXPECT_THAT(engine_->WhatHolds(*engine_->state().FindHost("b")),
              ElementsAre(Pair("web/back", HasSubstr("the agent of node n2 is of a version"))));
}

}  // namespace
}  // namespace weft::agent::test
