// SPDX-License-Identifier: Apache-2.0
// Generations and placements in the engine: moves make before they break, acknowledgements wait for what they
// promise.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "dataplane/agent/refusal.h"
#include "tests/dataplane/agent/engine_fixture.h"

namespace weft::agent::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Hosts = std::set<std::string>;

constexpr char kCaller[] = "web/front";
constexpr char kCallee[] = "web/back";

class PlacementTest : public EngineTest {
 protected:
  PlacementTest() : front_(Attach("a", "web", {kCaller})) { Subscribe(front_, kCaller, kCallee); }

  // Programs that kCallee is on these hosts, with module 'm'.
  uint64_t PlaceOn(const Hosts& hosts, char module = 'm') {
    api::Mesh mesh;
    for (const std::string& host : hosts) AddEndpoint(&mesh, kCallee, host, module);
    return Program(mesh);
  }
  Hosts Targets() { return TargetsAt(front_, kCaller, kCallee); }

  FakeHost& front_;
};

TEST_F(PlacementTest, ModuleIsHandedOverAndRoutedToOnceReady) {
  FakeHost& b = Attach("b", "web");
  b.loads_slowly = true;
  const uint64_t generation = PlaceOn({"b"});
  Settle();
  EXPECT_EQ(b.loading, Hosts{kCallee});
  EXPECT_TRUE(Targets().empty());
  EXPECT_FALSE(Acknowledged(generation));
  FinishLoading(b, kCallee);
  Settle();
  EXPECT_EQ(Targets(), Hosts{"b"});
  EXPECT_TRUE(Acknowledged(generation));
  EXPECT_EQ(programmed_[generation].failed_size(), 0);
}

TEST_F(PlacementTest, AnHttpEndpointIsNamedAndNotCalled) {
  api::Mesh mesh;
  AddEndpoint(&mesh, kCallee, "task", '\0');
  mesh.mutable_endpoints(0)->set_http("10.0.0.9:8222");
  Program(mesh);
  Settle();
  EXPECT_TRUE(Targets().empty());
  const api::Route& route = front_.routes[{kCaller, kCallee}];
  EXPECT_EQ(route.code(), static_cast<uint32_t>(absl::StatusCode::kUnavailable));
  EXPECT_THAT(route.reason(), HasSubstr("host task: HTTP at 10.0.0.9:8222, needs the gateway"));
}

TEST_F(PlacementTest, MoveMakesTheNewTargetBeforeItBreaksTheOld) {
  FakeHost& b = Attach("b", "web");
  FakeHost& c = Attach("c", "web");
  PlaceOn({"b"});
  Settle();
  ASSERT_EQ(Targets(), Hosts{"b"});
  c.loads_slowly = true;
  b.keeps_calls = true;
  const uint64_t moved = PlaceOn({"c"});
  Settle();
  EXPECT_EQ(Targets(), Hosts{"b"});
  EXPECT_FALSE(Acknowledged(moved));
  EXPECT_TRUE(b.leaving.empty());
  FinishLoading(c, kCallee);
  Settle();
  EXPECT_EQ(Targets(), Hosts{"c"});
  EXPECT_TRUE(Acknowledged(moved));
  EXPECT_EQ(b.leaving, Hosts{kCallee});
}

TEST_F(PlacementTest, CallsUnderWayToTheOldHostStayPermittedUntilItIsGone) {
  FakeHost& b = Attach("b", "web");
  Attach("c", "web");
  PlaceOn({"b"});
  Settle();
  const ChannelId channel = *b.channels.begin();
  b.keeps_calls = true;
  PlaceOn({"c"});
  Settle();
  ASSERT_EQ(b.access[channel].size(), 1u);
  EXPECT_TRUE(b.access[channel].begin()->second.second.contains(FunctionIdOf(kCallee).value));
  EXPECT_TRUE(b.channels.contains(channel));
  FinishCalls(b, kCallee);
  Settle();
  EXPECT_TRUE(b.access[channel].empty());
  EXPECT_TRUE(b.channels.contains(channel)) << "an idle channel is kept for a while: functions move back";
  Pass(kIdleChannelNs + kNsPerSecond);
  EXPECT_FALSE(b.channels.contains(channel));
}

