// SPDX-License-Identifier: Apache-2.0
// Changes of the mesh file under load: moves without a failed call, revocation that takes effect, hosts that
// do not answer.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "dataplane/base/clock.h"
#include "tests/integration/load_run.h"

namespace weft::test {
namespace {

using nlohmann::json;

constexpr int kRate = 5000;

// A mesh in which app/echo has an endpoint on each of `hosts`.
std::string MeshWith(const std::vector<std::string>& hosts, const std::string& more = "") {
  std::string yaml = "version: 1\nnodes: [{name: n1}]\nfunctions: [{name: app/echo}]\nendpoints:\n";
  for (const std::string& host : hosts) {
    absl::StrAppend(&yaml, "  - {function: app/echo, node: n1, host: ", host, "}\n");
  }
  return yaml + more;
}

class MovesTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!Mesh::Privileged()) GTEST_SKIP() << "needs root: each host runs as a user of its own";
    mesh_.SetMesh(MeshWith({"a"}));
    mesh_.StartAgent();
    mesh_.StartControl();
  }

  // The generation that weftd last acknowledged to weft-control.
  int64_t Generation() {
    const json status = json::parse(mesh_.Ctl({"status", "-o", "json"}).output, nullptr, false);
    return status.is_object() ? status.value("generation", int64_t{-1}) : -1;
  }
  // Replaces the mesh file and waits for the acknowledgement.
  void Edit(const std::string& yaml) {
    const int64_t before = Generation();
    mesh_.SetMesh(yaml);
    ASSERT_TRUE(Eventually([&] { return Generation() > before; })) << mesh_.control().Output();
  }

  // When weft-control got the acknowledgement of the newest generation, by CLOCK_MONOTONIC.
  uint64_t AcknowledgedNs() {
    const json status = json::parse(mesh_.Ctl({"status", "-o", "json"}).output, nullptr, false);
    uint64_t newest_ns = 0;
    for (const json& item : status["items"])
      newest_ns = std::max(newest_ns, item.value("programmed_at_ns", uint64_t{0}));
    EXPECT_GT(newest_ns, 0u) << status.dump(1);
    return newest_ns;
  }

  Mesh mesh_{LoadTenants()};
  LoadRun run_{mesh_};
};

TEST_F(MovesTest, MovesUnderLoadFailNoCallAndLeaveTheOldHost) {
  Process a = run_.StartServer("a", kUidA, 1);
  Process b = run_.StartServer("b", kUidB, 2);
  Process client = run_.StartClient(6, kRate);
  uint64_t acknowledged_ns = 0;
  for (int round = 0; round < 8; ++round) {
    Edit(MeshWith({round % 2 == 0 ? "b" : "a"}));
    acknowledged_ns = AcknowledgedNs();
    absl::SleepFor(absl::Milliseconds(100));
  }
  const json result = run_.Finish(client);
  EXPECT_EQ(result["ok"], result["started"]) << result.dump(1);
  EXPECT_EQ(run_.Totals().executed_twice, 0u);
  // The last move was to host a (tag 1); no call that started after its acknowledgement ran on b.
  ASSERT_TRUE(result["tags"].contains("2"));
  EXPECT_LT(result["tags"]["2"]["last_start_ns"].get<uint64_t>(), acknowledged_ns);
  EXPECT_GT(result["tags"]["1"]["last_start_ns"].get<uint64_t>(), acknowledged_ns);
}

