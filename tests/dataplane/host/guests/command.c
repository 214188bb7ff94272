/* SPDX-License-Identifier: Apache-2.0
 * A command, and a function beside it: what a module without weft's handler may do. Test of dataplane/host.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile unsigned sink;
static void* volatile block;

__attribute__((export_name("add"))) long long add(int a, long long b) { return a + b; }

__attribute__((export_name("half"))) double half(double a) { return a / 2; }

int main(int argc, char** argv) {
  const char* what = argc > 1 ? argv[1] : "";
  if (strcmp(what, "exit") == 0) {
    fprintf(stderr, "this is why\n");
    printf("before");
    return 3;
  }
  if (strcmp(what, "trap") == 0) __builtin_trap();
  if (strcmp(what, "spin") == 0) {
    for (;;) sink++;
  }
  if (strcmp(what, "sleep") == 0) sleep(3600);
  if (strcmp(what, "both") == 0) { /* For 65 ms, asleep or not for no more than 40 each. */
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const long long end = now.tv_sec * 1000000000LL + now.tv_nsec + 65000000;
    usleep(40000);
    do {
      clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec * 1000000000LL + now.tv_nsec < end);
    return 0;
  }
  if (strcmp(what, "much") == 0) {
    for (;;) puts("more and more");
  }
  if (strcmp(what, "memory") == 0) {
    block = malloc(32 << 20);
    return block == NULL ? 4 : 0;
  }
  for (int i = 0; i < argc; ++i) printf("%s ", argv[i]);
  const char* value = getenv("NAME");
  printf("NAME=%s", value == NULL ? "none" : value);
  return 0;
}
