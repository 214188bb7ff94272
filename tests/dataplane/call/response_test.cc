// SPDX-License-Identifier: Apache-2.0
// Responses that a peer forges, or that do not fit.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "tests/dataplane/call/call_pair.h"

namespace weft {
namespace {

using absl::StatusCode;

TEST(ResponseTest, ResponseOfAnotherPeerIsDropped) {
  CallPair pair;
  TestHost thief;
  auto [to_thief, from_thief] = Join(pair.caller, thief);
  pair.callee.handler = nullptr;
  Ended ended;
  std::array<std::byte, 8> response{};
  ASSERT_EQ(pair.Start(pair.Spec("x", response, ended)), StartState::kStarted);
  pair.callee.Turn();
  for (uint32_t id = 0; id < 200; ++id) {
    from_thief->channel->TrySend({.request_id = id, .kind = MessageKind::kResponse}, BytesOf("stolen"),
                                 Lane::kReply);
    from_thief->channel->Publish();
    pair.caller.Turn();
  }
  EXPECT_EQ(ended.count, 0);
  EXPECT_EQ(pair.caller.core.counters().responses_unexpected, 200u);
  EXPECT_EQ(response[0], std::byte{0});
  pair.callee.Answer(pair.callee.held.front(), StatusCode::kOk, "true");
  pair.Turn();
  EXPECT_EQ(ended.response, "true");
}

TEST(ResponseTest, SecondResponseIsDropped) {
  CallPair pair;
  pair.callee.handler = nullptr;
  Ended ended;
  std::array<std::byte, 8> response{};
  ASSERT_EQ(pair.Start(pair.Spec("x", response, ended)), StartState::kStarted);
  pair.callee.Turn();
  const uint32_t id = pair.callee.held.front().incoming.request_id;
  for (const char* text : {"one", "two"}) {
    pair.in->channel->TrySend({.request_id = id, .kind = MessageKind::kResponse}, BytesOf(text),
                              Lane::kReply);
  }
  pair.in->channel->Publish();
  pair.caller.Turn();
  EXPECT_EQ(ended.count, 1);
  EXPECT_EQ(ended.response, "one");
  EXPECT_EQ(pair.caller.core.counters().responses_unexpected, 1u);
}

// A hostile peer begins a response, then one for which there is no memory: the call is over, and what the
// first one still brings must not be written to the caller's buffer, which is the caller's again.
TEST(ResponseTest, NothingIsWrittenToTheBufferOfACallWhoseSecondResponseBrokeOff) {
  ByteBudget budget(500'000);
  CallPair pair({}, {.budget = &budget});
  pair.callee.handler = nullptr;
  Ended ended;
  std::vector<std::byte> response(300'000);
  ASSERT_EQ(pair.Start(pair.Spec("x", response, ended)), StartState::kStarted);
  pair.callee.Turn();
  const MessageHeader header{.request_id = pair.callee.held.front().incoming.request_id,
                             .kind = MessageKind::kResponse};
  Channel& channel = *pair.in->channel;
  const std::string payload(300'000, 'x');
  SendStream first, second;
  for (SendStream* stream : {&first, &second}) {
    ASSERT_TRUE(channel.TryStart(*stream, header, BytesOf(payload), Lane::kReply, NowNs()));
    ASSERT_TRUE(channel.producer().PushChunk(*stream));
    channel.Publish();
    pair.caller.Turn();
  }
  ASSERT_EQ(ended.count, 1);
  EXPECT_EQ(ended.code, StatusCode::kUnavailable);
  EXPECT_EQ(response[0], std::byte{'x'}) << "a part of the first one had come";
  std::fill(response.begin(), response.end(), std::byte{0});
  while (channel.producer().PushChunk(first)) {
  }
  channel.Publish();
  pair.caller.Turn();
  EXPECT_EQ(ended.count, 1);
  EXPECT_EQ(std::count(response.begin(), response.end(), std::byte{0}), 300'000);
  EXPECT_EQ(pair.caller.core.Outstanding(*pair.out), 0u);
}

TEST(ResponseTest, UnknownStatusCodeBecomesUnknown) {
  CallPair pair;
  pair.callee.handler = nullptr;
  Ended ended;
  ASSERT_EQ(pair.Start(pair.Spec("x", {}, ended)), StartState::kStarted);
  pair.callee.Turn();
  const uint32_t id = pair.callee.held.front().incoming.request_id;
  pair.in->channel->TrySend({.request_id = id, .caller_index = 999, .kind = MessageKind::kResponse},
                            BytesOf("?"), Lane::kReply);
  pair.in->channel->Publish();
  pair.caller.Turn();
  EXPECT_EQ(ended.code, StatusCode::kUnknown);
}

TEST(ResponseTest, ResponseLongerThanItsBufferFailsWithBothSizes) {
  CallPair pair;
  Ended ended;
  std::array<std::byte, 10> response;
  ASSERT_EQ(pair.Start(pair.Spec("eleven byte", response, ended)), StartState::kStarted);
  pair.Turn();
  EXPECT_EQ(ended.code, StatusCode::kResourceExhausted);
  EXPECT_NE(ended.text.find("11"), std::string::npos) << ended.text;
  EXPECT_NE(ended.text.find("10"), std::string::npos) << ended.text;
  EXPECT_EQ(pair.caller.core.counters().responses_too_large, 1u);
  EXPECT_EQ(pair.caller.core.calls_in_flight(), 0u);
}

}  // namespace
}  // namespace weft
