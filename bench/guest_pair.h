// SPDX-License-Identifier: Apache-2.0
// What the guest rows share: a node with two weft-hosts, one on each core and each of a user of its own, and
// the process that has the calling guest call.
#ifndef WEFT_BENCH_GUEST_PAIR_H_
#define WEFT_BENCH_GUEST_PAIR_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/guest_invoker.h"
#include "bench/node.h"
#include "bench/row.h"

namespace weft::bench {

class GuestPair {
 public:
  using Callee = GuestInvoker::Callee;
  using Order = GuestInvoker::Order;

  // `poll_us`: how long both hosts poll before they sleep; negative: what they find at start.
  static absl::StatusOr<std::unique_ptr<GuestPair>> Start(int poll_us);

  absl::StatusOr<Block> RunBlock(const Order& order, uint64_t duration_ns);

  // A counter of the called host as the agent tells it; fails where there is none of that name.
  absl::StatusOr<uint64_t> CalleeCounter(const std::string& name) const;

 private:
  GuestPair() = default;

  std::unique_ptr<Node> node_;
  GuestInvoker invoker_;
};

}  // namespace weft::bench

#endif  // WEFT_BENCH_GUEST_PAIR_H_
