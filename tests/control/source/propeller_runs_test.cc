// SPDX-License-Identifier: Apache-2.0
// Tasks of a Propeller worker whose modules are run once: what is asked for, told and kept, and that nothing
// is run a second time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "control/source/propeller/module_exports.h"
#include "control/source/propeller/propeller_tasks.h"

namespace weft::control {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class PropellerRunsTest : public testing::Test {
 protected:
  // With arguments, of which one is a secret.
  static PropellerCommand StartOf(const std::string& id, const std::string& image = "") {
    PropellerCommand start;
    start.kind = PropellerCommand::Kind::kStart;
    start.task = id;
    start.name = "fn";
    start.image = image;
    start.args = {"a"};
    start.env = {"TOKEN=s3cret"};
    start.inputs = {"7"};
    return start;
  }
  void Begin(const std::string& id, bool serves = false) {
    EXPECT_TRUE(tasks_.Start(StartOf(id), now_ns_));
    tasks_.ModuleOf(id, sha_, serves, now_ns_);
  }
  std::vector<api::RunOnce> Runs() {
    return tasks_.TakeRuns([](const std::string& sha) { return "/modules/" + sha; });
  }
  void End(const api::RunOnce& run, const std::string& result, const std::string& error) {
    api::RunEnded ended;
    ended.set_run(run.run());
    ended.set_result(result);
    ended.set_error(error);
    tasks_.Ended(ended);
  }
  std::vector<std::string> Reports() {
    std::vector<std::string> reports;
    for (const PropellerTasks::Report& each : tasks_.TakeReports()) {
      reports.push_back(absl::StrCat(each.task, ": ", each.results, "|", each.error));
    }
    return reports;
  }

