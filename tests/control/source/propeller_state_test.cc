// SPDX-License-Identifier: Apache-2.0
// What Propeller's messages mean, and what they only seem to: each of the traps in its formats is a test.
#include "control/source/propeller/propeller_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/control/source/said_mesh.h"

namespace weft::control {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

class PropellerStateTest : public testing::Test {
 protected:
  PropellerStateTest() {
    Say("proplet/create", R"({"proplet_id":"p1","metadata":{"ip":"10.0.0.1"}})");
    Say("proplet/create", R"({"proplet_id":"p2","metadata":{"ip":"fd00::2"}})");
    state_.TakeWantsList();
  }
  void Say(const std::string& topic, const std::string& payload) {
    const absl::StatusOr<PropellerMessage> message =
        ParsePropellerMessage(absl::StrCat("control/", topic), payload);
    ASSERT_TRUE(message.ok()) << message.status();
    state_.Take(*message, now_ns_);
  }
  void Start(const std::string& id, const std::string& name, const std::string& proplet) {
    Say("manager/start",
        absl::StrCat(R"({"id":")", id, R"(","name":")", name, R"(","state":0,"file":"AAAA",)",
                     R"("cli_args":null,"broadcast":false,"proplet_id":")", proplet, "\"}"));
  }
  void Result(const std::string& id, const std::string& proplet, const std::string& result) {
    Say("proplet/results", absl::StrCat(R"({"task_id":")", id, R"(","proplet_id":")", proplet,
                                        R"(","results":")", result, R"(","error":null})"));
  }
  void Serve(const std::string& id, const std::string& proplet, int port = 8222) {
    Start(id, "fn", proplet);
    Result(id, proplet, absl::StrCat("started at port ", port));
  }
  void List(const std::string& tasks, const std::string& proplets = R"({"total":0,"proplets":null})") {
    state_.BeginList(++now_ns_);
    for (const std::string& text : {proplets, tasks}) {
      const absl::StatusOr<PropellerPage> page = ParsePropellerPage(text);
      ASSERT_TRUE(page.ok()) << page.status();
      state_.TakePage(*page, now_ns_);
    }
    state_.EndList(false);
  }
  void JudgeAll(bool serves) {
    for (const PropellerState::Server& server : state_.Doubtful(100)) state_.Judge(server, serves);
  }
  std::vector<std::string> Endpoints() {
    // What was told bit by bit is what would be told as a whole.
    told_.Take(state_.TakeOffer("propeller:t"));
    SaidMesh whole;
    whole.Take(OfferOf(state_.MeshNow("propeller:t")));
    EXPECT_EQ(Texts(told_.mesh()), Texts(whole.mesh()));
    return EndpointsOf(state_.MeshNow("propeller:t"));
  }
  static std::vector<std::string> Texts(const SourceMesh& mesh) {
    std::vector<std::string> all = EndpointsOf(mesh);
    for (const auto& said : mesh.nodes) all.push_back(said.value.name());
    return all;
  }
  static std::vector<std::string> EndpointsOf(const SourceMesh& mesh) {
    std::vector<std::string> all;
    for (const auto& said : mesh.endpoints) {
      all.push_back(absl::StrCat(said.value.function(), " ", said.value.node(), " ", said.value.http()));
    }
    return all;
  }

  uint64_t now_ns_ = kNsPerSecond;
  PropellerState state_{"propeller"};
  SaidMesh told_;
};

