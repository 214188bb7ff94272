// SPDX-License-Identifier: Apache-2.0
// Session: connecting to the agent, and the packets of the conversation.
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/api/protocol.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "dataplane/client/session.h"

namespace weft {
namespace {

constexpr uint64_t kBackoffFirstNs = 10 * kNsPerMs;
// A new agent so has all of them back well within the time that it gives them, kSettleNs.
constexpr uint64_t kBackoffMaxNs = 200 * kNsPerMs;
// Whom the agent has refused, and will again.
constexpr uint64_t kBackoffRefusedMaxNs = 500 * kNsPerMs;
// Packets that wait for an agent that does not read. One that lets this many pile up is as good as gone.
constexpr std::size_t kOutgoingMax = 1024;
// A part of a Hello goes out once it is this large; what was added last may be a table of 56 KiB.
constexpr std::size_t kHelloPartBytes = 4 * 1024;
// Packets taken in one turn, so that a flood from the agent does not stop the calls.
constexpr int kPacketsPerTurn = 64;
// One of which may hold hundreds of routes.
constexpr std::size_t kBytesPerTurn = 256 * 1024;

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Create(const SessionOptions& options) {
  if (!options.call_as.empty() && !options.admin) {
    return absl::InvalidArgumentError("a namespace to call as is chosen on the admin socket only");
  }
  std::unique_ptr<Session> session(new Session(options));
  WEFT_ASSIGN_OR_RETURN(session->poller_, Poller::Create({.poll_time_ns = options.poll_time_ns}));
  session->wake_fd_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!session->wake_fd_.valid()) return absl::ErrnoToStatus(errno, "make an eventfd");
  return session;
}

void Session::Start() {
  state_ = State::kWaiting;
  refused_ = false;
  told_away_ = false;
  backoff_ns_ = kBackoffFirstNs;
  Connect(NowNs());
}

void Session::Stop() {
  const absl::Status why = last_error_;
  told_away_ = true;  // It is meant to be.
  Disconnect(why);
  state_ = State::kIdle;
  SetWait(-1, ~uint64_t{0});
}

void Session::SetWait(int fd, uint64_t next_ns) {
  wait_fd_.store(fd, std::memory_order_relaxed);
  next_ns_.store(next_ns, std::memory_order_relaxed);
  const uint64_t one = 1;
  // The eventfd is this process's own; where it is full the keeper is awake anyway.
  [[maybe_unused]] const ssize_t written = write(wake_fd_.get(), &one, sizeof(one));
}

void Session::Connect(uint64_t now_ns) {
  const std::string path = absl::StrCat(options_.run_dir, options_.admin ? "/admin.sock" : "/agent.sock");
  absl::StatusOr<UniqueFd> socket = options_.connect ? options_.connect() : ConnectUnix(path);
  if (!socket.ok()) {
    Disconnect(socket.status());
    return;
  }
  socket_ = *std::move(socket);
  state_ = State::kConnected;
  const absl::Status added = poller_->AddFd(socket_.get(), EPOLLIN, [this](uint32_t events) {
    if ((events & EPOLLOUT) != 0) FlushOutgoing();
    if ((events & ~uint32_t{EPOLLOUT}) != 0) ServeSocket();
  });
  if (!added.ok()) {
    Disconnect(added);
    return;
  }
  SetWait(socket_.get(), ~uint64_t{0});
  SendHello();
}

// Back to waiting; the next attempt is after the backoff.
void Session::Disconnect(absl::Status why) {
  last_error_ = std::move(why);
  if (socket_.valid()) {
    poller_->RemoveFd(socket_.get());
    socket_.Reset();
  }
  for (const Outgoing& outgoing : outgoing_) {
    if (outgoing.fd >= 0) close(outgoing.fd);
  }
  outgoing_.clear();
  wants_write_ = false;
  state_ = State::kWaiting;
  // What was half open dies with the agent that brokered it.
  std::erase_if(channels_, [](const auto& entry) { return entry.second.link == TargetSet::kNoLink; });
  const uint64_t wait_ns = backoff_ns_ - random_.Below(backoff_ns_ / 2);
  backoff_ns_ = std::min(2 * backoff_ns_, refused_ ? kBackoffRefusedMaxNs : kBackoffMaxNs);
  SetWait(-1, NowNs() + wait_ns);
  if (!std::exchange(told_away_, true)) events_->OnAway(last_error_);
}

void Session::SendHello() {
  api::FromHost message;
  api::Hello& hello = *message.mutable_hello();
  // A thousand channels do not fit one packet.
  const auto next_part = [&] {
    if (hello.ByteSizeLong() < kHelloPartBytes) return;
    hello.set_more(true);
    Send(message);
    hello.Clear();
  };
  hello.set_protocol(kAgentProtocol);
  hello.set_host(options_.host);
  hello.set_call_as(options_.call_as);
  hello.set_version(options_.version);
  hello.set_inside_engine(options_.inside_engine);
  hello.set_runs_once(options_.runs_once);
  hello.set_takes_route_lists(true);
  for (const std::string& function : served_) {
    hello.add_serves(function);
    next_part();
  }
  for (const std::string& function : events_->Loaded()) {
    hello.add_loaded(function);
    next_part();
  }
  for (const auto& [id, record] : channels_) {
    // The agent keeps a table within 56 KiB; a larger one of our own making is not reported.
    if (record.access.ByteSizeLong() > kControlMessageBytesMax - kHelloPartBytes) continue;
    api::HeldChannel& held = *hello.add_channels();
    held.set_id(id);
    held.set_peer(record.peer);
    *held.mutable_callers() = record.access.callers();
    held.set_index_max(record.index_max);
    held.set_arena_bytes(record.arena_bytes);
    next_part();
  }
  Send(message);
}

void Session::Send(const api::FromHost& message, int fd) {
  if (!socket_.valid()) return;
  Outgoing outgoing{message.SerializeAsString(), fd < 0 ? -1 : dup(fd)};
  outgoing_.push_back(std::move(outgoing));
  if (outgoing_.size() > kOutgoingMax) {
    Disconnect(absl::UnavailableError("the agent does not read"));
    return;
  }
  FlushOutgoing();
}

// Puts the request for a route that this agent has not been asked for yet into the queue. Only where that is
// empty, so that there may be any number of them: they go out as the agent reads.
bool Session::AskForNextRoute() {
  if (state_ != State::kAttached || asked_ == subscribed_.size()) return false;
  const RouteEntry& route = *subscribed_[asked_++];
  api::FromHost message;
  message.mutable_subscribe()->set_caller(route.caller);
  message.mutable_subscribe()->set_callee(route.callee);
  outgoing_.push_back({message.SerializeAsString(), -1});
  return true;
}

// The same for a route that this agent has been asked for and need not tell any more. Before the next is
// asked for, which may be the same one again.
bool Session::GiveUpNextRoute() {
  if (state_ != State::kAttached || given_up_.empty()) return false;
  api::FromHost message;
  message.mutable_unsubscribe()->set_caller(given_up_.front().first);
  message.mutable_unsubscribe()->set_callee(given_up_.front().second);
  given_up_.pop_front();
  outgoing_.push_back({message.SerializeAsString(), -1});
  return true;
}

void Session::FlushOutgoing() {
  if (!socket_.valid()) return;
  while (!outgoing_.empty() || GiveUpNextRoute() || AskForNextRoute()) {
    const Outgoing& next = outgoing_.front();
    const absl::Status sent =
        SendMessage(socket_.get(), next.bytes, absl::MakeConstSpan(&next.fd, next.fd >= 0 ? 1 : 0));
    if (absl::IsUnavailable(sent)) break;
    if (!sent.ok()) {
      // What it had to say before it hung up, as a refusal, is read first.
      ServeSocket();
      if (socket_.valid()) Disconnect(sent);
      return;
    }
    if (next.fd >= 0) close(next.fd);
    outgoing_.pop_front();
  }
  const bool wants_write = !outgoing_.empty();
  if (wants_write == wants_write_) return;
  wants_write_ = wants_write;
  if (absl::Status status = poller_->ModifyFd(socket_.get(), wants_write ? EPOLLIN | EPOLLOUT : EPOLLIN);
      !status.ok()) {
    Disconnect(status);
  }
}

void Session::ServeSocket() {
  std::size_t bytes = 0;
  for (int i = 0; i < kPacketsPerTurn && bytes < kBytesPerTurn && socket_.valid(); ++i) {
    absl::StatusOr<ReceivedMessage> received = ReceiveMessage(socket_.get());
    if (absl::IsUnavailable(received.status())) return;
    if (!received.ok()) {
      Disconnect(refused_ ? last_error_ : received.status());
      return;
    }
    bytes += received->bytes.size();
    OnMessage(*received);
  }
}

void Session::OnMessage(ReceivedMessage& received) {
  api::ToHost message;
  if (received.truncated || received.fds_truncated || !message.ParseFromString(received.bytes)) {
    Disconnect(absl::DataLossError("the agent sent a message that cannot be read"));
    return;
  }
  Handle(message, received);
  if (message.serial() == 0 || !socket_.valid()) return;
  api::FromHost applied;
  applied.mutable_applied()->set_serial(message.serial());
  Send(applied);
}

void Session::Handle(api::ToHost& message, ReceivedMessage& received) {
  switch (message.kind_case()) {
    case api::ToHost::kWelcome:
      return OnWelcome(message.welcome());
    case api::ToHost::kRefused:
      refused_ = true;
      return Disconnect(absl::Status(CodeFromWire(static_cast<uint16_t>(message.refused().code())),
                                     absl::StrCat("the agent refuses: ", message.refused().reason())));
    case api::ToHost::kRoute:
      return OnRoute(message.route());
    case api::ToHost::kRouteList:
      for (const api::Route& route : message.route_list().routes()) OnRoute(route);
      return;
    case api::ToHost::kChannelOpen:
      return OnChannelOpen(message.channel_open());
    case api::ToHost::kChannelPeer:
      return OnChannelPeer(message.channel_peer(), received);
    case api::ToHost::kChannelAccess:
      return OnChannelAccess(message.channel_access());
    case api::ToHost::kChannelClose:
      return OnChannelClose(message.channel_close());
    case api::ToHost::kPlace:
      return events_->OnPlace(message.place(),
                              received.fds.empty() ? UniqueFd() : std::move(received.fds[0]));
    case api::ToHost::kUnplace:
      return events_->OnUnplace(message.unplace().function());
    case api::ToHost::kServePolicy:
      return core_->SetServePolicy(message.serve_policy().function().name(),
                                   PolicyOf(message.serve_policy().function().policy()));
    case api::ToHost::kRunOnce:
      return events_->OnRunOnce(message.run_once(),
                                received.fds.empty() ? UniqueFd() : std::move(received.fds[0]));
    case api::ToHost::kDrain:
      return events_->OnDrain();
    case api::ToHost::kStatsQuery:
      return OnStatsQuery(message.stats_query());
    case api::ToHost::kNodeTable:
      return events_->OnNodeTable(message.node_table());
    case api::ToHost::kInsideEngine:
      if (received.fds.size() != 2 && received.fds.size() != 3) return;
      return events_->OnInsideEngine(message.inside_engine(), std::move(received.fds[0]),
                                     std::move(received.fds[1]),
                                     received.fds.size() == 3 ? std::move(received.fds[2]) : UniqueFd());
    case api::ToHost::kXdpSocket:
      return events_->OnXdpSocket(message.xdp_socket(), std::move(received.fds));
    case api::ToHost::kPeerKeys:
      return events_->OnPeerKeys(message.peer_keys());
    case api::ToHost::kLeaveEnds:
      return events_->OnLeaveEnds(message.leave_ends());
    case api::ToHost::kBarrier:
    case api::ToHost::KIND_NOT_SET:
      return;
  }
}

}  // namespace weft
