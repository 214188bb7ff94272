// SPDX-License-Identifier: Apache-2.0
// Control whole, in one process: real files, real inotify, a real socket, and an agent with a will of its
// own.
#include "control/daemon/controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "control/daemon/control_socket.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/unix_socket.h"
#include "tests/control/publish/scripted_agent.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/turns.h"

namespace weft::control {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string Head() { return "version: 1\nnodes: [{name: n1}]\nfunctions: [{name: v/f}]\n"; }
std::string EndpointOn(const std::string& host) {
  return absl::StrCat("- {function: v/f, node: n1, host: ", host, "}\n");
}
std::string MeshOn(const std::string& host) { return Head() + "endpoints:\n" + EndpointOn(host); }

class ControllerTest : public testing::Test {
 protected:
  void SetUp() override {
    mkdir((directory_ / "mesh.d").c_str(), 0755);
    agent_.Listen();
  }
  void Write(const std::string& name, const std::string& text) {
    test::WriteFile(directory_ / "mesh.d/" + name, text);
  }
  void Remove(const std::string& name) { unlink((directory_ / "mesh.d/" + name).c_str()); }
  void Start(bool allow_shrink = false) {
    controller_.reset();
    auto controller = Controller::Create(
        {directory_ / "mesh.d", directory_ / "admin.sock", directory_ / "state", allow_shrink, {}, {}, {}});
    ASSERT_TRUE(controller.ok()) << controller.status();
    controller_ = *std::move(controller);
  }
  // The daemon's loop, with the agent's turn in it.
  template <typename Done>
  bool RunUntil(Done&& done, uint64_t timeout_ns = 20 * kNsPerSecond) {
    const auto turn = [&] {
      controller_->OnTime(NowNs());
      std::vector<pollfd> entries;
      controller_->AddPollEntries(&entries);
      poll(entries.data(), entries.size(), 1);
      controller_->OnEvents(entries, NowNs());
      agent_.Pump();
    };
    return test::TurnUntil(turn, done, timeout_ns);
  }
  bool RunUntilProgrammed(const std::vector<std::string>& hosts) {
    return RunUntil(
        [&] { return Hosts() == hosts && controller_->link().acknowledged() == agent_.generation; });
  }
  // The files and the agent, for one turn.
  void PollUntilBothAreReady() {
    ASSERT_TRUE(test::Eventually([&] {
      entries_.clear();
      controller_->AddPollEntries(&entries_);
      poll(entries_.data(), entries_.size(), 1);
      return std::count_if(entries_.begin(), entries_.end(),
                           [](const pollfd& entry) { return entry.revents != 0; }) == 2;
    }));
  }
  void RunFor(uint64_t ns) {
    RunUntil([] { return false; }, ns);
  }
  std::vector<std::string> Hosts() const {
    std::vector<std::string> hosts;
    for (const auto& [key, endpoint] : agent_.state.endpoints) hosts.push_back(key.host);
    return hosts;
  }

