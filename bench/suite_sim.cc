// SPDX-License-Identifier: Apache-2.0
// Suite `sim`: the transport core on the simulator's reference network (tests/sim/workload.h): slowdown of
// short messages under Homa's workloads, and goodput under incast and loss. Time is the simulator's, so a row
// is the same on every machine, and a function of its seeds.
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <regex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/machine.h"
#include "bench/report.h"
#include "bench/suites.h"
#include "dataplane/base/status.h"
#include "tests/sim/workload.h"

namespace weft::bench {
namespace {

using nlohmann::json;

constexpr uint64_t kMessages = 200'000;
constexpr uint64_t kSeeds = 3;
// A quick run is one seed of as many messages as carry about so many bytes.
constexpr double kQuickBytes = 1e9;
constexpr uint64_t kQuickMessages = 20'000;
constexpr uint32_t kMessageBytesMax = 1'000'000;
constexpr uint32_t kIncastSenders = 100;
constexpr uint32_t kGoodputBytes = 100'000;
constexpr uint32_t kLossDepth = 100;
constexpr uint64_t kGoodputNs = 50'000'000;  // Simulated

// What one seed of a row came to; `figure` is what the row is judged by.
struct SeedResult {
  double figure = 0;
  json details;
  std::string violation;
};

json ToJson(const sim::SlowdownGroup& group) {
  return {{"bytes_max", group.bytes_max},
          {"messages", group.messages},
          {"p50", group.p50},
          {"p99", group.p99},
          {"p999", group.p999}};
}

SeedResult RunOne(const sim::SizeDistribution& sizes, double load, uint64_t seed, bool quick) {
  sim::WorkloadOptions options;
  options.load = load;
  options.seed = seed;
  options.messages = kMessages;
  if (quick) {
    const double count = std::min(kQuickBytes / sizes.mean(), static_cast<double>(kQuickMessages));
    options.messages = static_cast<uint64_t>(count);
  }
  options.warm_up = options.messages / 10;
  const sim::WorkloadResult result = sim::RunWorkload(sizes, options);
  json groups = json::array();
  for (const sim::SlowdownGroup& group : result.groups) groups.push_back(ToJson(group));
  return {result.small.p99,
          {{"messages", options.messages},
           {"messages_small", result.small.messages},
           {"slowdown_by_size", groups},
           {"payload_load", result.achieved_load},
           {"wire_load", result.wire_load},
           {"queue_bytes_max", result.queue_bytes_max},
           {"packets_lost", result.lost_packets}},
          result.violation};
}

SeedResult FromGoodput(const sim::GoodputResult& result) {
  return {result.fraction,
          {{"packets_lost", result.lost_packets}, {"queue_drops", result.queue_drops}},
          result.violation};
}

// Runs `one(seed)` for each seed. Of several the worst figure is the row's: the highest of slowdowns, the
// lowest of goodputs.
template <typename One>
json MakeRow(const std::string& name, bool slowdown, uint64_t seeds, One&& one) {
  json row = {{"name", name}, {"seeds", json::array()}};
  double worst = 0;
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    SeedResult result = one(seed);
    worst = seed == 1  ? result.figure
            : slowdown ? std::max(worst, result.figure)
                       : std::min(worst, result.figure);
    result.details["seed"] = seed;
    result.details[slowdown ? "p99_slowdown_small" : "goodput_fraction"] = result.figure;
    std::fprintf(stderr, "%s, seed %llu: %.3f\n", name.c_str(), static_cast<unsigned long long>(seed),
                 result.figure);
    row["seeds"].push_back(std::move(result.details));
    if (!result.violation.empty()) row["error"] = absl::StrCat("seed ", seed, ": ", result.violation);
  }
  row[slowdown ? "p99_slowdown_small" : "goodput_fraction"] = worst;
  return row;
}

absl::StatusOr<json> RunRows(const SuiteOptions& options) {
  const uint64_t seeds = options.quick ? 1 : kSeeds;
  std::regex filter;
  try {
    filter = std::regex(options.filter);
  } catch (const std::regex_error& error) {
    return absl::InvalidArgumentError(absl::StrCat("--filter ", options.filter, ": ", error.what()));
  }
  json rows = json::array();
  for (int workload = 1; workload <= 5; ++workload) {
    const std::string file = absl::StrCat(WEFT_WORKLOAD_DIR "/homa_w", workload, "_cdf.csv");
    WEFT_ASSIGN_OR_RETURN(const sim::SizeDistribution sizes,
                          sim::SizeDistribution::Read(file, kMessageBytesMax));
    for (const int percent : {50, 80}) {
      const std::string name = absl::StrCat("sim/w", workload, "_", percent);
      if (!std::regex_search(name, filter)) continue;
      rows.push_back(MakeRow(name, true, seeds, [&](uint64_t seed) {
        return RunOne(sizes, percent / 100.0, seed, options.quick);
      }));
    }
  }
  if (std::regex_search("sim/incast_100", filter)) {
    rows.push_back(MakeRow("sim/incast_100", false, seeds, [](uint64_t seed) {
      return FromGoodput(sim::RunIncast(kIncastSenders, kGoodputBytes, kGoodputNs, seed));
    }));
  }
  if (std::regex_search("sim/loss", filter)) {
    rows.push_back(MakeRow("sim/loss", false, seeds, [](uint64_t seed) {
      return FromGoodput(sim::RunLoss(kGoodputBytes, kLossDepth, kGoodputNs, seed));
    }));
  }
  return rows;
}

std::string Table(const json& rows) {
  std::string text = absl::StrFormat("%-16s %-20s %8s  %s\n", "row", "figure", "worst", "by seed");
  for (const json& row : rows) {
    const char* const figure = row.contains("goodput_fraction") ? "goodput_fraction" : "p99_slowdown_small";
    std::string seeds;
    for (const json& seed : row["seeds"])
      absl::StrAppend(&seeds, seeds.empty() ? "" : ", ", absl::StrFormat("%.3f", seed[figure].get<double>()));
    if (row.contains("error")) seeds = absl::StrCat("FAILED: ", row["error"].get<std::string>());
    absl::StrAppendFormat(&text, "%-16s %-20s %8.3f  %s\n", row["name"].get<std::string>(), figure,
                          row[figure].get<double>(), seeds);
  }
  return text;
}

}  // namespace

absl::Status RunSim(const SuiteOptions& options) {
  WEFT_RETURN_IF_ERROR(CheckWritable(options.json_path));
  WEFT_ASSIGN_OR_RETURN(json rows, RunRows(options));
  if (rows.empty())
    return absl::InvalidArgumentError(
        absl::StrCat("filter \"", options.filter, "\": no row has such a name"));
  std::string error;
  for (const json& row : rows) {
    if (row.contains("error")) error = row["error"].get<std::string>();
  }
  if (options.json_path != "-") std::cout << Table(rows);
  if (!options.json_path.empty()) {
    const json report = {{"machine", MachineFacts()}, {"rows", std::move(rows)}};
    WEFT_RETURN_IF_ERROR(WriteText(options.json_path, report.dump(1)));
  }
  return error.empty() ? absl::OkStatus() : absl::InternalError(error);
}

}  // namespace weft::bench