TEST_F(PropellerStateTest, MalformedMessagesAreRefused) {
  for (const auto& [topic, payload] : std::vector<std::pair<const char*, const char*>>{
           {"control/manager/start", ""},
           {"control/manager/start", "[]"},
           {"control/manager/start", R"({"id":"t"})"},
           {"control/manager/start", R"({"id":7,"name":"fn"})"},
           {"control/manager/start", R"({"id":"t","name":"fn","proplet_id":7})"},
           {"control/manager/stop", R"({"broadcast":true})"},
           {"control/proplet/results", R"({"results":"started at port 1"})"},
           {"control/proplet/create", R"({"metadata":{}})"},
           {"control/proplet/alive", R"({"status":"alive"})"}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParsePropellerMessage(topic, payload).status())) << topic << payload;
  }
  for (const char* result : {"", "started", "started at port ", "started at port x", "started at port 70000",
                             "started at port 0", "port 8222", "started at port 8222 or so"}) {
    EXPECT_EQ(PortInResult(result), 0u) << result;
  }
  EXPECT_EQ(ParsePropellerMessage("registry/proplet", "x")->kind, PropellerMessage::Kind::kOther);
  for (const char* page : {"", "[]", "{}", R"({"tasks":[]})"})
    EXPECT_FALSE(ParsePropellerPage(page).ok()) << page;
  const auto page =
      ParsePropellerPage(R"({"total":4,"tasks":[7,{"id":"a"},{"id":"b","name":"f","state":"x"},)"
                         R"({"id":"c","name":"f","state":99}]})");
  ASSERT_TRUE(page.ok());
  EXPECT_EQ(page->entries, 4u);
  EXPECT_EQ(page->tasks.size(), 1u);  // A state that nobody knows yet is no reason to refuse it.
  EXPECT_THAT(page->problems, ElementsAre(HasSubstr("tasks[0]"), HasSubstr("name"), HasSubstr("state")));
}

TEST_F(PropellerStateTest, AServerIsKnownByTheTextOfItsResult) {
  Start("t1", "fn", "p1");
  EXPECT_THAT(Endpoints(), IsEmpty());
  Result("t1", "p1", "started at port 8222");
  EXPECT_THAT(Endpoints(), ElementsAre("propeller/fn p1 10.0.0.1:8222"));
  Serve("t2", "p2", 9000);
  EXPECT_THAT(Endpoints(),
              UnorderedElementsAre("propeller/fn p1 10.0.0.1:8222", "propeller/fn p2 [fd00::2]:9000"));
  // A task that computes and ends is no server.
  Start("t3", "sum", "p1");
  Result("t3", "p1", "42");
  EXPECT_EQ(Endpoints().size(), 2u);
}

TEST_F(PropellerStateTest, CompletedIsNotStopped) {
  Serve("t1", "p1");
  Result("t1", "p1", "");
  List(
      R"({"total":1,"tasks":[{"id":"t1","name":"fn","state":3,"proplet_id":"p1","results":"started at port 8222"}]})");
  EXPECT_EQ(Endpoints().size(), 1u);
  Say("manager/stop", R"({"id":"t1"})");  // As on the manager's shutdown: no proplet is named.
  EXPECT_THAT(Endpoints(), IsEmpty());
}

TEST_F(PropellerStateTest, AnErrorWithdrawsThatReplicaAlone) {
  Serve("t1", "p1");
  Serve("t1", "p2");
  EXPECT_EQ(Endpoints().size(), 2u);  // A second start adds; it does not move.
  Say("proplet/results", R"({"task_id":"t1","proplet_id":"p1","results":"","error":"trap"})");
  EXPECT_THAT(Endpoints(), ElementsAre("propeller/fn p2 [fd00::2]:8222"));
}

TEST_F(PropellerStateTest, AResultWithoutAPropletIsOfTheOnlyOneThatWasAsked) {
  Start("t1", "fn", "p1");
  Say("proplet/results", R"({"task_id":"t1","results":"started at port 8222"})");
  EXPECT_EQ(Endpoints().size(), 1u);
  Start("t1", "fn", "p2");
  Say("proplet/results", R"({"task_id":"t1","results":"","error":"whose?"})");
  EXPECT_EQ(Endpoints().size(), 1u);
  Say("proplet/results", R"({"task_id":"t1","proplet_id":"p2","results":{"round":1},"error":null})");
  EXPECT_EQ(Endpoints().size(), 1u);
}

TEST_F(PropellerStateTest, ABroadcastRunsWhereverItSaysSo) {
  Say("manager/start", R"({"id":"t1","name":"fn","broadcast":true})");
  Result("t1", "p1", "started at port 8222");
  Result("t1", "p2", "started at port 8223");
  EXPECT_EQ(Endpoints().size(), 2u);
}

TEST_F(PropellerStateTest, WhatIsEncryptedOrBadlyNamedIsRefusedByName) {
  Say("manager/start", R"({"id":"t1","name":"fn","encrypted":true,"proplet_id":"p1"})");
  Result("t1", "p1", "started at port 8222");
  EXPECT_THAT(Endpoints(), IsEmpty());
  EXPECT_THAT(state_.refused().at("t1"), HasSubstr("task t1 (fn): it is encrypted"));
  EXPECT_FALSE(state_.TakeWantsList());
  Start("t2", "No Name", "p1");
  EXPECT_EQ(state_.refused().size(), 2u);
  Serve("t3", "p1");
  EXPECT_EQ(Endpoints().size(), 1u);
  Say("manager/stop", R"({"id":"t1"})");
  EXPECT_EQ(state_.refused().size(), 1u);
}

