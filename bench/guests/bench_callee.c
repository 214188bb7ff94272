/* SPDX-License-Identifier: Apache-2.0 */
/* The callee of the guest rows: checks every byte of a request, and answers with 64 bytes that follow from
   its id. A request above kBenchCheckedBytesMax is kept (the row's function is declared `state: keep`) and
   checked by the next call.

   The host gives room once: after a large request it puts small ones into the same room, over the large one's
   first bytes. So these are copied when the request comes, and the rest is looked at where it lies. Should
   the host ever write elsewhere in the room, the check fails; it cannot pass over a byte that it has not
   seen. */
#include "bench/message.h"
#include "sdk/c/weft_guest.h"

static unsigned char kept_head[kBenchAnswerBytes];
static const uint8_t* kept; /* The whole request. Null: none is waiting to be checked. */
static uint32_t kept_size;

static void keep(weft_bytes request) {
  memcpy(kept_head, request.data, sizeof kept_head);
  kept = request.data;
  kept_size = request.size;
}

/* Looks at each byte of the request that was kept, once. */
static int check_kept(uint64_t number) {
  if (kept == NULL) return 0;
  const uint8_t* rest = kept + sizeof kept_head;
  kept = NULL;
  return bench_check(kept_head, sizeof kept_head, number) &&
         bench_check_fill(rest, kept_size - (uint32_t)sizeof kept_head, number);
}

WEFT_FUNCTION(fn, request) {
  (void)fn;
  static unsigned char answer[kBenchAnswerBytes];
  uint64_t id;
  if (request.size < sizeof id) return WEFT_INVALID_ARGUMENT;
  memcpy(&id, request.data, sizeof id);
  const uint64_t number = id & ~BENCH_ID_VERIFY;
  if ((id & BENCH_ID_VERIFY) != 0) {
    if (request.size > sizeof kept_head) return WEFT_INVALID_ARGUMENT;
    if (!check_kept(number)) return WEFT_DATA_LOSS;
  } else if (request.size > kBenchCheckedBytesMax) {
    keep(request);
  } else if (!bench_check(request.data, request.size, id)) {
    return WEFT_DATA_LOSS;
  }
  bench_fill(answer, sizeof answer, number);
  return weft_reply_static(answer, sizeof answer);
}
