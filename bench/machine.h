// SPDX-License-Identifier: Apache-2.0
// Facts about the machine that a reader needs to judge a figure, and whether the run was disturbed.
#ifndef WEFT_BENCH_MACHINE_H_
#define WEFT_BENCH_MACHINE_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "bench/runner.h"

namespace weft::bench {

// CPU time of the machine since its start, all cores, in ticks of sysconf(_SC_CLK_TCK).
struct CpuTimes {
  uint64_t total = 0;
  uint64_t idle = 0;   // Idle and waiting for a disk.
  uint64_t steal = 0;  // Taken by the hypervisor for others.
};
CpuTimes ReadCpuTimes();

// Share of the machine's CPU time that others used during `watch_ns`, in which the caller sleeps.
double BusyFraction(uint64_t watch_ns);

// CPU, cores, SMT, kernel, hypervisor, governor, idle states, mitigations, clock source, huge pages, memory,
// load at the time, compiler and build. What the machine does not tell is null.
nlohmann::json MachineFacts();

// What was seen around a run.
struct RunConditions {
  double busy_before = 0;  // BusyFraction just before it.
  CpuTimes before;
  CpuTimes after;
};

// One sentence for each sign that something else disturbed the run; empty where there was none.
std::vector<std::string> NoiseWarnings(const RunConditions& conditions,
                                       const std::vector<RowResult>& results);

}  // namespace weft::bench

#endif  // WEFT_BENCH_MACHINE_H_
