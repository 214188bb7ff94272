// SPDX-License-Identifier: Apache-2.0
// apply, get policy, delete and edit against a real etcd: what is written, what is refused and why.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "tests/support/etcd.h"

namespace weft::ctl {
namespace {

using testing::HasSubstr;
using testing::Not;

const std::string kProgram = WEFT_BIN_DIR "/weftctl";
const std::string kFunction = "/weft/functions/v/f";

class WeftctlPolicyTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::Etcd::Installed()) GTEST_SKIP() << "no etcd on this machine";
    etcd_.emplace();
    test::WriteFile(directory_ / "control.yaml",
                    absl::StrCat("version: 1\netcd: {endpoints: [\"", etcd_->url(), "\"]}\n"));
  }
  test::Ran Ctl(std::vector<std::string> arguments, const std::string& input = {}) {
    arguments.insert(arguments.begin(), kProgram);
    arguments.insert(arguments.end(), {"--config", directory_ / "control.yaml"});
    return test::Run(arguments, 0, absl::Seconds(30), input);
  }
  test::Ran Apply(const std::string& yaml, std::vector<std::string> more = {}) {
    test::WriteFile(directory_ / "mesh.yaml", yaml);
    more.insert(more.begin(), {"apply", directory_ / "mesh.yaml"});
    return Ctl(more);
  }
  nlohmann::json Item(const test::Ran& ran, std::size_t index) {
    return nlohmann::json::parse(ran.output, nullptr, false)["items"][index];
  }
  // An editor that does `commands` to the file $1.
  void SetEditor(const std::string& commands) {
    test::WriteFile(directory_ / "editor", "#!/bin/sh\n" + commands + "\n");
    chmod((directory_ / "editor").c_str(), 0755);
    setenv("VISUAL", (directory_ / "editor").c_str(), 1);
    setenv("TMPDIR", directory_.path().c_str(), 1);
  }
  int TextsKept() {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(directory_.path())) {
      count += entry.path().filename().string().starts_with("weftctl-") ? 1 : 0;
    }
    return count;
  }

  test::TemporaryDirectory directory_;
  std::optional<test::Etcd> etcd_;
};

// Nobody asks for policy in etcd on a node without etcd but by mistake.
TEST(WeftctlWithoutEtcdTest, ItSaysWhatIsNeeded) {
  const test::TemporaryDirectory directory;
  test::WriteFile(directory / "control.yaml", "version: 1\nfiles: /etc/weft/mesh.d\n");
  test::WriteFile(directory / "mesh.yaml", "version: 1\nfunctions: [{name: v/f}]\n");
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{{"get", "policy"},
                                             {"apply", directory / "mesh.yaml"},
                                             {"delete", "functions/v/f"},
                                             {"edit", "functions/v/f"}}) {
    for (const char* config : {"control.yaml", "missing.yaml"}) {
      std::vector<std::string> arguments = command;
      arguments.insert(arguments.begin(), kProgram);
      arguments.insert(arguments.end(), {"--config", directory / config});
      const test::Ran ran = test::Run(arguments);
      EXPECT_EQ(ran.exit_code, 1);
      EXPECT_THAT(ran.error, HasSubstr(directory / config));
      EXPECT_THAT(ran.error, HasSubstr("--config FILE names a weft-control.yaml whose `etcd` section"));
    }
  }
}

// Nor can an object of etcd name a module by such a path.
TEST(WeftctlWithoutEtcdTest, AModuleInAFolderWithoutAReadableNameIsRefused) {
  const test::TemporaryDirectory directory;
  const std::string folder = directory / "caf\xe9";
  ASSERT_EQ(mkdir(folder.c_str(), 0700), 0);
  test::WriteFile(
      folder + "/mesh.yaml",
      absl::StrCat(
          "version: 1\nnodes: [{name: n1}]\nfunctions: [{name: v/f}]\nendpoints: [{function: v/f, node: n1, "
          "host: h, module: m.wasm, sha256: ",
          std::string(64, 'a'), "}]\n"));
  const test::Ran ran =
      test::Run({"/bin/sh", "-c", absl::StrCat("cd ", folder, " && exec ", kProgram, " apply mesh.yaml")});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.error, HasSubstr("mesh.yaml:4: the path of its module is no UTF-8"));
}

