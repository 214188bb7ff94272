// SPDX-License-Identifier: Apache-2.0
#include "bench/suite_run.h"

#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/machine.h"
#include "bench/plot_svg.h"
#include "bench/report.h"
#include "bench/runner.h"
#include "bench/worker.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"

namespace weft::bench {
namespace {

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

// Processes that never give their core away, until they are destroyed.
absl::StatusOr<std::vector<Worker>> StartBusy(int count) {
  std::vector<Worker> busy;
  for (int i = 0; i < count; ++i) {
    WEFT_ASSIGN_OR_RETURN(Worker worker, Worker::Start({.core = -1, .name = "busy"},
                                                       [](const Worker::Command&) -> Worker::Reply {
                                                         for (std::atomic<uint64_t> turns = 0;;)
                                                           turns.fetch_add(1, std::memory_order_relaxed);
                                                       }));
    WEFT_RETURN_IF_ERROR(worker.Run({}));
    busy.push_back(std::move(worker));
  }
  return busy;
}

}  // namespace

absl::Status RunSuite(std::vector<std::unique_ptr<Row>> rows, const SuiteOptions& options,
                      double quick_seconds, double full_seconds) {
  WEFT_RETURN_IF_ERROR(CheckWritable(options.json_path));
  WEFT_RETURN_IF_ERROR(CheckWritable(options.svg_path));
  RunOptions run;
  const double seconds = options.seconds > 0 ? options.seconds : options.quick ? quick_seconds : full_seconds;
  run.budget_ns = static_cast<uint64_t>(seconds * 1e9);
  run.filter = options.filter;
  run.progress = Progress();
  RunConditions conditions;
  nlohmann::json machine = MachineFacts();
  conditions.busy_before = BusyFraction(kWatchNs);
  conditions.before = ReadCpuTimes();
  if (options.busy != 0) machine["busy_processes"] = options.busy;
  WEFT_ASSIGN_OR_RETURN(const std::vector<Worker> busy, StartBusy(options.busy));
  WEFT_ASSIGN_OR_RETURN(const std::vector<RowResult> results, RunRows(std::move(rows), run));
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
