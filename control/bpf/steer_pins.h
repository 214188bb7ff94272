// SPDX-License-Identifier: Apache-2.0
// What is pinned for one interface, and how one set of it takes the place of another without a moment at
// which a crash could lose either. Under <bpffs>/steer-<interface>/:
//   link   the bpf_link, which keeps the program attached whoever dies
//   maps/  the set in force: program, keys, drops, xsks, info
//   next/  a set on its way; it is in force as soon as the link holds its program
#ifndef WEFT_CONTROL_BPF_STEER_PINS_H_
#define WEFT_CONTROL_BPF_STEER_PINS_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bpf/abi/steer.h"
#include "control/bpf/steer_program.h"
#include "control/bpf/xdp_link.h"
#include "dataplane/base/fd.h"

namespace weft::control {

struct SteerSet {
  UniqueFd program;
  UniqueFd keys;
  UniqueFd drops;
  UniqueFd xsks;
  weft_steer_info info{};

  SteerMaps maps() const { return {.keys = keys.get(), .drops = drops.get(), .xsks = xsks.get()}; }
};

class SteerPins {
 public:
  SteerPins(const std::string& bpf_dir, const std::string& interface);

  const std::string& directory() const { return directory_; }
  bool Any() const;

  // Makes the directory and ends a switch that a crash interrupted, forward or back.
  absl::Status Recover();
  // The set in force; none where nothing is pinned.
  absl::StatusOr<std::optional<SteerSet>> Current() const;
  // Invalid where none is pinned.
  absl::StatusOr<UniqueFd> Link() const;

  // Pins a set beside the one in force.
  absl::Status Prepare(const SteerProgram& program, const weft_steer_info& info);
  absl::Status PinLink(int link_fd);
  absl::Status DropLink();
  // The set that was prepared is in force now, or not wanted any more.
  absl::Status Commit();
  absl::Status Abandon();
  // Removes everything of this interface.
  absl::Status Remove();

 private:
  absl::StatusOr<SteerSet> Open(const std::string& set) const;
  // Whether the link holds the program of the set on its way.
  absl::StatusOr<bool> NextIsInForce() const;

  std::string directory_;
  std::string link_;
  std::string maps_;
  std::string next_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_BPF_STEER_PINS_H_
