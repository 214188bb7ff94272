// SPDX-License-Identifier: Apache-2.0
// Preloaded into a program, moves what it takes for the time of day by WEFT_TEST_SKEW_S seconds. The
// monotonic clock stays, as it does on a machine whose time is set wrongly.
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long Skew(void) {
  const char* text = getenv("WEFT_TEST_SKEW_S");
  return text == NULL ? 0 : atol(text);
}

int clock_gettime(clockid_t clock, struct timespec* time) {
  const int result = (int)syscall(SYS_clock_gettime, clock, time);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) time->tv_sec += Skew();
  return result;
}

int gettimeofday(struct timeval* time, void* zone) {
  const int result = (int)syscall(SYS_gettimeofday, time, zone);
  if (result == 0 && time != NULL) time->tv_sec += Skew();
  return result;
}

time_t time(time_t* out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out != NULL) *out = now.tv_sec;
  return now.tv_sec;
}
