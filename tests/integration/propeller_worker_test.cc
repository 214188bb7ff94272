// SPDX-License-Identifier: Apache-2.0
// A node as a worker of Propeller: starts and stops over a real broker become placements on a real weft-host.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/integration/propeller_fixture.h"

namespace weft::test {
namespace {

using testing::HasSubstr;

// A core module that exports a memory and nothing else.
constexpr char kWithoutFunction[] = {0,    'a', 's', 'm', 1,   0,   0,   0,   0x05, 3,   1, 0, 1,
                                     0x07, 10,  1,   6,   'm', 'e', 'm', 'o', 'r',  'y', 2, 0};

TEST_F(PropellerWorkerTest, AStartPlacesTheModuleAndAStopTakesItBack) {
  EXPECT_TRUE(manager_->Hears("control/proplet/alive", R"("status":"alive")"));
  EXPECT_TRUE(manager_->Hears("control/proplet/metrics", R"("rss_bytes":)"));
  manager_->Start("t1", "hello", "n1", Guest("hello"), R"(,"new_field":{"a":[1]})");
  manager_->Start("t2", "other", "somebody-else", Guest("hello"));
  ASSERT_TRUE(manager_->Hears(kResults, Runs("t1"))) << Logs();
  EXPECT_TRUE(manager_->Hears("weft/n1", R"("id":"t1","name":"hello","ready":true)")) << Logs();
  EXPECT_EQ(Call("hello").output, "Hello, there!") << Logs();
  struct stat about;
  EXPECT_EQ(Modules(), 1);
  ASSERT_EQ(stat(modules().c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 07, 0u);                     // For weft-control, and the agent by its entry.
  manager_->Start("t1", "hello", "n1", Guest("hello"));  // Heard twice: still one, and it is said to run.
  ASSERT_TRUE(manager_->Hears(kResults, Runs("t1"))) << Logs();
  EXPECT_EQ(Call("hello").output, "Hello, there!");
  manager_->Stop("t1");
  EXPECT_TRUE(manager_->Hears("weft/n1", R"("ready":false)")) << Logs();
  EXPECT_TRUE(manager_->Hears("weft/n1", R"("tasks":[])")) << Logs();
  EXPECT_TRUE(Eventually([&] { return absl::StrContains(Call("hello").error, "NOT_FOUND"); })) << Logs();
  EXPECT_TRUE(Eventually([&] { return Modules() == 0; }));
  EXPECT_EQ(manager_->Heard(kResults, "t2"), 0u);
}

// The endpoint drains from the first start on, and once the second one comes the agent has had its say.
TEST_F(PropellerWorkerTest, AStartThatWasStoppedBeforeItWasPlacedDoesNotHoldUpTheNextOne) {
  mesh_->control().Signal(SIGSTOP);
  manager_->Start("t1", "hello", "n1", Guest("hello"));
  manager_->Stop("t1");
  absl::SleepFor(absl::Milliseconds(100));  // Both lie in its socket.
  mesh_->control().Signal(SIGCONT);
  // In a generation of its own, or in one with the start.
  ASSERT_TRUE(Eventually([&] {
    return absl::StrContains(mesh_->control().Output(), "(propeller command 2");
  })) << Logs();
  manager_->Start("t2", "hello", "n1", Guest("hello"));
  EXPECT_TRUE(manager_->Hears(kResults, Runs("t2"))) << Logs();
  EXPECT_EQ(Call("hello").output, "Hello, there!") << Logs();
}

TEST_F(PropellerWorkerTest, AModuleComesInPartsAlsoWhereTheBrokerRestartsInBetween) {
  const std::string module = Guest("hello");
  const std::string parts[] = {module.substr(0, 100), module.substr(100, 1'000), module.substr(1'100)};
  manager_->StartImage("t1", "hello", "n1", "registry/hello:1");
  ASSERT_TRUE(manager_->Hears("registry/proplet", R"("app_name":"registry/hello:1")")) << Logs();
  manager_->Chunk("registry/hello:1", 0, 3, parts[0]);
  manager_->Chunk("registry/other:1", 0, 1, "not asked for");
  broker_->Kill();
  broker_->Start();
  ASSERT_TRUE(manager_->Hears("registry/proplet", R"("app_name":"registry/hello:1")")) << Logs();
  manager_->Chunk("registry/hello:1", 2, 3, parts[2]);
  manager_->Chunk("registry/hello:1", 0, 3, parts[0]);
  manager_->Chunk("registry/hello:1", 2, 3, parts[2]);
  manager_->Chunk("registry/hello:1", 1, 3, parts[1]);
  ASSERT_TRUE(manager_->Hears(kResults, Runs("t1"))) << Logs();
  EXPECT_EQ(Call("hello").output, "Hello, there!");
  EXPECT_EQ(Modules(), 1);
}

TEST_F(PropellerWorkerTest, WhatCannotRunIsReportedByName) {
  const auto fails = [&](const std::string& task, const std::string& why) {
    EXPECT_TRUE(manager_->Hears(kResults, absl::StrCat(R"("task_id":")", task))) << Logs();
    EXPECT_EQ(manager_->Heard(kResults, why), 1u) << why << "\n" << Logs();
  };
  manager_->Start("t1", "empty", "n1", absl::string_view(kWithoutFunction, sizeof(kWithoutFunction)));
  fails("t1", "exports no function `empty`");
  manager_->Start("t2", "secret", "n1", Guest("hello"), R"(,"encrypted":true)");
  manager_->Say("control/manager/start",
                R"({"id":"t3","name":"secret","image_url":"x","encrypted":true,"proplet_id":"n1"})");
  fails("t3", "it is encrypted, which weft cannot run");
  manager_->Start("t4", "hello", "n1", Guest("hello"), R"(,"env":{"TOKEN":"s3cret"})");
  fails("t4", "env: a function of weft takes none");
  manager_->Say("control/manager/start", R"({"id":"t5","name":"x","file":"***","proplet_id":"n1"})");
  fails("t5", "file: is no base64");
  manager_->Say("control/manager/start",
                R"({"id":"t6","name":"Not A Label","file":"AA==","proplet_id":"n1"})");
  fails("t6", "Not A Label");
  manager_->Say("control/manager/start", "{");
  manager_->Start("t7", "hello", "n1", Guest("hello"));
  EXPECT_TRUE(manager_->Hears(kResults, Runs("t7"))) << Logs();
  EXPECT_EQ(Call("hello").output, "Hello, there!");
  EXPECT_THAT(mesh_->control().Output(), testing::Not(HasSubstr("s3cret")));
  EXPECT_THAT(mesh_->control().Output(), HasSubstr("control/manager/start is not taken: is no JSON object"));
}

TEST_F(PropellerWorkerTest, AModuleWithoutHandlerIsRunOnceAndItsResultReported) {
  const std::string command = Guest("test_command");
  const auto ends = [&](const std::string& task, const std::string& results, const std::string& error) {
    const std::string text =
        absl::StrCat(R"({"error":)", error.empty() ? "null" : "\"" + error + "\"",
                     R"(,"proplet_id":"n1","results":")", results, R"(","task_id":")", task, "\"}");
    EXPECT_TRUE(manager_->Hears(kResults, text)) << text << "\n" << Logs();
    EXPECT_EQ(manager_->Heard(kResults, absl::StrCat(R"("task_id":")", task)), 1u) << task;
  };
  manager_->Start("t1", "job", "n1", command, R"(,"cli_args":["a","b c"],"env":{"NAME":"value"})");
  ends("t1", "job a b c NAME=value", "");
  manager_->Start("t2", "add", "n1", command, R"(,"inputs":["40","2"])");
  ends("t2", "42", "");
  EXPECT_TRUE(manager_->Hears("control/proplet/task_metrics", R"("task_id":"t2")")) << Logs();
  manager_->Start("l1", "add", "n1", command, R"(,"latent":true)");
  manager_->Say("control/manager/invoke",
                R"({"id":"l1","invocation_id":"i1","inputs":["5","6"],"proplet_id":"n1"})");
  EXPECT_TRUE(manager_->Hears(
      "control/proplet/invoke_results",
      R"({"error":null,"invocation_id":"i1","proplet_id":"n1","results":"11","task_id":"l1"})"))
      << Logs();
  manager_->Stop("l1");
  manager_->Start("t3", "job", "n1", command, R"(,"cli_args":["exit"])");
  ends("t3", "before", "it exited with code 3");
  manager_->Start("t4", "job", "n1", command, R"(,"cli_args":["trap"])");
  EXPECT_TRUE(manager_->Hears(kResults, "it failed: wasm `unreachable` instruction executed")) << Logs();
  // Nothing of them is callable, or left behind; a function of the same name is another matter.
  EXPECT_THAT(Call("job").error, HasSubstr("NOT_FOUND"));
  EXPECT_TRUE(Eventually([&] { return Modules() == 0; }));
  manager_->Start("t5", "job", "n1", Guest("hello"));
  ASSERT_TRUE(manager_->Hears(kResults, Runs("t5"))) << Logs();
  // Calls are answered while something runs that would last for a minute.
  manager_->Start("t6", "job", "n1", command, R"(,"cli_args":["spin"])");
  ASSERT_TRUE(
      Eventually([&] { return absl::StrContains(mesh_->agent().Output(), "is run once on host h"); }));
  EXPECT_EQ(Call("job").output, "Hello, there!") << Logs();
}

TEST_F(PropellerWorkerTest, NothingIsRunASecondTimeAfterARestart) {
  const auto runs = [&] {
    const std::string log = mesh_->agent().Output();
    int count = 0;
    for (std::size_t at = 0; (at = log.find("is run once on host h", at)) != std::string::npos; ++at) ++count;
    return count;
  };
  const auto begin = [&](const std::string& task) {
    const int before = runs();
    manager_->Start(task, "job", "n1", Guest("test_command"), R"(,"cli_args":["sleep"])");
    return Eventually([&] { return runs() == before + 1; });
  };
  ASSERT_TRUE(begin("t1")) << Logs();
  mesh_->control().Kill();
  StartControl();
  EXPECT_TRUE(manager_->Hears(kResults, "lost with a restart of weft-control")) << Logs();
  // weft-control lives, its agent or its host does not.
  ASSERT_TRUE(mesh_->WaitForHost("h"));
  ASSERT_TRUE(begin("t2")) << Logs();
  mesh_->agent().Kill();
  EXPECT_TRUE(manager_->Hears(kResults, "the agent of this node went away while it ran")) << Logs();
  mesh_->StartAgent();
  ASSERT_TRUE(mesh_->WaitForHost("h"));
  host_.reset();
  host_.emplace(mesh_->StartHost("h", kFirstTenantUid));
  ASSERT_TRUE(mesh_->WaitForHost("h"));
  manager_->Start("t3", "hello", "n1", Guest("hello"));  // weft-control has found its agent again.
  ASSERT_TRUE(manager_->Hears(kResults, Runs("t3"))) << Logs();
  ASSERT_TRUE(begin("t4")) << Logs();
  const int begun = runs();
  host_.reset();
  EXPECT_TRUE(manager_->Hears(kResults, "its host has left")) << Logs();
  host_.emplace(mesh_->StartHost("h", kFirstTenantUid));
  ASSERT_TRUE(mesh_->WaitForHost("h"));
  EXPECT_TRUE(Answers("hello")) << Logs();
  EXPECT_EQ(runs(), begun) << Logs();
}

TEST_F(PropellerWorkerTest, ABrokerThatComesBackReplaysNothing) {
  manager_->Start("t1", "hello", "n1", Guest("hello"));
  ASSERT_TRUE(manager_->Hears(kResults, Runs("t1"))) << Logs();
  broker_->Kill();
  ASSERT_TRUE(mesh_->WaitForCtl({"status"}, "not synced")) << Logs();
  EXPECT_EQ(Call("hello").output, "Hello, there!");
  // Said while nobody listens, and kept by the broker.
  mesh_->control().Signal(SIGSTOP);
  broker_->Start();
  broker_->Publish("m/T/c/C/control/manager/start",
                   R"({"id":"t2","name":"late","file":"AA==","proplet_id":"n1"})", true);
  broker_->Publish("m/T/c/C/control/manager/stop", R"({"id":"t1"})", true);
  mesh_->control().Signal(SIGCONT);
  ASSERT_TRUE(Eventually([&] {
    return absl::StrContains(mesh_->control().Output(),
                             "control/manager/stop is not taken: the broker kept it from an earlier time");
  })) << Logs();
  EXPECT_EQ(Call("hello").output, "Hello, there!") << Logs();
  EXPECT_EQ(manager_->Heard(kResults, "t2"), 0u);
  // One that registers anew is no new process.
  EXPECT_EQ(manager_->Heard("control/proplet/create", "n1"), 1u);
}

TEST_F(PropellerWorkerTest, ARestartKeepsTasksAndRemovesStaleFiles) {
  manager_->Start("t1", "hello", "n1", Guest("hello"));
  ASSERT_TRUE(manager_->Hears(kResults, Runs("t1"))) << Logs();
  mesh_->control().Kill();
  EXPECT_TRUE(manager_->Hears("control/proplet/alive", "offline"));  // The broker says it.
  WriteFile(modules() + "/stray.wasm", "x");
  WriteFile(modules() + "/0123.wasm.new", "x");
  EXPECT_EQ(Call("hello").output, "Hello, there!");
  manager_->Start("t2", "late", "n1", Guest("hello"));  // The broker has it for whoever comes back.
  StartControl();
  ASSERT_TRUE(manager_->Hears("control/proplet/create", "n1")) << Logs();
  ASSERT_TRUE(manager_->Hears("weft/n1", R"("id":"t1","name":"hello","ready":true)")) << Logs();
  EXPECT_EQ(Call("hello").output, "Hello, there!");
  EXPECT_TRUE(manager_->Hears(kResults, Runs("t2"))) << Logs();
  EXPECT_EQ(Call("late").output, "Hello, there!");
  EXPECT_EQ(Files("*"), 1);
  // The agent opens the file again when its host comes back.
  host_.reset();
  host_.emplace(mesh_->StartHost("h", kFirstTenantUid));
  EXPECT_TRUE(Answers("hello")) << Logs();
  // A module that rots is not run.
  mesh_->control().Kill();
  ASSERT_EQ(test::Run({"/bin/sh", "-c", absl::StrCat("for f in ", modules(), "/*; do echo x >> $f; done")})
                .exit_code,
            0);
  StartControl();
  EXPECT_TRUE(manager_->Hears(kResults, "its module is lost")) << Logs();
  EXPECT_TRUE(Eventually([&] { return absl::StrContains(Call("hello").error, "NOT_FOUND"); })) << Logs();
  EXPECT_EQ(Files("*"), 0);
}

}  // namespace
}  // namespace weft::test
