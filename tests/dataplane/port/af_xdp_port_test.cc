// SPDX-License-Identifier: Apache-2.0
// What is the AF_XDP port's own: privileges, predecessors that were killed, MTUs, and peers on other ports.
#include "dataplane/port/af_xdp_port.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <iostream>
#include <thread>

#include "tests/dataplane/port/af_xdp_port_fixture.h"
#include "tests/support/huge_pages.h"

namespace weft::port {
namespace {

// The kernel checks what this port has written: over IPv6 a wrong UDP checksum is dropped there.
TEST_F(AfXdpPortTest, SpeaksWithAPeerOnUdpInBothFamilies) {
  for (const char* ip : {"10.77.0.", "[fd77::"}) {
    const std::string end = ip[0] == '[' ? "]" : "";
    auto near = OpenNearUdp(ip + ("1" + end) + ":4810");
    auto far = OpenFar(ip + ("2" + end) + ":4810").value();
    uint64_t to_far;
    {
      const test::InNamespace inside(network_->near());
      to_far = near->AddPath(*Address::Parse(ip + ("2" + end) + ":4810")).value();
    }
    const uint64_t to_near = far->AddPath(near->local()).value();
    // What is sent before the two kernels have found each other may be lost, as on any network.
    bool met = false;
    for (const uint64_t begin_ns = NowNs(); !met && NowNs() - begin_ns < kGiveUpNs;) {
      Send(*near, to_far, 0, kDatagramBytesMin);
      met = TakesWithin(*far, 0, kDatagramBytesMin, 100 * kNsPerMs);
    }
    ASSERT_TRUE(met) << ip;
    while (TakesWithin(*far, 0, kDatagramBytesMin, 10 * kNsPerMs)) {
    }
    for (std::size_t bytes = kDatagramBytesMin; bytes <= kDatagramBytesMax; bytes += 31) {
      Send(*near, to_far, 1, bytes);
      ASSERT_TRUE(Takes(*far, 1, bytes)) << bytes;
      Send(*far, to_near, 2, bytes);
      ASSERT_TRUE(Takes(*near, 2, bytes)) << bytes;
    }
  }
}

// Frames come back in another order than they went, and the fill ring goes round twice.
TEST_F(AfXdpPortTest, TheNextPacketLiesWhereItIsFetchedAhead) {
  auto near = OpenNearUdp("10.77.0.1:4810");
  auto far = OpenFar("10.77.0.2:4810").value();
  uint64_t to_far;
  {
    const test::InNamespace inside(network_->near());
    to_far = near->AddPath(*Address::Parse("10.77.0.2:4810")).value();
  }
  bool met = false;
  for (const uint64_t begin_ns = NowNs(); !met && NowNs() - begin_ns < kGiveUpNs;) {
    Send(*near, to_far, 0, kDatagramBytesMin);
    met = TakesWithin(*far, 0, kDatagramBytesMin, 100 * kNsPerMs);
  }
  ASSERT_TRUE(met);
  while (TakesWithin(*far, 0, kDatagramBytesMin, 10 * kNsPerMs)) {
  }
  constexpr int kPairs = 1500;
  for (int pair = 0; pair < kPairs; ++pair) {
    ReceivedDatagram taken[2];
    for (ReceivedDatagram& one : taken) {
      const uint8_t* const guessed = far->NextPacket();
      Send(*near, to_far, 1, kDatagramBytesMin);
      const uint64_t begin_ns = NowNs();
      while (far->Receive(&one, 1) == 0) ASSERT_LT(NowNs() - begin_ns, kGiveUpNs);
      ASSERT_EQ(one.data, guessed + kHeaders4Bytes) << pair;
    }
    std::swap(taken[0], taken[1]);
    far->Release(taken, 2);
  }
}

// Keeps only the capabilities given, as another user.
void DropTo(uint64_t capabilities) {
  ASSERT_EQ(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), 0);
  ASSERT_EQ(syscall(SYS_setresuid, 64998, 64998, 64998), 0);  // This thread only.
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  data[0].effective = data[0].permitted = static_cast<uint32_t>(capabilities);
  ASSERT_EQ(syscall(SYS_capset, &header, data), 0);
}

TEST_F(AfXdpPortTest, TwoCapabilitiesSuffice) {
  auto near = OpenNearUdp("10.77.0.1:4810");
  std::thread([&] {
    const test::InNamespace inside(network_->far());  // Entered before, since that takes more.
    std::thread([&] {
      DropTo(1ull << CAP_NET_RAW | 1ull << CAP_IPC_LOCK);
      auto far = AfXdpPort::Create({.interface = test::VethPair::kInterface,
                                    .xsks_map_fd = far_->xsks_fd(),
                                    .local = *Address::Parse("10.77.0.2:4810"),
                                    .datagram_bytes_max = kDatagramBytesMax});
      ASSERT_TRUE(far.ok()) << far.status();
      const uint64_t path = (*far)->AddPath(near->local()).value();
      Send(**far, path, 1, 200);
      EXPECT_TRUE(Takes(*near, 1, 200));
    }).join();
  }).join();
}

TEST_F(AfXdpPortTest, WithoutPrivilegeItNamesTheCapability) {
  std::thread([&] {
    const test::InNamespace inside(network_->far());
    std::thread([&] {
      DropTo(0);
      const auto far = AfXdpPort::Create({.interface = test::VethPair::kInterface,
                                          .xsks_map_fd = far_->xsks_fd(),
                                          .local = *Address::Parse("10.77.0.2:4810"),
                                          .datagram_bytes_max = kDatagramBytesMax});
      EXPECT_EQ(far.status().code(), absl::StatusCode::kPermissionDenied);
      EXPECT_NE(std::string(far.status().message()).find("CAP_NET_RAW"), std::string::npos) << far.status();
    }).join();
  }).join();
}

// It needs no capability, and has the queue when its maker is done with it.
TEST_F(AfXdpPortTest, AGivenSocketServesAProcessWithoutPrivilegeInAnotherNamespace) {
  auto near = OpenNearUdp("10.77.0.1:4810");
  const AfXdpPort::Options options{.interface = test::VethPair::kInterface,
                                   .xsks_map_fd = far_->xsks_fd(),
                                   .local = *Address::Parse("10.77.0.2:4810"),
                                   .datagram_bytes_max = kDatagramBytesMax};
  absl::StatusOr<AfXdpPort::Given> given;
  {
    const test::InNamespace inside(network_->far());
    given = AfXdpPort::Make(options);
  }
  ASSERT_TRUE(given.ok()) << given.status();
  absl::StatusOr<std::unique_ptr<AfXdpPort>> far;
  std::thread([&] {
    DropTo(0);
    far = AfXdpPort::Adopt(options, *std::move(given));
    ASSERT_TRUE(far.ok()) << far.status();
    const uint64_t path = (*far)->AddPath(near->local()).value();
    Send(**far, path, 1, 200);
    EXPECT_TRUE(Takes(*near, 1, 200));
  }).join();
  EXPECT_EQ(OpenFar("10.77.0.2:4810").status().code(), absl::StatusCode::kUnavailable);
  *far = nullptr;
  EXPECT_TRUE(OpenFar("10.77.0.2:4810").ok());
}

TEST_F(AfXdpPortTest, AGivenSocketThatIsNoneIsRefused) {
  const AfXdpPort::Options options{.interface = test::VethPair::kInterface,
                                   .local = *Address::Parse("10.77.0.2:4810"),
                                   .datagram_bytes_max = kDatagramBytesMax};
  const auto given = [&] {
    const test::InNamespace inside(network_->far());
    return MakeGiven(options);
  };
  AfXdpPort::Given short_of_memory = given();
  short_of_memory.xsk.memory.Reset(memfd_create("short", MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(short_of_memory.xsk.memory.get(), 4096), 0);
  EXPECT_EQ(AfXdpPort::Adopt(options, std::move(short_of_memory)).status().code(),
            absl::StatusCode::kInvalidArgument);
  AfXdpPort::Given of_odd_frames = given();
  of_odd_frames.xsk.frame_bytes = 1000;
  EXPECT_EQ(AfXdpPort::Adopt(options, std::move(of_odd_frames)).status().code(),
            absl::StatusCode::kInvalidArgument);
  AfXdpPort::Given no_socket = given();
  no_socket.xsk.socket = DuplicateFd(no_socket.routes.plain4.get());
  EXPECT_FALSE(AfXdpPort::Adopt(options, std::move(no_socket)).ok());
}

// In a process of its own, in which no file may have so many bytes.
TEST_F(AfXdpPortTest, MemoryThatThereIsNotIsToldWithItsQueue) {
  const auto make = [] {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{4096, 4096};
    setrlimit(RLIMIT_FSIZE, &limit);
    PortStatus status;
    std::cerr << Xsk::Create({.interface = "eth7", .queue = 3}, &status).status().ToString();
    _exit(0);
  };
  EXPECT_EXIT(make(), testing::ExitedWithCode(0),
              "map 2097152 bytes for the AF_XDP socket on eth7 queue 3: File too large");
}

TEST_F(AfXdpPortTest, QueueInUseIsNamed) {
  auto first = OpenFar("10.77.0.2:4810").value();
  const auto second = OpenFar("10.77.0.2:4810");
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(std::string(second.status().message()).find("weft0 queue 0"), std::string::npos)
      << second.status();
}

TEST_F(AfXdpPortTest, QueueThatIsNotThereIsNamed) {
  const auto port = OpenFar("10.77.0.2:4810", 1400, 7);
  EXPECT_EQ(port.status().code(), absl::StatusCode::kInvalidArgument) << port.status();
}

TEST_F(AfXdpPortTest, QueueOfAKilledPredecessorIsTakenOver) {
  for (int life = 0; life < 5; ++life) {
    int ready[2];
    ASSERT_EQ(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
      auto port = OpenFar("10.77.0.2:4810");
      char ok = port.ok() ? 1 : 0;
      if (write(ready[1], &ok, 1) != 1) _exit(1);
      for (;;) pause();
    }
    close(ready[1]);
    char ok = 0;
    ASSERT_EQ(read(ready[0], &ok, 1), 1);
    close(ready[0]);
    ASSERT_EQ(ok, 1);
    ASSERT_EQ(kill(child, SIGKILL), 0);
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
    auto port = OpenFar("10.77.0.2:4810");
    ASSERT_TRUE(port.ok()) << port.status();
  }
}

TEST_F(AfXdpPortTest, MtuTooSmallForTheLargestDatagramIsNamed) {
  const auto port = OpenFar("10.77.0.2:4810", 1480);
  EXPECT_EQ(port.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(std::string(port.status().message()).find("1508"), std::string::npos) << port.status();
}

TEST_F(AfXdpPortTest, LargerFramesServeALargerMtu) {
  MakeNetwork({.mtu = 3400});
  auto near = OpenNearUdp("10.77.0.1:4810");
  auto far = OpenFar("10.77.0.2:4810", 3300).value();
  const uint64_t to_near = far->AddPath(near->local()).value();
  Send(*far, to_near, 2, 3300);
  EXPECT_TRUE(Takes(*near, 2, 3300));
}

// A veth hands over what its peer's kernel sends as one uncut, where the program runs on socket buffers.
TEST_F(AfXdpPortTest, AStreamThatAPeerSendsByUdpArrivesOneByOneWhereTheHintAsksForIt) {
  auto near = OpenNearUdp("10.77.0.1:4810");
  auto far = OpenFar("10.77.0.2:4810").value();
  const uint64_t path = near->AddPath(*Address::Parse("10.77.0.2:4810")).value();
  constexpr uint64_t kCount = 64;
  for (uint64_t i = 0; i < kCount; ++i) {
    uint8_t* const out = near->BeginSend();
    ASSERT_NE(out, nullptr);
    WriteDatagram(out, i, 1300, WEFT_WORKER_HINT_ALONE);
    near->FinishSend(path, 1300);
  }
  uint64_t got = 0;
  for (const uint64_t begin_ns = NowNs(); got < kCount && NowNs() - begin_ns < kGiveUpNs;) {
    near->Flush();
    ReceivedDatagram one;
    if (far->Receive(&one, 1) == 0) continue;
    EXPECT_TRUE(IsDatagram(one, got, 1300, WEFT_WORKER_HINT_ALONE)) << one.bytes;
    far->Release(&one, 1);
    ++got;
  }
  EXPECT_EQ(got, kCount);
}

TEST_F(AfXdpPortTest, InterfaceThatIsNotThereIsNamed) {
  const auto port = AfXdpPort::Create(
      {.interface = "no-such-if", .xsks_map_fd = -1, .local = *Address::Parse("10.77.0.2:4810")});
  EXPECT_EQ(port.status().code(), absl::StatusCode::kNotFound);
}

TEST_F(AfXdpPortTest, StatusSaysWhatWasChosen) {
  auto far = OpenFar("10.77.0.2:4810").value();
  bool generic = false, copy = false;
  for (const PortChoice& choice : far->status().choices) {
    generic |= choice.feature == "XDP program" && choice.chosen == "generic";
    copy |= choice.feature == "transfer" && choice.chosen == "copy";  // veth has no other.
  }
  EXPECT_TRUE(generic);
  EXPECT_TRUE(copy);
}

TEST_F(AfXdpPortTest, FramesAreInHugePagesWhereThereAreAny) {
  auto near = OpenNearUdp("10.77.0.1:4810");
  const test::HugePages pages(16);
  auto far = OpenFar("10.77.0.2:4810").value();
  std::string memory;
  for (const PortChoice& choice : far->status().choices) {
    if (choice.feature == "memory") memory = choice.chosen;
  }
  EXPECT_THAT(memory, testing::HasSubstr("MiB in huge pages")) << "of " << pages.count();
  const uint64_t path = far->AddPath(near->local()).value();
  const uint64_t back = near->AddPath(*Address::Parse("10.77.0.2:4810")).value();
  for (uint64_t i = 0; i < 1'000; ++i) {  // Past the end of the first page of each ring.
    Send(*far, path, i, 1400);
    ASSERT_TRUE(Takes(*near, i, 1400)) << i;
    Send(*near, back, i, 1400);
    ASSERT_TRUE(Takes(*far, i, 1400)) << i;
  }
}

TEST_F(AfXdpPortTest, EveryQueueHasItsOwnSocket) {
  MakeNetwork({.queues = 2});
  const test::InNamespace inside(network_->far());
  EXPECT_EQ(QueuesOf(test::VethPair::kInterface), 2u);
  auto first = OpenFar("10.77.0.2:4810", 1400, 0), second = OpenFar("10.77.0.2:4810", 1400, 1);
  EXPECT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(second.ok()) << second.status();
}

}  // namespace
}  // namespace weft::port
