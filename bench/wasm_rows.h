// SPDX-License-Identifier: Apache-2.0
// What the Wasm engine itself costs, in the configuration that weft-host gives it: the limits of calls within
// one process and of clean instances. One process on core 0, no mesh.
#ifndef WEFT_BENCH_WASM_ROWS_H_
#define WEFT_BENCH_WASM_ROWS_H_

#include <memory>

#include "bench/row.h"

namespace weft::bench {

// limit/wasm_call: host to guest, a no-op import, and back.
std::unique_ptr<Row> NewWasmCallRow();

// limit/instance_reset: the kernel gives a copy-on-write mapping its first content back and lets its pages be
// written anew: as many pages as the bench guest changes while it handles a request of 64 B, counted when the
// row starts. Nothing of weft or the engine is in it; what weft-host takes for a clean instance is
// InstanceReset of bench/micro/host_bench.cc.
std::unique_ptr<Row> NewInstanceResetRow();

}  // namespace weft::bench

#endif  // WEFT_BENCH_WASM_ROWS_H_
