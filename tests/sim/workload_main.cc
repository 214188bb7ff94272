// SPDX-License-Identifier: Apache-2.0
// weft-sim-workload DIR WORKLOAD LOAD [MESSAGES [SEED]], or `incast`, or `loss`: one row of the simulator's
// benchmark, with slowdown by message size.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/sim/workload.h"

namespace {

void Print(const char* name, const weft::sim::SlowdownGroup& group) {
  std::printf("  %-6s up to %9u B %9llu messages  p50 %6.2f  p99 %7.2f  p99.9 %7.2f\n", name, group.bytes_max,
              static_cast<unsigned long long>(group.messages), group.p50, group.p99, group.p999);
}

}  // namespace

int main(int argc, char** argv) {
  using namespace weft::sim;
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "incast" || what == "loss") {
    const auto bytes = static_cast<uint32_t>(argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 100'000);
    const auto depth = static_cast<uint32_t>(argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 100);
    const GoodputResult result =
        what == "incast" ? RunIncast(depth, bytes, 50'000'000, 1) : RunLoss(bytes, depth, 50'000'000, 1);
    std::printf("%s %u B x %u: goodput %.3f, %llu lost, %llu dropped by queues %s\n", what.c_str(), bytes,
                depth, result.fraction, static_cast<unsigned long long>(result.lost_packets),
                static_cast<unsigned long long>(result.queue_drops), result.violation.c_str());
    return result.violation.empty() ? 0 : 1;
  }
  if (argc < 4) {
    std::fprintf(
        stderr,
        "usage: weft-sim-workload DIR WORKLOAD LOAD [MESSAGES [SEED]] | incast|loss [BYTES [DEPTH]]\n");
    return 2;
  }
  auto sizes = SizeDistribution::Read(what + "/homa_w" + argv[2] + "_cdf.csv", 1'000'000);
  if (!sizes.ok()) {
    std::fprintf(stderr, "%s\n", std::string(sizes.status().message()).c_str());
    return 2;
  }
  WorkloadOptions options;
  options.load = std::atof(argv[3]);
  if (argc > 4) options.messages = std::strtoull(argv[4], nullptr, 10);
  if (argc > 5) options.seed = std::strtoull(argv[5], nullptr, 10);
  options.warm_up = options.messages / 10;
  const WorkloadResult result = RunWorkload(*sizes, options);
  std::printf("W%s at %.0f %%: payload load %.3f, wire load %.3f, %llu lost, longest queue %llu B %s\n",
              argv[2], options.load * 100, result.achieved_load, result.wire_load,
              static_cast<unsigned long long>(result.lost_packets),
              static_cast<unsigned long long>(result.queue_bytes_max), result.violation.c_str());
  for (const SlowdownGroup& group : result.groups) Print("", group);
  Print("small", result.small);
  return result.violation.empty() ? 0 : 1;
}
