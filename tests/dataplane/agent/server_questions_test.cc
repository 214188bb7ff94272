// SPDX-License-Identifier: Apache-2.0
// What the agent answers an operator about hosts, functions, channels and routes, over real sockets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/dataplane/agent/server_fixture.h"

namespace weft::agent::test {
namespace {

using testing::HasSubstr;

TEST_F(ServerTest, FunctionsAreListedWithWhatTheirOwnHostsTell) {
  Start();
  ConnectBystanders();
  const auto told = [](const std::string& function, uint64_t calls) {
    api::FunctionStats stats;
    stats.set_function(function);
    stats.set_calls(calls);
    stats.set_memory_bytes(65'536);
    return stats;
  };
  front_->function_stats() = {told("web/back", 1'000)};  // Not its own
  back_->function_stats() = {told("web/back", 3), told("web/back", 7), told("web/0", 2)};
  WhileObeying(*front_, [&] {
    WhileObeying(*back_, [&] {
      AdminPeer admin(admin_sock());
      const std::vector<api::Item> all = admin.Ask(api::Query::FUNCTIONS);
      ASSERT_EQ(all.size(), 3u);
      EXPECT_EQ(Field(all[0], "function"), "web/0");
      EXPECT_EQ(Field(all[0], "calls"), "2");
      EXPECT_EQ(Field(all[1], "calls"), "7");  // What it said last, once
      EXPECT_EQ(Field(all[1], "memory_bytes"), "65536");
      EXPECT_EQ(Field(all[2], "calls"), "0");
      EXPECT_EQ(Field(all[2], "counters"), "current");
    });
  });
  // Nobody else is asked where one function is: the host that does not answer delays nothing, and is not
  // needed.
  WhileObeying(*back_, [&] {
    AdminPeer admin(admin_sock());
    const std::vector<api::Item> one = admin.Ask(api::Query::FUNCTIONS, {"web/0"});
    ASSERT_EQ(one.size(), 1u);
    EXPECT_EQ(Field(one[0], "calls"), "2");
    const std::vector<api::Item> all = admin.Ask(api::Query::FUNCTIONS);
    ASSERT_EQ(all.size(), 3u);
    EXPECT_EQ(Field(all[1], "counters"), "current");
    EXPECT_EQ(Field(all[2], "counters"), "not answered");
  });
}

TEST_F(ServerTest, HostsChannelsAndRoutesAreListedWithTheirCounters) {
  Start();
  ConnectBystanders();
  WhileObeying(*front_, [&] {
    WhileObeying(*back_, [&] {
      AdminPeer admin(admin_sock());
      const std::vector<api::Item> hosts = admin.Ask(api::Query::HOSTS);
      ASSERT_EQ(hosts.size(), 2u);
      EXPECT_EQ(Field(hosts[0], "host"), "a");
      EXPECT_EQ(Field(hosts[0], "calls"), "42");
      EXPECT_EQ(Field(hosts[0], "counters"), "current");
      const std::vector<api::Item> channels = admin.Ask(api::Query::CHANNELS);
      ASSERT_EQ(channels.size(), 2u);
      EXPECT_EQ(Field(channels[0], "state"), "open");
      const std::vector<api::Item> routes = admin.Ask(api::Query::ROUTES);
      ASSERT_EQ(routes.size(), 1u);
      EXPECT_EQ(Field(routes[0], "to"), "b*100");
      EXPECT_EQ(admin.Ask(api::Query::FUNCTIONS).size(), 3u);
      EXPECT_EQ(Field(admin.Ask(api::Query::NODES).at(0), "node"), "n1");
      EXPECT_THAT(Field(admin.Explain("web/front", "web/back").at(0), "path"), HasSubstr("hosts a and b"));
      EXPECT_THAT(Field(admin.Explain("web", "web/back").at(0), "path"), HasSubstr("a client and host b"));
    });
  });
}

TEST_F(ServerTest, HostThatDoesNotAnswerTheQuestionIsListedWithoutItsCounters) {
  Start();
  ConnectBystanders();
  WhileObeying(*front_, [&] {
    AdminPeer admin(admin_sock());
    const std::vector<api::Item> hosts = admin.Ask(api::Query::HOSTS);
    ASSERT_EQ(hosts.size(), 2u);
    EXPECT_EQ(Field(hosts[1], "counters"), "not answered");
  });
}

// As many functions as a tenant may serve, with names that together are longer than any message.
TEST_F(ServerTest, HostOfManyFunctionsIsToldOfInSeveralMessages) {
  Start();
  std::vector<std::string> names;
  for (int i = 0; i < 1024; ++i) names.push_back(absl::StrCat("web/", std::string(59, 'f'), 1000 + i));
  Peer peer(agent_sock());
  ASSERT_TRUE(peer.Hello("c", {names.begin(), names.begin() + 800}));
  for (std::size_t i = 800; i < names.size(); ++i) {
    api::FromHost report;
    report.mutable_function_report()->set_function(names[i]);
    peer.Send(report);
  }
  std::set<std::string> told;
  ASSERT_TRUE(peer.PumpUntil([&] {
    AdminPeer admin(admin_sock());
    told.clear();
    admin.set_on_registrations([&](const api::Registrations& part) {
      for (const api::Registrations::Host& host : part.hosts()) {
        EXPECT_EQ(host.name(), "c");
        told.insert(host.serves().begin(), host.serves().end());
      }
    });
    return admin.Ask(api::Query::STATUS).size() == 1 && told.size() == names.size();
  }));
  AdminPeer admin(admin_sock());
  std::vector<api::Item> hosts;
  std::thread ask([&] { hosts = admin.Ask(api::Query::HOSTS); });
  bool done = false;
  std::thread pump([&] { peer.PumpUntil([&] { return __atomic_load_n(&done, __ATOMIC_ACQUIRE); }); });
  ask.join();
  __atomic_store_n(&done, true, __ATOMIC_RELEASE);
  pump.join();
  ASSERT_EQ(hosts.size(), 1u);
  EXPECT_THAT(Field(hosts[0], "functions"), HasSubstr("(cut)"));
  EXPECT_EQ(Field(hosts[0], "channels"), "0");
}

// More than what may wait for a peer that is not trusted.
TEST_F(ServerTest, OperatorGetsAllRowsOfALongAnswer) {
  Start();
  Peer peer(agent_sock());
  ASSERT_TRUE(peer.Hello("c", {"web/mine"}));
  constexpr std::size_t kRoutes = 6000;
  for (std::size_t i = 0; i < kRoutes;) {
    // Of a caller that it is not: answered at once, without a round.
    for (const std::size_t end = i + 200; i < end; ++i)
      peer.Subscribe("web/nobody", absl::StrCat("web/", std::string(50, 'f'), i));
    ASSERT_TRUE(peer.PumpUntil([&] { return peer.routes().size() == i; }));
  }
  AdminPeer admin(admin_sock());
  EXPECT_EQ(admin.Ask(api::Query::ROUTES).size(), kRoutes);
}

}  // namespace
}  // namespace weft::agent::test
