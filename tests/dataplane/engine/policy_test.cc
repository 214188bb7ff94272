// SPDX-License-Identifier: Apache-2.0
// The routing policy of a function whose endpoints are on two nodes: the caller's host decides, the node
// engine obeys, and the other node adds nothing of its own.
#include <gmock/gmock.h>

#include <algorithm>
#include <deque>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/dataplane/agent/server_fixture.h"
#include "tests/dataplane/engine/two_nodes.h"
#include "tests/support/process.h"

namespace weft::engine::test {
namespace {

using weft::test::Eventually;

// Serves demo/echo; answers are late, or errors, as told. Late ones hold up no other.
class FickleHost {
 public:
  FickleHost(const std::string& run_dir, const std::string& name) : name_(name) {
    auto mesh = Mesh::Create({.run_dir = run_dir, .host = name});
    WEFT_CHECK(mesh.ok());
    mesh_ = *std::move(mesh);
    server_ = std::make_unique<Server>(*mesh_);
    WEFT_CHECK(server_->Register("demo/echo", [this](ServerCall& call) { Handle(call); }).ok());
    WEFT_CHECK(mesh_->Attach().ok());
    thread_ = std::thread([this] { Serve(); });
  }
  ~FickleHost() {
    stop_.store(true);
    thread_.join();
  }

  std::atomic<uint64_t> executions{0};
  std::atomic<uint32_t> late_every{0};  // Of so many calls one is late; 0: none.
  std::atomic<uint64_t> late_ns{20 * kNsPerMs};
  std::atomic<absl::StatusCode> code{absl::StatusCode::kOk};

 private:
  struct Late {
    uint64_t due_ns;
    DeferredCall call;
  };

  void Handle(ServerCall& call) {
    const uint64_t nth = executions.fetch_add(1) + 1;
    if (code.load() != absl::StatusCode::kOk) return call.ReplyError(absl::Status(code.load(), name_));
    if (late_every.load() == 0 || nth % late_every.load() != 0) return call.Reply(name_);
    late_.push_back({NowNs() + late_ns.load(), call.Defer()});
  }
  void Serve() {
    Client client(*mesh_);
    while (!stop_.load()) {
      client.Wait(absl::Milliseconds(1));
      while (!late_.empty() && late_.front().due_ns <= NowNs()) {
        late_.front().call.Reply(std::as_bytes(std::span(name_)));
        late_.pop_front();
      }
    }
    late_.clear();
  }

  const std::string name_;
  std::unique_ptr<Mesh> mesh_;
  std::unique_ptr<Server> server_;
  std::deque<Late> late_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

class NodePolicyTest : public TwoNodesTest {
 protected:
  // demo/echo on hosts c and d of n1 and b of n2, as far as `weights` are not 0, called by web/front on n1.
  static api::Mesh MeshOf(const api::Policy& policy, uint32_t c, uint32_t d, uint32_t b) {
    api::Mesh mesh = CommonMesh();
    mesh.mutable_endpoints()->DeleteSubrange(1, 1);
    *mesh.mutable_functions(1)->mutable_policy() = policy;
    const auto add = [&](const char* node, const char* host, uint32_t weight) {
      if (weight == 0) return;
      AddEndpoint(&mesh, "demo/echo", node, host);
      mesh.mutable_endpoints(mesh.endpoints_size() - 1)->set_weight(weight);
    };
    add("n1", "c", c);
    add("n1", "d", d);
    add("n2", "b", b);
    return mesh;
  }
  static api::Policy Anywhere() {
    api::Policy policy;
    policy.set_any_locality(true);
    return policy;
  }
  void Begin(const api::Mesh& mesh, std::size_t targets) {
    ProgramBoth(mesh);
    Connect();
    front_ = std::make_unique<CallingHost>(nodes_[0].run_dir(), "a", "web/front");
    function_ = front_->Resolve("demo/echo");
    // Resolved lazily: the first call brings the route, and what is not ready yet comes with the next.
    EXPECT_TRUE(Eventually([&] {
      (void)Call();
      return RoutedTo() == targets;
    })) << RoutedTo();
  }
  std::size_t RoutedTo() {
    agent::test::AdminPeer admin(nodes_[0].run_dir() + "/admin.sock");
    for (const api::Item& item : admin.Ask(api::Query::ROUTES)) {
      if (agent::test::Field(item, "callee") != "demo/echo") continue;
      const std::string to = agent::test::Field(item, "to");
      return to.empty() ? 0 : 1 + static_cast<std::size_t>(std::count(to.begin(), to.end(), ','));
    }
    return 0;
  }
  absl::StatusOr<std::string> Call() { return front_->client->Call(function_, "x", kPatient); }
  // Calls one after the other; how long each took, in rising order.
  std::vector<uint64_t> Run(int calls) {
    std::vector<uint64_t> latencies;
    for (int i = 0; i < calls; ++i) {
      const uint64_t begun_ns = NowNs();
      EXPECT_TRUE(Call().ok());
      latencies.push_back(NowNs() - begun_ns);
    }
    std::sort(latencies.begin(), latencies.end());
    return latencies;
  }

