/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The least that an XDP program in front of AF_XDP sockets does: is it plain IPv4 and UDP to the port, then
 * to the socket of its queue. What bpf/steer.bpf.c is measured against
 * (limit/steer_minimal), and what the row limit/af_xdp_raw goes by.
 */
#include <bpf/bpf_helpers.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/udp.h>

#include "bpf/abi/steer.h"
#include "bpf/lib/compiler.h"

char _license[] SEC("license") = "GPL";

struct {
  __uint(type, BPF_MAP_TYPE_XSKMAP);
  __uint(max_entries, WEFT_STEER_SOCKETS_MAX);
  __type(key, __u32);
  __type(value, __u32);
} xsks_map SEC(".maps");

struct plain_headers {
  struct ethhdr ethernet;
  struct iphdr ip;
  struct udphdr udp;
} __attribute__((packed));

SEC("xdp")
int steer_minimal(struct xdp_md* ctx) {
  const struct plain_headers* const headers = (const struct plain_headers*)(long)ctx->data;
  if ((const __u8*)(headers + 1) > (const __u8*)(long)ctx->data_end) return XDP_PASS;
  const __u8* const ip = (const __u8*)&headers->ip;
  if (headers->ethernet.h_proto != WEFT_BE16(ETH_P_IP) || *ip != 0x45 || headers->ip.protocol != 17)
    return XDP_PASS;
  if (headers->udp.dest != WEFT_BE16(WEFT_STEER_PORT_DEFAULT)) return XDP_PASS;
  return (int)bpf_redirect_map(&xsks_map, ctx->rx_queue_index, XDP_PASS);
}
