// SPDX-License-Identifier: Apache-2.0
// Replies to peers that do not read: how long they hold what functions have lent, and what they leave to the
// replies to others.
#include <gtest/gtest.h>

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/dataplane/call/call_pair.h"

namespace weft {
namespace {

using absl::StatusCode;

// A reply that its function has lent.
struct Lent {
  explicit Lent(std::string text) : bytes(std::move(text)) {}

  static void Done(void* context, bool sent) {
    auto& lent = *static_cast<Lent*>(context);
    ++lent.done;
    lent.sent = sent;
    lent.bytes.assign(lent.bytes.size(), '?');  // The function's again.
  }

  std::string bytes;
  int done = 0;
  bool sent = false;
};

// A caller whose calls are held by the callee, which lends it the replies.
class LendingPair : public CallPair {
 public:
  explicit LendingPair(const CallCoreOptions& options = {}) : CallPair(options) { callee.handler = nullptr; }

  // Begins a call, and has it answered; the caller does not read.
  Lent& Answer(std::string reply) {
    responses.emplace_back(reply.size());
    EXPECT_EQ(Start(Spec("x", responses.back(), ended.emplace_back())), StartState::kStarted);
    callee.Turn();
    EXPECT_EQ(callee.held.size(), 1u);
    const Incoming incoming = callee.held.front().incoming;
    callee.held.pop_front();
    Lent& lent = lents.emplace_back(std::move(reply));
    callee.core.Reply(incoming, StatusCode::kOk, BytesOf(lent.bytes), Lent::Done, &lent);
    callee.core.Publish();
    return lent;
  }

