// SPDX-License-Identifier: Apache-2.0
#include "dataplane/base/unix_socket.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

namespace weft {
namespace {

class UnixSocketTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/weft-socket-XXXXXX";
    directory_ = mkdtemp(name);
    path_ = directory_ + "/s";
  }
  void TearDown() override {
    unlink(path_.c_str());
    rmdir(directory_.c_str());
  }
  // A connected pair: the client's end and the accepted one.
  void Connect(UniqueFd* client, UniqueFd* server) {
    auto listener = ListenUnix(path_, 0600);
    ASSERT_TRUE(listener.ok()) << listener.status();
    auto connected = ConnectUnix(path_);
    ASSERT_TRUE(connected.ok()) << connected.status();
    *server = UniqueFd(accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    ASSERT_TRUE(server->valid());
    *client = *std::move(connected);
  }

  std::string directory_;
  std::string path_;
};

TEST_F(UnixSocketTest, PathThatIsTooLongIsRefused) {
  EXPECT_EQ(ListenUnix("/tmp/" + std::string(200, 'x'), 0600).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(UnixSocketTest, LiveListenerIsNotReplacedAndDeadOneIs) {
  auto first = ListenUnix(path_, 0640);
  ASSERT_TRUE(first.ok()) << first.status();
  struct stat about;
  ASSERT_EQ(stat(path_.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0640u);
  EXPECT_EQ(ListenUnix(path_, 0600).status().code(), absl::StatusCode::kAlreadyExists);
  first->Reset();
  EXPECT_TRUE(ListenUnix(path_, 0600).ok());
}

TEST_F(UnixSocketTest, MessageArrivesWithItsDescriptors) {
  UniqueFd client, server;
  Connect(&client, &server);
  EXPECT_EQ(ReceiveMessage(server.get()).status().code(), absl::StatusCode::kUnavailable);
  UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int fds[] = {null.get(), null.get()};
  ASSERT_TRUE(SendMessage(client.get(), "hello", fds).ok());
  auto message = ReceiveMessage(server.get());
  ASSERT_TRUE(message.ok()) << message.status();
  EXPECT_EQ(message->bytes, "hello");
  EXPECT_EQ(message->fds.size(), 2u);
  EXPECT_FALSE(message->truncated);
}

TEST_F(UnixSocketTest, AShortMessageHoldsNoRoomForALongOne) {
  UniqueFd client, server;
  Connect(&client, &server);
  const std::string longest(kControlMessageBytesMax, 'x');
  ASSERT_TRUE(SendMessage(client.get(), longest).ok());
  ASSERT_TRUE(SendMessage(client.get(), "short").ok());
  const auto first = ReceiveMessage(server.get());
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->bytes, longest);
  EXPECT_FALSE(first->truncated);
  const auto second = ReceiveMessage(server.get());
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->bytes, "short");
  EXPECT_LT(second->bytes.capacity(), 100u);
}

TEST_F(UnixSocketTest, OversizedPacketIsMarkedTruncated) {
  UniqueFd client, server;
  Connect(&client, &server);
  const std::string large(kControlMessageBytesMax + 1, 'x');
  ASSERT_EQ(send(client.get(), large.data(), large.size(), 0), static_cast<ssize_t>(large.size()));
  auto message = ReceiveMessage(server.get());
  ASSERT_TRUE(message.ok());
  EXPECT_TRUE(message->truncated);
  EXPECT_EQ(SendMessage(client.get(), large).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(UnixSocketTest, ClosedPeerEndsTheConversation) {
  UniqueFd client, server;
  Connect(&client, &server);
  client.Reset();
  EXPECT_EQ(ReceiveMessage(server.get()).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(SendMessage(server.get(), "x").code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(UnixSocketTest, LastWordsOfAPeerThatReadNothingArrive) {
  UniqueFd client, server;
  Connect(&client, &server);
  ASSERT_TRUE(SendMessage(client.get(), "never read").ok());
  ASSERT_TRUE(SendMessage(server.get(), "last words").ok());
  server.Reset();
  auto message = ReceiveMessage(client.get());
  ASSERT_TRUE(message.ok()) << message.status();
  EXPECT_EQ(message->bytes, "last words");
  EXPECT_EQ(ReceiveMessage(client.get()).status().code(), absl::StatusCode::kOutOfRange);
}

TEST_F(UnixSocketTest, FullBufferIsUnavailableAndNothingIsLost) {
  UniqueFd client, server;
  Connect(&client, &server);
  int sent = 0;
  while (SendMessage(client.get(), std::string(1000, 'x')).ok()) ++sent;
  ASSERT_GT(sent, 0);
  int received = 0;
  while (ReceiveMessage(server.get()).ok()) ++received;
  EXPECT_EQ(received, sent);
}

TEST_F(UnixSocketTest, WaitReadyRunsOutOfTime) {
  UniqueFd client, server;
  Connect(&client, &server);
  EXPECT_EQ(WaitReady(server.get(), POLLIN, 1).code(), absl::StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace weft
