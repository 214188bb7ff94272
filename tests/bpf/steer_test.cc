// SPDX-License-Identifier: Apache-2.0
// The XDP program in the kernel, packet in and packet out, by BPF_PROG_TEST_RUN. The same program of tests
// runs on Debian's stock kernel in a virtual machine (tests/support/vm).
#include <bpf/bpf.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <linux/if_xdp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

#include "control/bpf/steer_program.h"
#include "tests/bpf/steer_cases.h"
#include "tests/support/capabilities.h"

namespace weft::test {
namespace {

using control::SteerProgram;
using Fate = SteerCase::Fate;

constexpr uint64_t kPlenty = 100'000'000;

class SteerTest : public testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "loading a BPF program needs root";
    Load({});
    auto table = program_->MapTable();
    ASSERT_TRUE(table.ok()) << table.status();
    table_ = *std::move(table);
    table_->SetComplete();
  }

  // With what weft-control has, and no more: the verifier is stricter then than with root.
  void Load(const control::SteerConfig& config) {
    const OnlyCapabilities as_control{CAP_BPF, CAP_NET_ADMIN};
    auto program = SteerProgram::Load(config);
    ASSERT_TRUE(program.ok()) << program.status();
    program_ = *std::move(program);
  }

  // An AF_XDP socket with a receive ring, which is all that an entry of an XSKMAP takes.
  void PutSocketAt(uint32_t queue) {
    socket_ = UniqueFd(socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0));
    ASSERT_TRUE(socket_.valid());
    const int entries = 64;
    ASSERT_EQ(setsockopt(socket_.get(), SOL_XDP, XDP_RX_RING, &entries, sizeof(entries)), 0);
    const int fd = socket_.get();
    ASSERT_EQ(bpf_map_update_elem(program_->maps().xsks, &queue, &fd, BPF_ANY), 0);
  }

  // Runs the program on a packet, which it must not change.
  uint32_t Run(const Packet& packet) {
    Packet out(packet.size() + 256);
    LIBBPF_OPTS(bpf_test_run_opts, options);
    options.data_in = packet.data();
    options.data_size_in = static_cast<uint32_t>(packet.size());
    options.data_out = out.data();
    options.data_size_out = static_cast<uint32_t>(out.size());
    EXPECT_EQ(bpf_prog_test_run_opts(program_->fd(), &options), 0) << errno;
    out.resize(options.data_size_out);
    EXPECT_EQ(out, packet);
    return options.retval;
  }

  port::SteerCounters OfKey() { return table_->Read(kKnownKeyId).value(); }

  // Runs a case and compares what happened and what was counted.
  void Check(const SteerCase& test) {
    SCOPED_TRACE(test.name);
    port::SteerCounters key = OfKey(), unknown = table_->ReadUnknown();
    const uint32_t action = Run(test.packet);
    switch (test.fate) {
      case Fate::kPass:
        EXPECT_EQ(action, XDP_PASS);
        break;
      case Fate::kTake:
        EXPECT_EQ(action, XDP_REDIRECT);
        ++key.taken;
        break;
      case Fate::kDrop:
        EXPECT_EQ(action, XDP_DROP);
        ++(test.charged_to_key ? key : unknown).drops[test.reason];
        break;
    }
    EXPECT_EQ(OfKey(), key);
    EXPECT_EQ(table_->ReadUnknown(), unknown);
  }

  std::optional<SteerProgram> program_;
  std::optional<port::SteerTable> table_;
  UniqueFd socket_;
};

TEST_F(SteerTest, EachPacketMeetsItsFateAndIsCountedOnceWhereItBelongs) {
  ASSERT_TRUE(table_->Allow(kKnownKeyId, kPlenty).ok());
  PutSocketAt(0);
  for (const SteerCase& test : SteerCases()) Check(test);
}

TEST_F(SteerTest, APacketCutAnywhereIsLeftToTheKernelOrDroppedByName) {
  ASSERT_TRUE(table_->Allow(kKnownKeyId, kPlenty).ok());
  PutSocketAt(0);
  for (const SteerCase& test : TruncatedCases()) Check(test);
}

