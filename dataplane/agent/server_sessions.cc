// SPDX-License-Identifier: Apache-2.0
// Connections: admitting them, taking their messages apart, refusing and closing.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "dataplane/agent/admission.h"
#include "dataplane/agent/server.h"
#include "dataplane/base/check.h"
#include "dataplane/base/status.h"
#include "dataplane/base/text.h"
#include "dataplane/channel/layout.h"
#include "dataplane/channel/side_memory.h"
#include "spdlog/spdlog.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77  // Linux 6.5; Debian 12's headers are older.
#endif

namespace weft::agent {
namespace {

constexpr uint64_t kHelloNs = 5 * kNsPerSecond;
// All parts of one Hello: 4,096 channels with a table of a few callers each.
constexpr std::size_t kHelloBytesMax = 2 * 1024 * 1024;
// Out of descriptors: hosts that leave give some back.
constexpr uint64_t kAcceptPauseNs = 100 * kNsPerMs;
// What one event may take from one listener or one peer before the others have their turn.
constexpr int kAcceptsMax = 64;
constexpr int kMessagesMax = 16;
// Of what a refused peer, its log line and its peers are told.
constexpr std::size_t kReasonBytesMax = 1000;
// Of control_user and root on the admin socket.
constexpr uint32_t kAdminConnectionsMax = 256;

// A pidfd of the process that connected `socket`. Before Linux 6.5 it is found by number, and a process that
// died and whose number was given anew since is mistaken for it: its death is then seen by the socket only.
UniqueFd ProcessOf(int socket, pid_t pid) {
  int fd = -1;
  socklen_t bytes = sizeof(fd);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &bytes) == 0) return UniqueFd(fd);
  return UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
}

bool Readable(int fd, short events) {
  pollfd entry{fd, events, 0};
  return poll(&entry, 1, 0) > 0 && (entry.revents & (events | POLLHUP | POLLERR)) != 0;
}

}  // namespace

absl::Status Server::CheckConnection(const PeerCredentials& peer, bool admin, const Tenant** tenant) const {
  const auto count = connections_of_.find({peer.uid, admin});
  const uint32_t held = count == connections_of_.end() ? 0 : count->second;
  if (reaper_.Overloaded(peer.uid)) {
    return Refuse(Refusal::kTooManyBlockedFds,
                  absl::StrCat("uid ", peer.uid, " has sent descriptors that do not close"));
  }
  // The operator and control get in where hosts do not any more.
  if (connections_.size() >= connections_max_ + (admin ? kAdminConnectionsMax : 0)) {
    return Refuse(Refusal::kTooManyConnections,
                  absl::StrCat("the agent has ", connections_.size(), " connections already"));
  }
  if (admin) {
    *tenant = &admin_tenant_;
    if (held < kAdminConnectionsMax) return absl::OkStatus();
    return Refuse(Refusal::kTooManyConnections,
                  absl::StrCat("uid ", peer.uid, " has ", held, " connections already"));
  }
  *tenant = FindTenant(options_.config, peer.uid);
  if (*tenant == nullptr)
    return Refuse(Refusal::kNotAdmitted,
                  absl::StrCat("uid ", peer.uid, " belongs to no tenant of this node"));
  if (held >= (*tenant)->limits.hosts + (*tenant)->limits.clients) {
    return Refuse(Refusal::kTooManyConnections,
                  absl::StrCat("tenant ", (*tenant)->name, " has ", held, " connections already"));
  }
  return absl::OkStatus();
}

void Server::Accept(bool admin) {
  const int listener = admin ? admin_listener_.get() : agent_listener_.get();
  for (int i = 0; i < kAcceptsMax; ++i) {
    UniqueFd socket(accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket.valid()) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
        spdlog::warn("cannot accept connections: {}; trying again in 100 ms",
                     absl::ErrnoToStatus(errno, "accept").ToString());
        SetAccepting(false);
        accept_again_ns_ = NowNs() + kAcceptPauseNs;
      }
      return;
    }
    const absl::StatusOr<PeerCredentials> peer = CredentialsOf(socket.get());
    if (!peer.ok()) continue;
    AcceptOne(std::move(socket), *peer, admin);
  }
}

void Server::AcceptEngine() {
  for (EngineDoor::Caller& caller : door_.Take()) {
    auto connection = std::make_unique<Connection>();
    connection->id = ++last_session_;
    connection->socket = std::move(caller.socket);
    connection->worker = caller.worker;
    connection->peer = {getpid(), geteuid(), getegid()};
    connection->is_engine = true;
    connection->tenant = &engine_tenant_;
    Connection& held = *connections_.emplace(connection->id, std::move(connection)).first->second;
    if (!Watch(held.socket.get(), held.id, EPOLLIN).ok()) Close(held.id, "its socket cannot be watched");
  }
  CarryInsideMail();
  CarryDrainMail();
}

