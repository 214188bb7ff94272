// SPDX-License-Identifier: Apache-2.0
// Runs the rows of a suite from its command line's options: progress, machine's facts and warnings, table,
// JSON, picture.
#ifndef WEFT_BENCH_SUITE_RUN_H_
#define WEFT_BENCH_SUITE_RUN_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "bench/row.h"
#include "bench/suites.h"

namespace weft::bench {

// `quick_seconds` and `full_seconds`: how long to measure where the options do not say. Fails where a row
// failed, after all has been written.
absl::Status RunSuite(std::vector<std::unique_ptr<Row>> rows, const SuiteOptions& options,
                      double quick_seconds, double full_seconds);

}  // namespace weft::bench

#endif  // WEFT_BENCH_SUITE_RUN_H_
