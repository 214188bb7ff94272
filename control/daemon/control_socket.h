// SPDX-License-Identifier: Apache-2.0
// control.sock: answers those who ask how weft-control stands, and hands the maps of the XDP program to the
// agent. The socket's mode, 0660, and the agent's entry beside it say who may connect. A client that does not
// read its answer is closed; nothing here waits for one. One thread.
#ifndef WEFT_CONTROL_DAEMON_CONTROL_SOCKET_H_
#define WEFT_CONTROL_DAEMON_CONTROL_SOCKET_H_

#include <poll.h>
#include <sys/types.h>

#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "control/daemon/steer_service.h"
#include "dataplane/api/admin.pb.h"
#include "dataplane/base/fd.h"

namespace weft::control {

class ControlSocket {
 public:
  // Connections that are kept open; the oldest gives way.
  static constexpr std::size_t kClientsMax = 32;

  // Rows go out in as many packets as they need; each row fits one, and is cut where it would not. Packets
  // that a client has yet to read are in its socket's buffer: where they are more than that holds, it is
  // closed.
  struct Handlers {
    std::function<api::QueryReply()> status;                 // Makes the answer to a STATUS query.
    std::function<api::QueryReply(uint64_t after)> changes;  // Makes the answer to a CHANGES query.
    // Makes the answer to Explain: who said what of the call.
    std::function<api::QueryReply(const api::Explain&)> said;
    // Makes the answer to GetSteer.
    std::function<absl::StatusOr<SteerGrant>(const api::GetSteer&)> steer;
  };

  // Listens on `path`, where user `agent_uid` may connect too; it alone is given maps.
  static absl::StatusOr<std::unique_ptr<ControlSocket>> Create(const std::string& path, Handlers handlers,
                                                               uid_t agent_uid);

  void AddPollEntries(std::vector<pollfd>* entries) const;
  void OnEvents(const std::vector<pollfd>& entries);
  std::size_t clients() const { return clients_.size(); }

 private:
  ControlSocket(UniqueFd listener, Handlers handlers, uid_t agent_uid)
      : listener_(std::move(listener)), handlers_(std::move(handlers)), agent_uid_(agent_uid) {}

  void Accept();
  // False: the connection is of no more use.
  bool Serve(int fd);
  absl::StatusOr<SteerGrant> Grant(int fd, const api::GetSteer& request);

  UniqueFd listener_;
  Handlers handlers_;
  uid_t agent_uid_;
  std::list<UniqueFd> clients_;  // Oldest first
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_DAEMON_CONTROL_SOCKET_H_
