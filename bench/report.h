// SPDX-License-Identifier: Apache-2.0
// The results of a run as JSON for programs and as a table for people.
#ifndef WEFT_BENCH_REPORT_H_
#define WEFT_BENCH_REPORT_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/runner.h"

namespace weft::bench {

// {"machine": …, "rows": […]}: the form that every suite writes. A figure that a row has not, or for which it
// has too few samples (100 for p99, 1,000 for p99.9), is null.
nlohmann::json ToJson(const nlohmann::json& machine, const std::vector<RowResult>& results);

// One row of the above.
nlohmann::json ToJson(const RowResult& result);

// A row of that form that has none of the figures that all rows have: of suites with figures of their own.
nlohmann::json RowWithoutFigures(const std::string& name);

// The rows of ToJson as lines of text with units.
std::string ToTable(const nlohmann::json& report);

// Whether a report can be written into `path`, so that it is known before it is measured; what stands there
// stays. An empty file is made where there is none. OK where `path` is empty or "-".
absl::Status CheckWritable(const std::string& path);

// Writes `text` and a line's end into `path`, or to standard output for "-".
absl::Status WriteText(const std::string& path, const std::string& text);

}  // namespace weft::bench

#endif  // WEFT_BENCH_REPORT_H_
