/* SPDX-License-Identifier: Apache-2.0
 * Calls a function over and over within one invocation. The request: how often, how many bytes, and the
 * callee's name with a NUL; the answer: the nanoseconds of each call, clock read included, as 32-bit numbers.
 */
#include <wasi/api.h>

#include "sdk/c/weft_guest.h"

enum { COUNT_MAX = 8192, BYTES_MAX = 1 << 20 };

static char name[128];
static uint32_t took_ns[COUNT_MAX];
static uint8_t request_bytes[BYTES_MAX];
static uint8_t room[BYTES_MAX];

/* Straight from the host: the C library would divide it into seconds and nanoseconds first. */
static uint64_t now_ns(void) {
  __wasi_timestamp_t now = 0;
  (void)__wasi_clock_time_get(__WASI_CLOCKID_MONOTONIC, 1, &now);
  return now;
}

WEFT_FUNCTION(fn, request) {
  (void)fn;
  uint32_t count, bytes;
  if (request.size < 9 || request.size - 8 > sizeof name) return WEFT_INVALID_ARGUMENT;
  memcpy(&count, request.data, 4);
  memcpy(&bytes, request.data + 4, 4);
  memcpy(name, request.data + 8, request.size - 8);
  if (count > COUNT_MAX || bytes > BYTES_MAX) return WEFT_INVALID_ARGUMENT;
  for (uint32_t i = 0; i < count; i++) {
    request_bytes[0] = (uint8_t)i;
    const uint64_t begin_ns = now_ns();
    const weft_outcome got = weft_call(name, request_bytes, bytes, room, sizeof room);
    took_ns[i] = (uint32_t)(now_ns() - begin_ns);
    if (got.status != WEFT_OK || got.size != bytes) return WEFT_INTERNAL;
    if (bytes > 0 && room[0] != (uint8_t)(i + 1)) return WEFT_DATA_LOSS;
  }
  return weft_reply_static(took_ns, count * (uint32_t)sizeof took_ns[0]);
}
