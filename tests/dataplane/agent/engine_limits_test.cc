// SPDX-License-Identifier: Apache-2.0
// What hosts and tenants may have of the engine: routes, hosts, functions, channels and bytes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "dataplane/agent/refusal.h"
#include "dataplane/channel/byte_budget.h"
#include "tests/dataplane/agent/engine_fixture.h"

namespace weft::agent::test {
namespace {

using Hosts = std::set<std::string>;

TEST_F(EngineTest, RoutesThatOneHostMayAskForAreBounded) {
  FakeHost& a = Attach("a", "web", {"web/front"});
  Settle();
  api::Subscribe subscribe;
  subscribe.set_caller("web/front");
  for (std::size_t i = 0; i < kSubscriptionsMax; ++i) {
    subscribe.set_callee(absl::StrCat("web/f", i));
    ASSERT_TRUE(engine_->Subscribe(a.id, subscribe).ok()) << i;
  }
  subscribe.set_callee("web/one-more");
  EXPECT_EQ(RefusalOf(engine_->Subscribe(a.id, subscribe)), Refusal::kSubscriptionLimit);
  subscribe.set_callee("web/f0");
  EXPECT_TRUE(engine_->Subscribe(a.id, subscribe).ok());
}

TEST_F(EngineTest, RoutesThatOneTenantMayAskForAreBounded) {
  api::Subscribe subscribe;
  subscribe.set_caller("web/nobody");  // Also those that are answered by a refusal are kept.
  const auto ask = [&](const FakeHost& host, std::size_t number) {
    subscribe.set_callee(absl::StrCat("web/f", number));
    return engine_->Subscribe(host.id, subscribe);
  };
  for (std::size_t i = 0; i < kTenantSubscriptionsMax; i += kSubscriptionsMax) {
    const FakeHost& client = AttachClient("web");
    for (std::size_t j = 0; j < kSubscriptionsMax; ++j) ASSERT_TRUE(ask(client, j).ok()) << i + j;
    (void)engine_->TakeOutputs();
  }
  FakeHost& last = AttachClient("web");
  EXPECT_EQ(RefusalOf(ask(last, 0)), Refusal::kSubscriptionLimit);
  EXPECT_TRUE(ask(AttachClient("vision"), 0).ok()) << "another tenant";
  Kill(*hosts_.at("client:1"));
  EXPECT_TRUE(ask(last, 0).ok());
  (void)engine_->TakeOutputs();
}

// Of 400 endpoints elsewhere, all with the longest names that they can have and an engine inside their host.
TEST_F(EngineTest, RouteOfManyLongNamesFitsAMessage) {
  FakeHost& a = Attach("a", "web", {"web/front"});
  AttachRequest request;
  request.session = 1000;
  request.tenant = &tenants_.at("web");
  request.host = absl::StrCat(kEnginePrefix, std::string(63, 'n'), "/", std::string(63, 'h'));
  request.is_client = request.is_engine = true;
  request.inside_of = a.id;
  ASSERT_TRUE(engine_->Attach(request, now_ns_).ok());
  hosts_["engine"] = std::make_unique<FakeHost>();
  hosts_["engine"]->id = request.session;
  api::Mesh mesh;
  for (int i = 0; i < 400; ++i) {
    api::Endpoint& endpoint = *mesh.add_endpoints();
    endpoint.set_function("web/far");
    endpoint.set_node(absl::StrCat("node-", i / 15));
    endpoint.set_host(absl::StrCat(std::string(59, 'p'), "-", i));
    api::NodeReport report;
    report.set_node(absl::StrCat(endpoint.node(), "/", endpoint.host()));
    report.set_up(true);
    ASSERT_TRUE(engine_->ReportNode(request.session, report).ok());
  }
  Program(mesh);
  Subscribe(a, "web/front", "web/far");
  Settle();
  const api::Route& route = a.routes.at({"web/front", "web/far"});
  EXPECT_GT(route.targets_size(), 200);
  EXPECT_LT(route.ByteSizeLong(), 60u * 1024);
}

// Each node is one more name for the caller in the table of the node engine, which has to fit one message.
TEST_F(EngineTest, CallersAtNodesThatHaveLeftMakeRoomForThoseAtNodesThatCome) {
  FakeHost& a = Attach("a", "web", {"web/front"});
  FakeHost& engine = AttachNodeEngine();
  Subscribe(a, "web/front", "web/far");
  api::NodeReport report;
  for (int i = 0; i < 2000; ++i) {
    report.set_node(absl::StrCat("passer-by-with-a-name-of-some-length-", i));
    report.set_up(true);
    ASSERT_TRUE(engine_->ReportNode(engine.id, report).ok());
    api::Mesh mesh;
    api::Endpoint& endpoint = *mesh.add_endpoints();
    endpoint.set_function("web/far");
    endpoint.set_node(report.node());
    endpoint.set_host("b");
    Program(mesh);
    Settle();
    ASSERT_EQ((a.routes[{"web/front", "web/far"}].targets_size()), 1) << report.node();
    ASSERT_EQ(engine.access.size(), 1u);
    ASSERT_LE(engine.access.begin()->second.size(), 2u) << report.node();
    report.set_up(false);
    ASSERT_TRUE(engine_->ReportNode(engine.id, report).ok());
  }
}

TEST_F(EngineTest, LimitsOfHostsFunctionsAndChannelsHold) {
  tenants_["web"].limits.hosts = 2;
  tenants_["web"].limits.functions = 3;
  tenants_["web"].limits.channels = 1;
  FakeHost& a = Attach("a", "web", {"web/1", "web/2"});
  Attach("b", "vision", {"vision/1"});
  Attach("c", "vision", {"vision/2"});
  api::Hello hello;
  hello.set_host("d");
  hello.add_serves("web/3");
  hello.add_serves("web/4");
  EXPECT_EQ(RefusalOf(TryAttach("d", "web", hello)), Refusal::kFunctionLimit);
  Attach("e", "web");
  hello.clear_serves();
  hello.set_host("f");
  EXPECT_EQ(RefusalOf(TryAttach("f", "web", hello)), Refusal::kHostLimit);
  api::Mesh mesh;
  AddAllow(&mesh, "web/*", "vision/*");
  Program(mesh);
  Subscribe(a, "web/1", "vision/1");
  Settle();
  Subscribe(a, "web/1", "vision/2");
  Settle();
  EXPECT_EQ(TargetsAt(a, "web/1", "vision/1"), Hosts{"b"});
  EXPECT_EQ((a.routes[{"web/1", "vision/2"}].code()), kUnavailable);
  EXPECT_THAT((a.routes[{"web/1", "vision/2"}].reason()), testing::HasSubstr("limit of channels"));
}

TEST_F(EngineTest, LimitOfBytesBoundsChannelMemory) {
  tenants_["web"].limits.bytes = 4 * 1024 * 1024;  // Half of it: one side memory of 1 MiB and a bit.
  FakeHost& a = Attach("a", "web", {"web/1"});
  Attach("b", "vision", {"vision/1"});
  Attach("c", "vision", {"vision/2"});
  api::Mesh mesh;
  AddAllow(&mesh, "web/*", "vision/*");
  Program(mesh);
  Subscribe(a, "web/1", "vision/1");
  Subscribe(a, "web/1", "vision/2");
  Settle();
  EXPECT_EQ(a.channels.size(), 1u);
}

// What streams in may take half of the tenant's bytes, shared out among all its processes.
TEST_F(EngineTest, MemoryForStreamsIsSharedOutAmongHostsAndClients) {
  TenantLimits& limits = tenants_["web"].limits;
  limits.bytes = uint64_t{8} << 30;
  limits.hosts = 4;
  limits.clients = 12;
  FakeHost& host = Attach("a", "web", {"web/front"});
  FakeHost& client = AttachClient("web");
  Settle();
  EXPECT_EQ(host.welcome.reassembly_bytes_max(), 256u << 20);
  EXPECT_EQ(client.welcome.reassembly_bytes_max(), 256u << 20);
  limits.bytes = 1u << 20;
  FakeHost& second = Attach("b", "web", {"web/other"});
  Settle();
  // Whoever begins as many of the longest messages as it may leaves room for one of another's.
  const uint64_t longest = second.welcome.message_bytes_max();
  ByteBudget budget(second.welcome.reassembly_bytes_max());
  uint64_t held = 0;
  while (budget.TryCharge(longest, held)) held += longest;
  EXPECT_GT(held, 0u);
  EXPECT_TRUE(budget.TryCharge(longest, 0));
}

}  // namespace
}  // namespace weft::agent::test
