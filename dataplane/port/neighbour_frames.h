// SPDX-License-Identifier: Apache-2.0
// ARP and IPv6 neighbour discovery, as far as a port needs them that has its link to itself: the kernel does
// not hear what comes there. Pure.
#ifndef WEFT_DATAPLANE_PORT_NEIGHBOUR_FRAMES_H_
#define WEFT_DATAPLANE_PORT_NEIGHBOUR_FRAMES_H_

#include <cstddef>
#include <cstdint>

#include "dataplane/port/address.h"

namespace weft::port {

// The longest is an IPv6 solicitation or advertisement with one option: 14 + 40 + 32.
inline constexpr std::size_t kNeighbourFrameBytesMax = 86;

struct NeighbourMessage {
  enum class Kind { kNone, kQuestion, kAnswer };
  Kind kind = Kind::kNone;
  Address subject;       // kQuestion: whose link address is asked for; kAnswer: whose `mac` is.
  Address sender;        // Of IP; its port is 0. The unspecified address where it has none yet.
  bool has_mac = false;  // `mac` is there.
  uint8_t mac[6] = {};   // kQuestion: the sender's; kAnswer: the subject's.
};

// kNone for whatever else a frame is, and for what is malformed. Checksums of ICMPv6 are verified.
NeighbourMessage ParseNeighbour(const uint8_t* frame, std::size_t bytes);

// Each writes a frame to `out`, of kNeighbourFrameBytesMax, and returns its length. Ports are not looked at;
// both addresses are of one family.
std::size_t WriteQuestion(uint8_t* out, const uint8_t (&own_mac)[6], const Address& own,
                          const Address& subject);
std::size_t WriteAnswer(uint8_t* out, const uint8_t (&own_mac)[6], const Address& own, const Address& asker,
                        const uint8_t (&asker_mac)[6]);
// Tells everybody on the link where `own` is.
std::size_t WriteAnnouncement(uint8_t* out, const uint8_t (&own_mac)[6], const Address& own);

}  // namespace weft::port

#endif  // WEFT_DATAPLANE_PORT_NEIGHBOUR_FRAMES_H_
