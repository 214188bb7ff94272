// SPDX-License-Identifier: Apache-2.0
// Runs rows in turns, one block at a time, each block of a row right beside a block of every limit it is
// judged by, and gathers what they measured. Its ratios are medians over such pairs of blocks: a virtual
// machine's cores move between hardware cores within a run, so two medians taken apart say nothing about each
// other.
#ifndef WEFT_BENCH_RUNNER_H_
#define WEFT_BENCH_RUNNER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/row.h"
#include "dataplane/base/histogram.h"

namespace weft::bench {

struct RowResult {
  RowSpec spec;
  absl::Status status;  // Why the row has no figures, or none after some block.
  Histogram latency;
  uint64_t messages = 0;
  uint64_t elapsed_ns = 0;
  uint64_t cpu_ns = 0;
  std::vector<double> block_p50s_ns;                        // One a block, in the order run.
  std::map<std::string, std::vector<double>> block_ratios;  // By the limit's name, one a round.
  std::map<std::string, double> counts;

  double messages_per_s() const;                 // Of the whole run; 0 where no time was measured.
  std::map<std::string, double> ratios() const;  // By the limit's name, the median of block_ratios.
};

struct RunOptions {
  uint64_t block_ns = kBlockNsMax;
  uint64_t budget_ns = 0;  // Rounds are begun until it is used up; set-up counts.
  int rounds_min = 3;      // Run even where the budget is too small.
  // ECMAScript regular expression searched in names, and in names followed by "@" and the payload's bytes;
  // the limits of a chosen row are taken in with it.
  std::string filter;
  // Called between rounds with what is being done, for a person to see.
  std::function<void(const std::string&)> progress;
};

// The least step by which CLOCK_MONOTONIC was seen to move, at most 1 us. Measured once.
uint32_t ClockStepNs();

// The lower median of `values`; 0 where there are none.
double Median(std::vector<double> values);

// Runs the rows that the filter chooses and returns their results in the order given. A row that fails ends
// there with its status; the others go on. INVALID_ARGUMENT where the filter does not parse or chooses none,
// or where a row is against a name that is not there.
absl::StatusOr<std::vector<RowResult>> RunRows(std::vector<std::unique_ptr<Row>> rows,
                                               const RunOptions& options);

}  // namespace weft::bench

#endif  // WEFT_BENCH_RUNNER_H_
