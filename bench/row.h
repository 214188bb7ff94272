// SPDX-License-Identifier: Apache-2.0
// What every line of a benchmark table is: a row that can be set up, run for one short block at a time, and
// torn down. The runner interleaves blocks of many rows so that each stands next to the limit it is judged
// by; rows know nothing of each other. All calls come from the coordinator's only thread.
#ifndef WEFT_BENCH_ROW_H_
#define WEFT_BENCH_ROW_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace weft::bench {

// The longest block. A virtual machine's cores move between hardware cores many times a second; two blocks
// of this length side by side usually see one placement.
inline constexpr uint64_t kBlockNsMax = 20'000'000;

// What one block measured.
struct Block {
  std::vector<uint32_t> samples_ns = {};      // Round trips in the order made; empty for a row of a rate.
  uint64_t messages = 0;                      // Round trips, or one-way messages received and checked.
  uint64_t elapsed_ns = 0;                    // Time in which `messages` were made.
  uint64_t cpu_ns = 0;                        // CPU of all threads of both processes meanwhile.
  std::map<std::string, double> counts = {};  // Row's own counters, summed over blocks, e.g. "sleeps".
};

struct RowSpec {
  std::string name = {};  // As in benchmarking tables: "limit/shm_spin".
  uint64_t bytes = 0;     // Payload of one message, 0 where it has none.
  bool is_rate = false;   // Judged by messages per second, not by latency.
  bool by_p99 = false;    // Ratios compare the blocks' p99 rather than their p50.
  // Rows whose block is run right beside each block of this one; the name of the row, of which the first
  // registered counts where several sizes share it.
  std::vector<std::string> against = {};
  // Messages that one sample is the time of; the report divides by it. For what is shorter than a clock's
  // step.
  uint32_t sample_messages = 1;
  // Shown in the table and the JSON where it is not empty: how this row differs from what its name says.
  std::string note = {};
};

class Row {
 public:
  explicit Row(RowSpec spec) : spec_(std::move(spec)) {}
  virtual ~Row() = default;
  Row(const Row&) = delete;
  Row& operator=(const Row&) = delete;

  const RowSpec& spec() const { return spec_; }

  // Starts processes and opens what a block needs; a row that is set up uses no CPU until RunBlock.
  virtual absl::Status Setup() = 0;
  // Runs for `duration_ns`, at most kBlockNsMax, part of which is warm-up and not in the result. Fails where
  // a process died or a payload was not what it had to be.
  virtual absl::StatusOr<Block> RunBlock(uint64_t duration_ns) = 0;
  // Ends what Setup started, also after a failure. Idempotent.
  virtual void Teardown() = 0;

 private:
  RowSpec spec_;
};

}  // namespace weft::bench

#endif  // WEFT_BENCH_ROW_H_
