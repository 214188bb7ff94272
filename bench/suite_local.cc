// SPDX-License-Identifier: Apache-2.0
// Suite `local`: calls between processes of one node, beside the limits of the machine and the kernel's own
// ways.
#include "bench/guest_rows.h"
#include "bench/kernel_rows.h"
#include "bench/layer_rows.h"
#include "bench/limit_rows.h"
#include "bench/native_rows.h"
#include "bench/suite_run.h"
#include "bench/suites.h"
#include "bench/wasm_rows.h"

namespace weft::bench {
namespace {

constexpr double kQuickSeconds = 30;
constexpr double kFullSeconds = 150;

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
  return RunSuite(LocalRows(), options, kQuickSeconds, kFullSeconds);
}

}  // namespace weft::bench
