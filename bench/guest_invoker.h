// SPDX-License-Identifier: Apache-2.0
// The process of the guest rows that has the calling guest make one block of calls in one long invocation. A
// client of the caller's node, of a user of its own.
#ifndef WEFT_BENCH_GUEST_INVOKER_H_
#define WEFT_BENCH_GUEST_INVOKER_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/row.h"
#include "bench/worker.h"
#include "dataplane/base/mapping.h"

namespace weft::bench {

inline constexpr uid_t kInvokerUid = 64993;
inline constexpr char kBenchCaller[] = "bench/caller";

class GuestInvoker {
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

  // Blocks until the calling guest has called each of `callees`.
  absl::Status Start(const std::string& run_dir, std::vector<Callee> callees);
  // `pids`: the processes whose CPU time is the block's.
  absl::StatusOr<Block> RunBlock(const Order& order, uint64_t duration_ns, const std::vector<pid_t>& pids);

 private:
  Mapping samples_;
  Worker worker_;
};

}  // namespace weft::bench

#endif  // WEFT_BENCH_GUEST_INVOKER_H_
