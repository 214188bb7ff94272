// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/dpdk_device.h"

#include <rte_config.h>
#undef RTE_USE_LIBBSD  // It would take libbsd-dev for strlcpy, of which DPDK has its own.

#include <bpf/libbpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/status.h"
#include "dataplane/port/dpdk_eal.h"

namespace weft::port {
namespace {

// 4,095 frames of 2.4 KB: 1,024 descriptors each way, what the caller holds, and the threads' caches.
// net_af_xdp keeps 2,048 more in its fill ring.
constexpr uint32_t kFrames = 4095;
constexpr uint32_t kFramesAfXdp = kFrames + 2048;
constexpr uint32_t kCacheFrames = 256;
// Tries to reconnect that a connection under way is left alone for.
constexpr uint32_t kPatience = 5;
constexpr uint16_t kRingFrames = 1024;
// A packet of 1,500 B, its headers and DPDK's headroom.
constexpr uint16_t kFrameBytes = 2048 + RTE_PKTMBUF_HEADROOM;

absl::Status Failed(absl::string_view what, const std::string& device, int error) {
  const std::string log = TakeEalLog();
  return absl::InvalidArgumentError(absl::StrCat("DPDK device ", device, ": ", what, ": ",
                                                 rte_strerror(error < 0 ? -error : error),
                                                 log.empty() ? "" : "; ", log));
}

absl::StatusOr<rte_mempool*> NewPool(const std::string& name, uint32_t frames) {
  // The name, which is unique, is at most RTE_MEMPOOL_NAMESIZE long.
  rte_mempool* const pool = rte_pktmbuf_pool_create(name.substr(0, 24).c_str(), frames, kCacheFrames, 0,
                                                    kFrameBytes, SOCKET_ID_ANY);
  if (pool != nullptr) return pool;
  return absl::ResourceExhaustedError(
      absl::StrCat("no memory for ", frames, " frames of DPDK device ", name, ": ", rte_strerror(rte_errno)));
}

// The value of `key` in a device's description, or empty.
std::string ArgumentOf(const std::string& device, absl::string_view key) {
  for (absl::string_view part : absl::StrSplit(device, ',')) {
    if (absl::ConsumePrefix(&part, key) && absl::ConsumePrefix(&part, "=")) return std::string(part);
  }
  return "";
}

// net_memif's server does not start where a killed predecessor has left its socket's file behind.
void RemoveStaleSocket(const std::string& device) {
  const std::string path = ArgumentOf(device, "socket");
  if (ArgumentOf(device, "role") != "server" || ArgumentOf(device, "socket-abstract") != "no") return;
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(name.sun_path)) return;
  path.copy(name.sun_path, path.size());
  const UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) != 0 &&
      errno == ECONNREFUSED) {
    unlink(path.c_str());
  }
}

// net_af_xdp's program stays attached when its process is killed, and libxdp then refuses the interface to
// who may not write its lock in /run/xdp. A program that is held by a link, as weft-control's is, stays.
void DetachStaleProgram(const std::string& interface) {
  const int index = static_cast<int>(if_nametoindex(interface.c_str()));
  if (index == 0) return;
  for (const uint32_t mode : {XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE})
    (void)bpf_xdp_detach(index, mode, nullptr);
}

// Leaves its logical core when the thread ends.
struct ThreadRegistration {
  ~ThreadRegistration() {
    if (registered) rte_thread_unregister();
  }
  bool tried = false;
  bool registered = false;
};

}  // namespace

absl::StatusOr<std::shared_ptr<DpdkWire>> DpdkWire::Create(const std::string& name) {
  PortStatus status;
  WEFT_RETURN_IF_ERROR(StartEal(&status));
  std::shared_ptr<DpdkWire> wire(new DpdkWire());
  wire->name_ = name;
  WEFT_ASSIGN_OR_RETURN(wire->pool_, NewPool(name, kFramesAfXdp));
  for (const int side : {0, 1}) {
    wire->rings_[side] = rte_ring_create(absl::StrCat(name, "_", side).c_str(), kRingFrames, SOCKET_ID_ANY,
                                         RING_F_SP_ENQ | RING_F_SC_DEQ);
    if (wire->rings_[side] == nullptr) return Failed("make a ring", name, rte_errno);
  }
  return wire;
}

DpdkWire::~DpdkWire() {
  for (rte_ring* const ring : rings_) rte_ring_free(ring);
  rte_mempool_free(pool_);
}

absl::StatusOr<std::unique_ptr<DpdkDevice>> DpdkDevice::Create(const DpdkDeviceOptions& options,
                                                               PortStatus* status) {
  WEFT_RETURN_IF_ERROR(StartEal(status));
  (void)TakeEalLog();
  std::unique_ptr<DpdkDevice> device(new DpdkDevice());
  WEFT_RETURN_IF_ERROR(device->Attach(options, status));
  WEFT_RETURN_IF_ERROR(device->SetUp(status));
  return device;
}