TEST_F(SteerTest, UntilTheTableIsCompleteAKeyThatIsNotInItIsLeftToTheKernelAndCounted) {
  Load({});
  table_ = program_->MapTable().value();
  ASSERT_FALSE(table_->complete());
  ASSERT_TRUE(table_->Allow(kKnownKeyId, kPlenty).ok());
  PutSocketAt(0);
  for (const SteerCase& test : SteerCases()) {
    if (test.reason != WEFT_DROP_UNKNOWN_KEY) {
      Check(test);
      continue;
    }
    SCOPED_TRACE(test.name);
    const uint64_t left = table_->ReadUnknown().drops[WEFT_DROP_NO_KEYS];
    EXPECT_EQ(Run(test.packet), XDP_PASS);
    EXPECT_EQ(table_->ReadUnknown().drops[WEFT_DROP_NO_KEYS], left + 1);
  }
  EXPECT_EQ(table_->ReadUnknown().drops[WEFT_DROP_UNKNOWN_KEY], 0u);
  table_->SetComplete();
  EXPECT_EQ(Run(PacketBuilder(kStrangerKeyId).Build()), XDP_DROP);
  EXPECT_EQ(Run(PacketBuilder(kKnownKeyId).Build()), XDP_REDIRECT);
}

TEST_F(SteerTest, WithoutASocketAGoodPacketIsLeftToTheKernelAndCounted) {
  ASSERT_TRUE(table_->Allow(kKnownKeyId, kPlenty).ok());
  EXPECT_EQ(Run(PacketBuilder(kKnownKeyId).Build()), XDP_PASS);
  EXPECT_EQ(OfKey().drops[WEFT_DROP_NO_SOCKET], 1u);
  EXPECT_EQ(OfKey().taken, 1u);
}

// Test runs come in on queue 0. There is no token to take: an engine inside a host keeps its keys to itself.
TEST_F(SteerTest, WhatIsForAnEngineInsideAHostGoesToItsSocketOnItsQueueAlone) {
  const auto to = [](uint32_t slot) {
    return PacketBuilder(kStrangerKeyId).Port(static_cast<uint16_t>(WEFT_STEER_PORT_DEFAULT + slot));
  };
  PutSocketAt(port::SteerTable::SocketOf(3));
  EXPECT_EQ(Run(to(3).Build()), XDP_PASS);  // Nobody has said on which queue it is.
  table_->SetInside(3, 1);
  EXPECT_EQ(Run(to(3).Build()), XDP_PASS);
  table_->SetInside(3, 0);
  EXPECT_EQ(Run(to(3).Build()), XDP_REDIRECT);
  EXPECT_EQ(Run(to(2).Build()), XDP_PASS);
  EXPECT_EQ(Run(to(16).Build()), XDP_PASS);
  const uint64_t before = table_->ReadUnknown().drops[WEFT_DROP_BAD_VERSION];
  EXPECT_EQ(Run(to(3).VersionAndSuite(0x77).Build()), XDP_DROP);
  EXPECT_EQ(table_->ReadUnknown().drops[WEFT_DROP_BAD_VERSION], before + 1);
  table_->SetInside(15, 0);
  EXPECT_EQ(Run(to(15).Build()), XDP_PASS);  // It has no socket there.
  table_->ClearInside(3);
  EXPECT_EQ(Run(to(3).Build()), XDP_PASS);
}

TEST_F(SteerTest, ASocketOfAnotherQueueGetsNothing) {
  ASSERT_TRUE(table_->Allow(kKnownKeyId, kPlenty).ok());
  PutSocketAt(1);  // Test runs come in on queue 0.
  EXPECT_EQ(Run(PacketBuilder(kKnownKeyId).Build()), XDP_PASS);
  EXPECT_EQ(OfKey().drops[WEFT_DROP_NO_SOCKET], 1u);
}

