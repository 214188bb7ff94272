// SPDX-License-Identifier: Apache-2.0
// The loop of the key exchange, and its public methods: they note what is wanted, Step does it.
#include "dataplane/identity/exchange.h"

#include <openssl/rand.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "dataplane/base/check.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/status.h"

namespace weft::identity {
namespace {

constexpr uint64_t kListenerTag = 0;
constexpr int kBacklog = 1024;
constexpr int kEventsAtOnce = 64;

uint64_t RandomSeed() {
  uint64_t seed = 0;
  WEFT_CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(&seed), sizeof(seed)) == 1);
  return seed;
}

}  // namespace

absl::StatusOr<std::unique_ptr<KeyExchange>> KeyExchange::Create(KeyExchangeOptions options,
                                                                 KeyExchangeObserver* observer) {
  auto exchange = std::make_unique<Exchange>(std::move(options), observer);
  WEFT_RETURN_IF_ERROR(exchange->Start());
  return std::unique_ptr<KeyExchange>(std::move(exchange));
}

Exchange::Exchange(KeyExchangeOptions options, KeyExchangeObserver* observer)
    : options_(std::move(options)),
      observer_(observer),
      files_(options_.credentials),
      random_(options_.seed != 0 ? options_.seed : RandomSeed()) {}

absl::Status Exchange::LoadFirst() {
  absl::Status why = absl::UnavailableError(
      absl::StrCat(options_.credentials.certificate, " was written to while it was read"));
  for (const uint64_t until_ns = NowNs() + options_.start_patience_ns;;) {
    absl::StatusOr<std::shared_ptr<const Credentials>> loaded = files_.Poll(UnixTime());
    if (loaded.ok()) {
      credentials_ = *std::move(loaded);
    } else {
      why = loaded.status();
    }
    if (credentials_ != nullptr) return absl::OkStatus();
    if (NowNs() >= until_ns) return why;
    absl::SleepFor(absl::Milliseconds(20));
  }
}

absl::Status Exchange::Start() {
  WEFT_CHECK(RAND_bytes(incarnation_.data(), static_cast<int>(incarnation_.size())) == 1);
  WEFT_RETURN_IF_ERROR(LoadFirst());
  if (credentials_->id().name != options_.node) {
    return absl::InvalidArgumentError(absl::StrCat(options_.credentials.certificate, " is of node \"",
                                                   credentials_->id().name, "\", this is \"", options_.node,
                                                   "\""));
  }
  for (const Worker& worker : options_.workers) WEFT_RETURN_IF_ERROR(AddWorker(worker));
  workers_ = workers_next_;
  epoll_.Reset(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.valid()) return absl::ErrnoToStatus(errno, "epoll_create1");
  if (!options_.listener.valid()) return absl::OkStatus();
  if (listen(options_.listener.get(), kBacklog) != 0) return absl::ErrnoToStatus(errno, "listen");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kListenerTag;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, options_.listener.get(), &event) != 0) {
    return absl::ErrnoToStatus(errno, "epoll_ctl");
  }
  return absl::OkStatus();
}

int64_t Exchange::UnixTime() const { return options_.unix_time_s ? options_.unix_time_s() : time(nullptr); }

Peer* Exchange::Find(const std::string& name) {
  const auto found = peers_.find(name);
  return found == peers_.end() || found->second.removed ? nullptr : &found->second;
}

absl::Status Exchange::AddPeer(const std::string& name, const Endpoint& address) {
  WEFT_RETURN_IF_ERROR(CheckLabel(name, "node"));
  if (name == options_.node) return absl::InvalidArgumentError("a node is not its own peer");
  // Those that are removed leave at the next step.
  const auto staying = [this] {
    return std::count_if(peers_.begin(), peers_.end(),
                         [](const auto& entry) { return !entry.second.removed; });
  };
  if (Find(name) == nullptr && peers_.size() >= options_.peers_max && staying() >= options_.peers_max) {
    return absl::ResourceExhaustedError(absl::StrCat("more than ", options_.peers_max, " peers"));
  }
  const auto [entry, fresh] = peers_.try_emplace(name);
  Peer& peer = entry->second;
  peer.removed = false;  // And added again before Step saw it: nothing has happened.
  const bool moved = !fresh && !(peer.address == address);
  peer.address = address;
  if (moved) {
    peer.moved = true;
    Defer();
  }
  if (!fresh) return absl::OkStatus();
  peer.name = name;
  peer.leader_here = options_.node < name;
  // The one that follows lets the leader go first, so that two connections at once are rare.
  peer.backoff_ns = options_.backoff_min_ns;
  peer.dial_due_ns = peer.leader_here ? 0 : NowNs() + Jittered(2 * options_.backoff_min_ns);
  Defer();
  return absl::OkStatus();
}

