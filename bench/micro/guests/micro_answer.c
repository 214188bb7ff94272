/* SPDX-License-Identifier: Apache-2.0
 * Answers with the request, its first byte raised by one: the callee of micro_caller. */
#include "sdk/c/weft_guest.h"

WEFT_FUNCTION(fn, request) {
  (void)fn;
  if (request.size > 0) request.data[0]++;
  return weft_reply_static(request.data, request.size);
}
