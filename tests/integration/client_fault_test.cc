// SPDX-License-Identifier: Apache-2.0
// libweft while processes die, stop and come back under load. Every call carries a number of its own, and the
// callees write the numbers that they execute into one file: loss and double execution show as what they are.
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/integration/client_fixture.h"

namespace weft::test {
namespace {

using absl::StatusCode;

// Keeps `depth` calls of one function under way.
class Load {
 public:
  Load(Client& client, Function function, int depth) : client_(client), function_(function), lanes_(depth) {
    for (Lane& lane : lanes_) {
      lane.load = this;
      Start(lane);
    }
  }
  ~Load() { Drain(); }

  // Runs until `calls` more have ended.
  void RunFor(uint64_t calls) {
    const uint64_t until = ended_ + calls;
    while (ended_ < until) {
      if (idle_ == static_cast<int>(lanes_.size())) Restart();
      client_.Wait(absl::Milliseconds(100));
    }
  }
  bool RunUntil(const std::function<bool()>& condition) {
    return Eventually(
        [&] {
          RunFor(20);
          return condition();
        },
        absl::Seconds(20));
  }
  // Starts no more, and waits for what is under way.
  void Drain() {
    stopping_ = true;
    while (idle_ < static_cast<int>(lanes_.size())) client_.Wait(absl::Milliseconds(100));
  }

  uint64_t started() const { return next_; }
  uint64_t ok() const { return ok_; }
  const std::map<uint64_t, absl::Status>& failed() const { return failed_; }

 private:
  struct Lane {
    Load* load = nullptr;
    uint64_t number = 0;
    std::string request;
    std::array<std::byte, 32> response;
  };

  void Start(Lane& lane) {
    if (stopping_) {
      ++idle_;
      return;
    }
    lane.number = next_++;
    lane.request = absl::StrCat(lane.number);
    absl::StatusOr<CallId> call = client_.CallAsync(
        function_, std::as_bytes(std::span(lane.request)), lane.response,
        [](void* context, const CallResult& result) {
          Lane& ended = *static_cast<Lane*>(context);
          ended.load->End(ended, result.status(), result.response_bytes);
        },
        &lane);
    if (call.ok()) return;
    // Nowhere to go just now: tried again by RunFor.
    failed_[lane.number] = call.status();
    ++ended_;
    ++idle_;
  }
  void Restart() {
    absl::SleepFor(absl::Milliseconds(1));
    idle_ = 0;
    for (Lane& lane : lanes_) Start(lane);
  }
  void End(Lane& lane, const absl::Status& status, std::size_t bytes) {
    ++ended_;
    if (status.ok()) {
      ++ok_;
      EXPECT_EQ(bytes, lane.request.size());
      EXPECT_EQ(std::memcmp(lane.response.data(), lane.request.data(), bytes), 0);
    } else {
      failed_[lane.number] = status;
    }
    Start(lane);
  }

  Client& client_;
  Function function_;
  std::vector<Lane> lanes_;
  uint64_t next_ = 0;
  uint64_t ended_ = 0;
  uint64_t ok_ = 0;
  int idle_ = 0;
  bool stopping_ = false;
  std::map<uint64_t, absl::Status> failed_;
};

class ClientFaultTest : public ClientTest {
 protected:
  static constexpr int kDepth = 16;

  void SetUp() override {
    ClientTest::SetUp();
    if (IsSkipped()) return;
    log_ = SharedFile("executed.txt");
  }
  Process& StartLogger(const std::string& name) {
    return StartPeer(name, {"test/log"}, kPeerUid, {"--log", log_});
  }
  // How often each number was executed.
  std::map<uint64_t, int> Executed() const {
    std::map<uint64_t, int> executed;
    for (absl::string_view line : absl::StrSplit(ReadFile(log_), '\n', absl::SkipEmpty())) {
      uint64_t number = 0;
      EXPECT_TRUE(absl::SimpleAtoi(line, &number)) << line;
      ++executed[number];
    }
    return executed;
  }
  // None ran twice; all that were answered ran; what failed did so as a call whose host died.
  void CheckBooks(const Load& load) const {
    const std::map<uint64_t, int> executed = Executed();
    for (const auto& [number, count] : executed) ASSERT_EQ(count, 1) << "call " << number << " ran twice";
    for (uint64_t number = 0; number < load.started(); ++number) {
      if (load.failed().contains(number)) continue;
      ASSERT_TRUE(executed.contains(number)) << "call " << number;
    }
    for (const auto& [number, status] : load.failed()) {
      EXPECT_EQ(status.code(), StatusCode::kUnavailable) << "call " << number << ": " << status;
    }
    EXPECT_EQ(load.ok() + load.failed().size(), load.started());
  }
  // Kills host b three times under load while c serves too; `before_kill` and `after_kill` do what else the
  // test wants.
  void KillCalleeInALoop(const std::function<void()>& before_kill, const std::function<void()>& after_kill);

