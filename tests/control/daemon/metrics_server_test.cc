// SPDX-License-Identifier: Apache-2.0
#include "control/daemon/metrics_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "absl/strings/str_cat.h"

namespace weft::control {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

class MetricsServerTest : public testing::Test {
 protected:
  void SetUp() override {
    auto server = MetricsServer::Create("127.0.0.1:0", [] { return std::string("weft_up 1\n"); });
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  UniqueFd Connect() {
    UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(server_->port());
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    return fd;
  }
  void Pump() {
    for (int i = 0; i < 4; ++i) {
      std::vector<pollfd> entries;
      server_->AddPollEntries(&entries);
      poll(entries.data(), entries.size(), 5);
      server_->OnEvents(entries, now_ns_);
    }
  }
  static void Send(const UniqueFd& fd, const std::string& text) {
    ASSERT_EQ(send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  // What has come; "closed" where that is the end and nothing came.
  std::string Received(const UniqueFd& fd) {
    Pump();
    std::string all;
    char bytes[4096];
    for (;;) {
      const ssize_t got = recv(fd.get(), bytes, sizeof(bytes), MSG_DONTWAIT);
      if (got == 0 && all.empty()) return "closed";
      if (got <= 0) return all;
      all.append(bytes, static_cast<std::size_t>(got));
    }
  }
  std::string Ask(const std::string& text) {
    const UniqueFd fd = Connect();
    Send(fd, text);
    return Received(fd);
  }

  uint64_t now_ns_ = kNsPerSecond;
  std::unique_ptr<MetricsServer> server_;
};

TEST_F(MetricsServerTest, OnlyLoopbackIsListenedOn) {
  for (const char* address : {"", "127.0.0.1", "0.0.0.0:9464", "10.0.0.1:9464", "[::]:9464", "::1:9464",
                              "localhost:9464", "127.0.0.1:70000", "[::1]:x"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(CheckLoopback(address))) << address;
  }
  for (const char* address : {"127.0.0.1:9464", "127.1.2.3:1", "[::1]:9464"}) {
    EXPECT_TRUE(CheckLoopback(address).ok()) << address;
  }
  const std::string taken = absl::StrCat("127.0.0.1:", server_->port());
  EXPECT_THAT(MetricsServer::Create(taken, nullptr).status().ToString(), HasSubstr(taken));
}

TEST_F(MetricsServerTest, WhatIsNoRequestForMetricsIsRefused) {
  EXPECT_THAT(Ask("POST /metrics HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(Ask("GET / HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(Ask("GET /metricsx HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(Ask(std::string(9'000, 'x')), StartsWith("HTTP/1.1 431 "));
  EXPECT_EQ(Ask("GET /metr"), "");
}

TEST_F(MetricsServerTest, MetricsAreToldAndTheConnectionClosed) {
  const UniqueFd fd = Connect();
  Send(fd, "GET /metrics HT");
  EXPECT_EQ(Received(fd), "");
  Send(fd, "TP/1.1\r\nHost: x\r\n\r\n");
  const std::string answer = Received(fd);
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("Content-Length: 10\r\n"));
  EXPECT_THAT(answer, EndsWith("\r\n\r\nweft_up 1\n"));
  EXPECT_EQ(Received(fd), "closed");
  EXPECT_EQ(server_->wake_ns(), 0u);
}

TEST_F(MetricsServerTest, TheSlowAndTheManyAreClosed) {
  const UniqueFd slow = Connect();
  Pump();
  EXPECT_EQ(server_->wake_ns(), now_ns_ + MetricsServer::kClientNsMax);
  server_->OnTime(now_ns_ + MetricsServer::kClientNsMax - 1);
  EXPECT_EQ(Received(slow), "");
  server_->OnTime(now_ns_ + MetricsServer::kClientNsMax);
  EXPECT_EQ(Received(slow), "closed");
  std::vector<UniqueFd> many;
  for (std::size_t i = 0; i <= MetricsServer::kClientsMax; ++i) {
    many.push_back(Connect());
    Pump();
  }
  EXPECT_EQ(Received(many.front()), "closed");
  EXPECT_EQ(Received(many[1]), "");
}

}  // namespace
}  // namespace weft::control
