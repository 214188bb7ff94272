// SPDX-License-Identifier: Apache-2.0
#include "control/daemon/control_socket.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "control/daemon/items.h"
#include "dataplane/api/query_packets.h"
#include "dataplane/base/unix_socket.h"
#include "tests/support/temporary_directory.h"

namespace weft::control {
namespace {

class ControlSocketTest : public testing::Test {
 protected:
  void SetUp() override {
    // Whoever asks is this process: the agent in the tests that say so.
    Listen(geteuid());
  }
  void Listen(uid_t agent_uid) {
    const ControlSocket::Handlers handlers = {
        .status =
            [this] {
              api::QueryReply reply;
              reply.set_generation(7);
              for (int row = 0; row < rows_; ++row) {
                ItemBuilder(reply.add_items())
                    .Number("row", static_cast<uint64_t>(row))
                    .Text("error", error_);
              }
              return reply;
            },
        .changes =
            [](uint64_t after) {
              api::QueryReply reply;
              reply.set_generation(after);
              return reply;
            },
        .said =
            [](const api::Explain& call) {
              api::QueryReply reply;
              reply.add_items()->add_fields()->set_text(call.caller() + " to " + call.callee());
              return reply;
            },
        .steer = [this](const api::GetSteer& request) -> absl::StatusOr<SteerGrant> {
          if (request.interface() != "eth0") return absl::NotFoundError("no such interface");
          SteerGrant grant;
          grant.reply.set_interface(request.interface());
          grant.fds = {granted_.get(), granted_.get(), granted_.get()};
          return grant;
        }};
    socket_.reset();
    auto socket = ControlSocket::Create(path_, handlers, agent_uid);
    ASSERT_TRUE(socket.ok()) << socket.status();
    socket_ = *std::move(socket);
  }
  void Pump() {
    for (int i = 0; i < 4; ++i) {
      std::vector<pollfd> entries;
      socket_->AddPollEntries(&entries);
      poll(entries.data(), entries.size(), 5);
      socket_->OnEvents(entries);
    }
  }
  absl::StatusOr<api::AdminReply> Ask(int fd, const std::string& bytes) {
    if (absl::Status sent = SendMessage(fd, bytes); !sent.ok()) return sent;
    Pump();
    auto message = ReceiveMessage(fd);
    if (!message.ok()) return message.status();
    fds_ = message->fds.size();
    api::AdminReply reply;
    reply.ParseFromString(message->bytes);
    return reply;
  }
  static std::string QueryOf(api::Query::Kind kind) {
    api::AdminRequest request;
    request.mutable_query()->set_kind(kind);
    return request.SerializeAsString();
  }

  std::size_t fds_ = 0;  // With the last answer
  int rows_ = 0;         // Of a status, each with this text
  std::string error_;
  UniqueFd granted_{open("/dev/null", O_RDONLY | O_CLOEXEC)};
  test::TemporaryDirectory directory_;
  std::string path_ = directory_ / "control.sock";
  std::unique_ptr<ControlSocket> socket_;
};

TEST_F(ControlSocketTest, RunDirectoryThatIsMissingIsNamed) {
  const absl::Status failed =
      ControlSocket::Create(directory_ / "missing/control.sock", {}, geteuid()).status();
  EXPECT_TRUE(absl::IsNotFound(failed)) << failed;
  EXPECT_TRUE(absl::StrContains(failed.message(), "missing/control.sock: its directory does not exist"))
      << failed;
}

TEST_F(ControlSocketTest, AStatusOfMoreRowsThanAPacketHoldsComesInParts) {
  rows_ = 300;
  error_ = std::string(400, 'e');
  auto client = ConnectUnix(path_);
  ASSERT_TRUE(client.ok());
  auto reply = Ask(client->get(), QueryOf(api::Query::STATUS));
  int rows = 0;
  for (bool more = true; more;) {
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->query_reply().generation(), 7u);
    for (const api::Item& item : reply->query_reply().items()) EXPECT_EQ(item.fields(0).number(), rows++);
    more = reply->query_reply().more();
    if (!more) break;
    auto message = ReceiveMessage(client->get());
    ASSERT_TRUE(message.ok()) << message.status();
    reply->ParseFromString(message->bytes);
  }
  EXPECT_EQ(rows, rows_);
}

TEST_F(ControlSocketTest, AFilesNameThatIsNoTextLeavesTheStatusReadable) {
  rows_ = 1;
  error_ = "caf\xe9.yaml:1: wrong";
  auto client = ConnectUnix(path_);
  ASSERT_TRUE(client.ok());
  auto reply = Ask(client->get(), QueryOf(api::Query::STATUS));
  ASSERT_TRUE(reply.ok()) << reply.status();
  ASSERT_EQ(reply->query_reply().items_size(), 1);
  EXPECT_EQ(reply->query_reply().items(0).fields(1).text(), "caf?.yaml:1: wrong");
}

TEST_F(ControlSocketTest, ARowLongerThanAPacketIsCut) {
  rows_ = 1;
  error_ = std::string(70'000, 'e');
  auto client = ConnectUnix(path_);
  ASSERT_TRUE(client.ok());
  auto reply = Ask(client->get(), QueryOf(api::Query::STATUS));
  ASSERT_TRUE(reply.ok()) << reply.status();
  ASSERT_EQ(reply->query_reply().items_size(), 1);
  EXPECT_EQ(reply->query_reply().items(0).fields(1).text(),
            std::string(api::kCutTextBytesMax, 'e') + " ... (cut)");
}

TEST_F(ControlSocketTest, WhoSaidWhatIsAnswered) {
  auto client = ConnectUnix(path_);
  ASSERT_TRUE(client.ok());
  api::AdminRequest request;
  request.mutable_explain()->set_caller("a/b");
  request.mutable_explain()->set_callee("v/f");
  auto reply = Ask(client->get(), request.SerializeAsString());
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->query_reply().items(0).fields(0).text(), "a/b to v/f");
}

TEST_F(ControlSocketTest, AStatusQueryIsAnsweredAndAnotherRefusedByName) {
  auto client = ConnectUnix(path_);
  ASSERT_TRUE(client.ok());
  auto reply = Ask(client->get(), QueryOf(api::Query::STATUS));
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->query_reply().generation(), 7u);
  api::AdminRequest changes;
  changes.mutable_query()->set_kind(api::Query::CHANGES);
  changes.mutable_query()->set_after(12);
  reply = Ask(client->get(), changes.SerializeAsString());
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->query_reply().generation(), 12u);
  reply = Ask(client->get(), QueryOf(api::Query::ROUTES));
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->failed().code(), static_cast<uint32_t>(absl::StatusCode::kUnimplemented));
}

