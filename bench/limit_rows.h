// SPDX-License-Identifier: Apache-2.0
// What the machine itself allows between two processes: the rows that every other one is judged by. None of
// them uses any part of weft's data path. Payloads, where there are some, are filled and checked as in every
// other row.
#ifndef WEFT_BENCH_LIMIT_ROWS_H_
#define WEFT_BENCH_LIMIT_ROWS_H_

#include <memory>

#include "bench/row.h"

namespace weft::bench {

// limit/shm_spin: two 4-byte words on lines of their own, load loops without pause, no payload; one read of
// the clock is in each sample.
std::unique_ptr<Row> NewShmSpinRow();

// limit/spsc_batched: 64 B one way through a ring of lines, published in bursts of 32, each side with a
// private copy of the other's cursor.
std::unique_ptr<Row> NewSpscBatchedRow();

// limit/two_memcpy: 1 MiB copied into shared memory by one process and out of it by the other, published
// every 64 KiB so that both copies overlap; 64 B come back.
std::unique_ptr<Row> NewTwoMemcpyRow();

// limit/eventfd_one_side: the callee sleeps in read(eventfd), the caller writes it once a millisecond and
// polls a word of shared memory for the answer.
std::unique_ptr<Row> NewEventfdOneSideRow();

// noise/spin_jitter: what one process that does nothing but read the clock on core 0 sees between two reads.
// Not a limit of anything: a measure of how quiet the machine is.
std::unique_ptr<Row> NewSpinJitterRow();

}  // namespace weft::bench

#endif  // WEFT_BENCH_LIMIT_ROWS_H_