// A thousand moves between two hosts of guests, each of which has the module loaded, while calls go on at a
// steady 10,000 a second, open loop. Every answer is checked; no call that started after the acknowledgement
// of a move, and before the next edit, was answered by the host that the function had left.
TEST_F(MovesTest, ThousandMovesUnderLoadFailNoCallAndAreInForceOnceAcknowledged) {
  constexpr int kMoves = 1000;
  run_.WithoutLedger();
  Process a = run_.StartGuestHost("a", kUidA, 1);
  Process b = run_.StartGuestHost("b", kUidB, 2);
  WriteFile(mesh_.path("starts"), "");
  ASSERT_EQ(chmod(mesh_.path("starts").c_str(), 0666), 0);
  Process client = run_.StartClient(600, 10'000, {"--starts", mesh_.path("starts")});

  struct Move {
    uint64_t edited_ns, programmed_ns;
    uint32_t tag;
  };
  std::vector<Move> moves;
  std::vector<double> times_us;
  ASSERT_TRUE(Eventually([&] { return NewestChange(mesh_.run_dir()).has_value(); }));
  uint64_t generation = NewestChange(mesh_.run_dir())->generation;
  for (int i = 0; i < kMoves; ++i) {
    const uint32_t tag = i % 2 == 0 ? 2 : 1;
    const uint64_t edited_ns = NowNs();
    mesh_.SetMesh(MeshWith({tag == 2 ? "b" : "a"}));
    absl::SleepFor(absl::Milliseconds(10));
    std::optional<ProgrammedChange> change;
    ASSERT_TRUE(Eventually([&] {
      change = NewestChange(mesh_.run_dir());
      return change.has_value() && change->generation > generation && change->programmed_ns != 0;
    })) << mesh_.control().Output();
    generation = change->generation;
    moves.push_back({edited_ns, change->programmed_ns, tag});
    times_us.push_back(change->event_to_programmed_us);
    absl::SleepFor(absl::Milliseconds(5));
  }
  client.Signal(SIGTERM);
  const json result = run_.Finish(client);
  EXPECT_EQ(result["ok"], result["started"]) << result.dump(1);
  EXPECT_EQ(result["wrong"], 0);

  const std::vector<LoadStart> starts = ReadStarts(mesh_.path("starts"));
  EXPECT_EQ(starts.size(), result["ok"].get<std::size_t>());
  uint64_t judged = 0, astray = 0;
  auto start = starts.begin();
  for (std::size_t i = 0; i + 1 < moves.size(); ++i) {
    while (start != starts.end() && start->started_ns <= moves[i].programmed_ns) ++start;
    for (; start != starts.end() && start->started_ns < moves[i + 1].edited_ns; ++start) {
      ++judged;
      astray += start->tag != moves[i].tag ? 1 : 0;
    }
  }
  EXPECT_EQ(astray, 0u) << "of " << judged;
  EXPECT_GT(judged, starts.size() / 4);
  std::sort(times_us.begin(), times_us.end());
  std::printf("moves %zu, calls %zu, judged %lu; event to programmed p50 %.2f ms, p99 %.2f ms, max %.2f ms\n",
              moves.size(), starts.size(), static_cast<unsigned long>(judged), times_us[kMoves / 2] / 1e3,
              times_us[kMoves * 99 / 100] / 1e3, times_us.back() / 1e3);
}

TEST_F(MovesTest, StoppedCallerIsCutOffAndTheMoveIsAcknowledged) {
  Process a = run_.StartServer("a", kUidA, 1);
  Process b = run_.StartServer("b", kUidB, 2);
  Process steady = run_.StartClient(4, kRate / 2);
  Process stopped =
      run_.StartClient(4, kRate / 2, {"--first-id", "1000000", "--timeout-ms", "5000"}, "caller2");
  absl::SleepFor(absl::Milliseconds(300));
  stopped.Signal(SIGSTOP);
  Edit(MeshWith({"b"}));
  const std::optional<ProgrammedChange> change = NewestChange(mesh_.run_dir());
  ASSERT_TRUE(change.has_value());
  std::printf("a move with a stopped caller was acknowledged after %.1f ms\n",
              change->event_to_programmed_us / 1e3);
  absl::SleepFor(absl::Milliseconds(500));
  stopped.Signal(SIGCONT);
  const json result = run_.Finish(steady);
  EXPECT_EQ(result["ok"], result["started"]) << result.dump(1);
  // It attached anew and goes on where the function is now.
  const json after = run_.Finish(stopped);
  EXPECT_TRUE(after["tags"].contains("2")) << after.dump(1);
  EXPECT_EQ(run_.Totals().executed_twice, 0u);
}

// A host that does not run while the agent asks something of it is cut off. Running again it attaches by
// itself, and the next move brings the function back to it.
TEST_F(MovesTest, StoppedGuestHostIsCutOffAttachesAnewAndServesAgain) {
  run_.WithoutLedger();
  Edit(MeshWith({"a", "b"}));
  Process a = run_.StartGuestHost("a", kUidA, 1);
  Process b = run_.StartGuestHost("b", kUidB, 2);
  Process client = run_.StartClient(5, kRate, {"--timeout-ms", "200"});
  absl::SleepFor(absl::Milliseconds(300));
  a.Signal(SIGSTOP);
  // A second caller needs a channel to it.
  Process second = run_.StartClient(1, kRate / 5, {"--first-id", "1000000"}, "caller2");
  absl::SleepFor(absl::Milliseconds(300));
  a.Signal(SIGCONT);
  ASSERT_TRUE(Eventually([&] {
    return a.Output().rfind("attached to node") != a.Output().find("attached to node");
  })) << a.Output();
  Edit(MeshWith({"a"}));
  const uint64_t acknowledged_ns = AcknowledgedNs();
  const json result = run_.Finish(client);
  EXPECT_EQ(result["wrong"], 0);
  for (const auto& [code, count] : result["codes"].items()) {
    EXPECT_TRUE(code == "DEADLINE_EXCEEDED" || code == "UNAVAILABLE") << result.dump(1);
  }
  EXPECT_GT(result["ok"].get<double>(), 0.9 * result["started"].get<double>()) << result.dump(1);
  EXPECT_GT(result["tags"]["1"]["last_start_ns"].get<uint64_t>(), acknowledged_ns);
  EXPECT_LT(result["tags"]["2"]["last_start_ns"].get<uint64_t>(), acknowledged_ns);
  const json of_second = run_.Finish(second);
  EXPECT_EQ(of_second["ok"], of_second["started"]) << of_second.dump(1);
}

TEST_F(MovesTest, HostDrainedUnderLoadFailsNoCall) {
  Edit(MeshWith({"a", "b"}));
  Process a = run_.StartServer("a", kUidA, 1);
  Process b = run_.StartServer("b", kUidB, 2);
  Process client = run_.StartClient(4, kRate);
  absl::SleepFor(absl::Milliseconds(500));
  const Ran drained = mesh_.Ctl({"drain", "b"});
  const uint64_t drained_ns = NowNs();
  EXPECT_EQ(drained.exit_code, 0) << drained.error;
  const json result = run_.Finish(client);
  EXPECT_EQ(result["ok"], result["started"]) << result.dump(1);
  EXPECT_EQ(run_.Totals().executed_twice, 0u);
  ASSERT_TRUE(result["tags"].contains("2")) << result.dump(1);
  EXPECT_LT(result["tags"]["2"]["last_start_ns"].get<uint64_t>(), drained_ns);
  EXPECT_GT(result["tags"]["1"]["last_start_ns"].get<uint64_t>(), drained_ns);
}

TEST_F(MovesTest, RevokedRuleIsInForceOnceAcknowledged) {
  const std::string rule = "allow: [{from: \"other/*\", to: app/echo}]\n";
  Edit(MeshWith({"a"}, rule));
  Process a = run_.StartServer("a", kUidA, 1);
  Process client = run_.StartClient(3, kRate, {}, "stranger", kUidStranger);
  absl::SleepFor(absl::Milliseconds(500));
  Edit(MeshWith({"a"}));
  const uint64_t acknowledged_ns = AcknowledgedNs();
  const json result = run_.Finish(client);
  EXPECT_GT(result["ok"], 0);
  EXPECT_LT(result["tags"]["1"]["last_start_ns"].get<uint64_t>(), acknowledged_ns);
  EXPECT_EQ(result["codes"].size(), 1u) << result.dump(1);
  ASSERT_TRUE(result["codes"].contains("PERMISSION_DENIED")) << result.dump(1);
  // Calls that were under way name the channel that closed; those made since name the rule that is missing.
  bool named = false;
  for (const std::string text : result["texts"]["PERMISSION_DENIED"]) {
    named = named || text.find("other may not call app/echo") != std::string::npos;
  }
  EXPECT_TRUE(named) << result.dump(1);
}

TEST_F(MovesTest, BrokenOrEmptyFileUnderLoadDeletesNothing) {
  Process a = run_.StartServer("a", kUidA, 1);
  Process client = run_.StartClient(3, kRate);
  for (const char* broken : {"", "version: 1\nendpoints: [", "version: 1\nunknown: key\n", "\xff\xfe"}) {
    mesh_.SetMesh(broken);
    absl::SleepFor(absl::Milliseconds(100));
  }
  const json result = run_.Finish(client);
  EXPECT_EQ(result["ok"], result["started"]) << result.dump(1);
}

}  // namespace
}  // namespace weft::test
