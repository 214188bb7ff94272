// SPDX-License-Identifier: Apache-2.0
// Attaching: what is refused and how it is told, what is found again, and what is left behind.
#include <gmock/gmock.h>
#include <linux/if_link.h>
#include <signal.h>
#include <sys/wait.h>

#include "tests/control/bpf/steer_fixture.h"

namespace weft::control {
namespace {

using testing::HasSubstr;
using Steers = SteerFixture;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

// A program of somebody else that passes everything.
UniqueFd ForeignProgram() {
  bpf_insn instructions[2] = {};
  instructions[0].code = BPF_ALU64 | BPF_MOV | BPF_K;
  instructions[0].imm = XDP_PASS;
  instructions[1].code = BPF_JMP | BPF_EXIT;
  return UniqueFd(bpf_prog_load(BPF_PROG_TYPE_XDP, "foreign_prog", "GPL", instructions, 2, nullptr));
}

TEST_F(Steers, WithoutABpfFileSystemTheErrorTellsTheCommand) {
  SteerOptions options = Options();
  options.bpf_dir = *directory_ / "missing";
  const auto steer = Steer::Create(options);
  EXPECT_TRUE(absl::IsFailedPrecondition(steer.status()));
  EXPECT_THAT(Message(steer.status()), HasSubstr("mount -t bpf -o mode=0700 bpf " + options.bpf_dir));
  options.bpf_dir = directory_->path();  // There, but of another kind.
  EXPECT_THAT(Message(Steer::Create(options).status()),
              HasSubstr("is not a BPF file system; as root, run: mkdir"));
  EXPECT_EQ(ProgramOn(), 0u);
}

TEST_F(Steers, AnInterfaceThatIsNotThereIsNamed) {
  interface_ = "none0";
  const auto steer = Create();
  EXPECT_TRUE(absl::IsNotFound(steer.status()) || steer.status().code() == absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(steer.status()), HasSubstr("none0"));
}

TEST_F(Steers, AConfigurationThatCannotBeIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(Create({.port = 0}).status()));
  EXPECT_EQ(ProgramOn(), 0u);
}

TEST_F(Steers, AnotherProgramIsNamedAndLeftInItsPlace) {
  const UniqueFd foreign = ForeignProgram();
  ASSERT_TRUE(foreign.valid());
  for (const uint32_t mode : {XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE}) {
    ASSERT_EQ(bpf_xdp_attach(network_->near_index(), foreign.get(), mode, nullptr), 0);
    const uint32_t holder = ProgramOn();
    const auto steer = Steer::Create(Options());
    EXPECT_TRUE(absl::IsAlreadyExists(steer.status())) << steer.status();
    EXPECT_THAT(Message(steer.status()),
                HasSubstr("weft0: XDP program " + std::to_string(holder) + " \"foreign_prog\" (" +
                          (mode == XDP_FLAGS_SKB_MODE ? "generic" : "native") + ")"));
    EXPECT_EQ(ProgramOn(), holder);
    ASSERT_EQ(bpf_xdp_detach(network_->near_index(), mode, nullptr), 0);
  }
  // And once it has gone, the way is free.
  EXPECT_TRUE(Create().ok());
}

TEST_F(Steers, AnotherProgramsLinkIsNamedToo) {
  const UniqueFd foreign = ForeignProgram();
  LIBBPF_OPTS(bpf_link_create_opts, options);
  const UniqueFd link(bpf_link_create(foreign.get(), network_->near_index(), BPF_XDP, &options));
  ASSERT_TRUE(link.valid());
  EXPECT_TRUE(absl::IsAlreadyExists(Steer::Create(Options()).status()));
}

TEST_F(Steers, AttachesToSocketBuffersOfAVethAndCountsWhatCrossesTheWire) {
  auto steer = Create();
  ASSERT_TRUE(steer.ok()) << steer.status();
  EXPECT_EQ((*steer)->origin(), Steer::Origin::kAttached);
  EXPECT_EQ((*steer)->mode(), XdpMode::kGeneric);
  EXPECT_EQ((*steer)->why_generic(), "");  // The driver was not asked.
  ASSERT_TRUE((*steer)->table().Allow(kKey, 1'000'000).ok());
  (*steer)->table().SetComplete();
  SendFromFar(7, Datagram(0x1234));
  SendFromFar(5, Datagram(kKey));
  EXPECT_TRUE(test::Eventually([&] {
    return (*steer)->table().ReadUnknown().drops[WEFT_DROP_UNKNOWN_KEY] == 7 &&
           (*steer)->table().Read(kKey)->drops[WEFT_DROP_NO_SOCKET] == 5;
  }));
}

TEST_F(Steers, ADatagramOfALargeMtuIsJudgedWhole) {
  NewNetwork({.mtu = 9000});
  auto steer = Create();
  ASSERT_TRUE(steer.ok()) << steer.status();
  ASSERT_TRUE((*steer)->table().Allow(kKey, 1'000'000).ok());
  (*steer)->table().SetComplete();
  SendFromFar(2, Datagram(kKey) + std::string(8'500, 'x'));
  SendFromFar(3, Datagram(0x1234) + std::string(8'500, 'x'));
  EXPECT_TRUE(test::Eventually([&] {
    return (*steer)->table().Read(kKey)->drops[WEFT_DROP_NO_SOCKET] == 2 &&
           (*steer)->table().ReadUnknown().drops[WEFT_DROP_UNKNOWN_KEY] == 3;
  }));
}

TEST_F(Steers, AVethOfSeveralQueuesRunsItInTheDriverWhichKeepsThemApart) {
  NewNetwork({.queues = 2});
  auto steer = Create();
  ASSERT_TRUE(steer.ok()) << steer.status();
  EXPECT_EQ((*steer)->mode(), XdpMode::kNative);
}

TEST_F(Steers, WhatTheDriverRefusesRunsGenericAndSaysWhy) {
  NewNetwork({.queues = 2, .mtu = 9000});  // More than veth takes natively.
  auto steer = Create();
  ASSERT_TRUE(steer.ok()) << steer.status();
  EXPECT_EQ((*steer)->mode(), XdpMode::kGeneric);
  EXPECT_THAT((*steer)->why_generic(), HasSubstr("native"));
}

TEST_F(Steers, ARestartFindsItAttachedAndTouchesNothing) {
  auto first = Create();
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE((*first)->table().Allow(kKey, 1'000'000).ok());
  SendFromFar(4, Datagram(kKey));
  ASSERT_TRUE(test::Eventually([&] { return (*first)->table().Read(kKey)->taken == 4; }));
  const uint32_t program = ProgramOn(), link = LinkId();
  first->reset();
  EXPECT_EQ(ProgramOn(), program);
  auto second = Create();
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ((*second)->origin(), Steer::Origin::kReused);
  EXPECT_EQ((*second)->mode(), XdpMode::kGeneric);
  EXPECT_EQ(ProgramOn(), program);
  EXPECT_EQ(LinkId(), link);
  EXPECT_EQ((*second)->table().Read(kKey)->taken, 4u);
  SendFromFar(1, Datagram(kKey));
  EXPECT_TRUE(test::Eventually([&] { return (*second)->table().Read(kKey)->taken == 5; }));
}

TEST_F(Steers, ItOutlivesAProcessThatIsKilled) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    auto steer = Steer::Create(Options());
    const char told = steer.ok() && (*steer)->table().Allow(kKey, 1'000'000).ok() ? 'y' : 'n';
    (void)!write(ready[1], &told, 1);
    pause();
    _exit(0);
  }
  char told = 'n';
  ASSERT_EQ(read(ready[0], &told, 1), 1);
  EXPECT_EQ(told, 'y');
  kill(child, SIGKILL);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  close(ready[0]);
  close(ready[1]);
  EXPECT_NE(ProgramOn(), 0u);
  SendFromFar(6, Datagram(kKey));  // Nobody is there; the program works on.
  auto steer = Create();
  ASSERT_TRUE(steer.ok()) << steer.status();
  EXPECT_EQ((*steer)->origin(), Steer::Origin::kReused);
  EXPECT_TRUE(test::Eventually([&] { return (*steer)->table().Read(kKey)->taken == 6; }));
}

TEST_F(Steers, AnInterfaceThatGoesAndComesAgainIsTakenAnew) {
  auto steer = Create();
  ASSERT_TRUE(steer.ok()) << steer.status();
  ASSERT_TRUE((*steer)->table().Allow(kKey, 1'000'000).ok());
  EXPECT_TRUE((*steer)->Ensure().ok());
  EXPECT_EQ((*steer)->origin(), Steer::Origin::kAttached);
  network_->near().Run({"/sbin/ip", "link", "del", "weft0"});
  EXPECT_TRUE(absl::IsNotFound((*steer)->Ensure()));
  NewNetwork({});
  ASSERT_TRUE((*steer)->Ensure().ok());
  NoteIds();
  EXPECT_NE(ProgramOn(), 0u);
  EXPECT_EQ((*steer)->interface_index(), network_->near_index());
  SendFromFar(2, Datagram(kKey));  // The keys are still there.
  EXPECT_TRUE(test::Eventually([&] { return (*steer)->table().Read(kKey)->taken == 2; }));
}

TEST_F(Steers, AnInterfaceThatGoesDownAndUpKeepsIt) {
  auto steer = Create();
  ASSERT_TRUE(steer.ok()) << steer.status();
  ASSERT_TRUE((*steer)->table().Allow(kKey, 1'000'000).ok());
  network_->near().Run({"/sbin/ip", "link", "set", "weft0", "down"});
  network_->near().Run({"/sbin/ip", "link", "set", "weft0", "up"});
  EXPECT_TRUE((*steer)->Ensure().ok());
  EXPECT_TRUE(test::Eventually([&] {
    SendFromFar(1, Datagram(kKey));
    return (*steer)->table().Read(kKey)->taken > 0;
  }));
}

TEST_F(Steers, OnlyATableThatIsMadeAnewIsIncomplete) {
  auto steer = Create();
  ASSERT_TRUE(steer.ok()) << steer.status();
  EXPECT_FALSE((*steer)->table().complete());
  (*steer)->table().SetComplete();
  network_->near().Run({"/sbin/ip", "link", "del", "weft0"});
  NewNetwork({});
  ASSERT_TRUE((*steer)->Ensure().ok());
  NoteIds();
  EXPECT_TRUE((*steer)->table().complete());  // Another interface, the same maps.
  auto next = Create({.port = 4811});         // Another program on them.
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ((*next)->origin(), Steer::Origin::kReplaced);
  EXPECT_TRUE((*next)->table().complete());
  ASSERT_TRUE(Steer::Detach(bpffs_->path(), interface_).ok());
  auto anew = Create();
  ASSERT_TRUE(anew.ok()) << anew.status();
  EXPECT_FALSE((*anew)->table().complete());
}

TEST_F(Steers, DetachLeavesNothingAttachedAndNothingPinned) {
  EXPECT_TRUE(absl::IsNotFound(Steer::Detach(bpffs_->path(), interface_)));
  auto steer = Create();
  ASSERT_TRUE(steer.ok()) << steer.status();
  ASSERT_NE(ProgramOn(), 0u);
  EXPECT_EQ(access(PinPath("link").c_str(), F_OK), 0);
  ASSERT_TRUE(Steer::Detach(bpffs_->path(), interface_).ok());
  EXPECT_EQ(ProgramOn(), 0u);
  EXPECT_NE(access(PinPath("").c_str(), F_OK), 0);
  EXPECT_TRUE(absl::IsNotFound(Steer::Detach(bpffs_->path(), interface_)));
}

TEST_F(Steers, DetachWorksWithoutTheInterface) {
  ASSERT_TRUE(Create().ok());
  network_->near().Run({"/sbin/ip", "link", "del", "weft0"});
  EXPECT_TRUE(Steer::Detach(bpffs_->path(), interface_).ok());
  EXPECT_NE(access(PinPath("").c_str(), F_OK), 0);
}

TEST_F(Steers, AnInterfaceWithADotInItsNameIsPinnedUnderAColon) {
  network_->near().Run({"/sbin/ip", "link", "add", "weft0.7", "type", "veth", "peer", "name", "other"});
  interface_ = "weft0.7";
  const auto steer = Create();
  ASSERT_TRUE(steer.ok()) << steer.status();
  EXPECT_EQ(access((bpffs_->path() + "/steer-weft0:7/link").c_str(), F_OK), 0);
  EXPECT_TRUE(Steer::Detach(bpffs_->path(), interface_).ok());
}

}  // namespace
}  // namespace weft::control
