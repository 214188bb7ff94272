// SPDX-License-Identifier: Apache-2.0
// Calls that are not answered take no more of the engines' records than are left over for other tenants and
// other nodes.
#include <gmock/gmock.h>

#include <deque>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "tests/dataplane/engine/two_nodes.h"
#include "tests/support/process.h"

namespace weft::engine::test {
namespace {

using testing::HasSubstr;
using weft::test::Eventually;

// demo/echo on host b and demo/other on host e of n2, which another tenant has, take calls and answer none;
// demo/well answers. web/front on host a of n1 may call all three, and weftctl there demo/well.
class SharesTest : public TwoNodesTest {
 protected:
  explicit SharesTest(const NodeEngineOptions& first = {}, const NodeEngineOptions& second = {})
      : TwoNodesTest(first, second),
        b_(std::make_unique<ServingHost>(
            nodes_[1].run_dir(), "b",
            Functions{{"demo/echo", [this](ServerCall& call) { Keep(call, &kept_b_); }}, {"demo/well", Echo}},
            [this] { kept_b_.clear(); })),
        e_(std::make_unique<ServingHost>(
            nodes_[1].run_dir(), "e",
            Functions{{"demo/other", [this](ServerCall& call) { Keep(call, &kept_e_); }}},
            [this] { kept_e_.clear(); })),
        front_(nodes_[0].run_dir(), "a", "web/front") {
    api::Mesh mesh = CommonMesh();
    for (const char* name : {"demo/other", "demo/well"}) {
      mesh.add_functions()->set_name(name);
      AddEndpoint(&mesh, name, "n2", name == std::string("demo/other") ? "e" : "b");
      AddAllow(&mesh, "web/front", name);
    }
    for (api::Function& function : *mesh.mutable_functions()) function.mutable_policy()->set_retries(0);
    AddAllow(&mesh, "ops/*", "demo/well");
    for (api::Node& node : *mesh.mutable_nodes()) node.add_call_as("ops");
    ProgramBoth(mesh);
    Connect();
    WaitForRoutes();
  }

  // Until front's routes lead to n2, where that was not reachable.
  void WaitForRoutes() {
    EXPECT_TRUE(Eventually([this] {
      return front_.client->Call(front_.Resolve("demo/well"), "x", {.timeout = absl::Seconds(1)}).ok();
    }));
  }

  // Begins `count` calls, and returns once all of them have been taken there or refused.
  void Begin(const std::string& callee, int count) {
    const absl::StatusOr<Function> function = front_.client->Resolve(callee, front_.caller);
    ASSERT_TRUE(function.ok()) << function.status();
    const int before = begun_ + static_cast<int>(refused_.size());
    for (int i = 0; i < count; ++i) {
      const auto done = [](void* self, const CallResult& result) {
        if (result.code == absl::StatusCode::kResourceExhausted)
          static_cast<SharesTest*>(self)->refused_.emplace_back(result.text);
      };
      ASSERT_TRUE(
          front_.client
              ->CallAsync(*function, {}, rooms_.emplace_back(), done, this, {.timeout = absl::Seconds(100)})
              .ok());
    }
    EXPECT_TRUE(Eventually([&] {
      front_.client->Poll();
      return begun_ + static_cast<int>(refused_.size()) == before + count;
    })) << begun_
        << " begun, " << refused_.size() << " refused";
  }
  // What weftctl gets on n1, whose tenant has no other calls.
  absl::Status CallAsAdmin() {
    auto mesh = Mesh::Create({.run_dir = nodes_[0].run_dir(), .call_as = "ops", .admin = true});
    if (!mesh.ok()) return mesh.status();
    if (absl::Status attached = (*mesh)->Attach(); !attached.ok()) return attached;
    Client client(**mesh);
    const absl::StatusOr<Function> function = client.ResolveLazily("demo/well");
    if (!function.ok()) return function.status();
    return client.Call(*function, "x", {.timeout = absl::Seconds(2)}).status();
  }
  uint32_t InUse(int node) {
    uint32_t count = 0;
    OnWire([&] {
      const NodeEngine& engine = *nodes_[node].engine;
      count = node == 0 ? engine.outbound_in_use() : engine.inbound_in_use();
    });
    return count;
  }

