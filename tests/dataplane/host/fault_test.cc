// SPDX-License-Identifier: Apache-2.0
// Guests that misbehave: exactly the call at fault fails, with a status that says why, and the host goes on.
#include "tests/dataplane/host/fixture.h"

namespace weft::host {
namespace {

class FaultTest : public HostTest {
 protected:
  // The function at fault, then another one, still answer.
  void ExpectAlive(Function& function) {
    EXPECT_EQ(Call(function, "e").status, kOk);
    EXPECT_EQ(Call(function, "e").status, kOk);
  }
};

TEST_F(FaultTest, TrapFailsItsCallOnly) {
  Function& tool = Serve("demo/tool", "test_tool");
  const Answer answer = Call(tool, "t");
  EXPECT_EQ(answer.status, kInternal);
  EXPECT_THAT(answer.bytes, ::testing::HasSubstr("unreachable"));
  EXPECT_EQ(tool.counters().faults, 1u);
  ExpectAlive(tool);
}

TEST_F(FaultTest, StackOverflowFailsItsCallOnly) {
  Function& tool = Serve("demo/tool", "test_tool");
  const Answer answer = Call(tool, Tool('s', 1));
  EXPECT_EQ(answer.status, kInternal);
  ExpectAlive(tool);
  Promote(tool, "e");
  EXPECT_EQ(Call(tool, Tool('s', 1)).status, kInternal);
  ExpectAlive(tool);
}

TEST_F(FaultTest, StackLimitOfAFunctionIsItsOwn) {
  absl::StatusOr<Engine*> small = SharedEngine().WithStack(64 << 10);
  ASSERT_TRUE(small.ok()) << small.status();
  EXPECT_EQ(*SharedEngine().WithStack(64 << 10), *small);
  EXPECT_EQ(*SharedEngine().WithStack(SharedEngine().options().wasm_stack_bytes), &SharedEngine());
  Function& wide = Serve("demo/wide", "test_tool", {.keep = true});
  absl::StatusOr<std::shared_ptr<const Module>> module =
      Module::LoadFile(**small, GuestPath("test_tool"), std::nullopt, nullptr);
  ASSERT_TRUE(module.ok());
  Function& narrow = **host_.Add("demo/narrow", *module, {.keep = true});
  mesh_.ServeLocal("demo/narrow", &narrow);
  // 64 KiB hold 500 frames, not 5,000; 512 KiB hold both. On fibers, on the plain path, and directly from a
  // guest of the other engine.
  Function& caller = Serve("demo/caller", "test_caller", {.keep = true});
  for (const bool plain : {false, true}) {
    EXPECT_EQ(As<uint32_t>(Call(wide, Tool('k', 5000)).bytes), 5000u);
    EXPECT_EQ(As<uint32_t>(Call(narrow, Tool('k', 500)).bytes), 500u);
    const Answer overflow = Call(narrow, Tool('k', 5000));
    EXPECT_EQ(overflow.status, kInternal);
    EXPECT_THAT(overflow.bytes, ::testing::HasSubstr("stack"));
    ExpectAlive(narrow);
    if (plain) break;
    Promote(narrow, "e");
    Promote(wide, "e");
  }
  EXPECT_EQ(Call(caller, Caller('c', 0, "demo/narrow", Tool('k', 5000))).status, kInternal);
  EXPECT_EQ(Call(caller, Caller('c', 0, "demo/narrow", Tool('k', 500))).status, kOk);
  EXPECT_EQ(narrow.counters().direct_calls, 2u);
}

TEST_F(FaultTest, StackLimitsOutsideTheEnginesAreRefused) {
  const size_t most = SharedEngine().options().wasm_stack_bytes;
  for (const size_t bytes : {size_t{0}, Engine::kStackBytesMin - 1, most + 1}) {
    EXPECT_EQ(SharedEngine().WithStack(bytes).status().code(), absl::StatusCode::kInvalidArgument) << bytes;
  }
}

// The ticker is one for all of them.
TEST_F(FaultTest, EndlessLoopWithAStackLimitOfItsOwnMeetsItsTimeLimit) {
  absl::StatusOr<Engine*> small = SharedEngine().WithStack(64 << 10);
  ASSERT_TRUE(small.ok()) << small.status();
  absl::StatusOr<std::shared_ptr<const Module>> module =
      Module::LoadFile(**small, GuestPath("test_tool"), std::nullopt, nullptr);
  ASSERT_TRUE(module.ok());
  Function& looping = **host_.Add("demo/loop", *module, {.time_limit_ms = 50});
  const Answer answer = Call(looping, "l");
  EXPECT_EQ(answer.status, kInternal);
  EXPECT_THAT(answer.bytes, ::testing::HasSubstr("time limit"));
}

TEST_F(FaultTest, StackOverflowInADirectCallFailsThatCallOnly) {
  Function& tool = Serve("demo/tool", "test_tool");
  Function& caller = Serve("demo/caller", "test_caller");
  Promote(tool, "e");
  EXPECT_EQ(Call(caller, Caller('c', 0, "demo/tool", Tool('s', 1))).status, kInternal);
  EXPECT_EQ(tool.counters().direct_calls, 1u);
  EXPECT_EQ(Call(caller, Caller('c', 0, "demo/tool", "e")).status, kOk);
}

TEST_F(FaultTest, MemoryBombMeetsItsLimit) {
  Function& tool = Serve("demo/tool", "test_tool", {.memory_bytes_max = 16 << 20, .time_limit_ms = 10'000});
  const uint32_t mib = As<uint32_t>(Call(tool, "m").bytes);
  EXPECT_GT(mib, 10u);
  EXPECT_LT(mib, 16u);
  ExpectAlive(tool);
}

TEST_F(FaultTest, GuestThatExitsFailsItsCallOnly) {
  Function& tool = Serve("demo/tool", "test_tool");
  const Answer answer = Call(tool, "r");
  EXPECT_EQ(answer.status, kInternal);
  EXPECT_THAT(answer.bytes, ::testing::HasSubstr("proc_exit"));
  ExpectAlive(tool);
}

TEST_F(FaultTest, EndlessLoopOnTrialStallsNobodyAndEndsAtItsLimit) {
  Function& looping = Serve("demo/loop", "test_tool", {.time_limit_ms = 200});
  Function& tool = Serve("demo/tool", "test_tool", {.keep = true});
  const uintptr_t loop = *Deliver(looping, "l");
  EXPECT_FALSE(Answered(loop));
  // The others get their turn between its own: in 200 ms far more than one call.
  int others = 0;
  while (!Answered(loop)) {
    EXPECT_EQ(Call(tool, "e").status, kOk);
    host_.RunReady();
    ++others;
  }
  EXPECT_GT(others, 10);
  const Answer answer = Await(loop);
  EXPECT_EQ(answer.status, kInternal);
  EXPECT_THAT(answer.bytes, ::testing::HasSubstr("time limit"));
  EXPECT_EQ(looping.counters().time_limits, 1u);
  ExpectAlive(looping);
}

TEST_F(FaultTest, EndlessLoopAfterPromotionIsTrappedOnceAndDemoted) {
  Function& looping = Serve("demo/loop", "test_tool", {.keep = true, .time_limit_ms = 50});
  Promote(looping, "e");
  const uintptr_t loop = *Deliver(looping, "l");
  // It held the thread until its limit.
  ASSERT_TRUE(Answered(loop));
  EXPECT_EQ(Await(loop).status, kInternal);
  EXPECT_EQ(looping.counters().demotions, 1u);
  // From now on it is on a fiber, so that the next loop stalls nobody.
  EXPECT_FALSE(Answered(*Deliver(looping, "l")));
}

TEST_F(FaultTest, EndlessLoopInADirectCallIsTrapped) {
  Function& looping = Serve("demo/loop", "test_tool", {.keep = true, .time_limit_ms = 50});
  Function& caller = Serve("demo/caller", "test_caller", {.time_limit_ms = 10'000});
  Promote(looping, "e");
  EXPECT_EQ(Call(caller, Caller('c', 0, "demo/loop", "l")).status, kInternal);
  EXPECT_EQ(Call(caller, Caller('c', 0, "demo/loop", "e")).status, kOk);
}

TEST_F(FaultTest, EndlessStartUpIsRefusedWhenTheFunctionIsAdded) {
  absl::StatusOr<std::shared_ptr<const Module>> module =
      Module::LoadFile(SharedEngine(), GuestPath("test_bad_start"), std::nullopt, nullptr);
  ASSERT_TRUE(module.ok());
  // Whatever time its calls have on fibers: the agent waits for this thread.
  const absl::Status status = host_.Add("demo/bad", *module, {.time_limit_ms = 3'600'000}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("time limit"));
}

TEST_F(FaultTest, CancelUnwindsALoopingGuest) {
  Function& looping = Serve("demo/loop", "test_tool");
  Deliver(looping, "l");
  host_.Cancel(latest_);
  EXPECT_EQ(host_.in_call_count(), 0u);
  EXPECT_EQ(looping.active(), 0u);
  ExpectAlive(looping);
}

TEST_F(FaultTest, AllocThatMisbehavesFailsItsCallOnly) {
  Function& bad = Serve("demo/bad", "test_bad_alloc");
  EXPECT_EQ(Call(bad, std::string(2001, 'x')).status, kResourceExhausted);
  EXPECT_EQ(Call(bad, std::string(2002, 'x')).status, kResourceExhausted);
  EXPECT_EQ(Call(bad, std::string(2003, 'x')).status, kInternal);
  // It suspends where there is no fiber.
  EXPECT_EQ(Call(bad, std::string(2004, 'x')).status, kInternal);
  // It may not call out either, but may find that out.
  EXPECT_EQ(Call(bad, std::string(2005, 'x')).status, kOk);
  EXPECT_EQ(Call(bad, std::string(6, 'x')).bytes, "xxxxxx");
  EXPECT_EQ(Call(bad, std::string(10'000, 'x')).status,
            kOk);  // It lies about its room, within its own memory.
  EXPECT_EQ(host_.in_call_count(), 0u);
}

TEST_F(FaultTest, CallsBeyondTheEnginesStacksWaitForOne) {
  mesh_.Serve("else/where", Remote::kLater);
  Function& caller = Serve("demo/caller", "test_caller", {.instances_max = 4000});
  Function& tool = Serve("demo/tool", "test_tool", {.keep = true});
  std::vector<uintptr_t> calls;
  for (int i = 0; i < 2600; ++i) calls.push_back(*Deliver(caller, Caller('c', 0, "else/where", "x")));
  EXPECT_LE(mesh_.pending.size(), 2100u);
  EXPECT_GE(mesh_.pending.size(), 2000u);
  EXPECT_GE(caller.counters().queued, 500u);
  // A leaf, for whose trial there is no stack, runs all the same.
  Function& leaf = Serve("demo/leaf", "test_tool");
  EXPECT_EQ(Call(leaf, "e").status, kOk);
  EXPECT_EQ(leaf.counters().plain_calls, 1u);
  while (!mesh_.pending.empty()) {
    mesh_.FinishPending(mesh_.pending.size() - 1);
    host_.RunReady();
  }
  for (uintptr_t call : calls) EXPECT_EQ(Await(call).status, kOk);
  while (host_.IdleWork()) {  // What the burst left gives its stacks back.
  }
  EXPECT_EQ(Call(leaf, "e").status, kOk);
  EXPECT_EQ(leaf.counters().plain_calls, 1u);
  ExpectAlive(tool);
}

}  // namespace
}  // namespace weft::host