TEST_F(PlacementTest, CallerAppliesItsRouteBeforeTheMoveIsAcknowledged) {
  Attach("b", "web");
  Attach("c", "web");
  PlaceOn({"b"});
  Settle();
  front_.deaf = true;
  const uint64_t moved = PlaceOn({"c"});
  Settle();
  EXPECT_FALSE(Acknowledged(moved));
  front_.deaf = false;
  Settle();
  EXPECT_TRUE(Acknowledged(moved));
  EXPECT_EQ(Targets(), Hosts{"c"});
}

TEST_F(PlacementTest, MovingBackWaitsForTheHostToFinishItsCalls) {
  FakeHost& b = Attach("b", "web");
  Attach("c", "web");
  PlaceOn({"b"});
  Settle();
  b.keeps_calls = true;
  PlaceOn({"c"});
  Settle();
  const uint64_t back = PlaceOn({"b"});
  Settle();
  EXPECT_TRUE(b.loading.empty());
  EXPECT_EQ(Targets(), Hosts{"c"});
  FinishCalls(b, kCallee);
  Settle();
  EXPECT_EQ(Targets(), Hosts{"b"});
  EXPECT_TRUE(Acknowledged(back));
}

TEST_F(PlacementTest, FunctionThatMovesBackNeedNotAskForItsRoutesAgain) {
  FakeHost& b = Attach("b", "web");
  Attach("c", "web");
  Attach("d", "web", {"web/deep"});
  PlaceOn({"b"});
  Settle();
  Subscribe(b, kCallee, "web/deep");
  Settle();
  ASSERT_EQ(TargetsAt(b, kCallee, "web/deep"), Hosts{"d"});
  PlaceOn({"c"});
  Settle();
  EXPECT_THAT((b.routes[{kCallee, "web/deep"}].reason()), HasSubstr("host b may not call as web/back"));
  PlaceOn({"b"});
  Settle();
  EXPECT_EQ(TargetsAt(b, kCallee, "web/deep"), Hosts{"d"});
}

TEST_F(PlacementTest, CallerThatIsPlacedAfterItAskedGetsItsRoute) {
  FakeHost& b = Attach("b", "web");
  Attach("d", "web", {"web/deep"});
  Subscribe(b, kCallee, "web/deep");
  Settle();
  EXPECT_TRUE(TargetsAt(b, kCallee, "web/deep").empty());
  EXPECT_EQ(engine_->forged_callers(), 1u);
  PlaceOn({"b"});
  Settle();
  EXPECT_EQ(TargetsAt(b, kCallee, "web/deep"), Hosts{"d"});
}

TEST_F(PlacementTest, FailedReplacementLeavesTheOldHostServing) {
  FakeHost& b = Attach("b", "web");
  FakeHost& c = Attach("c", "web");
  PlaceOn({"b"});
  Settle();
  c.fail_loading = "wrong hash";
  const uint64_t moved = PlaceOn({"c"});
  Settle();
  ASSERT_TRUE(Acknowledged(moved));
  EXPECT_THAT(programmed_[moved].failed(), ElementsAre("web/back on host c: wrong hash"));
  EXPECT_EQ(Targets(), Hosts{"b"});
  EXPECT_TRUE(b.leaving.empty());
  // Another generation that names it tries again.
  c.fail_loading.clear();
  const uint64_t again = PlaceOn({"c"});
  Settle();
  EXPECT_TRUE(Acknowledged(again));
  EXPECT_EQ(Targets(), Hosts{"c"});
}

TEST_F(PlacementTest, NewModuleOnTheSameHostReplacesTheOldWithoutAGap) {
  FakeHost& b = Attach("b", "web");
  PlaceOn({"b"});
  Settle();
  b.loads_slowly = true;
  const uint64_t replaced = PlaceOn({"b"}, 'n');
  Settle();
  EXPECT_EQ(b.loading, Hosts{kCallee});
  EXPECT_EQ(Targets(), Hosts{"b"});
  EXPECT_FALSE(Acknowledged(replaced));
  FinishLoading(b, kCallee);
  Settle();
  EXPECT_TRUE(Acknowledged(replaced));
  EXPECT_EQ(Targets(), Hosts{"b"});
  EXPECT_TRUE(b.leaving.empty());
}

