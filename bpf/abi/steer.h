/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The maps of the XDP program `steer`, one contract for the program (C), weft-control, which makes and pins
 * them, and weftd, which maps the key table and the drops into its memory and puts its sockets into the
 * XSKMAP. Sizes and offsets are asserted at the end; a change of any of them changes the layout that is
 * pinned beside the maps.
 */
#ifndef WEFT_BPF_ABI_STEER_H_
#define WEFT_BPF_ABI_STEER_H_

#include <linux/types.h>

#include "bpf/abi/drop_reason.h"
#include "bpf/abi/packet.h"

/* UDP port of weft where nobody chose another. */
#define WEFT_STEER_PORT_DEFAULT 4810
/* Entries of the key table, a power of two: 768 KiB, and as many as weftd deals out. */
#define WEFT_STEER_KEYS 4096
/* Receive queues that an interface can have at all; each may have a socket, under its number, in the XSKMAP
 * `xsks_map`. */
#define WEFT_STEER_QUEUES_MAX 4096
/* Engines inside hosts: the one of slot n, from 1 on, has the UDP port behind weft's own by n, and its
 * socket, if it has one, stands behind those of the queues: entry WEFT_STEER_QUEUES_MAX + n - 1. */
#define WEFT_STEER_INSIDE_MAX 15
#define WEFT_STEER_SOCKETS_MAX (WEFT_STEER_QUEUES_MAX + WEFT_STEER_INSIDE_MAX)
/* What a key's bucket holds, as time at its rate. The program reads the kernel's coarse clock, which moves
 * once a tick: every 4 ms on most kernels, every 10 ms where HZ is 100. */
#define WEFT_STEER_BURST_NS 10000000ull
/* Counters in a row, one for each number in drop_reason.h and some to come. */
#define WEFT_STEER_REASONS 16

/*
 * An entry of the table `weft_keys`; the low bits of a key id are its index. Its one owner in user space
 * stores the fields of the first group through its mapping, key_id last (release) for a new key and first for
 * one that goes. The program writes the second and third group.
 *
 * Tokens left are `limit - taken`. Where two queues carry packets of one key their CPUs race, on purpose: the
 * worst result is a token spent twice or a refill granted twice, so a bound at twice the rate, and `taken`
 * short by as much. Drops are added atomically and are exact.
 */
struct weft_steer_key {
  __u32 key_id;             /* 0: free */
  __u32 reserved_flags;     /* zero */
  __u64 packets_per_second; /* tokens earned in a second */
  __u64 burst_packets;      /* tokens that the bucket holds */
  __u64 full_ns;            /* in which an empty bucket earns them all */

  __u64 taken;       /* packets that found a token */
  __u64 limit;       /* what `taken` may grow to without a look at the clock */
  __u64 refilled_ns; /* coarse CLOCK_MONOTONIC up to which tokens have been earned */
  __u64 reserved;    /* zero */

  __u64 drops[WEFT_STEER_REASONS]; /* by enum weft_drop_reason */
};

/*
 * The table `weft_keys`: the program's only variable, so all of the map `.bss`, which is made with
 * BPF_F_MMAPABLE. A table that was just made holds none of the keys that are in use already: until its owner
 * has said that it holds them all, the program leaves packets of keys that are not in it to the kernel, as
 * before it was attached.
 */
struct weft_steer_table {
  struct weft_steer_key keys[WEFT_STEER_KEYS];
  __u32 complete; /* 1: a key that is not here is not live; stored by the owner (release), never taken back */
  __u32 reserved[15]; /* zero */
  /* By slot, of which there is no 0: the receive queue of that engine's socket, and 1 more; 0: it has none,
   * and the kernel takes what comes for it. Stored by the owner. */
  __u32 inside_queues[WEFT_STEER_INSIDE_MAX + 1];
};

/* An entry of the array map `weft_drops`, one for each possible CPU, which alone writes it; BPF_F_MMAPABLE.
 * Drops that no live key can be charged with. */
struct weft_steer_drops {
  __u64 drops[WEFT_STEER_REASONS]; /* by enum weft_drop_reason */
};

/* Read-only data of the program, set before it is loaded. */
struct weft_steer_config {
  __be16 port_be; /* UDP port of weft on this node */
};

/* The only entry of the array map that is pinned beside the others: what made them. */
struct weft_steer_info {
  __u64 layout;  /* hash of the types of all maps: maps with another one are never used */
  __u64 program; /* hash of the object file and its configuration: the same one need not be loaded again */
  __u32 port;
  __u32 reserved; /* zero */
};

#define WEFT_STEER_OFFSET(type, field, offset) \
  WEFT_ABI_ASSERT(__builtin_offsetof(struct type, field) == (offset), #type "." #field)

WEFT_ABI_ASSERT(WEFT_DROP_REASON_COUNT <= WEFT_STEER_REASONS, "every reason has a counter");
WEFT_ABI_ASSERT((WEFT_STEER_REASONS & (WEFT_STEER_REASONS - 1)) == 0, "a reason is masked to its counter");
WEFT_ABI_ASSERT(sizeof(struct weft_steer_key) == 192, "three cache lines");
WEFT_STEER_OFFSET(weft_steer_key, key_id, 0);
WEFT_STEER_OFFSET(weft_steer_key, reserved_flags, 4);
WEFT_STEER_OFFSET(weft_steer_key, packets_per_second, 8);
WEFT_STEER_OFFSET(weft_steer_key, burst_packets, 16);
WEFT_STEER_OFFSET(weft_steer_key, full_ns, 24);
WEFT_STEER_OFFSET(weft_steer_key, taken, 32);
WEFT_STEER_OFFSET(weft_steer_key, limit, 40);
WEFT_STEER_OFFSET(weft_steer_key, refilled_ns, 48);
WEFT_STEER_OFFSET(weft_steer_key, reserved, 56);
WEFT_STEER_OFFSET(weft_steer_key, drops, 64);
WEFT_ABI_ASSERT(sizeof(struct weft_steer_table) == WEFT_STEER_KEYS * 192 + 128, "two cache lines more");
WEFT_STEER_OFFSET(weft_steer_table, complete, WEFT_STEER_KEYS * 192);
WEFT_STEER_OFFSET(weft_steer_table, inside_queues, WEFT_STEER_KEYS * 192 + 64);
WEFT_ABI_ASSERT(sizeof(struct weft_steer_drops) == 128, "two cache lines");
WEFT_ABI_ASSERT((WEFT_STEER_KEYS & (WEFT_STEER_KEYS - 1)) == 0, "an id is masked to its entry");
WEFT_ABI_ASSERT((WEFT_STEER_INSIDE_MAX & (WEFT_STEER_INSIDE_MAX + 1)) == 0, "a slot is masked to its entry");
WEFT_ABI_ASSERT(sizeof(struct weft_steer_config) == 2, "no hidden padding");
WEFT_STEER_OFFSET(weft_steer_config, port_be, 0);
WEFT_ABI_ASSERT(sizeof(struct weft_steer_info) == 24, "no hidden padding");
WEFT_STEER_OFFSET(weft_steer_info, layout, 0);
WEFT_STEER_OFFSET(weft_steer_info, program, 8);
WEFT_STEER_OFFSET(weft_steer_info, port, 16);

#endif /* WEFT_BPF_ABI_STEER_H_ */
