// SPDX-License-Identifier: Apache-2.0
// What the kernel knows of the way to a peer over one interface: route, neighbour, own address, MTU, by
// netlink. For ports that build frames themselves. The kernel stays in charge: what it learns, forgets or
// changes is followed. Its sockets belong to the network namespace it is made in; used on the worker's
// thread, off the packet path.
#ifndef WEFT_DATAPLANE_PORT_NEXT_HOP_H_
#define WEFT_DATAPLANE_PORT_NEXT_HOP_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/base/fd.h"
#include "dataplane/port/address.h"

namespace weft::port {

struct NextHop {
  Address source;      // Own address towards the peer; its port is not set.
  Address neighbour;   // The peer or the gateway.
  uint32_t mtu = 0;    // Of the path: IP packets up to this size.
  bool known = false;  // `mac` is the neighbour's.
  bool fresh = false;  // Confirmed of late; else the kernel would ask again when it sends there.
  uint8_t mac[6] = {};
};

// Receive queues of an interface; 1 where the driver does not say.
uint32_t QueuesOf(const std::string& interface);
// Whether it is one end of a veth pair: each packet that it gets is a socket buffer of the sender's kernel.
bool IsVeth(const std::string& interface);

class NextHops {
 public:
  // NOT_FOUND where there is no such interface; FAILED_PRECONDITION where it is not Ethernet. No privilege
  // needed.
  static absl::StatusOr<std::unique_ptr<NextHops>> Create(const std::string& interface);

  // What the kernel is asked by: of the network namespace that they were made in, whoever holds them.
  struct Sockets {
    UniqueFd requests;
    UniqueFd events;
    UniqueFd plain4;
    UniqueFd plain6;  // Invalid where there is no IPv6.
  };
  static absl::StatusOr<Sockets> Open();
  static absl::StatusOr<std::unique_ptr<NextHops>> Create(const std::string& interface, Sockets sockets);

  // UNAVAILABLE where there is no route now; FAILED_PRECONDITION where the way leads elsewhere than over this
  // interface.
  absl::StatusOr<NextHop> Find(const Address& peer, const Address& local);
  // Has the kernel find the neighbour towards `peer`, by sending it an empty datagram to its discard port.
  void Ask(const Address& peer);
  // Whether anything has changed since the last call that can change what Find says.
  bool TakeChanges();
  // The interface has been deleted, or has left this namespace. One of the same name is another.
  bool gone() const { return gone_; }
  // Readable when TakeChanges would return true.
  int fd() const { return events_.get(); }

  const uint8_t (&mac() const)[6] { return mac_; }
  uint32_t mtu() const;  // The interface's.
  int index() const { return index_; }

 private:
  NextHops() = default;
  std::size_t Exchange(void* request, std::size_t bytes);
  bool Concerns(const void* message);
  bool ReadMac();
  absl::Status FindNeighbour(NextHop* hop);

  std::string interface_;
  int index_ = 0;
  bool gone_ = false;
  uint8_t mac_[6] = {};
  UniqueFd requests_;
  UniqueFd events_;
  UniqueFd plain4_;
  UniqueFd plain6_;
  uint32_t sequence_ = 0;
  alignas(8) uint8_t answer_[16 * 1024];
};

}  // namespace weft::port

#endif  // WEFT_DATAPLANE_PORT_NEXT_HOP_H_
