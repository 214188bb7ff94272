// SPDX-License-Identifier: Apache-2.0
// weft-control and weftctl with the real weftd and real hosts: what the scripted agents and fake daemons of
// the other tests stand for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "tests/support/mesh.h"

namespace weft::test {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;

std::string MeshOn(const std::string& host, const std::string& rules) {
  return absl::StrCat(
      "version: 1\nnodes: [{name: n1}]\nfunctions: [{name: demo/echo}]\nendpoints:\n"
      "- {function: demo/echo, node: n1, host: ",
      host, "}\n", rules);
}

class WeftctlMeshTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!Mesh::Privileged()) GTEST_SKIP() << "hosts under users of their own need root";
    mesh_.SetMesh(MeshOn("a", "allow: [{from: web/*, to: demo/echo}]\n"));
    mesh_.StartAgent();
    mesh_.StartControl();
    a_.emplace(mesh_.Start("native-server", {"--name", "a"}, kFirstTenantUid, "a.log"));
    b_.emplace(mesh_.Start("native-server", {"--name", "b"}, kFirstTenantUid, "b.log"));
    // Not "reachable", which stands in "unreachable" as well.
    ASSERT_TRUE(mesh_.WaitForCtl({"explain", "web/x", "demo/echo"}, "shared memory to host a"))
        << mesh_.control().Output();
  }
  nlohmann::json Json(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"-o", "json"});
    return nlohmann::json::parse(mesh_.Ctl(arguments).output, nullptr, false);
  }
  bool WaitForTarget(const std::string& host) {
    return Eventually([&] {
      const nlohmann::json answer = Json({"get", "functions"});
      return !answer.is_discarded() && !answer["items"].empty() && answer["items"][0]["hosts"] == host;
    });
  }

  Mesh mesh_{{{"tenant", kFirstTenantUid, {"a", "b"}, {"demo/*"}, "", ""}}};
  std::optional<Process> a_;
  std::optional<Process> b_;
};

TEST_F(WeftctlMeshTest, ACallGoesThereAndBack) {
  Ran ran = mesh_.Ctl({"call", "demo/echo", "hello"});
  EXPECT_EQ(ran.exit_code, 0) << ran.error;
  EXPECT_EQ(ran.output, "hello");
  // From a file, larger than a channel's arena, and from standard input.
  std::string large(3'000'000, 'x');
  for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 7919 >> 3);
  WriteFile(mesh_.path("large"), large);
  ran = mesh_.Ctl({"call", "demo/echo", "--file", mesh_.path("large")});
  EXPECT_EQ(ran.exit_code, 0) << ran.error;
  EXPECT_TRUE(ran.output == large);
  ran = mesh_.Ctl({"call", "demo/echo"}, mesh_.path("large"));
  EXPECT_TRUE(ran.output == large);
  ran = mesh_.Ctl({"call", "demo/echo", "hello", "-o", "json"});
  EXPECT_EQ(nlohmann::json::parse(ran.output)["items"][0]["base64"], "aGVsbG8=");
}

// Its user may not call as any namespace, nor open the admin socket: no answer of the agent is waited for.
TEST_F(WeftctlMeshTest, WhoMayNotCallAsAnybodyHearsOfItAtOnce) {
  const auto call = [this](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"call", "demo/echo", "hello", "--timeout", "60s"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return mesh_.Start("weftctl", arguments, kFirstTenantUid, absl::StrCat("call", more.size(), ".log"));
  };
  Process plain = call({});
  EXPECT_EQ(plain.Wait(absl::Seconds(20)), 1) << plain.Output();
  EXPECT_THAT(plain.Output(), HasSubstr("lets this user call as no namespace (`call_as` in weftd.yaml)"));
  Process named = call({"--as", "web"});
  EXPECT_EQ(named.Wait(absl::Seconds(20)), 1) << named.Output();
  EXPECT_THAT(named.Output(), ContainsRegex("--as web needs .*admin.sock: Permission denied"));
}

