// SPDX-License-Identifier: Apache-2.0
#include "control/daemon/control_socket.h"

#include <sys/socket.h>
#include <unistd.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/api/query_packets.h"
#include "dataplane/base/socket_acl.h"
#include "dataplane/base/status.h"
#include "dataplane/base/text.h"
#include "dataplane/base/unix_socket.h"

namespace weft::control {
namespace {

// Accepted or answered in one go, before other work of the thread gets its turn.
constexpr int kBatchMax = 16;

absl::Status SendRows(int fd, api::QueryReply rows) {
  for (api::QueryReply& part : api::PacketsOf(std::move(rows), Utf8Prefix)) {
    api::AdminReply reply;
    *reply.mutable_query_reply() = std::move(part);
    WEFT_RETURN_IF_ERROR(SendMessage(fd, reply.SerializeAsString()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ControlSocket>> ControlSocket::Create(const std::string& path,
                                                                     Handlers handlers, uid_t agent_uid) {
  absl::StatusOr<UniqueFd> listened = ListenUnix(path, 0660);
  if (absl::IsNotFound(listened.status())) {
    return absl::NotFoundError(absl::StrCat("listen on ", path,
                                            ": its directory does not exist; weftd makes it when it starts, "
                                            "is --run-dir right?"));
  }
  WEFT_ASSIGN_OR_RETURN(UniqueFd listener, std::move(listened));
  if (agent_uid != geteuid()) WEFT_RETURN_IF_ERROR(GrantSocket(path, agent_uid));
  return std::unique_ptr<ControlSocket>(
      new ControlSocket(std::move(listener), std::move(handlers), agent_uid));
}

void ControlSocket::AddPollEntries(std::vector<pollfd>* entries) const {
  entries->push_back({listener_.get(), POLLIN, 0});
  for (const UniqueFd& client : clients_) entries->push_back({client.get(), POLLIN, 0});
}

void ControlSocket::OnEvents(const std::vector<pollfd>& entries) {
  for (const pollfd& entry : entries) {
    if (entry.revents == 0) continue;
    if (entry.fd == listener_.get()) {
      Accept();
      continue;
    }
    for (auto it = clients_.begin(); it != clients_.end(); ++it) {
      if (it->get() != entry.fd) continue;
      if (!Serve(entry.fd)) clients_.erase(it);
      break;
    }
  }
}

void ControlSocket::Accept() {
  for (int i = 0; i < kBatchMax; ++i) {
    UniqueFd client(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!client.valid()) return;
    if (clients_.size() >= kClientsMax) clients_.pop_front();
    clients_.push_back(std::move(client));
  }
}

bool ControlSocket::Serve(int fd) {
  for (int i = 0; i < kBatchMax; ++i) {
    const absl::StatusOr<ReceivedMessage> message = ReceiveMessage(fd);
    if (absl::IsUnavailable(message.status())) return true;
    api::AdminRequest request;
    if (!message.ok() || message->truncated || !message->fds.empty() ||
        !request.ParseFromString(message->bytes)) {
      return false;
    }
    std::optional<api::QueryReply> rows;
    if (request.query().kind() == api::Query::STATUS && request.has_query()) {
      rows = handlers_.status();
    } else if (request.query().kind() == api::Query::CHANGES) {
      rows = handlers_.changes(request.query().after());
    } else if (request.has_explain()) {
      rows = handlers_.said(request.explain());
    }
    if (rows.has_value()) {
      if (!SendRows(fd, *std::move(rows)).ok()) return false;
      continue;
    }
    api::AdminReply reply;
    std::vector<int> fds;
    if (request.has_get_steer()) {
      absl::StatusOr<SteerGrant> grant = Grant(fd, request.get_steer());
      if (grant.ok()) {
        *reply.mutable_steer_maps() = std::move(grant->reply);
        fds = std::move(grant->fds);
      } else {
        reply.mutable_failed()->set_code(static_cast<uint32_t>(grant.status().code()));
        reply.mutable_failed()->set_reason(std::string(grant.status().message()));
      }
    } else {
      reply.mutable_failed()->set_code(static_cast<uint32_t>(absl::StatusCode::kUnimplemented));
      reply.mutable_failed()->set_reason(
          "weft-control answers for its status and its sources; ask the agent");
    }
    if (!SendMessage(fd, reply.SerializeAsString(), fds).ok()) return false;
  }
  return true;
}

absl::StatusOr<SteerGrant> ControlSocket::Grant(int fd, const api::GetSteer& request) {
  WEFT_ASSIGN_OR_RETURN(const PeerCredentials peer, CredentialsOf(fd));
  if (peer.uid != agent_uid_) {
    return absl::PermissionDeniedError(absl::StrCat("maps are handed to the agent's user, ", agent_uid_,
                                                    ", only; user ", peer.uid, " asked"));
  }
  return handlers_.steer(request);
}

}  // namespace weft::control
