/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * XDP program on the interface that carries weft's packets between nodes: what is for weft, well formed, of a
 * known key and within that key's rate goes to the AF_XDP socket of the queue it came in on; what is for weft
 * and is not so is dropped and counted; all else is the kernel's. weft-control loads and attaches it
 * (control/bpf). It decides nothing by itself that the tag does not decide again: it only keeps floods off
 * the workers.
 */
#include "bpf/abi/steer.h"

#include <bpf/bpf_helpers.h>
#include <linux/bpf.h>

#include "bpf/lib/bucket.h"
#include "bpf/lib/datagram.h"
#include "bpf/lib/frame.h"

char _license[] SEC("license") = "GPL";

const volatile struct weft_steer_config weft_config = {.port_be = WEFT_BE16(WEFT_STEER_PORT_DEFAULT)};

/*
 * A variable, since its address then is a constant of the program. A lookup in a map of its own took its key
 * from the stack, which costs a barrier against speculation where the program is loaded without CAP_PERFMON,
 * or from the packet, which was written for it and mended after.
 */
struct weft_steer_table weft_keys;

/* One entry for each possible CPU; the loader sets how many. */
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct weft_steer_drops);
} weft_drops SEC(".maps");

/* Under the name that libxdp and DPDK look for. */
struct {
  __uint(type, BPF_MAP_TYPE_XSKMAP);
  __uint(max_entries, WEFT_STEER_SOCKETS_MAX);
  __type(key, __u32);
  __type(value, __u32);
} xsks_map SEC(".maps");

WEFT_INLINE struct weft_steer_key* entry_of(__u32 key_id) {
  return &weft_keys.keys[key_id & (WEFT_STEER_KEYS - 1)];
}

WEFT_INLINE int take_token(__u32 key_id) {
  struct weft_steer_key* const key = entry_of(key_id);
  if (!weft_key_is(key, key_id)) return weft_keys.complete ? -WEFT_DROP_UNKNOWN_KEY : WEFT_PASS;
  if (weft_bucket_take(key)) return WEFT_TAKE;
  if (weft_bucket_refill(key, bpf_ktime_get_coarse_ns()) && weft_bucket_take(key)) return WEFT_TAKE;
  return -WEFT_DROP_RATE_LIMITED;
}

/*
 * Charges the key of that id (0 is no key's), or this CPU's row where there is none. A function of its own,
 * which the verifier looks at once and for any reason: inlined, the index is another constant on each way
 * there, and 6.1 and later refuse that without CAP_PERFMON ("tried to add from different maps, paths or
 * scalars").
 */
__attribute__((noinline)) int count_drop(__u32 key_id, __u32 reason) {
  reason &= WEFT_STEER_REASONS - 1;
  struct weft_steer_key* const key = entry_of(key_id);
  if (weft_key_is(key, key_id)) {
    __sync_fetch_and_add(&key->drops[reason], 1);
    return 0;
  }
  const __u32 cpu = bpf_get_smp_processor_id();
  struct weft_steer_drops* const row = bpf_map_lookup_elem(&weft_drops, &cpu);
  if (row) ++row->drops[reason];
  return 0;
}

WEFT_INLINE int drop(__u32 key_id, int verdict) {
  count_drop(key_id, -verdict);
  return XDP_DROP;
}

/* For a packet that may be of a key in use, of which this table has not been told yet: the tag decides. */
WEFT_INLINE int leave(void) {
  count_drop(0, WEFT_DROP_NO_KEYS);
  return XDP_PASS;
}

/* An AF_XDP socket receives only from its own queue; a redirect to another queue's socket vanishes. */
WEFT_INLINE int redirect(__u32 socket, __u32 key_id) {
  const long action = bpf_redirect_map(&xsks_map, socket, XDP_PASS);
  if (WEFT_UNLIKELY(action != XDP_REDIRECT)) count_drop(key_id, WEFT_DROP_NO_SOCKET);
  return (int)action;
}