  std::vector<std::string> refused_;  // Their texts.
  std::atomic<int> begun_{0};

 private:
  using Functions = std::vector<std::pair<std::string, ServingHost::Handler>>;
  void Keep(ServerCall& call, std::vector<DeferredCall>* kept) {
    ++begun_;
    kept->push_back(call.Defer());
  }

  std::deque<std::array<std::byte, 8>> rooms_;
  std::vector<DeferredCall> kept_b_, kept_e_;
  std::unique_ptr<ServingHost> b_, e_;
  CallingHost front_;
};

NodeEngineOptions WithSlots(uint32_t slots) {
  NodeEngineOptions options;
  options.transport.slots_per_peer = slots;
  return options;
}

NodeEngineOptions WithCalls(uint32_t calls) {
  NodeEngineOptions options;
  options.calls_max = calls;
  return options;
}

class FewSlotsTest : public SharesTest {
 protected:
  FewSlotsTest() : SharesTest(WithSlots(8), WithSlots(8)) {}
};

TEST_F(FewSlotsTest, ATenantTakesHalfTheSlotsOfANodeAndLeavesTheRestToOthers) {
  Begin("demo/echo", 10);
  EXPECT_EQ(begun_, 4);
  ASSERT_EQ(refused_.size(), 6u);
  EXPECT_THAT(refused_[0], HasSubstr("calls of this tenant to node n2"));
  EXPECT_EQ(CountersOf(0).refused_share, 6u);
  EXPECT_TRUE(CallAsAdmin().ok()) << CallAsAdmin();
  // Where a call ends, the next has its slot.
  OnWire([this] { nodes_[0].engine->DeclareDead("n2", session_); });
  EXPECT_TRUE(Eventually([this] { return InUse(0) == 0; }));
  WaitForRoutes();
  Begin("demo/echo", 4);
  EXPECT_EQ(refused_.size(), 6u);
}

class FewOutboundTest : public SharesTest {
 protected:
  FewOutboundTest() : SharesTest(WithCalls(8)) {}
};

TEST_F(FewOutboundTest, ATenantTakesHalfTheRecordsOfCallsToOtherNodes) {
  Begin("demo/echo", 8);
  EXPECT_EQ(begun_, 4);
  EXPECT_EQ(InUse(0), 4u);
  EXPECT_EQ(CountersOf(0).refused_share, 4u);
  EXPECT_TRUE(CallAsAdmin().ok()) << CallAsAdmin();
  // Where a call ends, the next has its record.
  OnWire([this] { nodes_[0].engine->DeclareDead("n2", session_); });
  EXPECT_TRUE(Eventually([this] { return InUse(0) == 0; }));
  WaitForRoutes();
  Begin("demo/echo", 4);
  EXPECT_EQ(refused_.size(), 4u);
}

class FewInboundTest : public SharesTest {
 protected:
  FewInboundTest() : SharesTest({}, WithCalls(8)) {}
};

TEST_F(FewInboundTest, ANodeAndTheFunctionsOfATenantTakeNoMoreRecordsThanAreLeftForOthers) {
  Begin("demo/echo", 2);
  Begin("demo/other", 2);
  EXPECT_EQ(InUse(1), 4u);
  Begin("demo/echo", 1);  // Its tenant has two of eight, the node that calls four.
  ASSERT_EQ(refused_.size(), 1u);
  EXPECT_THAT(refused_[0], HasSubstr("from node n1 to demo/echo"));
  EXPECT_EQ(CountersOf(1).refused_share, 1u);
  // Another node: to n2 the former goes on, and what it called is still being executed.
  ConnectAsFurther();
  WaitForRoutes();
  Begin("demo/echo", 2);  // The second by a tenant that has three of eight, with three left.
  EXPECT_EQ(InUse(1), 5u);
  EXPECT_EQ(refused_.size(), 2u);
  Begin("demo/other", 1);  // This one by a tenant that has two.
  EXPECT_EQ(refused_.size(), 2u);
}

}  // namespace
}  // namespace weft::engine::test
