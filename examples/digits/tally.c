/* SPDX-License-Identifier: Apache-2.0 */
/* vision/tally: counts the digits that it is told of. Declared `state: keep`, so that its memory lasts. */
#include "examples/digits/network.h"
#include "sdk/c/weft_guest.h"

static uint32_t counts[DIGITS_CLASSES];

WEFT_FUNCTION(fn, request) {
  (void)fn;
  digits_vote vote;
  if (request.size != sizeof vote) return WEFT_INVALID_ARGUMENT;
  memcpy(&vote, request.data, sizeof vote);
  if (vote.digit >= DIGITS_CLASSES) return WEFT_OUT_OF_RANGE;
  ++counts[vote.digit];
  return weft_reply_static(&counts[vote.digit], sizeof counts[0]);
}
