// SPDX-License-Identifier: Apache-2.0
// control.sock: answers those who ask how weft-control stands. The socket's mode, 0660, says who may. A
// client that does not read its answer is closed; nothing here waits for one. One thread.
#ifndef WEFT_CONTROL_DAEMON_CONTROL_SOCKET_H_
#define WEFT_CONTROL_DAEMON_CONTROL_SOCKET_H_

#include <poll.h>

#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "dataplane/api/admin.pb.h"
#include "dataplane/base/fd.h"

namespace weft::control {

class ControlSocket {
 public:
  // Connections that are kept open; the oldest gives way.
  static constexpr std::size_t kClientsMax = 32;

  // Listens on `path`. `status` makes the answer to a STATUS query.
  static absl::StatusOr<std::unique_ptr<ControlSocket>> Create(const std::string& path,
                                                               std::function<api::QueryReply()> status);

  void AddPollEntries(std::vector<pollfd>* entries) const;
  void OnEvents(const std::vector<pollfd>& entries);
  std::size_t clients() const { return clients_.size(); }

 private:
  ControlSocket(UniqueFd listener, std::function<api::QueryReply()> status)
      : listener_(std::move(listener)), status_(std::move(status)) {}

  void Accept();
  // False: the connection is of no more use.
  bool Serve(int fd);

  UniqueFd listener_;
  std::function<api::QueryReply()> status_;
  std::list<UniqueFd> clients_;  // Oldest first
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_DAEMON_CONTROL_SOCKET_H_
