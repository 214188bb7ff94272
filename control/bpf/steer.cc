// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/steer.h"

#include <bpf/bpf.h>
#include <net/if.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "control/bpf/bpffs.h"
#include "dataplane/base/status.h"

namespace weft::control {
namespace {

absl::Status OtherLayout(const SteerOptions& options, uint64_t pinned, uint64_t ours) {
  return absl::FailedPreconditionError(absl::StrFormat(
      "steer on %s: the maps pinned in %s have layout %016x, this version's is %016x. They hold keys in "
      "force and are "
      "not discarded; run the version that made them, or give them up: weft-control --steer-detach %s",
      options.interface, options.bpf_dir, pinned, ours, options.interface));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Steer>> Steer::Create(SteerOptions options) {
  WEFT_RETURN_IF_ERROR(CheckBpffs(options.bpf_dir));
  std::unique_ptr<Steer> steer(new Steer(std::move(options)));
  WEFT_RETURN_IF_ERROR(steer->Start());
  return steer;
}

absl::Status Steer::Start() {
  interface_index_ = static_cast<int>(if_nametoindex(options_.interface.c_str()));
  if (interface_index_ == 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("find interface ", options_.interface));
  WEFT_RETURN_IF_ERROR(pins_.Recover());
  WEFT_ASSIGN_OR_RETURN(const std::optional<SteerSet> current, pins_.Current());
  WEFT_ASSIGN_OR_RETURN(const uint64_t layout, SteerLayout());
  if (current.has_value() && current->info.layout != layout)
    return OtherLayout(options_, current->info.layout, layout);
  WEFT_ASSIGN_OR_RETURN(UniqueFd link, pins_.Link());
  XdpLinkState state;
  if (link.valid()) {
    WEFT_ASSIGN_OR_RETURN(state, StateOfLink(link.get()));
    if (state.interface_index == 0) {
      // Its interface is gone, and with it what the link held.
      WEFT_RETURN_IF_ERROR(pins_.DropLink());
      link.Reset();
    } else if (state.interface_index != interface_index_) {
      return absl::FailedPreconditionError(absl::StrCat(
          "steer on ", options_.interface, ": it is attached to interface ", state.interface_index,
          ", which had that name; to move it, run: weft-control --steer-detach ", options_.interface));
    }
  }
  if (link.valid() && current.has_value() && current->info.program == SteerIdentity(options_.config)) {
    WEFT_ASSIGN_OR_RETURN(const uint32_t id, IdOfProgram(current->program.get()));
    if (id == state.program_id) {
      origin_ = Origin::kReused;
      return Take();
    }
  }
  return Switch(current, std::move(link));
}

absl::Status Steer::Switch(const std::optional<SteerSet>& current, UniqueFd link) {
  SteerMaps reuse;
  if (current.has_value()) reuse = current->maps();
  WEFT_ASSIGN_OR_RETURN(const SteerProgram program,
                        SteerProgram::Load(options_.config, current.has_value() ? &reuse : nullptr));
  weft_steer_info info{};
  WEFT_ASSIGN_OR_RETURN(info.layout, SteerLayout());
  info.program = SteerIdentity(options_.config);
  info.port = options_.config.port;
  absl::Status done = pins_.Prepare(program, info);
  if (done.ok()) done = Activate(program, std::move(link));
  if (!done.ok()) {
    // The first error is the one to tell; what is left of the set, the next start removes.
    (void)pins_.Abandon();
    return done;
  }
  WEFT_RETURN_IF_ERROR(pins_.Commit());
  return Take();
}

absl::Status Steer::Activate(const SteerProgram& program, UniqueFd link) {
  if (link.valid()) {
    origin_ = Origin::kReplaced;
    return UpdateLink(link.get(), program);
  }
  origin_ = Origin::kAttached;
  WEFT_ASSIGN_OR_RETURN(XdpLink attached, AttachXdp(program, options_.interface, interface_index_));
  why_generic_ = attached.why_generic;
  return pins_.PinLink(attached.fd.get());
}

absl::Status Steer::Take() {
  WEFT_ASSIGN_OR_RETURN(std::optional<SteerSet> set, pins_.Current());
  if (!set.has_value())
    return absl::InternalError(absl::StrCat("steer: nothing is pinned in ", pins_.directory()));
  set_ = *std::move(set);
  WEFT_ASSIGN_OR_RETURN(const uint32_t cpus, PossibleCpus());
  const SteerMaps maps = set_.maps();
  WEFT_ASSIGN_OR_RETURN(port::SteerTable table, port::SteerTable::Map(maps.keys, maps.drops, cpus));
  table_ = std::make_unique<port::SteerTable>(std::move(table));
  WEFT_ASSIGN_OR_RETURN(mode_, ModeOn(options_.interface, interface_index_));
  return absl::OkStatus();
}

absl::Status Steer::Ensure() {
  WEFT_ASSIGN_OR_RETURN(const UniqueFd link, pins_.Link());
  if (link.valid()) {
    WEFT_ASSIGN_OR_RETURN(const XdpLinkState state, StateOfLink(link.get()));
    if (state.interface_index != 0 && state.interface_index == interface_index_) return absl::OkStatus();
  }
  why_generic_.clear();
  return Start();
}

absl::Status Steer::Detach(const std::string& bpf_dir, const std::string& interface) {
  WEFT_RETURN_IF_ERROR(CheckBpffs(bpf_dir));
  SteerPins pins(bpf_dir, interface);
  if (!pins.Any())
    return absl::NotFoundError(
        absl::StrCat("detach steer from ", interface, ": nothing is pinned in ", bpf_dir));
  WEFT_ASSIGN_OR_RETURN(const UniqueFd link, pins.Link());
  // Also where somebody else holds the link. An interface that is gone has nothing attached any more.
  if (link.valid()) {
    if (const int error = bpf_link_detach(link.get()); error != 0 && error != -ENOLINK)
      return absl::ErrnoToStatus(-error, absl::StrCat("detach steer from ", interface));
  }
  return pins.Remove();
}

}  // namespace weft::control
