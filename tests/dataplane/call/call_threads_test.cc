// SPDX-License-Identifier: Apache-2.0
// Both ends of calls on threads of their own over one channel: what the thread sanitizer looks at, and random
// calls of all sizes, kinds and ends whose books must balance.
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <string>
#include <thread>
#include <vector>

#include "dataplane/base/random.h"
#include "tests/dataplane/call/call_pair.h"

namespace weft {
namespace {

// One call of the random mix.
struct MixedCall {
  Ended ended;
  std::string request;
  std::vector<std::byte> response;
  bool cancelled = false;
  bool hurried = false;  // A deadline that may fire.
};

std::size_t RandomBytes(Random& random) {
  const uint64_t dice = random.Below(100);
  if (dice < 80) return random.Below(130);
  if (dice < 97) return random.Below(70'000);
  return random.Below(600'000);
}

void CheckEnds(const std::deque<MixedCall>& calls) {
  for (const MixedCall& call : calls) {
    ASSERT_EQ(call.ended.count, 1);
    if (call.ended.code == absl::StatusCode::kOk) {
      ASSERT_TRUE(call.ended.response == call.request);
    } else if (call.ended.code == absl::StatusCode::kAborted) {
      ASSERT_EQ(call.request.size() % 7, 3u);
    } else if (call.ended.code == absl::StatusCode::kCancelled) {
      ASSERT_TRUE(call.cancelled);
    } else {
      ASSERT_EQ(call.ended.code, absl::StatusCode::kDeadlineExceeded) << call.ended.text;
      ASSERT_TRUE(call.hurried);
    }
  }
}

void CheckBooks(CallPair& pair, uint64_t one_ways) {
  const CallCounters& c = pair.callee.core.counters();
  EXPECT_EQ(c.dropped_duplicate, 0u);
  EXPECT_EQ(c.refused_caller + c.refused_function + c.refused_absent, 0u);
  EXPECT_EQ(pair.caller.core.counters().one_way_sent, one_ways);
  for (const auto& [id, count] : pair.callee.seen) ASSERT_EQ(count, 1) << id;
  EXPECT_EQ(pair.function->limit.calls(), 0u);
  EXPECT_EQ(pair.caller.core.calls_in_flight(), 0u);
  EXPECT_EQ(pair.caller.core.Outstanding(*pair.out), 0u);
}

TEST(CallThreadsTest, RandomCallsEndOnceAndUnchanged) {
  CallPair pair({.calls_max = 256});
  std::atomic<bool> stop{false};
  pair.callee.handler = [&](TestHost& host, const TestHost::Request& request) {
    if (request.payload.size() % 7 == 3) {
      host.Answer(request, absl::StatusCode::kAborted, "seven");
    } else {
      host.Echo(request);
    }
  };
  std::thread callee([&] {
    while (!stop.load(std::memory_order_relaxed)) {  // Relaxed: join orders what is read afterwards.
      pair.callee.now_ns = NowNs();
      if (pair.callee.Turn() == 0) std::this_thread::yield();
    }
  });
  Random random(2026);
  constexpr int kCalls = 4000;
  std::deque<MixedCall> calls;
  uint64_t one_ways = 0;
  std::vector<std::pair<CallHandle, MixedCall*>> open;
  const auto turn = [&] {
    pair.caller.now_ns = NowNs();
    if (pair.caller.Turn() == 0) std::this_thread::yield();
    std::erase_if(open, [](const auto& entry) { return entry.second->ended.count != 0; });
  };
  while (calls.size() < kCalls) {
    turn();
    if (random.Below(8) == 0) {
      CallSpec spec;
      spec.request = std::as_bytes(std::span("one way", sizeof("one way") - 1));
      bool in_parts = false;
      one_ways += pair.caller.core.SendOneWay(*pair.route, spec, pair.caller.now_ns, &in_parts) ==
                  StartState::kStarted;
    }
    if (open.size() >= 64) continue;
    MixedCall& call = calls.emplace_back();
    call.request = Pattern(calls.size(), RandomBytes(random));
    call.response.resize(call.request.size() + 8);
    CallSpec spec = pair.Spec(call.request, call.response, call.ended);
    spec.deadline_ns = pair.caller.now_ns + 60 * kNsPerSecond;
    if (random.Below(20) == 0) {
      call.hurried = true;
      spec.deadline_ns = pair.caller.now_ns + random.Below(2 * kNsPerMs);
    }
    CallHandle handle;
    if (pair.caller.core.Start(*pair.route, spec, pair.caller.now_ns, &handle) != StartState::kStarted) {
      calls.pop_back();
      continue;
    }
    open.emplace_back(handle, &call);
    if (random.Below(25) == 0) {
      const auto& [victim, cancelled] = open[random.Below(open.size())];
      cancelled->cancelled |= pair.caller.core.Cancel(victim);
    }
  }
  const uint64_t until_ns = NowNs() + 60 * kNsPerSecond;
  while (!open.empty() && NowNs() < until_ns) turn();
  stop.store(true, std::memory_order_relaxed);
  callee.join();
  pair.Settle();

  CheckEnds(calls);
  CheckBooks(pair, one_ways);
}

// Two hosts that call each other as fast as they can: neither direction starves the other's replies.
TEST(CallThreadsTest, CrossCallsDoNotDeadlock) {
  TestHost hosts[2];
  auto [a, b] = Join(hosts[0], hosts[1]);
  Link* links[2] = {a, b};
  RouteEntry* routes[2];
  for (int i = 0; i < 2; ++i) {
    hosts[i].core.Serve("test/echo", nullptr);
    hosts[i].core.SetAccess(*links[i], {{1, "test/caller", FunctionIdOf("test/echo")}});
    hosts[i].handler = [](TestHost& host, const TestHost::Request& request) { host.Echo(request); };
    routes[i] = &hosts[i].core.Route("test/caller", "test/echo");
    hosts[i].core.SetRoute(*routes[i], {{.link = links[i]->index, .caller_index = 1}}, {},
                           absl::StatusCode::kOk, "");
  }
  std::atomic<int> finished{0};
  const auto run = [&](int self) {
    constexpr int kCalls = 3000;
    const std::string request = Pattern(static_cast<uint64_t>(self), 3000);
    std::deque<Ended> ended;
    std::deque<std::vector<std::byte>> responses;
    int done = 0;
    while (done < kCalls || finished.load(std::memory_order_relaxed) < 2) {
      hosts[self].now_ns = NowNs();
      while (ended.size() < kCalls) {
        Ended& call = ended.emplace_back();
        CallSpec spec;
        spec.request = BytesOf(request);
        spec.response = responses.emplace_back(request.size());
        spec.done = Ended::Done;
        spec.context = &call;
        spec.deadline_ns = NowNs() + 60 * kNsPerSecond;
        CallHandle handle;
        if (hosts[self].core.Start(*routes[self], spec, hosts[self].now_ns, &handle) == StartState::kStarted)
          continue;
        ended.pop_back();
        responses.pop_back();
        break;
      }
      hosts[self].core.Publish();
      if (hosts[self].Turn() == 0) std::this_thread::yield();
      if (done == kCalls) continue;
      done =
          static_cast<int>(hosts[self].core.counters().calls_ok + hosts[self].core.counters().calls_failed);
      if (done == kCalls) finished.fetch_add(1, std::memory_order_relaxed);
    }
    for (const Ended& call : ended) ASSERT_EQ(call.code, absl::StatusCode::kOk) << call.text;
  };
  std::thread other([&] { run(1); });
  run(0);
  other.join();
}

}  // namespace
}  // namespace weft