TEST_F(PlacementTest, DrainingEndpointGetsCallsOnlyWhileNoOtherIsReady) {
  Attach("b", "web");
  FakeHost& c = Attach("c", "web");
  c.loads_slowly = true;
  api::Mesh mesh;
  AddEndpoint(&mesh, kCallee, "b", 'm', api::ENDPOINT_DRAINING);
  AddEndpoint(&mesh, kCallee, "c", 'm');
  Program(mesh);
  Settle();
  EXPECT_EQ(Targets(), Hosts{"b"});
  FinishLoading(c, kCallee);
  Settle();
  EXPECT_EQ(Targets(), Hosts{"c"});
  Kill(c);
  Settle();
  EXPECT_EQ(Targets(), Hosts{"b"});
}

TEST_F(PlacementTest, AbsentHostFailsItsPlacementAfterTenSecondsAndIsPlacedWhenItComes) {
  const uint64_t generation = PlaceOn({"b"});
  Pass(kPlacementNs - kNsPerMs);
  EXPECT_FALSE(Acknowledged(generation));
  Pass(2 * kNsPerMs);
  ASSERT_TRUE(Acknowledged(generation));
  EXPECT_THAT(programmed_[generation].failed(), ElementsAre("web/back on host b: not attached"));
  Attach("b", "web");
  Settle();
  EXPECT_EQ(Targets(), Hosts{"b"});
}

TEST_F(PlacementTest, AbsentHostDoesNotHoldUpTheNextGeneration) {
  Attach("c", "web");
  const uint64_t first = PlaceOn({"b"});
  Settle();
  const uint64_t second = PlaceOn({"c"});
  Settle();
  EXPECT_TRUE(Acknowledged(first));
  EXPECT_TRUE(Acknowledged(second));
  EXPECT_EQ(Targets(), Hosts{"c"});
}

TEST_F(PlacementTest, HostThatDiesWhileItLoadsDoesNotTakeTheOldOneAlong) {
  Attach("b", "web");
  FakeHost& c = Attach("c", "web");
  PlaceOn({"b"});
  Settle();
  c.loads_slowly = true;
  PlaceOn({"c"});
  Settle();
  Kill(c);
  Pass(kPlacementNs + kNsPerSecond);
  EXPECT_EQ(Targets(), Hosts{"b"});
}

TEST_F(PlacementTest, TenantThatMayNotServeAFunctionIsNotGivenIt) {
  Attach("v", "vision");
  const uint64_t generation = PlaceOn({"v"});
  Settle();
  ASSERT_TRUE(Acknowledged(generation));
  ASSERT_EQ(programmed_[generation].failed_size(), 1);
  EXPECT_THAT(programmed_[generation].failed(0), HasSubstr("tenant vision may not serve web/back"));
  EXPECT_TRUE(Targets().empty());
}

TEST_F(PlacementTest, FunctionWithEndpointsIsRoutedToThemOnly) {
  Attach("b", "web", {kCallee});
  Attach("c", "web", {kCallee});
  Settle();
  ASSERT_EQ(Targets(), (Hosts{"b", "c"}));
  api::Mesh mesh;
  AddEndpoint(&mesh, kCallee, "c");
  Program(mesh);
  Settle();
  EXPECT_EQ(Targets(), Hosts{"c"});
}

TEST_F(PlacementTest, WeightsAndPolicyArriveWithTheRoute) {
  Attach("b", "web", {kCallee});
  api::Mesh mesh;
  AddEndpoint(&mesh, kCallee, "b");
  mesh.mutable_endpoints(0)->set_weight(7);
  api::Function& function = *mesh.add_functions();
  function.set_name(kCallee);
  function.mutable_policy()->set_timeout_ns(123);
  Program(mesh);
  Settle();
  const api::Route& route = front_.routes[{kCaller, kCallee}];
  ASSERT_EQ(route.targets_size(), 1);
  EXPECT_EQ(route.targets(0).weight(), 7u);
  EXPECT_EQ(route.policy().timeout_ns(), 123u);
  EXPECT_EQ(route.generation(), generation_);
}