TEST_F(WeftctlPolicyTest, WhatIsWrongIsRefusedWholeAndNamedByLine) {
  test::Ran ran = Apply(
      "version: 1\nfunctions:\n- {name: v/f}\n- {name: v/g, retries: 99}\n- {name: v/f}\nallowShrink: "
      "true\n");
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.error, HasSubstr("mesh.yaml:4:24: functions[1].retries: must be"));
  EXPECT_THAT(ran.error, HasSubstr("mesh.yaml:5: functions/v/f stands at "));
  EXPECT_THAT(ran.error, HasSubstr("allowShrink"));
  EXPECT_EQ(etcd_->Get(kFunction), "");
  EXPECT_EQ(Apply("version: 1\n").exit_code, 1);
  EXPECT_THAT(Ctl({"apply", "/nowhere.yaml"}).error, HasSubstr("/nowhere.yaml"));
  EXPECT_THAT(Ctl({"delete", "functions/v/f"}).error, HasSubstr("delete functions/v/f: NOT_FOUND"));
  EXPECT_THAT(Ctl({"get", "policy", "functions/v"}).error, HasSubstr("no object functions/v"));
  EXPECT_EQ(Ctl({"edit", "functions/v/f"}).exit_code, 1);
  for (const std::vector<std::string>& usage :
       std::vector<std::vector<std::string>>{{"apply"},
                                             {"delete"},
                                             {"edit"},
                                             {"edit", "a", "b"},
                                             {"get", "nodes", "n1"},
                                             {"apply", "x", "--if-revision", "-1"}}) {
    EXPECT_EQ(Ctl(usage).exit_code, 2) << testing::PrintToString(usage);
  }
}

TEST_F(WeftctlPolicyTest, WhatIsAppliedStandsThereAndComesBack) {
  const std::string mesh =
      "version: 1\nnodes: [{name: n1, address: \"10.0.0.1:4810\"}]\nfunctions:\n"
      "- {name: v/f, timeout: 250ms, locality: any, hedge: {percentile: 95}, idempotent: true}\n"
      "endpoints: [{function: v/f, node: n9, host: h}]\nallow: [{from: a/*, to: v/f}]\n";
  test::Ran ran = Apply(mesh, {"--dry-run"});
  EXPECT_EQ(ran.exit_code, 0) << ran.error;
  EXPECT_EQ(etcd_->Get(kFunction), "");
  ran = Apply(mesh);
  EXPECT_EQ(ran.exit_code, 0) << ran.error;
  EXPECT_THAT(ran.error, HasSubstr("endpoints/n9/h/v/f waits for node n9"));
  EXPECT_THAT(ran.output, HasSubstr("created"));
  EXPECT_EQ(etcd_->Get("/weft/allow/a/*/v/f"), "{}");
  EXPECT_THAT(etcd_->Get(kFunction), HasSubstr(R"("locality":"any")"));
  // What is there is not written again.
  ran = Apply(mesh, {"-o", "json"});
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Item(ran, i)["result"], "unchanged") << ran.output;
  // As YAML it can be applied to an empty store.
  ran = Ctl({"get", "policy", "-o", "yaml"});
  EXPECT_EQ(ran.exit_code, 0);
  for (const char* key : {"nodes/n1", "functions/v/f", "endpoints/n9/h/v/f", "allow/a/*/v/f"}) {
    EXPECT_EQ(Ctl({"delete", key}).exit_code, 0) << key;
  }
  EXPECT_THAT(Ctl({"get", "policy"}).error, HasSubstr("no policy"));
  ran = Apply(ran.output);
  EXPECT_EQ(ran.exit_code, 0) << ran.error;
  EXPECT_EQ(etcd_->Get(kFunction),
            R"({"hedge":{"percentile":95},"idempotent":true,"locality":"any","timeout":"250ms"})");
  EXPECT_EQ(Item(Ctl({"get", "policy", "functions", "-o", "json"}), 0)["said_by"], "operator");
  EXPECT_EQ(Ctl({"names", "policy"}).output, "allow/a/*/v/f\nendpoints/n9/h/v/f\nfunctions/v/f\nnodes/n1\n");
}

