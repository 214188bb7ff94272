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
  return entry->key_id == key_id && key_id != 0;
}

/* The start of the frames that nearly all are: without a VLAN tag, IPv4 without options. Behind it stands the
 * clear header. */
struct weft_plain_frame {
  __u8 addresses[2 * ETH_ALEN];
  __be16 protocol;
  __u8 ip_version; /* And length of the header */
  __u8 ip_service; /* Any */
  __be16 ip_bytes;
  __be16 ip_id;
  __be16 ip_fragment;
  __u8 ip_hops; /* Any */
  __u8 ip_protocol;
  __u8 ip_rest[10]; /* Checksum, addresses */
  __be16 source_port;
  __be16 port;
  __be16 udp_bytes;
  __be16 udp_checksum;
};
WEFT_ABI_ASSERT(sizeof(struct weft_plain_frame) ==
                    sizeof(struct ethhdr) + sizeof(struct iphdr) + sizeof(struct udphdr),
                "headers follow each other");

/*
 * Whether a frame is a plain one of weft that weft_parse_udp, weft_check_length and weft_check_header all
 * take: what they look at field by field, by loads of several fields at once. Where it is not, they tell what
 * it is.
 */
WEFT_INLINE int weft_is_plain(const struct weft_cursor* cursor, __be16 port_be) {
  const struct weft_plain_frame* const frame = (const struct weft_plain_frame*)cursor->at;
  if (!weft_holds(cursor, sizeof(*frame) + sizeof(struct weft_packet_header))) return 0;
  const __u32 type_and_version = weft_load32(&frame->protocol);
  if ((type_and_version & WEFT_BE32(0xffffff00)) != WEFT_BE32(ETH_P_IP << 16 | WEFT_IPV4_PLAIN << 8))
    return 0;
  const __u32 fragment_and_protocol = weft_load32(&frame->ip_fragment);
  if ((fragment_and_protocol & WEFT_BE32(WEFT_IPV4_FRAGMENT_BITS << 16 | 0xff)) !=
      WEFT_BE32(WEFT_IPPROTO_UDP))
    return 0;
  if (frame->port != port_be) return 0;
  const __u32 udp_bytes = WEFT_FROM_BE16(frame->udp_bytes);
  if (WEFT_FROM_BE16(frame->ip_bytes) - udp_bytes != sizeof(struct iphdr)) return 0;
  const __u32 above_least = udp_bytes - (__u32)sizeof(struct udphdr) - WEFT_PACKET_BYTES_MIN;
  if (above_least > WEFT_PACKET_BYTES_MAX - WEFT_PACKET_BYTES_MIN) return 0;
  const __u16 version_and_flags = *(const __u16*)(frame + 1);
  return (version_and_flags & WEFT_BE16(0xff00 | (0xff & ~WEFT_PACKET_EPOCH_MASK))) ==
         WEFT_BE16(WEFT_PACKET_VERSION_AND_SUITE << 8);
}

/* The clear header's key id of a frame that is plain. */
WEFT_INLINE __u32 weft_plain_key_id(const struct weft_cursor* cursor) {
  return WEFT_FROM_BE32(weft_load32(cursor->at + sizeof(struct weft_plain_frame) +
                                    __builtin_offsetof(struct weft_packet_header, key_id)));
}

#endif /* WEFT_BPF_LIB_DATAGRAM_H_ */