TEST_F(PropellerStateTest, ASilentPropletIsDeadUntilItSpeaks) {
  Serve("t1", "p1");
  const uint64_t began_ns = now_ns_;
  EXPECT_EQ(state_.wake_ns(), began_ns + PropellerState::kSilenceNsMax);
  now_ns_ += 25 * kNsPerSecond;  // Two beats are missed: that happens.
  state_.OnTime(now_ns_);
  EXPECT_EQ(Endpoints().size(), 1u);
  now_ns_ = began_ns + PropellerState::kSilenceNsMax;
  state_.OnTime(now_ns_);
  EXPECT_THAT(Endpoints(), IsEmpty());
  EXPECT_THAT(state_.MeshNow("o").nodes, IsEmpty());
  Say("proplet/alive", R"({"proplet_id":"p1","status":"alive"})");
  EXPECT_EQ(Endpoints().size(), 1u);
  // The manager's list says inactive and active as it pleases: nothing follows from it.
  List(R"({"total":0,"tasks":[]})", R"({"total":1,"proplets":[{"id":"p1","alive":false,"metadata":{}}]})");
  EXPECT_EQ(Endpoints().size(), 1u);
}

TEST_F(PropellerStateTest, OfPropletsThatAreGoneNoRecordStays) {
  Serve("t1", "p1");
  JudgeAll(true);
  for (int i = 0; i < 5000; ++i) {
    now_ns_ += PropellerState::kSilenceNsMax + 1;
    if (i < 4000) Say("proplet/alive", R"({"proplet_id":"p2","status":"alive"})");
    Say("proplet/create",
        absl::StrCat(R"({"proplet_id":"passer-by-)", i, R"(","metadata":{"ip":"10.0.0.9"}})"));
    state_.OnTime(now_ns_);
    // As many as speak in an hour are not gone yet, twice.
    ASSERT_LE(state_.proplets(), 2 * (PropellerState::kForgetNs / PropellerState::kSilenceNsMax + 4)) << i;
  }
  EXPECT_THAT(Endpoints(), IsEmpty()) << "p1 is dead";
  state_.TakeWantsList();
  Say("proplet/alive", R"({"proplet_id":"p1","status":"alive"})");
  EXPECT_THAT(Endpoints(), ElementsAre("propeller/fn p1 10.0.0.1:8222")) << "and known still, for its task";
  EXPECT_FALSE(state_.TakeWantsList());
}

// Whoever may write to the channel makes names up: what they take is bounded, at once, and the others stay.
TEST_F(PropellerStateTest, InventedPropletsHaveABound) {
  Serve("t1", "p1");
  constexpr std::size_t kMax = PropellerState::kPropletsMax;
  const auto come = [this](std::size_t i) {
    Say("proplet/alive", absl::StrCat(R"({"proplet_id":"invented-)", i, "\"}"));
  };
  for (std::size_t i = 0; i < kMax + 100; ++i) come(i);
  EXPECT_EQ(state_.proplets(), kMax);
  EXPECT_THAT(state_.refused().begin()->second, HasSubstr("more than 10000 proplets"));
  EXPECT_THAT(Endpoints(), ElementsAre("propeller/fn p1 10.0.0.1:8222"));
  // Once those are dead there is room, long before an hour is over.
  now_ns_ += PropellerState::kSilenceNsMax + 1;
  state_.OnTime(now_ns_);
  come(kMax + 100);
  EXPECT_EQ(state_.proplets(), 2u) << "p1, which a task is on, and the new one";
}

