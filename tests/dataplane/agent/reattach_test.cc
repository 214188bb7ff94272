// SPDX-License-Identifier: Apache-2.0
// A new agent and hosts that outlived the last one: what they hold is kept where both ends claim it and
// today's policy allows it, and nothing else.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "dataplane/channel/layout.h"
#include "tests/dataplane/agent/engine_fixture.h"

namespace weft::agent::test {
namespace {

using Hosts = std::set<std::string>;

class ReattachTest : public EngineTest {
 protected:
  // web/front on a calls vision/scale on b by a rule, and they have a channel.
  ReattachTest() {
    FakeHost& a = Attach("a", "web", {"web/front"});
    Attach("b", "vision", {"vision/scale"});
    api::Mesh mesh;
    AddAllow(&mesh, "web/*", "vision/*");
    Program(mesh);
    Subscribe(a, "web/front", "vision/scale");
    Settle();
    channel_ = *a.channels.begin();
    index_ = a.routes[{"web/front", "vision/scale"}].targets(0).caller_index();
  }
  FakeHost& host(const std::string& name) { return *hosts_.at(name); }
  void Reattach(const std::string& name, const std::string& tenant) {
    Attach(name, tenant, HelloOf(host(name)));
  }

  ChannelId channel_;
  uint32_t index_ = 0;
};

TEST_F(ReattachTest, ChannelThatBothEndsHoldIsKeptWithItsIndices) {
  RestartAgent();
  Reattach("a", "web");
  Settle();
  EXPECT_EQ(host("a").welcome.keep_channels_size(), 1);
  Reattach("b", "vision");
  Settle();
  EXPECT_EQ(host("b").welcome.keep_channels_size(), 1);
  EXPECT_TRUE(host("b").access[channel_].contains(index_))
      << "calls by the old route are permitted before it is told anew";
  Subscribe(host("a"), "web/front", "vision/scale");
  Settle();
  const api::Route& route = host("a").routes[{"web/front", "vision/scale"}];
  ASSERT_EQ(route.targets_size(), 1);
  EXPECT_EQ(route.targets(0).channel(), channel_);
  EXPECT_EQ(route.targets(0).caller_index(), index_);
  Pass(2 * kNsPerSecond);
  EXPECT_TRUE(host("a").closed.empty());
  EXPECT_TRUE(host("b").closed.empty());
}

// The settings have changed meanwhile: the channel has the size that it was made with.
TEST_F(ReattachTest, ChannelIsChargedByItsOwnSize) {
  const uint32_t made_with = tenants_["web"].limits.arena_bytes;
  for (auto& [name, tenant] : tenants_) tenant.limits.arena_bytes = 4 * made_with;
  RestartAgent();
  Reattach("a", "web");
  Reattach("b", "vision");
  Settle();
  ASSERT_EQ(engine_->state().channels.size(), 1u);
  EXPECT_EQ(engine_->state().channels.at(channel_).arena_bytes, made_with);
  for (const auto& [tenant, usage] : engine_->state().usage) {
    EXPECT_EQ(usage.bytes, SideMemoryBytes(made_with)) << tenant->name;
  }
}

TEST_F(ReattachTest, ChannelOfAnImpossibleSizeOrOfTwoIsClosed) {
  const uint32_t sizes[][2] = {{4096, 8192}, {0, 4096}, {5000, 5000}, {1u << 31, 1u << 31}, {1, 1}};
  for (const auto& [at_a, at_b] : sizes) {
    RestartAgent();
    for (const std::string name : {"a", "b"}) {
      host(name).channels = {channel_};
      host(name).closed.clear();
      host(name).arenas[channel_] = name == "a" ? at_a : at_b;
    }
    Reattach("a", "web");
    Reattach("b", "vision");
    Settle();
    EXPECT_TRUE(host("a").closed.contains(channel_)) << at_a;
    EXPECT_EQ(host("b").welcome.keep_channels_size(), 0) << at_a;
    EXPECT_TRUE(engine_->state().channels.empty()) << at_a;
    for (const auto& [tenant, usage] : engine_->state().usage) EXPECT_EQ(usage.bytes, 0u) << at_a;
  }
}

TEST_F(ReattachTest, NothingIsRoutedAwayFromAHostThatHasNotComeBackYet) {
  RestartAgent();
  Reattach("a", "web");
  Subscribe(host("a"), "web/front", "vision/scale");
  Pass(400 * kNsPerMs);
  EXPECT_EQ(TargetsAt(host("a"), "web/front", "vision/scale"), Hosts{"b"});
  Reattach("b", "vision");
  Settle();
  EXPECT_EQ(TargetsAt(host("a"), "web/front", "vision/scale"), Hosts{"b"});
  EXPECT_TRUE(host("a").closed.empty());
}

TEST_F(ReattachTest, ChannelWhoseOtherEndStaysAwayIsClosedWithinASecond) {
  RestartAgent();
  Reattach("a", "web");
  Subscribe(host("a"), "web/front", "vision/scale");
  Pass(kNsPerSecond - kNsPerMs);
  EXPECT_TRUE(host("a").closed.contains(channel_));
  EXPECT_EQ((host("a").routes[{"web/front", "vision/scale"}].code()), 5u);
}

TEST_F(ReattachTest, TimeThatTheAgentLostIsLeftToHostsThatHaveYetToComeBack) {
  RestartAgent();
  Reattach("a", "web");
  Subscribe(host("a"), "web/front", "vision/scale");
  Pass(400 * kNsPerMs);
  now_ns_ += 2 * kNsPerSecond;
  engine_->Excuse(2 * kNsPerSecond, now_ns_);
  Pass(400 * kNsPerMs);
  EXPECT_EQ(TargetsAt(host("a"), "web/front", "vision/scale"), Hosts{"b"});
  Reattach("b", "vision");
  Settle();
  EXPECT_EQ(host("b").welcome.keep_channels_size(), 1);
  EXPECT_EQ(TargetsAt(host("a"), "web/front", "vision/scale"), Hosts{"b"});
  EXPECT_TRUE(host("a").closed.empty());
}

// What one end has closed meanwhile, or does not hold any more, is not waited for.
TEST_F(ReattachTest, ChannelThatItsHolderClosesHoldsNobodyUp) {
  const api::Hello hello = HelloOf(host("a"));
  for (const bool reports : {true, false}) {
    RestartAgent();
    host("a").channels = {channel_};
    host("a").closed.clear();
    Attach("a", "web", hello);
    Subscribe(host("a"), "web/front", "vision/scale");
    Pass(100 * kNsPerMs);
    if (reports) {
      host("a").channels.clear();
      api::ChannelClosed closed;
      closed.set_id(channel_);
      ASSERT_TRUE(engine_->ChannelClosed(host("a").id, closed, now_ns_).ok());
    }
    Attach("b", "vision", {"vision/scale"});  // Another process.
    Settle();
    EXPECT_EQ(host("a").closed.contains(channel_), !reports);
    EXPECT_EQ(TargetsAt(host("a"), "web/front", "vision/scale"), Hosts{"b"});
    EXPECT_FALSE(host("a").channels.contains(channel_));
    Kill(host("b"));
  }
}

// Names of clients are new with each agent: that of one may be what another had.
TEST_F(ReattachTest, ChannelOfAClientIsKeptThoughAnotherHasItsFormerName) {
  FakeHost& client = AttachClient("vision");
  const std::string former = client.name;
  Subscribe(client, "vision", "vision/scale");
  Settle();
  ASSERT_EQ(client.channels.size(), 1u);
  const ChannelId channel = *client.channels.begin();
  api::Hello hello = HelloOf(client);
  hello.clear_host();
  const api::Hello host_hello = HelloOf(host("b"));
  RestartAgent();
  ASSERT_TRUE(TryAttach(former, "vision", api::Hello()).ok());
  auto moved = hosts_.extract(former);
  moved.key() = "client:again";
  hosts_.insert(std::move(moved));
  Attach("b", "vision", host_hello);
  Reattach("a", "web");
  Attach("client:again", "vision", hello);
  Settle();
  EXPECT_THAT(host("b").welcome.keep_channels(), testing::Contains(channel));
  EXPECT_THAT(host("client:again").welcome.keep_channels(), testing::Contains(channel));
  EXPECT_TRUE(engine_->state().channels.contains(channel));
}

TEST_F(ReattachTest, ChannelThatTodaysPolicyForbidsIsClosed) {
  saved_ = nullptr;  // The new agent starts without the rule.
  RestartAgent();
  Reattach("a", "web");
  Reattach("b", "vision");
  Settle();
  EXPECT_TRUE(host("a").closed.contains(channel_));
  EXPECT_TRUE(host("b").closed.contains(channel_));
}

TEST_F(ReattachTest, CallerThatDoesNotAskAgainLosesItsPermission) {
  RestartAgent();
  Reattach("a", "web");
  Reattach("b", "vision");
  Settle();
  EXPECT_FALSE(host("b").access[channel_].empty());
  Pass(2 * kNsPerSecond);
  EXPECT_TRUE(host("b").access[channel_].empty());
}

TEST_F(ReattachTest, HostThatWasCutOffFindsNoneOfItsChannelsKept) {
  host("a").deaf = true;
  Attach("c", "vision", {"vision/scale"});
  Pass(2 * kNsPerSecond);
  ASSERT_TRUE(cut_off_.contains("a"));
  EXPECT_TRUE(host("b").closed.contains(channel_));
  host("a").deaf = false;
  host("a").inbox.clear();
  Reattach("a", "web");
  host("a").channels.clear();
  Subscribe(host("a"), "web/front", "vision/scale");
  Settle();
  EXPECT_EQ(host("a").welcome.keep_channels_size(), 0);
  EXPECT_EQ(TargetsAt(host("a"), "web/front", "vision/scale"), (Hosts{"b", "c"}));
  EXPECT_FALSE(host("a").channels.contains(channel_));
}

TEST_F(ReattachTest, StrangerWhoNamesAChannelOfOthersDoesNotGetIt) {
  RestartAgent();
  Reattach("a", "web");
  api::Hello hello;
  hello.set_host("thief");
  api::HeldChannel& held = *hello.add_channels();
  held.set_id(channel_);
  held.set_peer("a");
  FakeHost& thief = Attach("thief", "shop", hello);
  Settle();
  EXPECT_EQ(thief.welcome.keep_channels_size(), 0);
  Reattach("b", "vision");
  Settle();
  EXPECT_EQ(host("b").welcome.keep_channels_size(), 1);
}

TEST_F(ReattachTest, PlacedFunctionThatTheHostBringsAlongStaysRouted) {
  api::Mesh mesh;
  AddAllow(&mesh, "web/*", "vision/*");
  AddEndpoint(&mesh, "vision/scale", "b", 'm');
  Program(mesh);
  Settle();
  ASSERT_TRUE(Acknowledged(generation_));
  RestartAgent();
  Reattach("a", "web");
  Subscribe(host("a"), "web/front", "vision/scale");
  host("b").loads_slowly = true;
  api::Hello hello = HelloOf(host("b"));
  hello.clear_serves();
  hello.add_loaded("vision/scale");
  Attach("b", "vision", hello);
  Settle();
  EXPECT_EQ(TargetsAt(host("a"), "web/front", "vision/scale"), Hosts{"b"});
  EXPECT_EQ(host("b").loading, Hosts{"vision/scale"})
      << "whether it is today's module is for the host to check";
  FinishLoading(host("b"), "vision/scale");
  Settle();
  EXPECT_EQ(TargetsAt(host("a"), "web/front", "vision/scale"), Hosts{"b"});
  EXPECT_TRUE(host("a").closed.empty());
}

TEST_F(ReattachTest, IndexOfAFormerCallerIsNotGivenAgain) {
  RestartAgent();
  api::Hello hello = HelloOf(host("b"));
  hello.mutable_channels(0)->set_index_max(9);
  Reattach("a", "web");
  Attach("b", "vision", hello);
  api::FunctionReport report;
  report.set_function("web/other");
  ASSERT_TRUE(engine_->Report(host("a").id, report).ok());
  Subscribe(host("a"), "web/other", "vision/scale");
  Settle();
  EXPECT_EQ((host("a").routes[{"web/other", "vision/scale"}].targets(0).caller_index()), 10u);
}

}  // namespace
}  // namespace weft::agent::test
