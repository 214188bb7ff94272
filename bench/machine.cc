// SPDX-License-Identifier: Apache-2.0
#include "bench/machine.h"

#include <dirent.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "bench/worker.h"
#include "dataplane/base/clock.h"

namespace weft::bench {
namespace {

using nlohmann::json;

// First line of a file of /proc or /sys; null where there is none.
json Line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return nullptr;
  while (!line.empty() && (line.back() == '\n' || line.back() == ' ')) line.pop_back();
  return line;
}

// The value after "key : " of a file such as /proc/cpuinfo or /proc/meminfo.
json ValueOf(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind(key, 0) != 0) continue;
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::size_t value = line.find_first_not_of(" \t", colon + 1);
    return value == std::string::npos ? json("") : json(line.substr(value));
  }
  return nullptr;
}

std::vector<std::string> Entries(const std::string& path) {
  std::vector<std::string> names;
  DIR* directory = opendir(path.c_str());
  if (directory == nullptr) return names;
  while (const dirent* entry = readdir(directory)) {
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  }
  closedir(directory);
  std::sort(names.begin(), names.end());
  return names;
}

json IdleStates() {
  const std::string folder = "/sys/devices/system/cpu/cpu0/cpuidle/";
  json states = json::array();
  for (const std::string& state : Entries(folder)) states.push_back(Line(folder + state + "/name"));
  return states;
}

json Mitigations() {
  const std::string folder = "/sys/devices/system/cpu/vulnerabilities/";
  json all = json::object();
  for (const std::string& name : Entries(folder)) {
    json state = Line(folder + name);
    if (state != "Not affected") all[name] = state;
  }
  return all;
}

bool UnderHypervisor() {
  const json flags = ValueOf("/proc/cpuinfo", "flags");
  return flags.is_string() && flags.get<std::string>().find(" hypervisor") != std::string::npos;
}

double ClockReadNs() {
  constexpr int kReads = 100'000;
  const uint64_t begin_ns = NowNs();
  for (int i = 0; i < kReads; ++i) NowNs();
  return static_cast<double>(NowNs() - begin_ns) / kReads;
}

// A limit whose blocks' medians differ by more than this between the tenth and the ninetieth of a hundred was
// not measured on one placement of the cores.
constexpr double kSpreadMax = 1.5;
// Less than this of all CPU time stolen is what a quiet host shows.
constexpr double kStealMax = 0.005;
// What a quiet machine's own services use.
constexpr double kBusyMax = 0.05;
constexpr uint64_t kJitterP999MaxNs = 5'000;

void WarnOfSpread(const RowResult& result, std::vector<std::string>* warnings) {
  std::vector<double> blocks = result.block_p50s_ns;
  if (blocks.size() < 5) return;
  std::sort(blocks.begin(), blocks.end());
  const double low = blocks[blocks.size() / 10];
  const double high = blocks[blocks.size() - 1 - blocks.size() / 10];
  if (low <= 0 || high / low <= kSpreadMax) return;
  warnings->push_back(
      absl::StrFormat("%s: p50 moved between %.0f and %.0f ns from block to block (placement of virtual "
                      "cores or other load); "
                      "trust the ratios, not the absolute figures",
                      result.spec.name, low, high));
}

}  // namespace

CpuTimes ReadCpuTimes() {
  std::ifstream stat("/proc/stat");
  std::string cpu;
  CpuTimes times;
  stat >> cpu;
  // user nice system idle iowait irq softirq steal; guest time is part of user time.
  for (int field = 0; field < 8; ++field) {
    uint64_t value = 0;
    stat >> value;
    times.total += value;
    if (field == 3 || field == 4) times.idle += value;
    if (field == 7) times.steal += value;
  }
  return times;
}

