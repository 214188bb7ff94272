// SPDX-License-Identifier: Apache-2.0
// From a socket to an established connection, and its end.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/identity/exchange.h"

namespace weft::identity {
namespace {

constexpr int kAcceptsAtOnce = 128;
constexpr uint64_t kAcceptPauseNs = 100 * kNsPerMs;
// Connections that one peer may establish: each brings new keys for all lanes, which cost the engines, and
// those inside hosts messages by the registry. A link that fails is made anew four times a second so.
constexpr uint32_t kJoinsMax = 32;
constexpr uint64_t kJoinsWindowNs = 8 * kNsPerSecond;
constexpr char kSessionLabel[] = "EXPORTER-weft-session";

// Refusals after which the peer's session has no ground any more.
bool EndsSession(Refusal reason) {
  return reason == Refusal::kExpired || reason == Refusal::kRevoked || reason == Refusal::kLeft ||
         reason == Refusal::kRemoved || reason == Refusal::kNoRoom || reason == Refusal::kStalled;
}

}  // namespace

void Exchange::AcceptSome() {
  for (int i = 0; i < kAcceptsAtOnce; ++i) {
    sockaddr_storage address;
    socklen_t length = sizeof(address);
    UniqueFd socket(accept4(options_.listener.get(), reinterpret_cast<sockaddr*>(&address), &length,
                            SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket.valid()) {
      Admit(std::move(socket), Endpoint::FromSockaddr(address));
      continue;
    }
    if (errno == EINTR || errno == ECONNABORTED) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return;
    // Out of descriptors or memory: those who have shown least make room.
    if (!unfinished_.empty()) {
      Drop(unfinished_.front(), Refusal::kTooManyUnfinished, "out of descriptors", false);
      continue;
    }
    accept_again_ns_ = now_ns_ + kAcceptPauseNs;
    epoll_event none{};
    none.data.u64 = 0;
    epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, options_.listener.get(), &none);
    return;
  }
}

void Exchange::Admit(UniqueFd socket, const Endpoint& remote) {
  ++counters_.accepted;
  if (leaving_) return;
  EvictUnfinished(remote);
  if (const Connection* const connection = AddConnection(std::move(socket), false, remote)) {
    unfinished_.push_back(connection->id);
    return;
  }
  ++counters_.refused[static_cast<std::size_t>(Refusal::kTooManyUnfinished)];
  observer_->OnNote(absl::StrCat("connection from ", remote.ToString(),
                                 " ended: it cannot be watched: ", std::strerror(errno)));
}

// The oldest makes room: of the same source where that has its share, else of all.
void Exchange::EvictUnfinished(const Endpoint& source) {
  uint32_t of_source = 0;
  ConnectionId oldest_of_source = 0;
  for (const ConnectionId id : unfinished_) {
    if (!connections_.at(id)->remote.SameSource(source)) continue;
    if (of_source++ == 0) oldest_of_source = id;
  }
  if (of_source >= options_.unfinished_per_source_max) {
    Drop(oldest_of_source, Refusal::kTooManyUnfinished, "of one source", false);
  } else if (unfinished_.size() >= options_.unfinished_max) {
    Drop(unfinished_.front(), Refusal::kTooManyUnfinished, "in all", false);
  }
}

// nullptr where the kernel has no room to watch it; errno tells why.
Connection* Exchange::AddConnection(UniqueFd socket, bool dialer, const Endpoint& remote) {
  const int on = 1;
  setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const ConnectionId id = ++last_connection_;
  epoll_event event{};
  event.events = dialer ? EPOLLOUT : EPOLLIN;
  event.data.u64 = id;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, socket.get(), &event) != 0) return nullptr;
  auto connection =
      std::make_unique<Connection>(id, TlsStream(std::move(socket), dialer, credentials_), remote);
  connection->begun_ns = now_ns_;
  connection->connecting = dialer;
  connection->writing = dialer;
  return connections_.emplace(id, std::move(connection)).first->second.get();
}

