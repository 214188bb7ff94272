// SPDX-License-Identifier: Apache-2.0
// The whole of a caller's policy over thousands of calls in made-up time: choice, hedges, retries, ejection,
// decided by the very objects that the call layer uses. Seeded, so each run is the same.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <queue>
#include <vector>

#include "dataplane/base/random.h"
#include "dataplane/route/adaptive_route.h"
#include "dataplane/route/retry.h"
#include "dataplane/route/target_set.h"

namespace weft {
namespace {

struct Answer {
  absl::StatusCode code = absl::StatusCode::kOk;
  uint64_t after_ns = 0;
};

// One caller whose calls begin every `every_ns`; targets answer as `answer(link, random)` says.
class Simulation {
 public:
  using AnswerOf = std::function<Answer(uint32_t link, Random& random, uint64_t now_ns)>;

  Simulation(const Policy& policy, std::vector<Target> targets, uint64_t seed, AnswerOf answer)
      : policy_(policy),
        adaptive_(policy),
        random_(seed),
        answer_(std::move(answer)),
        outstanding_(16),
        executions(16) {
    set_ = TargetSet(adaptive_.SetTargets(std::move(targets)));
  }

  void Run(uint64_t calls, uint64_t every_ns) {
    for (uint64_t i = 0; i < calls; ++i) {
      Schedule(now_ns_ + i * every_ns, [this] { Begin(); });
    }
    while (!events_.empty()) {
      const Event event = events_.top();
      events_.pop();
      now_ns_ = event.at_ns;
      event.run();
    }
  }

  uint64_t Attempts() const {
    uint64_t sum = 0;
    for (const uint64_t count : executions) sum += count;
    return sum;
  }
  uint64_t PercentileNs(double part) {
    std::sort(latencies.begin(), latencies.end());
    return latencies[static_cast<std::size_t>(static_cast<double>(latencies.size() - 1) * part)];
  }

 private:
  // Hedges go off at a tick of the call layer's wheel.
  static constexpr uint64_t kTickNs = uint64_t{1} << 20;

  struct Call {
    uint64_t begun_ns = 0;
    uint32_t tries = 1;
    uint32_t under_way = 0;
    bool done = false;
  };
  struct Event {
    uint64_t at_ns = 0;
    uint64_t order = 0;
    std::function<void()> run;
    bool operator<(const Event& other) const {
      return at_ns != other.at_ns ? at_ns > other.at_ns : order > other.order;
    }
  };

  void Schedule(uint64_t at_ns, std::function<void()> run) {
    events_.push({at_ns, ++order_, std::move(run)});
  }
  void Changed(bool changed) {
    if (changed) set_ = TargetSet(adaptive_.Present());
    most_ejected = std::max(most_ejected, adaptive_.outliers().ejected());
  }

  void Begin() {
    Changed(adaptive_.OnCall(now_ns_));
    auto call = std::make_shared<Call>();
    call->begun_ns = now_ns_;
    const uint32_t link = Try(call, kNoPath);
    const uint64_t delay_ns = adaptive_.hedge_delay_ns();
    if (delay_ns == 0) return;
    const uint64_t due_ns = ((now_ns_ + delay_ns) / kTickNs + 1) * kTickNs;
    Schedule(due_ns, [this, call, link] {
      if (!call->done && call->under_way == 1 && adaptive_.TrySpendHedge()) {
        ++hedges;
        Try(call, link);
      }
    });
  }

  uint32_t Try(const std::shared_ptr<Call>& call, uint32_t avoid) {
    const Target* const target =
        set_.Choose(random_, [this](uint32_t link) { return outstanding_[link]; }, avoid);
    const uint32_t link = target->link;
    const Answer answer = answer_(link, random_, now_ns_);
    ++outstanding_[link];
    ++executions[link];
    ++call->under_way;
    Schedule(now_ns_ + answer.after_ns,
             [this, call, link, answer, begun_ns = now_ns_] { End(call, link, answer, begun_ns); });
    return link;
  }

