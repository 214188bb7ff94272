// SPDX-License-Identifier: Apache-2.0
// A Propeller worker's parts without a broker: what it is told and tells, and what of it random commands
// break.
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
        tasks.Module(command->image, std::string(64, 'a'), random.Below(2) == 0, now_ns);
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
