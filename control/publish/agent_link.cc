// SPDX-License-Identifier: Apache-2.0
#include "control/publish/agent_link.h"

#include <poll.h>

#include <algorithm>
#include <climits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/unix_socket.h"

namespace weft::control {
namespace {

constexpr uint64_t kPauseMinNs = 10 * kNsPerMs;
constexpr uint64_t kPauseMaxNs = kNsPerSecond;
// After a refusal only a change of ours or of the agent's settings helps.
constexpr uint64_t kRefusedPauseMinNs = kNsPerSecond;
constexpr uint64_t kRefusedPauseMaxNs = 30 * kNsPerSecond;
// Generations without acknowledgement that are remembered. An agent acknowledges within seconds, or is stuck;
// then the oldest lose their time, not their effect.
constexpr std::size_t kUnacknowledgedMax = 1024;
// Messages that are taken before other work of the thread gets its turn.
constexpr int kReceivesMax = 64;

// A mesh that does not name the agent's node was written for another one.
bool KnowsNode(const MeshState& state, const std::string& node) {
  return state.count(EntryKind::kEndpoint) == 0 || state.Contains(NodeKey(node));
}

}  // namespace

AgentLink::AgentLink(Options options, uint64_t generation, const MeshState* mesh, AgentLinkObserver* observer)
    : options_(std::move(options)),
      observer_(observer),
      random_(options_.seed),
      mesh_(mesh),
      generation_(generation) {}

void AgentLink::SetTarget(absl::Span<const EntryChange> changes, uint64_t revision) {
  target_revision_ = revision;
  if (known_) {
    // Of several changes of one key the first knows what the agent holds.
    for (const EntryChange& change : changes) {
      unsent_.emplace(change.before != nullptr ? change.before : change.after, change.before);
    }
  }
  const uint64_t now_ns = NowNs();
  if (state_ == State::kReady) {
    BeginGeneration(now_ns);
  } else if (state_ == State::kRefused) {
    pause_ns_ = 0;
    retry_at_ns_ = now_ns;
  }
}

bool AgentLink::SendNow(const api::AdminRequest& request) {
  if (state_ != State::kReady) return false;
  outgoing_.push_back(request.SerializeAsString());
  Flush(NowNs());
  return true;
}

bool AgentLink::Run(const api::RunOnce& run) {
  api::AdminRequest request;
  *request.mutable_run_once() = run;
  return SendNow(request);
}

bool AgentLink::Ask(const std::vector<std::string>& functions) {
  api::AdminRequest request;
  request.mutable_query()->set_kind(api::Query::FUNCTIONS);
  for (const std::string& function : functions) request.mutable_query()->add_functions(function);
  return SendNow(request);
}

short AgentLink::poll_events() const {
  return static_cast<short>(POLLIN | (outgoing_.empty() ? 0 : POLLOUT));
}

void AgentLink::OnTime(uint64_t now_ns) {
  if (retry_at_ns_ != 0 && now_ns >= retry_at_ns_) Connect(now_ns);
}

void AgentLink::Connect(uint64_t now_ns) {
  retry_at_ns_ = 0;
  absl::StatusOr<UniqueFd> socket = ConnectUnix(options_.socket_path);
  if (!socket.ok()) return Disconnect(socket.status(), now_ns);
  socket_ = *std::move(socket);
  state_ = State::kGreeting;
  hosts_.clear();
  functions_.clear();
  unacknowledged_.clear();
  // The answer tells the generation that the agent holds. Its registrations tell the node, and come before.
  api::AdminRequest request;
  request.mutable_query()->set_kind(api::Query::STATUS);
  if (const absl::Status sent = SendMessage(socket_.get(), request.SerializeAsString()); !sent.ok()) {
    Disconnect(sent, now_ns);
  }
}

// Pauses grow from 10 ms to 1 s, each cut by up to a half at random, so that an agent that restarts is found
// soon.
void AgentLink::Disconnect(const absl::Status& why, uint64_t now_ns) {
  const bool was_ready = state_ == State::kReady;
  state_ = State::kDisconnected;
  Close();
  pause_ns_ = was_ready ? kPauseMinNs : std::clamp(pause_ns_ * 2, kPauseMinNs, kPauseMaxNs);
  retry_at_ns_ = now_ns + pause_ns_ - random_.Below(pause_ns_ / 2);
  observer_->OnDisconnected(why);
}

// What the agent holds is not known any more.
void AgentLink::Close() {
  socket_.Reset();
  outgoing_.clear();
  known_ = false;
  unsent_ = {};
}

void AgentLink::Refuse(const std::string& reason, uint64_t now_ns) {
  state_ = State::kRefused;
  Close();
  pause_ns_ = std::clamp(pause_ns_ * 2, kRefusedPauseMinNs, kRefusedPauseMaxNs);
  retry_at_ns_ = now_ns + pause_ns_;
  observer_->OnRefused(reason);
}

void AgentLink::OnEvents(short revents, uint64_t now_ns) {
  if (!socket_.valid() || revents == 0) return;
  // What the agent said before it went away is read first, all of it.
  Receive((revents & POLLHUP) != 0 ? INT_MAX : kReceivesMax, now_ns);
  if (socket_.valid() && (revents & POLLOUT) != 0) Flush(now_ns);
}

void AgentLink::Receive(int messages_max, uint64_t now_ns) {
  for (int i = 0; i < messages_max && socket_.valid(); ++i) {
    absl::StatusOr<ReceivedMessage> message = ReceiveMessage(socket_.get());
    if (absl::IsUnavailable(message.status())) return;
    if (!message.ok()) return Disconnect(message.status(), now_ns);
    api::AdminReply reply;
    if (message->truncated || !reply.ParseFromString(message->bytes)) {
      return Disconnect(absl::InternalError("the agent sent what is no admin message"), now_ns);
    }
    Take(reply, now_ns);
  }
}

void AgentLink::Take(const api::AdminReply& reply, uint64_t now_ns) {
  switch (reply.kind_case()) {
    case api::AdminReply::kRegistrations:
      node_ = reply.registrations().node();
      generation_ = std::max(generation_, reply.registrations().generation());
      hosts_.insert(hosts_.end(), reply.registrations().hosts().begin(), reply.registrations().hosts().end());
      if (!reply.registrations().more()) observer_->OnRegistrations(std::exchange(hosts_, {}));
      return;
    case api::AdminReply::kQueryReply: {
      if (state_ == State::kReady) {
        const auto& items = reply.query_reply().items();
        functions_.insert(functions_.end(), items.begin(), items.end());
        if (!reply.query_reply().more()) observer_->OnFunctions(std::exchange(functions_, {}));
        return;
      }
      generation_ = std::max(generation_, reply.query_reply().generation());
      for (const api::Item& item : reply.query_reply().items()) {
        for (const api::Item::Field& field : item.fields()) {
          // One that was sent but never acknowledged counts, too: generations rise.
          if (field.name() == "generation_held" && field.number() > 0) {
            generation_ = std::max(generation_, static_cast<uint64_t>(field.number()));
          }
        }
      }
      if (reply.query_reply().more()) return;
      state_ = State::kReady;
      observer_->OnConnected();
      return BeginGeneration(now_ns);
    }
    case api::AdminReply::kProgrammed: {
      const uint64_t generation = reply.programmed().generation();
      acknowledged_ = std::max(acknowledged_, generation);
      uint64_t revision = 0;
      while (!unacknowledged_.empty() && unacknowledged_.front().generation <= generation) {
        revision = unacknowledged_.front().revision;
        unacknowledged_.pop_front();
      }
      pause_ns_ = 0;  // It works.
      if (revision != 0) observer_->OnProgrammed(revision, reply.programmed());
      return;
    }
    case api::AdminReply::kRunEnded:
      return observer_->OnRunEnded(reply.run_ended());
    case api::AdminReply::kFailed:
      return Refuse(absl::StrCat("the agent refuses: ", reply.failed().reason()), now_ns);
    case api::AdminReply::kSteerMaps:  // weft-control's own to send
    case api::AdminReply::KIND_NOT_SET:
      return Disconnect(absl::InternalError("the agent sent a message of no known kind"), now_ns);
  }
}

std::vector<EntryChange> AgentLink::TakeUnsent() {
  std::vector<EntryChange> changes;
  for (const auto& [holder, before] : unsent_) {
    EntryPtr now = mesh_->Find(holder->key());
    if (!SameValue(before, now)) changes.push_back({before, std::move(now)});
  }
  unsent_ = {};
  // So that equal changes make equal messages.
  const auto key_of = [](const EntryChange& change) {
    return (change.after != nullptr ? change.after : change.before)->key();
  };
  std::sort(changes.begin(), changes.end(),
            [&key_of](const EntryChange& a, const EntryChange& b) { return key_of(a) < key_of(b); });
  return changes;
}

void AgentLink::BeginGeneration(uint64_t now_ns) {
  // A generation that has begun is finished first; Flush comes back here.
  if (target_revision_ == 0 || !outgoing_.empty() || (known_ && sent_revision_ == target_revision_)) return;
  if (!node_.empty()) {
    if (!KnowsNode(*mesh_, node_)) {
      return Refuse(absl::StrCat("the agent's node is \"", node_, "\", and no `nodes` entry names it"),
                    now_ns);
    }
  }
  const bool snapshot = !known_;
  const auto send = [this](api::Program part) {
    api::AdminRequest request;
    *request.mutable_program() = std::move(part);
    outgoing_.push_back(request.SerializeAsString());
  };
  if (snapshot) {
    MakeSnapshot(*mesh_, generation_ + 1, send);
  } else {
    MakeDelta(TakeUnsent(), generation_ + 1, send);
  }
  known_ = true;
  sent_revision_ = target_revision_;
  if (outgoing_.empty()) return TakeBack();
  ++generation_;
  if (unacknowledged_.size() >= kUnacknowledgedMax) unacknowledged_.pop_front();
  unacknowledged_.push_back({generation_, sent_revision_});
  observer_->OnSent(generation_, sent_revision_, snapshot);
  Flush(now_ns);
}

// The target was changed and changed back before it was sent: in force as soon as what was sent before is.
void AgentLink::TakeBack() {
  if (!unacknowledged_.empty()) {
    unacknowledged_.back().revision = sent_revision_;
    return;
  }
  api::Programmed programmed;
  programmed.set_generation(generation_);
  observer_->OnProgrammed(sent_revision_, programmed);
}

void AgentLink::Flush(uint64_t now_ns) {
  while (!outgoing_.empty()) {
    const absl::Status sent = SendMessage(socket_.get(), outgoing_.front());
    if (absl::IsUnavailable(sent)) return;  // POLLOUT brings us back.
    if (!sent.ok()) return Disconnect(sent, now_ns);
    outgoing_.pop_front();
  }
  if (state_ == State::kReady) BeginGeneration(now_ns);  // Where there is something else to say by now
}

}  // namespace weft::control
