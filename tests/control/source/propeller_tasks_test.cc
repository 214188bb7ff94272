// SPDX-License-Identifier: Apache-2.0
// Tasks whose modules serve calls: placed, ready, drained, saved. Those that run once:
// propeller_runs_test.cc.
#include "control/source/propeller/propeller_tasks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace weft::control {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

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

}  // namespace
}  // namespace weft::control
