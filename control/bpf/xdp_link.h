// SPDX-License-Identifier: Apache-2.0
// An XDP program on an interface, held by a bpf_link: in the driver where that can and gains by it, else on
// socket buffers, and never in the place of another program.
#ifndef WEFT_CONTROL_BPF_XDP_LINK_H_
#define WEFT_CONTROL_BPF_XDP_LINK_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/bpf/steer_program.h"
#include "dataplane/base/fd.h"

namespace weft::control {

enum class XdpMode { kNone, kNative, kGeneric };

struct XdpLink {
  UniqueFd fd;
  XdpMode mode = XdpMode::kNone;
  std::string why_generic;  // What the driver said to native mode; empty where that was not wanted, or is.
};

// Native where the driver has a packet before it has a socket buffer; generic on a veth, which has the
// buffer first and in native mode copies it into a page, through one more ring and one more poll. But in
// generic mode what is sent on queue n of a veth is received as if on queue n - 1: native with several.
XdpMode BestModeFor(const std::string& interface);

// Attaches `program` to an interface of this network namespace, in the best mode, or in generic
// where the driver refuses. ALREADY_EXISTS, naming it, where another
// program holds the interface, in whichever mode.
absl::StatusOr<XdpLink> AttachXdp(const SteerProgram& program, const std::string& interface, int index);

// Puts `program` into the place of the one that the link holds; no packet sees neither.
absl::Status UpdateLink(int link_fd, const SteerProgram& program);

// What a link says of itself. `interface_index` is 0 where the interface is gone: then the link holds
// nothing.
struct XdpLinkState {
  int interface_index = 0;
  uint32_t program_id = 0;
};
absl::StatusOr<XdpLinkState> StateOfLink(int link_fd);

absl::StatusOr<uint32_t> IdOfProgram(int program_fd);
absl::StatusOr<uint32_t> IdOfMap(int map_fd);
absl::StatusOr<XdpMode> ModeOn(const std::string& interface, int index);

}  // namespace weft::control

#endif  // WEFT_CONTROL_BPF_XDP_LINK_H_
