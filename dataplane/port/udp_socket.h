// SPDX-License-Identifier: Apache-2.0
// The sockets under the UDP port: made, probed and told how to share one address among workers. Called when a
// port is made or gets a path; any thread.
#ifndef WEFT_DATAPLANE_PORT_UDP_SOCKET_H_
#define WEFT_DATAPLANE_PORT_UDP_SOCKET_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/base/fd.h"
#include "dataplane/port/address.h"
#include "dataplane/port/port_status.h"

namespace weft::port {

// Binds a UDP socket. With `workers` > 1 it shares the address with the other workers' sockets: datagrams go
// to the socket, counted in the order of binding, that their header's worker hint names. [::] also takes
// IPv4.
absl::StatusOr<UniqueFd> BindUdp(const Address& local, uint32_t workers, PortStatus* status);

// Before the first of several: waits, 200 ms at the most, until nobody has the address. A socket of a killed
// predecessor that is still being ended would have a place in the order, and shift others when it goes.
absl::Status AwaitUdpFree(const Address& local);

// A second socket at the address of `fd`, which must be a single one, by the same user. It is connected to
// that address itself, so that nothing comes to it, and ready to be connected to a peer. FAILED_PRECONDITION
// for an unspecified address: what such a socket sends as would depend on the first peer.
absl::StatusOr<UniqueFd> TwinOf(int fd);

// FAILED_PRECONDITION where `fd` is no bound UDP socket; else its address.
absl::StatusOr<Address> LocalAddressOf(int fd);

// The largest UDP payload that the path to `peer` carries unfragmented, as the kernel knows it now.
// UNAVAILABLE where it knows no way there.
absl::StatusOr<uint32_t> DatagramBytesTo(const Address& local, const Address& peer);

// Whether one send can cut into up to 64 datagrams (UDP_SEGMENT).
bool HasSegmentation(int fd, PortStatus* status);

// Large buffers, no fragments: a datagram that does not fit is refused where it is sent.
void SetUpSocket(int fd, PortStatus* status);

}  // namespace weft::port

#endif  // WEFT_DATAPLANE_PORT_UDP_SOCKET_H_
