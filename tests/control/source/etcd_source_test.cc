// SPDX-License-Identifier: Apache-2.0
// The etcd source against a real etcd that is written to, compacted, stopped, killed and replaced.
#include "control/source/etcd/etcd_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <functional>
#include <memory>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/control/source/said_mesh.h"
#include "tests/control/source/source_turn.h"
#include "tests/support/etcd.h"
#include "tests/support/turns.h"

namespace weft::control {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class EtcdSourceTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::Etcd::Installed()) GTEST_SKIP() << "no etcd on this machine";
    etcd_.emplace();
  }

  void Start(bool allow_shrink = false, std::vector<std::string> members = {}) {
    auto http = HttpClient::Create();
    ASSERT_TRUE(http.ok());
    source_.reset();
    http_ = *std::move(http);
    EtcdSourceOptions options;
    options.etcd.endpoints = members.empty() ? std::vector<std::string>{etcd_->url()} : std::move(members);
    options.probe_ns = 200 * kNsPerMs;
    options.allow_shrink = allow_shrink;
    source_ = std::make_unique<EtcdSource>(options, http_.get());
  }

  // The daemon's loop.
  template <typename Done>
  bool RunUntil(Done&& done, uint64_t timeout_ns = 20 * kNsPerSecond) {
    const auto turn = [&] {
      TurnSource(*source_, [this](std::vector<SourceChange> changes) { Take(std::move(changes)); });
      for (std::string& note : source_->TakeNotes()) notes_.push_back(std::move(note));
    };
    return test::TurnUntil(turn, done, timeout_ns);
  }
  void Take(std::vector<SourceChange> changes) {
    for (SourceChange& change : changes) {
      EXPECT_FALSE(change.gone);
      EXPECT_THAT(change.errors, IsEmpty());
      said_.Take(change.offer);
      last_ = std::move(change);
      ++changes_;
    }
  }
  bool RunUntilNodes(const std::vector<std::string>& nodes) {
    return RunUntil([&] { return source_->Health().synced && Nodes() == nodes; });
  }
  void RunFor(uint64_t ns) {
    RunUntil([] { return false; }, ns);
  }
  std::vector<std::string> Nodes() const {
    std::vector<std::string> names;
    if (!last_.has_value()) return names;
    for (const auto& node : said_.mesh().nodes) names.push_back(node.value.name());
    return names;
  }
  std::string Notes() const { return absl::StrJoin(notes_, "\n"); }

  std::optional<test::Etcd> etcd_;
  std::unique_ptr<HttpClient> http_;
  std::unique_ptr<EtcdSource> source_;
  std::optional<SourceChange> last_;
  SaidMesh said_;
  int changes_ = 0;
  std::vector<std::string> notes_;
};

TEST_F(EtcdSourceTest, WhatIsThereAndWhatComesIsTaken) {
  etcd_->Put("/weft/nodes/n1", R"({"address":"10.0.0.1:4810"})");
  etcd_->Put("/weft/functions/v/f", R"({"idempotent":true})");
  etcd_->Put("/weft/endpoints/n1/h1/v/f", R"({"weight":7})");
  etcd_->Put("/weft/allow/a/b/v/f", "{}");
  etcd_->Put("/weftother/nodes/n9", "{}");  // Of somebody else
  Start();
  ASSERT_TRUE(RunUntilNodes({"n1"}));
  const SourceMesh& mesh = said_.mesh();
  EXPECT_EQ(last_->event_ns, 0u);  // What was there is no event.
  ASSERT_EQ(mesh.endpoints.size(), 1u);
  EXPECT_EQ(mesh.endpoints[0].value.weight(), 7u);
  EXPECT_EQ(mesh.endpoints[0].value.host(), "h1");
  EXPECT_TRUE(mesh.functions.at(0).value.policy().idempotent());
  EXPECT_EQ(mesh.allow.at(0).value.to(), "v/f");
  etcd_->Put("/weft/nodes/n2", "{}");
  ASSERT_TRUE(RunUntilNodes({"n1", "n2"}));
  EXPECT_NE(last_->event_ns, 0u);
  etcd_->Delete("/weft/nodes/n1");
  ASSERT_TRUE(RunUntilNodes({"n2"}));
}