TEST_F(SteerTest, AClosedSocketLeavesItsQueueToTheKernel) {
  ASSERT_TRUE(table_->Allow(kKnownKeyId, kPlenty).ok());
  PutSocketAt(0);
  EXPECT_EQ(Run(PacketBuilder(kKnownKeyId).Build()), XDP_REDIRECT);
  socket_.Reset();
  EXPECT_EQ(Run(PacketBuilder(kKnownKeyId).Build()), XDP_PASS);
}

TEST_F(SteerTest, AKeyIsHeldToItsRateAndEachPacketAboveIsCounted) {
  // A token a second: the burst, and then nothing for as long as this test takes.
  ASSERT_TRUE(table_->Allow(kKnownKeyId, 1).ok());
  PutSocketAt(0);
  const Packet packet = PacketBuilder(kKnownKeyId).Build();
  uint64_t taken = 0, dropped = 0;
  for (int i = 0; i < 1000; ++i) {
    const uint32_t action = Run(packet);
    taken += action == XDP_REDIRECT;
    dropped += action == XDP_DROP;
  }
  EXPECT_EQ(taken + dropped, 1000u);
  EXPECT_GE(dropped, 900u);
  EXPECT_EQ(OfKey().taken, taken);
  EXPECT_EQ(OfKey().drops[WEFT_DROP_RATE_LIMITED], dropped);
}

TEST_F(SteerTest, OneKeyAtItsLimitDoesNotTouchAnother) {
  constexpr uint32_t kOther = 0x55550002;
  ASSERT_TRUE(table_->Allow(kKnownKeyId, 1).ok());
  ASSERT_TRUE(table_->Allow(kOther, kPlenty).ok());
  PutSocketAt(0);
  for (int i = 0; i < 500; ++i) Run(PacketBuilder(kKnownKeyId).Build());
  EXPECT_EQ(Run(PacketBuilder(kKnownKeyId).Build()), XDP_DROP);
  EXPECT_EQ(Run(PacketBuilder(kOther).Build()), XDP_REDIRECT);
}

TEST_F(SteerTest, AnEmptyBucketFillsAgainWithTime) {
  ASSERT_TRUE(table_->Allow(kKnownKeyId, 10'000).ok());  // A hundred in 10 ms.
  PutSocketAt(0);
  const Packet packet = PacketBuilder(kKnownKeyId).Build();
  for (int i = 0; i < 100'000 && OfKey().drops[WEFT_DROP_RATE_LIMITED] == 0; ++i) Run(packet);
  ASSERT_GT(OfKey().drops[WEFT_DROP_RATE_LIMITED], 0u);
  // However long the machine takes, the bucket has earned something in the end.
  bool taken = false;
  for (int i = 0; i < 10'000'000 && !taken; ++i) taken = Run(packet) == XDP_REDIRECT;
  EXPECT_TRUE(taken);
}

TEST_F(SteerTest, AForgottenKeyIsUnknownAtOnce) {
  ASSERT_TRUE(table_->Allow(kKnownKeyId, kPlenty).ok());
  PutSocketAt(0);
  EXPECT_EQ(Run(PacketBuilder(kKnownKeyId).Build()), XDP_REDIRECT);
  const auto last = table_->Forget(kKnownKeyId);
  ASSERT_TRUE(last.ok());
  EXPECT_EQ(last->taken, 1u);
  EXPECT_EQ(Run(PacketBuilder(kKnownKeyId).Build()), XDP_DROP);
  EXPECT_EQ(table_->ReadUnknown().drops[WEFT_DROP_UNKNOWN_KEY], 1u);
}

TEST_F(SteerTest, AnotherPortIsSteeredWhereItIsConfigured) {
  Load({.port = 9999});
  program_->MapTable().value().SetComplete();
  EXPECT_EQ(Run(PacketBuilder(kKnownKeyId).Build()), XDP_PASS);
  EXPECT_EQ(Run(PacketBuilder(kKnownKeyId).Port(9999).Build()), XDP_DROP);
}

}  // namespace
}  // namespace weft::test
