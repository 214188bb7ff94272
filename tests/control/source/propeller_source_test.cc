// SPDX-License-Identifier: Apache-2.0
// The Propeller source at a real broker, with the manager's lists as files behind a real HTTP server.
#include "control/source/propeller/propeller_source.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <csignal>
#include <cstdio>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/control/source/said_mesh.h"
#include "tests/control/source/source_turn.h"
#include "tests/support/etcd.h"
#include "tests/support/mosquitto.h"
#include "tests/support/tls_files.h"
#include "tests/support/turns.h"

namespace weft::control {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// Something that listens on a free port of the loopback.
class Listener {
 public:
  Listener() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(fd_.get(), 16), 0);
    EXPECT_EQ(getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
  }
  int port() const { return port_; }
  void Close() { fd_.Reset(); }

 private:
  UniqueFd fd_;
  int port_ = 0;
};

class PropellerSourceTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::Mosquitto::Installed()) GTEST_SKIP() << "no mosquitto on this machine";
    SetLists(R"({"total":0,"tasks":[]})",
             R"({"total":1,"proplets":[{"id":"p1","alive":false,"metadata":{"ip":"127.0.0.1"}}]})");
    manager_port_ = test::FreePort();
    StartManager();
  }
  void StartManager() {
    test::ProcessOptions options;
    options.arguments = {"/usr/bin/python3", "-m",          "http.server", "--bind",
                         "127.0.0.1",        "--directory", lists_.path(), absl::StrCat(manager_port_)};
    options.log = lists_ / "log";
    manager_ = std::make_unique<test::Process>(options);
    ASSERT_TRUE(test::Eventually([this] {
      bool listens = false;
      TcpProbe probe;
      probe.Start("127.0.0.1", static_cast<uint32_t>(manager_port_), NowNs(),
                  [&](bool yes) { listens = yes; });
      while (probe.busy() != 0) {
        std::vector<pollfd> entries;
        probe.AddPollEntries(&entries);
        poll(entries.data(), entries.size(), 1);
        probe.OnEvents(entries);
        probe.OnTime(NowNs());
      }
      return listens;
    }));
  }
  void SetLists(const std::string& tasks, const std::string& proplets = "") {
    test::WriteFile(lists_ / "tasks", tasks);
    if (!proplets.empty()) test::WriteFile(lists_ / "proplets", proplets);
  }
  static std::string TaskOf(const std::string& id, int port) {
    return absl::StrCat(R"({"id":")", id, R"(","name":"fn","state":3,"proplet_id":"p1","results":)",
                        R"("started at port )", port, "\"}");
  }
  void StartSource(int version = 4, const TlsFiles& tls = {}) {
    PropellerOptions options;
    options.mqtt.host = "127.0.0.1";
    options.mqtt.port = broker_->port();
    options.mqtt.version = version;
    options.mqtt.tls = !tls.ca.empty();
    options.mqtt.files = tls;
    options.base_topic = "m/T/c/C";
    options.manager = absl::StrCat("http://127.0.0.1:", manager_port_);
    options.list_ns = list_ns_;
    auto source = PropellerSource::Create(options);
    ASSERT_TRUE(source.ok()) << source.status();
    source_ = *std::move(source);
  }
  template <typename Done>
  bool RunUntil(Done&& done, uint64_t timeout_ns = 20 * kNsPerSecond) {
    const auto turn = [&] {
      TurnSource(*source_, [this](std::vector<SourceChange> changes) { Take(std::move(changes)); });
      for (const std::string& note : source_->TakeNotes()) absl::StrAppend(&notes_, note, "\n");
    };
    return test::TurnUntil(turn, done, timeout_ns);
  }
  void Take(const std::vector<SourceChange>& changes) {
    for (const SourceChange& change : changes) {
      said_.Take(change.offer);
      fewest_ = std::min(fewest_, said_.count(EntryKind::kEndpoint));
      event_ns_ = change.event_ns;
    }
  }
  std::vector<std::string> Endpoints() const {
    std::vector<std::string> endpoints;
    for (const auto& said : said_.mesh().endpoints) endpoints.push_back(said.value.http());
    return endpoints;
  }
  bool RunUntilSynced() {
    return RunUntil([&] { return source_->Health().synced; });
  }
  bool RunUntilEndpoints(const std::vector<int>& ports) {
    std::vector<std::string> wanted;
    for (const int port : ports) wanted.push_back(absl::StrCat("127.0.0.1:", port));
    return RunUntil([&] { return Endpoints() == wanted; });
  }
  void Say(const std::string& topic, const std::string& payload) {
    broker_->Publish("m/T/c/C/control/" + topic, payload);
  }
  void Serve(const std::string& id, int port) {
    Say("manager/start", absl::StrCat(R"({"id":")", id, R"(","name":"fn","proplet_id":"p1"})"));
    Say("proplet/results", absl::StrCat(R"({"task_id":")", id, R"(","proplet_id":"p1","results":)",
                                        R"("started at port )", port, R"(","error":null})"));
  }

  test::TemporaryDirectory lists_;
  int manager_port_ = 0;
  std::unique_ptr<test::Process> manager_;
  std::optional<test::Mosquitto> broker_;
  uint64_t list_ns_ = 60 * kNsPerSecond;
  std::unique_ptr<PropellerSource> source_;
  SaidMesh said_;
  std::size_t fewest_ = 1'000;
  uint64_t event_ns_ = 0;
  std::string notes_;
};

