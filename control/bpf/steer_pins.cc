// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/steer_pins.h"

#include <bpf/bpf.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "control/bpf/bpffs.h"
#include "dataplane/base/status.h"

namespace weft::control {
namespace {

absl::StatusOr<UniqueFd> NewInfoMap(const weft_steer_info& info) {
  UniqueFd map(bpf_map_create(BPF_MAP_TYPE_ARRAY, "weft_info", sizeof(uint32_t), sizeof(info), 1, nullptr));
  if (!map.valid()) return absl::ErrnoToStatus(errno, "make the map weft_info");
  const uint32_t index = 0;
  if (const int error = bpf_map_update_elem(map.get(), &index, &info, BPF_ANY); error != 0)
    return absl::ErrnoToStatus(-error, "write the map weft_info");
  return map;
}

// A map of another size would be written behind its end.
absl::Status ReadInfo(int fd, weft_steer_info* info) {
  bpf_map_info map{};
  uint32_t bytes = sizeof(map);
  if (const int error = bpf_obj_get_info_by_fd(fd, &map, &bytes); error != 0)
    return absl::ErrnoToStatus(-error, "ask the map weft_info for its size");
  if (map.key_size != sizeof(uint32_t) || map.value_size != sizeof(*info))
    return absl::FailedPreconditionError("the map weft_info has another size than this version's");
  const uint32_t index = 0;
  if (const int error = bpf_map_lookup_elem(fd, &index, info); error != 0)
    return absl::ErrnoToStatus(-error, "read the map weft_info");
  return absl::OkStatus();
}

}  // namespace

SteerPins::SteerPins(const std::string& bpf_dir, const std::string& interface)
    : directory_(absl::StrCat(bpf_dir, "/steer-", PinName(interface))),
      link_(absl::StrCat(directory_, "/link")),
      maps_(absl::StrCat(directory_, "/maps")),
      next_(absl::StrCat(directory_, "/next")) {}

bool SteerPins::Any() const { return Exists(directory_); }

absl::Status SteerPins::Recover() {
  WEFT_RETURN_IF_ERROR(MakeDirectory(directory_));
  if (!Exists(next_)) return absl::OkStatus();
  WEFT_ASSIGN_OR_RETURN(const bool in_force, NextIsInForce());
  return in_force ? Commit() : Abandon();
}

absl::StatusOr<bool> SteerPins::NextIsInForce() const {
  const absl::StatusOr<UniqueFd> program = GetPinned(absl::StrCat(next_, "/program"));
  if (absl::IsNotFound(program.status())) return false;
  WEFT_RETURN_IF_ERROR(program.status());
  WEFT_ASSIGN_OR_RETURN(const UniqueFd link, Link());
  if (!link.valid()) return false;
  WEFT_ASSIGN_OR_RETURN(const XdpLinkState state, StateOfLink(link.get()));
  WEFT_ASSIGN_OR_RETURN(const uint32_t id, IdOfProgram(program->get()));
  return state.program_id == id;
}

absl::StatusOr<SteerSet> SteerPins::Open(const std::string& set) const {
  SteerSet opened;
  WEFT_ASSIGN_OR_RETURN(const UniqueFd info, GetPinned(absl::StrCat(set, "/info")));
  WEFT_RETURN_IF_ERROR(ReadInfo(info.get(), &opened.info));
  WEFT_ASSIGN_OR_RETURN(opened.program, GetPinned(absl::StrCat(set, "/program")));
  WEFT_ASSIGN_OR_RETURN(opened.keys, GetPinned(absl::StrCat(set, "/keys")));
  WEFT_ASSIGN_OR_RETURN(opened.drops, GetPinned(absl::StrCat(set, "/drops")));
  WEFT_ASSIGN_OR_RETURN(opened.xsks, GetPinned(absl::StrCat(set, "/xsks")));
  return opened;
}

absl::StatusOr<std::optional<SteerSet>> SteerPins::Current() const {
  if (!Exists(maps_)) return std::optional<SteerSet>();
  WEFT_ASSIGN_OR_RETURN(SteerSet set, Open(maps_));
  return std::optional<SteerSet>(std::move(set));
}

absl::StatusOr<UniqueFd> SteerPins::Link() const {
  absl::StatusOr<UniqueFd> link = GetPinned(link_);
  if (absl::IsNotFound(link.status())) return UniqueFd();
  return link;
}

absl::Status SteerPins::Prepare(const SteerProgram& program, const weft_steer_info& info) {
  WEFT_RETURN_IF_ERROR(MakeDirectory(next_));
  WEFT_ASSIGN_OR_RETURN(const UniqueFd info_map, NewInfoMap(info));
  const SteerMaps maps = program.maps();
  WEFT_RETURN_IF_ERROR(Pin(info_map.get(), absl::StrCat(next_, "/info")));
  WEFT_RETURN_IF_ERROR(Pin(maps.keys, absl::StrCat(next_, "/keys")));
  WEFT_RETURN_IF_ERROR(Pin(maps.drops, absl::StrCat(next_, "/drops")));
  WEFT_RETURN_IF_ERROR(Pin(maps.xsks, absl::StrCat(next_, "/xsks")));
  // Last: a set with a program is complete.
  return Pin(program.fd(), absl::StrCat(next_, "/program"));
}

absl::Status SteerPins::PinLink(int link_fd) { return Pin(link_fd, link_); }
absl::Status SteerPins::DropLink() { return Unpin(link_); }

absl::Status SteerPins::Commit() {
  WEFT_RETURN_IF_ERROR(RemovePins(maps_));
  return RenamePins(next_, maps_);
}

absl::Status SteerPins::Abandon() { return RemovePins(next_); }

absl::Status SteerPins::Remove() {
  WEFT_RETURN_IF_ERROR(Unpin(link_));
  WEFT_RETURN_IF_ERROR(RemovePins(next_));
  WEFT_RETURN_IF_ERROR(RemovePins(maps_));
  return RemovePins(directory_);
}

}  // namespace weft::control
