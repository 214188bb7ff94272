// SPDX-License-Identifier: Apache-2.0
// The row weft/guest_to_guest_open_80: an open loop of several calling guests at 80 % of the peak that the
// same guests reach in a closed one.
#ifndef WEFT_BENCH_GUEST_OPEN_H_
#define WEFT_BENCH_GUEST_OPEN_H_

#include <memory>

#include "bench/row.h"

namespace weft::bench {

std::unique_ptr<Row> NewGuestOpenRow();

}  // namespace weft::bench

#endif  // WEFT_BENCH_GUEST_OPEN_H_
