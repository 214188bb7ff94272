/* SPDX-License-Identifier: Apache-2.0
 * A leaf guest that does what the first byte of the request says, well or badly. Test of dataplane/host. */
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "sdk/c/weft_guest.h"

static uint32_t calls; /* Shows whether memory lives on. */
static volatile uint32_t sink;

static uint32_t deeper(uint32_t n) {
  volatile uint32_t here[16];
  if (n == 0x80000000u) return 1; /* Never: from here on n is odd. */
  here[n % 16] = n;
  return deeper(n + here[n % 16] + 1) + here[0];
}

/* Frames of calls alone, nothing of them in linear memory. */
static uint32_t nested(uint32_t n) {
  if (n == 0) return 0;
  sink = n;
  const uint32_t below = nested(n - 1);
  sink = below;
  return below + 1;
}

static uint32_t nest(uint32_t n) {
  const uint32_t depth = nested(n);
  return weft_reply(&depth, sizeof depth);
}

static uint32_t fill_memory(void) {
  uint32_t taken = 0;
  for (;;) {
    uint8_t* block = malloc(1 << 20);
    if (block == NULL) break;
    memset(block, 1, 1 << 20);
    sink += block[taken & 0xfffff];
    taken++;
  }
  return weft_reply(&taken, sizeof taken); /* How many MiB there were. */
}

static uint32_t spin_ms(uint32_t ms) {
  struct timespec begin, now;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  do {
    clock_gettime(CLOCK_MONOTONIC, &now);
  } while ((now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000 < (long)ms);
  return WEFT_OK;
}

static uint32_t say_a_lot(void) {
  for (int i = 0; i < 100; i++) {
    printf("line %d\n", i);
    fflush(stdout);
  }
  weft_log(WEFT_LOG_ERROR, "not written any more");
  return WEFT_OK;
}

static uint32_t say_behind_empty_lines(uint32_t count) {
  static char text[32 * 1024];
  memset(text, '\n', count);
  memcpy(text + count, "end\n", 4);
  return write(1, text, count + 4) == (ssize_t)count + 4 ? WEFT_OK : WEFT_INTERNAL;
}

WEFT_FUNCTION(fn, request) {
  calls++;
  if (request.size == 0) return weft_reply(NULL, 0);
  uint32_t number = 0;
  if (request.size >= 5) memcpy(&number, request.data + 1, 4);
  switch (request.data[0]) {
    case 'e':
      return weft_reply_static(request.data, request.size);
    case 'c':
      return weft_reply(&calls, sizeof calls);
    case 'f':
      weft_reply("no such thing", 13);
      return WEFT_NOT_FOUND;
    case 'F':
      weft_reply_static(request.data, request.size);
      return WEFT_NOT_FOUND;
    case 'n':
      return weft_reply(&fn, sizeof fn);
    case 'q':
      return 4711; /* No status. */
    case 't':
      __builtin_trap();
    case 'l':
      for (;;) sink++;
    case 's':
      return deeper(number);
    case 'k':
      return nest(number);
    case 'm':
      return fill_memory();
    case 'o':
      return weft_reply_static((void*)0xfffffff0u, 0x20); /* Beyond memory, and wrapping. */
    case 'g':
      return weft_reply_static(calloc(1, number), number);
    case 'r':
      exit(3);
    case 'p':
      return say_a_lot();
    case 'b':
      return say_behind_empty_lines(number);
    case 'w':
      return spin_ms(number);
    case 'd': {
      int64_t left_ns = weft_deadline_ns();
      return weft_reply(&left_ns, sizeof left_ns);
    }
    case 'a': {
      char trace[56];
      return weft_reply(trace, weft_trace(trace));
    }
    default:
      return WEFT_UNIMPLEMENTED;
  }
}
