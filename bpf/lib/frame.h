/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * From an Ethernet frame to the UDP payload that is meant for weft: at most one VLAN tag, IPv4 without
 * options, IPv6 without extension headers, no fragments. What is anything else is left to the kernel, which
 * knows what to do with it. Checksums are not looked at: the datagram's tag covers all that weft reads.
 */
#ifndef WEFT_BPF_LIB_FRAME_H_
#define WEFT_BPF_LIB_FRAME_H_

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include "bpf/abi/drop_reason.h"
#include "bpf/abi/steer.h"
#include "bpf/lib/compiler.h"

/* What a check returns: go on, leave the packet to the kernel, or a negative drop reason. */
enum weft_verdict { WEFT_TAKE = 0, WEFT_PASS = 1 };

#define WEFT_IPPROTO_UDP 17
/* Version 4 and a header of five words: no options. */
#define WEFT_IPV4_PLAIN 0x45
/* More fragments, or an offset: all but the don't-fragment bit and the reserved one. */
#define WEFT_IPV4_FRAGMENT_BITS 0x3fff

/* What is left of a packet. It moves by constants only, as packet pointers do without CAP_PERFMON. */
struct weft_cursor {
  const __u8* at;
  const __u8* end;
};

struct weft_vlan_tag {
  __be16 control;
  __be16 protocol;
};

/*
 * Whether the packet has `bytes` more. Truth comes as a number and never as a pointer that may be null:
 * compilers turn the latter into comparisons of packet pointers with 0, which the verifier of any kernel
 * prohibits ("pointer comparison prohibited") to who has CAP_BPF without CAP_PERFMON.
 */
WEFT_INLINE int weft_holds(const struct weft_cursor* cursor, __u32 bytes) {
  return cursor->at + bytes <= cursor->end;
}

/* Moves behind the next `bytes`; 0 where the packet ends before. */
WEFT_INLINE int weft_skip(struct weft_cursor* cursor, __u32 bytes) {
  if (!weft_holds(cursor, bytes)) return 0;
  cursor->at += bytes;
  return 1;
}

/* Takes the Ethernet header and one VLAN tag, if there is one. The result is the EtherType behind them, 0
 * where the frame ends before. */
WEFT_INLINE __be16 weft_parse_ethernet(struct weft_cursor* cursor) {
  /* Not as a struct ethhdr, which is packed and therefore read by the byte. */
  const __be16* const protocol = (const __be16*)(cursor->at + 2 * ETH_ALEN);
  if (!weft_skip(cursor, sizeof(struct ethhdr))) return 0;
  if (WEFT_LIKELY(*protocol == WEFT_BE16(ETH_P_IP))) return *protocol;
  if (*protocol != WEFT_BE16(ETH_P_8021Q) && *protocol != WEFT_BE16(ETH_P_8021AD)) return *protocol;
  const struct weft_vlan_tag* const tag = (const struct weft_vlan_tag*)cursor->at;
  return weft_skip(cursor, sizeof(*tag)) ? tag->protocol : 0;
}

/* Takes the IP header of a packet that carries UDP and nothing between; `bytes`: what IP says that UDP has.
 */
WEFT_INLINE int weft_parse_ip(struct weft_cursor* cursor, __be16 protocol_be, __u32* bytes) {
  if (WEFT_LIKELY(protocol_be == WEFT_BE16(ETH_P_IP))) {
    const struct iphdr* const ip = (const struct iphdr*)cursor->at;
    if (!weft_skip(cursor, sizeof(*ip))) return WEFT_PASS;
    if (*(const __u8*)ip != WEFT_IPV4_PLAIN || ip->protocol != WEFT_IPPROTO_UDP) return WEFT_PASS;
    if (ip->frag_off & WEFT_BE16(WEFT_IPV4_FRAGMENT_BITS)) return WEFT_PASS;
    *bytes = WEFT_FROM_BE16(ip->tot_len) - (__u32)sizeof(*ip);
    return WEFT_TAKE;
  }
  if (protocol_be == WEFT_BE16(ETH_P_IPV6)) {
    const struct ipv6hdr* const ip = (const struct ipv6hdr*)cursor->at;
    if (!weft_skip(cursor, sizeof(*ip))) return WEFT_PASS;
    if (ip->version != 6 || ip->nexthdr != WEFT_IPPROTO_UDP) return WEFT_PASS;
    *bytes = WEFT_FROM_BE16(ip->payload_len);
    return WEFT_TAKE;
  }
  return WEFT_PASS;
}

/* Moves the cursor to a UDP header that the packet has whole, and tells what IP says that UDP has. */
WEFT_INLINE int weft_find_udp(struct weft_cursor* cursor, __u32* ip_bytes) {
  const __be16 protocol_be = weft_parse_ethernet(cursor);
  if (weft_parse_ip(cursor, protocol_be, ip_bytes) != WEFT_TAKE) return WEFT_PASS;
  return weft_holds(cursor, sizeof(struct udphdr)) ? WEFT_TAKE : WEFT_PASS;
}

/* Whose UDP datagram it is, at its header: 0 weft's at `port_be`; up to WEFT_STEER_INSIDE_MAX that of the
 * engine inside a host of this slot; above, none's. */
WEFT_INLINE __u32 weft_slot_of(const struct weft_cursor* cursor, __be16 port_be) {
  const struct udphdr* const udp = (const struct udphdr*)cursor->at;
  return (__u16)(WEFT_FROM_BE16(udp->dest) - WEFT_FROM_BE16(port_be));
}

/*
 * Moves the cursor from the UDP header to the payload and tells its length by that header.
 * -WEFT_DROP_BAD_LENGTH where UDP and IP do not agree on its length: then the cursor stands at the payload
 * too, of which any part may be missing.
 */
WEFT_INLINE int weft_parse_udp(struct weft_cursor* cursor, __u32 ip_bytes, __u32* payload_bytes) {
  const struct udphdr* const udp = (const struct udphdr*)cursor->at;
  const __u32 udp_bytes = WEFT_FROM_BE16(udp->len);
  cursor->at += sizeof(*udp);
  if (udp_bytes != ip_bytes || udp_bytes < sizeof(*udp)) return -WEFT_DROP_BAD_LENGTH;
  *payload_bytes = udp_bytes - (__u32)sizeof(*udp);
  return WEFT_TAKE;
}

#endif /* WEFT_BPF_LIB_FRAME_H_ */
