// SPDX-License-Identifier: Apache-2.0
// The whole agent over real sockets: brokering, programming, questions.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "dataplane/channel/layout.h"
#include "tests/dataplane/agent/server_fixture.h"

namespace weft::agent::test {
namespace {

using testing::HasSubstr;

TEST_F(ServerTest, TwoHostsGetTheSameChannelWithMemoriesAndDoorbells) {
  Start();
  ConnectBystanders();
  ASSERT_EQ(front_->channels(), back_->channels());
  const std::string id = *front_->channels().begin();
  std::vector<UniqueFd>& fds = front_->channel_fds()[id];
  EXPECT_TRUE(
      CheckSideMemory(fds[0].get(), SideMemoryBytes(static_cast<uint32_t>(front_->welcome().arena_bytes())))
          .ok());
  // The peer's memory cannot be mapped for writing, and the doorbells are two ends of one pair.
  EXPECT_EQ(mmap(nullptr, 4096, PROT_WRITE, MAP_SHARED, fds[0].get(), 0), MAP_FAILED);
  ASSERT_EQ(send(fds[1].get(), "r", 1, MSG_DONTWAIT), 1);
  char ring = 0;
  EXPECT_EQ(recv(back_->channel_fds()[id][1].get(), &ring, 1, MSG_DONTWAIT), 1);
  ExpectBystandersWell();
}

TEST_F(ServerTest, SocketsHaveTheModesThatAdmissionNeeds) {
  Start();
  struct stat about;
  ASSERT_EQ(stat(agent_sock().c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0666u);
  ASSERT_EQ(stat(admin_sock().c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0660u);
}

}  // namespace
}  // namespace weft::agent::test