TEST_F(PropellerStateTest, InventedReplicasHaveABound) {
  Serve("t1", "p1");
  for (std::size_t i = 0; i < PropellerState::kReplicasMax + 100; ++i) {
    Start("t1", "fn", absl::StrCat("invented-", i));
  }
  EXPECT_EQ(state_.replicas(), PropellerState::kReplicasMax);
  Start("t2", "fn", "p2");
  EXPECT_THAT(state_.refused().at("t2"), HasSubstr("replicas"));
  Say("manager/stop", R"({"id":"t1"})");
  EXPECT_EQ(state_.replicas(), 0u);
  Start("t2", "fn", "p2");
  EXPECT_EQ(state_.replicas(), 1u);
  EXPECT_THAT(state_.refused(), IsEmpty());
  Start("t2", "fn", "no label");
  EXPECT_EQ(state_.replicas(), 1u);
}

TEST_F(PropellerStateTest, FunctionsOfAllWorkersHaveABound) {
  PropellerMessage worker;
  worker.kind = PropellerMessage::Kind::kWorker;
  worker.node = "n1";
  for (int i = 0; i < 1'000; ++i)
    worker.placements.push_back({absl::StrCat("t", i), absl::StrCat("f", i), true});
  constexpr std::size_t kWorkers = PropellerState::kTasksMax / 1'000;
  for (std::size_t i = 0; i < kWorkers + 5; ++i) {
    worker.proplet = worker.host = absl::StrCat("w", i);
    state_.Take(worker, now_ns_);
  }
  EXPECT_EQ(state_.MeshNow("propeller:t").endpoints.size(), PropellerState::kTasksMax);
  EXPECT_EQ(state_.refused().size(), 5u);
  worker.proplet = worker.host = "w0";
  state_.Take(worker, now_ns_);
  EXPECT_EQ(state_.refused().size(), 5u) << "what was taken may be said again";
}

TEST_F(PropellerStateTest, WhatIsRefusedIsQuotedInShort) {
  Start(std::string(100'000, 'x'), std::string(100'000, 'y'), "p1");
  ASSERT_EQ(state_.refused().size(), 1u);
  EXPECT_LE(state_.refused().begin()->first.size() + state_.refused().begin()->second.size(), 1'000u);
}

TEST_F(PropellerStateTest, APropletThatSaysItsAddressIsNoReasonForAList) {
  Say("proplet/create", R"({"proplet_id":"p3","metadata":{"ip":"10.0.0.3"}})");
  EXPECT_FALSE(state_.TakeWantsList());
  Say("proplet/create", R"({"proplet_id":"p4","metadata":{}})");
  EXPECT_TRUE(state_.TakeWantsList());
}

TEST_F(PropellerStateTest, AWillIsOfItsOwnAlone) {
  Serve("t1", "p1");
  Say("proplet/alive", R"({"proplet_id":"the-manager","status":"offline"})");
  EXPECT_EQ(Endpoints().size(), 1u);
  EXPECT_EQ(state_.MeshNow("o").nodes.size(), 2u);
  Say("proplet/alive", R"({"proplet_id":"p1","status":"offline"})");
  EXPECT_THAT(Endpoints(), IsEmpty());
}

TEST_F(PropellerStateTest, ANewProcessOfAPropletRunsNothing) {
  Serve("t1", "p1");
  Say("proplet/create", R"({"proplet_id":"p1","metadata":{"ip":"10.0.0.9"}})");
  EXPECT_THAT(Endpoints(), IsEmpty());
  Result("t1", "p1", "started at port 8300");
  EXPECT_THAT(Endpoints(), ElementsAre("propeller/fn p1 10.0.0.9:8300"));
}

TEST_F(PropellerStateTest, AnAddressThatIsMissingIsWaitedFor) {
  Say("proplet/alive", R"({"proplet_id":"p3","status":"alive"})");  // It was created before we listened.
  EXPECT_TRUE(state_.TakeWantsList());
  Serve("t1", "p3");
  EXPECT_THAT(Endpoints(), IsEmpty());
  List(R"({"total":0,"tasks":[]})", R"({"total":1,"proplets":[{"id":"p3","metadata":{"ip":"10.0.0.3"}}]})");
  EXPECT_THAT(Endpoints(), ElementsAre("propeller/fn p3 10.0.0.3:8222"));
}

TEST_F(PropellerStateTest, WhatOnlyAListTellsOfIsAskedFirst) {
  const std::string tasks =
      R"({"total":2,"tasks":[{"id":"t1","name":"fn","state":3,"proplet_id":"p1","results":"started at port 8222"},)"
      R"({"id":"t2","name":"fn","state":4,"proplet_id":"p1","results":"started at port 8223"}]})";
  List(tasks);
  EXPECT_THAT(Endpoints(), IsEmpty());
  ASSERT_EQ(state_.Doubtful(100).size(), 1u);
  JudgeAll(false);
  EXPECT_THAT(state_.Doubtful(100), IsEmpty());
  List(tasks);  // Asked again
  JudgeAll(true);
  EXPECT_THAT(Endpoints(), ElementsAre("propeller/fn p1 10.0.0.1:8222"));
}

TEST_F(PropellerStateTest, AListNeitherBringsBackWhatWasStoppedNorTakesWhatIsNew) {
  Serve("t1", "p1");
  state_.BeginList(++now_ns_);
  Say("manager/stop", R"({"id":"t1"})");
  Serve("t2", "p1", 8300);
  const auto page = ParsePropellerPage(
      R"({"total":1,"tasks":[{"id":"t1","name":"fn","state":3,"proplet_id":"p1","results":"started at port 8222"}]})");
  state_.TakePage(*page, now_ns_);
  state_.EndList(false);
  EXPECT_THAT(Endpoints(), ElementsAre("propeller/fn p1 10.0.0.1:8300"));
  EXPECT_THAT(state_.Doubtful(100), IsEmpty());
  // The next two hold neither.
  for (int i = 0; i < 2; ++i) {
    now_ns_ += kNsPerSecond;
    List(R"({"total":1,"tasks":[{"id":"t9","name":"fn","state":0}]})");
  }
  EXPECT_THAT(Endpoints(), IsEmpty());
}

// Pages are counted from the list's beginning: where a task of the first one is deleted while they are read,
// the first of the second moves into the one that was read, and is in none.
TEST_F(PropellerStateTest, ATaskThatSlipsBetweenTwoPagesStays) {
  Serve("t1", "p1", 8300);
  Serve("t2", "p1", 8301);
  state_.TakeWantsList();
  const std::string without = R"({"total":1,"tasks":[{"id":"t1","name":"fn","state":3,"proplet_id":"p1"}]})";
  const std::string with = R"({"total":2,"tasks":[{"id":"t1","name":"fn","state":3,"proplet_id":"p1"},)"
                           R"({"id":"t2","name":"fn","state":3,"proplet_id":"p1"}]})";
  const auto both = UnorderedElementsAre("propeller/fn p1 10.0.0.1:8300", "propeller/fn p1 10.0.0.1:8301");
  for (const std::string& next : {with, without}) {
    now_ns_ += kNsPerSecond;
    List(without);
    EXPECT_THAT(Endpoints(), both);
    EXPECT_TRUE(state_.TakeWantsList()) << "whether it is there is asked again soon";
    now_ns_ += kNsPerSecond;
    List(next);
  }
  EXPECT_FALSE(state_.TakeWantsList());
  EXPECT_THAT(Endpoints(), ElementsAre("propeller/fn p1 10.0.0.1:8300"));
}

// After a restart the model holds what an earlier run was told.
TEST_F(PropellerStateTest, TheFirstWordMayNotTakeAwayWhatWasSaidBefore) {
  EXPECT_FALSE(state_.TakeOffer("propeller:t").allow_shrink);
  EXPECT_TRUE(state_.TakeOffer("propeller:t").allow_shrink);
}

TEST_F(PropellerStateTest, AnEmptyListTakesNothing) {
  Serve("t1", "p1");
  now_ns_ += kNsPerSecond;
  List(R"({"total":0,"tasks":[]})");
  EXPECT_EQ(Endpoints().size(), 1u);
}

TEST_F(PropellerStateTest, InDoubtAServerStaysUntilItIsAsked) {
  Serve("t1", "p1");
  Serve("t2", "p2");
  now_ns_ += 2 * PropellerState::kSilenceNsMax;
  state_.Doubt(now_ns_);
  state_.OnTime(now_ns_);  // Nobody was silent: nobody listened.
  EXPECT_EQ(Endpoints().size(), 2u);
  const std::vector<PropellerState::Server> servers = state_.Doubtful(100);
  ASSERT_EQ(servers.size(), 2u);
  state_.Judge(servers[0], true);
  state_.Judge(servers[1], false);
  EXPECT_THAT(Endpoints(), ElementsAre("propeller/fn p1 10.0.0.1:8222"));
}

}  // namespace
}  // namespace weft::control
