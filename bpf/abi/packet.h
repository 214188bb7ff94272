/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The clear header of every datagram between two nodes: the only bytes of a packet that XDP, or anybody on
 * the wire, can read. One header serves the BPF programs (C) and the data plane (C++); sizes and offsets are
 * asserted at the end. What follows it on the wire: sealed frames (dataplane/transport/frame.h), then the
 * tag. The header is authenticated with them.
 */
#ifndef WEFT_BPF_ABI_PACKET_H_
#define WEFT_BPF_ABI_PACKET_H_

#include <linux/types.h>

/* Version 1, suite 1 (AES-128-GCM), in one byte: a receiver compares both at once. */
#define WEFT_PACKET_VERSION 1
#define WEFT_PACKET_SUITE_AES_128_GCM 1
#define WEFT_PACKET_VERSION_AND_SUITE ((WEFT_PACKET_VERSION << 4) | WEFT_PACKET_SUITE_AES_128_GCM)

/* Low two bits of `flags`: the key epoch modulo 4, so that the two live epochs always differ. The other bits
 * are zero; a packet that sets one is dropped. */
#define WEFT_PACKET_EPOCH_MASK 0x03

#define WEFT_PACKET_HEADER_BYTES 16
#define WEFT_PACKET_TAG_BYTES 16
/* The shortest datagram that can be genuine: header, one frame of 4 bytes, tag. */
#define WEFT_PACKET_BYTES_MIN (WEFT_PACKET_HEADER_BYTES + 4 + WEFT_PACKET_TAG_BYTES)
/* The longest: a jumbo frame of 9,000 bytes less IPv4 and UDP headers. */
#define WEFT_PACKET_BYTES_MAX (9000 - 20 - 8)

/* A worker hint with this bit asks that the datagram leave alone: the receiver would get those that a
 * sender's kernel sends as one (UDP_SEGMENT) as one frame, where no device on the way cuts them. */
#define WEFT_WORKER_HINT_ALONE 0x8000

struct weft_packet_header {
  __u8 version_and_suite; /* WEFT_PACKET_VERSION_AND_SUITE */
  __u8 flags;             /* key epoch; rest zero */
  __be16 worker_hint;     /* the receiving worker, as the receiver named it with its key */
  __be32 key_id;          /* chosen by the receiver; its low bits index the receiver's key table */
  __be64 counter;         /* nonce and replay window at once; a sender never uses one twice under one key */
};

#ifdef __cplusplus
#define WEFT_ABI_ASSERT(condition, message) static_assert(condition, message)
#else
#define WEFT_ABI_ASSERT(condition, message) _Static_assert(condition, message)
#endif

WEFT_ABI_ASSERT(sizeof(struct weft_packet_header) == WEFT_PACKET_HEADER_BYTES, "clear header is 16 bytes");
WEFT_ABI_ASSERT(__builtin_offsetof(struct weft_packet_header, version_and_suite) == 0, "offset");
WEFT_ABI_ASSERT(__builtin_offsetof(struct weft_packet_header, flags) == 1, "offset");
WEFT_ABI_ASSERT(__builtin_offsetof(struct weft_packet_header, worker_hint) == 2, "offset");
WEFT_ABI_ASSERT(__builtin_offsetof(struct weft_packet_header, key_id) == 4, "offset");
WEFT_ABI_ASSERT(__builtin_offsetof(struct weft_packet_header, counter) == 8, "offset");

#endif /* WEFT_BPF_ABI_PACKET_H_ */