absl::Status DpdkDevice::Attach(const DpdkDeviceOptions& options, PortStatus* status) {
  if (options.wire != nullptr) {
    wire_ = options.wire;
    name_ = absl::StrCat(wire_->name_, "_", options.side);
    pool_ = wire_->pool_;
    frames_ = kFramesAfXdp;
    rte_ring* const receive = wire_->rings_[1 - options.side];
    rte_ring* const send = wire_->rings_[options.side];
    const int id = rte_eth_from_rings(name_.c_str(), &receive, 1, &send, 1, SOCKET_ID_ANY);
    if (id < 0) return Failed("make it of rings", name_, rte_errno);
    id_ = static_cast<uint16_t>(id);
    return absl::OkStatus();
  }
  const std::string name = options.device.substr(0, options.device.find(','));
  const bool af_xdp = absl::StartsWith(name, "net_af_xdp");
  RemoveStaleSocket(options.device);
  if (af_xdp) DetachStaleProgram(ArgumentOf(options.device, "iface"));
  if (const int result = rte_dev_probe(options.device.c_str()); result != 0) {
    return Failed("make it", options.device, result);
  }
  name_ = name;
  if (const int result = rte_eth_dev_get_port_by_name(name.c_str(), &id_); result != 0) {
    id_ = UINT16_MAX;
    (void)rte_eal_hotplug_remove("vdev", name.c_str());
    return Failed("it is no Ethernet device", options.device, result);
  }
  if (af_xdp) interface_ = ArgumentOf(options.device, "iface");
  client_ = absl::StartsWith(name, "net_memif") && ArgumentOf(options.device, "role") != "server";
  frames_ = af_xdp ? kFramesAfXdp : kFrames;
  WEFT_ASSIGN_OR_RETURN(pool_, NewPool(name, frames_));
  status->choices.push_back(
      af_xdp ? PortChoice{"privileges", "CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_BPF, CAP_NET_RAW, CAP_IPC_LOCK",
                          "net_af_xdp loads and attaches its own XDP program and owns the interface"}
             : PortChoice{"privileges", "none", absl::StrCat("of ", name)});
  return absl::OkStatus();
}

absl::Status DpdkDevice::SetUp(PortStatus* status) {
  rte_eth_dev_info info{};
  if (const int result = rte_eth_dev_info_get(id_, &info); result != 0)
    return Failed("ask it", name_, result);
  const rte_eth_conf config{};
  if (const int result = rte_eth_dev_configure(id_, 1, 1, &config); result != 0) {
    return Failed("configure it", name_, result);
  }
  if (const int result = rte_eth_rx_queue_setup(id_, 0, kRingFrames, SOCKET_ID_ANY, nullptr, pool_);
      result != 0) {
    return Failed("set its receive queue up", name_, result);
  }
  if (const int result = rte_eth_tx_queue_setup(id_, 0, kRingFrames, SOCKET_ID_ANY, nullptr); result != 0) {
    return Failed("set its send queue up", name_, result);
  }
  const int started = rte_eth_dev_start(id_);
  if (started != 0 && !client_) return Failed("start it", name_, started);
  started_ = started == 0;
  (void)TakeEalLog();
  rte_ether_addr mac{};
  if (rte_eth_macaddr_get(id_, &mac) == 0) std::memcpy(mac_, mac.addr_bytes, sizeof(mac_));
  status->choices.push_back({"driver", info.driver_name, "named by the device"});
  return absl::OkStatus();
}

DpdkDevice::~DpdkDevice() {
  if (id_ != UINT16_MAX) {
    rte_eth_dev_info info{};
    const bool known = rte_eth_dev_info_get(id_, &info) == 0;
    (void)rte_eth_dev_stop(id_);
    if (known) (void)rte_dev_remove(info.device);
  }
  if (wire_ == nullptr) rte_mempool_free(pool_);
}

uint32_t DpdkDevice::frames_free() const { return rte_mempool_avail_count(pool_); }

uint32_t DpdkDevice::mtu() const {
  uint16_t mtu = 0;
  return rte_eth_dev_get_mtu(id_, &mtu) == 0 ? mtu : 0;
}

bool DpdkDevice::LinkUp() {
  rte_eth_link link{};
  const bool up = started_ && rte_eth_link_get_nowait(id_, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
  connected_ |= up;
  return up;
}

void DpdkDevice::Reconnect() {
  if (!client_) return;
  if (started_) {
    // While it may still be connecting it is left alone: EAL's thread ends the process where a descriptor is
    // closed that it is about to wait for. A server that was not ready has refused it, and does not say so
    // here.
    if (!connected_ && ++patience_ < kPatience) return;
    (void)rte_eth_dev_stop(id_);
  }
  patience_ = 0;
  connected_ = false;
  started_ = rte_eth_dev_start(id_) == 0;
  (void)TakeEalLog();
}

void DpdkDevice::RegisterThread() {
  static thread_local ThreadRegistration registration;
  if (registration.tried) return;
  registration.tried = true;
  // Where it fails the thread has no cache: slower, and all right.
  registration.registered = rte_lcore_id() == LCORE_ID_ANY && rte_thread_register() == 0;
}

bool DpdkDevice::New(DpdkFrame* frame) {
  rte_mbuf* const buffer = rte_pktmbuf_alloc(pool_);
  if (buffer == nullptr) return false;
  *frame = {buffer, rte_pktmbuf_mtod(buffer, uint8_t*), 0};
  return true;
}

bool DpdkDevice::Receive(DpdkFrame* frame) {
  if (!started_) return false;
  rte_mbuf* buffer = nullptr;
  if (rte_eth_rx_burst(id_, 0, &buffer, 1) == 0) return false;
  *frame = {buffer, rte_pktmbuf_mtod(buffer, uint8_t*), rte_pktmbuf_data_len(buffer)};
  return true;
}

bool DpdkDevice::Send(const DpdkFrame& frame) {
  if (!started_) return false;
  rte_mbuf* buffer = frame.buffer;
  buffer->data_len = static_cast<uint16_t>(frame.bytes);
  buffer->pkt_len = frame.bytes;
  return rte_eth_tx_burst(id_, 0, &buffer, 1) == 1;
}

void DpdkDevice::Free(const DpdkFrame& frame) { rte_pktmbuf_free(frame.buffer); }

}  // namespace weft::port