void Exchange::RemovePeer(const std::string& name) {
  if (Peer* const peer = Find(name); peer != nullptr) peer->removed = true;
  Defer();
}

absl::Status Exchange::AddWorker(const Worker& worker) {
  WEFT_RETURN_IF_ERROR(CheckWorker(worker));
  if (workers_next_.size() >= kWorkersMax) {
    return absl::ResourceExhaustedError(absl::StrCat("more than ", kWorkersMax, " workers"));
  }
  // The same lane and epoch would give the same key again, whose counters have been used.
  if (!worker_ids_used_.insert(worker.id).second) {
    return absl::InvalidArgumentError(absl::StrCat("worker id ", worker.id, " has been used"));
  }
  workers_next_.push_back(worker);
  std::sort(workers_next_.begin(), workers_next_.end(),
            [](const Worker& a, const Worker& b) { return a.id < b.id; });
  workers_changed_ = true;
  Defer();
  return absl::OkStatus();
}

void Exchange::RemoveWorker(uint16_t id) {
  std::erase_if(workers_next_, [id](const Worker& worker) { return worker.id == id; });
  workers_changed_ = true;
  Defer();
}

void Exchange::Rotate(const std::string& name) {
  if (Peer* const peer = Find(name); peer != nullptr) peer->rotate_wanted = true;
  Defer();
}

void Exchange::Leave() {
  leaving_ = true;
  Defer();
}

std::vector<PeerReport> Exchange::Peers() const {
  std::vector<PeerReport> reports;
  for (const auto& [name, peer] : peers_) {
    PeerReport report;
    report.name = name;
    report.address = peer.address;
    report.session = peer.session;
    report.connected = peer.connection != 0;
    report.epoch = peer.epoch;
    report.expires_unix_s = peer.expires_unix_s;
    report.last_refusal = peer.last_refusal;
    report.last_problem = peer.last_problem;
    reports.push_back(std::move(report));
  }
  return reports;
}

uint64_t Exchange::NextTimerNs() const {
  if (deferred_) return 0;
  uint64_t next = look_due_ns_;
  const auto earlier = [&next](uint64_t due_ns) {
    if (due_ns != 0) next = std::min(next, due_ns);
  };
  earlier(accept_again_ns_);
  if (workers_changed_) earlier(workers_due_ns_);
  for (const auto& [name, peer] : peers_) {
    if (leaving_) break;
    if (peer.connection == 0 && peer.dialling == 0) earlier(std::max<uint64_t>(peer.dial_due_ns, 1));
    if (peer.session != 0 && peer.connection == 0) earlier(peer.linger_until_ns);
    if (peer.connection == 0) continue;
    earlier(peer.retire_due_ns);
    if (!peer.complete) earlier(peer.epoch_begun_ns + options_.key_timeout_ns);
    if (MayRotate(peer)) earlier(peer.epoch_begun_ns + options_.rotate_ns);
    if (peer.renew && peer.dialling == 0) earlier(peer.dial_due_ns);
  }
  for (const auto& [id, connection] : connections_) {
    if (connection->established) {
      earlier(connection->keepalive_due_ns);
      earlier(connection->heard_ns + 3 * options_.keepalive_ns);
      if (connection->drains_untold) earlier(connection->drains_due_ns);
    } else {
      earlier(connection->begun_ns + options_.handshake_timeout_ns);
    }
  }
  return next;
}

void Exchange::Step(uint64_t now_ns) {
  now_ns_ = now_ns;
  epoll_event events[kEventsAtOnce];
  const int count = epoll_wait(epoll_.get(), events, kEventsAtOnce, 0);
  for (int i = 0; i < count; ++i) {
    if (events[i].data.u64 == kListenerTag) {
      AcceptSome();
    } else {
      Serve(events[i].data.u64, events[i].events);
    }
  }
  RunTimers();
  RunDeferred();
}

