// SPDX-License-Identifier: Apache-2.0
// A Propeller worker's parts without a broker: what it is told, its tasks, modules in parts and on disk.
#include "control/source/propeller/propeller_worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "control/source/propeller/chunked_modules.h"
#include "control/source/propeller/propeller_commands.h"
#include "control/source/propeller/propeller_messages.h"
#include "control/source/propeller/propeller_state.h"
#include "control/source/propeller/propeller_tasks.h"
#include "dataplane/base/random.h"
#include "tests/support/temporary_directory.h"

namespace weft::control {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

PropellerCommand StartOf(const std::string& id, const std::string& name, const std::string& image = "") {
  PropellerCommand start;
  start.kind = PropellerCommand::Kind::kStart;
  start.task = id;
  start.name = name;
  start.image = image;
  return start;
}

std::string Sha(char digit) { return std::string(64, digit); }

// Tasks on node n1, host h, and an agent that answers as it is told.
class PropellerTasksTest : public testing::Test {
 protected:
  void Start(const std::string& id, const std::string& name, char module) {
    EXPECT_TRUE(tasks_.Start(StartOf(id, name), now_ns_));
    tasks_.ModuleOf(id, Sha(module), true, now_ns_);
  }
  // "fn=a ready"
  std::vector<std::string> Endpoints() {
    std::vector<std::string> endpoints;
    for (const api::Endpoint& each : tasks_.Endpoints("n1", [](const std::string& sha) { return sha; })) {
      endpoints.push_back(absl::StrCat(each.function(), "=", each.module().substr(0, 1),
                                       each.state() == api::ENDPOINT_READY ? " ready" : " draining"));
    }
    return endpoints;
  }
  void Programmed(const std::vector<std::string>& failed = {}, bool all = true) {
    MeshState mesh;
    for (const api::Endpoint& each : tasks_.Endpoints("n1", [](const std::string& sha) { return sha; })) {
      mesh.Put(MakeEntry(each));
    }
    tasks_.OnProgrammed("n1", mesh, failed, all, now_ns_);
  }
  void After(uint64_t ns) {
    now_ns_ += ns;
    tasks_.OnTime(now_ns_);
  }
  std::vector<std::string> Reports() {
    std::vector<std::string> reports;
    for (const PropellerTasks::Report& each : tasks_.TakeReports()) {
      reports.push_back(absl::StrCat(each.task, ": ", each.error.empty() ? "runs" : each.error));
    }
    return reports;
  }