  std::string log_;
};

void ClientFaultTest::KillCalleeInALoop(const std::function<void()>& before_kill,
                                        const std::function<void()>& after_kill) {
  StartLogger("c");
  Process* victim = &StartLogger("b");
  auto mesh = Attach();
  Client client(*mesh);
  Function function = *client.Resolve("test/log");
  Load load(client, function, kDepth);
  for (int round = 1; round <= 3; ++round) {
    // Until both take calls.
    const uint64_t opened = mesh->Counter("channels_opened");
    ASSERT_GE(opened, 1u);
    load.RunFor(2000);
    before_kill();
    victim->Kill();
    // By the hang-up of its doorbell or by the word of the agent, whichever comes first.
    ASSERT_TRUE(
        load.RunUntil([&] { return mesh->Counter("channels_closed") == static_cast<uint64_t>(round); }));
    load.RunFor(1000);
    // No more than what was there; the rest went on with c.
    EXPECT_LE(load.failed().size(), static_cast<std::size_t>(round * kDepth));
    after_kill();
    if (round == 3) break;
    victim = &StartLogger("b");
    ASSERT_TRUE(load.RunUntil([&] { return mesh->Counter("channels_opened") > opened; }));
  }
  load.Drain();
  CheckBooks(load);
  EXPECT_EQ(mesh->Counter("calls_lost_to_peer"), load.failed().size());
}

TEST_F(ClientFaultTest, KilledCalleeFailsItsCallsAndNoOthers) {
  KillCalleeInALoop([] {}, [] {});
}

TEST_F(ClientFaultTest, KilledCalleeIsNoticedWhileTheAgentIsStopped) {
  KillCalleeInALoop([&] { mesh_->agent().Signal(SIGSTOP); }, [&] { mesh_->agent().Signal(SIGCONT); });
}

TEST_F(ClientFaultTest, KilledCalleeIsNoticedWhileTheAgentIsDead) {
  KillCalleeInALoop([&] { mesh_->agent().Kill(); }, [&] { mesh_->StartAgent(); });
}

TEST_F(ClientFaultTest, AgentKilledAndRestartedUnderLoadFailsNoCall) {
  StartLogger("b");
  StartLogger("c");
  auto mesh = Attach();
  Client client(*mesh);
  Function function = *client.Resolve("test/log");
  Load load(client, function, kDepth);
  for (int round = 0; round < 5; ++round) {
    load.RunFor(1000);
    mesh_->agent().Kill();
    load.RunFor(1000);
    EXPECT_FALSE(mesh->attached());
    mesh_->StartAgent();
    ASSERT_TRUE(load.RunUntil([&] { return mesh->attached(); }));
    load.RunFor(1000);
  }
  // Past the second after which the agent closes what it does not keep.
  const absl::Time later = absl::Now() + absl::Seconds(2);
  while (absl::Now() < later) load.RunFor(100);
  load.Drain();
  EXPECT_EQ(load.failed().size(), 0u)
      << (load.failed().empty() ? absl::OkStatus() : load.failed().begin()->second);
  CheckBooks(load);
  EXPECT_EQ(mesh->Counter("channels_closed"), 0u);
}

TEST_F(ClientFaultTest, ReattachedCallerLearnsOfNewHosts) {
  StartPeer("b", {"test/who"});
  auto mesh = Attach();
  Client client(*mesh);
  Function who = *client.Resolve("test/who");
  EXPECT_EQ(*client.Call(who, ""), "b");
  mesh_->agent().Kill();
  EXPECT_EQ(*client.Call(who, ""), "b");
  mesh_->StartAgent();
  Process& b = peers_.front();
  StartPeer("c", {"test/who"});
  bool seen = false;
  EXPECT_TRUE(Eventually([&] {
    absl::StatusOr<std::string> name = client.Call(who, "");
    seen |= name.ok() && *name == "c";
    return seen;
  }));
  b.Kill();
  EXPECT_TRUE(Eventually([&] {
    absl::StatusOr<std::string> name = client.Call(who, "");
    return name.ok() && *name == "c" && mesh->Counter("channels_closed") == 1;
  }));
}

TEST_F(ClientFaultTest, StoppedCalleeLetsDeadlinesFireAndServesAgain) {
  Process& b = StartPeer("b", {"test/echo"});
  auto mesh = Attach();
  Client client(*mesh);
  Function echo = *client.Resolve("test/echo");
  ASSERT_TRUE(client.Call(echo, "x").ok());
  b.Signal(SIGSTOP);
  const CallOptions hasty{.timeout = absl::Milliseconds(20)};
  for (int i = 0; i < 50; ++i) {
    const absl::Status status = client.Call(echo, "x", hasty).status();
    ASSERT_EQ(status.code(), StatusCode::kDeadlineExceeded) << status;
  }
  // A large message finds nobody who reads.
  const std::string large(8 << 20, 'l');
  EXPECT_EQ(client.Call(echo, large, {.timeout = absl::Milliseconds(300)}).status().code(),
            StatusCode::kDeadlineExceeded);
  b.Signal(SIGCONT);
  EXPECT_TRUE(Eventually([&] { return client.Call(echo, "again").ok(); }));
  absl::StatusOr<std::string> answer = client.Call(echo, large, {.timeout = absl::Seconds(20)});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_TRUE(*answer == large);
}

TEST_F(ClientFaultTest, KilledCallersLeaveTheCalleeUnharmed) {
  StartPeer("b", {"test/echo"});
  auto mesh = Attach();
  Client client(*mesh);
  Function echo = *client.Resolve("test/echo");
  for (int round = 0; round < 5; ++round) {
    const pid_t flooder = fork();
    if (flooder == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      auto own = weft::Mesh::Create({.run_dir = mesh_->run_dir()});
      if (!own.ok() || !(*own)->Attach().ok()) _exit(1);
      Client flood(**own);
      absl::StatusOr<Function> function = flood.Resolve("test/echo");
      if (!function.ok()) _exit(1);
      const std::string request(200'000, 'f');
      for (;;) static_cast<void>(flood.Call(*function, request));
    }
    for (int i = 0; i < 200; ++i) {
      absl::StatusOr<std::string> answer = client.Call(echo, absl::StrCat(i));
      ASSERT_TRUE(answer.ok()) << answer.status();
      EXPECT_EQ(*answer, absl::StrCat(i));
      if (i % 20 == 0) absl::SleepFor(absl::Milliseconds(5));
    }
    kill(flooder, SIGKILL);
    waitpid(flooder, nullptr, 0);
  }
  EXPECT_TRUE(client.Call(echo, "after").ok());
}

// A callee that never answers holds its calls; the caller's deadline ends them, and the table does not leak.
TEST_F(ClientFaultTest, CallsThatAreNeverAnsweredDoNotAccumulate) {
  StartPeer("b", {"test/hold", "test/echo"});
  auto mesh = Attach();
  Client client(*mesh);
  Function hold = *client.Resolve("test/hold");
  int ended = 0;
  constexpr int kCalls = 3000;
  for (int i = 0; i < kCalls; ++i) {
    absl::StatusOr<CallId> call = client.CallAsync(hold, {}, {},
                                                   [&](const CallResult& result) {
                                                     EXPECT_EQ(result.code, StatusCode::kDeadlineExceeded)
                                                         << result.text;
                                                     ++ended;
                                                   },
                                                   {.timeout = absl::Milliseconds(300)});
    while (!call.ok()) {
      ASSERT_EQ(call.status().code(), StatusCode::kResourceExhausted) << call.status();
      client.Wait(absl::Milliseconds(1));
      call = client.CallAsync(hold, {}, {}, [&](const CallResult&) { ++ended; },
                              {.timeout = absl::Milliseconds(300)});
    }
  }
  EXPECT_TRUE(Eventually([&] {
    client.Wait(absl::Milliseconds(50));
    return ended == kCalls;
  }));
  EXPECT_TRUE(client.Call(*client.Resolve("test/echo"), "x").ok());
}

}  // namespace
}  // namespace weft::test
