/* SPDX-License-Identifier: Apache-2.0
 * The smallest useful function: answers "Hello, <request>!". docs/first-function.md builds, serves and calls
 * it. */
#include <stdio.h>

#include "sdk/c/weft_guest.h"

WEFT_FUNCTION(fn, request) {
  (void)fn;
  char answer[256];
  int size = snprintf(answer, sizeof answer, "Hello, %.*s!", (int)request.size, (const char*)request.data);
  if (size >= (int)sizeof answer) return WEFT_INVALID_ARGUMENT; /* A name that long is none. */
  return weft_reply(answer, (uint32_t)size);
}