TEST_F(ControlSocketTest, MapsAreRefusedToAnyUserButTheAgents) {
  Listen(geteuid() + 1);
  auto client = ConnectUnix(path_);
  ASSERT_TRUE(client.ok());
  api::AdminRequest request;
  request.mutable_get_steer()->set_interface("eth0");
  auto reply = Ask(client->get(), request.SerializeAsString());
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->failed().code(), static_cast<uint32_t>(absl::StatusCode::kPermissionDenied));
  EXPECT_EQ(fds_, 0u);
  EXPECT_TRUE(Ask(client->get(), QueryOf(api::Query::STATUS)).ok());
}

TEST_F(ControlSocketTest, TheAgentIsGivenMapsAndToldWhereThereAreNone) {
  auto client = ConnectUnix(path_);
  ASSERT_TRUE(client.ok());
  api::AdminRequest request;
  request.mutable_get_steer()->set_interface("eth1");
  auto reply = Ask(client->get(), request.SerializeAsString());
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->failed().reason(), "no such interface");
  request.mutable_get_steer()->set_interface("eth0");
  reply = Ask(client->get(), request.SerializeAsString());
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->steer_maps().interface(), "eth0");
  EXPECT_EQ(fds_, 3u);
}

TEST_F(ControlSocketTest, GarbageClosesThatConnectionOnly) {
  auto good = ConnectUnix(path_);
  auto bad = ConnectUnix(path_);
  ASSERT_TRUE(good.ok() && bad.ok());
  EXPECT_FALSE(Ask(bad->get(), std::string(1000, '\xff')).ok());
  EXPECT_TRUE(Ask(good->get(), QueryOf(api::Query::STATUS)).ok());
  EXPECT_EQ(socket_->clients(), 1u);
}

TEST_F(ControlSocketTest, ManyConnectionsAreBoundedAndTheNewestIsServed) {
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 200; ++i) {
    auto client = ConnectUnix(path_);
    ASSERT_TRUE(client.ok());
    clients.push_back(*std::move(client));
    if (i % 10 == 0) Pump();
  }
  Pump();
  EXPECT_EQ(socket_->clients(), ControlSocket::kClientsMax);
  EXPECT_TRUE(Ask(clients.back().get(), QueryOf(api::Query::STATUS)).ok());
}

TEST_F(ControlSocketTest, AClientThatNeverReadsIsClosed) {
  auto client = ConnectUnix(path_);
  ASSERT_TRUE(client.ok());
  const int small = 1;
  setsockopt(client->get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
  bool closed = false;
  for (int i = 0; i < 100'000 && !closed; ++i) {
    const absl::Status sent = SendMessage(client->get(), QueryOf(api::Query::STATUS));
    closed = absl::IsFailedPrecondition(sent);
    if (absl::IsUnavailable(sent) || i % 8 == 0) Pump();
    closed |= socket_->clients() == 0 && i > 0;
  }
  EXPECT_TRUE(closed);
}

}  // namespace
}  // namespace weft::control
