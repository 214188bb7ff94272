// SPDX-License-Identifier: Apache-2.0
// Calls that come in: state, instances, queue, promotion, what a handler can ask and answer.
#include "tests/dataplane/host/fixture.h"

namespace weft::host {
namespace {

using ServeTest = HostTest;

TEST_F(ServeTest, LeafAnswersWithTheRequest) {
  Function& tool = Serve("demo/tool", "test_tool");
  const Answer answer = Call(tool, "echo me");
  EXPECT_EQ(answer.status, kOk);
  EXPECT_EQ(answer.bytes, "echo me");
}

TEST_F(ServeTest, EmptyRequestAndEmptyReplyWork) {
  const Answer answer = Call(Serve("demo/tool", "test_tool"), "");
  EXPECT_EQ(answer.status, kOk);
  EXPECT_EQ(answer.bytes, "");
}

TEST_F(ServeTest, HelloGreets) {
  EXPECT_EQ(Call(Serve("demo/hello", "hello"), "world").bytes, "Hello, world!");
}

TEST_F(ServeTest, LargeMessageArrivesWhole) {
  Function& tool = Serve("demo/tool", "test_tool");
  std::string request(3 << 20, 'e');
  for (size_t i = 1; i < request.size(); ++i) request[i] = static_cast<char>(i * 31);
  EXPECT_EQ(Call(tool, request).bytes, request);
}

TEST_F(ServeTest, LongestMessageArrivesAndOneByteMoreIsRefused) {
  Function& tool = Serve("demo/tool", "test_tool");
  std::string request(kMessageBytesMax, 'e');
  EXPECT_EQ(Call(tool, request).bytes.size(), kMessageBytesMax);
  request += 'e';
  EXPECT_EQ(Call(tool, request).status, kOutOfRange);
  EXPECT_EQ(Call(tool, Tool('g', kMessageBytesMax + 1)).status, kOutOfRange);
}

TEST_F(ServeTest, FreshInstanceRemembersNothing) {
  Function& tool = Serve("demo/tool", "test_tool");
  for (int i = 0; i < 20; ++i) EXPECT_EQ(As<uint32_t>(Call(tool, "c").bytes), 1u);
}

TEST_F(ServeTest, KeptInstanceRemembers) {
  Function& tool = Serve("demo/tool", "test_tool", {.keep = true});
  for (uint32_t i = 1; i <= 2 * kTrialCalls; ++i) ASSERT_EQ(As<uint32_t>(Call(tool, "c").bytes), i);
}

TEST_F(ServeTest, KeptInstanceIsReplacedAfterATrap) {
  Function& tool = Serve("demo/tool", "test_tool", {.keep = true});
  EXPECT_EQ(As<uint32_t>(Call(tool, "c").bytes), 1u);
  EXPECT_EQ(Call(tool, "t").status, kInternal);
  EXPECT_EQ(As<uint32_t>(Call(tool, "c").bytes), 1u);
}

TEST_F(ServeTest, CleanInstancesAreMadeInIdleMoments) {
  Function& tool = Serve("demo/tool", "test_tool", {.clean_target = 4});
  while (host_.IdleWork()) {
  }
  EXPECT_EQ(tool.clean_count(), 4u);
  for (int i = 0; i < 100; ++i) {
    Call(tool, "e");
    host_.IdleWork();
  }
  EXPECT_EQ(tool.counters().resets_on_path, 0u);
  // Without idle moments the pool runs dry, and that is counted.
  for (int i = 0; i < 10; ++i) Call(tool, "e");
  EXPECT_EQ(tool.counters().resets_on_path, 6u);
}

TEST_F(ServeTest, HandlerLearnsWhichFunctionItIs) {
  EXPECT_EQ(As<uint32_t>(Call(Serve("demo/seven", "test_tool", {.number = 7}), "n").bytes), 7u);
}

TEST_F(ServeTest, HandlerFailsWithStatusAndMessage) {
  const Answer answer = Call(Serve("demo/tool", "test_tool"), "f");
  EXPECT_EQ(answer.status, kNotFound);
  EXPECT_EQ(answer.bytes, "no such thing");
}

TEST_F(ServeTest, StatusOutsideTheCodesIsInternal) {
  EXPECT_EQ(Call(Serve("demo/tool", "test_tool"), "q").status, kInternal);
}

TEST_F(ServeTest, ReplyOutsideMemoryIsRefused) {
  EXPECT_EQ(Call(Serve("demo/tool", "test_tool"), "o").status, kOutOfRange);
}

TEST_F(ServeTest, DeadlineIsToldAndMissingOneIsWithoutEnd) {
  Function& tool = Serve("demo/tool", "test_tool");
  EXPECT_EQ(As<int64_t>(Call(tool, "d").bytes), INT64_MAX);
  const int64_t left = As<int64_t>(Call(tool, "d", {.deadline_ns = NowNs() + kNsPerSecond * 100}).bytes);
  EXPECT_GT(left, 0);
  EXPECT_LE(left, static_cast<int64_t>(100 * kNsPerSecond));
}

TEST_F(ServeTest, TraceParentIsWrittenAsW3cDoes) {
  Function& tool = Serve("demo/tool", "test_tool");
  EXPECT_EQ(Call(tool, "a").bytes, "");
  CallContext context;
  context.trace.present = true;
  context.trace.wire[0] = std::byte{0};
  for (size_t i = 0; i < 16; ++i) context.trace.wire[1 + i] = static_cast<std::byte>(0xa0 + i);
  for (size_t i = 0; i < 8; ++i) context.trace.wire[17 + i] = static_cast<std::byte>(i + 1);
  context.trace.wire[25] = std::byte{1};
  EXPECT_EQ(Call(tool, "a", context).bytes, "00-a0a1a2a3a4a5a6a7a8a9aaabacadaeaf-0102030405060708-01");
}

TEST_F(ServeTest, TraceBeforeTheRequestIsTakenOff) {
  Function& tool = Serve("demo/tool", "test_tool", {.keep = true});
  Function& caller = Serve("demo/caller", "test_caller", {.keep = true});
  mesh_.Serve("else/where", Remote::kLater);
  Deliver(caller, Caller('c', 0, "else/where", "x"));  // The next one waits in a private buffer.
  for (Function* function : {&tool, &caller}) {
    const std::string request = function == &tool ? "e with a trace" : Caller('c', 0, "else/where", "y");
    const uint32_t bytes = static_cast<uint32_t>(request.size());
    InCall* call = host_.Begin(*function, bytes, {}, true, false, &refusal_);
    ASSERT_NE(call, nullptr);
    call->mesh = ++last_;
    memset(call->room, 7, Trace::kBytes);
    memcpy(call->room + Trace::kBytes, request.data(), request.size());
    host_.Run(call);
  }
  mesh_.FinishPending();
  host_.RunReady();
  mesh_.FinishPending();
  EXPECT_EQ(Await(last_ - 1).bytes, "e with a trace");
  EXPECT_EQ(Await(last_).bytes, "y");
  ASSERT_EQ(mesh_.contexts.size(), 2u);
  EXPECT_FALSE(mesh_.contexts[0].trace.present);
  EXPECT_TRUE(mesh_.contexts[1].trace.present);
  EXPECT_EQ(mesh_.contexts[1].trace.wire[25], std::byte{7});
}

TEST_F(ServeTest, InstanceIsHeldWhileItsReplyIsRead) {
  mesh_.keep_above = 100;
  Function& tool = Serve("demo/tool", "test_tool", {.keep = true});
  Call(tool, "e" + std::string(1000, 'x'));
  ASSERT_NE(mesh_.kept, nullptr);
  EXPECT_EQ(tool.active(), 1u);
  const uintptr_t next = *Deliver(tool, "e");
  host_.RunReady();
  EXPECT_FALSE(Answered(next));
  host_.ReplySent(mesh_.kept);
  EXPECT_EQ(Await(next).status, kOk);
  EXPECT_EQ(tool.active(), 0u);
}

TEST_F(ServeTest, StandardOutputGoesToTheLogWithinItsBound) {
  Call(Serve("demo/tool", "test_tool"), "p");
  ASSERT_EQ(mesh_.lines.size(), kLogLinesOfCallMax);
  EXPECT_EQ(mesh_.lines.front(), "demo/tool 1 line 0");
}

// Nothing but this bound ends the host's look at memory full of line feeds.
TEST_F(ServeTest, EmptyLinesOfOutputAreLookedAtWithinTheBoundsOfTheLog) {
  Function& tool = Serve("demo/tool", "test_tool");
  EXPECT_EQ(Call(tool, Tool('b', 100)).status, kOk);
  EXPECT_EQ(mesh_.lines, std::vector<std::string>{"demo/tool 1 end"});
  mesh_.lines.clear();
  EXPECT_EQ(Call(tool, Tool('b', kLogLinesOfCallMax * kLogLineBytesMax)).status, kOk);
  EXPECT_TRUE(mesh_.lines.empty());
}

TEST_F(ServeTest, ShortLeafIsPromotedToThePlainPath) {
  Function& tool = Serve("demo/tool", "test_tool", {.keep = true});
  Promote(tool, "e");
  Call(tool, "e");
  EXPECT_EQ(tool.counters().plain_calls, 1u);
}

TEST_F(ServeTest, CallsFailuresBytesTimeAndMemoryAreCounted) {
  Function& tool = Serve("demo/tool", "test_tool");
  const FunctionCounters& counters = tool.counters();
  for (int i = 0; i < 3; ++i) Call(tool, "echo me");
  EXPECT_EQ(counters.failures, 0u);
  EXPECT_EQ(counters.bytes_out, 3 * 7u);
  EXPECT_EQ(Call(tool, "t").status, kInternal);
  EXPECT_EQ(counters.calls, 4u);
  EXPECT_EQ(counters.failures, 1u);
  EXPECT_EQ(counters.bytes_in, 3 * 7u + 1);
  EXPECT_GT(counters.bytes_out, 3 * 7u);  // The fault's text
  uint64_t instances = 0;
  EXPECT_GE(tool.MemoryBytes(&instances), 65'536u);
  EXPECT_GE(instances, 1u);
  const uint64_t on_fibers_ns = counters.time.ns();
  EXPECT_GT(on_fibers_ns, 0u);
  Promote(tool, "e");
  const uint64_t before_ns = counters.time.ns();
  for (uint32_t i = 0; i < HandlerTime::kEvery; ++i) Call(tool, "e");
  EXPECT_GT(counters.plain_calls, 0u);
  EXPECT_GT(counters.time.ns(), before_ns);
}

TEST_F(ServeTest, OneTimedTurnStandsForThoseBeforeIt) {
  HandlerTime time;
  ASSERT_TRUE(time.Due());
  time.AddSample(5);
  EXPECT_EQ(time.ns(), 5u);
  for (uint32_t i = 1; i < HandlerTime::kEvery; ++i) ASSERT_FALSE(time.Due());
  ASSERT_TRUE(time.Due());
  time.AddSample(2);
  time.Add(1);
  EXPECT_EQ(time.ns(), 5u + 2 * HandlerTime::kEvery + 1);
}

TEST_F(ServeTest, LongCallsKeepALeafOnFibers) {
  Function& tool = Serve("demo/tool", "test_tool", {.keep = true});
  for (uint32_t i = 0; i < kTrialCalls + 100; ++i) Call(tool, i % 500 == 499 ? Tool('w', 1) : "e");
  EXPECT_FALSE(tool.plain());
}

TEST_F(ServeTest, OverrunOnThePlainPathDemotesForGood) {
  Function& tool = Serve("demo/tool", "test_tool", {.keep = true});
  Promote(tool, "e");
  // The thread that counts a call's time may itself wait for a core: then a later call is found out.
  for (int i = 0; i < 50 && tool.plain(); ++i) EXPECT_EQ(Call(tool, Tool('w', 20)).status, kOk);
  EXPECT_FALSE(tool.plain());
  for (uint32_t i = 0; i < 2 * kTrialCalls; ++i) Call(tool, "e");
  EXPECT_FALSE(tool.plain());
  EXPECT_EQ(tool.counters().demotions, 1u);
}

TEST_F(ServeTest, BusyKeptFunctionQueuesCallsInOrder) {
  mesh_.Serve("else/where", Remote::kLater);
  Function& caller = Serve("demo/caller", "test_caller", {.keep = true});
  const uintptr_t first = *Deliver(caller, Caller('c', 0, "else/where", "one"));
  const uintptr_t second = *Deliver(caller, Caller('c', 0, "else/where", "two"));
  host_.RunReady();
  ASSERT_EQ(mesh_.pending.size(), 1u);
  mesh_.FinishPending();
  EXPECT_EQ(Await(first).bytes, "one");
  host_.RunReady();
  ASSERT_EQ(mesh_.pending.size(), 1u);
  mesh_.FinishPending();
  EXPECT_EQ(Await(second).bytes, "two");
}

TEST_F(ServeTest, FullQueueRefusesTheNextCall) {
  mesh_.Serve("else/where", Remote::kLater);
  Function& caller = Serve("demo/caller", "test_caller", {.keep = true, .queued_max = 3});
  const std::string request = Caller('c', 0, "else/where", "x");
  std::vector<uintptr_t> calls;
  for (int i = 0; i < 4; ++i) calls.push_back(*Deliver(caller, request));
  EXPECT_FALSE(Deliver(caller, request).has_value());
  EXPECT_EQ(refusal_, kResourceExhausted);
  EXPECT_EQ(caller.counters().refused, 1u);
  for (uintptr_t call : calls) {
    host_.RunReady();
    mesh_.FinishPending();
    EXPECT_EQ(Await(call).status, kOk);
  }
  EXPECT_EQ(Call(Serve("demo/tool", "test_tool"), "e").status, kOk);
}

TEST_F(ServeTest, QueuedBytesAreBounded) {
  mesh_.Serve("else/where", Remote::kLater);
  Function& caller = Serve("demo/caller", "test_caller", {.keep = true, .queued_bytes_max = 1000});
  Deliver(caller, Caller('c', 0, "else/where", "x"));
  EXPECT_TRUE(Deliver(caller, Caller('c', 0, "else/where", std::string(900, 'x'))).has_value());
  EXPECT_FALSE(Deliver(caller, Caller('c', 0, "else/where", std::string(900, 'x'))).has_value());
}

TEST_F(ServeTest, QueuedCallWhoseDeadlinePassesIsNotRun) {
  mesh_.Serve("else/where", Remote::kLater);
  Function& caller = Serve("demo/caller", "test_caller", {.keep = true});
  const uintptr_t first = *Deliver(caller, Caller('c', 0, "else/where", "one"));
  const uintptr_t second =
      *Deliver(caller, Caller('c', 0, "else/where", "two"), {.deadline_ns = NowNs() + 1000});
  while (NowNs() % (10 * kNsPerMs) > kNsPerMs) {  // Some milliseconds.
  }
  mesh_.FinishPending();
  EXPECT_EQ(Await(first).status, kOk);
  EXPECT_EQ(Await(second).status, kDeadlineExceeded);
  EXPECT_EQ(mesh_.requests.size(), 1u);
}

TEST_F(ServeTest, CancelStopsACallWhereverItIs) {
  mesh_.Serve("else/where", Remote::kLater);
  Function& caller = Serve("demo/caller", "test_caller", {.keep = true});
  const std::string request = Caller('c', 0, "else/where", "x");
  Deliver(caller, request);
  InCall* running = latest_;
  Deliver(caller, request);
  InCall* queued = latest_;
  InCall* filling = host_.Begin(caller, 10, {}, false, false, &refusal_);
  host_.Cancel(queued);
  host_.Cancel(filling);
  host_.Cancel(running);
  EXPECT_EQ(mesh_.cancelled, 1);
  EXPECT_EQ(host_.in_call_count(), 0u);
  EXPECT_EQ(host_.out_call_count(), 0u);
  const uintptr_t after = *Deliver(caller, request);
  mesh_.FinishPending();
  EXPECT_EQ(Await(after).status, kOk);
  EXPECT_EQ(mesh_.replies.size(), 1u);
}

TEST_F(ServeTest, DrainingFunctionRefusesNewCallsAndCanThenBeRemoved) {
  mesh_.Serve("else/where", Remote::kLater);
  Function& caller = Serve("demo/caller", "test_caller");
  const uintptr_t last = *Deliver(caller, Caller('c', 0, "else/where", "x"));
  caller.Drain();
  EXPECT_EQ(Call(caller, "e").status, kUnavailable);
  EXPECT_FALSE(host_.Remove(&caller).ok());
  mesh_.FinishPending();
  EXPECT_EQ(Await(last).status, kOk);
  EXPECT_TRUE(host_.Remove(&caller).ok());
  EXPECT_EQ(host_.Find("demo/caller"), nullptr);
}

TEST_F(ServeTest, AFunctionStaysWhileARequestForItIsComingIn) {
  Function& sleeper = Serve("demo/sleeper", "test_sleeper");
  ASSERT_TRUE(sleeper.module().alloc_suspends());
  Status refusal;
  InCall* call = host_.Begin(sleeper, 100'000, {}, false, false, &refusal);
  ASSERT_NE(call, nullptr);
  EXPECT_EQ(sleeper.active(), 0u);
  sleeper.Drain();
  EXPECT_TRUE(absl::IsFailedPrecondition(host_.Remove(&sleeper)));
  host_.Cancel(call);
  EXPECT_TRUE(host_.Remove(&sleeper).ok());
}

TEST_F(ServeTest, AFunctionIsReplacedOnlyByOneThatStartsUp) {
  Function& old = Serve("demo/tool", "test_tool");
  auto replace = [&](const std::string& guest, const FunctionOptions& options) {
    return host_.Add("demo/tool", *Module::LoadFile(SharedEngine(), GuestPath(guest), std::nullopt, nullptr),
                     options, &old);
  };
  EXPECT_FALSE(replace("test_bad_start", {.time_limit_ms = 20}).ok());
  EXPECT_EQ(host_.Find("demo/tool"), &old);
  EXPECT_EQ(Call(old, "e").status, kOk);
  absl::StatusOr<Function*> added = replace("test_tool", {});
  ASSERT_TRUE(added.ok()) << added.status();
  EXPECT_EQ(host_.Find("demo/tool"), *added);
  EXPECT_EQ(Call(old, "e").status, kUnavailable);
}

TEST_F(ServeTest, SleepingGuestHoldsNoThread) {
  Function& sleeper = Serve("demo/sleeper", "test_sleeper");
  Function& tool = Serve("demo/tool", "test_tool");
  const uintptr_t long_one = *Deliver(sleeper, std::string(1, static_cast<char>(200)));
  const uintptr_t short_one = *Deliver(sleeper, std::string(1, 1));
  EXPECT_EQ(Call(tool, "e").status, kOk);
  EXPECT_EQ(Await(short_one).status, kOk);
  EXPECT_FALSE(Answered(long_one));
  EXPECT_EQ(Await(long_one).status, kOk);
  EXPECT_EQ(host_.NextDueNs(), UINT64_MAX);
}

TEST_F(ServeTest, CppGuestHasNoBytesOfAnAnswerThatIsTooLongForItsRoom) {
  mesh_.Serve("shop/north", Remote::kLater);
  mesh_.Serve("shop/south", Remote::kLater);
  Function& shop = Serve("demo/shop", "test_shop");
  const uintptr_t call = *Deliver(shop, "tea");
  ASSERT_EQ(mesh_.pending.size(), 2u);
  OutCall* north = mesh_.pending[0].first;
  mesh_.pending.erase(mesh_.pending.begin());
  mesh_.Finish(*north, kOk, std::string(65, '4'));
  mesh_.FinishPending();
  const Answer answer = Await(call);
  EXPECT_EQ(answer.status, kOk);
  EXPECT_EQ(answer.bytes.size(), 0u);
}

TEST_F(ServeTest, CppGuestTakesTheFirstOfTwoAnswers) {
  mesh_.Serve("shop/north", Remote::kLater);
  mesh_.Serve("shop/south", Remote::kLater);
  Function& shop = Serve("demo/shop", "test_shop");
  const uintptr_t call = *Deliver(shop, "tea");
  ASSERT_EQ(mesh_.pending.size(), 2u);
  OutCall* south = mesh_.pending[1].first;
  mesh_.pending.pop_back();
  mesh_.Finish(*south, kOk, "tea: 4");
  host_.RunReady();
  // The guest still waits for the other one, into whose room the host would write.
  EXPECT_FALSE(Answered(call));
  mesh_.FinishPending();
  EXPECT_EQ(Await(call).bytes, "tea: 4");
}

class GoTest : public HostTest {
 protected:
  void SetUp() override {
    if (access(GuestPath("test_go").c_str(), R_OK) != 0)
      GTEST_SKIP() << "no Go >= 1.24 in PATH when this was built";
  }
};

TEST_F(GoTest, KeepsCallsSleepsCollectsAndFails) {
  mesh_.Serve("demo/other", Remote::kLater);
  Function& go =
      Serve("demo/go", "test_go", {.keep = true, .memory_bytes_max = 256 << 20, .time_limit_ms = 10'000});
  EXPECT_EQ(Call(go, "hello").bytes, "call 1: HELLO");
  EXPECT_EQ(Call(go, "hello").bytes, "call 2: HELLO");
  const uintptr_t calling = *Deliver(go, "call north");
  while (mesh_.pending.empty()) host_.RunReady();
  mesh_.FinishPending();
  EXPECT_EQ(Await(calling).bytes, "north");
  // An answer larger than the room that the SDK gives at first.
  const std::string large = absl::StrCat("call ", std::string(100'000, 'x'));
  const uintptr_t long_call = *Deliver(go, large);
  while (mesh_.pending.empty()) host_.RunReady();
  mesh_.FinishPending();
  EXPECT_EQ(Await(long_call).bytes, large.substr(5));
  EXPECT_EQ(Call(go, "sleep").bytes, "slept");
  EXPECT_EQ(Call(go, "collect").bytes, "10000000");
  const Answer failed = Call(go, "fail");
  EXPECT_EQ(failed.status, kNotFound);
  EXPECT_EQ(failed.bytes, "no such thing");
  EXPECT_EQ(Call(go, "panic").status, kInternal);
  EXPECT_EQ(Call(go, "again").bytes, "call 1: AGAIN");
}

}  // namespace
}  // namespace weft::host