TEST_F(EtcdSourceTest, AListLongerThanAPageIsWhole) {
  for (int i = 0; i < 45; ++i) {
    std::vector<EtcdOp> ops;
    for (int j = 0; j < 100; ++j) ops.push_back({false, absl::StrCat("/weft/nodes/n", i * 100 + j), "{}", 0});
    ASSERT_TRUE(etcd_->Ask("/v3/kv/txn", EtcdTxnJson({}, ops)).ok());
  }
  Start();
  ASSERT_TRUE(RunUntil([&] { return source_->Health().synced; }));
  EXPECT_EQ(Nodes().size(), 4'500u);
}

TEST_F(EtcdSourceTest, ABadObjectStopsNoOtherAndKeepsWhatItWas) {
  etcd_->Put("/weft/nodes/n1", R"({"zone":"z1"})");
  etcd_->Put("/weft/nodes/bad one", "{}");
  etcd_->Put("/weft/nodes/n0", "[");
  etcd_->Put("/weft/nonsense", "{}");
  Start();
  ASSERT_TRUE(RunUntilNodes({"n1"}));
  EXPECT_EQ(source_->Health().refused, 3u);
  EXPECT_THAT(Notes(), HasSubstr("/weft/nonsense"));
  etcd_->Put("/weft/nodes/n1", R"({"zone":7})");
  etcd_->Put("/weft/nodes/n2", "{}");
  ASSERT_TRUE(RunUntilNodes({"n1", "n2"}));
  EXPECT_EQ(said_.mesh().nodes[0].value.zone(), "z1");
  EXPECT_EQ(source_->Health().refused, 4u);
  EXPECT_THAT(Notes(), HasSubstr("/weft/nodes/n1:1:9: zone"));
  etcd_->Put("/weft/nodes/n1", R"({"zone":"z2"})");
  ASSERT_TRUE(RunUntil([&] { return said_.mesh().nodes[0].value.zone() == "z2"; }));
  etcd_->Delete("/weft/nodes/n0");
  ASSERT_TRUE(RunUntil([&] { return source_->Health().refused == 2; }));
}

TEST_F(EtcdSourceTest, AKilledMemberLosesNothing) {
  etcd_->Put("/weft/nodes/n1", "{}");
  Start();
  ASSERT_TRUE(RunUntilNodes({"n1"}));
  etcd_->Kill();
  ASSERT_TRUE(RunUntil([&] { return !source_->Health().synced; }));
  EXPECT_THAT(source_->Health().problem, HasSubstr(etcd_->url()));
  EXPECT_THAT(Nodes(), ElementsAre("n1"));
  etcd_->Start();
  etcd_->Put("/weft/nodes/n2", "{}");  // Perhaps before the watch stands again
  ASSERT_TRUE(RunUntilNodes({"n1", "n2"}));
  EXPECT_NE(last_->event_ns, 0u);  // The watch went on where it was; nothing was read anew.
}

TEST_F(EtcdSourceTest, AMemberThatDoesNotAnswerIsLeftForAnother) {
  etcd_->Put("/weft/nodes/n1", "{}");
  test::Etcd silent;
  silent.Put("/weft/nodes/n1", "{}");
  silent.Signal(SIGSTOP);
  Start(false, {silent.url(), etcd_->url()});
  ASSERT_TRUE(RunUntilNodes({"n1"}));
  silent.Signal(SIGCONT);
  etcd_->Signal(SIGSTOP);
  EXPECT_TRUE(RunUntil([&] { return !source_->Health().synced; }));
  etcd_->Signal(SIGCONT);
  EXPECT_TRUE(RunUntil([&] { return source_->Health().synced; }));
}

TEST_F(EtcdSourceTest, WhatWasCompactedAwayIsReadAnew) {
  etcd_->Put("/weft/nodes/n1", "{}");
  etcd_->Put("/weft/nodes/n2", "{}");
  Start();
  ASSERT_TRUE(RunUntilNodes({"n1", "n2"}));
  etcd_->Kill();
  ASSERT_TRUE(RunUntil([&] { return !source_->Health().synced; }));
  etcd_->Start();
  etcd_->Delete("/weft/nodes/n1");
  etcd_->Put("/weft/nodes/n3", "{}");
  etcd_->Put("/weft/nodes/n3", "{}");
  etcd_->Compact();
  ASSERT_TRUE(RunUntilNodes({"n2", "n3"}));
  EXPECT_THAT(Notes(), HasSubstr("reading all again"));
}

TEST_F(EtcdSourceTest, AnotherClusterAtTheSameAddressTakesNothingBack) {
  for (int i = 0; i < 20; ++i) etcd_->Put("/weft/nodes/n1", "{}");
  Start();
  ASSERT_TRUE(RunUntilNodes({"n1"}));
  etcd_->Kill();
  ASSERT_TRUE(RunUntil([&] { return !source_->Health().synced; }));
  etcd_->Forget();
  etcd_->Start();
  etcd_->Put("/weft/nodes/n2", "{}");
  ASSERT_TRUE(RunUntilNodes({"n1", "n2"}));
  EXPECT_FALSE(last_->offer.allow_shrink && last_->event_ns == 0);
  EXPECT_THAT(Notes(), HasSubstr("keeping 1 objects"));
}

TEST_F(EtcdSourceTest, WhatAnotherClusterDidNotTakeBackStaysUntilAnEventSaysOtherwise) {
  for (int i = 0; i < 20; ++i) etcd_->Put("/weft/nodes/n1", "{}");
  etcd_->Put("/weft/nodes/n2", "{}");
  etcd_->Put("/weft/nodes/n3", "{}");
  Start();
  ASSERT_TRUE(RunUntilNodes({"n1", "n2", "n3"}));
  const auto write_unseen = [&](bool forget, const std::function<void()>& write) {
    etcd_->Kill();
    ASSERT_TRUE(RunUntil([&] { return !source_->Health().synced; }));
    if (forget) etcd_->Forget();
    etcd_->Start();
    write();
    etcd_->Compact();
  };
  write_unseen(true, [&] { etcd_->Put("/weft/nodes/n4", "{}"); });
  ASSERT_TRUE(RunUntilNodes({"n1", "n2", "n3", "n4"}));
  EXPECT_THAT(source_->Describe(), HasSubstr("(4 objects, 3 of them kept)"));
  etcd_->Put("/weft/nodes/n2", "{}");
  etcd_->Put("/weft/nodes/n1", "{}");
  etcd_->Delete("/weft/nodes/n1");  // The last word, so that the one for n2 has come, too.
  ASSERT_TRUE(RunUntilNodes({"n2", "n3", "n4"}));
  // The same store, read anew: what it has said since is its to take.
  write_unseen(false, [&] {
    etcd_->Delete("/weft/nodes/n2");
    for (int i = 0; i < 3; ++i) etcd_->Put("/weft/nodes/n5", "{}");
  });
  ASSERT_TRUE(RunUntilNodes({"n3", "n4", "n5"})) << absl::StrJoin(Nodes(), " ");
  EXPECT_THAT(Notes(), HasSubstr("reading all again"));
}

// A name that leads to another store for a minute. What the first one said meanwhile counts.
TEST_F(EtcdSourceTest, NothingOfAnotherClusterStaysOnceTheFirstOneAnswersAgain) {
  for (const char* key : {"/weft/nodes/n1", "/weft/nodes/n2", "/weft/nodes/n3"}) etcd_->Put(key, "{}");
  test::Etcd other;
  for (int i = 0; i < 20; ++i) other.Put("/weft/nodes/n4", "{}");  // Its revisions are far ahead.
  other.Put("/weft/nodes/n3", R"({"zone":"z4"})");
  Start(false, {etcd_->url(), other.url()});
  ASSERT_TRUE(RunUntilNodes({"n1", "n2", "n3"}));
  etcd_->Kill();
  ASSERT_TRUE(RunUntilNodes({"n1", "n2", "n3", "n4"}));
  EXPECT_EQ(said_.mesh().nodes[2].value.zone(), "z4");
  EXPECT_THAT(source_->Describe(), HasSubstr("(4 objects, 2 of them kept)"));
  etcd_->Start();
  etcd_->Delete("/weft/nodes/n1");
  other.Kill();
  ASSERT_TRUE(RunUntilNodes({"n2", "n3"})) << absl::StrJoin(Nodes(), " ");
  EXPECT_EQ(said_.mesh().nodes[1].value.zone(), "");
  EXPECT_THAT(source_->Describe(), HasSubstr("(2 objects)"));
}

TEST_F(EtcdSourceTest, AClusterThatAnswersAgainAndIsOlderThanItWasTakesNothingBack) {
  etcd_->Put("/weft/nodes/n1", "{}");
  etcd_->Kill();
  etcd_->Keep();
  etcd_->Start();
  etcd_->Put("/weft/nodes/n2", "{}");
  test::Etcd other;
  other.Put("/weft/nodes/n3", "{}");
  Start(false, {etcd_->url(), other.url()});
  ASSERT_TRUE(RunUntilNodes({"n1", "n2"}));
  etcd_->Kill();
  ASSERT_TRUE(RunUntilNodes({"n1", "n2", "n3"}));
  etcd_->Return();
  etcd_->Start();
  other.Kill();
  ASSERT_TRUE(RunUntil([&] { return absl::StrContains(Notes(), "went back in time"); })) << Notes();
  ASSERT_TRUE(RunUntilNodes({"n1", "n2", "n3"})) << absl::StrJoin(Nodes(), " ");
  EXPECT_THAT(source_->Describe(), HasSubstr("(3 objects, 2 of them kept)"));
}

TEST_F(EtcdSourceTest, WhatWasKeptBeforeAnotherClusterAnsweredIsKeptAfterIt) {
  test::Etcd gone;
  for (const char* key : {"/weft/nodes/n2", "/weft/nodes/n3"}) gone.Put(key, "{}");
  etcd_->Put("/weft/nodes/n1", "{}");
  test::Etcd other;
  other.Put("/weft/nodes/n4", "{}");
  Start(false, {gone.url(), etcd_->url(), other.url()});
  ASSERT_TRUE(RunUntilNodes({"n2", "n3"}));
  gone.Kill();
  ASSERT_TRUE(RunUntilNodes({"n1", "n2", "n3"}));
  etcd_->Kill();
  ASSERT_TRUE(RunUntilNodes({"n1", "n2", "n3", "n4"}));
  other.Put("/weft/nodes/n3", "{}");
  other.Delete("/weft/nodes/n3");
  ASSERT_TRUE(RunUntilNodes({"n1", "n2", "n4"}));
  etcd_->Start();
  other.Kill();
  ASSERT_TRUE(RunUntilNodes({"n1", "n2"})) << absl::StrJoin(Nodes(), " ");
  EXPECT_THAT(source_->Describe(), HasSubstr("(2 objects, 1 of them kept)"));
}

TEST_F(EtcdSourceTest, AnotherClusterTakesBackWhereThatIsMeant) {
  for (int i = 0; i < 20; ++i) etcd_->Put("/weft/nodes/n1", "{}");
  Start(true);
  ASSERT_TRUE(RunUntilNodes({"n1"}));
  etcd_->Kill();
  ASSERT_TRUE(RunUntil([&] { return !source_->Health().synced; }));
  etcd_->Forget();
  etcd_->Start();
  etcd_->Put("/weft/nodes/n2", "{}");
  ASSERT_TRUE(RunUntilNodes({"n2"}));
}

TEST_F(EtcdSourceTest, UserAndTokenAreRenewed) {
  const auto ask = [&](const char* path, const char* body) {
    ASSERT_TRUE(etcd_->Ask(path, body).ok()) << path;
  };
  etcd_->Put("/weft/nodes/n1", "{}");
  ask("/v3/auth/user/add", R"({"name":"root","password":"secret"})");
  ask("/v3/auth/role/add", R"({"name":"root"})");
  ask("/v3/auth/user/grant", R"({"user":"root","role":"root"})");
  ask("/v3/auth/enable", "{}");
  const auto start_as = [&](const std::string& password) {
    auto http = HttpClient::Create();
    ASSERT_TRUE(http.ok());
    source_.reset();
    http_ = *std::move(http);
    EtcdSourceOptions options;
    options.etcd.endpoints = {etcd_->url()};
    options.etcd.user = "root";
    options.etcd.password = password;
    source_ = std::make_unique<EtcdSource>(options, http_.get());
  };
  start_as("wrong");
  ASSERT_TRUE(RunUntil([&] { return !source_->Health().problem.empty(); }));
  EXPECT_THAT(source_->Health().problem, HasSubstr("authentication failed"));
  start_as("secret");
  ASSERT_TRUE(RunUntilNodes({"n1"}));
  // Its tokens die with it: they are of the simple kind. From here on the test itself asks as that user, too.
  etcd_->LoginAs("root", "secret");
  etcd_->Kill();
  ASSERT_TRUE(RunUntil([&] { return !source_->Health().synced; }));
  etcd_->Start();
  EXPECT_TRUE(RunUntil([&] { return source_->Health().synced; }));
}

}  // namespace
}  // namespace weft::control