TEST_F(WeftctlMeshTest, FunctionsTellWhatTheirCallsCameTo) {
  for (int i = 0; i < 3; ++i) EXPECT_EQ(mesh_.Ctl({"call", "demo/echo", "hello"}).output, "hello");
  const nlohmann::json echo = Json({"get", "functions"})["items"][0];
  EXPECT_EQ(echo["counters"], "current") << echo;
  EXPECT_EQ(echo["calls"], 3) << echo;
  EXPECT_EQ(echo["failures"], 0) << echo;
  EXPECT_EQ(echo["bytes_in"], 15) << echo;
  EXPECT_EQ(echo["bytes_out"], 15) << echo;
  EXPECT_THAT(mesh_.Ctl({"get", "functions"}).output, HasSubstr("CALLS"));
  EXPECT_THAT(mesh_.Ctl({"get", "functions"}).output, testing::Not(HasSubstr("BYTES_IN")));
}

// More than weftd appends to its log: it writes all anew.
TEST_F(WeftctlMeshTest, StateThatCannotBeSavedIsToldUntilItIs) {
  const std::vector<std::string> blocks = {mesh_.path("agent") + "/routes.pb.new",
                                           mesh_.path("control") + "/state.pb.new"};
  // Either of them may still be writing its first state there.
  for (const std::string& block : blocks)
    ASSERT_TRUE(Eventually([&] { return mkdir(block.c_str(), 0700) == 0; })) << block;
  std::string functions;
  for (int i = 0; i < 1100; ++i) absl::StrAppend(&functions, "- {name: many/f", i, "}\n");
  mesh_.SetMesh(absl::StrCat("version: 1\nnodes: [{name: n1}]\nfunctions:\n- {name: demo/echo}\n", functions,
                             "endpoints:\n- {function: demo/echo, node: n1, host: a}\n"));
  const auto checks = [this] { return mesh_.Ctl({"check"}).output; };
  EXPECT_TRUE(Eventually([&] {
    const std::string all = checks();
    return all.find("weftd: open ") != all.npos && all.find("weft-control: ") != all.npos;
  })) << checks();
  EXPECT_THAT(checks(), ContainsRegex("state +warning +weftd: open .*/agent/routes.pb.new: Is a directory"));
  EXPECT_THAT(checks(), ContainsRegex("state +warning +weft-control: .*/control/state.pb.new"));
  for (const std::string& block : blocks) ASSERT_EQ(rmdir(block.c_str()), 0);
  mesh_.SetMesh(MeshOn("b", ""));
  EXPECT_TRUE(
      Eventually([&] { return mesh_.Ctl({"status"}).output.find("state_problem") == std::string::npos; }));
}

TEST_F(WeftctlMeshTest, WhoSaidWhatIsToldWithIt) {
  const std::string mesh = mesh_.path("mesh.yaml");
  Ran ran = mesh_.Ctl({"explain", "web/x", "demo/echo"});
  EXPECT_THAT(ran.output, HasSubstr("SAID_BY"));
  EXPECT_THAT(ran.output, ContainsRegex(absl::StrCat("endpoint n1/a +", mesh, ":5")));
  EXPECT_THAT(ran.output, ContainsRegex(absl::StrCat("rule web/[*] to demo/echo +", mesh, ":6")));
  mesh_.control().Kill();
  ran = mesh_.Ctl({"explain", "web/x", "demo/echo"});
  EXPECT_EQ(ran.exit_code, 0);
  EXPECT_THAT(ran.error, HasSubstr("who said what is not known"));
}

