// SPDX-License-Identifier: Apache-2.0
// What waits for a peer of the agent that has not read yet.
#include "dataplane/agent/connection.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <string>

#include "absl/status/status.h"

namespace weft::agent {
namespace {

class ConnectionTest : public testing::Test {
 protected:
  ConnectionTest() {
    int ends[2] = {-1, -1};
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    connection_.socket.Reset(ends[0]);
    peer_.Reset(ends[1]);
  }
  // Sends until an error, `messages_max` at most; how many were taken.
  std::size_t SendUntilRefused(std::size_t messages_max, std::size_t bytes) {
    for (std::size_t i = 0; i < messages_max; ++i) {
      last_ = connection_.Send(std::string(bytes, 'x'), {});
      if (!last_.ok()) return i;
    }
    return messages_max;
  }
  // As a peer that reads all that comes, while this side sends on what waits.
  std::size_t ReadAll() {
    std::size_t read = 0;
    for (;;) {
      const absl::StatusOr<ReceivedMessage> message = ReceiveMessage(peer_.get());
      if (message.ok()) {
        ++read;
        continue;
      }
      if (connection_.queue.empty()) return read;
      if (!connection_.Flush().ok()) return read;
    }
  }

  Connection connection_;
  UniqueFd peer_;
  absl::Status last_;
};

// A host with so many routes gets them in one turn when a node has gone whose functions it calls.
TEST_F(ConnectionTest, AsManyMessagesAsAHostMayHaveRoutesWaitForItToRead) {
  EXPECT_EQ(SendUntilRefused(16'384, 400), 16'384u) << last_;
  EXPECT_NE(connection_.crowded_since_ns, 0u);
  EXPECT_EQ(ReadAll(), 16'384u);
  EXPECT_EQ(connection_.crowded_since_ns, 0u);
  EXPECT_EQ(connection_.queued_bytes, 0u);
}

// One that takes its time, but reads, is no peer that never does.
TEST_F(ConnectionTest, WhoReadsHasTimeForTheRest) {
  ASSERT_EQ(SendUntilRefused(16'384, 400), 16'384u) << last_;
  connection_.SetCrowded(1);
  const auto read = [this](std::size_t messages) {
    while (messages > 0) {
      if (ReceiveMessage(peer_.get()).ok()) --messages;
      ASSERT_TRUE(connection_.Flush().ok());
    }
  };
  read(kQueuedMessagesMax);
  EXPECT_EQ(connection_.crowded_since_ns, 1u);
  read(1);
  EXPECT_GT(connection_.crowded_since_ns, 1u);
}

TEST_F(ConnectionTest, WhatFewMessagesWaitForIsNoCrowd) {
  EXPECT_EQ(SendUntilRefused(kQueuedMessagesMax, 16), kQueuedMessagesMax);
  EXPECT_EQ(connection_.crowded_since_ns, 0u);
  // Few, but long.
  EXPECT_EQ(SendUntilRefused(64, 32 * 1024), 64u);
  EXPECT_NE(connection_.crowded_since_ns, 0u);
}

TEST_F(ConnectionTest, ThereIsAnEndToWhatWaits) {
  const std::size_t bytes = 32 * 1024;
  EXPECT_LE(SendUntilRefused(1'000'000, bytes), kQueueTimesMax * kQueuedBytesMax / bytes + 1024);
  EXPECT_TRUE(absl::IsResourceExhausted(last_)) << last_;
  EXPECT_LE(connection_.queued_bytes, kQueueTimesMax * kQueuedBytesMax + bytes);
}

// Who may open the admin socket reads an answer of many rows when it likes.
TEST_F(ConnectionTest, WhoIsTrustedHasNoTimeToReadIn) {
  connection_.on_admin_socket = true;
  EXPECT_EQ(SendUntilRefused(16'384, 400), 16'384u) << last_;
  EXPECT_EQ(connection_.crowded_since_ns, 0u);
}

}  // namespace
}  // namespace weft::agent
