// SPDX-License-Identifier: Apache-2.0
// Calls that guests make: at once, later, in parallel, one way, within the process, and wrongly.
#include "tests/dataplane/host/fixture.h"

namespace weft::host {
namespace {

using CallsTest = HostTest;

TEST_F(CallsTest, AnswerThatIsThereAtOnceNeedsNoSuspension) {
  mesh_.Serve("else/where", Remote::kEcho);
  Function& caller = Serve("demo/caller", "test_caller");
  const uintptr_t call = *Deliver(caller, Caller('c', 0, "else/where", "ping"));
  ASSERT_TRUE(Answered(call));
  EXPECT_EQ(Await(call).bytes, "ping");
}

TEST_F(CallsTest, AnswerFoundByBriefPollingNeedsNoSuspension) {
  mesh_.Serve("else/where", Remote::kPolled);
  Function& caller = Serve("demo/caller", "test_caller");
  const uintptr_t call = *Deliver(caller, Caller('c', 0, "else/where", "ping"));
  ASSERT_TRUE(Answered(call));
  EXPECT_EQ(mesh_.polls, 1);
}

TEST_F(CallsTest, LateAnswerResumesTheCaller) {
  mesh_.Serve("else/where", Remote::kLater);
  Function& caller = Serve("demo/caller", "test_caller");
  const uintptr_t call = *Deliver(caller, Caller('c', 0, "else/where", "ping"));
  EXPECT_EQ(host_.RunReady(), 0);
  EXPECT_FALSE(Answered(call));
  mesh_.FinishPending();
  EXPECT_EQ(host_.NextDueNs(), 0u);
  EXPECT_EQ(Await(call).bytes, "ping");
  EXPECT_EQ(host_.out_call_count(), 0u);
}

TEST_F(CallsTest, FailureReachesTheGuestWithItsMessage) {
  mesh_.Serve("else/where", Remote::kRefuse);
  const Answer answer = Call(Serve("demo/caller", "test_caller"), Caller('c', 0, "else/where", "x"));
  EXPECT_EQ(answer.status, kPermissionDenied);
  EXPECT_EQ(answer.bytes, "no rule allows it");
}

TEST_F(CallsTest, UnknownFunctionIsNotFound) {
  EXPECT_EQ(Call(Serve("demo/caller", "test_caller"), Caller('c', 0, "no/body", "x")).status, kNotFound);
}

TEST_F(CallsTest, NameIsResolvedOnce) {
  mesh_.Serve("else/where", Remote::kEcho);
  mesh_.Serve("else/there", Remote::kEcho);
  Function& caller = Serve("demo/caller", "test_caller");
  for (int i = 0; i < 50; ++i) {
    // One address in the guest, two names in turn.
    EXPECT_EQ(Call(caller, Caller('c', 0, i % 2 == 0 ? "else/where" : "else/there", "x")).status, kOk);
  }
  EXPECT_EQ(mesh_.resolved, 2);
}

TEST_F(CallsTest, NamesThatComeAndGoMakeRoomForNewOnes) {
  constexpr int kNames = 3000;
  constexpr int kKeptMax = 1024;
  mesh_.Serve("else/slow", Remote::kLater);
  mesh_.Serve("else/daily", Remote::kEcho);
  Function& caller = Serve("demo/caller", "test_caller");
  const uintptr_t slow = *Deliver(caller, Caller('c', 0, "else/slow", "ping"));
  for (int i = 0; i < kNames; ++i) {
    const std::string task = absl::StrCat("else/task", i);
    mesh_.Serve(task, Remote::kEcho);
    EXPECT_EQ(Call(caller, Caller('c', 0, task, "x")).status, kOk) << task;
    if (i % 100 == 0) {
      EXPECT_EQ(Call(caller, Caller('c', 0, "else/daily", "x")).status, kOk);
    }
    ASSERT_LE(mesh_.users(), kKeptMax);
  }
  // A call under way holds its callee, and what is used again and again is not asked for each time.
  EXPECT_EQ(mesh_.users("else/slow"), 1);
  EXPECT_LE(mesh_.resolved, kNames + 2);
  mesh_.FinishPending();
  EXPECT_EQ(Await(slow).bytes, "ping");
  ASSERT_TRUE(host_.Remove(&caller).ok());
  EXPECT_EQ(mesh_.users(), 0);
}

TEST_F(CallsTest, TimeoutAndDeadlineTravelWithTheCall) {
  mesh_.Serve("else/where", Remote::kEcho);
  Function& caller = Serve("demo/caller", "test_caller");
  const uint64_t far_ns = NowNs() + 1000 * kNsPerSecond;
  CallContext context;
  context.deadline_ns = far_ns;
  context.trace.present = true;
  context.trace.wire[1] = std::byte{42};
  Call(caller, Caller('c', 0, "else/where", "x"), context);
  Call(caller, Caller('c', 100, "else/where", "x"), context);
  Call(caller, Caller('c', 0, "else/where", "x"));
  ASSERT_EQ(mesh_.contexts.size(), 3u);
  EXPECT_EQ(mesh_.contexts[0].deadline_ns, far_ns);
  EXPECT_EQ(mesh_.contexts[0].trace.wire[1], std::byte{42});
  EXPECT_LT(mesh_.contexts[1].deadline_ns, far_ns);
  EXPECT_EQ(mesh_.contexts[2].deadline_ns, 0u);
}

TEST_F(CallsTest, CallAfterTheDeadlineIsNotMade) {
  mesh_.Serve("else/where", Remote::kEcho);
  Function& caller = Serve("demo/caller", "test_caller");
  EXPECT_EQ(Call(caller, Caller('c', 0, "else/where", "x"), {.deadline_ns = 1}).status, kDeadlineExceeded);
  EXPECT_TRUE(mesh_.requests.empty());
}

TEST_F(CallsTest, AnswerThatDoesNotFitIsFetchedInASecondStep) {
  mesh_.Serve("else/where", Remote::kEcho);
  Function& caller = Serve("demo/caller", "test_caller");
  const std::string payload(100'000, 'x');
  EXPECT_EQ(Call(caller, Caller('l', 0, "else/where", payload)).bytes, payload);
  EXPECT_EQ(host_.out_call_count(), 0u);
}

TEST_F(CallsTest, FanOutTakesAnswersInTheOrderOfTheirArrival) {
  mesh_.Serve("else/where", Remote::kLater);
  Function& caller = Serve("demo/caller", "test_caller");
  const uintptr_t call = *Deliver(caller, Caller('f', 4, "else/where", "abcd"));
  ASSERT_EQ(mesh_.pending.size(), 4u);
  for (size_t index : {2, 0, 1, 0}) {
    mesh_.FinishPending(index);
    host_.RunReady();
  }
  EXPECT_EQ(Await(call).bytes, "cadb");
}

TEST_F(CallsTest, OneWaySendNeedsNoAnswer) {
  mesh_.Serve("else/where", Remote::kLater);
  EXPECT_EQ(Call(Serve("demo/caller", "test_caller"), Caller('s', 0, "else/where", "note")).status, kOk);
  EXPECT_THAT(mesh_.sent, ::testing::ElementsAre("note"));
}

TEST_F(CallsTest, BadAddressesHandlesAndNamesAreRefused) {
  mesh_.Serve("else/where", Remote::kEcho);
  const Answer answer = Call(Serve("demo/caller", "test_caller"), Caller('m', 0, "else/where", "x"));
  EXPECT_EQ(answer.status, kOk);
  EXPECT_EQ(As<uint32_t>(answer.bytes), 12u);
}

TEST_F(CallsTest, CallsLeftBehindAreCancelled) {
  mesh_.Serve("else/where", Remote::kLater);
  Function& caller = Serve("demo/caller", "test_caller");
  EXPECT_EQ(Call(caller, Caller('o', 0, "else/where", "x")).status, kOk);
  EXPECT_EQ(mesh_.cancelled, 4);
  EXPECT_EQ(Call(caller, Caller('t', 0, "else/where", "x")).status, kInternal);
  EXPECT_EQ(mesh_.cancelled, 5);
  EXPECT_EQ(host_.out_call_count(), 0u);
}

TEST_F(CallsTest, CallsOfOneInstanceAreBounded) {
  mesh_.Serve("else/where", Remote::kLater);
  const Answer answer = Call(Serve("demo/caller", "test_caller"), Caller('x', 0, "else/where", "x"));
  EXPECT_EQ(As<uint32_t>(answer.bytes), kOutCallsOfInstanceMax);
}

TEST_F(CallsTest, OneThreadHoldsTwoThousandWaitingCalls) {
  mesh_.Serve("else/where", Remote::kLater);
  Function& caller = Serve("demo/caller", "test_caller", {.instances_max = 2000});
  std::vector<uintptr_t> calls;
  for (int i = 0; i < 2000; ++i)
    calls.push_back(*Deliver(caller, Caller('c', 0, "else/where", absl::StrCat(i))));
  ASSERT_EQ(mesh_.pending.size(), 2000u);
  EXPECT_EQ(host_.RunReady(), 0);
  while (!mesh_.pending.empty()) mesh_.FinishPending(mesh_.pending.size() - 1);
  for (int i = 0; i < 2000; ++i) EXPECT_EQ(Await(calls[static_cast<size_t>(i)]).bytes, absl::StrCat(i));
}

TEST_F(CallsTest, DirectCallRunsAPromotedLeafOnTheCallersStack) {
  Function& tool = Serve("demo/tool", "test_tool", {.keep = true});
  Function& caller = Serve("demo/caller", "test_caller");
  EXPECT_EQ(Call(caller, Caller('c', 0, "demo/tool", "e through the queue")).bytes, "e through the queue");
  EXPECT_EQ(tool.counters().direct_calls, 0u);
  Promote(tool, "e");
  const uintptr_t call = *Deliver(caller, Caller('c', 0, "demo/tool", "e directly"));
  ASSERT_TRUE(Answered(call));
  EXPECT_EQ(Await(call).bytes, "e directly");
  EXPECT_EQ(tool.counters().direct_calls, 1u);
}

TEST_F(CallsTest, DirectCallReportsFailureFaultAndLongAnswer) {
  Function& tool = Serve("demo/tool", "test_tool");
  Function& caller = Serve("demo/caller", "test_caller");
  Promote(tool, "e");
  const Answer failed = Call(caller, Caller('c', 0, "demo/tool", "f"));
  EXPECT_EQ(failed.status, kNotFound);
  EXPECT_EQ(failed.bytes, "no such thing");
  const std::string text = "F" + std::string(300, 'x');
  EXPECT_EQ(As<uint32_t>(Call(caller, Caller('z', 0, "demo/tool", text)).bytes), kErrorBytesMax);
  const Answer trapped = Call(caller, Caller('c', 0, "demo/tool", "t"));
  EXPECT_EQ(trapped.status, kInternal);
  EXPECT_THAT(trapped.bytes, ::testing::HasSubstr("unreachable"));
  EXPECT_EQ(Call(caller, Caller('c', 0, "demo/tool", "e")).status, kOk);
  const std::string payload = "e" + std::string(100'000, 'x');
  EXPECT_EQ(Call(caller, Caller('l', 0, "demo/tool", payload)).bytes, payload);
  EXPECT_EQ(tool.counters().direct_calls, 5u);
  EXPECT_EQ(mesh_.local_in_flight, 0);
  EXPECT_EQ(host_.out_call_count(), 0u);
}

TEST_F(CallsTest, CallersOfOneProcessRunOnFibersOfTheirOwn) {
  mesh_.Serve("else/where", Remote::kLater);
  Serve("demo/inner", "test_caller");
  Function& outer = Serve("demo/outer", "test_caller");
  const uintptr_t call = *Deliver(outer, Caller('c', 0, "demo/inner", Caller('c', 0, "else/where", "deep")));
  host_.RunReady();
  ASSERT_EQ(mesh_.pending.size(), 1u);
  mesh_.FinishPending();
  EXPECT_EQ(Await(call).bytes, "deep");
}

TEST_F(CallsTest, DeadlineEndsACallWithinTheProcessAndItsCallee) {
  mesh_.Serve("else/where", Remote::kLater);
  Function& inner = Serve("demo/inner", "test_caller");
  Function& outer = Serve("demo/outer", "test_caller");
  const uintptr_t call = *Deliver(outer, Caller('c', 20, "demo/inner", Caller('c', 0, "else/where", "deep")));
  EXPECT_EQ(Await(call).status, kDeadlineExceeded);
  EXPECT_TRUE(mesh_.pending.empty());
  EXPECT_EQ(inner.active(), 0u);
}

TEST_F(CallsTest, DeadlineStopsACalleeThatDoesNotHeedIt) {
  Function& tool = Serve("demo/tool", "test_tool", {.time_limit_ms = 60'000});
  Function& outer = Serve("demo/outer", "test_caller");
  EXPECT_EQ(Call(outer, Caller('c', 20, "demo/tool", "l")).status, kDeadlineExceeded);
  EXPECT_EQ(tool.active(), 0u);
  EXPECT_EQ(tool.counters().time_limits, 0u);
}

TEST_F(CallsTest, DeadlineEndsACallThatNobodyAnswers) {
  mesh_.Serve("else/where", Remote::kLater);
  Function& caller = Serve("demo/caller", "test_caller");
  const uintptr_t call = *Deliver(caller, Caller('c', 20, "else/where", "x"));
  EXPECT_NE(host_.NextDueNs(), UINT64_MAX);
  const Answer answer = Await(call);
  EXPECT_EQ(answer.status, kDeadlineExceeded);
  EXPECT_EQ(answer.bytes, "too late");
  EXPECT_EQ(host_.NextDueNs(), UINT64_MAX);
}

TEST_F(CallsTest, CancellingTheCallerCancelsTheCalleeOfTheSameProcess) {
  mesh_.Serve("else/where", Remote::kLater);
  Function& inner = Serve("demo/inner", "test_caller");
  Function& outer = Serve("demo/outer", "test_caller");
  Deliver(outer, Caller('c', 0, "demo/inner", Caller('c', 0, "else/where", "deep")));
  InCall* top = latest_;
  host_.RunReady();
  ASSERT_EQ(inner.active(), 1u);
  host_.Cancel(top);
  EXPECT_EQ(inner.active(), 0u);
  EXPECT_EQ(mesh_.local_in_flight, 0);
  EXPECT_EQ(outer.active(), 0u);
  EXPECT_EQ(mesh_.cancelled, 1);
}

TEST_F(CallsTest, SendWithinTheProcessArrives) {
  Function& tool = Serve("demo/tool", "test_tool", {.keep = true});
  Function& caller = Serve("demo/caller", "test_caller");
  EXPECT_EQ(Call(caller, Caller('s', 0, "demo/tool", "c")).status, kOk);
  EXPECT_EQ(Call(caller, Caller('s', 0, "demo/tool", "c")).status, kOk);
  while (host_.RunReady() > 0) {
  }
  EXPECT_EQ(As<uint32_t>(Call(tool, "c").bytes), 3u);
}

TEST_F(CallsTest, EndlessNestingAcrossInstancesIsRefusedAtABoundedDepth) {
  Function& caller = Serve("demo/caller", "test_caller");
  const Answer answer = Call(caller, Caller('r', 0, "demo/caller", ""));
  EXPECT_EQ(answer.status, kOk);
  EXPECT_EQ(As<uint32_t>(answer.bytes), kResourceExhausted);
  EXPECT_EQ(caller.counters().calls, kDepthMax + 1);
  EXPECT_EQ(mesh_.local_in_flight, 0);
  EXPECT_EQ(host_.in_call_count(), 0u);
}

TEST_F(CallsTest, KeptFunctionThatCallsItselfEndsAtItsDeadline) {
  Function& caller = Serve("demo/caller", "test_caller", {.keep = true});
  const Answer answer =
      Call(caller, Caller('r', 0, "demo/caller", ""), {.deadline_ns = NowNs() + 30 * kNsPerMs});
  EXPECT_EQ(As<uint32_t>(answer.bytes), kDeadlineExceeded);
  EXPECT_EQ(host_.in_call_count(), 0u);
}

}  // namespace
}  // namespace weft::host
