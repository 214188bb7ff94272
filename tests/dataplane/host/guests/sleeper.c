/* SPDX-License-Identifier: Apache-2.0
 * A guest that sleeps for as many milliseconds as the first byte of the request says. Test of dataplane/host.
 */
#include <time.h>

#include "sdk/c/weft_guest.h"

WEFT_FUNCTION(fn, request) {
  (void)fn;
  struct timespec pause = {0, request.size > 0 ? request.data[0] * 1000000l : 0};
  if (nanosleep(&pause, NULL) != 0) return WEFT_INTERNAL;
  return weft_reply_static(request.data, request.size);
}