  test::TemporaryDirectory directory_;
  ScriptedAgent agent_{directory_ / "admin.sock"};
  std::unique_ptr<Controller> controller_;
  std::vector<pollfd> entries_;
};

TEST_F(ControllerTest, AnEditIsProgrammedAndTimed) {
  Write("a.yaml", MeshOn("h1"));
  Start();
  ASSERT_TRUE(RunUntilProgrammed({"h1"}));
  EXPECT_EQ(controller_->record().times().count(), 0u);  // The start is no event.
  Write("a.yaml", MeshOn("h2"));
  ASSERT_TRUE(RunUntilProgrammed({"h2"}));
  EXPECT_EQ(controller_->record().times().count(), 1u);
  const Change& change = controller_->record().changes().back();
  EXPECT_EQ(change.cause, "a.yaml");
  EXPECT_EQ(change.generation, agent_.generation);
  EXPECT_TRUE(change.timed());
  // As `weftctl get changes` asks: the start and the edit, and behind the edit nothing.
  const api::QueryReply all = controller_->Changes(0);
  ASSERT_EQ(all.items_size(), 2);
  EXPECT_EQ(all.items(1).fields(0).number(), static_cast<int64_t>(change.revision));
  EXPECT_EQ(all.items(1).fields(2).text(), "a.yaml");
  EXPECT_EQ(all.items(1).fields(3).number(), static_cast<int64_t>(change.event_ns));
  EXPECT_EQ(all.items(1).fields(4).number(), static_cast<int64_t>(change.programmed_ns));
  EXPECT_EQ(controller_->Changes(change.revision).items_size(), 0);
}

TEST_F(ControllerTest, AChangeIsInForceWhenTheAgentSaysThatItWas) {
  Write("a.yaml", MeshOn("h1"));
  Start();
  ASSERT_TRUE(RunUntilProgrammed({"h1"}));
  agent_.acknowledge = false;
  Write("a.yaml", MeshOn("h2"));
  ASSERT_TRUE(RunUntil([&] { return Hosts() == std::vector<std::string>{"h2"}; }));
  agent_.at_ns = NowNs();
  agent_.AcknowledgeNow();
  ASSERT_TRUE(RunUntilProgrammed({"h2"}));
  EXPECT_EQ(controller_->record().changes().back().programmed_ns, agent_.at_ns);

  // By a clock that is not this machine's: when its word was read.
  for (const uint64_t clock_ns : {uint64_t{1}, uint64_t{1} << 62}) {
    const std::vector<std::string> hosts = {absl::StrCat("of", clock_ns)};
    Write("a.yaml", MeshOn(hosts[0]));
    ASSERT_TRUE(RunUntil([&] { return Hosts() == hosts; }));
    agent_.at_ns = clock_ns;
    const uint64_t before_ns = NowNs();
    agent_.AcknowledgeNow();
    ASSERT_TRUE(RunUntilProgrammed(hosts));
    EXPECT_GE(controller_->record().changes().back().programmed_ns, before_ns);
    EXPECT_LE(controller_->record().changes().back().programmed_ns, NowNs());
  }
}

// The save that the agent's word begins holds what came together with it.
TEST_F(ControllerTest, WhatHasJustComeGoesBeforeWhatIsInForce) {
  agent_.acknowledge = false;
  Write("a.yaml", MeshOn("h1"));
  Start();
  ASSERT_TRUE(RunUntil([&] { return Hosts() == std::vector<std::string>{"h1"}; }));
  agent_.AcknowledgeNow();
  Write("a.yaml", MeshOn("h2"));
  PollUntilBothAreReady();
  controller_->OnEvents(entries_, NowNs());
  EXPECT_TRUE(test::Eventually([&] {
    const absl::StatusOr<LastGood> saved = LoadLastGood(directory_ / "state");
    return saved.ok() && std::any_of(saved->sources.at(0).said.begin(), saved->sources.at(0).said.end(),
                                     [](const EntryPtr& entry) { return entry->key().names[2] == "h2"; });
  }));
}

// What comes in the same turn is for the next agent.
TEST_F(ControllerTest, TheLastWordsOfAnAgentThatGoesAreRead) {
  agent_.acknowledge = false;
  Write("a.yaml", MeshOn("h1"));
  Start();
  ASSERT_TRUE(RunUntil([&] { return Hosts() == std::vector<std::string>{"h1"}; }));
  api::AdminReply nobody;
  nobody.mutable_registrations()->set_node("n1");
  for (int i = 0; i < 100; ++i) agent_.Send(nobody);  // More than one turn takes else
  agent_.AcknowledgeNow();
  agent_.Die();
  Write("a.yaml", MeshOn("h2"));
  PollUntilBothAreReady();
  EXPECT_EQ(controller_->record().changes().back().programmed_ns, 0u);
  controller_->OnEvents(entries_, NowNs());
  ASSERT_EQ(controller_->record().changes().size(), 2u);
  EXPECT_NE(controller_->record().changes().front().programmed_ns, 0u);
  EXPECT_EQ(controller_->record().changes().back().programmed_ns, 0u);
  agent_.acknowledge = true;
  agent_.Listen();
  EXPECT_TRUE(RunUntilProgrammed({"h2"}));
}

TEST_F(ControllerTest, BadHalfEmptyAndMissingFilesDeleteNothing) {
  Write("a.yaml", MeshOn("h1"));
  Start();
  ASSERT_TRUE(RunUntilProgrammed({"h1"}));
  const uint64_t generation = agent_.generation;
  for (const std::string& text :
       {std::string(), MeshOn("h2").substr(0, 60), Head(), std::string("version: 1\n"),
        MeshOn("h2") + "nonsense: 1\n", MeshOn("h2") + EndpointOn("h2")}) {
    Write("a.yaml", text);
    RunFor(150 * kNsPerMs);
    EXPECT_THAT(Hosts(), ElementsAre("h1")) << text;
    const api::QueryReply status = controller_->Status();
    EXPECT_EQ(status.items(1).fields(1).text(), "last good") << text;
    EXPECT_THAT(status.items(1).fields(2).text(), HasSubstr("a.yaml")) << text;
  }
  Remove("a.yaml");
  RunFor(400 * kNsPerMs);
  EXPECT_THAT(Hosts(), ElementsAre("h1"));
  EXPECT_EQ(agent_.generation, generation);
  Write("a.yaml", MeshOn("h3"));
  EXPECT_TRUE(RunUntilProgrammed({"h3"}));
}

TEST_F(ControllerTest, SourcesAreToldWithTheirErrorsAndGeneration) {
  Write("a.yaml", MeshOn("h1"));
  Start();
  ASSERT_TRUE(RunUntilProgrammed({"h1"}));
  Write("a.yaml", "version: [\n");
  const std::string label = absl::StrCat("{source=\"", directory_ / "mesh.d/", "\"}");
  const auto metric = [&](const std::string& name, uint64_t value) {
    return absl::StrCat("\n", name, label, " ", value, "\n");
  };
  ASSERT_TRUE(RunUntil([&] {
    return absl::StrContains(controller_->Metrics(), metric("weft_source_errors_total", 1));
  })) << controller_->Metrics();
  const std::string metrics = controller_->Metrics();
  EXPECT_THAT(metrics, HasSubstr(metric("weft_source_synced", 1)));
  EXPECT_THAT(metrics, HasSubstr(metric("weft_source_generation", agent_.generation)));
  EXPECT_THAT(metrics, HasSubstr("\nweft_control_entries{kind=\"endpoint\"} 1\n"));
  EXPECT_THAT(metrics, HasSubstr("\nweft_control_agent_connected 1\n"));
  const api::QueryReply said = controller_->SaidOf("v/x", "v/f");
  ASSERT_EQ(said.items_size(), 3);
  EXPECT_EQ(said.items(0).fields(1).text(), absl::StrCat(directory_ / "mesh.d/a.yaml", ":3"));
}

TEST_F(ControllerTest, ErrorsAreLoggedWhenTheyComeAndNotWithEachEvent) {
  std::ostringstream log;
  const std::shared_ptr<spdlog::logger> before = spdlog::default_logger();
  spdlog::set_default_logger(
      std::make_shared<spdlog::logger>("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(log)));
  const auto lines_with = [&log](const std::string& text) {
    const std::vector<std::string> lines = absl::StrSplit(log.str(), '\n');
    return std::count_if(lines.begin(), lines.end(),
                         [&](const std::string& line) { return absl::StrContains(line, text); });
  };
  const std::string clash = "functions: [{name: v/f, timeout: 2s}]\n";
  const std::string other = "functions: [{name: v/g, timeout: 2s}]\n";
  Write("a.yaml", MeshOn("h1"));
  Start();
  ASSERT_TRUE(RunUntilProgrammed({"h1"}));
  // One that contradicts it, which is held back, and then edits of the other.
  Write("b.yaml", "version: 1\n" + clash);
  ASSERT_TRUE(RunUntil([&] { return lines_with("[error]") != 0; }));
  const auto errors = lines_with("[error]");
  for (const std::string host : {"h2", "h3", "h4"}) {
    Write("a.yaml", MeshOn(host));
    ASSERT_TRUE(RunUntilProgrammed({host}));
  }
  EXPECT_EQ(lines_with("[error]"), errors) << log.str();
  // Saved again as it was: it is told that it still is wrong, not all of why.
  Write("b.yaml", "version: 1\n" + clash + "\n");
  ASSERT_TRUE(RunUntil([&] { return lines_with("stand as before") != 0; })) << log.str();
  EXPECT_EQ(lines_with("[error]"), errors) << log.str();
  // Mended and wrong again it is told again.
  Write("b.yaml", "version: 1\n" + other);
  ASSERT_TRUE(RunUntil([&] { return controller_->model().state().count(EntryKind::kFunction) == 2; }));
  Write("b.yaml", "version: 1\n" + clash);
  ASSERT_TRUE(RunUntil([&] { return lines_with("[error]") == 2 * errors; })) << log.str();
  spdlog::set_default_logger(before);
}

// All that it is told waits in the buffer of its socket meanwhile.
TEST_F(ControllerTest, AClientThatReadsLateHasTheStatusOfManyFilesWithLongPaths) {
  std::string folder = directory_.path();
  while (folder.size() < 3500) {
    absl::StrAppend(&folder, "/", std::string(200, 'd'));
    ASSERT_EQ(mkdir(folder.c_str(), 0755), 0);
  }
  for (int i = 100; i < 200; ++i) {
    test::WriteFile(absl::StrCat(folder, "/", i, ".yaml"),
                    absl::StrCat("version: 1\nnodes: [{name: n", i, "}]\n"));
  }
  auto controller =
      Controller::Create({folder, directory_ / "admin.sock", directory_ / "state", false, {}, {}, {}});
  ASSERT_TRUE(controller.ok()) << controller.status();
  controller_ = *std::move(controller);
  ASSERT_TRUE(RunUntil([&] { return agent_.state.nodes.size() == 100; }));
  ControlSocket::Handlers handlers;
  handlers.status = [&] { return controller_->Status(); };
  auto socket = ControlSocket::Create(directory_ / "control.sock", handlers, geteuid());
  ASSERT_TRUE(socket.ok()) << socket.status();
  auto client = ConnectUnix(directory_ / "control.sock");
  ASSERT_TRUE(client.ok()) << client.status();
  api::AdminRequest request;
  request.mutable_query()->set_kind(api::Query::STATUS);
  ASSERT_TRUE(SendMessage(client->get(), request.SerializeAsString()).ok());
  for (int turn = 0; turn < 4; ++turn) {
    std::vector<pollfd> entries;
    (*socket)->AddPollEntries(&entries);
    poll(entries.data(), entries.size(), 5);
    (*socket)->OnEvents(entries);
  }
  EXPECT_EQ((*socket)->clients(), 1u);
  std::vector<std::string> files;
  for (api::AdminReply reply;
       reply.kind_case() == api::AdminReply::KIND_NOT_SET || reply.query_reply().more();) {
    const auto message = ReceiveMessage(client->get());
    ASSERT_TRUE(message.ok()) << message.status();
    ASSERT_TRUE(reply.ParseFromString(message->bytes));
    for (const api::Item& item : reply.query_reply().items()) {
      if (item.fields(0).name() == "file") files.push_back(item.fields(0).text());
    }
  }
  ASSERT_EQ(files.size(), 100u);
  EXPECT_THAT(files.front(), testing::StartsWith("...ddd"));
  EXPECT_THAT(files.front(), testing::EndsWith("/100.yaml"));
}

TEST_F(ControllerTest, AnEmptyStateIsProgrammedWhereItIsMeant) {
  Write("a.yaml", MeshOn("h1"));
  Start();
  ASSERT_TRUE(RunUntilProgrammed({"h1"}));
  Write("a.yaml", "version: 1\nallowShrink: true\n");
  EXPECT_TRUE(RunUntilProgrammed({}));
}

TEST_F(ControllerTest, OneFileOfSeveralGoesAfterItsGrace) {
  Write("a.yaml", MeshOn("h1"));
  Write("b.yaml", "version: 1\nendpoints:\n" + EndpointOn("h2"));
  Start();
  ASSERT_TRUE(RunUntilProgrammed({"h1", "h2"}));
  Remove("b.yaml");
  EXPECT_TRUE(RunUntilProgrammed({"h1"}));
}

TEST_F(ControllerTest, LastGoodStateOutlivesARestartWithABrokenFile) {
  Write("a.yaml", MeshOn("h1"));
  Start();
  ASSERT_TRUE(RunUntilProgrammed({"h1"}));
  const uint64_t generation = agent_.generation;
  controller_.reset();
  Write("a.yaml", "version: [\n");
  agent_.Die();
  agent_.state = {};
  agent_.generation = 0;  // Nor does the agent remember.
  agent_.Listen();
  Start();
  ASSERT_TRUE(RunUntilProgrammed({"h1"}));
  EXPECT_GT(agent_.generation, generation);
}

TEST_F(ControllerTest, AFileRemovedWhileControlWasAwayIsTakenBack) {
  Write("a.yaml", MeshOn("h1"));
  Write("b.yaml", "version: 1\nendpoints:\n" + EndpointOn("h2"));
  Start();
  ASSERT_TRUE(RunUntilProgrammed({"h1", "h2"}));
  controller_.reset();
  Remove("b.yaml");
  Start();
  EXPECT_TRUE(RunUntilProgrammed({"h1"}));
}

TEST_F(ControllerTest, AnEmptyDirectoryAtStartProgramsNothing) {
  agent_.state.nodes["n1"].set_name("n1");
  agent_.generation = 5;
  Start();
  RunFor(200 * kNsPerMs);
  EXPECT_EQ(agent_.parts, 0);
  EXPECT_FALSE(agent_.state.empty());
}

TEST_F(ControllerTest, ADamagedStateFileIsNoReasonToStop) {
  mkdir((directory_ / "state").c_str(), 0755);
  test::WriteFile(directory_ / "state/state.pb", "rotten");
  Write("a.yaml", MeshOn("h1"));
  Start();
  EXPECT_TRUE(RunUntilProgrammed({"h1"}));
}

TEST_F(ControllerTest, EditsWhileTheAgentIsAwayArriveWithItsReturn) {
  Write("a.yaml", MeshOn("h1"));
  Start();
  ASSERT_TRUE(RunUntilProgrammed({"h1"}));
  agent_.Die();
  Write("a.yaml", MeshOn("h2"));
  RunFor(100 * kNsPerMs);
  Write("a.yaml", MeshOn("h3"));
  RunFor(100 * kNsPerMs);
  agent_.Listen();
  EXPECT_TRUE(RunUntilProgrammed({"h3"}));
}

TEST_F(ControllerTest, ManyFilesOfALargeMeshArrive) {
  Write("base.yaml", Head());
  for (int file = 0; file < 20; ++file) {
    std::string text = "version: 1\nendpoints:\n";
    for (int host = 0; host < 200; ++host)
      absl::StrAppend(&text, EndpointOn(absl::StrCat("h", file, "-", host)));
    Write(absl::StrCat("f", file, ".yaml"), text);
  }
  Start();
  ASSERT_TRUE(RunUntil([&] { return agent_.state.endpoints.size() == 4000; }));
  EXPECT_GT(agent_.parts, 1);
  Remove("f7.yaml");
  EXPECT_TRUE(RunUntil([&] { return agent_.state.endpoints.size() == 3800; }));
}

}  // namespace
}  // namespace weft::control
