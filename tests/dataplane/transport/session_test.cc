// SPDX-License-Identifier: Apache-2.0
// The beginning of a session, where one side has both keys before the other: nothing that was taken is lost,
// and nothing is answered before it can be.
#include <gtest/gtest.h>

#include <string>

#include "tests/dataplane/transport/core_fixture.h"

namespace weft::transport {
namespace {

class SessionTest : public TwoCores {
 protected:
  // A new session in which B can be sent to, but has no key yet to send with.
  void BeginOneWay(bool coalesce = true) {
    Config config = SmallConfig();
    config.coalesce = coalesce;
    Start(config);
    a_->BeginSession(to_b_, 2, now_ns_);
    b_->BeginSession(to_a_, 2, now_ns_);
    const SealSecret ab = SecretFrom(20), ba = SecretFrom(21);
    const uint32_t at_b = b_->InstallReceiveKey(to_a_, 0, ab);
    at_a_ = a_->InstallReceiveKey(to_b_, 0, ba);
    a_->InstallSendKey(to_b_, 0, at_b, 3, ab);
  }
  void CompleteSession() { b_->InstallSendKey(to_a_, 0, at_a_, 4, SecretFrom(21)); }

  // How many of A's messages ended with OK.
  int Succeeded() {
    int succeeded = 0;
    for (const Event& event : Events(*a_)) {
      succeeded += event.code == absl::StatusCode::kOk;
      a_->Release(event);
    }
    return succeeded;
  }

  uint32_t at_a_ = 0;
};

TEST_F(SessionTest, DatagramOfSeveralMessagesIsTakenWholeBeforeTheSendKey) {
  BeginOneWay();
  ASSERT_EQ(Call(10, 1), SendResult::kOk);
  ASSERT_EQ(Call(10, 2, true), SendResult::kOk);
  // Announced, so that nothing but the announcement tells of it.
  ASSERT_EQ(Call(100'000, 3), SendResult::kOk);
  const std::size_t before = wire_.size();
  Run();
  ASSERT_EQ(wire_.size(), before + 1) << "they share a datagram";
  CompleteSession();
  for (int i = 0; i < 20; ++i) {
    EchoAll(*b_);
    RunFor(1'000'000);
  }
  EXPECT_EQ(Succeeded(), 3);
  EXPECT_EQ(b_->messages_in() + b_->messages_out(), 0u);
}

TEST_F(SessionTest, AnswersOfRequestsTakenBeforeTheSendKeyWaitForIt) {
  BeginOneWay(false);
  for (uint64_t user = 0; user < 20; ++user) ASSERT_EQ(Call(1'000, user, user % 2 == 0), SendResult::kOk);
  RunFor(1'000'000);
  EXPECT_EQ(EchoAll(*b_), 10);
  RunFor(1'000'000);
  EXPECT_EQ(Succeeded(), 0);
  CompleteSession();
  RunFor(1'000'000);
  EXPECT_EQ(Succeeded(), 20);
  EXPECT_EQ(a_->counters().resends_asked, 0u);
}

TEST_F(SessionTest, RefusalMadeBeforeTheSendKeyIsToldWithIt) {
  BeginOneWay();
  b_->RemoveFunction(kEcho);
  ASSERT_EQ(Call(10), SendResult::kOk);
  RunFor(1'000'000);
  CompleteSession();
  Run();
  const auto ended = Events(*a_);
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].code, absl::StatusCode::kNotFound);
}

TEST_F(SessionTest, CoreThatWaitsForASendKeyIsIdle) {
  BeginOneWay();
  // Its first segments arrive, the last one does not: B would ask for it if it could.
  eat_ = [](uint64_t path, const std::string& wire) { return path == kPathToB && wire.size() < 1'000; };
  ASSERT_EQ(Call(2'000, 1), SendResult::kOk);
  Run(3);
  for (int i = 0; i < 20; ++i) Pump(*b_, port_b_, now_ns_ += 1'000'000);
  EXPECT_GT(b_->NextTimerNs(now_ns_), now_ns_);
  eat_ = nullptr;
  CompleteSession();
  RunFor(40'000'000);
  EXPECT_EQ(EchoAll(*b_), 1);
  Run();
  EXPECT_EQ(Succeeded(), 1);
}

TEST_F(SessionTest, CloseOfASessionIsNotSentInTheNext) {
  Start(SmallConfig());
  a_->ClosePeer(to_b_, now_ns_);
  Session(2);
  Run();
  ASSERT_EQ(Call(10), SendResult::kOk);
  Run();
  EXPECT_EQ(EchoAll(*b_), 1);
  Run();
  EXPECT_EQ(Succeeded(), 1);
}

}  // namespace
}  // namespace weft::transport
