// SPDX-License-Identifier: Apache-2.0
#include "bench/report.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "dataplane/base/fd.h"

namespace weft::bench {
namespace {

using nlohmann::json;

constexpr uint64_t kSamplesForP99 = 100;
constexpr uint64_t kSamplesForP999 = 1'000;

// Whole ns where a sample is one message's, as the clock tells them.
json PerMessage(uint64_t ns, uint32_t sample_messages) {
  if (sample_messages == 1) return ns;
  return static_cast<double>(ns) / sample_messages;
}

// The latency at a hundred places, dense towards the tail, each with at least 10 samples beyond it: what a
// plot needs. Pairs of [fraction, ns].
json Distribution(const Histogram& latency, uint32_t sample_messages) {
  json points = json::array();
  const double count = static_cast<double>(latency.count());
  constexpr double kStep = 0.05;  // In nines: fraction = 1 - 10^-nines.
  for (double nines = 0; nines < 7; nines += kStep) {
    const double rest = std::pow(10, -nines);
    if (nines > 0.31 && rest * count < 10) break;
    points.push_back({1 - rest, PerMessage(latency.Quantile(1 - rest), sample_messages)});
  }
  return points;
}

json BlockSpread(std::vector<double> p50s_ns, uint32_t sample_messages) {
  if (p50s_ns.empty()) return nullptr;
  for (double& p50_ns : p50s_ns) p50_ns /= sample_messages;
  std::sort(p50s_ns.begin(), p50s_ns.end());
  return {{"count", p50s_ns.size()},
          {"min", p50s_ns.front()},
          {"median", Median(p50s_ns)},
          {"max", p50s_ns.back()}};
}

std::string Time(const json& ns) {
  if (!ns.is_number()) return "-";
  const double value = ns;
  if (value < 1e3) return absl::StrFormat("%.*f ns", ns.is_number_float() && value < 100 ? 1 : 0, value);
  if (value < 1e6) return absl::StrFormat("%.2f us", value / 1e3);
  return absl::StrFormat("%.2f ms", value / 1e6);
}

// How the ratios of single pairs of blocks lie around their median, by the limit's name.
json RatioSpread(const RowResult& result) {
  json spread = json::object();
  for (const auto& [name, ratios] : result.block_ratios) {
    if (ratios.empty()) continue;
    std::vector<double> sorted = ratios;
    std::sort(sorted.begin(), sorted.end());
    const std::size_t last = sorted.size() - 1;
    spread[name] = {{"count", sorted.size()}, {"p25", sorted[last / 4]}, {"p75", sorted[3 * last / 4]}};
  }
  return spread;
}

std::string Rate(const json& per_second) {
  if (!per_second.is_number()) return "-";
  const double value = per_second;
  if (value >= 1e6) return absl::StrFormat("%.2f M/s", value / 1e6);
  if (value >= 1e3) return absl::StrFormat("%.1f k/s", value / 1e3);
  return absl::StrFormat("%.0f /s", value);
}

std::string Size(uint64_t bytes) {
  if (bytes == 0) return "-";
  if (bytes % (1 << 20) == 0) return absl::StrFormat("%d MiB", bytes >> 20);
  if (bytes % (1 << 10) == 0) return absl::StrFormat("%d KiB", bytes >> 10);
  return absl::StrFormat("%d B", bytes);
}

}  // namespace

nlohmann::json RowWithoutFigures(const std::string& name) {
  return {{"name", name},
          {"bytes", 0},
          {"p50_ns", nullptr},
          {"p99_ns", nullptr},
          {"p999_ns", nullptr},
          {"samples", 0},
          {"messages_per_s", nullptr},
          {"cpu_ns_per_message", nullptr},
          {"ratios", nlohmann::json::object()}};
}

json ToJson(const RowResult& result) {
  json row;
  row["name"] = result.spec.name;
  row["bytes"] = result.spec.bytes;
  const Histogram& latency = result.latency;
  const uint64_t samples = latency.count();
  const uint32_t per = result.spec.sample_messages;
  row["p50_ns"] = samples > 0 ? PerMessage(latency.Quantile(0.5), per) : json();
  row["p99_ns"] = samples >= kSamplesForP99 ? PerMessage(latency.Quantile(0.99), per) : json();
  row["p999_ns"] = samples >= kSamplesForP999 ? PerMessage(latency.Quantile(0.999), per) : json();
  row["max_ns"] = samples > 0 ? PerMessage(latency.max(), per) : json();
  row["samples"] = samples > 0 ? samples : result.messages;
  row["messages_per_s"] = result.messages > 0 ? json(result.messages_per_s()) : json();
  row["cpu_ns_per_message"] =
      result.messages > 0 ? json(static_cast<double>(result.cpu_ns) / static_cast<double>(result.messages))
                          : json();
  row["ratios"] = result.ratios();
  row["ratio_spread"] = RatioSpread(result);
  row["block_p50_ns"] = BlockSpread(result.block_p50s_ns, per);
  row["distribution"] = Distribution(latency, per);
  for (const auto& [name, count] : result.counts) row[name] = count;
  if (!result.spec.note.empty()) row["note"] = result.spec.note;
  if (!result.status.ok()) row["error"] = result.status.ToString();
  return row;
}

json ToJson(const json& machine, const std::vector<RowResult>& results) {
  json report;
  report["machine"] = machine;
  report["rows"] = json::array();
  for (const RowResult& result : results) report["rows"].push_back(ToJson(result));
  return report;
}

std::string ToTable(const json& report) {
  std::string text =
      absl::StrFormat("%-32s %8s %10s %10s %10s %11s %11s  %s\n", "row", "payload", "p50", "p99", "p99.9",
                      "messages", "CPU/message", "ratios (median over pairs of blocks)");
  for (const json& row : report["rows"]) {
    std::string ratios;
    for (const auto& [name, ratio] : row["ratios"].items()) {
      absl::StrAppend(&ratios, ratios.empty() ? "" : ", ", absl::StrFormat("%.3g", ratio.get<double>()),
                      " x ", name);
    }
    if (row.contains("error")) ratios = absl::StrCat("FAILED: ", row["error"].get<std::string>());
    absl::StrAppendFormat(&text, "%-32s %8s %10s %10s %10s %11s %11s  %s\n", row["name"].get<std::string>(),
                          Size(row["bytes"]), Time(row["p50_ns"]), Time(row["p99_ns"]), Time(row["p999_ns"]),
                          Rate(row["messages_per_s"]), Time(row["cpu_ns_per_message"]), ratios);
  }
  return text;
}

absl::Status CheckWritable(const std::string& path) {
  if (path.empty() || path == "-") return absl::OkStatus();
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
  return fd.valid() ? absl::OkStatus() : absl::ErrnoToStatus(errno, absl::StrCat("write ", path));
}

absl::Status WriteText(const std::string& path, const std::string& text) {
  if (path == "-") {
    std::cout << text << std::endl;
    return absl::OkStatus();
  }
  std::ofstream file(path);
  file << text << '\n';
  file.close();
  return file.good() ? absl::OkStatus() : absl::ErrnoToStatus(errno, absl::StrCat("write ", path));
}

}  // namespace weft::bench
