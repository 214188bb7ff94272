/* SPDX-License-Identifier: Apache-2.0 */
/* vision/scale: takes an image of 64 bytes, stretches it, and answers with what vision/classify says of it.
 */
#include "examples/digits/network.h"
#include "sdk/c/weft_guest.h"

WEFT_FUNCTION(fn, request) {
  (void)fn;
  if (request.size != DIGITS_PIXELS) return WEFT_INVALID_ARGUMENT;
  uint8_t scaled[DIGITS_PIXELS];
  digits_scale(request.data, scaled);
  static digits_answer answer;
  const weft_outcome got = weft_call("vision/classify", scaled, sizeof scaled, &answer, sizeof answer);
  if (got.status != WEFT_OK) return got.status;
  if (got.size != sizeof answer) return WEFT_INTERNAL;
  return weft_reply_static(&answer, sizeof answer);
}
