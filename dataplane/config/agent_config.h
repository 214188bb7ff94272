// SPDX-License-Identifier: Apache-2.0
// weftd.yaml as a plain struct: who may attach to this node's agent, under which names and within which
// limits. Read once, by weftd at its start.
#ifndef WEFT_DATAPLANE_CONFIG_AGENT_CONFIG_H_
#define WEFT_DATAPLANE_CONFIG_AGENT_CONFIG_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace weft {

// What all processes of one user may hold together, as counted by the agent.
struct TenantLimits {
  uint32_t hosts = 16;        // Attached under a name.
  uint32_t clients = 64;      // Attached without one, and connections that have not introduced themselves.
  uint32_t functions = 1024;  // Served by all its hosts.
  uint32_t channels = 4096;   // Ends of channels.
  // Half of it is what the user's side of all its channels may take of shared memory. The other half is for
  // messages that stream in: each process gets its part of it, by `hosts` and `clients`, but two messages at
  // least.
  uint64_t bytes = uint64_t{1} << 30;
  uint32_t arena_bytes = 1024 * 1024;  // Of each channel, a power of two from 4 KiB to 64 MiB.
};

struct Tenant {
  std::string name;
  std::string user;  // As written: a name or a number.
  uid_t uid = 0;
  std::vector<std::string> hosts;  // Names that its hosts may go by.
  bool pods = false;               // They may also go by the UID of a pod.
  std::vector<std::string> serve;  // namespace/name or namespace/*
  std::string call_as;             // Namespace of clients that serve nothing; may be empty.
  bool engine_inside = false;      // Its hosts may run the node engine for their own calls,
  bool raw_packets = false;        // by AF_XDP sockets, which let them send any frame from the interface.
  TenantLimits limits;
};

struct AgentConfig {
  std::string node;
  // How other nodes reach this one; without `listen` they do not, and no call leaves the node.
  std::string listen;  // address:port, for packets (UDP) and keys (TCP)
  enum class PacketPort { kAuto, kAfXdp, kDpdk, kIoUring };
  PacketPort packet_port = PacketPort::kAuto;
  std::string interface;  // That weft-control steers; empty: none, packets go by UDP.
  // Engine threads between this node and others; 0: as many as the machine has room for.
  static constexpr uint32_t kWorkersMax = 8;
  uint32_t workers = 0;
  // With packet_port: dpdk, else empty.
  struct Dpdk {
    std::string device;   // As after DPDK's --vdev: "net_memif0,role=server,socket=/run/weft/memif.sock"
    std::string address;  // address:port of this node on the device's link, for packets
  };
  Dpdk dpdk;
  // Bytes that a packet of IP may have on every path to another node.
  static constexpr uint32_t kMtuMin = 1280, kMtuMax = 9000, kMtuDefault = 1500;
  uint32_t mtu = kMtuDefault;
  struct Identity {
    std::string certificate;  // Files, PEM
    std::string key;
    std::string ca;
  };
  Identity identity;
  uid_t control_uid = 0;
  std::vector<Tenant> tenants;
};

// Parses `text`; `file` is the name that errors carry. INVALID_ARGUMENT names file, line and key of
// everything that is wrong. Looks users up in the system's user database, which may block.
absl::StatusOr<AgentConfig> ParseAgentConfig(absl::string_view text, const std::string& file);

// The same, of the file `path`. Blocks.
absl::StatusOr<AgentConfig> LoadAgentConfig(const std::string& path);

}  // namespace weft

#endif  // WEFT_DATAPLANE_CONFIG_AGENT_CONFIG_H_
