/* SPDX-License-Identifier: Apache-2.0
 *
 * The C interface of a weft guest: a WebAssembly module whose functions other functions call by name.
 * It needs nothing but a C library (wasi-libc's malloc); include it in one source file of the guest.
 * The calling conventions below the surface are described in docs/guest-abi.md.
 *
 * A whole guest that calls another function and answers with what that one said, in upper case:
 *
 *     #include "sdk/c/weft_guest.h"
 *
 *     WEFT_FUNCTION(fn, request) {
 *       (void)fn;
 *       uint8_t answer[256];
 *       weft_outcome got = weft_call("text/trim", request.data, request.size, answer, sizeof answer);
 *       if (got.status != WEFT_OK) return got.status;
 *       for (uint32_t i = 0; i < got.size; i++) {
 *         if (answer[i] >= 'a' && answer[i] <= 'z') answer[i] -= 32;
 *       }
 *       return weft_reply(answer, got.size);
 *     }
 *
 * Build it with
 *     clang-19 --target=wasm32-wasi -mexec-model=reactor -O2 -I<root of weft> upper.c -o upper.wasm
 *
 * An instance handles one call at a time, on one thread. By default each call gets an instance in its initial
 * state; a function declared `state: keep` finds its memory as the call before left it.
 */
#ifndef WEFT_SDK_C_WEFT_GUEST_H_
#define WEFT_SDK_C_WEFT_GUEST_H_

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Status codes: those of gRPC, and two of weft's own that only outcomes carry. */
enum {
  WEFT_OK = 0,
  WEFT_CANCELLED = 1,
  WEFT_UNKNOWN = 2,
  WEFT_INVALID_ARGUMENT = 3,
  WEFT_DEADLINE_EXCEEDED = 4,
  WEFT_NOT_FOUND = 5,
  WEFT_ALREADY_EXISTS = 6,
  WEFT_PERMISSION_DENIED = 7,
  WEFT_RESOURCE_EXHAUSTED = 8,
  WEFT_FAILED_PRECONDITION = 9,
  WEFT_ABORTED = 10,
  WEFT_OUT_OF_RANGE = 11,
  WEFT_UNIMPLEMENTED = 12,
  WEFT_INTERNAL = 13,
  WEFT_UNAVAILABLE = 14,
  WEFT_DATA_LOSS = 15,
  WEFT_UNAUTHENTICATED = 16,
  WEFT_PENDING = 256, /* The call has not finished; `size` is its handle. */
  WEFT_SHORT = 257    /* It succeeded, but the answer did not fit; `size` is its handle for weft_result(). */
};

/* How a call ended: its status, and the size of the answer in the caller's buffer. For a failed call the
 * buffer holds the error's message, cut to fit. */
typedef struct {
  uint32_t status;
  uint32_t size;
} weft_outcome;

/* A request as the handler receives it. The bytes stay valid, and may be overwritten, until the handler
 * returns. */
typedef struct {
  uint8_t* data;
  uint32_t size;
} weft_bytes;

/* ---- What the host provides. The functions further down are more convenient. ---- */
#define WEFT_IMPORT(name) __attribute__((import_module("weft"), import_name(#name)))
WEFT_IMPORT(reply) uint32_t weft_import_reply(const void* data, uint32_t size);
WEFT_IMPORT(call)
uint64_t weft_import_call(const char* name, uint32_t name_size, const void* data, uint32_t size, void* room,
                          uint32_t room_size, int64_t timeout_ns);
WEFT_IMPORT(start)
uint64_t weft_import_start(const char* name, uint32_t name_size, const void* data, uint32_t size, void* room,
                           uint32_t room_size, int64_t timeout_ns);
WEFT_IMPORT(wait) uint64_t weft_import_wait(uint32_t handle);
WEFT_IMPORT(wait_any) uint32_t weft_import_wait_any(const uint32_t* handles, uint32_t count);
WEFT_IMPORT(result) uint64_t weft_import_result(uint32_t handle, void* room, uint32_t room_size);
WEFT_IMPORT(send)
uint32_t weft_import_send(const char* name, uint32_t name_size, const void* data, uint32_t size);
WEFT_IMPORT(deadline) int64_t weft_import_deadline(void);
WEFT_IMPORT(trace) uint32_t weft_import_trace(char* room, uint32_t room_size);
WEFT_IMPORT(log) void weft_import_log(uint32_t level, const char* text, uint32_t size);

static inline weft_outcome weft_outcome_of(uint64_t packed) {
  weft_outcome outcome = {(uint32_t)(packed >> 32), (uint32_t)packed};
  return outcome;
}

/* Answers the call that is being handled. The host copies the bytes after the handler has returned WEFT_OK,
 * so they must outlive it: static, allocated or the request's own, never a local array of the handler. For
 * those use weft_reply(), which keeps a copy. Returns WEFT_OK, or WEFT_OUT_OF_RANGE where the bytes lie
 * outside memory. */
static inline uint32_t weft_reply_static(const void* data, uint32_t size) {
  return weft_import_reply(data, size);
}

/* As weft_reply_static(), of a copy. Every copy of an instance lives in the same buffer. */
static inline uint32_t weft_reply(const void* data, uint32_t size) {
  static uint8_t small[1024];
  static uint8_t* large;
  static uint32_t large_size;
  uint8_t* copy = small;
  if (size > sizeof small) {
    if (size > large_size) {
      uint8_t* grown = (uint8_t*)realloc(large, size);
      if (grown == NULL) return WEFT_RESOURCE_EXHAUSTED;
      large = grown;
      large_size = size;
    }
    copy = large;
  }
  memcpy(copy, data, size);
  return weft_import_reply(copy, size);
}

