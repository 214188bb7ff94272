// SPDX-License-Identifier: Apache-2.0
// Suite `local`: calls between processes of one node, beside the limits of the machine and the kernel's own
// ways.
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "bench/guest_rows.h"
#include "bench/kernel_rows.h"
#include "bench/layer_rows.h"
#include "bench/limit_rows.h"
#include "bench/machine.h"
#include "bench/native_rows.h"
#include "bench/plot_svg.h"
#include "bench/report.h"
#include "bench/runner.h"
#include "bench/suites.h"
#include "bench/wasm_rows.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"

namespace weft::bench {
namespace {

constexpr double kQuickSeconds = 30;
constexpr double kFullSeconds = 150;
constexpr uint64_t kWatchNs = 300 * kNsPerMs;

// A line that is overwritten on a terminal; a line every ten seconds elsewhere.
class Progress {
 public:
  void operator()(const std::string& line) {
    if (isatty(STDERR_FILENO) != 0) {
      std::fprintf(stderr, "\r\033[K%s", line.c_str());
    } else if (const uint64_t now_ns = NowNs(); now_ns - last_ns_ > 10 * kNsPerSecond) {
      last_ns_ = now_ns;
      std::fprintf(stderr, "%s\n", line.c_str());
    }
  }
  static void Clear() {
    if (isatty(STDERR_FILENO) != 0) std::fprintf(stderr, "\r\033[K");
  }

 private:
  uint64_t last_ns_ = 0;
};

absl::Status Publish(const SuiteOptions& options, const nlohmann::json& report) {
  if (options.json_path != "-") std::cout << ToTable(report);
  for (const nlohmann::json& warning : report["machine"]["warnings"]) {
    std::cerr << "warning: " << warning.get<std::string>() << '\n';
  }
  if (!options.json_path.empty()) WEFT_RETURN_IF_ERROR(WriteText(options.json_path, report.dump(1)));
  if (!options.svg_path.empty()) WEFT_RETURN_IF_ERROR(WriteText(options.svg_path, LatencySvg(report)));
  return absl::OkStatus();
}

}  // namespace

std::vector<std::unique_ptr<Row>> LocalRows() {
  std::vector<std::unique_ptr<Row>> rows;
  rows.push_back(NewSpinJitterRow());
  rows.push_back(NewShmSpinRow());
  rows.push_back(NewSpscBatchedRow());
  rows.push_back(NewTwoMemcpyRow());
  rows.push_back(NewEventfdOneSideRow());
  rows.push_back(NewWasmCallRow());
  rows.push_back(NewInstanceResetRow());
  rows.push_back(NewUnixSocketRow());
  rows.push_back(NewTcpLoopbackRow());
  rows.push_back(NewTcpLoopbackSpinRow());
  rows.push_back(NewChannelRow());
  rows.push_back(NewChannelBatchedRow());
  AddNativeRows(&rows);
  AddGuestRows(&rows);
  AddThousandChannelsRow(&rows);
  return rows;
}

absl::Status RunLocal(const SuiteOptions& options) {
  RunOptions run;
  const double seconds = options.seconds > 0 ? options.seconds : options.quick ? kQuickSeconds : kFullSeconds;
  run.budget_ns = static_cast<uint64_t>(seconds * 1e9);
  run.filter = options.filter;
  run.progress = Progress();
  RunConditions conditions;
  nlohmann::json machine = MachineFacts();
  conditions.busy_before = BusyFraction(kWatchNs);
  conditions.before = ReadCpuTimes();
  WEFT_ASSIGN_OR_RETURN(const std::vector<RowResult> results, RunRows(LocalRows(), run));
  conditions.after = ReadCpuTimes();
  Progress::Clear();
  machine["warnings"] = NoiseWarnings(conditions, results);
  WEFT_RETURN_IF_ERROR(Publish(options, ToJson(machine, results)));
  for (const RowResult& result : results) {
    if (!result.status.ok())
      return absl::InternalError(absl::StrCat(result.spec.name, ": ", result.status.message()));
  }
  return absl::OkStatus();
}

}  // namespace weft::bench
