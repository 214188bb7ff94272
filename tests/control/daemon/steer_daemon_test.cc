// SPDX-License-Identifier: Apache-2.0
// weft-control with --steer as it is deployed: a user of its own with CAP_BPF and CAP_NET_ADMIN and nothing
// else, a BPF file system that root mounted for it, and an agent of another user without any privilege.
#include <gmock/gmock.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include "absl/strings/str_cat.h"
#include "dataplane/api/admin.pb.h"
#include "dataplane/base/unix_socket.h"
#include "tests/control/bpf/steer_fixture.h"
#include "tests/support/mesh.h"
#include "tests/support/process.h"

namespace weft::control {
namespace {

using testing::HasSubstr;

// What an agent finds out, in a child process that has given up root: as bytes through a pipe.
struct Seen {
  bool connected = false;
  bool granted = false;
  bool mapped = false;
  uint64_t taken = 0;
  uint32_t code = 0;
  char reason[200] = {};
};

class SteerDaemon : public SteerFixture {
 protected:
  void SetUp() override {
    SteerFixture::SetUp();
    if (IsSkipped()) return;
    run_dir_ = directory_->path();
    ASSERT_EQ(chmod(run_dir_.c_str(), 01777), 0);
    bpffs_.reset();
    bpffs_.emplace(*directory_ / "bpf", test::kControlUid);
    test::WriteFile(*directory_ / "mesh.yaml", "version: 1\nnodes: [{name: n1}]\n");
    ASSERT_EQ(mkdir((*directory_ / "state").c_str(), 0700), 0);
    ASSERT_EQ(chown((*directory_ / "state").c_str(), test::kControlUid, test::kControlUid), 0);
  }

  std::vector<std::string> Command(std::vector<std::string> more,
                                   const std::string& capabilities = "+bpf,+net_admin") {
    std::vector<std::string> command = {"/usr/bin/setpriv",
                                        "--pdeathsig",
                                        "KILL",
                                        "--reuid",
                                        absl::StrCat(test::kControlUid),
                                        "--regid",
                                        absl::StrCat(test::kControlUid),
                                        "--clear-groups",
                                        "--bounding-set",
                                        absl::StrCat("-all,", capabilities),
                                        "--inh-caps",
                                        absl::StrCat("-all,", capabilities),
                                        "--ambient-caps",
                                        absl::StrCat("-all,", capabilities),
                                        "--no-new-privs",
                                        test::Program("weft-control"),
                                        "--run-dir",
                                        run_dir_,
                                        "--source",
                                        *directory_ / "mesh.yaml",
                                        "--state-dir",
                                        *directory_ / "state"};
    command.insert(command.end(), more.begin(), more.end());
    return command;
  }
  test::Process Start(std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"--steer", "weft0", "--agent-user", absl::StrCat(test::kAgentUid)});
    test::ProcessOptions options;
    options.arguments = Command(std::move(more));
    options.log = *directory_ / absl::StrCat("log", ++logs_);
    return test::Process(std::move(options));
  }
  bool Listening() {
    return test::Eventually([&] {
      NoteIds();
      return ConnectUnix(*directory_ / "control.sock").ok() && ProgramOn() != 0;
    });
  }

