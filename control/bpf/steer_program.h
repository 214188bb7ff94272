// SPDX-License-Identifier: Apache-2.0
// The XDP program `steer` in the kernel with its maps, not yet attached to anything. weft-control loads it
// through control/bpf/steer.h; tests and benchmarks also run it by itself. CAP_BPF and CAP_NET_ADMIN suffice.
// It is gone with its object unless pinned or attached.
#ifndef WEFT_CONTROL_BPF_STEER_PROGRAM_H_
#define WEFT_CONTROL_BPF_STEER_PROGRAM_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bpf/abi/steer.h"
#include "dataplane/base/fd.h"
#include "dataplane/port/steer_table.h"

struct steer_bpf;

namespace weft::control {

struct SteerConfig {
  uint16_t port = WEFT_STEER_PORT_DEFAULT;  // Host byte order
};

// Descriptors of the maps that a program works on, each owned by whoever holds it.
struct SteerMaps {
  int keys = -1;
  int drops = -1;
  int xsks = -1;
};

class SteerProgram {
 public:
  // Loads the program, with new maps or, where `reuse` is given, with those of them that are not -1,
  // which must be of its layout.
  // Errors carry what libbpf and the verifier said. INVALID_ARGUMENT for a configuration that cannot be.
  static absl::StatusOr<SteerProgram> Load(const SteerConfig& config, const SteerMaps* reuse = nullptr);
  SteerProgram(SteerProgram&&) noexcept;
  SteerProgram& operator=(SteerProgram&&) noexcept;
  ~SteerProgram();

  // The object's own; valid as long as it is.
  int fd() const;
  SteerMaps maps() const;
  const SteerConfig& config() const { return config_; }

  // Maps the tables into this process.
  absl::StatusOr<port::SteerTable> MapTable() const;

  // Attaches it to an interface of this network namespace. The link's owner keeps it attached: closed without
  // a pin, it is detached. `generic`: on socket buffers, as any driver can, instead of in the driver. Errors
  // are errno's, with the interface's index; the kernel's EBUSY and EEXIST for an interface that has a
  // program.
  absl::StatusOr<UniqueFd> Attach(int interface_index, bool generic) const;

 private:
  struct Close {
    void operator()(steer_bpf* skeleton) const;
  };

  SteerProgram(std::unique_ptr<steer_bpf, Close> skeleton, const SteerConfig& config);

  std::unique_ptr<steer_bpf, Close> skeleton_;
  SteerConfig config_;
};

// Hash of the types of all maps: names, offsets and sizes of every field. Maps may be used by programs of the
// same layout only. Computed once from the object's own type information.
absl::StatusOr<uint64_t> SteerLayout();
// Hash of object file and configuration: two programs of the same one are the same.
uint64_t SteerIdentity(const SteerConfig& config);

// CPUs that the machine can have, for each of which the drops have a row.
absl::StatusOr<uint32_t> PossibleCpus();

}  // namespace weft::control

#endif  // WEFT_CONTROL_BPF_STEER_PROGRAM_H_
