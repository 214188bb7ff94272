// SPDX-License-Identifier: Apache-2.0
// Open-loop workloads on the reference network: 16 nodes (101 for incast) on one non-blocking switch, 10 Gb/s
// links, 1 us a link, 0.5 us switch, 200 KB drop-tail per egress port, no priorities. What
// weft-sim-workload reports.
#ifndef WEFT_TESTS_SIM_WORKLOAD_H_
#define WEFT_TESTS_SIM_WORKLOAD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "dataplane/transport/config.h"
#include "tests/sim/network.h"

namespace weft::sim {

// Message sizes by cumulative fraction.
class SizeDistribution {
 public:
  // Reads lines of `bytes,fraction`; sizes above `cap` count as `cap`. Names the line that is wrong.
  static absl::StatusOr<SizeDistribution> Read(const std::string& path, uint32_t cap);
  // The size at `fraction` in [0, 1).
  uint32_t At(double fraction) const;
  double mean() const { return mean_; }

 private:
  struct Step {
    uint32_t bytes;
    double fraction;
  };
  std::vector<Step> steps_;
  double mean_ = 0;
};

// The reference network, and the core tuned for it.
LinkConfig ReferenceLink();
transport::Config ReferenceCore();

struct SlowdownGroup {
  uint32_t bytes_max = 0;  // Messages above the previous group's and up to this.
  uint64_t messages = 0;
  double p50 = 0, p99 = 0, p999 = 0;
};

struct WorkloadResult {
  std::vector<SlowdownGroup> groups;
  SlowdownGroup small;  // Below one bandwidth-delay product.
  SlowdownGroup all;
  uint64_t lost_packets = 0;
  uint64_t queue_bytes_max = 0;
  double wire_load = 0;      // All that the nodes sent, headers and control included, of the links' capacity.
  double achieved_load = 0;  // Of the links' capacity, over the measured time.
  std::string violation;
};

struct WorkloadOptions {
  uint32_t nodes = 16;
  double load = 0.8;            // Payload and overhead, of each link.
  uint64_t messages = 200'000;  // Measured, after the warm-up.
  uint64_t warm_up = 20'000;
  uint64_t seed = 1;
};

// One-way messages between uniform pairs, Poisson. Slowdown is the time from the intended start to delivery,
// over that of the same size on the idle network.
WorkloadResult RunWorkload(const SizeDistribution& sizes, const WorkloadOptions& options);

struct GoodputResult {
  double fraction = 0;
  uint64_t lost_packets = 0;
  uint64_t queue_drops = 0;
  std::string violation;
};

// `senders` nodes send `bytes` messages to one, closed loop, one each at a time. Fraction of the payload that
// the link could carry in full segments.
GoodputResult RunIncast(uint32_t senders, uint32_t bytes, uint64_t ns, uint64_t seed);

// Calls of `bytes` between two nodes, `depth` at a time, with 1 % loss and 5 % reordering: goodput over that
// of the same run without.
GoodputResult RunLoss(uint32_t bytes, uint32_t depth, uint64_t ns, uint64_t seed);

// Bytes in flight that fill the reference network: 10 Gb/s for the round trip of a full packet and its
// answer.
uint32_t BandwidthDelayBytes();

}  // namespace weft::sim

#endif  // WEFT_TESTS_SIM_WORKLOAD_H_