void Server::AcceptOne(UniqueFd socket, const PeerCredentials& peer, bool admin) {
  auto connection = std::make_unique<Connection>();
  connection->id = ++last_session_;
  connection->socket = std::move(socket);
  connection->peer = peer;
  connection->on_admin_socket = admin;
  const absl::Status allowed = CheckConnection(peer, admin, &connection->tenant);
  ++connections_of_[{peer.uid, admin}];
  Connection& held = *connections_.emplace(connection->id, std::move(connection)).first->second;
  if (!allowed.ok()) return RefuseAndClose(held, allowed);
  held.process = ProcessOf(held.socket.get(), peer.pid);
  if (!held.process.valid() || !Watch(held.process.get(), held.id | kTagProcess, EPOLLIN).ok() ||
      !Watch(held.socket.get(), held.id, EPOLLIN).ok()) {
    return Close(held.id, "its process cannot be watched");
  }
  hello_due_.emplace_back(NowNs() + kHelloNs, held.id);
  if (admin && MayProgram(held)) PushRegistrations(held.id);
}

void Server::Close(SessionId id, const std::string& reason) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  const std::unique_ptr<Connection> connection = std::move(found->second);
  connections_.erase(found);
  const uid_t owner = connection->peer.uid;
  if (!connection->is_engine) {
    const auto count = connections_of_.find({owner, connection->on_admin_socket});
    if (--count->second == 0) connections_of_.erase(count);
  }
  if (connection->role == Connection::Role::kHost) {
    const Session* session = engine_->state().Find(id);
    if (session != nullptr && !session->is_client && MayLog(*connection->tenant))
      spdlog::info("host {} has left: {}", session->host, reason);
    // A host that is drained ends, and what it said last may have been read in this very turn.
    const std::string name = session == nullptr ? "" : session->host;
    const bool drained = session != nullptr && session->drained;
    engine_->Detach(id, reason, NowNs());
    TellDrained(id, name, drained);
  }
  CloseInside(*connection, reason);
  ForgetRuns(id, reason);
  engine_->ForgetProgrammer(id);
  std::erase_if(drain_waiters_, [&](const auto& entry) { return entry.second == id; });
  std::erase_if(queries_, [&](const auto& entry) { return entry.second.asker == id; });
  for (auto& [number, query] : queries_) query.waiting.erase(id);
  // The peer learns of it now, however long the close below takes.
  (void)shutdown(connection->socket.get(), SHUT_RDWR);
  // The socket may hold descriptors that were never received, and the queue doorbells that the peer's peer
  // has used.
  for (UniqueFd* fd : {&connection->socket, &connection->process}) {
    if (fd->valid()) (void)epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd->get(), nullptr);
    CloseLater(owner, std::move(*fd));
  }
  for (Connection::Outgoing& outgoing : connection->queue) {
    for (UniqueFd& fd : outgoing.fds) CloseLater(owner, std::move(fd));
  }
}

// Nothing more is taken from a user: each of its sockets may hold more of what cannot be closed.
void Server::CloseAllOf(uid_t owner, const std::string& reason) {
  std::vector<SessionId> theirs;
  for (const auto& [id, connection] : connections_) {
    if (connection->peer.uid == owner) theirs.push_back(id);
  }
  spdlog::warn("closing {} connections of uid {}: {}", theirs.size(), owner, reason);
  for (const SessionId id : theirs) Close(id, reason);
}

void Server::RefuseAndClose(Connection& connection, const absl::Status& why) {
  refusals_.Count(RefusalOf(why));
  // It may quote a name as long as a message.
  const std::string reason(Utf8Prefix(why.message(), kReasonBytesMax));
  const Session* session = engine_->state().Find(connection.id);
  if (log_limit_.Allow(NowNs())) {
    spdlog::warn("refused uid {} pid {}{}: {}", connection.peer.uid, connection.peer.pid,
                 session == nullptr ? "" : absl::StrCat(" host ", session->host), reason);
  }
  if (connection.role == Connection::Role::kAdmin) {
    api::AdminReply reply;
    reply.mutable_failed()->set_code(static_cast<uint32_t>(why.code()));
    reply.mutable_failed()->set_reason(reason);
    (void)connection.Send(reply.SerializeAsString(), {});
  } else {
    api::ToHost message;
    message.mutable_refused()->set_code(static_cast<uint32_t>(why.code()));
    message.mutable_refused()->set_reason(reason);
    (void)connection.Send(message.SerializeAsString(), {});
  }
  Close(connection.id, reason);
}

