// SPDX-License-Identifier: Apache-2.0
// Rows of single layers of weft, so that what a call costs above its limit can be told apart: the channel
// alone, without the call layer, an agent or a guest. Not figures to be judged by.
#ifndef WEFT_BENCH_LAYER_ROWS_H_
#define WEFT_BENCH_LAYER_ROWS_H_

#include <memory>

#include "bench/row.h"

namespace weft::bench {

// layer/channel: 64 B there and back over one channel, each side driven by a Poller.
std::unique_ptr<Row> NewChannelRow();

// layer/channel_batched: 64 B one way over one channel, published in bursts of 32.
std::unique_ptr<Row> NewChannelBatchedRow();

}  // namespace weft::bench

#endif  // WEFT_BENCH_LAYER_ROWS_H_