TEST_F(WeftctlPolicyTest, ARevisionThatIsNotThereAnyMoreWritesNothing) {
  ASSERT_EQ(Apply("version: 1\nfunctions: [{name: v/f, retries: 1}]\n", {"--if-revision", "0"}).exit_code, 0);
  const int64_t revision = Item(Ctl({"get", "policy", "-o", "json"}), 0)["revision"];
  const std::string guard = absl::StrCat(revision);
  test::Ran ran =
      Apply("version: 1\nfunctions: [{name: v/f, retries: 2}]\n", {"--if-revision", guard, "-o", "json"});
  EXPECT_EQ(Item(ran, 0)["result"], "changed") << ran.error;
  EXPECT_GT(Item(ran, 0)["revision"], revision);
  ran = Apply("version: 1\nfunctions: [{name: v/f, retries: 3}]\n", {"--if-revision", guard});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.error, HasSubstr(absl::StrCat("functions/v/f is at revision ", revision + 1, ", not at ")));
  EXPECT_EQ(Ctl({"delete", "functions/v/f", "--if-revision", guard}).exit_code, 1);
  EXPECT_EQ(etcd_->Get(kFunction), R"({"retries":2})");
}

TEST_F(WeftctlPolicyTest, AnEditIsValidatedAndComparedWithWhatStandsThere) {
  ASSERT_EQ(Apply("version: 1\nfunctions: [{name: v/f, retries: 1}]\n").exit_code, 0);
  SetEditor("sed -i 's/retries: 1/retries: 4/' $1");
  test::Ran ran = Ctl({"edit", "functions/v/f"});
  EXPECT_EQ(ran.exit_code, 0) << ran.error;
  EXPECT_EQ(etcd_->Get(kFunction), R"({"retries":4})");
  EXPECT_EQ(TextsKept(), 0);
  SetEditor("sed -i 's/retries: 4/retries: 4000/' $1");
  ran = Ctl({"edit", "functions/v/f"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.error, HasSubstr(".yaml:4:14: functions[0].retries: must be"));
  EXPECT_THAT(ran.error, HasSubstr("your text is kept in "));
  EXPECT_EQ(TextsKept(), 1);
  SetEditor("sed -i 's,v/f,v/g,' $1");
  EXPECT_THAT(Ctl({"edit", "functions/v/f"}).error, HasSubstr("must hold functions/v/f and nothing else"));
  SetEditor("exit 3");
  EXPECT_THAT(Ctl({"edit", "functions/v/f"}).error, HasSubstr("the editor"));
  // Another operator is faster.
  SetEditor(absl::StrCat("VISUAL= ", kProgram, " delete functions/v/f --config ", directory_ / "control.yaml",
                         ">/dev/null && sed -i 's/retries: 4/retries: 5/' $1"));
  ran = Ctl({"edit", "functions/v/f"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.error, HasSubstr("ABORTED: changed meanwhile: functions/v/f is gone, not at "));
  EXPECT_EQ(etcd_->Get(kFunction), "");
}

TEST_F(WeftctlPolicyTest, WhatANodeSaysIsSeenAndNotDeleted) {
  etcd_->Put("/weft/live/nodes/n1", R"({"address":"10.0.0.1:4810"})");
  etcd_->Put("/weft/nonsense", "{}");
  etcd_->Put("/weft/functions/v/bad", "[");
  test::Ran ran = Ctl({"get", "policy", "-o", "json"});
  EXPECT_EQ(Item(ran, 1)["said_by"], "node") << ran.output;
  EXPECT_THAT(std::string(Item(ran, 0)["error"]), HasSubstr("/weft/functions/v/bad:1:"));
  EXPECT_THAT(Ctl({"delete", "live/nodes/n1"}).error, HasSubstr("its node says this of itself"));
  EXPECT_THAT(Ctl({"edit", "functions/v/bad"}).error, HasSubstr("cannot be read"));
  EXPECT_EQ(Ctl({"get", "policy", "-o", "yaml"}).exit_code, 1);
  EXPECT_EQ(Ctl({"delete", "nonsense", "functions/v/bad"}).exit_code, 0);
  ran = Ctl({"get", "policy", "-o", "yaml"});
  EXPECT_EQ(ran.output, "version: 1\n");
}

TEST_F(WeftctlPolicyTest, MoreThanATransactionTakesIsWritten) {
  std::string mesh = "version: 1\nfunctions:\n";
  for (int i = 0; i < 250; ++i) absl::StrAppend(&mesh, "- {name: v/f", i, "}\n");
  const test::Ran ran = Apply(mesh);
  EXPECT_EQ(ran.exit_code, 0) << ran.error;
  EXPECT_EQ(etcd_->Get("/weft/functions/v/f249"), "{}");
}

TEST_F(WeftctlPolicyTest, AModuleIsHashedHereAndNamedByItsWholePath) {
  test::WriteFile(directory_ / "f.wasm", "abc");
  const test::Ran ran =
      Apply("version: 1\nendpoints: [{function: v/f, node: n1, host: h, module: f.wasm}]\n");
  EXPECT_EQ(ran.exit_code, 0) << ran.error;
  const std::string value = etcd_->Get("/weft/endpoints/n1/h/v/f");
  EXPECT_THAT(value, HasSubstr(absl::StrCat("\"", directory_ / "f.wasm", "\"")));
  EXPECT_THAT(value, HasSubstr("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
}

TEST_F(WeftctlPolicyTest, ControlCharactersInEtcdReachNoTerminal) {
  etcd_->Put("/weft/endpoints/n1/h/v/f",
             absl::StrCat("{\"module\":\"/m/\xc2\x9b.wasm\",\"sha256\":\"", std::string(64, 'a'), "\"}"));
  etcd_->Put("/weft/non\xc2\x9bsense", "{}");
  const test::Ran yaml = Ctl({"get", "policy", "endpoints", "-o", "yaml"});
  EXPECT_EQ(yaml.exit_code, 0) << yaml.error;
  EXPECT_THAT(yaml.output, HasSubstr("module: \"/m/\\u009b.wasm\"")) << yaml.output;
  const test::Ran refused = Ctl({"edit", "non\xc2\x9bsense"});
  EXPECT_THAT(refused.error, HasSubstr("weftctl: edit non?sense: ")) << refused.error;
}

TEST_F(WeftctlPolicyTest, WhereNoMemberAnswersThatIsSaid) {
  test::WriteFile(directory_ / "mesh.yaml", "version: 1\nfunctions: [{name: v/f}]\n");
  const std::string silent = "http://127.0.0.1:1";
  // The first is silent, the second answers.
  test::WriteFile(directory_ / "control.yaml", absl::StrCat("version: 1\netcd: {endpoints: [\"", silent,
                                                            "\", \"", etcd_->url(), "\"]}\n"));
  EXPECT_EQ(Ctl({"apply", directory_ / "mesh.yaml"}).exit_code, 0);
  test::WriteFile(directory_ / "control.yaml",
                  absl::StrCat("version: 1\netcd: {endpoints: [\"", silent, "\"]}\n"));
  test::Ran ran = Ctl({"apply", directory_ / "mesh.yaml"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.error, HasSubstr("UNAVAILABLE: http://127.0.0.1:1"));
  EXPECT_THAT(ran.error, Not(HasSubstr("is not known")));
  test::WriteFile(directory_ / "control.yaml", "version: 1\nfiles: /etc/weft/mesh.d\n");
  EXPECT_THAT(Ctl({"get", "policy"}).error, HasSubstr("has no `etcd` section"));
}

}  // namespace
}  // namespace weft::ctl