void Server::Receive(Connection& connection) {
  const SessionId id = connection.id;
  for (int i = 0; i < kMessagesMax; ++i) {
    absl::StatusOr<ReceivedMessage> message = ReceiveMessage(connection.socket.get());
    if (absl::IsUnavailable(message.status())) return;
    if (!message.ok())
      return Close(id, absl::IsOutOfRange(message.status()) ? "it closed its socket"
                                                            : std::string(message.status().message()));
    Handle(id, *std::move(message));
    if (!connections_.contains(id)) return;
  }
}

void Server::Handle(SessionId id, ReceivedMessage message) {
  Connection& connection = *connections_.at(id);
  const uid_t owner = connection.peer.uid;
  const absl::Status taken = Take(connection, message);
  const bool gave_fds = !message.fds.empty();
  for (UniqueFd& fd : message.fds) CloseLater(owner, std::move(fd));
  if (gave_fds && reaper_.Overloaded(owner)) {
    refusals_.Count(Refusal::kTooManyBlockedFds);
    return CloseAllOf(owner, "its user has sent descriptors that do not close");
  }
  if (taken.ok() || !connections_.contains(id)) return;
  RefuseAndClose(connection, taken);
}

absl::Status Server::Take(Connection& connection, ReceivedMessage& message) {
  if (message.truncated)
    return Refuse(Refusal::kOversized,
                  absl::StrCat("a message of more than ", kControlMessageBytesMax, " bytes"));
  if (message.fds_truncated) return Refuse(Refusal::kSurplusFds, "more descriptors than a message can carry");
  if (connection.on_admin_socket && connection.role != Connection::Role::kHost) {
    api::AdminRequest request;
    if (!request.ParseFromString(message.bytes)) return Refuse(Refusal::kGarbage, "not an admin message");
    if (request.kind_case() != api::AdminRequest::KIND_NOT_SET) {
      connection.role = Connection::Role::kAdmin;
      if (!message.fds.empty()) return Refuse(Refusal::kSurplusFds, "an admin message carries no descriptor");
      return HandleAdmin(connection, request);
    }
    if (connection.role == Connection::Role::kAdmin) return Refuse(Refusal::kGarbage, "not an admin message");
  }
  api::FromHost from_host;
  if (!from_host.ParseFromString(message.bytes) || from_host.kind_case() == api::FromHost::KIND_NOT_SET) {
    return Refuse(Refusal::kGarbage, "not a message of a host");
  }
  const std::size_t wanted = from_host.has_channel_memory() ? 1 : 0;
  if (message.fds.size() > wanted) {
    return Refuse(Refusal::kSurplusFds,
                  absl::StrCat(message.fds.size(), " descriptors where ", wanted, " are expected"));
  }
  if (message.fds.size() < wanted) return Refuse(Refusal::kMissingFd, "ChannelMemory without its descriptor");
  return HandleFromHost(connection, from_host, message.fds);
}

absl::Status Server::HandleFromHost(Connection& connection, const api::FromHost& message,
                                    std::vector<UniqueFd>& fds) {
  const SessionId id = connection.id;
  if (connection.role == Connection::Role::kNew) {
    if (!message.has_hello()) return Refuse(Refusal::kHelloMissing, "the first message is Hello");
    return HandleHello(connection, message.hello());
  }
  switch (message.kind_case()) {
    case api::FromHost::kHello:
      return Refuse(Refusal::kHelloTwice, "Hello was said already");
    case api::FromHost::kFunctionReport:
      return engine_->Report(id, message.function_report());
    case api::FromHost::kSubscribe:
      return engine_->Subscribe(id, message.subscribe());
    case api::FromHost::kUnsubscribe:
      return engine_->Unsubscribe(id, message.unsubscribe());
    case api::FromHost::kChannelMemory:
      return HandleMemory(connection, message.channel_memory().id(), fds);
    case api::FromHost::kChannelClosed:
      return engine_->ChannelClosed(id, message.channel_closed(), NowNs());
    case api::FromHost::kApplied:
      return engine_->Applied(id, message.applied().serial());
    case api::FromHost::kStats:
      TakeStats(id, message.stats());
      return absl::OkStatus();
    case api::FromHost::kRunEnded:
      TakeRunEnded(id, message.run_ended());
      return absl::OkStatus();
    case api::FromHost::kDrained:
      return engine_->HostDrained(id);
    case api::FromHost::kNodeReport:
      return HandleNodeReport(id, message.node_report());
    case api::FromHost::kEndsLeft:
      return engine_->EndsLeft(id, message.ends_left().number());
    case api::FromHost::kPeerKeyId:
      if (connection.worker == 0) return Refuse(Refusal::kGarbage, "a key of no engine inside a host");
      node_link_->TakeInsideKeyId(connection.worker, message.peer_key_id());
      return absl::OkStatus();
    case api::FromHost::kXdpTaken: {
      const auto inside = connections_.find(connection.inside);
      if (inside == connections_.end())
        return Refuse(Refusal::kGarbage, "a socket of no engine inside a host");
      node_link_->TakeInsideXdp(inside->second->worker, message.xdp_taken().number(),
                                message.xdp_taken().problem());
      return absl::OkStatus();
    }
    case api::FromHost::KIND_NOT_SET:
      break;
  }
  return Refuse(Refusal::kGarbage, "not a message of a host");
}

