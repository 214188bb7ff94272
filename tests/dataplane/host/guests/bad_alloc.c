/* SPDX-License-Identifier: Apache-2.0
 * A guest whose weft_alloc misbehaves by the size asked for. Test of dataplane/host. */
#define WEFT_GUEST_OWN_ALLOC
#include "sdk/c/weft_guest.h"

static uint8_t room[4096];

__attribute__((export_name("weft_alloc"))) void* weft_alloc(uint32_t size) {
  switch (size) {
    case 2001:
      return NULL;
    case 2002:
      return (void*)0xffffffffu;
    case 2003:
      __builtin_trap();
    case 2004:
      weft_wait(1);
      return room; /* Suspends where it must not. */
    case 2005:
      return weft_call("demo/other", room, 1, room, 1).status == WEFT_FAILED_PRECONDITION ? room : NULL;
    default:
      return room;
  }
}

WEFT_FUNCTION(fn, request) {
  (void)fn;
  return weft_reply_static(request.data, request.size);
}
