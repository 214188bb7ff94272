// SPDX-License-Identifier: Apache-2.0
// One-way messages, one by one, in parts and as runs.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/dataplane/call/call_pair.h"

namespace weft {
namespace {

using absl::StatusCode;

TEST(OneWayTest, ArrivesOnceInOrderAndUnanswered) {
  CallPair pair;
  std::vector<std::string> seen;
  pair.callee.handler = [&](TestHost& host, const TestHost::Request& request) {
    EXPECT_TRUE(request.incoming.one_way());
    seen.push_back(request.payload);
    host.Answer(request, StatusCode::kOk, "nobody wants this");
  };
  CallSpec spec;
  bool in_parts = false;
  for (int i = 0; i < 1000; ++i) {
    const std::string message = absl::StrCat(i);
    spec.request = BytesOf(message);
    while (pair.caller.core.SendOneWay(*pair.route, spec, pair.caller.now_ns, &in_parts) ==
           StartState::kNoRoom) {
      pair.caller.core.Publish();
      pair.Turn();
    }
  }
  pair.caller.core.Publish();
  pair.Settle();
  ASSERT_EQ(seen.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(seen[static_cast<std::size_t>(i)], absl::StrCat(i));
  EXPECT_EQ(pair.caller.core.counters().responses_received, 0u);
  EXPECT_EQ(pair.caller.core.counters().one_way_sent, 1000u);
  EXPECT_EQ(pair.callee.core.counters().one_way_received, 1000u);
  EXPECT_EQ(pair.function->limit.calls(), 0u);
}

// Takes runs whole, as libweft does, and runs them at once.
struct RunHost : TestHost {
  std::byte* OnRunBegin(const MessageRun& run) {
    block.resize(run.bytes + 1);
    return block.data();
  }
  void OnRun(const Incoming& first, const MessageRun& run, std::byte* payload) {
    ++runs;
    Incoming incoming = first;
    for (uint32_t i = 0; i < run.count; ++i, ++incoming.request_id) {
      ++seen[incoming.request_id];
      texts.emplace_back(reinterpret_cast<const char*>(payload), run.lengths[i]);
      payload += RunStride(run.lengths[i]);
      core.EndOneWay(incoming);
    }
  }
  int TakeRuns(Link& link) {
    LinkSink<RunHost> sink(core, *this, link);
    return link.channel->Poll(sink, 32);
  }
  std::vector<std::byte> block;
  std::vector<std::string> texts;
  int runs = 0;
};

struct RunPair {
  explicit RunPair(const Policy& policy = {}) {
    std::tie(out, in) = Join(caller, callee);
    function = &callee.core.Serve("test/echo", nullptr);
    callee.core.SetServePolicy("test/echo", policy);
    callee.core.SetAccess(*in, {{kTestCaller, "test/caller", FunctionIdOf("test/echo")}});
    route = &caller.core.Route("test/caller", "test/echo");
    caller.core.SetRoute(*route, {{.link = out->index, .weight = 1, .caller_index = kTestCaller}}, policy,
                         StatusCode::kOk, "");
    callee.handler = [](TestHost& host, const TestHost::Request& request) {
      host.Answer(request, StatusCode::kOk, "");
    };
    for (int i = 0; i < 20; ++i) texts.push_back(absl::StrCat("message ", i));
    for (const std::string& text : texts) messages.push_back(BytesOf(text));
  }
  StartState Send(uint64_t deadline_ns, uint32_t* sent) {
    return caller.core.SendRun(*route, messages, deadline_ns, sent);
  }
  RunHost caller, callee;
  Link* out;
  Link* in;
  LocalFunction* function;
  RouteEntry* route;
  std::vector<std::string> texts;
  std::vector<std::span<const std::byte>> messages;
};

TEST(RunTest, IsAdmittedWholeAndEachMessageRunsOnce) {
  RunPair pair;
  uint32_t sent = 0;
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(pair.Send(2 * kNsPerSecond, &sent), StartState::kStarted);
    ASSERT_EQ(sent, 20u);
    pair.callee.TakeRuns(*pair.in);
  }
  EXPECT_EQ(pair.callee.runs, 50);
  ASSERT_EQ(pair.callee.texts.size(), 1000u);
  for (std::size_t i = 0; i < 1000; ++i) EXPECT_EQ(pair.callee.texts[i], pair.texts[i % 20]);
  for (const auto& [id, times] : pair.callee.seen) EXPECT_EQ(times, 1) << id;
  const CallCounters& counters = pair.callee.core.counters();
  EXPECT_EQ(pair.caller.core.counters().one_way_sent, 1000u);
  EXPECT_EQ(pair.caller.core.counters().requests_sent, 1000u);
  EXPECT_EQ(counters.requests_received, 1000u);
  EXPECT_EQ(counters.requests_admitted, 1000u);
  EXPECT_EQ(counters.one_way_received, 1000u);
  EXPECT_EQ(pair.function->admitted, 1000u);
  EXPECT_EQ(pair.function->limit.calls(), 0u);
  EXPECT_EQ(pair.callee.core.incoming_in_flight(), 0u);
}

// What cannot be admitted whole is looked at message by message: each gets its own refusal.
TEST(RunTest, MessagesOfARunThatFailsACheckAreJudgedOneByOne) {
  uint32_t sent = 0;
  {
    RunPair pair(Policy{.calls_per_second_max = 1});
    ASSERT_EQ(pair.Send(2 * kNsPerSecond, &sent), StartState::kStarted);
    while (pair.callee.TakeRuns(*pair.in) != 0) {
    }
    EXPECT_EQ(pair.callee.core.counters().requests_received, 20u);
    EXPECT_EQ(pair.callee.core.counters().requests_admitted, 1u);
    EXPECT_EQ(pair.callee.core.counters().refused_rate, 19u);
  }
  {
    RunPair pair(Policy{.concurrent_calls_max = 5});
    pair.callee.handler = nullptr;  // Held.
    ASSERT_EQ(pair.Send(2 * kNsPerSecond, &sent), StartState::kStarted);
    while (pair.callee.TakeRuns(*pair.in) != 0) {
    }
    EXPECT_EQ(pair.callee.held.size(), 5u);
    EXPECT_EQ(pair.callee.core.counters().refused_concurrency, 15u);
  }
  {
    RunPair pair;
    ASSERT_EQ(pair.Send(kNsPerSecond / 2, &sent), StartState::kStarted);
    while (pair.callee.TakeRuns(*pair.in) != 0) {
    }
    EXPECT_EQ(pair.callee.core.counters().dropped_expired, 20u);
  }
  {
    RunPair pair;
    pair.callee.core.SetAccess(*pair.in, {});
    ASSERT_EQ(pair.Send(2 * kNsPerSecond, &sent), StartState::kStarted);
    while (pair.callee.TakeRuns(*pair.in) != 0) {
    }
    EXPECT_EQ(pair.callee.core.counters().refused_caller, 20u);
    EXPECT_EQ(pair.callee.runs, 0);
  }
}

// A peer that sends a run again, or one that reaches back, runs nothing twice.
TEST(RunTest, IdsOfARunAreTakenOnce) {
  RunPair pair;
  MessageHeader first{.function_id = pair.function->id.value,
                      .deadline_ns = 2 * kNsPerSecond,
                      .request_id = 10,
                      .caller_index = kTestCaller,
                      .kind = MessageKind::kOneWay};
  for (const uint32_t id : {10u, 10u, 25u, 28u}) {
    first.request_id = id;
    ASSERT_EQ(pair.out->channel->TrySendRun(first, pair.messages, Lane::kRequest), 20u);
    pair.out->channel->Publish();
    while (pair.callee.TakeRuns(*pair.in) != 0) {
    }
  }
  // 10 to 29; none again; of 25 to 44 those above 29; of 28 to 47 those above 44.
  for (uint32_t id = 10; id < 48; ++id) EXPECT_EQ(pair.callee.seen[id], 1) << id;
  EXPECT_EQ(pair.callee.core.counters().requests_admitted, 38u);
  EXPECT_EQ(pair.callee.core.counters().dropped_duplicate, 42u);
}

TEST(OneWayTest, LongMessageGoesInPartsAndTellsItsEnd) {
  CallPair pair;
  std::string seen;
  pair.callee.handler = [&](TestHost& host, const TestHost::Request& request) {
    seen = request.payload;
    host.Answer(request, StatusCode::kOk, "");
  };
  const std::string message = Pattern(9, 3 << 20);
  Ended ended;
  CallSpec spec = pair.Spec(message, {}, ended);
  bool in_parts = false;
  ASSERT_EQ(pair.caller.core.SendOneWay(*pair.route, spec, pair.caller.now_ns, &in_parts),
            StartState::kStarted);
  EXPECT_TRUE(in_parts);
  for (int i = 0; i < 1000 && ended.count == 0; ++i) pair.Turn();
  pair.Turn(5);
  EXPECT_EQ(ended.code, StatusCode::kOk);
  EXPECT_TRUE(seen == message);
}

// A long one-way whose end cancels the long call that waits behind it, and starts another.
struct Meddler {
  static void Done(void* context, const CallOutcome& outcome) {
    auto& self = *static_cast<Meddler*>(context);
    Ended::Done(&self.ended, outcome);
    EXPECT_TRUE(self.pair.caller.core.Cancel(self.next));
    EXPECT_EQ(self.pair.caller.core.Start(*self.pair.route, self.third, self.pair.caller.now_ns, &self.last),
              StartState::kStarted);
  }
  CallPair pair{{}, SmallArenas(), Policy{.timeout_ns = 100 * kNsPerSecond}};
  Ended ended;
  CallHandle next, last;
  CallSpec third;
};

TEST(OneWayTest, ItsEndMayCancelTheCallBehindItAndStartAnother) {
  Meddler meddler;
  CallPair& pair = meddler.pair;
  const std::string message = Pattern(1, 3 << 20);
  const std::string request = Pattern(2, 12 << 20);  // Longer on its way than the first.
  std::vector<std::byte> room(message.size());
  Ended second, third;
  meddler.third = pair.Spec(message, room, third);
  const CallSpec behind = pair.Spec(request, {}, second);
  CallSpec spec;
  spec.request = BytesOf(message);
  spec.done = Meddler::Done;
  spec.context = &meddler;
  // As it is within the core, which looks when streams moved last: nothing slow may come between here and the
  // turns.
  pair.AtTime(NowNs());
  bool in_parts = false;
  ASSERT_EQ(pair.caller.core.SendOneWay(*pair.route, spec, pair.caller.now_ns, &in_parts),
            StartState::kStarted);
  ASSERT_TRUE(in_parts);
  ASSERT_EQ(pair.Start(behind), StartState::kStarted);
  meddler.next = pair.handle;
  for (int i = 0; i < 5000 && third.count == 0; ++i) {
    pair.AtTime(NowNs());
    pair.Turn();
  }
  EXPECT_EQ(meddler.ended.code, StatusCode::kOk);
  EXPECT_EQ(second.code, StatusCode::kCancelled);
  EXPECT_EQ(third.code, StatusCode::kOk) << third.text;
  EXPECT_EQ(pair.caller.core.Outstanding(*pair.out), 0u);
  EXPECT_FALSE(pair.caller.core.HasJobs());
}

TEST(OneWayTest, LongMessageThatDoesNotGoOutWholeIsCounted) {
  CallPair pair;
  const std::string message = Pattern(9, 3 << 20);
  Ended ended;
  const CallSpec spec = pair.Spec(message, {}, ended);
  bool in_parts = false;
  ASSERT_EQ(pair.caller.core.SendOneWay(*pair.route, spec, pair.caller.now_ns, &in_parts),
            StartState::kStarted);
  ASSERT_TRUE(in_parts);
  pair.caller.core.CloseLink(*pair.out, StatusCode::kUnavailable, "died");
  EXPECT_EQ(ended.code, StatusCode::kUnavailable);
  EXPECT_EQ(pair.caller.core.counters().one_way_broken_off, 1u);
  EXPECT_EQ(pair.caller.core.counters().one_way_sent, 0u);
}

TEST(OneWayTest, LongMessageEndsAtItsDeadlineBehindWhateverItsPeerDoesNotRead) {
  CallPair pair;
  const std::string message = Pattern(9, 3 << 20);
  Ended calls[64], ended;
  for (Ended& call : calls) {
    CallSpec spec = pair.Spec(message, {}, call);
    spec.deadline_ns = pair.caller.now_ns + 100 * kNsPerSecond;
    ASSERT_EQ(pair.Start(spec), StartState::kStarted);
  }
  const CallSpec spec = pair.Spec(message, {}, ended);
  bool in_parts = false;
  ASSERT_EQ(pair.caller.core.SendOneWay(*pair.route, spec, pair.caller.now_ns, &in_parts),
            StartState::kStarted);
  ASSERT_TRUE(in_parts);
  pair.caller.Turn();
  EXPECT_EQ(ended.count, 0);
  pair.AtTime(pair.caller.now_ns + Policy().timeout_ns);
  pair.caller.Turn();
  EXPECT_EQ(ended.count, 1);
  EXPECT_EQ(ended.code, StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(ended.not_executed);
  EXPECT_EQ(pair.caller.core.counters().one_way_broken_off, 1u);
  for (const Ended& call : calls) EXPECT_EQ(call.count, 0);
}

TEST(OneWayTest, ManyLateMessagesEndInOneWalk) {
  CallPair pair;
  const std::string message = Pattern(9, 3 << 20);
  constexpr uint64_t kCalls = 64, kOneWays = 200;
  Ended calls[kCalls], ended[kOneWays];
  for (Ended& call : calls) {
    CallSpec spec = pair.Spec(message, {}, call);
    spec.deadline_ns = pair.caller.now_ns + 100 * kNsPerSecond;
    ASSERT_EQ(pair.Start(spec), StartState::kStarted);
  }
  for (Ended& one_way : ended) {
    bool in_parts = false;
    ASSERT_EQ(pair.caller.core.SendOneWay(*pair.route, pair.Spec(message, {}, one_way), pair.caller.now_ns,
                                          &in_parts),
              StartState::kStarted);
  }
  pair.AtTime(pair.caller.now_ns + Policy().timeout_ns);
  const uint64_t before = pair.caller.core.jobs_looked_at();
  pair.caller.Turn();
  EXPECT_LE(pair.caller.core.jobs_looked_at() - before, kCalls + kOneWays);
  for (const Ended& one_way : ended) EXPECT_EQ(one_way.count, 1);
  for (const Ended& call : calls) EXPECT_EQ(call.count, 0);
}

// A peer that reads a little now and then, so that the stream never stalls.
TEST(OneWayTest, LongMessageThatIsReadSlowlyEndsAtItsDeadline) {
  CallPair pair;
  const std::string message = Pattern(9, 16 << 20);
  Ended ended;
  const CallSpec spec = pair.Spec(message, {}, ended);
  const uint64_t begin_ns = pair.caller.now_ns;
  bool in_parts = false;
  ASSERT_EQ(pair.caller.core.SendOneWay(*pair.route, spec, begin_ns, &in_parts), StartState::kStarted);
  ASSERT_TRUE(in_parts);
  LinkSink<TestHost> sink(pair.callee.core, pair.callee, *pair.in);
  while (ended.count == 0) {
    pair.caller.now_ns += kStreamStallNs / 2;
    for (int i = 0; i < 4; ++i) pair.in->channel->Poll(sink, 1);
    pair.caller.Turn();
    ASSERT_LE(pair.caller.now_ns, begin_ns + Policy().timeout_ns);
  }
  EXPECT_EQ(ended.code, StatusCode::kDeadlineExceeded);
  EXPECT_EQ(pair.caller.now_ns, begin_ns + Policy().timeout_ns);
  EXPECT_FALSE(pair.caller.core.HasJobs());
  // The peer hears of it, and the channel goes on.
  pair.callee.Turn();
  pair.callee.Turn();
  EXPECT_EQ(pair.callee.aborted, 1);
  std::array<std::byte, 8> response;
  Ended next;
  ASSERT_EQ(pair.Start(pair.Spec("ping", response, next)), StartState::kStarted);
  pair.Turn(2);
  EXPECT_EQ(next.response, "ping");
}

// Nobody would learn how long its payload has to stay.
TEST(OneWayTest, LongMessageWithoutACallbackIsNotBegun) {
  CallPair pair;
  const std::string message = Pattern(9, 3 << 20);
  CallSpec spec;
  spec.request = BytesOf(message);
  bool in_parts = false;
  EXPECT_EQ(pair.caller.core.SendOneWay(*pair.route, spec, pair.caller.now_ns, &in_parts),
            StartState::kNoRoom);
  EXPECT_FALSE(in_parts);
  EXPECT_FALSE(pair.caller.core.HasJobs());
  EXPECT_EQ(pair.caller.core.counters().ring_full, 0u);
  pair.Turn(5);
  EXPECT_EQ(pair.callee.core.counters().requests_received, 0u);
}

TEST(OneWayTest, RefusedOneWayIsCountedNotAnswered) {
  CallPair pair;
  pair.callee.core.SetAccess(*pair.in, {});
  CallSpec spec;
  spec.request = std::as_bytes(std::span("x", sizeof("x") - 1));
  bool in_parts = false;
  ASSERT_EQ(pair.caller.core.SendOneWay(*pair.route, spec, pair.caller.now_ns, &in_parts),
            StartState::kStarted);
  pair.caller.core.Publish();
  pair.Turn();
  EXPECT_EQ(pair.callee.core.counters().refused_caller, 1u);
  EXPECT_EQ(pair.caller.core.counters().responses_received, 0u);
}

}  // namespace
}  // namespace weft