TEST_F(PlacementTest, ServingHostIsToldThePolicyAndWhenItIsTakenBack) {
  FakeHost& b = Attach("b", "web", {kCallee});
  const auto limit_told = [&] {
    for (auto it = b.applied.rbegin(); it != b.applied.rend(); ++it) {
      if (it->has_serve_policy())
        return static_cast<int>(it->serve_policy().function().policy().concurrent_calls_max());
    }
    return -1;
  };
  api::Mesh mesh;
  api::Function& function = *mesh.add_functions();
  function.set_name(kCallee);
  function.mutable_policy()->set_concurrent_calls_max(3);
  Program(mesh);
  Settle();
  EXPECT_EQ(limit_told(), 3);
  Program(api::Mesh());
  Settle();
  EXPECT_EQ(limit_told(), 0);
}

TEST_F(PlacementTest, OperatorsDrainMovesCallsAwayThenAsksTheHostToFinish) {
  FakeHost& b = Attach("b", "web", {kCallee});
  Settle();
  ASSERT_TRUE(engine_->DrainHost("b").ok());
  Settle();
  EXPECT_EQ(Targets(), Hosts{"b"}) << "the last host of a function keeps its calls";
  EXPECT_FALSE(b.drain_asked);
  Attach("c", "web", {kCallee});
  Settle();
  EXPECT_EQ(Targets(), Hosts{"c"});
  EXPECT_TRUE(b.drain_asked);
  EXPECT_EQ(RefusalOf(engine_->DrainHost("nobody")), Refusal::kUnknownHost);
}

TEST_F(PlacementTest, OlderGenerationAndBadPartsAreRefusedAndChangeNothing) {
  Attach("b", "web");
  PlaceOn({"b"});
  PlaceOn({"b"});
  Settle();
  api::Program program;
  program.set_generation(1);
  program.set_last(true);
  EXPECT_EQ(RefusalOf(engine_->Program(1, program, now_ns_)), Refusal::kStaleGeneration);
  program.set_generation(99);
  program.mutable_upsert()->add_endpoints()->set_function("no name");
  EXPECT_EQ(RefusalOf(engine_->Program(1, program, now_ns_)), Refusal::kBadProgram);
  program.clear_upsert();
  api::Node& node = *program.mutable_upsert()->add_nodes();
  node.set_name("n2");
  node.set_address(absl::StrCat(std::string(60'000, 'a'), ":4810"));
  EXPECT_EQ(RefusalOf(engine_->Program(1, program, now_ns_)), Refusal::kBadProgram);
  Settle();
  EXPECT_EQ(engine_->model().generation(), 2u);
  EXPECT_EQ(Targets(), Hosts{"b"});
}

TEST_F(PlacementTest, DeltaInPartsTakesEffectWithItsLastOne) {
  Attach("b", "web", {kCallee});
  Attach("c", "web", {kCallee});
  api::Mesh mesh;
  AddEndpoint(&mesh, kCallee, "b");
  Program(mesh);
  Settle();
  api::Program part;
  part.set_generation(++generation_);
  api::Mesh more;
  AddEndpoint(&more, kCallee, "c");
  *part.mutable_upsert() = more;
  ASSERT_TRUE(engine_->Program(1, part, now_ns_).ok());
  Settle();
  EXPECT_EQ(Targets(), Hosts{"b"});
  part.clear_upsert();
  part.set_last(true);
  AddEndpoint(&mesh, kCallee, "b");
  *part.add_delete_endpoints() = mesh.endpoints(0);
  ASSERT_TRUE(engine_->Program(1, part, now_ns_).ok());
  Settle();
  EXPECT_EQ(Targets(), Hosts{"c"});
  EXPECT_TRUE(Acknowledged(generation_));
}

}  // namespace
}  // namespace weft::agent::test