  void End(const std::shared_ptr<Call>& call, uint32_t link, const Answer& answer, uint64_t begun_ns) {
    --outstanding_[link];
    --call->under_way;
    if (call->done) return;  // The other one was first; this one has been cancelled.
    Changed(adaptive_.OnResult(link, answer.code, now_ns_ - begun_ns, now_ns_));
    if (answer.code != absl::StatusCode::kOk) {
      if (call->under_way != 0) return;
      const FailedTry failed{.code = answer.code, .not_executed = false, .tries = call->tries};
      if (MayRetry(failed, policy_) && adaptive_.TrySpendRetry()) {
        ++call->tries;
        Try(call, link);
        return;
      }
      ++failed_calls;
    }
    call->done = true;
    latencies.push_back(now_ns_ - call->begun_ns);
  }

  Policy policy_;
  AdaptiveRoute adaptive_;
  TargetSet set_;
  Random random_;
  AnswerOf answer_;
  uint64_t now_ns_ = kNsPerSecond;
  uint64_t order_ = 0;
  std::priority_queue<Event> events_;
  std::vector<uint32_t> outstanding_;

 public:
  std::vector<uint64_t> executions;  // By link.
  std::vector<uint64_t> latencies;
  uint64_t hedges = 0;
  uint64_t failed_calls = 0;
  uint32_t most_ejected = 0;
};

std::vector<Target> Targets(std::vector<uint32_t> weights) {
  std::vector<Target> targets;
  for (uint32_t i = 0; i < weights.size(); ++i)
    targets.push_back({.link = i, .path = i, .weight = weights[i]});
  return targets;
}

// 100 to 200 us; link 0 answers one call in twenty 20 ms late.
Answer SometimesLate(uint32_t link, Random& random, uint64_t) {
  const uint64_t ns = 100 * kNsPerUs + random.Below(100 * kNsPerUs);
  return {absl::StatusCode::kOk, link == 0 && random.Below(20) == 0 ? ns + 20 * kNsPerMs : ns};
}

TEST(PolicySimTest, HedgingLowersTheTailFivefoldForSixPercentOfExecutions) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Policy policy{.idempotent = true};
    constexpr uint64_t kCalls = 20'000;
    Simulation plain(policy, Targets({100, 100, 100}), seed, SometimesLate);
    plain.Run(kCalls, kNsPerMs);
    policy.hedge_percentile = 95;
    Simulation hedged(policy, Targets({100, 100, 100}), seed, SometimesLate);
    hedged.Run(kCalls, kNsPerMs);
    EXPECT_GE(plain.PercentileNs(0.99), 5 * hedged.PercentileNs(0.99)) << seed;
    EXPECT_LE(hedged.Attempts(), kCalls * 106 / 100) << seed;
    EXPECT_GT(hedged.hedges, 0u);
  }
}

