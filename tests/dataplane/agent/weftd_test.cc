// SPDX-License-Identifier: Apache-2.0
// weftd as a program: command line, signals, what it tells systemd, death and restart, ten thousand sessions,
// rest.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "dataplane/identity/authority.h"
#include "tests/dataplane/agent/server_fixture.h"
#include "tests/dataplane/agent/silent_fuse.h"
#include "tests/support/mesh.h"
#include "tests/support/process.h"

namespace weft::agent::test {
namespace {

using testing::HasSubstr;
using weft::test::Eventually;
using weft::test::Process;
using weft::test::Program;

class WeftdTest : public testing::Test {
 protected:
  void Configure(const std::string& limits = "{}") {
    weft::test::WriteFile(
        directory_ / "weftd.yaml",
        absl::StrCat("node: n1\nadmit:\n  - tenant: web\n    user: ", geteuid(),
                     "\n    hosts: [a, b]\n    serve: [\"web/*\"]\n    call_as: web\n    limits: ", limits,
                     "\n"));
  }
  std::vector<std::string> Arguments() const {
    return {Program("weftd"),   "--config",    directory_ / "weftd.yaml", "--run-dir",
            directory_ / "run", "--state-dir", directory_ / "state"};
  }
  std::unique_ptr<Process> Start() {
    weft::test::ProcessOptions options;
    options.arguments = Arguments();
    options.log = directory_ / absl::StrCat("log", ++logs_);
    auto weftd = std::make_unique<Process>(std::move(options));
    EXPECT_TRUE(weftd->WaitForOutput("listening", absl::Seconds(10))) << weftd->Output();
    return weftd;
  }
  std::string agent_sock() const { return directory_ / "run/agent.sock"; }

