// SPDX-License-Identifier: Apache-2.0
// The link against a real socket and an agent that misbehaves.
#include "control/publish/agent_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/random.h"
#include "tests/control/publish/scripted_agent.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/turns.h"

namespace weft::control {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::shared_ptr<const TypedMesh> StateOf(int hosts, int weight = 1, const std::string& node = "n1") {
  auto state = std::make_shared<TypedMesh>();
  state->nodes[node].set_name(node);
  state->functions["v/f"].set_name("v/f");
  for (int i = 0; i < hosts; ++i) {
    api::Endpoint endpoint;
    endpoint.set_function("v/f");
    endpoint.set_node(node);
    endpoint.set_host(absl::StrCat("h", i));
    endpoint.set_module(std::string(100, 'm'));
    endpoint.set_weight(static_cast<uint32_t>(weight));
    state->Add(endpoint);
  }
  return state;
}

class AgentLinkTest : public testing::Test, public AgentLinkObserver {
 protected:
  void Start(uint64_t generation = 0) {
    link_ = std::make_unique<AgentLink>(AgentLink::Options{directory_ / "admin.sock", 1}, generation, &mesh_,
                                        this);
  }
  void SetTarget(const std::shared_ptr<const TypedMesh>& target, uint64_t revision) {
    const std::vector<EntryChange> changes = ChangesOf(mesh_, CompactOf(*target));
    for (const EntryChange& change : changes) {
      if (change.after != nullptr) mesh_.Put(change.after);
      if (change.after == nullptr) mesh_.Erase(change.before->key());
    }
    link_->SetTarget(changes, revision);
  }

  // Runs both sides until `done`, for as long as a slow machine may take.
  template <typename Done>
  bool RunUntil(Done&& done, uint64_t timeout_ns = 20 * kNsPerSecond) {
    const auto turn = [&] {
      link_->OnTime(NowNs());
      pollfd entry{link_->fd(), link_->fd() >= 0 ? link_->poll_events() : short{0}, 0};
      poll(&entry, 1, 1);
      link_->OnEvents(entry.revents, NowNs());
      agent_.Pump();
    };
    return test::TurnUntil(turn, done, timeout_ns);
  }
  bool RunUntilProgrammed(uint64_t revision) {
    return RunUntil([&] { return programmed_ >= revision; });
  }

  void OnConnected() override { ++connected_; }
  void OnDisconnected(const absl::Status& why) override { disconnects_.emplace_back(why.message()); }
  void OnSent(uint64_t generation, uint64_t revision, bool snapshot) override { sent_.push_back(generation); }
  void OnProgrammed(uint64_t revision, const api::Programmed& programmed) override {
    EXPECT_GT(revision, programmed_);
    programmed_ = revision;
    last_programmed_ = programmed;
  }
  void OnRegistrations(const std::vector<api::Registrations::Host>& hosts) override { registered_ = hosts; }
  void OnRunEnded(const api::RunEnded& ended) override { ended_.push_back(ended.run()); }
  void OnRefused(const std::string& reason) override { refusals_.push_back(reason); }

