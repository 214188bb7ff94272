/* SPDX-License-Identifier: Apache-2.0 */
/* One of the callers of weft/guest_to_guest_open_80: sends when a Poisson process says so, which was drawn
   without regard to answers, and counts each latency from the time when the send was due. */
#include <math.h>
#include <time.h>

#include "bench/message.h"
#include "sdk/c/weft_guest.h"

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Suspended meanwhile, so that the others of this host have its thread. */
static void sleep_until(uint64_t due_ns) {
  const struct timespec due = {(time_t)(due_ns / 1000000000u), (long)(due_ns % 1000000000u)};
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
}

/* xorshift64*; a number above 0 and at most 1. */
static double uniform(uint64_t* state) {
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return (double)((*state * 0x2545f4914f6cdd1dull >> 11) + 1) / 9007199254740992.0;
}

static uint32_t call_once(const bench_open_order* order, unsigned char* request, uint64_t number) {
  static unsigned char answer[kBenchAnswerBytes];
  bench_fill(request, order->bytes, number);
  const weft_outcome got = weft_call(order->callee, request, order->bytes, answer, sizeof answer);
  if (got.status != WEFT_OK) return got.status;
  return got.size == sizeof answer && bench_check(answer, sizeof answer, number) ? WEFT_OK : WEFT_DATA_LOSS;
}

static void run_block(const bench_open_order* order, unsigned char* request, bench_open_result* result,
                      uint32_t* samples) {
  const uint64_t start_ns = now_ns();
  uint64_t state = order->seed | 1, number = order->first_id, end_ns = start_ns, due_ns = start_ns;
  do {
    if (order->mean_period_ns != 0) {
      due_ns += (uint64_t)(-log(uniform(&state)) * (double)order->mean_period_ns);
      if (now_ns() < due_ns) sleep_until(due_ns);
    } else {
      due_ns = end_ns;
    }
    const uint32_t status = call_once(order, request, number++);
    end_ns = now_ns();
    if (status != WEFT_OK) {
      ++result->errors;
      result->last_status = status;
      return;
    }
    if (due_ns - start_ns < order->warm_up_ns) continue;
    ++result->calls;
    result->elapsed_ns = end_ns - start_ns - order->warm_up_ns;
    if (result->samples < order->samples_max) samples[result->samples++] = (uint32_t)(end_ns - due_ns);
  } while (due_ns - start_ns < order->duration_ns);
}

WEFT_FUNCTION(fn, request) {
  (void)fn;
  static bench_open_order order; /* Static: the host remembers the callee by the address of its name. */
  if (request.size != sizeof order) return WEFT_INVALID_ARGUMENT;
  memcpy(&order, request.data, sizeof order);
  static unsigned char payload[4096];
  if (order.bytes < sizeof(uint64_t) || order.bytes > sizeof payload ||
      order.callee[sizeof order.callee - 1] != 0)
    return WEFT_INVALID_ARGUMENT;
  static bench_open_result* result;
  static uint32_t result_samples_max;
  if (result == NULL || result_samples_max < order.samples_max) {
    free(result);
    result = malloc(sizeof *result + (size_t)order.samples_max * sizeof(uint32_t));
    result_samples_max = result == NULL ? 0 : order.samples_max;
  }
  if (result == NULL) return WEFT_RESOURCE_EXHAUSTED;
  memset(result, 0, sizeof *result);
  run_block(&order, payload, result, (uint32_t*)(result + 1));
  return weft_reply_static(result, sizeof *result + (uint32_t)result->samples * sizeof(uint32_t));
}
