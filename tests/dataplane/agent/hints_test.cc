// SPDX-License-Identifier: Apache-2.0
// How far other nodes are by the hints of their endpoints, and with what weight, as the plan of a function
// says it.
#include "dataplane/agent/hints.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "dataplane/agent/plan.h"
#include "dataplane/agent/views.h"
#include "tests/dataplane/agent/engine_fixture.h"

namespace weft::agent {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr char kFunction[] = "v/f";
constexpr SessionId kEngine = 7;

std::string Encoded(const std::vector<std::string>& zones, const std::vector<std::string>& nodes = {}) {
  api::Hints hints;
  for (const std::string& zone : zones) hints.add_zones(zone);
  for (const std::string& node : nodes) hints.add_nodes(node);
  return hints.SerializeAsString();
}

// This node is n1 in zone a; n2 is in a too, n3 and n4 are in b.
class HintsTest : public testing::Test {
 protected:
  HintsTest() {
    for (const auto& [node, zone] :
         {std::pair("n1", "a"), std::pair("n2", "a"), std::pair("n3", "b"), std::pair("n4", "b")}) {
      api::Node& added = *mesh_.add_nodes();
      added.set_name(node);
      added.set_zone(zone);
    }
  }
  api::Endpoint& Add(const std::string& node, const std::string& hints, uint32_t weight = 100) {
    api::Endpoint& endpoint = *mesh_.add_endpoints();
    endpoint.set_function(kFunction);
    endpoint.set_node(node);
    endpoint.set_host(absl::StrCat("h", mesh_.endpoints_size()));
    endpoint.set_hints(hints);
    endpoint.set_weight(weight);
    return endpoint;
  }
  FunctionPlan Plan(const std::set<std::string>& up = {"n2", "n3", "n4"}) {
    api::Program program;
    program.set_snapshot(true);
    program.set_last(true);
    *program.mutable_upsert() = mesh_;
    Model model;
    EXPECT_TRUE(model.Apply(program).ok());
    EngineState state;
    state.engine = kEngine;
    state.nodes_up = up;
    FunctionPlan plan = PlanFunction(model, state, {}, "n1", kFunction);
    note_ = plan.notes.empty() ? "" : plan.notes.front();
    return plan;
  }
  // "NODE DISTANCE*WEIGHT[ hinted]"
  std::vector<std::string> Ways(const std::set<std::string>& up = {"n2", "n3", "n4"}) {
    std::vector<std::string> ways;
    for (const PlanTarget& target : Plan(up).remote) {
      EXPECT_EQ(target.session, kEngine);
      ways.push_back(absl::StrCat(target.node, " ", static_cast<int>(target.distance), "*", target.weight,
                                  target.hinted ? " hinted" : ""));
    }
    return ways;
  }