void Exchange::RunTimers() {
  if (now_ns_ >= look_due_ns_) {
    look_due_ns_ = now_ns_ + options_.reload_ns;
    LookAtFiles();
    CheckValidity();
  }
  if (accept_again_ns_ != 0 && now_ns_ >= accept_again_ns_) {
    accept_again_ns_ = 0;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = kListenerTag;
    epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, options_.listener.get(), &event);
  }
  if (workers_changed_ && now_ns_ >= workers_due_ns_) Defer();
  RunConnectionTimers();
  for (auto& [name, peer] : peers_) RunPeerTimers(peer);
}

void Exchange::RunConnectionTimers() {
  std::vector<std::pair<ConnectionId, Refusal>> overdue;
  std::vector<std::string> quiet;
  for (const auto& [id, connection] : connections_) {
    if (connection->drains_untold && now_ns_ >= connection->drains_due_ns) Defer();
    if (!connection->established) {
      if (now_ns_ >= connection->begun_ns + options_.handshake_timeout_ns) {
        overdue.emplace_back(id, connection->connecting ? Refusal::kUnreachable : Refusal::kSlowHandshake);
      }
    } else if (now_ns_ >= connection->heard_ns + 3 * options_.keepalive_ns) {
      overdue.emplace_back(id, Refusal::kSilent);
    } else if (now_ns_ >= connection->keepalive_due_ns) {
      quiet.push_back(connection->peer);
    }
  }
  for (const std::string& name : quiet) {
    if (Peer* const peer = Find(name); peer != nullptr) SendTo(*peer, Keepalive{});
  }
  for (const auto& [id, reason] : overdue) Drop(id, reason, "nothing came in time", false);
}

void Exchange::RunPeerTimers(Peer& peer) {
  if (leaving_ || peer.removed) return;
  if (peer.session != 0 && peer.connection == 0 && now_ns_ >= peer.linger_until_ns) {
    EndSession(peer, Refusal::kClosed);
  }
  if (peer.dialling == 0 && (peer.connection == 0 || peer.renew) && now_ns_ >= peer.dial_due_ns) Dial(peer);
  if (peer.connection == 0) return;
  if (!peer.complete && now_ns_ >= peer.epoch_begun_ns + options_.key_timeout_ns) {
    return Drop(peer.connection, Refusal::kStalled, absl::StrCat("keys of epoch ", peer.epoch), true);
  }
  if (peer.retire_due_ns != 0 && now_ns_ >= peer.retire_due_ns) RetireLast(peer);
  if (now_ns_ >= peer.epoch_begun_ns + options_.rotate_ns && peer.leader_here) peer.rotate_wanted = true;
  if (!peer.rotate_wanted) return;
  if (!peer.leader_here) {
    peer.rotate_wanted = false;
    SendTo(peer, Ask{Wish::kRotate});
  } else if (MayRotate(peer)) {
    SendTo(peer, RotateTo{peer.epoch + 1});
    BeginEpoch(peer, peer.epoch + 1);
  }
}

// Whether all peers are to be told of other workers now.
bool Exchange::TakeWorkersChange() {
  if (!workers_changed_ || now_ns_ < workers_due_ns_) return false;
  workers_changed_ = false;
  if (workers_ == workers_next_) return false;
  workers_ = workers_next_;
  workers_due_ns_ = now_ns_ + kChangesPauseNs;
  return true;
}

// Until nothing is left that the observer's answers, or a public method, have asked for.
void Exchange::RunDeferred() {
  constexpr int kRoundsMax = 8;
  for (int round = 0; deferred_ && round < kRoundsMax; ++round) {
    deferred_ = false;
    const bool workers_changed = TakeWorkersChange();
    std::vector<std::string> gone;
    for (auto& [name, peer] : peers_) {
      if (peer.removed || leaving_) {
        const Refusal reason = peer.removed ? Refusal::kRemoved : Refusal::kLeft;
        if (peer.dialling != 0) Drop(peer.dialling, reason, "", false);
        if (peer.connection != 0) Drop(peer.connection, reason, "", true);
        EndSession(peer, reason);
        if (peer.removed) gone.push_back(name);
        continue;
      }
      if (std::exchange(peer.moved, false)) DialAtNewAddress(peer);
      const bool untold = std::exchange(peer.workers_untold, false) || workers_changed;
      if (untold && peer.connection != 0) {
        SendTo(peer, Workers{workers_});
        UpdateLanes(peer, false);
      }
      if (peer.connection != 0) SendOffers(peer);
      if (peer.connection != 0) TellDrains(peer);
      RunPeerTimers(peer);
    }
    for (const std::string& name : gone) {
      if (peers_.at(name).removed) peers_.erase(name);
    }
  }
}

}  // namespace weft::identity