/* Calls function `name` ("namespace/name") and waits for its answer, which is written to `room`. The call
 * must end within `timeout_ns` (0: as long as the policy and the call being handled allow). The name is best
 * a literal: the host remembers whose name stands at that address. */
static inline weft_outcome weft_call_within(const char* name, const void* data, uint32_t size, void* room,
                                            uint32_t room_size, int64_t timeout_ns) {
  uint64_t packed = weft_import_call(name, (uint32_t)strlen(name), data, size, room, room_size, timeout_ns);
  /* `call` itself never suspends the guest, which makes it cheap; it answers PENDING where the answer is not
   * there within a moment, and only then does the guest pay for being suspended. */
  if ((uint32_t)(packed >> 32) == WEFT_PENDING) packed = weft_import_wait((uint32_t)packed);
  return weft_outcome_of(packed);
}

static inline weft_outcome weft_call(const char* name, const void* data, uint32_t size, void* room,
                                     uint32_t room_size) {
  return weft_call_within(name, data, size, room, room_size, 0);
}

/* Starts a call without waiting. WEFT_PENDING with a handle in `size`, or another status where it failed at
 * once. `room` belongs to the host until weft_wait() or weft_result() has given the outcome. At most 64 calls
 * of an instance may be under way. */
static inline weft_outcome weft_start(const char* name, const void* data, uint32_t size, void* room,
                                      uint32_t room_size, int64_t timeout_ns) {
  return weft_outcome_of(
      weft_import_start(name, (uint32_t)strlen(name), data, size, room, room_size, timeout_ns));
}

/* Waits for the end of a started call, and forgets its handle. */
static inline weft_outcome weft_wait(uint32_t handle) { return weft_outcome_of(weft_import_wait(handle)); }

/* Waits until one of `count` started calls has ended and returns its index; `count` where a handle is
 * unknown. Its outcome is then there for weft_wait() without waiting. */
static inline uint32_t weft_wait_any(const uint32_t* handles, uint32_t count) {
  return weft_import_wait_any(handles, count);
}

/* Fetches an answer that did not fit (WEFT_SHORT with a handle) into a larger room, and forgets the handle.
 * Where it does not fit again, WEFT_SHORT with the size that is needed, and the handle stays good. */
static inline weft_outcome weft_result(uint32_t handle, void* room, uint32_t room_size) {
  return weft_outcome_of(weft_import_result(handle, room, room_size));
}

/* Sends a message that has no answer. WEFT_OK says that it was handed over, not that it arrived. */
static inline uint32_t weft_send(const char* name, const void* data, uint32_t size) {
  return weft_import_send(name, (uint32_t)strlen(name), data, size);
}

/* Nanoseconds that are left to the call being handled; INT64_MAX where it has no deadline, 0 where it has
 * passed. */
static inline int64_t weft_deadline_ns(void) { return weft_import_deadline(); }

/* Writes the W3C `traceparent` of the call being handled, 55 characters and a NUL, to `room`; 0 where the
 * call carries none, else 55. Calls made meanwhile carry the same trace by themselves. */
static inline uint32_t weft_trace(char room[56]) {
  uint32_t size = weft_import_trace(room, 55);
  room[size] = 0;
  return size;
}

enum { WEFT_LOG_DEBUG = 0, WEFT_LOG_INFO = 1, WEFT_LOG_WARNING = 2, WEFT_LOG_ERROR = 3 };

/* Writes a line to the host's log, cut to 1,024 bytes; a call may write 16 lines, further ones are counted
 * only. */
static inline void weft_log(uint32_t level, const char* text) {
  weft_import_log(level, text, (uint32_t)strlen(text));
}

/* ---- What the guest provides. ---- */

/* Defines the handler: WEFT_FUNCTION(fn, request) { ... return status; }. `fn` tells apart the functions of
 * one module: it is the number after '#' where the module was named (`--serve text/upper=text.wasm#1`), else
 * 0. */
#define WEFT_FUNCTION(fn, request)                                                              \
  static uint32_t weft_user_handler(uint32_t fn, weft_bytes request);                           \
  __attribute__((export_name("weft_handle"))) uint32_t weft_handle(uint32_t number, void* data, \
                                                                   uint32_t size) {             \
    weft_bytes bytes = {(uint8_t*)data, size};                                                  \
    return weft_user_handler(number, bytes);                                                    \
  }                                                                                             \
  static uint32_t weft_user_handler(uint32_t fn, weft_bytes request)

#ifndef WEFT_GUEST_OWN_ALLOC
/* Where the next request goes. An instance handles one call at a time, so one buffer serves them all. */
__attribute__((export_name("weft_alloc"))) void* weft_alloc(uint32_t size) {
  static uint8_t small[2048] __attribute__((aligned(16)));
  static uint8_t* large;
  static uint32_t large_size;
  if (size <= sizeof small) return small;
  if (size > large_size) {
    free(large); /* Not realloc: the old bytes are of no use. */
    large = (uint8_t*)malloc(size);
    large_size = large == NULL ? 0 : size;
  }
  return large;
}
#endif

#ifdef __cplusplus
}
#endif

#endif /* WEFT_SDK_C_WEFT_GUEST_H_ */