// A host that was restarted at once may say Hello before the end of its former process was noticed.
void Server::MakeWay(const std::string& host) {
  const Session* holder = engine_->state().FindHost(host);
  if (holder == nullptr) return;
  const Connection& former = *connections_.at(holder->id);
  if (Readable(former.process.get(), POLLIN) || Readable(former.socket.get(), POLLRDHUP)) {
    Close(holder->id, "its process ended");
  }
}

absl::Status Server::HandleHello(Connection& connection, const api::Hello& part) {
  connection.hello_bytes += part.ByteSizeLong();
  if (connection.hello_bytes > kHelloBytesMax)
    return Refuse(Refusal::kOversized, "a Hello of too many parts");
  if (part.more()) {
    connection.hello.MergeFrom(part);
    return absl::OkStatus();
  }
  api::Hello hello = std::exchange(connection.hello, {});
  hello.MergeFrom(part);
  WEFT_RETURN_IF_ERROR(CheckHello(*connection.tenant, hello, connection.on_admin_socket));
  if (connection.is_engine && !hello.host().empty())
    return Refuse(Refusal::kHostNotAllowed, "a node engine has no name of its own");
  AttachRequest request;
  request.session = connection.id;
  request.tenant = connection.tenant;
  request.is_client = hello.host().empty();
  request.is_engine = connection.is_engine;
  // No label holds a colon: no host can go by a client's name.
  request.inside_of = connection.inside_of;
  request.worker = connection.worker;
  request.host = request.inside_of != 0
                     ? absl::StrCat(kEnginePrefix, engine_->node(), "/", connection.inside_host)
                 : request.is_engine ? EngineName(engine_->node(), connection.worker)
                 : request.is_client ? absl::StrCat("client:", connection.peer.pid, ".", connection.id)
                                     : hello.host();
  request.call_as = hello.call_as().empty() ? connection.tenant->call_as : hello.call_as();
  request.hello = hello;
  if (!request.is_client) MakeWay(hello.host());
  WEFT_RETURN_IF_ERROR(engine_->Attach(request, NowNs()));
  connection.role = Connection::Role::kHost;
  connection.runs_once = hello.runs_once() && !request.is_client;
  if (!request.is_client && MayLog(*connection.tenant)) {
    spdlog::info("host {} of tenant {} has attached: uid {} pid {}, {} functions, {} channels held",
                 hello.host(), connection.tenant->name, connection.peer.uid, connection.peer.pid,
                 hello.serves_size() + hello.loaded_size(), hello.channels_size());
  }
  if (hello.inside_engine()) OpenInside(connection);
  return absl::OkStatus();
}

// The log tells when calls to a node begin and end: keys alone, of which the link tells, carry none.
absl::Status Server::HandleNodeReport(SessionId id, const api::NodeReport& report) {
  const std::set<std::string>& up = engine_->state().nodes_up;
  const bool before = up.contains(report.node());
  const absl::Status taken = engine_->ReportNode(id, report);
  const bool now = up.contains(report.node());
  if (now != before && !absl::StrContains(report.node(), '/') && log_limit_.Allow(NowNs()))
    spdlog::info("node {} {}", report.node(), now ? "is reachable" : "is not reachable any more");
  return taken;
}

absl::Status Server::HandleMemory(Connection& connection, const std::string& id, std::vector<UniqueFd>& fds) {
  const absl::StatusOr<uint32_t> arena_bytes = engine_->ExpectedArena(connection.id, id);
  if (!arena_bytes.ok()) return arena_bytes.status();
  if (*arena_bytes == 0) return absl::OkStatus();
  const SideMemoryFault fault = FindSideMemoryFault(fds[0].get(), SideMemoryBytes(*arena_bytes));
  if (fault != SideMemoryFault::kNone) return Refuse(Refusal::kBadMemory, SideMemoryFaultText(fault));
  const Channel& channel = engine_->state().channels.at(id);
  parts_[id].memory[static_cast<std::size_t>(channel.EndOf(connection.id))] = std::move(fds[0]);
  return engine_->MemoryArrived(connection.id, id);
}

}  // namespace weft::agent
