/* SPDX-License-Identifier: Apache-2.0 */
/* The messages that weft's benchmark rows exchange, for both sides, native and Wasm: each byte of a payload
   follows from the request's id, and the receiver looks at every one. */
#ifndef WEFT_BENCH_MESSAGE_H_
#define WEFT_BENCH_MESSAGE_H_

#include <stdint.h>
#include <string.h>

enum {
  kBenchAnswerBytes = 64,
  /* Requests above this size are answered first and checked by a call of their own, outside the measured
     interval: their limit, limit/two_memcpy, has no look at 1 MiB in its interval either. */
  kBenchCheckedBytesMax = 64 << 10,
};

/* A message begins with its id; the rest is filled from it. */
typedef struct {
  uint64_t id;
} bench_header;

/* What the request's id holds besides a number. */
#define BENCH_ID_VERIFY (1ULL << 63) /* "Check what you kept of the request with this number." */

static inline unsigned char bench_fill_byte(uint64_t id) {
  return (unsigned char)((id * 0x9d & 0xff) ^ 0x5a);
}

/* Makes `bytes` (at least 8) a message with this id. */
static inline void bench_fill(void* data, uint32_t bytes, uint64_t id) {
  memcpy(data, &id, sizeof id);
  memset((unsigned char*)data + sizeof id, bench_fill_byte(id), bytes - sizeof id);
}

/* 1 where the `bytes` at `data` are what follows the id in the message with this id. */
static inline int bench_check_fill(const void* data, uint32_t bytes, uint64_t id) {
  /* Differences are gathered before the one test, so that the compiler can use whole vectors; bytes is a
     multiple of 8 in every row, and what is left over is looked at one by one. */
  const uint64_t expected = bench_fill_byte(id) * 0x0101010101010101ULL;
  const unsigned char* at = (const unsigned char*)data;
  uint64_t difference = 0;
  const uint32_t words = bytes / 8;
  for (uint32_t word_index = 0; word_index < words; ++word_index) {
    uint64_t word;
    memcpy(&word, at + (size_t)word_index * 8, sizeof word);
    difference |= word ^ expected;
  }
  for (uint32_t i = words * 8; i < bytes; ++i) difference |= (uint64_t)(at[i] ^ (unsigned char)expected);
  return difference == 0;
}

/* 1 where all `bytes` are the message with this id. The second word is looked at by itself, so that the loads
   of the rest stand where messages are copied, in blocks of 16: one that spans two stores waits for both. */
static inline int bench_check(const void* data, uint32_t bytes, uint64_t id) {
  const unsigned char* at = (const unsigned char*)data;
  uint64_t have;
  if (bytes < sizeof have) return 0;
  memcpy(&have, at, sizeof have);
  if (bytes < 2 * sizeof have)
    return have == id && bench_check_fill(at + sizeof have, bytes - sizeof have, id);
  return have == id && bench_check_fill(at + sizeof have, sizeof have, id) &&
         bench_check_fill(at + 2 * sizeof have, bytes - 2 * sizeof have, id);
}

/* What a caller guest is asked for: one block of calls. */
typedef struct {
  uint64_t duration_ns;
  uint64_t warm_up_ns;
  uint64_t period_ns; /* Between the starts of two calls; 0: at once. */
  uint64_t first_id;  /* Ids of this block begin here. */
  uint32_t bytes;     /* Of each request. */
  uint32_t samples_max;
  char callee[48]; /* Namespace and name, with a NUL. */
} bench_order;

/* What it answers, followed by `samples` times 4 bytes: the round trips in ns. */
typedef struct {
  uint64_t samples;
  uint64_t elapsed_ns;
  uint64_t errors;      /* Answers that were not what they had to be. */
  uint64_t last_status; /* Of the last call that failed, or 0. */
} bench_result;

/* What one of several guests that call at once is asked for: one block of an open or a closed loop. */
typedef struct {
  uint64_t warm_up_ns;
  uint64_t duration_ns;
  uint64_t
      mean_period_ns; /* Open loop: mean of the exponential times between sends as intended; 0: closed. */
  uint64_t seed;      /* Of those times. */
  uint64_t first_id;
  uint32_t bytes;
  uint32_t samples_max; /* 0 in a closed loop, which only counts. */
  char callee[48];
} bench_open_order;

/* What it answers, followed by `samples` times 4 bytes: from the intended send to the answer, in ns. */
typedef struct {
  uint64_t calls; /* After the warm-up. */
  uint64_t samples;
  uint64_t elapsed_ns; /* Of `calls`. */
  uint64_t errors;
  uint64_t last_status;
} bench_open_result;

#endif /* WEFT_BENCH_MESSAGE_H_ */
