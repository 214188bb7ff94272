/* SPDX-License-Identifier: Apache-2.0 */
/* The callee of the guest rows: checks every byte of a request, and answers with 64 bytes that follow from
   its id. A request above kBenchCheckedBytesMax is kept (the row's function is declared `state: keep`) and
   checked by the next call. */
#include "bench/message.h"
#include "sdk/c/weft_guest.h"

static const uint8_t* kept;
static uint32_t kept_size;

WEFT_FUNCTION(fn, request) {
  (void)fn;
  static unsigned char answer[kBenchAnswerBytes];
  uint64_t id;
  if (request.size < sizeof id) return WEFT_INVALID_ARGUMENT;
  memcpy(&id, request.data, sizeof id);
  const uint64_t number = id & ~BENCH_ID_VERIFY;
  if ((id & BENCH_ID_VERIFY) != 0) {
    if (kept == NULL || !bench_check(kept, kept_size, number)) return WEFT_DATA_LOSS;
    kept = NULL;
  } else if (request.size > kBenchCheckedBytesMax) {
    kept = request.data; /* The SDK's buffer for large requests stays as it is while small ones come in. */
    kept_size = request.size;
  } else if (!bench_check(request.data, request.size, id)) {
    return WEFT_DATA_LOSS;
  }
  bench_fill(answer, sizeof answer, number);
  return weft_reply_static(answer, sizeof answer);
}
