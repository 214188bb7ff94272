// SPDX-License-Identifier: Apache-2.0
// What a route learns from its calls, where its policy asks for that: a budget for retries, when to hedge and
// how often, and which targets to leave alone. Calls of routes without such a policy never come here. Pure:
// time comes in. Owner thread only.
#ifndef WEFT_DATAPLANE_ROUTE_ADAPTIVE_ROUTE_H_
#define WEFT_DATAPLANE_ROUTE_ADAPTIVE_ROUTE_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dataplane/route/latency_quantile.h"
#include "dataplane/route/outlier_tracker.h"
#include "dataplane/route/policy.h"
#include "dataplane/route/ratio_budget.h"
#include "dataplane/route/target_set.h"

namespace weft {

// Whether an answer with `code` speaks against the target. What the function itself decided (NOT_FOUND,
// INVALID_ARGUMENT …) and limits (RESOURCE_EXHAUSTED) do not: every target would say the same.
inline bool SpeaksAgainstTarget(absl::StatusCode code) {
  return code == absl::StatusCode::kUnavailable || code == absl::StatusCode::kDeadlineExceeded ||
         code == absl::StatusCode::kInternal || code == absl::StatusCode::kUnknown ||
         code == absl::StatusCode::kDataLoss;
}

class AdaptiveRoute {
 public:
  // Whether the policy asks for anything of this.
  static bool Needed(const Policy& policy) {
    return policy.retry_budget_percent != 0 || Hedges(policy) || policy.outlier_failures != 0;
  }

  explicit AdaptiveRoute(const Policy& policy)
      : hedges_(Hedges(policy)),
        budgeted_(policy.retry_budget_percent != 0),
        ejects_(policy.outlier_failures != 0),
        latency_(policy.hedge_percentile),
        hedge_budget_(policy.hedge_budget_percent),
        retry_budget_(policy.retry_budget_percent),
        outliers_(policy.outlier_failures, policy.outlier_eject_ns) {}

  // The targets that calls may go to, of those that the agent gave.
  std::vector<Target> SetTargets(std::vector<Target> targets) {
    if (!ejects_) return targets;
    outliers_.SetTargets(std::move(targets));
    return outliers_.Present();
  }
  // After OnCall or OnResult said so.
  std::vector<Target> Present() const { return outliers_.Present(); }
  // Takes the targets over `link` away.
  void RemoveLink(uint32_t link, TargetSet* present) {
    if (!ejects_) return present->RemoveLink(link);
    outliers_.RemoveLink(link);
    *present = TargetSet(outliers_.Present());
  }

  // A call begins: it earns for the budgets. True: Present() has changed.
  bool OnCall(uint64_t now_ns) {
    hedge_budget_.Earn();
    retry_budget_.Earn();
    return ejects_ && outliers_.Refresh(now_ns);
  }
  // How long the call just begun may take before it is hedged; 0: it is not.
  uint64_t hedge_delay_ns() const { return hedges_ ? latency_.value_ns() : 0; }
  // A try on `path` has ended. True: Present() has changed.
  bool OnResult(uint32_t path, absl::StatusCode code, uint64_t latency_ns, uint64_t now_ns) {
    if (code == absl::StatusCode::kCancelled) return false;
    if (hedges_ && code == absl::StatusCode::kOk) latency_.Add(latency_ns);
    return ejects_ && outliers_.OnResult(path, SpeaksAgainstTarget(code), now_ns);
  }

  bool TrySpendHedge() { return hedge_budget_.TrySpend(); }
  bool TrySpendRetry() { return !budgeted_ || retry_budget_.TrySpend(); }
  const OutlierTracker& outliers() const { return outliers_; }

 private:
  // A hedge runs a call twice.
  static bool Hedges(const Policy& policy) { return policy.hedge_percentile != 0 && policy.idempotent; }

  bool hedges_;
  bool budgeted_;
  bool ejects_;
  LatencyQuantile latency_;
  RatioBudget hedge_budget_;
  RatioBudget retry_budget_;
  OutlierTracker outliers_;
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_ROUTE_ADAPTIVE_ROUTE_H_
