/* SPDX-License-Identifier: Apache-2.0 */
/* The caller of the guest rows: makes one block of calls within one long invocation, reads the clock right
   around each call import, and answers with all its samples. */
#include <time.h>

#include "bench/message.h"
#include "sdk/c/weft_guest.h"

__attribute__((import_module("wasi_snapshot_preview1"), import_name("clock_time_get"))) uint32_t
wasi_clock_time_get(uint32_t clock, uint64_t precision, uint64_t* ns);

/* Straight from the import: libc's clock_gettime would add a division and a copy to every sample. */
static inline uint64_t now_ns(void) {
  static uint64_t ns;
  wasi_clock_time_get(1 /* monotonic */, 1, &ns);
  return ns;
}

/* What weft_call does with a literal name: its length is known before. */
static inline weft_outcome call_named(const char* name, uint32_t name_size, const void* data, uint32_t size,
                                      void* room, uint32_t room_size) {
  uint64_t packed = weft_import_call(name, name_size, data, size, room, room_size, 0);
  if ((uint32_t)(packed >> 32) == WEFT_PENDING) packed = weft_import_wait((uint32_t)packed);
  return weft_outcome_of(packed);
}

static uint32_t callee_size; /* Of the block's callee's name. */

/* Calls once; 0 where the answer was what it had to be. */
static uint32_t call_once(const char* callee, const void* request, uint32_t bytes, uint64_t number,
                          uint64_t* begin_ns, uint64_t* end_ns) {
  static unsigned char answer[kBenchAnswerBytes] __attribute__((aligned(64)));
  *begin_ns = now_ns();
  const weft_outcome got = call_named(callee, callee_size, request, bytes, answer, sizeof answer);
  *end_ns = now_ns();
  if (got.status != WEFT_OK) return got.status;
  return got.size == sizeof answer && bench_check(answer, sizeof answer, number) ? WEFT_OK : WEFT_DATA_LOSS;
}

/* Has the callee check the large request that it answered last. */
static uint32_t verify(const char* callee, uint64_t number) {
  static unsigned char request[kBenchAnswerBytes];
  uint64_t begin_ns, end_ns;
  bench_fill(request, sizeof request, number | BENCH_ID_VERIFY);
  return call_once(callee, request, sizeof request, number, &begin_ns, &end_ns);
}

/* Makes small calls until one comes back at the pace of two sides that poll, so that the next call finds both
   awake, as the sides of limit/two_memcpy are: looking at 1 MiB takes the callee longer than the caller
   polls, and when that has been woken the callee sleeps in its turn. */
static uint32_t wake_both(const char* callee, uint64_t number) {
  static unsigned char request[kBenchAnswerBytes];
  const uint64_t awake_ns = 5000;
  uint64_t begin_ns = 0, end_ns = awake_ns;
  uint32_t status = WEFT_OK;
  for (int i = 0; i < 32 && status == WEFT_OK && end_ns - begin_ns >= awake_ns; ++i) {
    bench_fill(request, sizeof request, number);
    status = call_once(callee, request, sizeof request, number, &begin_ns, &end_ns);
  }
  return status;
}

static void run_block(const bench_order* order, unsigned char* request, bench_result* result,
                      uint32_t* samples) {
  const uint64_t start_ns = now_ns();
  uint64_t number = order->first_id, first_ns = 0, due_ns = start_ns, begin_ns, end_ns = start_ns;
  const int large = order->bytes > kBenchCheckedBytesMax;
  uint32_t status = WEFT_OK;
  while (status == WEFT_OK) {
    bench_fill(request, order->bytes, number);
    if (order->period_ns != 0) {
      for (due_ns += order->period_ns; now_ns() < due_ns;) {
      }
    }
    if (large && number != order->first_id) status = verify(order->callee, number - 1);
    if (large && status == WEFT_OK) status = wake_both(order->callee, number);
    if (status == WEFT_OK) {
      status = call_once(order->callee, request, order->bytes, number++, &begin_ns, &end_ns);
    }
    if (status != WEFT_OK) break;
    if (begin_ns - start_ns >= order->warm_up_ns) {
      if (result->samples == 0) first_ns = begin_ns;
      samples[result->samples++] = (uint32_t)(end_ns - begin_ns);
      result->elapsed_ns = end_ns - first_ns;
    }
    if (end_ns - start_ns >= order->duration_ns || result->samples == order->samples_max) break;
  }
  if (status == WEFT_OK && large) status = verify(order->callee, number - 1);
  if (status == WEFT_OK) return;
  ++result->errors;
  result->last_status = status;
}

WEFT_FUNCTION(fn, request) {
  (void)fn;
  static bench_order order; /* Static: the host remembers the callee by the address of its name. */
  if (request.size != sizeof order) return WEFT_INVALID_ARGUMENT;
  memcpy(&order, request.data, sizeof order);
  if (order.bytes < sizeof(uint64_t) || order.callee[sizeof order.callee - 1] != 0)
    return WEFT_INVALID_ARGUMENT;
  /* Kept from one invocation to the next, since the function is declared `state: keep`. */
  static unsigned char* payload;
  static uint32_t payload_size;
  static bench_result* result;
  static uint32_t result_samples_max;
  if (payload_size < order.bytes) {
    free(payload);
    payload = malloc(order.bytes);
    payload_size = payload == NULL ? 0 : order.bytes;
  }
  if (result_samples_max < order.samples_max) {
    free(result);
    result = malloc(sizeof *result + (size_t)order.samples_max * sizeof(uint32_t));
    result_samples_max = result == NULL ? 0 : order.samples_max;
  }
  if (payload == NULL || result == NULL) return WEFT_RESOURCE_EXHAUSTED;
  callee_size = (uint32_t)strlen(order.callee);
  memset(result, 0, sizeof *result);
  run_block(&order, payload, result, (uint32_t*)(result + 1));
  return weft_reply_static(result, sizeof *result + (uint32_t)result->samples * sizeof(uint32_t));
}
