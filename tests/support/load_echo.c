/* SPDX-License-Identifier: Apache-2.0
 * A guest that answers the load client as weft-test-echo does: checks the request's pattern, and answers with
 * the id, the number that the host hands to it as its tag, and the pattern. See load_format.h. */
#include "sdk/c/weft_guest.h"

static uint8_t pattern(uint32_t id, uint32_t place) { return (uint8_t)(id * 31 + place * 7 + (id >> 8)); }

WEFT_FUNCTION(fn, request) {
  static uint8_t answer[4096];
  uint32_t id;
  if (request.size < 8 || request.size > sizeof answer) return WEFT_INVALID_ARGUMENT;
  memcpy(&id, request.data, sizeof id);
  for (uint32_t i = sizeof id; i < request.size; i++) {
    if (request.data[i] != pattern(id, i - sizeof id)) return WEFT_DATA_LOSS;
  }
  memcpy(answer, &id, sizeof id);
  memcpy(answer + 4, &fn, sizeof fn);
  for (uint32_t i = 8; i < request.size; i++) answer[i] = pattern(id, i - 8);
  return weft_reply(answer, request.size);
}
