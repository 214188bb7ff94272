// SPDX-License-Identifier: Apache-2.0
// The XDP program `steer` on one interface, in weft-control's care: loaded, attached by a pinned link, found
// again after a restart, replaced in place after an upgrade, and there without weft-control until somebody
// asks for it to go. One thread; everything here may block.
#ifndef WEFT_CONTROL_BPF_STEER_H_
#define WEFT_CONTROL_BPF_STEER_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/bpf/steer_pins.h"
#include "control/bpf/steer_program.h"
#include "control/bpf/xdp_link.h"
#include "dataplane/port/steer_table.h"

namespace weft::control {

struct SteerOptions {
  std::string bpf_dir;  // A BPF file system of the caller's user: RUN_DIR/bpf.
  std::string interface;
  SteerConfig config;
};

class Steer {
 public:
  enum class Origin {
    kAttached,  // Nothing was attached.
    kReused,    // The same program was attached, and was left alone.
    kReplaced,  // Another version or configuration was attached; its maps, keys, counters and sockets go on.
  };

  // Has it attached when it returns. Errors name the object and the cause:
  // - FAILED_PRECONDITION: no BPF file system (with the command to run), or maps of another layout are
  //   pinned: they hold keys in force and are not discarded;
  // - ALREADY_EXISTS: another program holds the interface (named);
  // - NOT_FOUND: no such interface; PERMISSION_DENIED: CAP_BPF and CAP_NET_ADMIN are needed, and suffice.
  static absl::StatusOr<std::unique_ptr<Steer>> Create(SteerOptions options);

  // Attaches it anew where its interface went away and another has its name. Cheap where all is well.
  absl::Status Ensure();

  const std::string& interface() const { return options_.interface; }
  int interface_index() const { return interface_index_; }
  const SteerConfig& config() const { return options_.config; }
  Origin origin() const { return origin_; }
  XdpMode mode() const { return mode_; }
  // Why the driver did not take it, where this object attached it; else empty.
  const std::string& why_generic() const { return why_generic_; }

  // For weftd, which puts its sockets into `xsks` and maps the others. Valid until Ensure() attaches anew.
  SteerMaps maps() const { return set_.maps(); }
  // Which keys are let through, at what rate, and what was counted.
  port::SteerTable& table() { return *table_; }

  // Detaches what is attached to `interface` and removes what is pinned for it, of whatever version.
  // NOT_FOUND where nothing is. Needs no interface of that name any more.
  static absl::Status Detach(const std::string& bpf_dir, const std::string& interface);

 private:
  explicit Steer(SteerOptions options)
      : options_(std::move(options)), pins_(options_.bpf_dir, options_.interface) {}

  absl::Status Start();
  // Loads the program and puts it into force, on the maps of `current` as far as they fit.
  absl::Status Switch(const std::optional<SteerSet>& current, UniqueFd link);
  absl::Status Activate(const SteerProgram& program, UniqueFd link);
  absl::Status Take();

  SteerOptions options_;
  SteerPins pins_;
  int interface_index_ = 0;
  Origin origin_ = Origin::kAttached;
  XdpMode mode_ = XdpMode::kNone;
  std::string why_generic_;
  SteerSet set_;
  std::unique_ptr<port::SteerTable> table_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_BPF_STEER_H_