double BusyFraction(uint64_t watch_ns) {
  const CpuTimes before = ReadCpuTimes();
  usleep(static_cast<useconds_t>(watch_ns / kNsPerUs));
  const CpuTimes after = ReadCpuTimes();
  if (after.total == before.total) return 0;
  return 1 - static_cast<double>(after.idle - before.idle) / static_cast<double>(after.total - before.total);
}

json MachineFacts() {
  utsname name{};
  uname(&name);
  json machine;
  machine["cpu"] = ValueOf("/proc/cpuinfo", "model name");
  machine["cores"] = std::thread::hardware_concurrency();
  machine["architecture"] = name.machine;
  machine["smt_active"] = Line("/sys/devices/system/cpu/smt/active");
  machine["virtual"] = UnderHypervisor();
  machine["kernel"] = absl::StrCat(name.sysname, " ", name.release);
  machine["kernel_command_line_mitigations"] = nullptr;
  if (const json line = Line("/proc/cmdline"); line.is_string()) {
    const std::string text = line;
    const std::size_t at = text.find("mitigations=");
    if (at != std::string::npos) {
      machine["kernel_command_line_mitigations"] = text.substr(at, text.find(' ', at) - at);
    }
  }
  machine["mitigations"] = Mitigations();
  machine["frequency_governor"] = Line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
  machine["idle_driver"] = Line("/sys/devices/system/cpu/cpuidle/current_driver");
  machine["idle_governor"] = Line("/sys/devices/system/cpu/cpuidle/current_governor");
  machine["idle_states"] = IdleStates();
  machine["clock_source"] = Line("/sys/devices/system/clocksource/clocksource0/current_clocksource");
  machine["clock_read_ns"] = ClockReadNs();
  machine["clock_step_ns"] = ClockStepNs();
  machine["transparent_hugepages"] = Line("/sys/kernel/mm/transparent_hugepage/enabled");
  machine["transparent_hugepages_shmem"] = Line("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
  machine["hugepages"] = ValueOf("/proc/meminfo", "HugePages_Total");
  machine["memory"] = ValueOf("/proc/meminfo", "MemTotal");
  machine["load_average"] = Line("/proc/loadavg");
  machine["separate_users"] = CanSeparateUsers();
  machine["compiler"] = __VERSION__;
#ifdef NDEBUG
  machine["build"] = "release";
#else
  machine["build"] = "with checks: not for figures";
#endif
  return machine;
}

std::vector<std::string> NoiseWarnings(const RunConditions& conditions,
                                       const std::vector<RowResult>& results) {
  const CpuTimes& before = conditions.before;
  const CpuTimes& after = conditions.after;
  std::vector<std::string> warnings;
  if (conditions.busy_before > kBusyMax) {
    warnings.push_back(absl::StrFormat("other processes used %.0f %% of the CPU time just before the run",
                                       100 * conditions.busy_before));
  }
  const double total = static_cast<double>(after.total - before.total);
  if (total > 0 && static_cast<double>(after.steal - before.steal) / total > kStealMax) {
    warnings.push_back(absl::StrFormat("the hypervisor took %.1f %% of the CPU time for others",
                                       100 * static_cast<double>(after.steal - before.steal) / total));
  }
  for (const RowResult& result : results) {
    if (result.spec.name == "noise/spin_jitter") {
      const uint64_t p999_ns = result.latency.Quantile(0.999);
      if (p999_ns > kJitterP999MaxNs) {
        warnings.push_back(absl::StrFormat(
            "a process that only reads the clock was held up for %.1f us or more once in a thousand reads",
            static_cast<double>(p999_ns) / 1e3));
      }
    } else if (result.spec.name.rfind("limit/", 0) == 0) {
      WarnOfSpread(result, &warnings);
    }
  }
  if (std::thread::hardware_concurrency() < 2) {
    warnings.push_back("this machine has one core: caller and callee share it, and no figure means anything");
  }
#ifndef NDEBUG
  warnings.push_back("this is not a release build");
#endif
  return warnings;
}

}  // namespace weft::bench