TEST(PolicySimTest, WithoutTheDeclarationNothingIsHedged) {
  Simulation simulation({.hedge_percentile = 95}, Targets({100, 100, 100}), 1, SometimesLate);
  simulation.Run(5'000, kNsPerMs);
  EXPECT_EQ(simulation.hedges, 0u);
  EXPECT_EQ(simulation.Attempts(), 5'000u);
}

TEST(PolicySimTest, WhereAllTargetsAreSlowHedgesStopAtTheBudget) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Simulation simulation({.idempotent = true, .hedge_percentile = 95, .hedge_budget_percent = 5},
                          Targets({100, 100, 100}), seed, [](uint32_t, Random& random, uint64_t now_ns) {
                            // All at once from the tenth second on, for longer and longer.
                            const uint64_t slow = now_ns < 10 * kNsPerSecond ? 1 : 100 + now_ns / kNsPerMs;
                            return Answer{absl::StatusCode::kOk,
                                          slow * (kNsPerUs * 100 + random.Below(100'000))};
                          });
    simulation.Run(30'000, kNsPerMs);
    EXPECT_GT(simulation.hedges, 100u) << seed;
    EXPECT_LE(simulation.Attempts(), 30'000u * 105 / 100) << seed;
  }
}

TEST(PolicySimTest, ATargetThatFailsEveryCallIsEjectedWithinTenAndReturnsAfterAProbe) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    uint64_t broken_until_ns = 20 * kNsPerSecond;
    uint64_t failures_before_first_ejection = 0;
    Simulation simulation(
        {.retries = 2, .idempotent = true, .outlier_failures = 5, .outlier_eject_ns = kNsPerSecond},
        Targets({100, 100, 100, 100}), seed, [&](uint32_t link, Random&, uint64_t now_ns) {
          const bool broken = link == 2 && now_ns < broken_until_ns;
          if (broken && now_ns < 2 * kNsPerSecond) ++failures_before_first_ejection;
          return Answer{broken ? absl::StatusCode::kInternal : absl::StatusCode::kOk, 100 * kNsPerUs};
        });
    simulation.Run(19'000, kNsPerMs);
    EXPECT_LE(failures_before_first_ejection, 10u) << seed;
    EXPECT_LE(simulation.executions[2], 10u) << seed;  // Five, and one a probe.
    EXPECT_EQ(simulation.most_ejected, 1u);
    const uint64_t before = simulation.executions[2];
    broken_until_ns = 0;
    simulation.Run(40'000, kNsPerMs);
    // At most 16 s after it was mended it has its full share again.
    EXPECT_GE(simulation.executions[2] - before, 5'000u) << seed;
  }
}

TEST(PolicySimTest, WhereAllTargetsFailHalfStayAndAttemptsKeepToTheBudget) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Simulation simulation(
        {.retries = 5, .idempotent = true, .retry_budget_percent = 20, .outlier_failures = 5},
        Targets({100, 100, 100, 100, 100}), seed,
        [](uint32_t, Random&, uint64_t) { return Answer{absl::StatusCode::kUnavailable, 100 * kNsPerUs}; });
    simulation.Run(10'000, kNsPerMs);
    EXPECT_EQ(simulation.most_ejected, 2u) << seed;
    EXPECT_EQ(simulation.failed_calls, 10'000u);
    EXPECT_LE(simulation.Attempts(), 12'000u) << seed;
    EXPECT_GE(simulation.Attempts(), 11'900u) << seed;
  }
}

TEST(PolicySimTest, ASplitOfNinetyToTenKeepsToOnePercent) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Simulation simulation({}, Targets({900, 100}), seed, [](uint32_t, Random& random, uint64_t) {
      return Answer{absl::StatusCode::kOk, 50 * kNsPerUs + random.Below(100 * kNsPerUs)};
    });
    simulation.Run(10'000, kNsPerMs);
    EXPECT_GE(simulation.executions[1], 900u) << seed;
    EXPECT_LE(simulation.executions[1], 1'100u) << seed;
  }
}

TEST(PolicySimTest, WhereTheNearTargetDiesTheFarOneServesAndTrafficReturns) {
  std::vector<Target> targets = Targets({100, 100});
  targets[0].distance = kSameNode;
  targets[1].distance = kElsewhere;
  bool dead = false;
  Simulation simulation(
      {.retries = 2, .idempotent = true, .outlier_failures = 3, .outlier_eject_ns = kNsPerSecond}, targets, 1,
      [&](uint32_t link, Random&, uint64_t) {
        return Answer{link == 0 && dead ? absl::StatusCode::kUnavailable : absl::StatusCode::kOk,
                      100 * kNsPerUs};
      });
  simulation.Run(1'000, kNsPerMs);
  EXPECT_EQ(simulation.executions[1], 0u);
  dead = true;
  simulation.Run(1'000, kNsPerMs);
  EXPECT_GE(simulation.executions[1], 990u);
  dead = false;
  simulation.Run(3'000, kNsPerMs);
  EXPECT_GE(simulation.executions[0], 2'500u);
  EXPECT_EQ(simulation.failed_calls, 0u);
}

}  // namespace
}  // namespace weft