  weft::test::TemporaryDirectory directory_;
  int logs_ = 0;
};

TEST_F(WeftdTest, CommandLineAndSettingsThatAreWrongEndWithTheirExitCodes) {
  EXPECT_EQ(weft::test::Run({Program("weftd"), "--bogus"}).exit_code, 2);
  EXPECT_EQ(weft::test::Run({Program("weftd"), "--log-format", "xml"}).exit_code, 2);
  const auto missing = weft::test::Run({Program("weftd"), "--config", directory_ / "nothing.yaml"});
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_EQ(missing.error,
            absl::StrCat("weftd: open ", directory_ / "nothing.yaml", ": No such file or directory\n"));
  const auto collected =
      weft::test::Run({Program("weftd"), "--config", directory_ / "nothing.yaml", "--log-format", "json"});
  EXPECT_THAT(collected.error,
              testing::MatchesRegex("\\{\"time\":\"[^\"]+\",\"level\":\"critical\",\"message\":\"open "
                                    "[^\"]*nothing.yaml: No such file or directory\"\\}\n"));
  const auto help = weft::test::Run({Program("weftd"), "--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.output, HasSubstr("--state-dir"));
  Configure();
  const auto check = [this](const std::string& node) {
    return weft::test::Run(
        {Program("weftd"), "--check", "--config", directory_ / "weftd.yaml", "--node", node});
  };
  EXPECT_EQ(check("").output, directory_ / "weftd.yaml" + ": good, 1 tenant\n");
  EXPECT_EQ(check("ip-10-0-0-1.internal").exit_code, 0);
  EXPECT_EQ(check("No Label").exit_code, 2);
}

TEST_F(WeftdTest, TheCheckLooksAtTheCertificateToo) {
  const identity::Validity validity{time(nullptr) - 10, time(nullptr) + 3600};
  const auto authority = identity::Authority::Make("dev.example", validity);
  ASSERT_TRUE(authority.ok()) << authority.status();
  const auto pair = authority->IssueNode("n1", validity);
  ASSERT_TRUE(pair.ok()) << pair.status();
  weft::test::WriteFile(directory_ / "ca.pem", authority->ToPem().certificate);
  weft::test::WriteFile(directory_ / "n1.pem", pair->certificate);
  weft::test::WriteFile(directory_ / "n1-key.pem", pair->key);
  chmod((directory_ / "n1-key.pem").c_str(), 0600);
  const auto check = [this](const std::string& node, const std::string& certificate) {
    weft::test::WriteFile(directory_ / "weftd.yaml",
                          absl::StrCat("node: ", node, "\nlisten: 127.0.0.1:4810\nidentity: {certificate: ",
                                       directory_ / certificate, ", key: ", directory_ / "n1-key.pem",
                                       ", ca: ", directory_ / "ca.pem", "}\n"));
    return weft::test::Run({Program("weftd"), "--check", "--config", directory_ / "weftd.yaml"});
  };
  const auto good = check("n1", "n1.pem");
  EXPECT_EQ(good.exit_code, 0) << good.error;
  const auto other = check("n2", "n1.pem");
  EXPECT_EQ(other.exit_code, 1);
  EXPECT_THAT(other.error, HasSubstr("n1.pem is the certificate of node n1, not of n2"));
  const auto missing = check("n1", "none.pem");
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.error, HasSubstr("none.pem"));
}

TEST_F(WeftdTest, NobodyWritesALineOfTheLogButWeftd) {
  Configure();
  const std::unique_ptr<Process> weftd = Start();
  Peer peer(agent_sock());
  EXPECT_FALSE(peer.Hello(
      absl::StrCat("a\n2026-01-01T00:00:00 info forged\x1b[2J\xc2\x9b", std::string(60'000, 'x'))));
  EXPECT_THAT(peer.refusal(), HasSubstr("bad_name")) << "shortened, so that it fits the answer";
  ASSERT_TRUE(weftd->WaitForOutput("bad_name", absl::Seconds(10)));
  EXPECT_THAT(weftd->Output(), HasSubstr("\"a\\n2026-01-01T00:00:00 info forged\\x1b[2J\\xc2\\x9bxxx"));
  for (const absl::string_view line : absl::StrSplit(weftd->Output(), '\n')) EXPECT_LT(line.size(), 2000u);
}

TEST_F(WeftdTest, SignalsStopItCleanly) {
  Configure();
  for (const int signal : {SIGTERM, SIGINT}) {
    const std::unique_ptr<Process> weftd = Start();
    weftd->Signal(signal);
    EXPECT_EQ(weftd->Wait(absl::Seconds(10)), 0);
  }
}

TEST_F(WeftdTest, TellsSystemdWhenItIsReadyAliveAndStopping) {
  const std::string path = directory_ / "notify";
  const UniqueFd notify(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ASSERT_LT(path.size(), sizeof(address.sun_path));
  path.copy(address.sun_path, path.size());
  ASSERT_EQ(bind(notify.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  setenv("NOTIFY_SOCKET", path.c_str(), 1);
  setenv("WATCHDOG_USEC", "20000", 1);
  Configure();
  const std::unique_ptr<Process> weftd = Start();
  unsetenv("NOTIFY_SOCKET");
  unsetenv("WATCHDOG_USEC");
  const auto next = [&] {
    char bytes[256];
    if (!WaitReady(notify.get(), POLLIN, 10'000).ok()) return std::string("nothing");
    return std::string(
        bytes, static_cast<std::size_t>(std::max<ssize_t>(0, recv(notify.get(), bytes, sizeof(bytes), 0))));
  };
  EXPECT_EQ(next(), "READY=1");
  EXPECT_EQ(next(), "WATCHDOG=1");
  EXPECT_EQ(next(), "WATCHDOG=1");
  weftd->Signal(SIGTERM);
  EXPECT_TRUE(Eventually([&] { return next() == "STOPPING=1"; }));
  EXPECT_EQ(weftd->Wait(absl::Seconds(10)), 0);
}

TEST_F(WeftdTest, KilledAgentComesBackWithItsGenerationAndItsSockets) {
  Configure();
  for (uint64_t i = 1; i <= 5; ++i) {
    const std::unique_ptr<Process> weftd = Start();
    AdminPeer admin(directory_ / "run/admin.sock");
    EXPECT_EQ(Field(admin.Ask(api::Query::STATUS).at(0), "generation"), absl::StrCat(i - 1));
    ASSERT_TRUE(admin.Program(i, api::Mesh()).has_value());
    weftd->Kill();
  }
}

// Where the machine stands still, agent and host stand still: the host's time to answer goes on with the
// agent's.
TEST_F(WeftdTest, HostThatStoodStillWithTheAgentIsNotCutOff) {
  Configure();
  const std::unique_ptr<Process> weftd = Start();
  Peer front(agent_sock());
  Peer back(agent_sock());
  ASSERT_TRUE(front.Hello("a", {"web/front"}));
  ASSERT_TRUE(back.Hello("b", {"web/back"}));
  front.Subscribe("web/front", "web/back");
  // Both are asked for their memory and say nothing; then everybody stops.
  ASSERT_TRUE(WaitReady(front.fd(), POLLIN, 10'000).ok());
  ASSERT_TRUE(WaitReady(back.fd(), POLLIN, 10'000).ok());
  weftd->Signal(SIGSTOP);
  absl::SleepFor(absl::Milliseconds(300));
  weftd->Signal(SIGCONT);
  absl::SleepFor(absl::Milliseconds(20));
  std::thread answers([&] { back.PumpUntil([&] { return !back.channel_fds().empty(); }); });
  EXPECT_TRUE(front.PumpUntilRouted("web/front", "web/back"));
  answers.join();
  EXPECT_FALSE(front.closed());
  EXPECT_FALSE(back.closed());
}

// The thread that closes such a file cannot be killed and keeps all descriptors of the dead agent open.
TEST_F(WeftdTest, AgentThatDiedWhileAFileNeverClosedIsReplaced) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root: a mount";
  const std::string mount_point = directory_ / "fuse";
  ASSERT_EQ(mkdir(mount_point.c_str(), 0755), 0);
  const std::unique_ptr<SilentFuse> fuse = SilentFuse::Mount(mount_point);
  if (fuse == nullptr) GTEST_SKIP() << "no FUSE here";
  Configure();
  std::unique_ptr<Process> weftd = Start();
  api::FromHost message;
  message.mutable_hello()->set_protocol(1);
  const std::string bytes = message.SerializeAsString();
  // A process of its own: any that holds the file hangs when it ends, or becomes another program.
  const pid_t sender = fork();
  if (sender == 0) {
    const absl::StatusOr<UniqueFd> socket = ConnectUnix(agent_sock());
    const int file = fuse->Open().Release();
    if (socket.ok()) (void)SendMessage(socket->get(), bytes, {&file, 1});
    for (;;) pause();
  }
  ASSERT_TRUE(Eventually([&] { return fuse->flushes() >= 1; }));
  weftd->Signal(SIGKILL);
  absl::SleepFor(absl::Milliseconds(100));
  const std::unique_ptr<Process> next = Start();
  Peer host(agent_sock());
  EXPECT_TRUE(host.Hello("a", {"web/front"}));
  umount2(mount_point.c_str(), MNT_FORCE);
  kill(sender, SIGKILL);
  EXPECT_EQ(waitpid(sender, nullptr, 0), sender);
}

// Two descriptors a session, ten thousand sessions of one user whose limit lets them in; the bystander is
// served through it all. What the system does not let weftd hold is refused by name.
TEST_F(WeftdTest, TenThousandSessionsAreSurvived) {
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = limit.rlim_max;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  if (limit.rlim_max < 11'000) GTEST_SKIP() << "this process may not hold ten thousand sockets";
  Configure("{clients: 16384}");
  const std::unique_ptr<Process> weftd = Start();
  Peer bystander(agent_sock());
  ASSERT_TRUE(bystander.Hello("a", {"web/front", "web/back"}));
  std::vector<UniqueFd> sockets;
  api::FromHost hello;
  hello.mutable_hello()->set_protocol(1);
  const std::string bytes = hello.SerializeAsString();
  for (int i = 0; i < 10'000; ++i) {
    absl::StatusOr<UniqueFd> socket = ConnectUnix(agent_sock());
    for (int tries = 0; !socket.ok() && tries < 1000; ++tries) {
      absl::SleepFor(absl::Milliseconds(1));  // The backlog is full for a moment.
      socket = ConnectUnix(agent_sock());
    }
    ASSERT_TRUE(socket.ok()) << socket.status();
    (void)SendMessage(socket->get(), bytes);
    sockets.push_back(*std::move(socket));
  }
  bystander.Subscribe("web/front", "web/back");
  EXPECT_TRUE(bystander.PumpUntilRouted("web/front", "web/back"));
  AdminPeer admin(directory_ / "run/admin.sock");
  const auto accounted_for = [&] {
    const std::vector<api::Item> status = admin.Ask(api::Query::STATUS);
    uint64_t clients = 0;
    uint64_t refused = 0;
    if (status.size() != 1 || !absl::SimpleAtoi(Field(status[0], "clients"), &clients)) return false;
    (void)absl::SimpleAtoi(Field(status[0], "refused_too_many_connections"), &refused);
    return clients + refused >= 10'000;
  };
  EXPECT_TRUE(Eventually(accounted_for));
  sockets.clear();
  EXPECT_TRUE(Eventually([&] { return Field(admin.Ask(api::Query::STATUS).at(0), "clients") == "0"; }));
  EXPECT_TRUE(weftd->Running());
}

// With a host attached and nothing to do it never wakes: not one switch of context in a second.
TEST_F(WeftdTest, RestsWhenNothingHappens) {
  Configure();
  const std::unique_ptr<Process> weftd = Start();
  Peer host(agent_sock());
  ASSERT_TRUE(host.Hello("a", {"web/front"}));
  absl::SleepFor(absl::Milliseconds(1500));  // The time for former hosts to come back is over.
  const auto status_of = [&](const std::string& key) {
    std::ifstream status(absl::StrCat("/proc/", weftd->pid(), "/status"));
    for (std::string line; std::getline(status, line);) {
      if (line.rfind(key, 0) != 0) continue;
      const std::vector<std::string> words = absl::StrSplit(line, absl::ByAnyChar("\t "), absl::SkipEmpty());
      uint64_t value = 0;
      EXPECT_TRUE(words.size() > 1 && absl::SimpleAtoi(words[1], &value));
      return value;
    }
    return uint64_t{0};
  };
  const uint64_t before = status_of("voluntary_ctxt_switches:");
  absl::SleepFor(absl::Seconds(1));
  EXPECT_EQ(status_of("voluntary_ctxt_switches:"), before);
  EXPECT_LT(status_of("VmRSS:"), 30'000u) << "kB";
}

}  // namespace
}  // namespace weft::agent::test
