// SPDX-License-Identifier: Apache-2.0
// The engine's C interface: Wasmtime's headers as built (features included), and the functions that
// dataplane/host/engine/src/lib.rs adds. All of it is called on the thread that owns the store in question.
#ifndef WEFT_DATAPLANE_HOST_ENGINE_EXT_H_
#define WEFT_DATAPLANE_HOST_ENGINE_EXT_H_

#include <wasm.h>
#include <wasmtime.h>

#include <cstddef>
#include <cstdint>

extern "C" {

// Why a call failed. Owned by whoever received it; freed by weft_fault_delete.
typedef struct weft_fault weft_fault;
// Wasmtime's trap code, or -1 where the failure is no trap.
int32_t weft_fault_trap_code(const weft_fault* fault);
// UTF-8 without a terminating NUL, `*bytes` long; lives as long as the fault.
const uint8_t* weft_fault_message(const weft_fault* fault, size_t* bytes);
void weft_fault_delete(weft_fault* fault);

// Engine panics become faults of the call at hand; this keeps their text off standard error.
void weft_engine_quiet_panics();

// Calls `func` on this stack; `values` holds its parameters, then its results. NULL or the fault. A guest
// that suspends during a plain call fails.
weft_fault* weft_call_plain(wasmtime_context_t* store, const wasmtime_func_t* func,
                            wasmtime_val_raw_t* values, size_t count);

// A call on a fiber of its own: (i32, i32, i32) -> i32, (i32) -> i32 or () -> (). NULL where the function is
// of another type. `func` is copied, the store must outlive the fiber.
typedef struct weft_fiber weft_fiber;
weft_fiber* weft_fiber_new3(wasmtime_context_t* store, const wasmtime_func_t* func, uint32_t a, uint32_t b,
                            uint32_t c);
weft_fiber* weft_fiber_new1(wasmtime_context_t* store, const wasmtime_func_t* func, uint32_t a);
weft_fiber* weft_fiber_new0(wasmtime_context_t* store, const wasmtime_func_t* func);
// 0: suspended. 1: ended with `*result`. 2: failed with `*fault`. After 1 and 2 it may only be deleted.
int32_t weft_fiber_poll(weft_fiber* fiber, uint32_t* result, weft_fault** fault);
// A suspended fiber is resumed once more, to unwind.
void weft_fiber_delete(weft_fiber* fiber);
}

#endif  // WEFT_DATAPLANE_HOST_ENGINE_EXT_H_
