// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/xdp_link.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "control/bpf/libbpf_log.h"
#include "dataplane/base/status.h"
#include "dataplane/port/next_hop.h"

namespace weft::control {
namespace {

struct Occupant {
  uint32_t program_id = 0;  // 0: none.
  XdpMode mode = XdpMode::kNone;
};

absl::StatusOr<Occupant> OccupantOf(const std::string& interface, int index) {
  const LibbpfLog log;
  LIBBPF_OPTS(bpf_xdp_query_opts, query);
  if (const int error = bpf_xdp_query(index, 0, &query); error != 0)
    return log.ToStatus(-error, absl::StrCat("ask for the XDP program of ", interface));
  // With programs in several modes the plain id is 0.
  uint32_t id = query.prog_id;
  for (const uint32_t other : {query.drv_prog_id, query.hw_prog_id, query.skb_prog_id})
    id = id != 0 ? id : other;
  if (id == 0) return Occupant{};
  return Occupant{id, query.attach_mode == XDP_ATTACHED_SKB ? XdpMode::kGeneric : XdpMode::kNative};
}

// The name needs more privilege than weft-control has; the id does not, and root finds the rest by it.
std::string Describe(const Occupant& occupant) {
  std::string text = absl::StrCat("XDP program ", occupant.program_id);
  const UniqueFd fd(bpf_prog_get_fd_by_id(occupant.program_id));
  bpf_prog_info info{};
  uint32_t bytes = sizeof(info);
  if (fd.valid() && bpf_obj_get_info_by_fd(fd.get(), &info, &bytes) == 0)
    absl::StrAppend(&text, " \"", std::string(info.name, strnlen(info.name, sizeof(info.name))), "\"");
  return absl::StrCat(text, occupant.mode == XdpMode::kGeneric ? " (generic)" : " (native)");
}

absl::Status Occupied(const std::string& interface, const Occupant& occupant) {
  return absl::AlreadyExistsError(absl::StrCat(
      "attach steer to ", interface, ": ", Describe(occupant),
      " holds the interface and is not replaced; see: bpftool prog show id ", occupant.program_id));
}

}  // namespace

XdpMode BestModeFor(const std::string& interface) {
  return port::IsVeth(interface) && port::QueuesOf(interface) == 1 ? XdpMode::kGeneric : XdpMode::kNative;
}

absl::StatusOr<XdpLink> AttachXdp(const SteerProgram& program, const std::string& interface, int index) {
  WEFT_ASSIGN_OR_RETURN(const Occupant before, OccupantOf(interface, index));
  if (before.program_id != 0) return Occupied(interface, before);
  XdpLink link;
  link.mode = BestModeFor(interface);
  absl::StatusOr<UniqueFd> fd = program.Attach(index, link.mode == XdpMode::kGeneric);
  if (!fd.ok() && !absl::IsPermissionDenied(fd.status()) && link.mode == XdpMode::kNative) {
    // Somebody may have been faster; then generic mode must not stand beside him.
    WEFT_ASSIGN_OR_RETURN(const Occupant now, OccupantOf(interface, index));
    if (now.program_id != 0) return Occupied(interface, now);
    link.why_generic = std::string(fd.status().message());
    link.mode = XdpMode::kGeneric;
    fd = program.Attach(index, true);
  }
  if (!fd.ok()) {
    return absl::Status(fd.status().code(), absl::StrCat("interface ", interface, ": ", fd.status().message(),
                                                         " (it takes CAP_BPF and CAP_NET_ADMIN)"));
  }
  link.fd = *std::move(fd);
  return link;
}

absl::Status UpdateLink(int link_fd, const SteerProgram& program) {
  if (const int error = bpf_link_update(link_fd, program.fd(), nullptr); error != 0)
    return absl::ErrnoToStatus(-error, "replace the program of the link of steer");
  return absl::OkStatus();
}

absl::StatusOr<XdpLinkState> StateOfLink(int link_fd) {
  bpf_link_info info{};
  uint32_t bytes = sizeof(info);
  if (const int error = bpf_obj_get_info_by_fd(link_fd, &info, &bytes); error != 0)
    return absl::ErrnoToStatus(-error, "ask the link of steer for its state");
  if (info.type != BPF_LINK_TYPE_XDP)
    return absl::FailedPreconditionError("the link of steer is not one of XDP");
  return XdpLinkState{static_cast<int>(info.xdp.ifindex), info.prog_id};
}

absl::StatusOr<uint32_t> IdOfProgram(int program_fd) {
  bpf_prog_info info{};
  uint32_t bytes = sizeof(info);
  if (const int error = bpf_obj_get_info_by_fd(program_fd, &info, &bytes); error != 0)
    return absl::ErrnoToStatus(-error, "ask the program steer for its id");
  return info.id;
}

absl::StatusOr<uint32_t> IdOfMap(int map_fd) {
  bpf_map_info info{};
  uint32_t bytes = sizeof(info);
  if (const int error = bpf_obj_get_info_by_fd(map_fd, &info, &bytes); error != 0)
    return absl::ErrnoToStatus(-error, "ask a map of steer for its id");
  return info.id;
}

absl::StatusOr<XdpMode> ModeOn(const std::string& interface, int index) {
  WEFT_ASSIGN_OR_RETURN(const Occupant occupant, OccupantOf(interface, index));
  return occupant.mode;
}

}  // namespace weft::control