  test::TemporaryDirectory directory_;
  ScriptedAgent agent_{directory_ / "admin.sock"};
  MeshState mesh_;
  std::unique_ptr<AgentLink> link_;
  int connected_ = 0;
  uint64_t programmed_ = 0;
  api::Programmed last_programmed_;
  std::vector<std::string> disconnects_;
  std::vector<std::string> refusals_;
  std::vector<api::Registrations::Host> registered_;
  std::vector<uint64_t> sent_;
  std::vector<std::string> ended_;
};

TEST_F(AgentLinkTest, ASnapshotAfterConnectingThenDeltas) {
  agent_.Listen();
  Start();
  SetTarget(StateOf(3), 1);
  ASSERT_TRUE(RunUntilProgrammed(1));
  EXPECT_EQ(agent_.snapshots, 1);
  SetTarget(StateOf(4), 2);
  ASSERT_TRUE(RunUntilProgrammed(2));
  EXPECT_EQ(agent_.snapshots, 1);
  EXPECT_TRUE(agent_.state == *StateOf(4));
  EXPECT_THAT(agent_.generations, ElementsAre(1, 2));
  EXPECT_EQ(link_->acknowledged(), 2u);
  EXPECT_EQ(link_->node(), "n1");
}

TEST_F(AgentLinkTest, ARunGoesBesideTheGenerationsAndOnlyWhileTheAgentListens) {
  api::RunOnce run;
  run.set_run("r1");
  run.add_args(std::string(16'000, 'x'));
  Start();
  EXPECT_FALSE(link_->Run(run));
  agent_.Listen();
  ASSERT_TRUE(RunUntil([&] { return connected_ == 1; }));
  // More than the socket takes at once: what changes meanwhile is not forgotten behind it.
  agent_.read = false;
  int sent = 0;
  while ((link_->poll_events() & POLLOUT) == 0 && sent < 10'000) sent += link_->Run(run) ? 1 : 0;
  EXPECT_LT(sent, 10'000);
  SetTarget(StateOf(3), 1);
  EXPECT_TRUE(link_->Run(run));
  agent_.read = true;
  ASSERT_TRUE(RunUntilProgrammed(1));
  ASSERT_TRUE(RunUntil([&] { return agent_.runs.size() == static_cast<std::size_t>(sent) + 1; }));
  api::AdminReply reply;
  reply.mutable_run_ended()->set_run("r1");
  agent_.Send(reply);
  EXPECT_TRUE(RunUntil([&] { return !ended_.empty(); }));
  EXPECT_THAT(ended_, ElementsAre("r1"));
  agent_.Die();
  ASSERT_TRUE(RunUntil([&] { return !disconnects_.empty(); }));
  EXPECT_FALSE(link_->Run(run));
}

TEST_F(AgentLinkTest, NothingIsSentBeforeThereIsATarget) {
  agent_.Listen();
  Start();
  ASSERT_TRUE(RunUntil([&] { return connected_ == 1; }));
  EXPECT_FALSE(RunUntil([&] { return agent_.parts > 0; }, 100 * kNsPerMs));
}

TEST_F(AgentLinkTest, AnAgentThatStartsLaterIsFound) {
  Start();
  SetTarget(StateOf(1), 1);
  EXPECT_FALSE(RunUntil([&] { return connected_ > 0; }, 100 * kNsPerMs));
  EXPECT_FALSE(disconnects_.empty());
  // Pauses grow: some ten tries in 100 ms at the very most.
  EXPECT_LT(disconnects_.size(), 15u);
  agent_.Listen();
  EXPECT_TRUE(RunUntilProgrammed(1));
}

TEST_F(AgentLinkTest, GenerationsRiseAboveWhatTheAgentHolds) {
  agent_.generation = 41;
  agent_.Listen();
  Start(7);
  SetTarget(StateOf(1), 1);
  ASSERT_TRUE(RunUntilProgrammed(1));
  EXPECT_THAT(agent_.generations, ElementsAre(42));
  EXPECT_EQ(agent_.refused, 0);
}

TEST_F(AgentLinkTest, GenerationsRiseAboveOneThatWasNeverAcknowledged) {
  agent_.generation = 41;
  agent_.held = 50;
  agent_.Listen();
  Start();
  SetTarget(StateOf(1), 1);
  ASSERT_TRUE(RunUntilProgrammed(1));
  EXPECT_THAT(agent_.generations, ElementsAre(51));
  EXPECT_EQ(agent_.refused, 0);
}

TEST_F(AgentLinkTest, GenerationsRiseAboveWhatAnEarlierRunSent) {
  agent_.generation = 3;
  agent_.Listen();
  Start(9);
  SetTarget(StateOf(1), 1);
  ASSERT_TRUE(RunUntilProgrammed(1));
  EXPECT_THAT(agent_.generations, ElementsAre(10));
}

TEST_F(AgentLinkTest, ARestartedAgentGetsASnapshotAgain) {
  agent_.Listen();
  Start();
  SetTarget(StateOf(3), 1);
  ASSERT_TRUE(RunUntilProgrammed(1));
  agent_.Die();
  ASSERT_TRUE(RunUntil([&] { return !disconnects_.empty(); }));
  agent_.state = {};  // It lost its disk, too.
  SetTarget(StateOf(2), 2);
  agent_.Listen();
  ASSERT_TRUE(RunUntilProgrammed(2));
  EXPECT_TRUE(agent_.state == *StateOf(2));
  EXPECT_EQ(agent_.snapshots, 2);
}

TEST_F(AgentLinkTest, AnAgentThatDiesMidGenerationGetsTheWholeAgain) {
  agent_.Listen();
  agent_.die_after_parts = 2;
  Start();
  SetTarget(StateOf(2000), 1);  // About six parts
  ASSERT_TRUE(RunUntil([&] { return !disconnects_.empty(); }));
  EXPECT_TRUE(agent_.state.empty());
  agent_.die_after_parts = -1;
  agent_.Listen();
  ASSERT_TRUE(RunUntilProgrammed(1));
  EXPECT_TRUE(agent_.state == *StateOf(2000));
}

TEST_F(AgentLinkTest, AnAgentThatDoesNotReadIsWaitedForAndTargetsAreCollapsed) {
  agent_.Listen();
  Start();
  SetTarget(StateOf(1), 1);
  ASSERT_TRUE(RunUntilProgrammed(1));
  agent_.read = false;
  // Far more than a socket buffer holds; the middle ones need never be sent.
  for (uint64_t revision = 2; revision < 30; ++revision) {
    SetTarget(StateOf(4000, static_cast<int>(revision)), revision);
  }
  EXPECT_FALSE(RunUntil([&] { return programmed_ > 1; }, 50 * kNsPerMs));
  agent_.read = true;
  ASSERT_TRUE(RunUntilProgrammed(29));
  EXPECT_TRUE(agent_.state == *StateOf(4000, 29));
  EXPECT_LE(agent_.generations.size(), 4u);
  EXPECT_THAT(disconnects_, IsEmpty());
}

TEST_F(AgentLinkTest, ALateAcknowledgementCoversAllBefore) {
  agent_.Listen();
  agent_.acknowledge = false;
  Start();
  for (uint64_t revision = 1; revision <= 3; ++revision) {
    SetTarget(StateOf(static_cast<int>(revision)), revision);
    ASSERT_TRUE(RunUntil([&] { return agent_.generation == revision; }));
  }
  EXPECT_EQ(programmed_, 0u);
  agent_.cut_off = {"slow"};
  agent_.AcknowledgeNow();
  ASSERT_TRUE(RunUntilProgrammed(3));
  EXPECT_EQ(last_programmed_.cut_off(0), "slow");
}

TEST_F(AgentLinkTest, ARefusalIsToldAndAnotherTargetIsTriedAtOnce) {
  agent_.Listen();
  agent_.refuse = "uid 7 is not control_user";
  Start();
  SetTarget(StateOf(1), 1);
  ASSERT_TRUE(RunUntil([&] { return !refusals_.empty(); }));
  EXPECT_THAT(refusals_[0], HasSubstr("the agent refuses: uid 7 is not control_user"));
  EXPECT_EQ(link_->state(), AgentLink::State::kRefused);
  EXPECT_GT(link_->wake_ns(), NowNs() + 500 * kNsPerMs);
  agent_.refuse.clear();
  SetTarget(StateOf(2), 2);
  ASSERT_TRUE(RunUntilProgrammed(2));
  EXPECT_TRUE(agent_.state == *StateOf(2));
}

TEST_F(AgentLinkTest, AnOlderGenerationIsRefusedOnceThenRaised) {
  agent_.Listen();
  Start();
  SetTarget(StateOf(1), 1);
  ASSERT_TRUE(RunUntilProgrammed(1));
  agent_.generation = 100;  // Another control was here.
  SetTarget(StateOf(2), 2);
  ASSERT_TRUE(RunUntilProgrammed(2));
  EXPECT_EQ(agent_.refused, 1);
  EXPECT_GT(agent_.generation, 100u);
  EXPECT_TRUE(agent_.state == *StateOf(2));
}

TEST_F(AgentLinkTest, AMeshWithoutTheAgentsNodeIsRefusedByName) {
  agent_.Listen();
  agent_.node = "n9";
  Start();
  SetTarget(StateOf(1), 1);
  ASSERT_TRUE(RunUntil([&] { return !refusals_.empty(); }));
  EXPECT_THAT(refusals_[0], HasSubstr("the agent's node is \"n9\", and no `nodes` entry names it"));
  EXPECT_EQ(agent_.parts, 0);
}

TEST_F(AgentLinkTest, GarbageFromTheAgentEndsTheConversation) {
  agent_.Listen();
  Start();
  SetTarget(StateOf(1), 1);
  ASSERT_TRUE(RunUntilProgrammed(1));
  agent_.Send(api::AdminReply());  // An empty packet looks like the end.
  ASSERT_TRUE(RunUntil([&] { return disconnects_.size() == 1; }));
  SetTarget(StateOf(2), 2);
  EXPECT_TRUE(RunUntilProgrammed(2));
}

// Whatever happens to the agent, what it holds in the end is the last target.
TEST_F(AgentLinkTest, RandomTroubleEndsInTheLastTarget) {
  Random random(3);
  agent_.Listen();
  Start();
  uint64_t revision = 0;
  std::shared_ptr<const TypedMesh> target;
  for (int round = 0; round < 60; ++round) {
    target = StateOf(static_cast<int>(random.Below(900)), static_cast<int>(random.Below(3)));
    SetTarget(target, ++revision);
    switch (random.Below(6)) {
      case 0:
        agent_.Die();
        agent_.Listen();
        break;
      case 1:
        agent_.die_after_parts = 1;
        break;
      case 2:
        agent_.generation += random.Below(3);
        break;
      default:
        agent_.die_after_parts = -1;
        agent_.Listen();
    }
    for (uint64_t i = random.Below(10); i > 0; --i) {
      RunUntil([] { return false; }, kNsPerMs);
    }
  }
  agent_.die_after_parts = -1;
  agent_.Listen();
  ASSERT_TRUE(RunUntilProgrammed(revision));
  EXPECT_TRUE(agent_.state == *target);
  EXPECT_TRUE(std::is_sorted(agent_.generations.begin(), agent_.generations.end()));
}

TEST_F(AgentLinkTest, RegistrationsInSeveralPacketsAreOne) {
  Start();
  agent_.Listen();
  ASSERT_TRUE(RunUntil([&] { return connected_ == 1; }));
  for (const bool more : {true, false}) {
    api::AdminReply reply;
    api::Registrations::Host* host = reply.mutable_registrations()->add_hosts();
    host->set_name(more ? "h1" : "h2");
    host->add_serves("v/f");
    reply.mutable_registrations()->set_node("n1");
    reply.mutable_registrations()->set_more(more);
    EXPECT_EQ(registered_.size(), 0u);
    agent_.Send(reply);
  }
  ASSERT_TRUE(RunUntil([&] { return !registered_.empty(); }));
  ASSERT_EQ(registered_.size(), 2u);
  EXPECT_EQ(registered_[1].name(), "h2");
}

}  // namespace
}  // namespace weft::control
