/* SPDX-License-Identifier: Apache-2.0
 * A guest that calls others. The request is a command byte, a number, the name of a function, a NUL and a
 * payload. Test of dataplane/host. */
#include "sdk/c/weft_guest.h"

static char name[128];
static uint8_t room[4][256];
static uint8_t wide_room[1024];

/* Calls `count` times at once and sums up the first bytes of the answers in the order in which they come. */
static uint32_t fan_out(uint32_t count, const uint8_t* payload, uint32_t size) {
  uint32_t handles[4];
  uint8_t order[5] = {0};
  uint32_t left = count;
  for (uint32_t i = 0; i < count; i++) {
    weft_outcome started = weft_start(name, payload + i, size - i, room[i], sizeof room[i], 0);
    if (started.status != WEFT_PENDING) return started.status;
    handles[i] = started.size;
  }
  while (left > 0) {
    uint32_t at = weft_wait_any(handles, left);
    if (at >= left) return WEFT_INTERNAL;
    weft_outcome got = weft_wait(handles[at]);
    if (got.status != WEFT_OK) return got.status;
    order[count - left] = room[0][0]; /* Overwritten below; keeps the compiler honest about `room`. */
    for (uint32_t i = 0; i < 4; i++) {
      if (room[i][0] != 0) {
        order[count - left] = room[i][0];
        room[i][0] = 0;
        break;
      }
    }
    handles[at] = handles[--left];
  }
  return weft_reply(order, count);
}

/* Fetches an answer that does not fit, in a second step. */
static uint32_t fetch_long(const uint8_t* payload, uint32_t size) {
  weft_outcome got = weft_call(name, payload, size, room[0], 4);
  if (got.status != WEFT_SHORT) return WEFT_INTERNAL;
  uint32_t handle = got.size;
  got = weft_result(handle, NULL, 0);
  if (got.status != WEFT_SHORT) return WEFT_INTERNAL;
  uint8_t* large = malloc(got.size);
  got = weft_result(handle, large, got.size);
  if (got.status != WEFT_OK) return got.status;
  if (weft_result(handle, large, got.size).status != WEFT_NOT_FOUND) return WEFT_INTERNAL;
  return weft_reply_static(large, got.size);
}

/* Every way of handing the host a bad address or handle. Answers with the number of ways that were refused.
 */
static uint32_t misuse(const uint8_t* payload, uint32_t size) {
  const uint32_t bad = 0xfffffff0u;
  uint32_t refused = 0;
  uint32_t stale[2] = {0x12345678u, 0xffffffffu};
  refused += weft_outcome_of(weft_import_call((char*)bad, 64, payload, size, room, 4, 0)).status ==
             WEFT_OUT_OF_RANGE;
  refused +=
      weft_outcome_of(weft_import_call(name, 500, payload, size, room, 4, 0)).status == WEFT_OUT_OF_RANGE;
  refused += weft_call(name, (void*)bad, 64, room, 4).status == WEFT_OUT_OF_RANGE;
  refused += weft_call(name, payload, size, (void*)bad, 64).status == WEFT_OUT_OF_RANGE;
  refused += weft_send(name, (void*)bad, 64) == WEFT_OUT_OF_RANGE;
  refused += weft_call("no name", payload, size, room, 4).status == WEFT_INVALID_ARGUMENT;
  refused += weft_wait(stale[0]).status == WEFT_NOT_FOUND;
  refused += weft_wait_any(stale, 2) == 2;
  refused += weft_wait_any((uint32_t*)bad, 2) == 2;
  refused += weft_wait_any(stale, 1000) == 1000;
  refused += weft_result(stale[1], room, 4).status == WEFT_NOT_FOUND;
  weft_import_log(0, (char*)bad, 64);
  refused += weft_import_trace((char*)bad, 64) == 0;
  return weft_reply(&refused, sizeof refused);
}

WEFT_FUNCTION(fn, request) {
  (void)fn;
  if (request.size < 3) return WEFT_INVALID_ARGUMENT;
  const uint8_t command = request.data[0];
  const uint8_t number = request.data[1];
  const size_t name_size = strnlen((char*)request.data + 2, request.size - 2);
  if (name_size + 1 > sizeof name || 3 + name_size > request.size) return WEFT_INVALID_ARGUMENT;
  memcpy(name, request.data + 2, name_size + 1);
  const uint8_t* payload = request.data + 3 + name_size;
  const uint32_t size = request.size - 3 - (uint32_t)name_size;
  weft_outcome got;
  switch (command) {
    case 'c':
      got = weft_call_within(name, payload, size, room[0], sizeof room[0], number * 1000000ll);
      weft_reply(room[0], got.size);
      return got.status;
    case 'z': /* How long the answer is; one's own error would be cut again. */
      got = weft_call(name, payload, size, wide_room, sizeof wide_room);
      return weft_reply(&got.size, sizeof got.size);
    case 'f':
      return fan_out(number, payload, size);
    case 'l':
      return fetch_long(payload, size);
    case 'm':
      return misuse(payload, size);
    case 's':
      return weft_send(name, payload, size);
    case 'r': /* Itself, one level deeper, until something refuses. */
      got = weft_call(name, request.data, request.size, room[0], sizeof room[0]);
      if (got.status != WEFT_OK) return weft_reply(&got.status, 4);
      return weft_reply(room[0], got.size);
    case 'o': /* Leaves calls behind: the host must not write into a room that is gone. */
      for (uint32_t i = 0; i < 4; i++) weft_start(name, payload, size, room[i], sizeof room[i], 0);
      return WEFT_OK;
    case 't':
      weft_start(name, payload, size, room[0], sizeof room[0], 0);
      __builtin_trap();
    case 'x': { /* More calls than an instance may have. */
      uint32_t started = 0;
      while (weft_start(name, payload, size, room[0], sizeof room[0], 0).status == WEFT_PENDING) started++;
      return weft_reply(&started, sizeof started);
    }
    default:
      return WEFT_UNIMPLEMENTED;
  }
}
