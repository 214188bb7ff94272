/* SPDX-License-Identifier: Apache-2.0
 * A guest whose start-up never ends. Test of dataplane/host. */
#include "sdk/c/weft_guest.h"

static volatile uint32_t sink;

__attribute__((constructor)) static void hang(void) {
  for (;;) sink++;
}

WEFT_FUNCTION(fn, request) {
  (void)fn;
  return weft_reply_static(request.data, request.size);
}
