/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Checks of weft's clear header that need no key: what is wrong here is wrong whatever the tag says.
 */
#ifndef WEFT_BPF_LIB_DATAGRAM_H_
#define WEFT_BPF_LIB_DATAGRAM_H_

#include "bpf/abi/packet.h"
#include "bpf/abi/steer.h"
#include "bpf/lib/frame.h"

/* The clear header at the cursor, to be read only where weft_holds_header. */
WEFT_INLINE const struct weft_packet_header* weft_header_at(const struct weft_cursor* cursor) {
  return (const struct weft_packet_header*)cursor->at;
}
WEFT_INLINE int weft_holds_header(const struct weft_cursor* cursor) {
  return weft_holds(cursor, sizeof(struct weft_packet_header));
}

/* The length of a datagram, as its headers tell it. Whether the frame has all of it is not asked here, which
 * would take a call of the kernel (bpf_xdp_get_buff_len): the port asks it of the frame that it is handed. */
WEFT_INLINE int weft_check_length(__u32 bytes) {
  if (bytes < WEFT_PACKET_BYTES_MIN) return -WEFT_DROP_TOO_SHORT;
  if (bytes > WEFT_PACKET_BYTES_MAX) return -WEFT_DROP_TOO_LONG;
  return WEFT_TAKE;
}

/* Version, suite and reserved bits. */
WEFT_INLINE int weft_check_header(const struct weft_packet_header* header) {
  if (header->version_and_suite != WEFT_PACKET_VERSION_AND_SUITE || (header->flags & ~WEFT_PACKET_EPOCH_MASK))
    return -WEFT_DROP_BAD_VERSION;
  return WEFT_TAKE;
}

WEFT_INLINE __u32 weft_key_id_of(const struct weft_packet_header* header) {
  return WEFT_FROM_BE32(header->key_id);
}

/* Whether `entry`, found by the low bits of `key_id`, is that of the whole id. Id 0 names no key. */
WEFT_INLINE int weft_key_is(const struct weft_steer_key* entry, __u32 key_id) {
  return entry && entry->key_id == key_id && key_id != 0;
}

#endif /* WEFT_BPF_LIB_DATAGRAM_H_ */
