// SPDX-License-Identifier: Apache-2.0
#include "dataplane/agent/steer_client.h"

#include <poll.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/api/admin.pb.h"
#include "dataplane/base/status.h"
#include "dataplane/base/unix_socket.h"

namespace weft::agent {
namespace {

constexpr int kAnswerMs = 1000;

absl::Status NotThere(const absl::Status& why) {
  // Its program stays attached without it, with the keys that an agent before this one entered.
  const char* const hint =
      absl::IsPermissionDenied(why)
          ? "; weft-control's --agent-user must be this user"
          : "; where it has left a program attached, that drops what comes under new keys until it is back";
  return absl::UnavailableError(absl::StrCat(why.message(), hint));
}

}  // namespace

absl::StatusOr<SteerMaps> AskForSteering(const std::string& run_dir, const std::string& interface,
                                         uint16_t port) {
  absl::StatusOr<UniqueFd> socket = ConnectUnix(run_dir + "/control.sock");
  if (!socket.ok()) return NotThere(socket.status());
  api::AdminRequest request;
  request.mutable_get_steer()->set_interface(interface);
  request.mutable_get_steer()->set_port(port);
  if (const absl::Status sent = SendMessage(socket->get(), request.SerializeAsString()); !sent.ok())
    return NotThere(sent);
  if (const absl::Status ready = WaitReady(socket->get(), POLLIN, kAnswerMs); !ready.ok())
    return NotThere(ready);
  absl::StatusOr<ReceivedMessage> message = ReceiveMessage(socket->get());
  if (!message.ok()) return NotThere(message.status());
  api::AdminReply reply;
  if (!reply.ParseFromString(message->bytes))
    return absl::UnavailableError("weft-control's answer cannot be read");
  if (reply.has_failed()) {
    // Asked again it would say the same.
    return absl::FailedPreconditionError(reply.failed().reason());
  }
  if (!reply.has_steer_maps() || message->fds.size() != 3) {
    return absl::FailedPreconditionError("weft-control gave no maps");
  }
  SteerMaps maps;
  maps.xsks = std::move(message->fds[0]);
  maps.keys = std::move(message->fds[1]);
  maps.drops = std::move(message->fds[2]);
  maps.cpus = reply.steer_maps().cpus();
  maps.native = reply.steer_maps().native();
  maps.interface_index = reply.steer_maps().interface_index();
  maps.keys_id = reply.steer_maps().keys_id();
  maps.xsks_id = reply.steer_maps().xsks_id();
  return maps;
}

}  // namespace weft::agent
