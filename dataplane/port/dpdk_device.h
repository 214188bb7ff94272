// SPDX-License-Identifier: Apache-2.0
// A DPDK ethdev with its buffers: what the DPDK port and benchmarks of the bare device stand on, as xsk.h is
// for AF_XDP. DPDK's environment (EAL) is started with the first device, once a process, and stays to its
// end; a process that forks must do so before. Any thread makes a device, one uses it.
#ifndef WEFT_DATAPLANE_PORT_DPDK_DEVICE_H_
#define WEFT_DATAPLANE_PORT_DPDK_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/port/port_status.h"

struct rte_mbuf;
struct rte_mempool;
struct rte_ring;

namespace weft::port {

// Two rings of this process with a net_ring device at either end: a wire for tests, where a machine has none.
class DpdkWire {
 public:
  static absl::StatusOr<std::shared_ptr<DpdkWire>> Create(const std::string& name);
  ~DpdkWire();
  DpdkWire(const DpdkWire&) = delete;
  DpdkWire& operator=(const DpdkWire&) = delete;

 private:
  friend class DpdkDevice;
  DpdkWire() = default;
  std::string name_;
  rte_mempool* pool_ = nullptr;  // Of both devices, since buffers pass from one to the other.
  rte_ring* rings_[2] = {};      // By the side that sends.
};

struct DpdkDeviceOptions {
  // As after --vdev: "net_memif0,role=client,socket=/run/weft/memif.sock", "net_af_xdp0,iface=eth0".
  std::string device = {};
  // Or one end of a wire; the device then has its name.
  std::shared_ptr<DpdkWire> wire = {};
  int side = 0;
};

// A frame in a device's buffer, for users that see no port.
struct DpdkFrame {
  rte_mbuf* buffer = nullptr;
  uint8_t* data = nullptr;
  uint32_t bytes = 0;
};

class DpdkDevice {
 public:
  // Errors name the device, the cause and what DPDK logged. UNAVAILABLE where EAL does not start,
  // INVALID_ARGUMENT where the device cannot be made of its description. A memif client whose server is not
  // there yet is no error: see Reconnect.
  static absl::StatusOr<std::unique_ptr<DpdkDevice>> Create(const DpdkDeviceOptions& options,
                                                            PortStatus* status);
  ~DpdkDevice();
  DpdkDevice(const DpdkDevice&) = delete;
  DpdkDevice& operator=(const DpdkDevice&) = delete;

  uint16_t id() const { return id_; }
  rte_mempool* pool() const { return pool_; }
  uint32_t frames() const { return frames_; }
  // Frames that nobody holds. Walks the caches of all threads.
  uint32_t frames_free() const;
  const uint8_t (&mac() const)[6] { return mac_; }
  // Of IP packets.
  uint32_t mtu() const;
  bool LinkUp();
  // Whether frames may be sent and received: not before a memif client has found its server.
  bool started() const { return started_; }
  // The kernel's interface under the device, or empty.
  const std::string& interface() const { return interface_; }
  // Tries again to reach what the device could not reach, where the driver does not by itself (a memif
  // client).
  void Reconnect();
  // Gives the calling thread a cache of buffers of its own, for as long as it lives. Cheap from the second
  // call on.
  static void RegisterThread();

  // One frame at a time, for users without a port. The buffer is the caller's until it is sent or freed.
  bool New(DpdkFrame* frame);
  bool Receive(DpdkFrame* frame);
  // False where the device has no room.
  bool Send(const DpdkFrame& frame);
  static void Free(const DpdkFrame& frame);

 private:
  DpdkDevice() = default;
  absl::Status Attach(const DpdkDeviceOptions& options, PortStatus* status);
  absl::Status SetUp(PortStatus* status);

  std::string name_;
  std::shared_ptr<DpdkWire> wire_;
  uint16_t id_ = UINT16_MAX;
  rte_mempool* pool_ = nullptr;
  uint32_t frames_ = 0;
  uint8_t mac_[6] = {};
  std::string interface_;
  bool client_ = false;  // A memif client connects when it is started, and only then.
  bool started_ = false;
  bool connected_ = false;  // The link has been up since the last start.
  uint32_t patience_ = 0;
};

}  // namespace weft::port

#endif  // WEFT_DATAPLANE_PORT_DPDK_DEVICE_H_