  api::Mesh mesh_;
  std::string note_;  // The first of the plan's
};

TEST_F(HintsTest, WithoutHintsTheZoneOfTheNodeCounts) {
  Add("n2", "", 10);
  Add("n2", "", 20);
  Add("n3", "");
  EXPECT_THAT(Ways(), ElementsAre("n2 2*30", "n3 3*100"));
  EXPECT_THAT(note_, Not(HasSubstr("hint")));
}

TEST_F(HintsTest, AZoneIsLentEndpointsOfAnother) {
  Add("n2", Encoded({"a"}));
  Add("n3", Encoded({"a"}), 30);
  Add("n4", Encoded({"b"}));
  EXPECT_THAT(Ways(), ElementsAre("n2 2*100 hinted", "n3 2*30 hinted", "n4 3*100 hinted"));
  EXPECT_EQ(note_, "hints for zone a are followed");
}

TEST_F(HintsTest, AZoneGivesItsOwnAway) {
  Add("n2", Encoded({"b"}));
  Add("n3", Encoded({"b", "a"}));
  EXPECT_THAT(Ways(), ElementsAre("n2 3*100 hinted", "n3 2*100 hinted"));
}

TEST_F(HintsTest, OfANodeOnlyItsNearestEndpointsWeigh) {
  Add("n3", Encoded({"b"}), 7);
  Add("n3", Encoded({"a"}), 20);
  Add("n3", Encoded({"b"}), 9);
  Add("n3", Encoded({"a"}), 30);
  Add("n4", Encoded({"b"}), 3);
  Add("n4", Encoded({"b"}), 4);
  EXPECT_THAT(Ways(), ElementsAre("n3 2*50 hinted", "n4 3*7 hinted"));
}

TEST_F(HintsTest, OneReadyEndpointWithoutSomeAndNoneCounts) {
  Add("n2", Encoded({"b"}));
  Add("n3", Encoded({"a"}));
  Add("n4", "");
  EXPECT_THAT(Ways(), ElementsAre("n2 2*100", "n3 3*100", "n4 3*100"));
  EXPECT_EQ(note_, "hints are not followed: not every ready endpoint has some");
  // What drains has no say, nor what no call goes to.
  mesh_.mutable_endpoints(2)->set_state(api::ENDPOINT_DRAINING);
  EXPECT_THAT(Ways(), ElementsAre("n2 3*100 hinted", "n3 2*100 hinted"));
  mesh_.mutable_endpoints(2)->set_state(api::ENDPOINT_READY);
  mesh_.mutable_endpoints(2)->set_http("10.0.0.1:80");
  EXPECT_THAT(Ways(), ElementsAre("n2 3*100 hinted", "n3 2*100 hinted"));
  // One of this node does.
  mesh_.mutable_endpoints(2)->clear_http();
  mesh_.mutable_endpoints(2)->set_node("n1");
  EXPECT_THAT(Ways(), ElementsAre("n2 2*100", "n3 3*100"));
  mesh_.mutable_endpoints(2)->set_hints(Encoded({"b"}));
  EXPECT_THAT(Ways(), ElementsAre("n2 3*100 hinted", "n3 2*100 hinted"));
  // What cannot be read is none.
  mesh_.mutable_endpoints(2)->set_hints("\xff");
  EXPECT_THAT(Ways(), ElementsAre("n2 2*100", "n3 3*100"));
}

TEST_F(HintsTest, NoneForTheCallersZoneAndNoneCounts) {
  Add("n2", Encoded({"b"}));
  Add("n3", Encoded({"b", "c"}));
  EXPECT_THAT(Ways(), ElementsAre("n2 2*100", "n3 3*100"));
  EXPECT_EQ(note_, "hints are not followed: none is for zone a");
  mesh_.mutable_nodes(0)->clear_zone();
  mesh_.mutable_endpoints(1)->set_hints(Encoded({"a"}));
  EXPECT_THAT(Ways(), ElementsAre("n2 3*100", "n3 3*100"));
  EXPECT_EQ(note_, "hints are not followed: none is for node n1, which has no zone");
}

TEST_F(HintsTest, SharesOfAllCallsAreWeighedWherever) {
  Add("n2", Encoded({"b"}));
  Add("n3", Encoded({"a"}), 10);
  Add("n3", Encoded({"b"}), 20);
  api::Function& function = *mesh_.add_functions();
  function.set_name(kFunction);
  EXPECT_THAT(Ways(), ElementsAre("n2 3*100 hinted", "n3 2*10 hinted"));
  function.mutable_policy()->set_any_locality(true);
  EXPECT_THAT(Ways(), ElementsAre("n2 2*100", "n3 3*30"));
  EXPECT_EQ(note_, "hints are not followed: the function's locality is `any`");
}

TEST_F(HintsTest, ANodeIsAsNearAsThisOneByHintsForIt) {
  Add("n2", Encoded({"a"}, {"n2"}));
  Add("n3", Encoded({"b"}, {"n1", "n3"}));
  Add("n4", Encoded({"b"}, {"n4"}));
  EXPECT_THAT(Ways(), ElementsAre("n2 2*100 hinted", "n3 1*100 hinted", "n4 3*100 hinted"));
  EXPECT_EQ(note_, "hints for node n1 and zone a are followed");
  // Each kind counts by itself: one that has none for its zone, then one that has none for its node
  mesh_.mutable_endpoints(2)->set_hints(Encoded({}, {"n4"}));
  EXPECT_THAT(Ways(), ElementsAre("n2 2*100", "n3 1*100 hinted", "n4 3*100"));
  EXPECT_EQ(note_, "hints for node n1 are followed");
  mesh_.mutable_endpoints(2)->set_hints(Encoded({"a"}));
  EXPECT_THAT(Ways(), ElementsAre("n2 2*100 hinted", "n3 3*100 hinted", "n4 2*100 hinted"));
  EXPECT_EQ(note_, "hints for zone a are followed");
}

TEST_F(HintsTest, ThoseThatDrainAreAsFarAsTheyAre) {
  Add("n2", Encoded({"b"})).set_state(api::ENDPOINT_DRAINING);
  Add("n3", Encoded({"a"})).set_state(api::ENDPOINT_DRAINING);
  EXPECT_THAT(Ways(), ElementsAre("n2 2*100", "n3 3*100"));
  // Though one that is ready and cannot be reached is hinted.
  Add("n4", Encoded({"a"}));
  EXPECT_THAT(Ways({"n2", "n3"}), ElementsAre("n2 2*100", "n3 3*100"));
}

TEST_F(HintsTest, AnEndInsideAHostIsHintedByItself) {
  Add("n3", Encoded({"a"}), 10);
  Add("n3", Encoded({"b"}), 20);
  EXPECT_THAT(Ways({"n3", "n3/h2"}), ElementsAre("n3 2*10 hinted", "n3/h2 3*20 hinted"));
}

// One field of each row; "-" where it has none.
std::vector<std::string> Column(const std::vector<api::Item>& items, const std::string& name) {
  std::vector<std::string> column;
  for (const api::Item& item : items) {
    std::string& text = column.emplace_back("-");
    for (const api::Item::Field& field : item.fields()) {
      if (field.name() == name) text = field.text();
    }
  }
  return column;
}

class HintedRouteTest : public test::EngineTest {};

TEST_F(HintedRouteTest, AHostIsToldHowFarAndTheViewsSayByWhat) {
  test::FakeHost& engine = AttachNodeEngine();
  for (const char* node : {"n2", "n3"}) {
    api::NodeReport report;
    report.set_node(node);
    report.set_up(true);
    ASSERT_TRUE(engine_->ReportNode(engine.id, report).ok());
  }
  test::FakeHost& front = Attach("a", "web", {"web/front"});
  api::Mesh mesh;
  for (const auto& [node, zone] : {std::pair("n1", "a"), std::pair("n2", "a"), std::pair("n3", "b")}) {
    api::Node& added = *mesh.add_nodes();
    added.set_name(node);
    added.set_zone(zone);
  }
  for (const auto& [node, zone] : {std::pair("n2", "b"), std::pair("n3", "a")}) {
    AddEndpoint(&mesh, "web/back", "x");
    api::Endpoint& endpoint = *mesh.mutable_endpoints(mesh.endpoints_size() - 1);
    endpoint.set_node(node);
    endpoint.set_hints(Encoded({zone}));
  }
  Program(mesh);
  Subscribe(front, "web/front", "web/back");
  Settle();
  const auto told = [&front] {
    std::vector<std::string> ways;
    for (const api::Target& target : front.routes[{"web/front", "web/back"}].targets())
      ways.push_back(absl::StrCat(target.node(), " ", target.distance()));
    return ways;
  };
  EXPECT_THAT(told(), ElementsAre("n2 3", "n3 2"));
  EXPECT_THAT(Column(RouteItems(*engine_), "hinted"), ElementsAre("node n3"));
  const auto explained = [&](const char* field) {
    return Column(ExplainItems(*engine_, "web/front", "web/back"), field);
  };
  EXPECT_THAT(explained("path"), ElementsAre("encrypted messages to node n2",
                                             "encrypted messages to node n3, hinted for this zone"));
  EXPECT_THAT(explained("why"), Each(HasSubstr("; hints for zone a are followed; node n2")));
  // A change of one hint reaches the host as any other.
  api::Program delta;
  *delta.mutable_upsert()->add_endpoints() = mesh.endpoints(0);
  delta.mutable_upsert()->mutable_endpoints(0)->clear_hints();
  ProgramDelta(std::move(delta));
  Settle();
  EXPECT_THAT(told(), ElementsAre("n2 2", "n3 3"));
  EXPECT_THAT(Column(RouteItems(*engine_), "hinted"), ElementsAre("-"));
  EXPECT_THAT(explained("path"),
              ElementsAre("encrypted messages to node n2, in this zone", "encrypted messages to node n3"));
}

}  // namespace
}  // namespace weft::agent
