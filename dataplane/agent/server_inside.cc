// SPDX-License-Identifier: Apache-2.0
// Node engines inside hosts. Each has a connection of its own, which weftd makes and hands to the host: what
// comes over it is the engine inside that host and nothing else, whatever it claims. It goes with its host,
// and the host with it, so that the two are always given anew together.
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/agent/refusal.h"
#include "dataplane/agent/server.h"
#include "spdlog/spdlog.h"

namespace weft::agent {

// The host has been admitted and may have an engine. Where it cannot be given one, its calls go by weftd's.
void Server::OpenInside(Connection& host) {
  const std::string& name = engine_->state().Find(host.id)->host;
  const auto refuse = [&](const absl::Status& why) {
    if (!MayLog(*host.tenant)) return;
    spdlog::warn("host {} gets no node engine inside, its calls go through this one: {}", name,
                 std::string(why.message()));
  };
  if (node_link_ == nullptr) return refuse(absl::UnavailableError("there is no link to other nodes"));
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0)
    return refuse(absl::ErrnoToStatus(errno, "make a socket pair"));
  UniqueFd mine(ends[0]);
  UniqueFd theirs(ends[1]);
  absl::StatusOr<NodeLink::Inside> inside =
      node_link_->AddInside(name, host.tenant->name, host.tenant->raw_packets);
  if (!inside.ok()) return refuse(inside.status());
  auto connection = std::make_unique<Connection>();
  connection->id = ++last_session_;
  connection->socket = std::move(mine);
  connection->peer = host.peer;
  connection->is_engine = true;
  connection->inside_of = host.id;
  connection->inside_host = name;
  connection->worker = inside->worker;
  connection->tenant = host.tenant;
  host.inside = connection->id;
  inside_sessions_[inside->worker] = connection->id;
  Connection& held = *connections_.emplace(connection->id, std::move(connection)).first->second;
  api::ToHost message;
  *message.mutable_inside_engine() = inside->given;
  std::vector<UniqueFd> fds;
  fds.push_back(std::move(theirs));
  fds.push_back(std::move(inside->socket));
  if (inside->twin.valid()) fds.push_back(std::move(inside->twin));
  spdlog::info("host {} runs the node engine for its own calls, as worker {}", name, inside->worker);
  if (!Watch(held.socket.get(), held.id, EPOLLIN).ok()) return Close(held.id, "its socket cannot be watched");
  SendTo(host, message.SerializeAsString(), std::move(fds));
}

// `connection` is being closed, and is not in connections_ any more.
void Server::CloseInside(Connection& connection, const std::string& reason) {
  if (connection.inside != 0) Close(connection.inside, absl::StrCat("its host: ", reason));
  if (connection.inside_of == 0) return;
  inside_sessions_.erase(connection.worker);
  node_link_->RemoveInside(connection.worker);
  Close(connection.inside_of, absl::StrCat("its node engine: ", reason));
}

// What the link to other nodes has to say to engines inside hosts.
void Server::CarryInsideMail() {
  for (InsideMail& mail : door_.TakeMail()) {
    const auto found = inside_sessions_.find(mail.worker);
    if (found == inside_sessions_.end()) continue;
    Connection& connection = *connections_.at(found->second);
    if (!mail.end.ok()) {
      RefuseAndClose(connection, mail.end);
      continue;
    }
    if (!mail.xdp_fds.empty()) {
      api::ToHost message;
      *message.mutable_xdp_socket() = std::move(mail.xdp);
      SendTo(*connections_.at(connection.inside_of), message.SerializeAsString(), std::move(mail.xdp_fds));
      continue;
    }
    api::ToHost message;
    *message.mutable_peer_keys() = std::move(mail.keys);
    SendTo(connection, message.SerializeAsString());
  }
}

}  // namespace weft::agent