void Exchange::Dial(Peer& peer) {
  if (UnixTime() >= credentials_->expires_unix_s()) {
    peer.dial_due_ns = now_ns_ + options_.backoff_max_ns;
    return;
  }
  peer.dial_due_ns = 0;
  ++counters_.dialled;
  sockaddr_storage address;
  const socklen_t length = peer.address.ToSockaddr(&address);
  UniqueFd socket(::socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return NoteDialFailure(peer, Refusal::kUnreachable, std::strerror(errno));
  if (!options_.dial_from.empty()) {
    if (auto from = Endpoint::Parse(absl::StrCat(options_.dial_from, ":1")); from.ok()) {
      sockaddr_storage local;
      from->port = 0;
      const socklen_t local_length = from->ToSockaddr(&local);
      if (bind(socket.get(), reinterpret_cast<sockaddr*>(&local), local_length) != 0) {
        return NoteDialFailure(peer, Refusal::kUnreachable, std::strerror(errno));
      }
    }
  }
  if (connect(socket.get(), reinterpret_cast<sockaddr*>(&address), length) != 0 && errno != EINPROGRESS) {
    return NoteDialFailure(peer, Refusal::kUnreachable, std::strerror(errno));
  }
  Connection* const connection = AddConnection(std::move(socket), true, peer.address);
  if (connection == nullptr) return NoteDialFailure(peer, Refusal::kUnreachable, std::strerror(errno));
  connection->expected = peer.name;
  peer.dialling = connection->id;
}

void Exchange::DialAtNewAddress(Peer& peer) {
  if (peer.dialling != 0) Drop(peer.dialling, Refusal::kReplaced, "the peer has another address", true);
  peer.backoff_ns = options_.backoff_min_ns;
  if (peer.connection == 0 || peer.renew) peer.dial_due_ns = now_ns_;
}

void Exchange::NoteDialFailure(Peer& peer, Refusal reason, const std::string& why) {
  ++counters_.refused[static_cast<std::size_t>(reason)];
  peer.last_refusal = reason;
  peer.last_problem = why;
  // Where a connection stands all the same, this one is needed only to renew it.
  peer.dial_due_ns = peer.connection != 0 && !peer.renew ? 0 : now_ns_ + 1 + Jittered(peer.backoff_ns);
  peer.backoff_ns = std::min(2 * peer.backoff_ns, options_.backoff_max_ns);
}

void Exchange::Serve(ConnectionId id, uint32_t events) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;  // Dropped by an event before this one.
  Connection& connection = *found->second;
  if (connection.connecting) {
    int error = 0;
    socklen_t length = sizeof(error);
    getsockopt(connection.stream.fd(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) return Drop(id, Refusal::kUnreachable, std::strerror(error), false);
    if ((events & EPOLLOUT) == 0) return;
    connection.connecting = false;
  }
  Ended ended;
  if (!connection.stream.Advance(UnixTime(), &ended)) return Drop(id, ended.reason, ended.why, false);
  if (connection.stream.ready() && !connection.greeted && !Greet(connection)) return;
  while (connection.stream.ready()) {
    std::optional<Message> message;
    std::string why;
    if (!connection.stream.TakeMessage(&message, &why)) return Drop(id, Refusal::kProtocol, why, true);
    if (!message.has_value()) break;
    Take(connection, *message);
    if (!connections_.contains(id)) return;
    Defer();  // What it said may have changed what is to be done.
  }
  UpdateInterest(connection);
}

void Exchange::UpdateInterest(Connection& connection) {
  const bool writing = connection.connecting || connection.stream.wants_write();
  if (writing == connection.writing) return;
  connection.writing = writing;
  epoll_event event{};
  event.events = (connection.connecting ? 0u : EPOLLIN) | (writing ? EPOLLOUT : 0u);
  event.data.u64 = connection.id;
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, connection.stream.fd(), &event);
}

// The peer has proved who it is. False: dropped.
bool Exchange::Greet(Connection& connection) {
  connection.peer = connection.stream.peer().name;
  Peer* const peer = Find(connection.peer);
  if (connection.stream.dialer() && connection.peer != connection.expected) {
    Drop(connection.id, Refusal::kNameMismatch,
         absl::StrCat("dialled ", connection.expected, " and met ", connection.peer), true);
    return false;
  }
  if (peer == nullptr || leaving_) {
    Drop(connection.id, Refusal::kUnknownNode, connection.peer, true);
    return false;
  }
  connection.greeted = true;
  ++counters_.handshakes;
  // The leader decides what becomes of the connection once it has heard the other.
  return peer->leader_here || SayHello(connection, *peer);
}

// False: dropped.
bool Exchange::SayHello(Connection& connection, const Peer& peer) {
  connection.sent.incarnation = incarnation_;
  connection.sent.held_session = peer.session;
  connection.sent.epoch = peer.epoch;
  connection.sent.node = options_.node;
  connection.sent.workers = workers_;
  if (!connection.stream.Send(connection.sent) || !connection.stream.Flush()) {
    Drop(connection.id, Refusal::kClosed, "the connection was closed", false);
    return false;
  }
  UpdateInterest(connection);
  return true;
}

void Exchange::TakeHello(Connection& connection, const Hello& hello) {
  const auto refuse = [&](Refusal reason, const std::string& why) { Drop(connection.id, reason, why, true); };
  if (connection.established) return refuse(Refusal::kProtocol, "a second HELLO");
  if (hello.version_min > kProtocolVersion || hello.version_max < kProtocolVersion) {
    return refuse(Refusal::kVersion, absl::StrCat("versions ", hello.version_min, " to ", hello.version_max));
  }
  if (hello.node != connection.peer) return refuse(Refusal::kProtocol, "HELLO names another node");
  Peer* const peer = Find(connection.peer);
  if (peer == nullptr) return refuse(Refusal::kUnknownNode, connection.peer);
  // The files may have changed since the handshake.
  if (const Verdict now = connection.stream.VerifyAgain(*credentials_, UnixTime());
      now.refusal != Refusal::kNone) {
    return refuse(now.refusal, now.why);
  }
  if (!MayJoin(*peer)) return refuse(Refusal::kProtocol, "it connects too often");
  if (peer->leader_here) {
    const Connection* const old = peer->connection == 0 ? nullptr : connections_.at(peer->connection).get();
    // The other said so before it heard of the session that it has now: this connection would end it.
    if (old != nullptr && old->incarnation == hello.incarnation && hello.held_session != peer->session)
      return refuse(Refusal::kDuplicate, connection.peer);
    if (!SayHello(connection, *peer)) return;
  }
  const ConnectionId id = connection.id;
  Establish(connection, *peer, hello);
  // The files were read again while the handshake went on.
  if (const auto found = connections_.find(id);
      found != connections_.end() && !found->second->stream.Shows(*credentials_))
    Renew(*peer);
}

