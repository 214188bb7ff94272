// SPDX-License-Identifier: Apache-2.0
// The interfaces on which weft-control has the XDP program `steer` attached, and what it tells of them: maps
// to the agent, rows to weftctl. Attached they stay when weft-control ends. On its only thread.
#ifndef WEFT_CONTROL_DAEMON_STEER_SERVICE_H_
#define WEFT_CONTROL_DAEMON_STEER_SERVICE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "control/bpf/steer.h"
#include "dataplane/api/admin.pb.h"

namespace weft::control {

// An answer to GetSteer and the descriptors that go with it, which stay the service's.
struct SteerGrant {
  api::SteerMaps reply;
  std::vector<int> fds;  // XSKMAP, key table, drops
};

class SteerService {
 public:
  // Attaches to every one of `interfaces`, and logs how. The first that fails ends it.
  static absl::StatusOr<SteerService> Create(const std::vector<std::string>& interfaces,
                                             const std::string& bpf_dir, const SteerConfig& config);

  // NOT_FOUND where the interface is none of these; FAILED_PRECONDITION where it is steered by another port.
  absl::StatusOr<SteerGrant> Grant(const api::GetSteer& request);

  // Appends a row for each interface to the reply to a status query.
  void AddStatus(api::QueryReply* reply);

 private:
  SteerService() = default;

  std::vector<std::unique_ptr<Steer>> steers_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_DAEMON_STEER_SERVICE_H_
