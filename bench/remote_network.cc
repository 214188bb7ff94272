// SPDX-License-Identifier: Apache-2.0
#include "bench/remote_network.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/steer_minimal.skel.h"
#include "dataplane/base/status.h"

namespace weft::bench {
namespace {

// Keys of a benchmark are never held back.
constexpr uint64_t kPacketsPerSecond = 1'000'000'000;

}  // namespace

port::Address RemoteNetwork::AddressOf(int side) {
  return *port::Address::Parse(
      absl::StrCat(side == kNear ? test::VethPair::kNearAddress : test::VethPair::kFarAddress, ":4810"));
}

absl::StatusOr<std::unique_ptr<RemoteNetwork>> RemoteNetwork::Create(const Options& options) {
  if (!test::VethPair::Privileged()) return absl::PermissionDeniedError("network namespaces need root");
  std::unique_ptr<RemoteNetwork> network(new RemoteNetwork(options.mtu));
  for (const int side : {kNear, kFar}) {
    if (!options.offloads) WEFT_RETURN_IF_ERROR(network->TurnOffloadsOff(side));
    WEFT_RETURN_IF_ERROR(network->Attach(side, options.xdp));
  }
  return network;
}

RemoteNetwork::~RemoteNetwork() {
  for (steer_minimal_bpf* program : minimal_) steer_minimal_bpf__destroy(program);
}

absl::Status RemoteNetwork::Attach(int side, Xdp xdp) {
  if (xdp == Xdp::kNone) return absl::OkStatus();
  if (xdp == Xdp::kSteer) {
    WEFT_ASSIGN_OR_RETURN(test::SteerOnVeth steer, test::SteerOnVeth::Attach(of(side)));
    steer_[side] = std::make_unique<test::SteerOnVeth>(std::move(steer));
    return absl::OkStatus();
  }
  minimal_[side] = steer_minimal_bpf__open_and_load();
  if (minimal_[side] == nullptr) return absl::ErrnoToStatus(errno, "load the minimal XDP program");
  const test::InNamespace inside(of(side));
  const int index = static_cast<int>(if_nametoindex(test::VethPair::kInterface));
  LIBBPF_OPTS(bpf_link_create_opts, options);
  options.flags = xdp == Xdp::kRedirectNative ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE;
  link_[side].Reset(
      bpf_link_create(bpf_program__fd(minimal_[side]->progs.steer_minimal), index, BPF_XDP, &options));
  if (!link_[side].valid()) return absl::ErrnoToStatus(errno, "attach the minimal XDP program");
  return absl::OkStatus();
}

int RemoteNetwork::xsks_fd(int side) const {
  return steer_[side] != nullptr ? steer_[side]->xsks_fd() : bpf_map__fd(minimal_[side]->maps.xsks_map);
}

absl::Status RemoteNetwork::Allow(int side, uint32_t key_id) {
  return steer_[side]->table().Allow(key_id, kPacketsPerSecond);
}

uint64_t RemoteNetwork::UnknownDrops(int side) const {
  const port::SteerCounters counters = steer_[side]->table().ReadUnknown();
  return std::accumulate(counters.drops.begin(), counters.drops.end(), uint64_t{0});
}

absl::Status RemoteNetwork::TurnOffloadsOff(int side) {
  const test::InNamespace inside(of(side));
  const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  for (const uint32_t command : {ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO}) {
    ethtool_value value = {.cmd = command, .data = 0};
    ifreq request{};
    std::strncpy(request.ifr_name, test::VethPair::kInterface, sizeof(request.ifr_name) - 1);
    request.ifr_data = reinterpret_cast<char*>(&value);
    if (ioctl(fd.get(), SIOCETHTOOL, &request) != 0) return absl::ErrnoToStatus(errno, "turn an offload off");
  }
  return absl::OkStatus();
}

}  // namespace weft::bench