  const std::string sha_ = std::string(64, 'a');
  uint64_t now_ns_ = 1'000 * kNsPerSecond;
  PropellerTasks tasks_{"ns", "h"};
};

TEST_F(PropellerRunsTest, WhatTheStartSaidIsAskedForOnceAndTheEndIsItsResult) {
  Begin("t1");
  EXPECT_THAT(tasks_.Modules(), ElementsAre(sha_));
  const std::vector<api::RunOnce> runs = Runs();
  ASSERT_EQ(runs.size(), 1u);
  EXPECT_EQ(runs[0].function().name(), "ns/fn");
  EXPECT_EQ(runs[0].entry(), "fn");
  EXPECT_EQ(runs[0].host(), "h");
  EXPECT_EQ(runs[0].module(), "/modules/" + sha_);
  EXPECT_EQ(runs[0].sha256(), std::string(32, '\xaa'));
  EXPECT_THAT(runs[0].args(), ElementsAre("a"));
  EXPECT_THAT(runs[0].env(), ElementsAre("TOKEN=s3cret"));
  EXPECT_THAT(runs[0].inputs(), ElementsAre(7));
  EXPECT_THAT(Runs(), IsEmpty());
  EXPECT_FALSE(tasks_.Start(StartOf("t1"), now_ns_));  // Heard again while it runs.
  tasks_.OnTime(now_ns_ + 2 * PropellerTasks::kPatienceNs);
  EXPECT_THAT(Reports(), IsEmpty());
  // No call goes there.
  EXPECT_THAT(tasks_.Placements(), IsEmpty());
  EXPECT_THAT(tasks_.Endpoints("n1", [](const std::string& sha) { return sha; }), IsEmpty());
  End(runs[0], "printed", "");
  EXPECT_THAT(Reports(), ElementsAre("t1: printed|"));
  EXPECT_EQ(tasks_.size(), 0u);
  End(runs[0], "again", "");
  EXPECT_THAT(Reports(), IsEmpty());
}

TEST_F(PropellerRunsTest, AFunctionOfTheSameNameIsAnotherMatter) {
  Begin("t0", true);
  EXPECT_THAT(Reports(), ElementsAre("t0: |env: a function of weft takes none, callers send requests"));
  PropellerCommand function = StartOf("t1");
  function.args.clear();
  function.env.clear();
  function.inputs.clear();
  EXPECT_TRUE(tasks_.Start(function, now_ns_));
  tasks_.ModuleOf("t1", std::string(64, 'b'), true, now_ns_);
  Begin("t2");
  EXPECT_EQ(Runs().size(), 1u);
  EXPECT_THAT(Reports(), IsEmpty());
  EXPECT_EQ(tasks_.Placements().size(), 1u);
  tasks_.Stop("t2", now_ns_);
  EXPECT_EQ(tasks_.size(), 1u);
}

TEST_F(PropellerRunsTest, WhatIsStoppedOrLostIsNotTakenForAnother) {
  Begin("t1");
  const api::RunOnce first = Runs()[0];
  tasks_.Stop("t1", now_ns_);
  Begin("t1");
  End(first, "of the first", "");
  EXPECT_THAT(Reports(), IsEmpty());
  EXPECT_EQ(Runs().size(), 1u);
  tasks_.LoseRuns("lost");
  EXPECT_THAT(Reports(), ElementsAre("t1: |lost"));
  Begin("t2");
  tasks_.LoseRuns("lost");  // It has not begun.
  EXPECT_THAT(Reports(), IsEmpty());
  tasks_.DropRuns("not saved");
  EXPECT_THAT(Runs(), IsEmpty());
  EXPECT_THAT(Reports(), ElementsAre("t2: |not saved"));
  PropellerCommand large = StartOf("t3");
  large.args = {std::string(20'000, 'x')};
  EXPECT_FALSE(tasks_.Start(large, now_ns_));
  EXPECT_EQ(tasks_.size(), 0u);
  EXPECT_THAT(Reports(), ElementsAre(HasSubstr("at most 16384")));
}

TEST_F(PropellerRunsTest, ARestartRunsNothingAgainAndKeepsNoSecret) {
  Begin("t1");
  const std::string to_run = tasks_.Save();
  EXPECT_EQ(Runs().size(), 1u);
  const std::string running = tasks_.Save();
  tasks_ = PropellerTasks("ns", "h");
  EXPECT_TRUE(tasks_.Start(StartOf("t2", "image"), now_ns_));
  const std::string fetching = tasks_.Save();
  for (const std::string& text : {to_run, running, fetching}) {
    EXPECT_THAT(text, Not(HasSubstr("s3cret")));
    tasks_ = PropellerTasks("ns", "h");
    ASSERT_TRUE(tasks_.Load(text, [](const std::string&) { return absl::OkStatus(); }, now_ns_).ok());
    EXPECT_EQ(tasks_.size(), 0u);
    EXPECT_THAT(Runs(), IsEmpty());
    EXPECT_THAT(Reports(), ElementsAre(HasSubstr("lost with a restart of weft-control")));
  }
}

TEST_F(PropellerRunsTest, WhatARunOfTheFormerProcessCameToIsNotTheNextOnes) {
  Begin("t1");
  const std::vector<api::RunOnce> former = Runs();
  ASSERT_EQ(former.size(), 1u);
  tasks_ = PropellerTasks("ns", "h");
  now_ns_ += kNsPerSecond;
  Begin("t1");
  EXPECT_EQ(Runs().size(), 1u);
  End(former[0], "of the former", "");
  EXPECT_THAT(Reports(), IsEmpty());
}

TEST_F(PropellerRunsTest, WhatARunTookIsToldWhereItIsMonitored) {
  for (const bool monitored : {true, false}) {
    PropellerCommand start = StartOf("t1");
    start.monitored = monitored;
    EXPECT_TRUE(tasks_.Start(start, now_ns_));
    tasks_.ModuleOf("t1", sha_, false, now_ns_);
    const std::vector<api::RunOnce> runs = Runs();
    ASSERT_EQ(runs.size(), 1u);
    api::RunEnded ended;
    ended.set_run(runs[0].run());
    ended.set_cpu_ns(3);
    ended.set_elapsed_ns(4);
    ended.set_memory_bytes(5);
    tasks_.Ended(ended);
    const std::vector<PropellerTasks::Report> reports = tasks_.TakeReports();
    ASSERT_EQ(reports.size(), 1u);
    EXPECT_EQ(reports[0].usage.cpu_ns, monitored ? 3u : 0u);
    EXPECT_EQ(reports[0].usage.elapsed_ns, monitored ? 4u : 0u);
    EXPECT_EQ(reports[0].usage.memory_bytes, monitored ? 5u : 0u);
  }
  EXPECT_THAT(
      TaskMetricsText("p", "t1", {kNsPerSecond, 4 * kNsPerSecond, 65'536, 4 * kNsPerSecond, {}}),
      HasSubstr(
          R"("metrics":{"cpu_percent":25.0,"memory_bytes":65536,"thread_count":1,"uptime_seconds":4},"proplet_id":"p","task_id":"t1")"));
}

class PropellerInvokeTest : public PropellerRunsTest {
 protected:
  void BeginLatent(bool arguments = true) {
    PropellerCommand start = StartOf("t1");
    start.latent = true;
    if (!arguments) {
      start.args.clear();
      start.env.clear();
      start.inputs.clear();
    }
    EXPECT_TRUE(tasks_.Start(start, now_ns_));
    tasks_.ModuleOf("t1", sha_, false, now_ns_);
  }
  void Invoke(const std::string& invocation, std::vector<std::string> env = {},
              std::vector<std::string> inputs = {}) {
    PropellerCommand invoke;
    invoke.task = "t1";
    invoke.invocation = invocation;
    invoke.env = std::move(env);
    invoke.inputs = std::move(inputs);
    tasks_.Invoke(invoke, now_ns_);
  }
  std::vector<std::string> Invoked() {
    std::vector<std::string> reports;
    for (const PropellerTasks::Report& each : tasks_.TakeReports()) {
      EXPECT_TRUE(each.invoked);
      EXPECT_EQ(each.task, "t1");
      reports.push_back(absl::StrCat(each.invocation, ": ", each.results, "|", each.error));
    }
    return reports;
  }
};

TEST_F(PropellerInvokeTest, ALatentTaskIsRunByEachInvocation) {
  Invoke("i0");
  EXPECT_THAT(Invoked(), ElementsAre("i0: |task t1 has not been precompiled here"));
  BeginLatent();
  EXPECT_THAT(Runs(), IsEmpty());
  EXPECT_THAT(tasks_.Modules(), ElementsAre(sha_));
  EXPECT_THAT(tasks_.Placements(), IsEmpty());
  Invoke("i1");
  Invoke("i2", {"TOKEN=other", "MORE=1"}, {"8", "9"});
  const std::vector<api::RunOnce> runs = Runs();
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_EQ(runs[0].module(), "/modules/" + sha_);
  EXPECT_THAT(runs[0].env(), ElementsAre("TOKEN=s3cret"));
  EXPECT_THAT(runs[0].inputs(), ElementsAre(7));
  EXPECT_THAT(runs[1].args(), ElementsAre("a"));
  EXPECT_THAT(runs[1].env(), ElementsAre("TOKEN=other", "MORE=1"));
  EXPECT_THAT(runs[1].inputs(), ElementsAre(8, 9));
  EXPECT_THAT(Runs(), IsEmpty());
  EXPECT_THAT(Invoked(), IsEmpty());
  End(runs[1], "second", "");
  End(runs[1], "again", "");
  End(runs[0], "", "it failed");
  EXPECT_THAT(Invoked(), ElementsAre("i2: second|", "i1: |it failed"));
  Invoke("i3");
  EXPECT_EQ(Runs().size(), 1u);
  tasks_.LoseRuns("lost");
  EXPECT_THAT(Invoked(), ElementsAre("i3: |lost"));
  EXPECT_EQ(tasks_.size(), 1u);
  for (std::size_t i = 0; i <= PropellerTasks::kInvocationsMax; ++i) Invoke(absl::StrCat("many", i));
  EXPECT_THAT(Invoked(), ElementsAre(HasSubstr("invocations already")));
  EXPECT_EQ(Runs().size(), PropellerTasks::kInvocationsMax);
  tasks_.Stop("t1", now_ns_);
  EXPECT_EQ(tasks_.size(), 0u);
}

TEST_F(PropellerInvokeTest, ALatentTaskOutlivesARestartAndItsInvocationsDoNot) {
  BeginLatent(false);
  Invoke("i1");
  EXPECT_EQ(Runs().size(), 1u);
  const std::string saved = tasks_.Save();
  tasks_ = PropellerTasks("ns", "h");
  ASSERT_TRUE(tasks_.Load(saved, [](const std::string&) { return absl::OkStatus(); }, now_ns_).ok());
  EXPECT_THAT(tasks_.Modules(), ElementsAre(sha_));
  EXPECT_THAT(tasks_.Endpoints("n1", [](const std::string& sha) { return sha; }), IsEmpty());
  EXPECT_THAT(Runs(), IsEmpty());
  Invoke("i2");
  EXPECT_EQ(Runs().size(), 1u);
  EXPECT_THAT(Invoked(), IsEmpty());
}

TEST_F(PropellerInvokeTest, AnInvocationOfATaskThatServesIsACallMadeOnce) {
  PropellerCommand start = StartOf("t1");
  start.args.clear();
  start.env.clear();
  start.inputs.clear();
  EXPECT_TRUE(tasks_.Start(start, now_ns_));
  tasks_.ModuleOf("t1", sha_, true, now_ns_);
  Invoke("early");
  EXPECT_THAT(Invoked(), ElementsAre(HasSubstr("not to be called now")));
  MeshState mesh;
  for (const api::Endpoint& each : tasks_.Endpoints("n1", [](const std::string& sha) { return sha; }))
    mesh.Put(MakeEntry(each));
  tasks_.OnProgrammed("n1", mesh, {}, true, now_ns_);
  tasks_.OnTime(now_ns_ + PropellerTasks::kSettleNs);
  EXPECT_EQ(tasks_.TakeReports().size(), 1u);
  Invoke("i1", {}, {"x y"});
  Invoke("i1", {}, {"x y"});  // Said twice
  Invoke("i2", {}, {"a", "b"});
  Invoke("i3", {"A=b"});
  EXPECT_THAT(Invoked(), ElementsAre(HasSubstr("i3: |env: ")));
  const std::vector<FunctionCall> calls = tasks_.TakeCalls();
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_EQ(calls[0].function, "ns/fn");
  EXPECT_EQ(calls[0].payload, "x y");
  EXPECT_EQ(calls[1].payload, R"(["a","b"])");
  EXPECT_THAT(tasks_.TakeCalls(), IsEmpty());
  EXPECT_THAT(Runs(), IsEmpty());
  tasks_.LoseRuns("the agent is away");  // Calls go on without it.
  EXPECT_THAT(Invoked(), IsEmpty());
  tasks_.CallEnded({calls[1].id, absl::OkStatus(), "answer"});
  tasks_.CallEnded({calls[1].id, absl::OkStatus(), "again"});
  tasks_.CallEnded({calls[0].id, absl::DeadlineExceededError("late"), ""});
  EXPECT_THAT(Invoked(), ElementsAre("i2: answer|", "i1: |DEADLINE_EXCEEDED: late"));
}

TEST(ServesCallsTest, OnlyAGoodModuleWithoutHandlerIsRunOnce) {
  const std::string magic("\0asm\1\0\0\0", 8);
  const auto exports = [&](const std::string& name) {
    const char bytes = static_cast<char>(name.size());
    return magic + std::string("\0\1x\7", 4) + static_cast<char>(bytes + 4) + '\1' + bytes + name +
           std::string("\0\0", 2);
  };
  EXPECT_FALSE(ServesCalls(magic));
  EXPECT_FALSE(ServesCalls(exports("_start")));
  EXPECT_TRUE(ServesCalls(exports("weft_handle")));
  EXPECT_TRUE(ServesCalls(""));
  EXPECT_TRUE(ServesCalls("a component, or text"));
  const std::string whole = exports("_start");
  for (std::size_t bytes = magic.size() + 1; bytes < whole.size(); ++bytes) {
    if (bytes == magic.size() + 3) continue;  // A custom section, whole
    EXPECT_TRUE(ServesCalls(whole.substr(0, bytes))) << bytes;
  }
  EXPECT_TRUE(ServesCalls(magic + "\7\xff\xff\xff\xff\xff\xff"));
}

}  // namespace
}  // namespace weft::control
