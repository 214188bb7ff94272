/* SPDX-License-Identifier: Apache-2.0 */
/* The guest of limit/wasm_call: enters, calls an import that does nothing, and returns. No weft function:
   nothing but the engine is between it and its host. */
__attribute__((import_module("bench"), import_name("noop"))) void bench_noop(void);

__attribute__((export_name("run"))) void run(void) { bench_noop(); }
