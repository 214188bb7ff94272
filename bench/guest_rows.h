// SPDX-License-Identifier: Apache-2.0
// Rows of Wasm functions that call each other through two weft-hosts, over weftd, in the default
// configuration.
#ifndef WEFT_BENCH_GUEST_ROWS_H_
#define WEFT_BENCH_GUEST_ROWS_H_

#include <memory>
#include <vector>

#include "bench/row.h"

namespace weft::bench {

// weft/guest_to_guest in all sizes and _same_process, on one node; weft/guest_to_guest_paced and _fresh, at
// one call per 100 us, on another whose hosts poll for 200 us; weft/guest_to_guest_open_80 on a third.
void AddGuestRows(std::vector<std::unique_ptr<Row>>* rows);

}  // namespace weft::bench

#endif  // WEFT_BENCH_GUEST_ROWS_H_
