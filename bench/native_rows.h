// SPDX-License-Identifier: Apache-2.0
// Rows of libweft: a native caller and a native server in two processes, over weftd, in the default
// configuration.
#ifndef WEFT_BENCH_NATIVE_ROWS_H_
#define WEFT_BENCH_NATIVE_ROWS_H_

#include <memory>
#include <vector>

#include "bench/row.h"

namespace weft::bench {

// weft/host_to_host in all sizes, weft/host_to_host_batched, weft/host_to_host_sleeping. They share one node,
// which the first Setup starts and the last Teardown ends.
void AddNativeRows(std::vector<std::unique_ptr<Row>>* rows);

// weft/thousand_channels: weft/host_to_host of 64 B at a server that has 999 more channels open and idle.
void AddThousandChannelsRow(std::vector<std::unique_ptr<Row>>* rows);

}  // namespace weft::bench

#endif  // WEFT_BENCH_NATIVE_ROWS_H_
