// SPDX-License-Identifier: Apache-2.0
// Suite `remote`: calls between two nodes, beside the limits of the machine and the kernel's own ways.
#ifdef WEFT_HAS_DPDK
#include "bench/remote_dpdk.h"
#endif
#include "bench/remote_rows.h"
#include "bench/suite_run.h"
#include "bench/suites.h"

namespace weft::bench {
namespace {

constexpr double kQuickSeconds = 30;
constexpr double kFullSeconds = 90;

}  // namespace

std::vector<std::unique_ptr<Row>> RemoteRows() {
  std::vector<std::unique_ptr<Row>> rows;
  AddAfXdpRawRows(&rows);
#ifdef WEFT_HAS_DPDK
  rows.push_back(NewDpdkRawRow());
#endif
  AddRemoteSocketRows(&rows);
  AddTcpBulkRows(&rows);
  rows.push_back(NewAfXdpBulkRow());
  rows.push_back(NewCoreInMemoryRow());
  AddEngineRows(&rows);
  AddFloodRows(&rows);
  AddRemoteGuestRows(&rows);
  return rows;
}

absl::Status RunRemote(const SuiteOptions& options) {
  return RunSuite(RemoteRows(), options, kQuickSeconds, kFullSeconds);
}

}  // namespace weft::bench
