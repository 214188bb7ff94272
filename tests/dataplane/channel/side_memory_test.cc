// SPDX-License-Identifier: Apache-2.0
// What is refused as a peer's memory, by which name, and what the peer cannot do with ours.
#include "dataplane/channel/side_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <thread>

#include "dataplane/base/clock.h"
#include "dataplane/base/mapping.h"
#include "dataplane/channel/channel.h"
#include "tests/dataplane/channel/stuck_page.h"
#include "tests/support/huge_pages.h"

namespace weft {
namespace {

constexpr std::size_t kBytes = 64 * 1024;
constexpr int kAllSeals = F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

UniqueFd Memfd(std::size_t bytes, bool allocate, int seals, unsigned flags = 0) {
  UniqueFd fd(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags));
  EXPECT_TRUE(fd.valid());
  EXPECT_EQ(ftruncate(fd.get(), static_cast<off_t>(bytes)), 0);
  if (allocate) {
    EXPECT_EQ(fallocate(fd.get(), 0, 0, static_cast<off_t>(bytes)), 0);
  }
  if (seals != 0) {
    EXPECT_EQ(fcntl(fd.get(), F_ADD_SEALS, seals), 0);
  }
  return fd;
}

TEST(SideMemoryTest, OurOwnPasses) {
  absl::StatusOr<SideMemory> memory = SideMemory::Create("test", kBytes);
  ASSERT_TRUE(memory.ok()) << memory.status();
  EXPECT_EQ(FindSideMemoryFault(memory->fd(), kBytes), SideMemoryFault::kNone);
  EXPECT_TRUE(CheckSideMemory(memory->fd(), kBytes).ok());
}

TEST(SideMemoryTest, UnsealedIsRefused) {
  EXPECT_EQ(FindSideMemoryFault(Memfd(kBytes, true, 0).get(), kBytes), SideMemoryFault::kNotSealed);
}

TEST(SideMemoryTest, EachMissingSealIsRefused) {
  for (const int missing : {F_SEAL_FUTURE_WRITE, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL}) {
    EXPECT_EQ(FindSideMemoryFault(Memfd(kBytes, true, kAllSeals & ~missing).get(), kBytes),
              SideMemoryFault::kNotSealed)
        << missing;
  }
}

TEST(SideMemoryTest, ShortAndLongAreRefused) {
  EXPECT_EQ(FindSideMemoryFault(Memfd(kBytes - 4096, true, kAllSeals).get(), kBytes),
            SideMemoryFault::kWrongSize);
  EXPECT_EQ(FindSideMemoryFault(Memfd(kBytes + 4096, true, kAllSeals).get(), kBytes),
            SideMemoryFault::kWrongSize);
}

TEST(SideMemoryTest, SparseIsRefused) {
  EXPECT_EQ(FindSideMemoryFault(Memfd(kBytes, false, kAllSeals).get(), kBytes), SideMemoryFault::kSparse);
  UniqueFd holed = Memfd(kBytes, true, 0);
  ASSERT_EQ(fallocate(holed.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096), 0);
  ASSERT_EQ(fcntl(holed.get(), F_ADD_SEALS, kAllSeals), 0);
  EXPECT_EQ(FindSideMemoryFault(holed.get(), kBytes), SideMemoryFault::kSparse);
}

TEST(SideMemoryTest, ReopenedReadOnlyWithoutSealsIsRefused) {
  UniqueFd writable = Memfd(kBytes, true, 0);
  UniqueFd reopened(open(("/proc/self/fd/" + std::to_string(writable.get())).c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(reopened.valid());
  EXPECT_EQ(FindSideMemoryFault(reopened.get(), kBytes), SideMemoryFault::kNotSealed);
}

TEST(SideMemoryTest, HugePagesAreRefused) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to reserve a huge page";
  const test::HugePages pages(2);
  constexpr std::size_t kHugeBytes = 2 << 20;
  UniqueFd fd(memfd_create("huge", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB));
  const bool made = fd.valid() && ftruncate(fd.get(), kHugeBytes) == 0 &&
                    fallocate(fd.get(), 0, 0, kHugeBytes) == 0 &&
                    fcntl(fd.get(), F_ADD_SEALS, kAllSeals) == 0;
  const SideMemoryFault fault = made ? FindSideMemoryFault(fd.get(), kHugeBytes) : SideMemoryFault::kNone;
  fd.Reset();
  if (!made) GTEST_SKIP() << "this machine gives no huge page";
  EXPECT_EQ(fault, SideMemoryFault::kNotTmpfs);
}

TEST(SideMemoryTest, WhatIsNotAMemfdIsRefused) {
  char name[] = "/tmp/weft-test-XXXXXX";
  UniqueFd file(mkstemp(name));
  unlink(name);
  EXPECT_EQ(FindSideMemoryFault(file.get(), kBytes), SideMemoryFault::kNotMemfd);
  UniqueFd event(eventfd(0, EFD_CLOEXEC));
  EXPECT_EQ(FindSideMemoryFault(event.get(), kBytes), SideMemoryFault::kNotMemfd);
  UniqueFd sock(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(FindSideMemoryFault(sock.get(), kBytes), SideMemoryFault::kNotMemfd);
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  UniqueFd read_end(ends[0]), write_end(ends[1]);
  EXPECT_EQ(FindSideMemoryFault(read_end.get(), kBytes), SideMemoryFault::kNotMemfd);
  UniqueFd memfd = Memfd(kBytes, true, kAllSeals);
  UniqueFd by_path(open(("/proc/self/fd/" + std::to_string(memfd.get())).c_str(), O_PATH | O_CLOEXEC));
  EXPECT_EQ(FindSideMemoryFault(by_path.get(), kBytes), SideMemoryFault::kNotMemfd);
  EXPECT_EQ(FindSideMemoryFault(-1, kBytes), SideMemoryFault::kNotMemfd);
}

// The file system of this one never answers: a check that asked it would hang.
TEST(SideMemoryTest, AFileOfAMountThatNeverAnswersIsRefusedWithoutAskingIt) {
  std::unique_ptr<StuckPage> stuck = StuckPage::Mount();
  if (stuck == nullptr) GTEST_SKIP() << "needs root and /dev/fuse";
  UniqueFd fd(open(stuck->path().c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(fd.valid());
  EXPECT_EQ(FindSideMemoryFault(fd.get(), kBytes), SideMemoryFault::kNotMemfd);
  EXPECT_EQ(stuck->reads(), 0);
}

// The peer's threads hang in write() to the memory that it handed over and in read() of ours, inside the copy
// of a page that never arrives. Neither checks nor mappings wait for the locks that it may hold.
TEST(SideMemoryTest, APeerStuckAtTheMemoriesHoldsNobodyUp) {
  std::unique_ptr<StuckPage> stuck = StuckPage::Mount();
  if (stuck == nullptr) GTEST_SKIP() << "needs root and /dev/fuse";
  absl::StatusOr<SideMemory> theirs = SideMemory::Create("theirs", kBytes);
  absl::StatusOr<SideMemory> ours = SideMemory::Create("ours", kBytes);
  ASSERT_TRUE(theirs.ok() && ours.ok());
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    stuck->CloseInChild();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int file = open(stuck->path().c_str(), O_RDWR | O_CLOEXEC);
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (page == MAP_FAILED) _exit(1);
    if (fork() == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      _exit(pwrite(theirs->fd(), page, 4096, 0) < 0 ? 1 : 0);
    }
    _exit(pread(ours->fd(), page, 4096, 0) < 0 ? 1 : 0);
  }
  const uint64_t give_up_ns = NowNs() + 10 * kNsPerSecond;
  while (stuck->reads() < 1 && NowNs() < give_up_ns)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ASSERT_GE(stuck->reads(), 1) << "the peer is in the trap";
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(FindSideMemoryFault(theirs->fd(), kBytes), SideMemoryFault::kNone);
  {
    absl::StatusOr<Mapping> mapped = Mapping::Create(theirs->fd(), kBytes, Mapping::Access::kRead);
    ASSERT_TRUE(mapped.ok()) << mapped.status();
    for (std::size_t i = 0; i < kBytes; i += 4096) EXPECT_EQ(mapped->data()[i], std::byte{0});
  }
  std::memset(ours->data(), 1, kBytes);
  EXPECT_EQ(waitpid(child, nullptr, WNOHANG), 0) << "still in the trap";
  stuck.reset();
  kill(child, SIGKILL);
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
}

TEST(SideMemoryTest, NobodyCanWriteResizeOrPunchIt) {
  absl::StatusOr<SideMemory> memory = SideMemory::Create("test", kBytes);
  ASSERT_TRUE(memory.ok());
  UniqueFd reopened(open(("/proc/self/fd/" + std::to_string(memory->fd())).c_str(), O_RDWR | O_CLOEXEC));
  for (const int fd : {memory->fd(), reopened.get()}) {
    EXPECT_EQ(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    void* readable = mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, fd, 0);
    ASSERT_NE(readable, MAP_FAILED);
    EXPECT_NE(mprotect(readable, kBytes, PROT_READ | PROT_WRITE), 0);
    munmap(readable, kBytes);
    EXPECT_LT(pwrite(fd, "x", 1, 0), 0);
    EXPECT_NE(ftruncate(fd, 4096), 0);
    EXPECT_NE(ftruncate(fd, 2 * kBytes), 0);
    EXPECT_NE(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
    EXPECT_NE(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
  }
  memory->data()[0] = std::byte{7};  // The owner still writes.
}

TEST(SideMemoryTest, ConnectNamesTheFault) {
  auto channel = *Channel::Create({});
  const absl::Status status = channel->Connect(Memfd(SideMemoryBytes(kArenaBytesDefault), true, 0), nullptr);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("not sealed"), absl::string_view::npos) << status;
  EXPECT_EQ(channel->state(), ChannelState::kNew);
}

}  // namespace
}  // namespace weft
