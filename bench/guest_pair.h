// SPDX-License-Identifier: Apache-2.0
// What the guest rows share: a node with two weft-hosts, one on each core and each of a user of its own, and
// a process that has the calling guest make one block of calls in one long invocation.
#ifndef WEFT_BENCH_GUEST_PAIR_H_
#define WEFT_BENCH_GUEST_PAIR_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/node.h"
#include "bench/row.h"
#include "bench/worker.h"
#include "dataplane/base/mapping.h"

namespace weft::bench {

class GuestPair {
 public:
  enum class Callee : uint64_t {
    kKeep,   // In the other host, `state: keep`.
    kFresh,  // In the other host, a clean instance for each call.
    kLocal,  // In the caller's own host, `state: keep`.
  };
  struct Order {
    Callee callee = Callee::kKeep;
    uint64_t bytes = 64;
    uint64_t period_ns = 0;  // Between the starts of two calls; 0: at once.
  };

  // `poll_us`: how long both hosts poll before they sleep; negative: what they find at start.
  static absl::StatusOr<std::unique_ptr<GuestPair>> Start(int poll_us);

  absl::StatusOr<Block> RunBlock(const Order& order, uint64_t duration_ns);

  // A counter of the called host as the agent tells it; fails where there is none of that name.
  absl::StatusOr<uint64_t> CalleeCounter(const std::string& name) const;

 private:
  GuestPair() = default;
  absl::Status StartInvoker();

  Mapping samples_;
  std::unique_ptr<Node> node_;
  Worker invoker_;
};

}  // namespace weft::bench

#endif  // WEFT_BENCH_GUEST_PAIR_H_
