// SPDX-License-Identifier: Apache-2.0
#include "control/daemon/control_socket.h"

#include <sys/socket.h>

#include <utility>

#include "dataplane/base/status.h"
#include "dataplane/base/unix_socket.h"

namespace weft::control {
namespace {

// Accepted or answered in one go, before other work of the thread gets its turn.
constexpr int kBatchMax = 16;

}  // namespace

absl::StatusOr<std::unique_ptr<ControlSocket>> ControlSocket::Create(
    const std::string& path, std::function<api::QueryReply()> status) {
  WEFT_ASSIGN_OR_RETURN(UniqueFd listener, ListenUnix(path, 0660));
  return std::unique_ptr<ControlSocket>(new ControlSocket(std::move(listener), std::move(status)));
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
    api::AdminReply reply;
    if (request.query().kind() == api::Query::STATUS && request.has_query()) {
      *reply.mutable_query_reply() = status_();
    } else {
      reply.mutable_failed()->set_code(static_cast<uint32_t>(absl::StatusCode::kUnimplemented));
      reply.mutable_failed()->set_reason("weft-control answers status queries only; ask the agent");
    }
    if (!SendMessage(fd, reply.SerializeAsString()).ok()) return false;
  }
  return true;
}

}  // namespace weft::control
