// SPDX-License-Identifier: Apache-2.0
// The program itself: command line, signals, systemd, its socket, and ten edits a second.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/unix_socket.h"
#include "tests/control/publish/scripted_agent.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tmpfs_mount.h"

namespace weft::control {
namespace {

using testing::HasSubstr;

const std::string kProgram = WEFT_BIN_DIR "/weft-control";

std::string MeshOn(int host) {
  return absl::StrCat(
      "version: 1\nnodes: [{name: n1}]\nfunctions: [{name: v/f}]\nendpoints:\n- {function: v/f, node: n1, "
      "host: h",
      host, "}\n");
}

class WeftControlTest : public testing::Test {
 protected:
  test::Process Start(const std::string& source = "mesh.yaml", std::vector<std::string> more = {}) {
    test::ProcessOptions options;
    options.arguments = {kProgram,          "--source",    directory_ / source, "--run-dir",
                         directory_.path(), "--state-dir", directory_ / "state"};
    options.arguments.insert(options.arguments.end(), more.begin(), more.end());
    options.log = directory_ / "log";
    return test::Process(options);
  }
  template <typename Done>
  bool PumpUntil(Done&& done, uint64_t timeout_ns = 20 * kNsPerSecond) {
    const uint64_t deadline_ns = NowNs() + timeout_ns;
    while (!done()) {
      if (NowNs() > deadline_ns) return false;
      agent_.Pump();
      usleep(200);
    }
    return true;
  }
  std::string Host() const {
    return agent_.state.endpoints.empty() ? "" : agent_.state.endpoints.begin()->first.host;
  }
  absl::StatusOr<api::AdminReply> AskStatus() {
    auto socket = ConnectUnix(directory_ / "control.sock");
    if (!socket.ok()) return socket.status();
    api::AdminRequest request;
    request.mutable_query()->set_kind(api::Query::STATUS);
    absl::Status status = SendMessage(socket->get(), request.SerializeAsString());
    if (status.ok()) status = WaitReady(socket->get(), POLLIN, 10'000);
    if (!status.ok()) return status;
    auto message = ReceiveMessage(socket->get());
    if (!message.ok()) return message.status();
    api::AdminReply reply;
    reply.ParseFromString(message->bytes);
    return reply;
  }

  test::TemporaryDirectory directory_;
  ScriptedAgent agent_{directory_ / "admin.sock"};
};

TEST_F(WeftControlTest, TheCommandLineIsChecked) {
  EXPECT_EQ(test::Run({kProgram, "--help"}).exit_code, 0);
  EXPECT_THAT(test::Run({kProgram, "--help"}).output, HasSubstr("--allow-shrink"));
  EXPECT_THAT(test::Run({kProgram, "--version"}).output, HasSubstr("weft-control "));
  EXPECT_EQ(test::Run({kProgram, "--sauce", "x"}).exit_code, 2);
  EXPECT_EQ(test::Run({kProgram, "--log-format", "xml"}).exit_code, 2);
  const test::Ran nobody = test::Run({kProgram, "--agent-user", "not-a-user"});
  EXPECT_EQ(nobody.exit_code, 2);
  EXPECT_EQ(nobody.error, "weft-control: --agent-user: no user is called \"not-a-user\" (see --help)\n");
  const test::Ran port = test::Run({kProgram, "--steer", "lo", "--port", "65536"});
  EXPECT_EQ(port.exit_code, 2);
  EXPECT_THAT(port.error, HasSubstr("weft-control: --port"));
  const test::Ran ran = test::Run({kProgram, "--source", "/nonexistent/mesh.yaml", "--run-dir",
                                   directory_.path(), "--state-dir", directory_ / "state"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.error, HasSubstr("weft-control: watch directory /nonexistent/"));
}

TEST_F(WeftControlTest, ASecondOneOnTheSameSocketGivesUp) {
  test::Process first = Start();
  ASSERT_TRUE(test::Eventually([&] { return ConnectUnix(directory_ / "control.sock").ok(); }));
  const test::Ran second = test::Run({kProgram, "--source", directory_ / "mesh.yaml", "--run-dir",
                                      directory_.path(), "--state-dir", directory_ / "state2"});
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.error, HasSubstr("another process answers there"));
}

TEST_F(WeftControlTest, ASecondOneOnTheSameStateGivesUpBeforeItWritesAny) {
  test::WriteFile(directory_ / "mesh.yaml", MeshOn(1));
  test::Process first = Start();
  ASSERT_TRUE(PumpUntil([&] { return access((directory_ / "state/state.pb").c_str(), F_OK) == 0; }));
  const std::string saved = test::ReadFile(directory_ / "state/state.pb");
  test::WriteFile(directory_ / "other.yaml", MeshOn(2));
  // On the same run directory, too: it would save what it has read as it ends.
  const test::Ran second = test::Run({kProgram, "--source", directory_ / "other.yaml", "--run-dir",
                                      directory_.path(), "--state-dir", directory_ / "state"});
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.error,
              HasSubstr(absl::StrCat("is used by another weft-control, process ", first.pid())));
  EXPECT_EQ(test::ReadFile(directory_ / "state/state.pb"), saved);
}

TEST_F(WeftControlTest, SystemdIsToldAndSigtermEndsIt) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = directory_ / "notify";
  std::memcpy(address.sun_path, path.data(), path.size());
  const UniqueFd notify(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  ASSERT_EQ(bind(notify.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  setenv("NOTIFY_SOCKET", path.c_str(), 1);
  setenv("WATCHDOG_USEC", "20000", 1);
  test::Process control = Start();
  unsetenv("NOTIFY_SOCKET");
  unsetenv("WATCHDOG_USEC");
  std::string told;
  const auto read_all = [&] {
    char buffer[512];
    ssize_t count;
    while ((count = recv(notify.get(), buffer, sizeof(buffer), 0)) > 0) {
      told.append(buffer, static_cast<std::size_t>(count));
      told += '\n';
    }
  };
  EXPECT_TRUE(test::Eventually([&] {
    read_all();
    return told.find("READY=1") != std::string::npos;
  }));
  // Again and again, with nothing else to wake it.
  EXPECT_TRUE(test::Eventually([&] {
    read_all();
    return told.find("WATCHDOG=1", told.find("WATCHDOG=1") + 1) != std::string::npos;
  })) << told;
  control.Signal(SIGTERM);
  EXPECT_EQ(control.Wait(absl::Seconds(20)), 0);
  read_all();
  EXPECT_THAT(told, HasSubstr("STOPPING=1"));
}

TEST_F(WeftControlTest, JsonLogLinesStayWholeWhateverAFileIsCalled) {
  mkdir((directory_ / "d").c_str(), 0755);
  test::WriteFile(directory_ / "d/quote\".yaml", "nonsense\n");
  test::Process control = Start("d", {"--log-format", "json"});
  EXPECT_TRUE(control.WaitForOutput("quote\\\".yaml:1:1: must be a mapping", absl::Seconds(20)))
      << control.Output();
}

// The run of an impatient operator: the file rewritten ten times a second, in place, by rename, and
// half-written in between. Every whole edit is a generation of its own, and no half one is seen.
TEST_F(WeftControlTest, TenEditsASecondAreEachProgrammed) {
  const std::string path = directory_ / "mesh.yaml";
  test::WriteFile(path, MeshOn(0));
  agent_.Listen();
  test::Process control = Start();
  ASSERT_TRUE(PumpUntil([&] { return Host() == "h0"; })) << control.Output();
  constexpr int kEdits = 30;
  for (int edit = 1; edit <= kEdits; ++edit) {
    const uint64_t next_ns = NowNs() + 100 * kNsPerMs;
    if (edit % 3 == 0) {
      test::WriteFile(path, MeshOn(edit));
    } else if (edit % 3 == 1) {
      FILE* file = fopen(path.c_str(), "w");
      const std::string text = MeshOn(edit);
      fwrite(text.data(), 1, 30, file);
      fflush(file);
      PumpUntil([] { return false; }, 5 * kNsPerMs);
      fwrite(text.data() + 30, 1, text.size() - 30, file);
      fclose(file);
    } else {
      ASSERT_EQ(rename(path.c_str(), (path + "~").c_str()), 0);
      PumpUntil([] { return false; }, 5 * kNsPerMs);
      std::FILE* file = fopen(path.c_str(), "w");
      const std::string text = MeshOn(edit);
      fwrite(text.data(), 1, text.size(), file);
      fclose(file);
    }
    ASSERT_TRUE(PumpUntil([&] { return Host() == absl::StrCat("h", edit); })) << control.Output();
    while (NowNs() < next_ns) {
      agent_.Pump();
      usleep(500);
    }
    // No removal in between, no step back.
    EXPECT_EQ(Host(), absl::StrCat("h", edit));
  }
  EXPECT_EQ(agent_.generations.size(), static_cast<std::size_t>(kEdits + 1));
  EXPECT_EQ(control.Output().find(" error "), std::string::npos) << control.Output();
  const absl::StatusOr<api::AdminReply> status = AskStatus();
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->query_reply().generation(), agent_.generation);
  uint64_t changes = 0;
  for (const auto& field : status->query_reply().items(0).fields()) {
    if (field.name() == "changes") changes = static_cast<uint64_t>(field.number());
    if (field.name() == "event_to_programmed_p99_us") {
      RecordProperty("event_to_programmed_p99_us", std::to_string(field.real()));
      EXPECT_GT(field.real(), 0);
    }
  }
  EXPECT_EQ(changes, static_cast<uint64_t>(kEdits));
}

TEST_F(WeftControlTest, KilledAndRestartedItGoesOnWithRisingGenerations) {
  test::WriteFile(directory_ / "mesh.yaml", MeshOn(1));
  agent_.Listen();
  test::Process control = Start();
  ASSERT_TRUE(PumpUntil([&] { return Host() == "h1"; }));
  for (int round = 2; round < 8; ++round) {
    control.Kill();
    test::WriteFile(directory_ / "mesh.yaml", MeshOn(round));
    control = Start();
    ASSERT_TRUE(PumpUntil([&] { return Host() == absl::StrCat("h", round); })) << control.Output();
  }
  EXPECT_TRUE(std::is_sorted(agent_.generations.begin(), agent_.generations.end()));
  EXPECT_EQ(agent_.refused, 0);
}

TEST_F(WeftControlTest, AFullDiskUnderTheLastGoodStateStopsNoChange) {
  if (geteuid() != 0) GTEST_SKIP() << "a file system of its own needs root";
  test::TmpfsMount disk(directory_ / "state", 64 << 10);
  const auto program = [&](int host) {
    test::WriteFile(directory_ / "mesh.yaml", MeshOn(host));
    return PumpUntil([&] { return Host() == absl::StrCat("h", host); });
  };
  // A file that cannot be read leaves the last good state in force.
  const auto restart_on_state = [&](test::Process* control, int host) {
    control->Kill();
    test::WriteFile(directory_ / "mesh.yaml", "broken\n");
    agent_.state = {};
    *control = Start();
    EXPECT_TRUE(PumpUntil([&] { return Host() == absl::StrCat("h", host); })) << control->Output();
  };
  test::WriteFile(directory_ / "mesh.yaml", MeshOn(1));
  agent_.Listen();
  test::Process control = Start();
  ASSERT_TRUE(program(1)) << control.Output();
  ASSERT_TRUE(test::Eventually([&] { return access((directory_ / "state/state.pb").c_str(), F_OK) == 0; }));
  disk.Fill();
  ASSERT_TRUE(program(2)) << control.Output();
  EXPECT_TRUE(PumpUntil([&] {
    return absl::StrContains(control.Output(), "cannot save the last good state") &&
           absl::StrContains(control.Output(), "No space left on device");
  })) << control.Output();
  for (int host = 3; host < 6; ++host) ASSERT_TRUE(program(host)) << control.Output();
  // What was saved last is whole.
  restart_on_state(&control, 1);
  disk.Free();
  ASSERT_TRUE(program(6)) << control.Output();
  ASSERT_TRUE(
      PumpUntil([&] { return absl::StrContains(test::ReadFile(directory_ / "state/state.pb"), "h6"); }));
  restart_on_state(&control, 6);
}

TEST_F(WeftControlTest, ItIsSmall) {
  test::WriteFile(directory_ / "mesh.yaml", MeshOn(1));
  agent_.Listen();
  test::Process control = Start();
  ASSERT_TRUE(PumpUntil([&] { return Host() == "h1"; }));
  uint64_t rss_kib = 0;
  for (absl::string_view line :
       absl::StrSplit(test::ReadFile(absl::StrCat("/proc/", control.pid(), "/status")), '\n')) {
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar("\t "), absl::SkipEmpty());
    if (words.size() >= 2 && words[0] == "VmRSS:") (void)absl::SimpleAtoi(words[1], &rss_kib);
  }
  RecordProperty("rss_kib", std::to_string(rss_kib));
  EXPECT_GT(rss_kib, 0u);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LE(rss_kib, 20'000u);
#endif
}

}  // namespace
}  // namespace weft::control