TEST_F(WeftctlMeshTest, ACallWithoutRuleNamesTheMissingRule) {
  EXPECT_EQ(mesh_.Ctl({"call", "demo/echo", "x", "--as", "web"}).exit_code, 0);
  Ran ran = mesh_.Ctl({"call", "demo/echo", "x", "--as", "other"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.error,
              HasSubstr("weftctl: call demo/echo: PERMISSION_DENIED: other may not call demo/echo: no rule"));
  ran = mesh_.Ctl({"explain", "other", "demo/echo"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.output, HasSubstr("denied"));
  // The rule goes, and with it the permission, once the generation is acknowledged.
  mesh_.SetMesh(MeshOn("a", ""));
  ASSERT_TRUE(mesh_.WaitForCtl({"explain", "web/x", "demo/echo"}, "denied"));
  EXPECT_EQ(mesh_.Ctl({"call", "demo/echo", "x", "--as", "web"}).exit_code, 1);
  EXPECT_EQ(mesh_.Ctl({"call", "demo/nothing", "x"}).exit_code, 1);
  EXPECT_THAT(mesh_.Ctl({"call", "nonsense", "x"}).error, HasSubstr("must be NAMESPACE/NAME"));
}

TEST_F(WeftctlMeshTest, EditsMoveTheFunctionAndAreTimed) {
  for (int edit = 0; edit < 20; ++edit) {
    const std::string host = edit % 2 == 0 ? "b" : "a";
    mesh_.SetMesh(MeshOn(host, ""));
    ASSERT_TRUE(WaitForTarget(host)) << mesh_.control().Output();
    EXPECT_EQ(mesh_.Ctl({"call", "demo/echo", "x"}).output, "x");
  }
  const nlohmann::json status = Json({"status"});
  const nlohmann::json& control = status["items"][1];
  EXPECT_EQ(control["component"], "weft-control");
  EXPECT_EQ(control["changes"], 20);
  EXPECT_GT(control["event_to_programmed_p99_us"], 0);
  EXPECT_EQ(control["generation"], status["generation"]);
}

TEST_F(WeftctlMeshTest, EveryTableHasItsColumns) {
  const std::pair<const char*, std::vector<std::string>> tables[] = {
      {"nodes", {"node", "address", "zone", "self", "state"}},
      {"functions", {"function", "ready", "hosts", "state"}},
      {"hosts", {"host", "tenant", "uid", "state", "functions", "channels", "counters"}}};
  for (const auto& [what, columns] : tables) {
    const nlohmann::json answer = Json({"get", what});
    ASSERT_FALSE(answer.is_discarded());
    EXPECT_EQ(answer["kind"], what);
    ASSERT_FALSE(answer["items"].empty()) << what;
    for (const std::string& column : columns)
      EXPECT_TRUE(answer["items"][0].contains(column)) << what << column;
  }
  for (const char* what : {"routes", "channels"}) EXPECT_TRUE(Json({"get", what})["items"].is_array());
}

TEST_F(WeftctlMeshTest, ChecksPassOnAGoodMesh) {
  ASSERT_TRUE(mesh_.WaitForCtl({"check"}, "2 attached, all answer"));
  const Ran ran = mesh_.Ctl({"check"});
  EXPECT_EQ(ran.exit_code, 0) << ran.output;
}

TEST_F(WeftctlMeshTest, ADrainedHostGetsNoCalls) {
  mesh_.SetMesh(MeshOn("a", "") + "- {function: demo/echo, node: n1, host: b}\n");
  ASSERT_TRUE(WaitForTarget("a,b"));
  const Ran ran = mesh_.Ctl({"drain", "b"});
  EXPECT_EQ(ran.exit_code, 0) << ran.error << ran.output;
  EXPECT_THAT(ran.output, testing::ContainsRegex("b +drained"));  // Though it may have ended by now.
  EXPECT_TRUE(WaitForTarget("a"));
  EXPECT_EQ(mesh_.Ctl({"call", "demo/echo", "x"}).output, "x");
  EXPECT_THAT(mesh_.Ctl({"drain", "nobody"}).error, HasSubstr("no host nobody is attached"));
}

TEST_F(WeftctlMeshTest, ControlAndAgentFindEachOtherAgain) {
  for (int round = 0; round < 5; ++round) {
    const std::string host = round % 2 == 0 ? "b" : "a";
    if (round % 2 == 0) {
      mesh_.control().Kill();
      mesh_.SetMesh(MeshOn(host, ""));
      EXPECT_EQ(mesh_.Ctl({"call", "demo/echo", "x"}).output, "x");  // Nothing changes without control.
      mesh_.StartControl();
    } else {
      mesh_.agent().Kill();
      mesh_.SetMesh(MeshOn(host, ""));
      mesh_.StartAgent();
    }
    ASSERT_TRUE(WaitForTarget(host)) << round << mesh_.control().Output();
  }
}

// The state on disk stands in for files that are broken when control starts.
TEST_F(WeftctlMeshTest, ABrokenFileAtStartDeletesNothing) {
  // What is programmed is saved at once, but by a thread of its own, on a disk that may be slow.
  ASSERT_TRUE(Eventually([&] { return access(mesh_.path("control/state.pb").c_str(), F_OK) == 0; }));
  mesh_.control().Kill();
  mesh_.SetMesh("version: [\n");
  mesh_.StartControl();
  ASSERT_TRUE(mesh_.WaitForCtl({"status"}, "last good"));
  EXPECT_TRUE(WaitForTarget("a"));
  EXPECT_EQ(mesh_.Ctl({"call", "demo/echo", "x"}).output, "x");
  EXPECT_EQ(mesh_.Ctl({"check"}).exit_code, 1);
}

}  // namespace
}  // namespace weft::test