  std::deque<std::vector<std::byte>> responses;
  std::deque<Ended> ended;
  std::deque<Lent> lents;
};

TEST(BacklogTest, AShortReplyIsGivenBackAtOnceThoughThePeerDoesNotRead) {
  constexpr std::size_t kReplies = 500;
  LendingPair pair;
  for (std::size_t i = 0; i < kReplies; ++i) {
    const Lent& lent = pair.Answer(std::string(1000 + i, static_cast<char>('a' + i % 26)));
    ASSERT_EQ(lent.done, 1) << i;
    ASSERT_TRUE(lent.sent);
  }
  EXPECT_GT(pair.in->reply_bytes, 0u);
  pair.Settle();
  for (std::size_t i = 0; i < kReplies; ++i)
    EXPECT_EQ(pair.ended[i].response, std::string(1000 + i, static_cast<char>('a' + i % 26)));
  EXPECT_EQ(pair.in->reply_bytes, 0u);
}

// A pair of which `fill` has made use without this thread's losing its core for so long that its peer would
// have been silent for too long.
std::unique_ptr<LendingPair> FilledQuickly(const std::function<void(LendingPair&)>& fill) {
  for (;;) {
    auto pair = std::make_unique<LendingPair>();
    const uint64_t began_ns = NowNs();
    fill(*pair);
    if (NowNs() - began_ns < kStreamStallNs) return pair;
  }
}

// Streams under way and before their start, and some behind more replies than one pump looks at.
TEST(BacklogTest, LongRepliesAreGivenBackWhereThePeerReadsNothing) {
  const std::string long_reply(100'000, 'x');
  const auto pair = FilledQuickly([&](LendingPair& filled) {
    for (int i = 0; i < 20; ++i) filled.Answer(long_reply);
    for (int i = 0; i < 300; ++i) filled.Answer(std::string(1000, 'y'));
    for (int i = 0; i < 20; ++i) filled.Answer(long_reply);
  });
  const uint32_t lent = pair->in->borrowed_jobs;
  EXPECT_GT(lent, 20u);
  for (std::size_t i = 320; i < 340; ++i) EXPECT_EQ(pair->lents[i].done, 0);
  const uint64_t last_lent_ns = pair->in->jobs.back().lent_ns;
  pair->callee.core.PumpJobs(pair->in->jobs_moved_ns + kStreamStallNs - 1);
  EXPECT_EQ(pair->in->borrowed_jobs, lent);
  pair->callee.core.PumpJobs(last_lent_ns + kStreamStallNs - 1);
  EXPECT_GE(pair->in->borrowed_jobs, 1u);
  pair->callee.core.PumpJobs(last_lent_ns + kStreamStallNs);
  EXPECT_EQ(pair->in->borrowed_jobs, 0u);
  for (const Lent& each : pair->lents) EXPECT_EQ(each.done, 1);
  pair->Settle();
  int arrived = 0;
  for (const Ended& ended : pair->ended) arrived += ended.response == std::string(1000, 'y') ? 1 : 0;
  EXPECT_EQ(arrived, 300) << "short ones wait";
  pair->Answer(long_reply);
  pair->Settle();
  EXPECT_EQ(pair->ended.back().response, long_reply);
}

// As where a caller computes for longer than that with answers of others before it.
TEST(BacklogTest, ALongReplyToAPeerThatHasLongBeenSilentIsGivenAsMuchTimeAsAnyOther) {
  LendingPair pair;
  for (int i = 0; i < 300; ++i) pair.Answer(std::string(1000, 'y'));
  ASSERT_GT(pair.in->reply_jobs, 0u);
  pair.in->jobs_moved_ns -= 10 * kStreamStallNs;
  const std::string long_reply(100'000, 'x');
  const Lent& lent = pair.Answer(long_reply);
  EXPECT_EQ(lent.done, 0);
  const uint64_t lent_ns = pair.in->jobs.back().lent_ns;
  pair.callee.core.PumpJobs(lent_ns + kStreamStallNs - 1);
  EXPECT_EQ(lent.done, 0);
  const Lent& next = pair.Answer(long_reply);
  pair.in->jobs.back().lent_ns = lent_ns + 1;
  pair.callee.core.PumpJobs(lent_ns + kStreamStallNs);
  EXPECT_EQ(lent.done, 1);
  EXPECT_FALSE(lent.sent);
  EXPECT_EQ(next.done, 0);
  pair.Settle();
  EXPECT_TRUE(next.done == 1 && next.sent);
  EXPECT_EQ(pair.ended.back().response, long_reply);
}

TEST(BacklogTest, LongRepliesToAPeerThatReadsAllArrive) {
  const std::string long_reply(100'000, 'x');
  const auto pair = FilledQuickly([&](LendingPair& filled) {
    for (int i = 0; i < 20; ++i) filled.Answer(long_reply);
  });
  pair->Settle();
  for (const Ended& ended : pair->ended) EXPECT_EQ(ended.response, long_reply);
  for (const Lent& lent : pair->lents) EXPECT_TRUE(lent.done == 1 && lent.sent);
  EXPECT_EQ(pair->in->borrowed_jobs, 0u);
}

TEST(BacklogTest, WhatOnePeerLeavesUnreadLeavesRoomForTheRepliesToAnother) {
  constexpr uint64_t kBytesMax = 512 * 1024;
  constexpr uint64_t kOwn = kArenaBytesDefault / 4;
  LendingPair pair({.reply_backlog_bytes_max = kBytesMax});
  TestHost other;
  const auto [other_out, other_in] = Join(other, pair.callee);
  pair.callee.core.SetAccess(*other_in, {{kTestCaller, "test/other", FunctionIdOf("test/echo")}});
  RouteEntry& route = other.core.Route("test/other", "test/echo");
  other.core.SetRoute(route, {{.link = other_out->index, .weight = 1, .caller_index = kTestCaller}}, {},
                      StatusCode::kOk, "");

  for (int i = 0; i < 1000; ++i) pair.Answer(std::string(1000, 'x'));
  EXPECT_GT(pair.callee.core.counters().responses_dropped, 0u);
  EXPECT_GT(pair.in->reply_bytes, kOwn + kBytesMax / 2 - 1000) << "who is alone has half, beside its own";
  EXPECT_LE(pair.in->reply_bytes, kOwn + kBytesMax / 2);

  // The other one reads late: its ring has no room, more than once.
  const uint64_t dropped = pair.callee.core.counters().responses_dropped;
  pair.callee.handler = [](TestHost& host, const TestHost::Request& request) {
    host.Answer(request, StatusCode::kOk, std::string(1000, 'z'));
  };
  std::array<std::array<std::byte, 1000>, 200> responses;
  std::array<Ended, 200> ended;
  for (std::size_t i = 0; i < ended.size(); ++i) {
    CallSpec spec = pair.Spec("x", responses[i], ended[i]);
    CallHandle handle;
    ASSERT_EQ(other.core.Start(route, spec, other.now_ns, &handle), StartState::kStarted);
    other.core.Publish();
    pair.callee.Turn();
  }
  EXPECT_GT(other_in->reply_bytes, 0u);
  while (pair.callee.Turn() + other.Turn() != 0) {
  }
  EXPECT_EQ(pair.callee.core.counters().responses_dropped, dropped);
  for (const Ended& each : ended) EXPECT_EQ(each.response, std::string(1000, 'z'));
}

// However many peers leave their replies unread: the next one has a quarter of its arena to itself.
TEST(BacklogTest, EachPeerHasRoomForSomeRepliesWhateverOthersLeaveUnread) {
  constexpr uint64_t kBytesMax = 64 * 1024;
  constexpr std::size_t kReplyBytes = 1000;
  const std::string request = "x";
  std::vector<std::byte> response(kReplyBytes);
  std::deque<Ended> ended;
  TestHost callee({.reply_backlog_bytes_max = kBytesMax});
  callee.core.Serve("test/echo", nullptr);
  ChannelOptions small;
  small.arena_bytes = small.peer_arena_bytes = 64 * 1024;
  std::vector<std::unique_ptr<TestHost>> callers;
  std::vector<Link*> ends;
  for (int i = 0; i < 12; ++i) {
    TestHost& caller = *callers.emplace_back(std::make_unique<TestHost>());
    const auto [out, in] = Join(caller, callee, small);
    ends.push_back(in);
    callee.core.SetAccess(*in, {{kTestCaller, "test/caller", FunctionIdOf("test/echo")}});
    RouteEntry& route = caller.core.Route("test/caller", "test/echo");
    caller.core.SetRoute(route, {{.link = out->index, .weight = 1, .caller_index = kTestCaller}}, {},
                         StatusCode::kOk, "");
    for (int call = 0; call < 300; ++call) {
      CallSpec spec;
      spec.request = BytesOf(request);
      spec.response = response;
      spec.done = Ended::Done;
      spec.context = &ended.emplace_back();
      CallHandle handle;
      ASSERT_EQ(caller.core.Start(route, spec, caller.now_ns, &handle), StartState::kStarted);
      caller.core.Publish();
      callee.Turn();
      ASSERT_EQ(callee.held.size(), 1u);
      callee.Answer(callee.held.front(), StatusCode::kOk, std::string(kReplyBytes, 'x'));
      callee.core.Publish();
      callee.held.clear();
    }
    EXPECT_GT(in->reply_bytes, small.arena_bytes / 4 - kReplyBytes) << "peer " << i;
  }
  uint64_t held = 0;
  for (const Link* end : ends) held += end->reply_bytes;
  EXPECT_LE(held, kBytesMax + ends.size() * small.arena_bytes / 4);
  for (Link* end : ends) callee.core.CloseLink(*end, StatusCode::kUnavailable, "the test ends");
  for (const Link* end : ends) EXPECT_EQ(end->reply_bytes, 0u);
}

}  // namespace
}  // namespace weft