TEST_F(PropellerSourceTest, WhatIsListedAndWhatIsSaidIsTaken) {
  Listener server;
  const int silent = test::FreePort();
  SetLists(
      absl::StrCat(R"({"total":2,"tasks":[)", TaskOf("t1", server.port()), ",", TaskOf("t2", silent), "]}"));
  broker_.emplace();
  for (const int version : {4, 5}) {
    said_ = {};
    StartSource(version);
    ASSERT_TRUE(RunUntilSynced()) << source_->Health().problem;
    ASSERT_TRUE(RunUntilEndpoints({server.port()})) << notes_;  // Who does not listen is none.
    Serve("t3", 9'999);
    ASSERT_TRUE(RunUntilEndpoints({server.port(), 9'999}));
    EXPECT_NE(event_ns_, 0u);
    Say("manager/start", "{}");  // One bad message
    Say("manager/stop", R"({"id":"t3","broadcast":false,"proplet_id":"p1"})");
    ASSERT_TRUE(RunUntilEndpoints({server.port()}));
    EXPECT_THAT(notes_, HasSubstr("a message on m/T/c/C/control/manager/start id: is missing"));
    EXPECT_EQ(source_->Health().errors, 1u);
  }
}

TEST_F(PropellerSourceTest, ABeatIsNoCauseOfALaterChange) {
  broker_.emplace();
  StartSource();
  ASSERT_TRUE(RunUntilSynced());
  Serve("t1", 4001);
  ASSERT_TRUE(RunUntilEndpoints({4001}));
  const uint64_t before = source_->Health().events;
  Say("proplet/alive", R"({"proplet_id":"p1","status":"alive"})");
  ASSERT_TRUE(RunUntil([&] { return source_->Health().events > before; }));
  const uint64_t after_ns = NowNs();
  Say("proplet/results", R"({"task_id":"t1","proplet_id":"p1","results":"started at port 4002"})");
  ASSERT_TRUE(RunUntilEndpoints({4002}));
  EXPECT_GE(event_ns_, after_ns);
}

TEST_F(PropellerSourceTest, ALostBrokerTakesNothingBackAndWhatEndedMeanwhileGoes) {
  Listener stays, ends;
  broker_.emplace();
  StartSource();
  ASSERT_TRUE(RunUntilSynced()) << source_->Health().problem;
  Serve("t1", stays.port());
  Serve("t2", ends.port());
  ASSERT_TRUE(RunUntilEndpoints({stays.port(), ends.port()}));
  SetLists(absl::StrCat(R"({"total":2,"tasks":[)", TaskOf("t1", stays.port()), ",", TaskOf("t2", ends.port()),
                        "]}"));
  fewest_ = 1'000;
  broker_->Kill();
  ASSERT_TRUE(RunUntil([&] { return !source_->Health().synced; }));
  EXPECT_THAT(source_->Health().problem, HasSubstr("MQTT broker 127.0.0.1:"));
  EXPECT_NE(source_->Health().lost_ns, 0u);
  ends.Close();  // Its stop is said while nobody hears; the lists say "completed" as before.
  broker_->Start();
  ASSERT_TRUE(RunUntilSynced()) << source_->Health().problem;
  EXPECT_TRUE(RunUntilEndpoints({stays.port()}));
  EXPECT_EQ(fewest_, 1u);  // What stays was never away.
  EXPECT_EQ(source_->Health().lost_ns, 0u);
}

TEST_F(PropellerSourceTest, AManagerThatIsAwayOrTalksNonsenseIsTriedAgain) {
  manager_->Kill();
  broker_.emplace();
  StartSource();
  ASSERT_TRUE(RunUntil([&] { return source_->Health().problem.find("manager at") != std::string::npos; }));
  Serve("t1", 9'999);  // Heard, and said once the lists are read.
  EXPECT_THAT(Endpoints(), IsEmpty());
  test::WriteFile(lists_ / "tasks", "nonsense");
  StartManager();
  ASSERT_TRUE(RunUntil([&] {
    return source_->Health().problem.find("is no JSON object") != std::string::npos;
  })) << source_->Health().problem;
  EXPECT_THAT(Endpoints(), IsEmpty());
  SetLists(R"({"total":0,"tasks":[]})");
  ASSERT_TRUE(RunUntilSynced()) << source_->Health().problem;
  EXPECT_TRUE(RunUntilEndpoints({9'999}));
}

TEST_F(PropellerSourceTest, ListsOfSeveralPagesAreReadAgainAndAgain) {
  list_ns_ = 200 * kNsPerMs;
  std::string tasks;
  for (int i = 0; i < 100; ++i) {
    absl::StrAppend(&tasks, i == 0 ? "" : ",", R"({"id":"t)", i, R"(","name":"fn","state":0})");
  }
  SetLists(absl::StrCat(R"({"total":150,"tasks":[)", tasks, "]}"));  // The second page is alike.
  broker_.emplace();
  StartSource();
  ASSERT_TRUE(RunUntilSynced()) << source_->Health().problem;
  EXPECT_THAT(source_->Describe(), HasSubstr("(100 tasks)"));
  EXPECT_THAT(test::ReadFile(lists_ / "log"), HasSubstr("offset=100"));
  Listener server;
  SetLists(absl::StrCat(R"({"total":1,"tasks":[)", TaskOf("t500", server.port()), "]}"));
  EXPECT_TRUE(RunUntilEndpoints({server.port()}));
  // What one list does not hold stays until the next one does not hold it either.
  EXPECT_TRUE(RunUntil([&] { return source_->Describe().find("(1 tasks)") != std::string::npos; }));
}

TEST_F(PropellerSourceTest, WhereTasksGoAllTheTimeOneMoreListIsReadBetweenTwo) {
  list_ns_ = 3 * kNsPerSecond;
  SetLists(R"({"total":1,"tasks":[{"id":"t","name":"fn","state":0,"proplet_id":"p1"}]})");
  broker_.emplace();
  StartSource();
  ASSERT_TRUE(RunUntilSynced());
  const auto lists = [this] {
    std::size_t count = 0;
    const std::string log = test::ReadFile(lists_ / "log");
    for (std::size_t at = 0; (at = log.find("GET /tasks", at)) != std::string::npos; ++at) ++count;
    return count;
  };
  // Each list from the second on misses one that was there before it.
  int started = 0;
  uint64_t next_ns = 0;
  const auto read = [&](std::size_t count) {
    const uint64_t until_ns = NowNs() + 60 * kNsPerSecond;
    while (lists() < count && NowNs() < until_ns) {
      if (NowNs() >= next_ns) {
        Say("manager/start",
            absl::StrCat(R"({"id":"gone-)", started++, R"(","name":"fn","proplet_id":"p1"})"));
        next_ns = NowNs() + 200 * kNsPerMs;
      }
      RunUntil([] { return false; }, 20 * kNsPerMs);
    }
  };
  read(2);
  const uint64_t begun_ns = NowNs();
  read(7);
  ASSERT_GE(lists(), 7u);
  EXPECT_LE(lists() - 2, 2 * ((NowNs() - begun_ns) / list_ns_) + 2);
}

TEST_F(PropellerSourceTest, AListThatNeverEndsIsGivenUp) {
  std::string tasks;
  for (int i = 0; i < 10'000; ++i) {
    absl::StrAppend(&tasks, i == 0 ? "" : ",", R"({"id":"t)", i, R"(","name":"fn","state":0})");
  }
  SetLists(absl::StrCat(R"({"total":1000000000,"tasks":[)", tasks, "]}"));
  broker_.emplace();
  StartSource();
  EXPECT_TRUE(RunUntil(
      [&] { return source_->Health().problem.find("lists more than 100000") != std::string::npos; }));
  EXPECT_FALSE(source_->Health().synced);
}

TEST_F(PropellerSourceTest, TlsAsksForTheRightCertificates) {
  const test::TlsAuthority authority;
  const test::TlsAuthority stranger;
  broker_.emplace(authority.Issue("server"), authority.Issue("client"));
  const TlsFiles good = authority.Issue("weft");
  StartSource(4, {stranger.path("ca.crt"), good.certificate, good.key});
  EXPECT_TRUE(RunUntil([&] {
    return source_->Health().problem.find("certificate verify failed") != std::string::npos;
  })) << source_->Health().problem;
  EXPECT_FALSE(source_->Health().synced);
  StartSource(4, good);
  EXPECT_TRUE(RunUntilSynced()) << source_->Health().problem;
}

TEST_F(PropellerSourceTest, ABrokerThatComesLaterIsFound) {
  broker_.emplace();
  broker_->Kill();
  StartSource();
  ASSERT_TRUE(RunUntil([&] { return source_->Health().errors >= 2; })) << source_->Health().problem;
  EXPECT_FALSE(source_->Health().synced);
  broker_->Start();
  EXPECT_TRUE(RunUntilSynced()) << source_->Health().problem;
}

TEST_F(PropellerSourceTest, ARestartInTheMiddleOfASyncIsBegunAgain) {
  Listener server;
  SetLists(absl::StrCat(R"({"total":1,"tasks":[)", TaskOf("t1", server.port()), "]}"));
  broker_.emplace();
  manager_->Signal(SIGSTOP);  // Its lists do not come.
  StartSource();
  RunUntil([] { return false; }, 300 * kNsPerMs);
  Serve("t2", 9'999);
  RunUntil([] { return false; }, 100 * kNsPerMs);
  EXPECT_FALSE(source_->Health().synced);
  EXPECT_THAT(Endpoints(), IsEmpty());
  broker_->Kill();
  manager_->Signal(SIGCONT);
  RunUntil([] { return false; }, 100 * kNsPerMs);
  EXPECT_FALSE(source_->Health().synced);
  broker_->Start();
  ASSERT_TRUE(RunUntilSynced()) << source_->Health().problem;
  // What was said before the loss, and not listed since, counts only where it answers.
  EXPECT_TRUE(RunUntilEndpoints({server.port()})) << notes_;
}

TEST_F(PropellerSourceTest, TenThousandMessagesAreTakenWhole) {
  constexpr int kTasks = 200;
  constexpr int kRounds = 25;
  broker_.emplace();
  StartSource();
  ASSERT_TRUE(RunUntilSynced()) << source_->Health().problem;
  std::vector<std::pair<std::string, std::string>> messages;
  for (int i = 0; i < kTasks * kRounds; ++i) {
    const std::string id = absl::StrCat("t", i % kTasks);
    messages.emplace_back("m/T/c/C/control/manager/start",
                          absl::StrCat(R"({"id":")", id, R"(","name":"fn","proplet_id":"p1"})"));
    messages.emplace_back("m/T/c/C/control/proplet/results",
                          absl::StrCat(R"({"task_id":")", id, R"(","proplet_id":"p1","results":)",
                                       R"("started at port )", 9'000 + i % kTasks, R"(","error":null})"));
  }
  const uint64_t before = source_->Health().events;
  const uint64_t begin_ns = NowNs();
  std::thread publisher([&] { broker_->PublishAll(messages); });
  const bool taken = RunUntil([&] { return source_->Health().events - before >= messages.size(); });
  const double taken_ms = static_cast<double>(NowNs() - begin_ns) / 1e6;
  publisher.join();
  EXPECT_TRUE(taken) << source_->Health().events - before << " of " << messages.size();
  EXPECT_TRUE(RunUntil([&] { return said_.count(EntryKind::kEndpoint) == kTasks; }))
      << said_.count(EntryKind::kEndpoint);
  EXPECT_EQ(source_->Health().errors, 0u);
  std::printf("%zu messages taken %.0f ms after the first was said\n", messages.size(), taken_ms);
}

}  // namespace
}  // namespace weft::control