  uint64_t now_ns_ = 1'000 * kNsPerSecond;
  PropellerTasks tasks_{"ns", "h"};
};

TEST_F(PropellerTasksTest, ATaskIsPlacedThenReadyThenDrainsThenGone) {
  Start("t1", "fn", 'a');
  EXPECT_THAT(Endpoints(), ElementsAre("ns/fn=a draining"));
  After(PropellerTasks::kSettleNs);
  EXPECT_THAT(Reports(), IsEmpty());  // The agent has not said anything.
  Programmed({}, false);
  EXPECT_THAT(Endpoints(), ElementsAre("ns/fn=a draining"));
  Programmed();
  EXPECT_THAT(Endpoints(), ElementsAre("ns/fn=a ready"));
  EXPECT_THAT(Reports(), ElementsAre("t1: runs"));
  tasks_.Stop("t1", now_ns_);
  EXPECT_THAT(Endpoints(), ElementsAre("ns/fn=a draining"));
  EXPECT_FALSE(tasks_.Placements().front().ready);
  After(PropellerTasks::kDrainNs - 1);
  EXPECT_THAT(Endpoints(), ElementsAre("ns/fn=a draining"));
  After(1);
  EXPECT_THAT(Endpoints(), IsEmpty());
  EXPECT_THAT(tasks_.Modules(), IsEmpty());
  EXPECT_EQ(tasks_.wake_ns(), 0u);
}

TEST_F(PropellerTasksTest, CallsAreNotSentBeforeOtherNodesCouldLearnOfIt) {
  Start("t1", "fn", 'a');
  Programmed();
  EXPECT_THAT(Endpoints(), ElementsAre("ns/fn=a draining"));
  After(PropellerTasks::kSettleNs - 1);
  EXPECT_THAT(Endpoints(), ElementsAre("ns/fn=a draining"));
  After(1);
  EXPECT_THAT(Endpoints(), ElementsAre("ns/fn=a ready"));
}

TEST_F(PropellerTasksTest, WhatTheAgentCannotPlaceIsReportedAndGone) {
  Start("t1", "fn", 'a');
  Start("t2", "other", 'b');
  Programmed({"ns/fn on host h: wrong hash", "ns/fn on host g: not ours"}, false);
  EXPECT_THAT(Reports(), ElementsAre("t1: ns/fn on host h: wrong hash"));
  EXPECT_THAT(Endpoints(), ElementsAre("ns/other=b draining"));
  // The agent counts what it does not name: nothing follows from that.
  Programmed({"ns/x on host h: y", "and 7 more"});
  EXPECT_THAT(Reports(), IsEmpty());
  After(PropellerTasks::kPatienceNs);
  EXPECT_THAT(Reports(), ElementsAre(HasSubstr("t2: the agent of this node did not take it in time")));
  Start("t3", "fn", 'a');
  tasks_.OnProgrammed("n1", MeshState(), {}, true, now_ns_);  // An operator's word stands against it.
  EXPECT_THAT(Reports(), ElementsAre(HasSubstr("t3: ns/fn on host h: what stands in the mesh")));
}

TEST_F(PropellerTasksTest, ANewerTaskOfTheSameNameTakesOverAndTheOldOneGoesOnWhereItFails) {
  Start("t1", "fn", 'a');
  Programmed();
  After(PropellerTasks::kSettleNs);
  Start("t2", "fn", 'b');
  EXPECT_THAT(Endpoints(), ElementsAre("ns/fn=b ready"));  // The old one serves while the new one loads.
  Programmed({"ns/fn on host h: no handler"});
  EXPECT_THAT(Reports(), ElementsAre("t1: runs", "t2: ns/fn on host h: no handler"));
  EXPECT_THAT(Endpoints(), ElementsAre("ns/fn=a ready"));
  Programmed();
  Start("t3", "fn", 'a');  // The same module: nothing to wait for but the others.
  After(PropellerTasks::kSettleNs);
  EXPECT_THAT(Reports(), ElementsAre("t3: runs"));
  tasks_.Stop("t1", now_ns_);
  EXPECT_THAT(Endpoints(), ElementsAre("ns/fn=a ready"));
  Start("t4", "fn", 'c');
  Start("t5", "fn", 'd');
  EXPECT_THAT(Reports(), ElementsAre("t4: task t5 of the same name is newer"));
}

TEST_F(PropellerTasksTest, RepeatedStartsAndStopsChangeNothing) {
  tasks_.Stop("t1", now_ns_);
  Start("t1", "fn", 'a');
  EXPECT_FALSE(tasks_.Start(StartOf("t1", "fn"), now_ns_));
  Programmed();
  After(PropellerTasks::kSettleNs);
  EXPECT_FALSE(tasks_.Start(StartOf("t1", "fn"), now_ns_));
  EXPECT_THAT(Reports(), ElementsAre("t1: runs", "t1: runs"));
  tasks_.Stop("t1", now_ns_);
  tasks_.Stop("t1", now_ns_ + 1);
  Start("t1", "fn", 'a');  // While it drains: the module is still there.
  After(PropellerTasks::kSettleNs);
  EXPECT_THAT(Endpoints(), ElementsAre("ns/fn=a ready"));
  After(PropellerTasks::kDrainNs);
  EXPECT_THAT(Endpoints(), ElementsAre("ns/fn=a ready"));
  EXPECT_EQ(tasks_.size(), 1u);
}

// Its endpoint is the same throughout, so no generation follows of which the agent could say more.
TEST_F(PropellerTasksTest, WhatWasPlacedAfterItsStopIsReadyWhenItIsStartedAgain) {
  Start("t1", "fn", 'a');
  tasks_.Stop("t1", now_ns_);
  Programmed();
  Start("t2", "fn", 'a');
  EXPECT_THAT(Endpoints(), ElementsAre("ns/fn=a draining"));
  After(PropellerTasks::kSettleNs);
  EXPECT_THAT(Endpoints(), ElementsAre("ns/fn=a ready"));
  EXPECT_THAT(Reports(), ElementsAre("t2: runs"));
}

TEST_F(PropellerTasksTest, WhatCouldNotBePlacedAfterItsStopIsGoneAtOnceAndTriedAnewWhenItIsStartedAgain) {
  Start("t1", "fn", 'a');
  tasks_.Stop("t1", now_ns_);
  EXPECT_TRUE(tasks_.TakeChanged());
  Programmed({"ns/fn on host h: not attached"});
  EXPECT_TRUE(tasks_.TakeChanged());
  EXPECT_THAT(Endpoints(), IsEmpty());
  EXPECT_THAT(Reports(), IsEmpty());  // Whoever stopped it waits for nothing.
  Start("t2", "fn", 'a');
  After(PropellerTasks::kSettleNs);
  EXPECT_THAT(Endpoints(), ElementsAre("ns/fn=a draining"));
  Programmed();
  EXPECT_THAT(Reports(), ElementsAre("t2: runs"));
}

// Each time another module has taken its place, so the agent is to place it anew, which may fail.
TEST_F(PropellerTasksTest, WhatAnotherModuleTookThePlaceOfIsNotReadyBeforeItIsPlacedAnew) {
  Start("t1", "fn", 'a');
  Programmed();
  After(PropellerTasks::kSettleNs);
  EXPECT_THAT(Reports(), ElementsAre("t1: runs"));
  Start("t2", "fn", 'b');
  tasks_.Stop("t2", now_ns_);  // Before the agent's word on it
  Start("t3", "fn", 'a');
  After(PropellerTasks::kSettleNs);
  EXPECT_THAT(Reports(), IsEmpty());
  Programmed();
  EXPECT_THAT(Reports(), ElementsAre("t3: runs"));
  tasks_.Stop("t1", now_ns_);
  tasks_.Stop("t3", now_ns_);
  Start("t4", "fn", 'b');
  Programmed();
  tasks_.Stop("t4", now_ns_);
  Start("t5", "fn", 'a');  // While t3 drains
  EXPECT_THAT(Endpoints(), ElementsAre("ns/fn=a draining"));
  After(PropellerTasks::kSettleNs);
  EXPECT_THAT(Reports(), IsEmpty());
  Programmed({"ns/fn on host h: no handler"});
  EXPECT_THAT(Reports(), ElementsAre("t5: ns/fn on host h: no handler"));
  After(PropellerTasks::kDrainNs);
  EXPECT_THAT(Endpoints(), IsEmpty());
}

// An operator's word, or a generation that came between, is judged as it stands at each word of the agent.
TEST_F(PropellerTasksTest, WhatWasPlacedIsJudgedAnewUntilItIsReadyAndDrainsToItsEndWhereANewerOneFails) {
  Start("t1", "fn", 'a');
  Programmed();
  Programmed({"ns/fn on host h: not attached"}, false);
  EXPECT_THAT(Reports(), ElementsAre("t1: ns/fn on host h: not attached"));
  Start("t2", "fn", 'a');
  Programmed();
  After(PropellerTasks::kSettleNs);
  tasks_.OnProgrammed("n1", MeshState(), {}, true, now_ns_);
  Start("t3", "fn", 'a');
  After(PropellerTasks::kSettleNs);
  EXPECT_THAT(Reports(), ElementsAre("t2: runs"));
  Programmed();
  EXPECT_THAT(Reports(), ElementsAre("t3: runs"));
  tasks_.Stop("t2", now_ns_);
  tasks_.Stop("t3", now_ns_);
  Start("t4", "fn", 'b');
  Programmed({"ns/fn on host h: no handler"});
  EXPECT_THAT(Reports(), ElementsAre("t4: ns/fn on host h: no handler"));
  EXPECT_THAT(Endpoints(), ElementsAre("ns/fn=a draining"));
  After(PropellerTasks::kDrainNs);
  EXPECT_THAT(Endpoints(), IsEmpty());
}

TEST_F(PropellerTasksTest, ModulesThatDoNotComeFailTheirTasks) {
  EXPECT_TRUE(tasks_.Start(StartOf("t1", "fn", "image"), now_ns_));
  EXPECT_TRUE(tasks_.Start(StartOf("t2", "gn", "image"), now_ns_));
  EXPECT_THAT(Endpoints(), IsEmpty());
  EXPECT_THAT(tasks_.Images(), ElementsAre("image"));
  After(PropellerTasks::kPatienceNs - 1);
  tasks_.WaitAnew(now_ns_);
  After(1);
  EXPECT_THAT(Reports(), IsEmpty());
  tasks_.Stop("t2", now_ns_);
  After(PropellerTasks::kPatienceNs);
  EXPECT_THAT(Reports(), ElementsAre(HasSubstr("t1: its module, image, did not come")));
  EXPECT_EQ(tasks_.size(), 0u);
}

TEST_F(PropellerTasksTest, TooManyTasksAreRefused) {
  for (std::size_t i = 0; i < PropellerTasks::kTasksMax; ++i) Start(absl::StrCat("t", i), "fn", 'a');
  EXPECT_FALSE(tasks_.Start(StartOf("more", "fn"), now_ns_));
  EXPECT_THAT(Reports(), ElementsAre("more: this node has 256 tasks already"));
}

TEST_F(PropellerTasksTest, WhatWasSavedIsTakenUp) {
  Start("t1", "fn", 'a');
  Programmed();
  After(PropellerTasks::kSettleNs);
  Start("t2", "gn", 'b');
  EXPECT_TRUE(tasks_.Start(StartOf("t3", "hn", "image"), now_ns_));
  Start("t4", "lost", 'd');
  Start("t5", "kn", 'e');
  tasks_.Stop("t5", now_ns_);
  const std::string saved = tasks_.Save();
  tasks_ = PropellerTasks("ns", "h");
  const auto check = [](const std::string& sha) {
    return sha == Sha('d') ? absl::NotFoundError("gone") : absl::OkStatus();
  };
  ASSERT_TRUE(tasks_.Load(saved, check, now_ns_).ok());
  EXPECT_THAT(Endpoints(), ElementsAre("ns/fn=a ready", "ns/gn=b draining"));
  EXPECT_THAT(tasks_.Images(), ElementsAre("image"));
  EXPECT_THAT(Reports(), ElementsAre("t4: its module is lost: gone"));
  for (const char* bad : {"", "[]", "{}", R"({"tasks":[1]})", R"({"tasks":[{"id":"t","name":"f"}]})",
                          R"({"tasks":[{"id":"../x","name":"f","sha256":"a"}]})"}) {
    EXPECT_FALSE(PropellerTasks("ns", "h").Load(bad, check, now_ns_).ok()) << bad;
  }
}

TEST(PropellerCommandsTest, WhatIsSaidIsRead) {
  auto start = ParsePropellerCommand(
      "control/manager/start",
      R"({"id":"t","name":"f","file":"AGFzbQ==","cli_args":null,"env":{},"inputs":[],"proplet_id":"p","x":1})");
  ASSERT_TRUE(start.ok());
  EXPECT_EQ(start->module, std::string("\0asm", 4));
  EXPECT_EQ(start->refusal, "");
  EXPECT_TRUE(start->IsFor("p"));
  EXPECT_FALSE(start->IsFor("q"));
  start = ParsePropellerCommand("control/manager/start",
                                R"({"id":"t","name":"f","image_url":"i","broadcast":true})");
  EXPECT_TRUE(start->IsFor("q"));
  EXPECT_FALSE(ParsePropellerCommand("control/manager/start", R"({"id":"t","name":"f"})")->IsFor("q"));
  const auto chunk = ParsePropellerCommand(
      "registry/server", R"({"app_name":"i","chunk_idx":1,"total_chunks":2,"data":"AGFzbQ=="})");
  ASSERT_TRUE(chunk.ok());
  EXPECT_EQ(chunk->chunk_index, 1u);
  EXPECT_FALSE(
      ParsePropellerCommand("registry/server", R"({"app_name":"i","chunk_idx":-1,"total_chunks":2})").ok());
  EXPECT_FALSE(ParsePropellerCommand("control/manager/stop", R"({"id":7})").ok());
  EXPECT_FALSE(
      ParsePropellerCommand("control/manager/stop", absl::StrCat(R"({"id":")", std::string(257, 'a'), "\"}"))
          .ok());
  EXPECT_THAT(
      ParsePropellerCommand("control/manager/start", absl::StrCat(R"({"id":"t","name":"f","image_url":")",
                                                                  std::string(1'025, 'a'), "\"}"))
          ->refusal,
      HasSubstr("more than 1024 bytes"));
  start = ParsePropellerCommand(
      "control/manager/start",
      R"({"id":"t","name":"f","file":"AA==","cli_args":["--port","9"],"env":{"A":"b=c"},"inputs":["-1",7,"18446744073709551615"]})");
  EXPECT_EQ(start->refusal, "");
  EXPECT_THAT(start->args, ElementsAre("--port", "9"));
  EXPECT_THAT(start->env, ElementsAre("A=b=c"));
  EXPECT_THAT(start->inputs, ElementsAre("-1", "7", "18446744073709551615"));
  for (const char* more :
       {R"("parent_results":{"a":1})", R"("hal_storage_path":"/x")", R"("env":["A"])", R"("env":{"A":7})",
        R"("env":{"A=B":"s3cret"})", R"("inputs":[1.5])", R"("inputs":"7")", R"("cli_args":[7])"}) {
    const auto refused = ParsePropellerCommand(
        "control/manager/start", absl::StrCat(R"({"id":"t","name":"f","file":"AA==",)", more, "}"));
    EXPECT_NE(refused->refusal, "") << more;
    EXPECT_THAT(refused->refusal, testing::Not(HasSubstr("s3cret")));
  }
}

TEST(PropellerCommandsTest, WhatAWorkerSaysReachesTheOtherNodesAndNotItsOwn) {
  PropellerState state("ns");
  state.set_node("n2");
  const auto say = [&](const std::string& proplet, const std::string& text) {
    const auto message = ParsePropellerMessage("weft/" + proplet, text);
    if (message.ok()) state.Take(*message, 1);
    return message.ok();
  };
  const auto endpoints = [&] {
    std::vector<std::string> all;
    for (const auto& each : state.MeshNow("o").endpoints) {
      all.push_back(absl::StrCat(each.value.function(), "@", each.value.node(), "/", each.value.host(),
                                 each.value.state() == api::ENDPOINT_READY ? " ready" : " draining"));
    }
    return all;
  };
  EXPECT_TRUE(say("p1", WorkerText("n1", "h", {{"t1", "f", false}, {"t2", "g", true}, {"t3", "f", true}})));
  EXPECT_TRUE(say("p2", WorkerText("n2", "h", {{"t4", "f", true}})));
  EXPECT_THAT(endpoints(), UnorderedElementsAre("ns/f@n1/h ready", "ns/g@n1/h ready"));
  EXPECT_TRUE(say("p1", WorkerText("n1", "h", {{"t1", "f", false}})));
  EXPECT_THAT(endpoints(), UnorderedElementsAre("ns/f@n1/h draining"));
  // Its broker says that its weft-control is gone: its hosts serve on. Only its silence takes it away.
  state.Take(*ParsePropellerMessage("control/proplet/alive", AliveText("p1", false)), 2);
  EXPECT_EQ(endpoints().size(), 1u);
  state.OnTime(1 + PropellerState::kSilenceNsMax);
  EXPECT_THAT(endpoints(), IsEmpty());
  state.Take(*ParsePropellerMessage("control/proplet/alive", AliveText("p1", true)), 3);
  EXPECT_EQ(endpoints().size(), 1u);
  EXPECT_TRUE(say("p1", WorkerText("N 1", "h", {})));  // Refused: what it said before stays.
  EXPECT_EQ(endpoints().size(), 1u);
  EXPECT_FALSE(say("p1", R"({"node":"n1"})"));
  EXPECT_FALSE(say("p1", R"({"node":"n1","host":"h","tasks":[7]})"));
  EXPECT_TRUE(say("p1", ""));
  EXPECT_THAT(endpoints(), IsEmpty());
}

TEST(PropellerCommandsTest, WorkersThatLeaveWithoutAFarewellMakeWayForWhoComesAfter) {
  PropellerState state("ns");
  uint64_t now_ns = kNsPerSecond;
  const auto say = [&](const std::string& proplet, const std::string& node) {
    const auto message = ParsePropellerMessage("weft/" + proplet, WorkerText(node, "h", {{"t", "f", true}}));
    ASSERT_TRUE(message.ok()) << message.status();
    state.Take(*message, now_ns);
  };
  // Begun anew again and again on one node, each time with another id: there is one endpoint, not a hundred.
  for (int i = 0; i < 100; ++i) say(absl::StrCat("w", i), "n1");
  EXPECT_EQ(state.MeshNow("o").endpoints.size(), 1u);
  // Nodes that come and go.
  for (int i = 0; i < 1000; ++i) {
    now_ns += PropellerState::kForgetNs;
    state.OnTime(now_ns);
    say("w-stays", "n2");
    say(absl::StrCat("passer-by-", i), absl::StrCat("p", i));
    ASSERT_LE(state.proplets(), 4 * PropellerState::kForgetAtMin) << i;
  }
  EXPECT_EQ(state.MeshNow("o").endpoints.size(), 2u);
}

TEST(PropellerWorkerTest, ACertificateThatCannotBeReadIsTriedAgain) {
  const test::TemporaryDirectory directory;
  PropellerWorkerOptions options;
  options.mqtt.host = "127.0.0.1";
  options.mqtt.port = 1;  // Where nobody listens
  options.mqtt.tls = true;
  options.mqtt.files.ca = directory / "ca.crt";
  options.base_topic = "m/T/c/C";
  options.host = "h";
  options.state_dir = directory.path();
  options.agent_uid = getuid();
  const auto worker = PropellerWorker::Create(options);
  ASSERT_TRUE(worker.ok()) << worker.status();
  (*worker)->OnAgent("n1");
  EXPECT_THAT((*worker)->Health().problem, HasSubstr("certificates"));
  const uint64_t now_ns = NowNs();
  (*worker)->OnTime(now_ns);
  EXPECT_NE((*worker)->wake_ns(), 0u);
  EXPECT_LE((*worker)->wake_ns(), now_ns + PropellerWorker::kConnectAgainNs);
  test::WriteFile(options.mqtt.files.ca, "");  // The next try reads it.
  (*worker)->OnTime(now_ns + PropellerWorker::kConnectAgainNs);
  EXPECT_THAT((*worker)->Health().problem, HasSubstr("no connection yet"));
}

TEST(PropellerWorkerFuzzTest, RandomCommandsBreakNothing) {
  Random random(11);
  const std::vector<std::string> seeds = {
      R"({"id":"t1","name":"f","file":"AGFzbQ==","proplet_id":"p","env":{"a":"b"}})",
      R"({"id":"t1","name":"f","image_url":"i","broadcast":true})", R"({"id":"t2"})",
      R"({"app_name":"i","chunk_idx":0,"total_chunks":2,"data":"AGFzbQ=="})",
      WorkerText("n1", "h", {{"t1", "f", true}})};
  std::vector<std::string> topics = PropellerCommandTopics();
  topics.push_back("weft/p");
  PropellerTasks tasks("ns", "h");
  PropellerState state("ns");
  ChunkedModules modules(100);
  uint64_t now_ns = 1;
  for (int i = 0; i < 20'000; ++i) {
    std::string text = seeds[random.Below(seeds.size())];
    for (uint64_t edits = random.Below(4); edits > 0; --edits) {
      const std::size_t at = random.Below(text.size());
      if (random.Below(2) == 0) {
        text[at] = static_cast<char>(random.Below(256));
      } else {
        text.erase(at, random.Below(8));
        if (text.empty()) text.assign(1, '{');
      }
    }
    const std::string& topic = topics[random.Below(topics.size())];
    now_ns += random.Below(kNsPerSecond);
    if (const auto message = ParsePropellerMessage(topic, text); message.ok()) state.Take(*message, now_ns);
    const auto command = ParsePropellerCommand(topic, text);
    if (!command.ok()) continue;
    if (command->kind == PropellerCommand::Kind::kStart && tasks.Start(*command, now_ns)) {
      modules.Want(command->image);
    } else if (command->kind == PropellerCommand::Kind::kStop) {
      tasks.Stop(command->task, now_ns);
    } else if (command->kind == PropellerCommand::Kind::kChunk) {
      const auto module =
          modules.Take(command->image, command->chunk_index, command->chunks, command->module);
      if (module.ok() && !module->empty())
        tasks.Module(command->image, Sha('a'), random.Below(2) == 0, now_ns);
      if (!module.ok()) tasks.FailImage(command->image, "x");
    }
    tasks.OnTime(now_ns);
    for (const api::RunOnce& run : tasks.TakeRuns([](const std::string& sha) { return sha; })) {
      api::RunEnded ended;
      ended.set_run(run.run());
      if (random.Below(2) == 0) tasks.Ended(ended);
    }
    ASSERT_LE(tasks.size(), PropellerTasks::kTasksMax);
    tasks.TakeReports();
  }
  EXPECT_FALSE(tasks.Save().empty());
  state.MeshNow("o");
}

}  // namespace
}  // namespace weft::control
