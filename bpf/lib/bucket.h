/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The token bucket of one key. It looks at the clock only when it is empty, so that most packets pay for a
 * comparison and an addition. The clock is the kernel's coarse one, which moves once a tick (1 to 10 ms): a
 * bucket that held less than a tick's worth of tokens would starve its key between two ticks, see
 * WEFT_STEER_BURST_NS. A bucket that was idle hands out what it still holds and then a whole burst: two
 * bursts at most.
 */
#ifndef WEFT_BPF_LIB_BUCKET_H_
#define WEFT_BPF_LIB_BUCKET_H_

#include "bpf/abi/steer.h"
#include "bpf/lib/compiler.h"

#define WEFT_NS_PER_SECOND 1000000000ull

/* Takes one token; 0 where there is none. */
WEFT_INLINE int weft_bucket_take(struct weft_steer_key* key) {
  if (WEFT_UNLIKELY(key->taken >= key->limit)) return 0;
  ++key->taken;
  return 1;
}

/* Adds what an empty bucket has earned up to `now_ns`, of the coarse clock; what is less than a token stays
 * in the time for the next look. Whether there is a token now. */
WEFT_INLINE int weft_bucket_refill(struct weft_steer_key* key, __u64 now_ns) {
  /* Another CPU, a tick ahead, may have refilled it meanwhile. */
  if (now_ns <= key->refilled_ns) return 0;
  const __u64 elapsed_ns = now_ns - key->refilled_ns;
  if (elapsed_ns >= key->full_ns) {
    key->refilled_ns = now_ns;
    key->limit = key->taken + key->burst_packets;
    return key->burst_packets != 0;
  }
  /* Less than a full bucket, so the product is below burst_packets * 10^9, which is asked to fit. */
  const __u64 earned = elapsed_ns * key->packets_per_second / WEFT_NS_PER_SECOND;
  if (earned == 0) return 0;
  key->refilled_ns += earned * WEFT_NS_PER_SECOND / key->packets_per_second;
  key->limit = key->taken + earned;
  return 1;
}

#endif /* WEFT_BPF_LIB_BUCKET_H_ */
