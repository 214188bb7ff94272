/* SPDX-License-Identifier: Apache-2.0 */
/* vision/classify: takes a scaled image, reads the digit, has vision/tally count it, and answers with scores,
   digit and count. */
#include "examples/digits/network.h"
#include "sdk/c/weft_guest.h"

WEFT_FUNCTION(fn, request) {
  (void)fn;
  if (request.size != DIGITS_PIXELS) return WEFT_INVALID_ARGUMENT;
  static digits_answer answer;
  answer.digit = (uint32_t)digits_classify(request.data, answer.scores);
  const digits_vote vote = {answer.digit};
  const weft_outcome got = weft_call("vision/tally", &vote, sizeof vote, &answer.count, sizeof answer.count);
  if (got.status != WEFT_OK) return got.status;
  if (got.size != sizeof answer.count) return WEFT_INTERNAL;
  return weft_reply_static(&answer, sizeof answer);
}
