// SPDX-License-Identifier: Apache-2.0
// Rounds of the engine: opening, permissions before routes, moving, cutting off.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "dataplane/agent/refusal.h"
#include "tests/dataplane/agent/engine_fixture.h"

namespace weft::agent::test {
namespace {

using Hosts = std::set<std::string>;

constexpr uint32_t kPermissionDenied = 7;

TEST_F(EngineTest, CallWithinANamespaceIsRoutedByRegistrationAlone) {
  FakeHost& front = Attach("a", "web", {"web/front"});
  FakeHost& back = Attach("b", "web", {"web/back"});
  Subscribe(front, "web/front", "web/back");
  Settle();
  EXPECT_EQ(TargetsAt(front, "web/front", "web/back"), Hosts{"b"});
  const api::Target& target = front.routes[{"web/front", "web/back"}].targets(0);
  ASSERT_TRUE(back.channels.contains(target.channel()));
  EXPECT_EQ(back.access[target.channel()][target.caller_index()].first, "web/front");
}

TEST_F(EngineTest, TableOfPermittedCallersGoesAheadOfChannelAndRoute) {
  FakeHost& front = Attach("a", "web", {"web/front"});
  FakeHost& back = Attach("b", "web", {"web/back"});
  Subscribe(front, "web/front", "web/back");
  Settle();
  int access = -1;
  int peer = -1;
  for (int i = 0; i < static_cast<int>(back.applied.size()); ++i) {
    if (back.applied[static_cast<std::size_t>(i)].has_channel_access()) access = i;
    if (back.applied[static_cast<std::size_t>(i)].has_channel_peer()) peer = i;
  }
  ASSERT_GE(access, 0);
  EXPECT_LT(access, peer);
  EXPECT_TRUE(front.applied.back().has_route());
}

TEST_F(EngineTest, RouteWaitsUntilTheReceiverHasAppliedItsLargerTable) {
  FakeHost& front = Attach("a", "web", {"web/front"});
  FakeHost& back = Attach("b", "web", {"web/back", "web/deep"});
  Subscribe(front, "web/front", "web/back");
  Settle();
  back.deaf = true;
  Subscribe(front, "web/front", "web/deep");
  Settle();
  EXPECT_TRUE(TargetsAt(front, "web/front", "web/deep").empty());
  back.deaf = false;
  Settle();
  EXPECT_EQ(TargetsAt(front, "web/front", "web/deep"), Hosts{"b"});
}

TEST_F(EngineTest, TwoHostsShareOneChannelInBothDirections) {
  FakeHost& a = Attach("a", "web", {"web/front"});
  FakeHost& b = Attach("b", "web", {"web/back"});
  Subscribe(a, "web/front", "web/back");
  Subscribe(b, "web/back", "web/front");
  Settle();
  EXPECT_EQ(a.channels.size(), 1u);
  EXPECT_EQ(a.channels, b.channels);
  EXPECT_EQ(TargetsAt(b, "web/back", "web/front"), Hosts{"a"});
}

TEST_F(EngineTest, HostThatServesWhatItCallsNeedsNoChannel) {
  FakeHost& a = Attach("a", "web", {"web/front", "web/back"});
  Subscribe(a, "web/front", "web/back");
  Settle();
  ASSERT_EQ(a.routes[std::make_pair("web/front", "web/back")].targets_size(), 1);
  EXPECT_TRUE(a.routes[std::make_pair("web/front", "web/back")].targets(0).channel().empty());
  EXPECT_TRUE(a.channels.empty());
}

TEST_F(EngineTest, CallAcrossNamespacesNamesTheMissingRule) {
  FakeHost& front = Attach("a", "web", {"web/front"});
  Attach("b", "vision", {"vision/scale"});
  Subscribe(front, "web/front", "vision/scale");
  Settle();
  const api::Route& route = front.routes[{"web/front", "vision/scale"}];
  EXPECT_EQ(route.code(), kPermissionDenied);
  EXPECT_EQ(
      route.reason(),
      "PERMISSION_DENIED: web/front may not call vision/scale: no rule allows from web/front (or web/*) to "
      "vision/scale (or vision/*)");
  EXPECT_TRUE(front.channels.empty());
}

TEST_F(EngineTest, EachFormOfRuleAllowsTheCall) {
  FakeHost& front = Attach("a", "web", {"web/front"});
  Attach("b", "vision", {"vision/scale"});
  Subscribe(front, "web/front", "vision/scale");
  for (const auto& [from, to] : {std::pair("web/front", "vision/scale"), std::pair("web/*", "vision/scale"),
                                 std::pair("web/front", "vision/*"), std::pair("web/*", "vision/*")}) {
    api::Mesh mesh;
    AddAllow(&mesh, from, to);
    const uint64_t generation = Program(mesh);
    Settle();
    EXPECT_TRUE(Acknowledged(generation));
    EXPECT_EQ(TargetsAt(front, "web/front", "vision/scale"), Hosts{"b"}) << from << " " << to;
    const uint64_t none = Program(api::Mesh());
    Settle();
    EXPECT_TRUE(Acknowledged(none));
    EXPECT_TRUE(TargetsAt(front, "web/front", "vision/scale").empty());
  }
}

TEST_F(EngineTest, RevocationIsAppliedByTheReceiverBeforeItIsAcknowledged) {
  FakeHost& front = Attach("a", "web", {"web/front"});
  FakeHost& scale = Attach("b", "vision", {"vision/scale"});
  Subscribe(front, "web/front", "vision/scale");
  api::Mesh mesh;
  AddAllow(&mesh, "web/*", "vision/*");
  Program(mesh);
  Settle();
  ASSERT_EQ(scale.channels.size(), 1u);
  scale.deaf = true;
  const uint64_t revoked = Program(api::Mesh());
  Settle();
  EXPECT_FALSE(Acknowledged(revoked));
  scale.deaf = false;
  Settle();
  EXPECT_TRUE(Acknowledged(revoked));
  EXPECT_TRUE(scale.channels.empty());
  EXPECT_EQ(scale.closed.begin()->second.first, kPermissionDenied);
}

TEST_F(EngineTest, RevokingOneOfTwoCallersLeavesTheOthersChannelOpen) {
  FakeHost& front = Attach("a", "web", {"web/front", "web/other"});
  FakeHost& scale = Attach("b", "vision", {"vision/scale"});
  Subscribe(front, "web/front", "vision/scale");
  Subscribe(front, "web/other", "vision/scale");
  api::Mesh mesh;
  AddAllow(&mesh, "web/front", "vision/*");
  AddAllow(&mesh, "web/other", "vision/*");
  Program(mesh);
  Settle();
  api::Mesh less;
  AddAllow(&less, "web/other", "vision/*");
  Program(less);
  Settle();
  EXPECT_TRUE(TargetsAt(front, "web/front", "vision/scale").empty());
  EXPECT_EQ(TargetsAt(front, "web/other", "vision/scale"), Hosts{"b"});
  ASSERT_EQ(scale.channels.size(), 1u);
  for (const auto& [index, entry] : scale.access[*scale.channels.begin()])
    EXPECT_EQ(entry.first, "web/other");
}

TEST_F(EngineTest, UnknownFunctionIsNotFoundAndKnownOneIsUnavailable) {
  FakeHost& front = Attach("a", "web", {"web/front"});
  api::Mesh mesh;
  AddEndpoint(&mesh, "web/back", "b");
  Program(mesh);
  Subscribe(front, "web/front", "web/nothing");
  Subscribe(front, "web/front", "web/back");
  Settle();
  EXPECT_EQ((front.routes[{"web/front", "web/nothing"}].code()), kNotFound);
  EXPECT_EQ((front.routes[{"web/front", "web/back"}].code()), kUnavailable);
  EXPECT_THAT((front.routes[{"web/front", "web/back"}].reason()), testing::HasSubstr("host b: not attached"));
}

TEST_F(EngineTest, ThePartOfAnEndpointThatIsNoneFails) {
  FakeHost& front = Attach("a", "web", {"web/front"});
  Attach("b", "web", {"web/back"});
  api::Mesh mesh;
  AddEndpoint(&mesh, "web/back", "b");  // Its weight is 100.
  AddEndpoint(&mesh, "web/back", "none");
  mesh.mutable_endpoints(1)->set_weight(25);
  mesh.mutable_endpoints(1)->set_refuse("route r: there is no Service s");
  Program(mesh);
  Subscribe(front, "web/front", "web/back");
  Settle();
  const api::Route& route = front.routes[{"web/front", "web/back"}];
  ASSERT_EQ(route.targets_size(), 1);
  EXPECT_EQ(route.refused_share(), UINT32_MAX / 5);
  EXPECT_EQ(route.code(), kUnavailable);
  EXPECT_THAT(route.reason(), testing::HasSubstr("web/back goes nowhere: route r: there is no Service s"));
  // It is not counted where nothing is left to call.
  api::Program delta;
  api::Endpoint& gone = *delta.add_delete_endpoints();
  gone.set_function("web/back");
  gone.set_node("n1");
  gone.set_host("b");
  ProgramDelta(delta);
  Settle();
  EXPECT_EQ(route.refused_share(), 0u);
  EXPECT_EQ(route.targets_size(), 0);
  // And not where the backend is there again.
  AddEndpoint(&mesh, "web/back", "none");
  mesh.mutable_endpoints()->SwapElements(1, 2);
  mesh.mutable_endpoints()->RemoveLast();
  Program(mesh);
  Settle();
  EXPECT_EQ(route.targets_size(), 1);
  EXPECT_EQ(route.refused_share(), 0u);
  EXPECT_EQ(route.code(), 0u);
}

TEST_F(EngineTest, ThePartThatIsNoneFailsForTheEngineInsideAHostToo) {
  FakeHost& a = Attach("a", "web", {"web/front"});
  AttachRequest request;
  request.session = 1000;
  request.tenant = &tenants_.at("web");
  request.host = absl::StrCat(kEnginePrefix, "n1/a");
  request.is_client = request.is_engine = true;
  request.inside_of = a.id;
  ASSERT_TRUE(engine_->Attach(request, now_ns_).ok());
  hosts_["engine"] = std::make_unique<FakeHost>();
  hosts_["engine"]->id = request.session;
  api::NodeReport report;  // The node's own engine reaches nobody.
  report.set_node("n2");
  report.set_up(true);
  ASSERT_TRUE(engine_->ReportNode(request.session, report).ok());
  api::Mesh mesh;
  for (const char* host : {"b", "none"}) {
    api::Endpoint& endpoint = *mesh.add_endpoints();
    endpoint.set_function("web/far");
    endpoint.set_node("n2");
    endpoint.set_host(host);
    endpoint.set_weight(100);
  }
  mesh.mutable_endpoints(1)->set_refuse("there is no Service s");
  Program(mesh);
  Subscribe(a, "web/front", "web/far");
  Settle();
  const api::Route& route = a.routes[{"web/front", "web/far"}];
  EXPECT_EQ(route.targets_size(), 1);
  EXPECT_EQ(route.refused_share(), uint32_t{1} << 31);
}

TEST_F(EngineTest, ClientCallsAsItsNamespaceAndAsNothingElse) {
  Attach("b", "web", {"web/back"});
  FakeHost& client = AttachClient("web");
  Subscribe(client, "web", "web/back");
  Subscribe(client, "vision", "web/back");
  Subscribe(client, "web/front", "web/back");
  Settle();
  EXPECT_EQ(TargetsAt(client, "web", "web/back"), Hosts{"b"});
  EXPECT_EQ((client.routes[{"vision", "web/back"}].code()), kPermissionDenied);
  EXPECT_EQ((client.routes[{"web/front", "web/back"}].code()), kPermissionDenied);
  EXPECT_EQ(engine_->forged_callers(), 2u);
}

TEST_F(EngineTest, SecondHostOfANameAndSerialsNeverSentAreRefused) {
  FakeHost& a = Attach("a", "web", {"web/front"});
  Settle();
  api::Hello hello;
  hello.set_host("a");
  EXPECT_EQ(RefusalOf(TryAttach("a", "web", hello)), Refusal::kHostTaken);
  EXPECT_EQ(RefusalOf(engine_->Applied(a.id, 999)), Refusal::kBadSerial);
}

TEST_F(EngineTest, RegistrationOfSomeoneElsesFunctionIsRefused) {
  api::Hello hello;
  hello.set_host("x");
  hello.add_serves("vision/scale");
  EXPECT_EQ(RefusalOf(TryAttach("x", "web", hello)), Refusal::kFunctionNotAllowed);
  FakeHost& a = Attach("a", "web");
  api::FunctionReport report;
  report.set_function("vision/scale");
  EXPECT_EQ(RefusalOf(engine_->Report(a.id, report)), Refusal::kFunctionNotAllowed);
}

// Hosts are dealt out, and stay; where their worker does not reach a node another's does.
TEST_F(EngineTest, CallsLeaveByTheWorkerThatTheirHostWasDealtTo) {
  engine_->set_workers(2);
  AttachNodeEngine(0);
  AttachNodeEngine(1);
  const auto report = [&](uint16_t worker, bool up) {
    api::NodeReport said;
    said.set_node("n2");
    said.set_up(up);
    EXPECT_TRUE(engine_->ReportNode(1000u + worker, said).ok());
    Settle();
  };
  FakeHost& a = Attach("a", "web", {"web/front"});
  FakeHost& b = Attach("b", "vision", {"vision/front"});
  api::Mesh mesh;
  api::Endpoint& endpoint = *mesh.add_endpoints();
  endpoint.set_function("web/far");
  endpoint.set_node("n2");
  endpoint.set_host("x");
  AddAllow(&mesh, "vision/*", "web/far");
  Program(mesh);
  Subscribe(a, "web/front", "web/far");
  Subscribe(b, "vision/front", "web/far");
  Settle();
  const auto ways = [&] {
    return std::pair(TargetsAt(a, "web/front", "web/far"), TargetsAt(b, "vision/front", "web/far"));
  };
  EXPECT_EQ(ways(), std::pair(Hosts{}, Hosts{}));
  report(1, true);
  EXPECT_EQ(ways(), std::pair(Hosts{"engine:n1:1"}, Hosts{"engine:n1:1"}));
  report(0, true);
  EXPECT_EQ(ways(), std::pair(Hosts{"engine:n1"}, Hosts{"engine:n1:1"}));
  report(1, false);
  EXPECT_EQ(ways(), std::pair(Hosts{"engine:n1"}, Hosts{"engine:n1"}));
  report(1, true);
  Kill(*hosts_.at("engine:n1"));
  Settle();
  EXPECT_EQ(ways(), std::pair(Hosts{"engine:n1:1"}, Hosts{"engine:n1:1"}));
  Kill(*hosts_.at("engine:n1:1"));
  Settle();
  EXPECT_EQ(ways(), std::pair(Hosts{}, Hosts{}));
}

TEST_F(EngineTest, PairThatIsGivenUpLosesItsPermission) {
  FakeHost& a = Attach("a", "web", {"web/front"});
  FakeHost& b = Attach("b", "vision", {"vision/scale", "vision/crop"});
  api::Mesh mesh;
  AddAllow(&mesh, "web/*", "vision/*");
  Program(mesh);
  Subscribe(a, "web/front", "vision/scale");
  Subscribe(a, "web/front", "vision/crop");
  Settle();
  const ChannelId channel = *a.channels.begin();
  const auto permitted = [&] {
    std::size_t count = 0;
    for (const auto& [index, entry] : b.access[channel]) count += entry.second.size();
    return count;
  };
  EXPECT_EQ(permitted(), 2u);
  api::Unsubscribe unsubscribe;
  unsubscribe.set_caller("web/front");
  unsubscribe.set_callee("vision/scale");
  a.routes.erase({"web/front", "vision/scale"});  // It calls by it no more.
  for (int i = 0; i < 2; ++i) {                   // The second finds nothing.
    ASSERT_TRUE(engine_->Unsubscribe(a.id, unsubscribe).ok());
    Pass(2 * kNsPerSecond);
    EXPECT_EQ(permitted(), 1u);
  }
  Subscribe(a, "web/front", "vision/scale");
  Settle();
  EXPECT_EQ(permitted(), 2u);
}

}  // namespace
}  // namespace weft::agent::test
