// SPDX-License-Identifier: Apache-2.0
// Fetches the maps of the XDP program from weft-control. Blocks; for the thread of the link to other nodes.
#ifndef WEFT_DATAPLANE_AGENT_STEER_CLIENT_H_
#define WEFT_DATAPLANE_AGENT_STEER_CLIENT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "dataplane/base/fd.h"

namespace weft::agent {

struct SteerMaps {
  UniqueFd xsks;
  UniqueFd keys;
  UniqueFd drops;
  uint32_t cpus = 0;
  bool native = false;
  // What tells these maps from others: of another interface of the same name, or made anew.
  uint32_t interface_index = 0;
  uint32_t keys_id = 0;
  uint32_t xsks_id = 0;
};

// Asks RUN_DIR/control.sock for what steers `interface` to UDP port `port`; at most a second. UNAVAILABLE: no
// weft-control answers there now; another code is its refusal, which says why.
absl::StatusOr<SteerMaps> AskForSteering(const std::string& run_dir, const std::string& interface,
                                         uint16_t port);

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_STEER_CLIENT_H_