/*
 * Whether the engine inside a host of that slot has a socket on that queue. A function of its own, and not
 * static: else the compiler knows that a slot is small and leaves out the mask, and the verifier (6.18),
 * which does not, refuses ("unbounded memory access").
 */
__attribute__((noinline)) int leads_inside(__u32 slot, __u32 queue) {
  return weft_keys.inside_queues[slot & WEFT_STEER_INSIDE_MAX] == queue + 1;
}

/* What steer_any says of a packet that may be for an engine inside a host. No XDP action. */
#define STEER_INSIDE 100

/* For all packets but the plain good ones: what each is, and what becomes of it. A function of its own, so
 * that a good packet's way has nothing to jump over and few registers to save. */
static __attribute__((noinline)) int steer_any(struct xdp_md* ctx) {
  struct weft_cursor cursor = {(const __u8*)(long)ctx->data, (const __u8*)(long)ctx->data_end};
  __u32 ip_bytes = 0;
  if (weft_find_udp(&cursor, &ip_bytes) != WEFT_TAKE) return XDP_PASS;
  const __u32 slot = weft_slot_of(&cursor, weft_config.port_be);
  if (slot != 0) return slot <= WEFT_STEER_INSIDE_MAX ? STEER_INSIDE : XDP_PASS;

  __u32 bytes = 0;
  int verdict = weft_parse_udp(&cursor, ip_bytes, &bytes);
  if (verdict == WEFT_TAKE) verdict = weft_check_length(bytes);
  if (!weft_holds_header(&cursor)) return drop(0, verdict == WEFT_TAKE ? -WEFT_DROP_BAD_LENGTH : verdict);

  const struct weft_packet_header* const header = weft_header_at(&cursor);
  const __u32 key_id = weft_key_id_of(header);
  if (verdict == WEFT_TAKE) verdict = weft_check_header(header);
  if (verdict == WEFT_TAKE) verdict = take_token(key_id);
  if (verdict == WEFT_PASS) return leave();
  if (verdict != WEFT_TAKE) return drop(key_id, verdict);
  return redirect(ctx->rx_queue_index, key_id);
}

/* The same for one to the port of an engine inside a host, whose keys are in no table: it opens or drops what
 * comes. Apart from the other, which has no register to spare: 6.1 refuses what is kept where a pointer was.
 */
static __attribute__((noinline)) int steer_inside(struct xdp_md* ctx) {
  struct weft_cursor cursor = {(const __u8*)(long)ctx->data, (const __u8*)(long)ctx->data_end};
  __u32 ip_bytes = 0;
  if (weft_find_udp(&cursor, &ip_bytes) != WEFT_TAKE) return XDP_PASS;
  const __u32 slot = weft_slot_of(&cursor, weft_config.port_be);
  if (!leads_inside(slot, ctx->rx_queue_index)) return XDP_PASS;

  __u32 bytes = 0;
  int verdict = weft_parse_udp(&cursor, ip_bytes, &bytes);
  if (verdict == WEFT_TAKE) verdict = weft_check_length(bytes);
  if (verdict == WEFT_TAKE && !weft_holds_header(&cursor)) verdict = -WEFT_DROP_BAD_LENGTH;
  if (verdict == WEFT_TAKE) verdict = weft_check_header(weft_header_at(&cursor));
  if (verdict != WEFT_TAKE) return drop(0, verdict);
  return redirect(WEFT_STEER_QUEUES_MAX + slot - 1, 0);
}

SEC("xdp")
int weft_steer(struct xdp_md* ctx) {
  const struct weft_cursor cursor = {(const __u8*)(long)ctx->data, (const __u8*)(long)ctx->data_end};
  if (WEFT_LIKELY(weft_is_plain(&cursor, weft_config.port_be))) {
    const __u32 key_id = weft_plain_key_id(&cursor);
    struct weft_steer_key* const key = entry_of(key_id);
    if (WEFT_LIKELY(weft_key_is(key, key_id) && weft_bucket_take(key)))
      return redirect(ctx->rx_queue_index, key_id);
  }
  const int action = steer_any(ctx);
  return action == STEER_INSIDE ? steer_inside(ctx) : action;
}