bool Exchange::MayJoin(Peer& peer) const {
  if (now_ns_ >= peer.joins_since_ns + kJoinsWindowNs) {
    peer.joins_since_ns = now_ns_;
    peer.joins = 0;
  }
  return ++peer.joins <= kJoinsMax;
}

// This becomes the peer's connection. Both sides decide by the two HELLOs alone whether the session goes on.
void Exchange::Establish(Connection& connection, Peer& peer, const Hello& hello) {
  const Hello& sent = connection.sent;
  const bool resume = sent.held_session != 0 && sent.held_session == hello.held_session;
  const uint32_t epoch = resume ? std::max(sent.epoch, hello.epoch) + 1 : 0;
  if (resume && (peer.session != sent.held_session || epoch <= peer.epoch)) {
    return Drop(connection.id, Refusal::kDuplicate, "the session has moved on", true);
  }
  if (peer.connection != 0) Drop(peer.connection, Refusal::kReplaced, "", true);
  if (connection.stream.dialer() && peer.dialling == connection.id) peer.dialling = 0;
  unfinished_.remove(connection.id);
  connection.established = true;
  connection.takes_drains = hello.version_max >= kProtocolVersionMax;
  connection.incarnation = hello.incarnation;
  connection.heard_ns = now_ns_;
  connection.keepalive_due_ns = now_ns_ + options_.keepalive_ns;
  peer.connection = connection.id;
  peer.backoff_ns = options_.backoff_min_ns;
  peer.renew = false;
  if (peer.dialling == 0) peer.dial_due_ns = 0;
  peer.expires_unix_s = connection.stream.peer_expires_unix_s();
  peer.last_refusal = Refusal::kNone;
  peer.last_problem.clear();
  // They changed since HELLO was sent: the peer has to know of a worker before it hears of its keys.
  peer.workers_untold = sent.workers != workers_;
  if (peer.workers_untold) Defer();
  std::vector<Worker> workers = Located(hello.workers, connection.remote);
  if (resume) {
    ++counters_.resumed;
    const bool changed = workers != peer.workers;
    peer.workers = std::move(workers);
    if (changed) observer_->OnWorkers(InfoOf(peer));
    Defer();  // For what it is to be told of drains, again.
    return BeginEpoch(peer, epoch);
  }
  uint64_t session = 0;
  uint8_t bytes[sizeof(session)];
  connection.stream.Export(kSessionLabel, "", bytes, sizeof(bytes));
  std::memcpy(&session, bytes, sizeof(session));
  EndSession(peer, Refusal::kRestarted);
  BeginSession(peer, session == 0 ? 1 : session, std::move(workers));
  Defer();  // For what it is to be told of drains.
}

void Exchange::Drop(ConnectionId id, Refusal reason, const std::string& why, bool farewell) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  const std::unique_ptr<Connection> connection = std::move(found->second);
  connections_.erase(found);
  unfinished_.remove(id);
  ++counters_.refused[static_cast<std::size_t>(reason)];
  if (farewell && connection->stream.ready()) {
    (void)connection->stream.Send(Bye{reason});
    (void)connection->stream.Flush();
  }
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, connection->stream.fd(), nullptr);
  const std::string& name = connection->stream.dialer() ? connection->expected : connection->peer;
  observer_->OnNote(absl::StrCat(connection->stream.dialer() ? "connection to " : "connection from ",
                                 connection->remote.ToString(), name.empty() ? "" : " (", name,
                                 name.empty() ? "" : ")", " ended: ", ToString(reason),
                                 why.empty() ? "" : ": ", why));
  const auto peer_found = peers_.find(name);
  if (peer_found == peers_.end()) return;
  Peer& peer = peer_found->second;
  if (peer.dialling == id) {
    peer.dialling = 0;
    NoteDialFailure(peer, reason, why);
    --counters_.refused[static_cast<std::size_t>(reason)];  // Counted above.
  }
  if (peer.connection != id) return;
  peer.connection = 0;
  peer.linger_until_ns = now_ns_ + options_.linger_ns;
  if (peer.dialling == 0) {
    peer.dial_due_ns = now_ns_ + 1 + Jittered(peer.leader_here ? peer.backoff_ns : 2 * peer.backoff_ns);
  }
  if (reason == Refusal::kReplaced) return;  // The newer one is here already, or about to come.
  peer.last_refusal = reason;
  peer.last_problem = why;
  if (EndsSession(reason)) return EndSession(peer, reason);
  if (peer.session != 0) observer_->OnConnectionLost(peer.name, peer.session);
}

}  // namespace weft::identity