  std::unique_ptr<CallingHost> front_;
  Function function_;
};

TEST_F(NodePolicyTest, ASplitOfNinetyToTenGoesAcrossNodes) {
  FickleHost c(nodes_[0].run_dir(), "c"), b(nodes_[1].run_dir(), "b");
  Begin(MeshOf(Anywhere(), 900, 0, 100), 2);
  const uint64_t before = b.executions;
  constexpr int kCalls = 10'000;
  Run(kCalls);
  EXPECT_GE(b.executions - before, kCalls * 9u / 100);
  EXPECT_LE(b.executions - before, kCalls * 11u / 100);
}

TEST_F(NodePolicyTest, TheNearestServesAloneAndWhereItDiesTheFarOneDoesUntilItIsBack) {
  auto c = std::make_unique<FickleHost>(nodes_[0].run_dir(), "c");
  FickleHost b(nodes_[1].run_dir(), "b");
  api::Policy policy;
  policy.set_idempotent(true);
  Begin(MeshOf(policy, 100, 0, 100), 2);
  const uint64_t before = b.executions;
  Run(500);
  EXPECT_EQ(b.executions, before) << "the far one stands by";
  c.reset();
  Run(500);
  EXPECT_GE(b.executions, before + 500);
  c = std::make_unique<FickleHost>(nodes_[0].run_dir(), "c");
  EXPECT_TRUE(Eventually([&] {
    const absl::StatusOr<std::string> answer = Call();
    EXPECT_TRUE(answer.ok()) << answer.status();
    return answer.ok() && *answer == "c";
  }));
}

TEST_F(NodePolicyTest, ANodeThatFailsEveryCallIsEjectedAndReturnsAfterAProbe) {
  FickleHost c(nodes_[0].run_dir(), "c"), d(nodes_[0].run_dir(), "d"), b(nodes_[1].run_dir(), "b");
  api::Policy policy = Anywhere();
  policy.set_outlier_failures(5);
  policy.set_outlier_eject_ns(300 * kNsPerMs);
  Begin(MeshOf(policy, 100, 100, 100), 3);
  b.code = absl::StatusCode::kInternal;
  const uint64_t before = b.executions;
  int failed = 0;
  for (const uint64_t end_ns = NowNs() + 200 * kNsPerMs; NowNs() < end_ns;) failed += !Call().ok();
  EXPECT_GT(failed, 0);
  EXPECT_LE(failed, 10);
  EXPECT_LE(b.executions - before, 10u);
  b.code = absl::StatusCode::kOk;
  EXPECT_TRUE(Eventually([&] {
    for (int i = 0; i < 100; ++i) EXPECT_TRUE(Call().ok());
    return b.executions > before + 100;
  }));
}

TEST_F(NodePolicyTest, WhereAllFailHalfStayAndAttemptsKeepToTheBudgetOverBothNodes) {
  FickleHost c(nodes_[0].run_dir(), "c"), d(nodes_[0].run_dir(), "d"), b(nodes_[1].run_dir(), "b");
  api::Policy policy = Anywhere();
  policy.set_idempotent(true);
  policy.set_retries(5);
  policy.set_retry_budget_percent(20);
  policy.set_outlier_failures(5);
  Begin(MeshOf(policy, 100, 100, 100), 3);
  const uint64_t before = c.executions + d.executions + b.executions;
  c.code = d.code = b.code = absl::StatusCode::kUnavailable;
  constexpr uint64_t kCalls = 1'000;
  for (uint64_t i = 0; i < kCalls; ++i) EXPECT_FALSE(Call().ok());
  const uint64_t attempts = c.executions + d.executions + b.executions - before;
  // The calls that found the route have saved a few.
  EXPECT_LE(attempts, kCalls * 120 / 100 + 20);
  EXPECT_GE(attempts, kCalls * 119 / 100);
}

TEST_F(NodePolicyTest, HedgingAcrossNodesLowersTheTailForSixPercentOfExecutions) {
  FickleHost c(nodes_[0].run_dir(), "c"), d(nodes_[0].run_dir(), "d"), b(nodes_[1].run_dir(), "b");
  api::Policy policy = Anywhere();
  b.late_every = 20;
  constexpr int kCalls = 2'000;
  policy.set_hedge_percentile(95);
  Begin(MeshOf(policy, 100, 100, 100), 3);
  const auto executions = [&] { return c.executions + d.executions + b.executions; };
  uint64_t before = executions();
  const std::vector<uint64_t> plain = Run(kCalls);
  EXPECT_EQ(executions() - before, static_cast<uint64_t>(kCalls)) << "it is not declared idempotent";
  EXPECT_GE(plain[kCalls * 99 / 100], 20 * kNsPerMs);
  policy.set_idempotent(true);
  ProgramBoth(MeshOf(policy, 100, 100, 100));
  // On an idle machine the tail falls six to nine times, as printed. Half of it is what one good run of three
  // shows on any: without hedges it does not fall at all.
  bool lowered = false;
  for (int run = 0; run < 3 && !lowered; ++run) {
    before = executions();
    const std::vector<uint64_t> hedged = Run(kCalls);
    const uint64_t extra = executions() - before - kCalls;
    EXPECT_GT(extra, 10u);
    EXPECT_LE(extra, kCalls * 6u / 100);
    lowered = hedged[kCalls * 99 / 100] * 2 <= plain[kCalls * 99 / 100];
    std::printf("p99 %.2f ms, hedged %.2f ms, executions %.3f x calls\n",
                static_cast<double>(plain[kCalls * 99 / 100]) / 1e6,
                static_cast<double>(hedged[kCalls * 99 / 100]) / 1e6,
                1 + static_cast<double>(extra) / kCalls);
  }
  EXPECT_TRUE(lowered);
  // All are slow: hedges do not help, and stop at their budget.
  for (FickleHost* host : {&c, &d, &b}) {
    host->late_ns = 4 * kNsPerMs;
    host->late_every = 1;
  }
  before = executions();
  Run(400);
  EXPECT_LE(executions() - before, 400u * 105 / 100 + 100) << "a hundred at most were saved before";
}

}  // namespace
}  // namespace weft::engine::test
