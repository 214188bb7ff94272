// SPDX-License-Identifier: Apache-2.0
// The suites of weft-bench: which rows each has, and how it is run from the command line.
#ifndef WEFT_BENCH_SUITES_H_
#define WEFT_BENCH_SUITES_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/row.h"

namespace weft::bench {

struct SuiteOptions {
  bool quick = false;     // All within 40 s.
  double seconds = 0;     // How long to measure; 0 chooses by `quick`.
  std::string filter;     // ECMAScript regular expression; empty chooses all rows.
  std::string json_path;  // Empty: none is written; "-" is standard output.
  std::string svg_path;
  int busy = 0;       // Processes that compute beside the rows of `local` and `remote`.
  int functions = 0;  // Of suite `control`; 0 chooses by `quick`.
};

// Rows between processes of one node.
std::vector<std::unique_ptr<Row>> LocalRows();

// Runs suite `local` and prints its table; blocks for the time it takes. Fails where a row failed, after all
// has been written.
absl::Status RunLocal(const SuiteOptions& options);

// Rows between two nodes.
std::vector<std::unique_ptr<Row>> RemoteRows();

// Runs suite `remote`, as RunLocal.
absl::Status RunRemote(const SuiteOptions& options);

// The XDP program under BPF_PROG_TEST_RUN.
std::vector<std::unique_ptr<Row>> SteerRows();

// Runs suite `steer`, as RunLocal. Needs root.
absl::Status RunSteer(const SuiteOptions& options);

// Runs suite `sim` in simulated time and prints its table. Fails where a run broke an invariant. `seconds`
// and `svg_path` mean nothing to it; without `quick` it takes minutes a row.
absl::Status RunSim(const SuiteOptions& options);

// Runs suite `idle`: rows of CPU and memory of an idle node's programs. Blocks for the time it watches.
// `filter` and `svg_path` mean nothing to it.
absl::Status RunIdle(const SuiteOptions& options);

// Runs suite `control`: real orchestrators, weft-control and weftd, and a bare program beside them. `filter`
// chooses sources by the names of their rows. Blocks for minutes, with `quick` for less than one. Fails where
// a row did.
absl::Status RunControl(const SuiteOptions& options);

}  // namespace weft::bench

#endif  // WEFT_BENCH_SUITES_H_