  // Asks as a process of `uid` without privileges, and has `key` let through with what it is given.
  Seen AskAs(uid_t uid, uint32_t key, uint16_t port = WEFT_STEER_PORT_DEFAULT) {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      Seen seen;
      if (setresgid(uid, uid, uid) == 0 && setresuid(uid, uid, uid) == 0) Ask(key, port, &seen);
      (void)!write(ends[1], &seen, sizeof(seen));
      _exit(0);
    }
    Seen seen;
    EXPECT_EQ(read(ends[0], &seen, sizeof(seen)), static_cast<ssize_t>(sizeof(seen)));
    waitpid(child, nullptr, 0);
    close(ends[0]);
    close(ends[1]);
    return seen;
  }

  std::string run_dir_;
  int logs_ = 0;

 private:
  void Ask(uint32_t key, uint16_t port, Seen* seen) {
    const absl::StatusOr<UniqueFd> socket = ConnectUnix(*directory_ / "control.sock");
    seen->connected = socket.ok();
    api::AdminRequest request;
    request.mutable_get_steer()->set_interface("weft0");
    request.mutable_get_steer()->set_port(port);
    if (!socket.ok() || !SendMessage(socket->get(), request.SerializeAsString()).ok() ||
        !WaitReady(socket->get(), POLLIN, 10'000).ok()) {
      return;
    }
    const absl::StatusOr<ReceivedMessage> message = ReceiveMessage(socket->get());
    api::AdminReply reply;
    if (!message.ok() || !reply.ParseFromString(message->bytes)) return;
    seen->code = reply.failed().code();
    strncpy(seen->reason, reply.failed().reason().c_str(), sizeof(seen->reason) - 1);
    seen->granted = reply.has_steer_maps() && message->fds.size() == 3;
    if (!seen->granted) return;
    auto table =
        port::SteerTable::Map(message->fds[1].get(), message->fds[2].get(), reply.steer_maps().cpus());
    seen->mapped = table.ok();
    if (!table.ok()) return;
    if (!table->Read(key).ok()) seen->mapped = table->Allow(key, 1'000'000).ok();
    table->SetComplete();
    seen->taken = table->Read(key)->taken;
  }
};

TEST_F(SteerDaemon, WithoutItsCapabilitiesItSaysWhichItTakes) {
  const test::Ran ran = test::Run(Command({"--steer", "weft0"}, "+net_bind_service"));
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.error, HasSubstr("it takes CAP_BPF and CAP_NET_ADMIN"));
  EXPECT_EQ(ProgramOn(), 0u);
}

TEST_F(SteerDaemon, WithoutABpfFileSystemItEndsWithTheCommand) {
  bpffs_.reset();
  const test::Ran ran = test::Run(Command({"--steer", "weft0"}));
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.error, HasSubstr(absl::StrCat("mount -t bpf -o mode=0700 bpf ", run_dir_, "/bpf && chown ",
                                                test::kControlUid, ":", test::kControlUid)));
  bpffs_.emplace(*directory_ / "bpf", test::kControlUid);
}

TEST_F(SteerDaemon, CapBpfAndCapNetAdminSufficeAndTheAgentNeedsNone) {
  test::Process control = Start();
  ASSERT_TRUE(Listening()) << control.Output();
  EXPECT_TRUE(control.WaitForOutput("steer on weft0: attached, generic mode, port 4810", absl::Seconds(20)));
  const Seen first = AskAs(test::kAgentUid, kKey);
  EXPECT_TRUE(first.granted) << first.reason;
  EXPECT_TRUE(first.mapped);
  SendFromFar(3, Datagram(kKey));
  EXPECT_TRUE(test::Eventually([&] { return AskAs(test::kAgentUid, kKey).taken == 3; }));
  const Seen wrong_port = AskAs(test::kAgentUid, kKey, 4811);
  EXPECT_THAT(wrong_port.reason, HasSubstr("takes port 4810, not 4811"));
}

TEST_F(SteerDaemon, AnotherUserIsGivenNothing) {
  test::Process control = Start();
  ASSERT_TRUE(Listening()) << control.Output();
  EXPECT_FALSE(AskAs(test::kFirstTenantUid, kKey).connected);
  // Its own user may connect and is refused by name.
  const Seen own = AskAs(test::kControlUid, kKey);
  EXPECT_TRUE(own.connected);
  EXPECT_FALSE(own.granted);
  EXPECT_EQ(own.code, static_cast<uint32_t>(absl::StatusCode::kPermissionDenied));
}

