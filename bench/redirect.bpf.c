/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The least an XDP program can do for AF_XDP: a look at the packet, then the socket of its queue. The limit
 * that bpf/steer.bpf.c and the AF_XDP rows are judged by; it is part of no product.
 */
/* The helpers need the types that come first. */
/* clang-format off */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
/* clang-format on */

char _license[] SEC("license") = "GPL";

struct {
  __uint(type, BPF_MAP_TYPE_XSKMAP);
  __uint(max_entries, 64);
  __type(key, __u32);
  __type(value, __u32);
} xsks_map SEC(".maps");

/* IPv4 without options, UDP to port 4810, or the kernel's. */
SEC("xdp")
int weft_redirect(struct xdp_md* ctx) {
  const __u8* const frame = (const __u8*)(long)ctx->data;
  if (frame + 42 > (const __u8*)(long)ctx->data_end) return XDP_PASS;
  const __u16 ethertype = (__u16)(frame[12] << 8 | frame[13]);
  const __u16 port = (__u16)(frame[36] << 8 | frame[37]);
  if (ethertype != 0x0800 || frame[14] != 0x45 || frame[23] != 17 || port != 4810) return XDP_PASS;
  return (int)bpf_redirect_map(&xsks_map, ctx->rx_queue_index, XDP_PASS);
}
