// SPDX-License-Identifier: Apache-2.0
// AfXdpPort: how it is made, by itself or from what another process has made.
#include <bpf/libbpf.h>
#include <linux/if_link.h>

#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/status.h"
#include "dataplane/port/af_xdp_port.h"

namespace weft::port {
namespace {

// How the XDP program, if there is one yet, is attached.
PortChoice ProgramOn(int interface_index) {
  bpf_xdp_query_opts query{};
  query.sz = sizeof(query);
  if (bpf_xdp_query(interface_index, 0, &query) != 0)
    return {"XDP program", "unknown", "the kernel does not say"};
  switch (query.attach_mode) {
    case XDP_ATTACHED_NONE:
      return {"XDP program", "none", "nothing arrives before one is attached"};
    case XDP_ATTACHED_SKB:
      return {"XDP program", "generic",
              "it runs on socket buffers: the driver has no XDP, or has those first, as veth"};
    case XDP_ATTACHED_HW:
      return {"XDP program", "offloaded", "it runs in the device"};
    default:
      return {"XDP program", "native", "it runs in the driver"};
  }
}

// The kernel keeps this much before each frame it receives, in aligned mode (XDP_PACKET_HEADROOM).
constexpr std::size_t kKernelHeadroomBytes = 256;
// Ethernet with a VLAN tag.
constexpr std::size_t kLinkBytes = kEthernetBytes + 4;

}  // namespace

// What the interface asks of the socket. FAILED_PRECONDITION: its MTU and the datagrams do not go together.
absl::StatusOr<XskOptions> AfXdpPort::SocketFor(const Options& options, std::size_t mtu) {
  const std::size_t headers = IpHeadersBytes(options.local);
  if (mtu < options.datagram_bytes_max + headers) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the MTU of ", options.interface, " is ", mtu, ": too small for datagrams of ",
        options.datagram_bytes_max, " bytes, which need ", options.datagram_bytes_max + headers));
  }
  XskOptions xsk_options{.interface = options.interface,
                         .queue = options.queue,
                         .xsks_map_fd = options.xsks_map_fd,
                         .receive_frames = options.receive_frames,
                         .send_frames = options.send_frames};
  if (mtu + kLinkBytes + kKernelHeadroomBytes > xsk_options.frame_bytes) xsk_options.frame_bytes = 4096;
  if (mtu + kLinkBytes + kKernelHeadroomBytes > xsk_options.frame_bytes) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the MTU of ", options.interface, " is ", mtu, ": AF_XDP takes packets of one frame, so at most ",
        xsk_options.frame_bytes - kLinkBytes - kKernelHeadroomBytes));
  }
  return xsk_options;
}

PortStatus AfXdpPort::StatusOf(const Options& options) {
  PortStatus status;
  status.port = "af_xdp";
  status.detail = absl::StrCat(options.interface, " queue ", options.queue, ", ", options.local.ToString());
  return status;
}

absl::StatusOr<std::unique_ptr<AfXdpPort>> AfXdpPort::Create(const Options& options) {
  PortStatus status = StatusOf(options);
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<NextHops> hops, NextHops::Create(options.interface));
  WEFT_ASSIGN_OR_RETURN(const XskOptions xsk_options, SocketFor(options, hops->mtu()));
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<Xsk> xsk, Xsk::Create(xsk_options, &status));
  status.choices.push_back(ProgramOn(hops->index()));
  return Assemble(options, std::move(xsk), std::move(hops), std::move(status));
}

absl::StatusOr<AfXdpPort::Given> AfXdpPort::Make(const Options& options) {
  WEFT_ASSIGN_OR_RETURN(const std::unique_ptr<NextHops> hops, NextHops::Create(options.interface));
  WEFT_ASSIGN_OR_RETURN(const XskOptions xsk_options, SocketFor(options, hops->mtu()));
  Given given;
  WEFT_ASSIGN_OR_RETURN(given.xsk, Xsk::Make(xsk_options));
  WEFT_ASSIGN_OR_RETURN(given.routes, NextHops::Open());
  return given;
}

absl::StatusOr<std::unique_ptr<AfXdpPort>> AfXdpPort::Adopt(const Options& options, Given given) {
  PortStatus status = StatusOf(options);
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<NextHops> hops,
                        NextHops::Create(options.interface, std::move(given.routes)));
  WEFT_ASSIGN_OR_RETURN(const XskOptions xsk_options, SocketFor(options, hops->mtu()));
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<Xsk> xsk, Xsk::Adopt(xsk_options, std::move(given.xsk), &status));
  return Assemble(options, std::move(xsk), std::move(hops), std::move(status));
}

absl::StatusOr<std::unique_ptr<AfXdpPort>> AfXdpPort::Assemble(const Options& options,
                                                               std::unique_ptr<Xsk> xsk,
                                                               std::unique_ptr<NextHops> hops,
                                                               PortStatus status) {
  WEFT_ASSIGN_OR_RETURN(SleepWatch sleep, SleepWatch::Create());
  WEFT_RETURN_IF_ERROR(sleep.Keep(hops->fd()));
  return std::unique_ptr<AfXdpPort>(
      new AfXdpPort(options, std::move(xsk), std::move(hops), std::move(sleep), std::move(status)));
}

AfXdpPort::AfXdpPort(const Options& options, std::unique_ptr<Xsk> xsk, std::unique_ptr<NextHops> hops,
                     SleepWatch sleep, PortStatus status)
    : local_(options.local),
      datagram_bytes_max_(options.datagram_bytes_max),
      xsk_(std::move(xsk)),
      hops_(std::move(hops)),
      sleep_(std::move(sleep)),
      status_(std::move(status)),
      parsed_(options.receive_frames),
      fill_places_(options.receive_frames),
      data_offset_(kKernelHeadroomBytes) {
  std::iota(fill_places_.begin(), fill_places_.end(), 0);  // As Xsk has posted them.
  released_.reserve(options.receive_frames);
  free_.reserve(options.send_frames);
  for (uint32_t i = options.send_frames; i-- > 0;) free_.push_back(options.receive_frames + i);
}

}  // namespace weft::port