TEST_F(SteerDaemon, KilledAndStartedAgainItFindsKeysAndProgram) {
  std::optional<test::Process> control = Start();
  ASSERT_TRUE(Listening()) << control->Output();
  ASSERT_TRUE(AskAs(test::kAgentUid, kKey).mapped);
  const uint32_t program = ProgramOn();
  for (int round = 1; round <= 3; ++round) {
    control->Kill();
    SendFromFar(1, Datagram(kKey));  // Both daemons are gone; it goes on.
    EXPECT_EQ(ProgramOn(), program);
    control.emplace(Start());
    ASSERT_TRUE(test::Eventually([&] {
      return AskAs(test::kAgentUid, kKey).taken == static_cast<uint64_t>(round);
    })) << control->Output();
    EXPECT_THAT(control->Output(), HasSubstr("found attached and left alone"));
  }
}

TEST_F(SteerDaemon, SigtermLeavesItAttachedAndDetachTakesItAway) {
  test::Process control = Start();
  ASSERT_TRUE(Listening()) << control.Output();
  control.Signal(SIGTERM);
  EXPECT_EQ(control.Wait(absl::Seconds(20)), 0);
  EXPECT_NE(ProgramOn(), 0u);
  EXPECT_EQ(test::Run(Command({"--steer-detach", "weft0"})).exit_code, 0);
  EXPECT_EQ(ProgramOn(), 0u);
  EXPECT_NE(access(PinPath("").c_str(), F_OK), 0);
  const test::Ran again = test::Run(Command({"--steer-detach", "weft0"}));
  EXPECT_EQ(again.exit_code, 1);
  EXPECT_THAT(again.error, HasSubstr("nothing is pinned"));
}

TEST_F(SteerDaemon, AnotherProgramOnTheInterfaceEndsItByName) {
  auto foreign = SteerProgram::Load({});
  ASSERT_TRUE(foreign.ok());
  auto link = foreign->Attach(network_->near_index(), false);
  ASSERT_TRUE(link.ok());
  const test::Ran ran = test::Run(Command({"--steer", "weft0"}));
  EXPECT_EQ(ran.exit_code, 1);
  // Names of programs are root's to see; the id is what root asks by.
  EXPECT_THAT(ran.error,
              HasSubstr(absl::StrCat("attach steer to weft0: XDP program ", ProgramOn(), " (native) holds")));
}

TEST_F(SteerDaemon, TheStatusTellsModeKeysAndDropsByName) {
  test::Process control = Start();
  ASSERT_TRUE(Listening()) << control.Output();
  ASSERT_TRUE(AskAs(test::kAgentUid, kKey).mapped);
  SendFromFar(2, Datagram(0x1234));
  api::AdminRequest request;
  request.mutable_query()->set_kind(api::Query::STATUS);
  const absl::StatusOr<UniqueFd> socket = ConnectUnix(*directory_ / "control.sock");
  ASSERT_TRUE(socket.ok());
  bool told = false;
  ASSERT_TRUE(test::Eventually([&] {
    api::AdminReply reply;
    if (!SendMessage(socket->get(), request.SerializeAsString()).ok()) return false;
    if (!WaitReady(socket->get(), POLLIN, 10'000).ok()) return false;
    const auto message = ReceiveMessage(socket->get());
    if (!message.ok() || !reply.ParseFromString(message->bytes)) return false;
    for (const api::Item& item : reply.query_reply().items()) {
      if (item.fields(0).name() != "steer") continue;
      told = true;
      for (const auto& field : item.fields()) {
        EXPECT_TRUE(field.name() != "mode" || field.text() == "generic");
        EXPECT_TRUE(field.name() != "keys" || field.number() == 1);
        EXPECT_TRUE(field.name() != "unknown_keys" || field.text() == "dropped");
        if (field.name() == "dropped_unknown_key" && field.number() == 2) return true;
      }
    }
    return false;
  }));
  EXPECT_TRUE(told);
}

}  // namespace
}  // namespace weft::control
