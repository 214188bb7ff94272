// SPDX-License-Identifier: Apache-2.0
// The node engine's control side: its start, peers and their keys, the agent's table.
#include "dataplane/engine/node_engine.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "bpf/abi/drop_reason.h"
#include "dataplane/base/check.h"
#include "dataplane/base/random.h"
#include "dataplane/base/status.h"

namespace weft::engine {
namespace {

// The state of peers is looked at this often without a message that tells of a change.
constexpr uint32_t kReportEvery = 64;

SessionOptions SessionOptionsOf(const NodeEngineOptions& options) {
  SessionOptions session;
  session.connect = options.connect;
  session.version = "engine";
  session.calls_max = options.calls_max;
  session.poll_time_ns = 0;  // The worker polls; what is left to the poller is to sleep.
  session.seed = options.seed;
  return session;
}

}  // namespace

absl::StatusOr<std::unique_ptr<NodeEngine>> NodeEngine::Create(NodeEngineOptions options) {
  options.transport.tenants_max = static_cast<uint32_t>(options.tenant_limits.size());
  options.transport.calls_max = options.calls_max;
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<Session> session, Session::Create(SessionOptionsOf(options)));
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<transport::Core> transport,
                        transport::Core::Create(options.transport));
  UniqueFd mail_fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!mail_fd.valid()) return absl::ErrnoToStatus(errno, "make an eventfd");
  std::unique_ptr<NodeEngine> engine(
      new NodeEngine(std::move(options), std::move(session), std::move(transport)));
  engine->mail_fd_ = std::move(mail_fd);
  NodeEngine* const raw = engine.get();
  WEFT_RETURN_IF_ERROR(raw->session_->poller().AddFd(raw->mail_fd_.get(), EPOLLIN, [raw](uint32_t) {
    uint64_t count;
    [[maybe_unused]] const ssize_t bytes = read(raw->mail_fd_.get(), &count, sizeof(count));
  }));
  return engine;
}

NodeEngine::NodeEngine(NodeEngineOptions options, std::unique_ptr<Session> session,
                       std::unique_ptr<transport::Core> transport)
    : options_(std::move(options)),
      session_(std::move(session)),
      core_(session_->core()),
      loop_(*session_, local_),
      transport_(std::move(transport)),
      pool_(options_.tenant_limits),
      peers_by_index_(options_.transport.peers_max),
      outbound_(options_.calls_max),
      outbound_chains_(std::bit_ceil(options_.calls_max), kNoSlot),
      chain_factor_(Random(options_.seed != 0 ? options_.seed : weft::NowNs() ^ Ticks()).Next() | 1),
      inbound_(options_.calls_max),
      inbound_at_(std::size_t{options_.transport.peers_max} * options_.transport.slots_per_peer) {
  for (uint32_t i = options_.calls_max; i > 0; --i) {
    free_outbound_.push_back(i - 1);
    free_inbound_.push_back(i - 1);
  }
  for (uint32_t i = 0; i < options_.tenant_limits.size(); ++i) {
    transport_->SetTenantLimit(transport::TenantIndex{i}, options_.tenant_limits[i]);
  }
  session_->set_events(this);
}

NodeEngine::~NodeEngine() {
  for (Outbound& outbound : outbound_) {
    if (outbound.request != nullptr) pool_.Give(outbound.request);
  }
  for (Inbound& inbound : inbound_) {
    if (inbound.response != nullptr) pool_.Give(inbound.response);
  }
}

bool NodeEngine::Post(std::function<void(NodeEngine&)> what) {
  {
    const std::lock_guard<std::mutex> lock(mail_mutex_);
    if (mail_.size() >= kMailMax) return false;
    mail_.push_back(std::move(what));
    has_mail_.store(true, std::memory_order_release);  // [M1] pairs with TakeMail
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(mail_fd_.get(), &one, sizeof(one));
  return true;
}

void NodeEngine::TakeMail() {
  std::vector<std::function<void(NodeEngine&)>> mail;
  {
    // Its holders only push: never long. Seldom enough for a lock on this path.
    const std::lock_guard<std::mutex> lock(mail_mutex_);
    mail.swap(mail_);
    has_mail_.store(false, std::memory_order_relaxed);  // Under the lock, as are the stores of true.
  }
  for (const auto& what : mail) what(*this);
}

absl::Status NodeEngine::WatchFd(int fd) {
  return session_->poller().AddFd(fd, EPOLLIN, [](uint32_t) {});
}

int NodeEngine::PollHosts() {
  if (has_mail_.load(std::memory_order_acquire)) [[unlikely]]  // [M1]
    TakeMail();
  const int taken = loop_.PollOnce();
  if (core_.counters().channels_closed != channels_closed_) [[unlikely]]
    CancelOrphans();
  return taken;
}

int NodeEngine::TakeEvents(uint64_t now_ns) {
  int count = 0;
  transport::Event event;
  while (transport_->NextEvent(&event)) {
    ++count;
    switch (event.kind) {
      case transport::EventKind::kRequest:
      case transport::EventKind::kOneWay:
        OnPeerRequest(event, now_ns);
        break;
      case transport::EventKind::kCompleted:
        OnCompleted(event);
        transport_->Release(event);
        break;
      case transport::EventKind::kCancelled:
        OnPeerCancel(event);
        break;
    }
  }
  if (!waiting_out_.empty() || !waiting_in_.empty()) [[unlikely]]
    Retry(now_ns);
  if (session_changed_ || ++turns_ % kReportEvery == 0) ReportNodes(false);
  core_.Publish();
  return count;
}

uint64_t NodeEngine::NextNs(uint64_t now_ns) const {
  // What waits is tried at every turn; where nothing else happens, this often.
  const uint64_t retry_ns = waiting_out_.empty() && waiting_in_.empty() ? ~uint64_t{0} : now_ns + kNsPerMs;
  return std::min(retry_ns, transport_->NextTimerNs(now_ns));
}

// --- Peers

NodeEngine::Peer& NodeEngine::PeerOf(const std::string& node) {
  Peer& peer = peers_[node];
  peer.node = node;
  peer.name = node.substr(0, node.find(':'));
  return peer;
}

NodeEngine::Peer* NodeEngine::PeerIn(const std::string& node, uint64_t session) {
  const auto found = peers_.find(node);
  if (found == peers_.end() || found->second.session != session || session == 0) return nullptr;
  return &found->second;
}

NodeEngine::Peer* NodeEngine::PeerAt(transport::PeerIndex index) { return peers_by_index_[index.value]; }

absl::Status NodeEngine::MoveSession(const std::string& node, uint64_t session, const std::string& address) {
  Peer* const peer = PeerIn(node, session);
  if (peer == nullptr) return absl::OkStatus();
  return SetPath(*peer, address);
}

// Where the port had no room for a way there before, it may have now.
absl::Status NodeEngine::SetPath(Peer& peer, const std::string& address) {
  peer.address = address;
  if (peer.path != kNoPath) return options_.paths.set(peer.path, address);
  WEFT_ASSIGN_OR_RETURN(peer.path, options_.paths.add(address));
  transport_->MovePeer(peer.index, peer.path);
  return absl::OkStatus();
}

bool NodeEngine::Reaches(const std::string& node) const {
  const auto found = peers_.find(node);
  return found != peers_.end() && found->second.added &&
         transport_->StateOf(found->second.index) == transport::PeerState::kUp;
}

absl::Status NodeEngine::BeginSession(const std::string& node, uint64_t session, const std::string& address) {
  Peer& peer = PeerOf(node);
  if (peer.added) {
    WEFT_RETURN_IF_ERROR(SetPath(peer, address));
  } else {
    WEFT_ASSIGN_OR_RETURN(peer.path, options_.paths.add(address));
    absl::StatusOr<transport::PeerIndex> index = transport_->AddPeer(peer.path);
    if (!index.ok()) {
      options_.paths.remove(peer.path);
      return index.status();
    }
    peer.index = *index;
    peer.added = true;
    peers_by_index_[peer.index.value] = &peer;
  }
  peer.session = session;
  peer.address = address;
  for (int which : {0, 1}) ForgetReceiveId(peer, which);
  transport_->BeginSession(peer.index, session, NowNs());
  session_changed_ = true;
  return absl::OkStatus();
}

uint32_t NodeEngine::InstallReceiveKey(const std::string& node, uint64_t session, uint8_t epoch,
                                       const transport::SealSecret& secret) {
  Peer* const peer = PeerIn(node, session);
  if (peer == nullptr) return 0;
  const int which = epoch % 2;
  ForgetReceiveId(*peer, which);
  const uint32_t id = transport_->InstallReceiveKey(peer->index, epoch, secret);
  if (id == 0) return 0;
  if (options_.gate.allow && !options_.gate.allow(id).ok()) {
    transport_->RetireReceiveKey(peer->index, epoch);
    return 0;
  }
  peer->receive_ids[which] = id;
  peer->receive_epochs[which] = epoch;
  return id;
}

void NodeEngine::ForgetReceiveId(Peer& peer, int which) {
  const uint32_t id = std::exchange(peer.receive_ids[which], 0);
  if (id != 0 && options_.gate.forget) options_.gate.forget(id);
}

absl::flat_hash_set<uint32_t> NodeEngine::ReceiveIds() const {
  absl::flat_hash_set<uint32_t> ids;
  for (const auto& [node, peer] : peers_) {
    for (const uint32_t id : peer.receive_ids) {
      if (id != 0) ids.insert(id);
    }
  }
  return ids;
}

absl::Status NodeEngine::SetGate(KeyGate gate) {
  options_.gate = std::move(gate);
  absl::Status first;
  for (const uint32_t id : ReceiveIds()) first.Update(options_.gate.allow(id));
  return first;
}

absl::Status NodeEngine::ChangeWays(const std::function<void()>& change) {
  for (auto& [node, peer] : peers_) {
    if (peer.added && peer.path != kNoPath) options_.paths.remove(peer.path);
  }
  change();
  absl::Status first;
  for (auto& [node, peer] : peers_) {
    if (!peer.added) continue;
    const absl::StatusOr<uint64_t> path = options_.paths.add(peer.address);
    first.Update(path.status());
    peer.path = path.ok() ? *path : kNoPath;
    transport_->MovePeer(peer.index, peer.path);
  }
  return first;
}

void NodeEngine::InstallSendKey(const std::string& node, uint64_t session, uint8_t epoch, uint32_t key_id,
                                uint16_t worker_hint, const transport::SealSecret& secret) {
  const Peer* const peer = PeerIn(node, session);
  if (peer == nullptr) return;
  transport_->InstallSendKey(peer->index, epoch, key_id, worker_hint, secret);
  session_changed_ = true;
}

void NodeEngine::RetireReceiveKey(const std::string& node, uint64_t session, uint8_t epoch) {
  Peer* const peer = PeerIn(node, session);
  if (peer == nullptr) return;
  if (peer->receive_epochs[epoch % 2] == epoch) ForgetReceiveId(*peer, epoch % 2);
  transport_->RetireReceiveKey(peer->index, epoch);
}

void NodeEngine::DeclareDead(const std::string& node, uint64_t session) {
  if (const Peer* const peer = PeerIn(node, session)) transport_->DeclareDead(peer->index, NowNs());
  session_changed_ = true;
}

void NodeEngine::EndSession(const std::string& node, uint64_t session) {
  Peer* const peer = PeerIn(node, session);
  if (peer == nullptr) return;
  peer->session = 0;
  for (int which : {0, 1}) ForgetReceiveId(*peer, which);
  // With its keys: what it is to hear of the end it hears over its connection. Its place and its path are for
  // whoever comes next; many names come and go in the life of a node.
  transport_->RemovePeer(peer->index, NowNs());
  if (peer->path != kNoPath) options_.paths.remove(peer->path);
  peers_by_index_[peer->index.value] = nullptr;
  peer->added = false;
  session_changed_ = true;
}

void NodeEngine::OnPeerKeys(const api::PeerKeys& keys) {
  transport::SealSecret secret;
  if (keys.key().size() == secret.key.size() && keys.iv().size() == secret.iv.size()) {
    std::copy(keys.key().begin(), keys.key().end(), secret.key.begin());
    std::copy(keys.iv().begin(), keys.iv().end(), secret.iv.begin());
  }
  const auto epoch = static_cast<uint8_t>(keys.epoch());
  switch (keys.what()) {
    case api::PeerKeys::BEGIN:
      // Where it cannot be reached there will be no key for it either, and the agent hears of that.
      (void)BeginSession(keys.peer(), keys.session(), keys.address());
      return;
    case api::PeerKeys::RECEIVE: {
      api::PeerKeyId answer;
      answer.set_peer(keys.peer());
      answer.set_session(keys.session());
      answer.set_epoch(keys.epoch());
      answer.set_key_id(InstallReceiveKey(keys.peer(), keys.session(), epoch, secret));
      return session_->SendPeerKeyId(answer);
    }
    case api::PeerKeys::SEND:
      return InstallSendKey(keys.peer(), keys.session(), epoch, keys.key_id(),
                            static_cast<uint16_t>(keys.worker_hint()), secret);
    case api::PeerKeys::RETIRE:
      return RetireReceiveKey(keys.peer(), keys.session(), epoch);
    case api::PeerKeys::DEAD:
      return DeclareDead(keys.peer(), keys.session());
    case api::PeerKeys::MOVE:
      (void)MoveSession(keys.peer(), keys.session(), keys.address());
      return;
    case api::PeerKeys::END:
      return EndSession(keys.peer(), keys.session());
    default:
      return;
  }
}

void NodeEngine::CloseAll() {
  for (auto& [node, peer] : peers_) {
    if (peer.added) transport_->ClosePeer(peer.index, NowNs());
  }
}

// Tells the agent which nodes can be reached, where that has changed.
void NodeEngine::ReportNodes(bool all) {
  session_changed_ = false;
  for (auto& [node, peer] : peers_) {
    if (peer.name != node) continue;  // No calls leave for it.
    const bool up = peer.added && transport_->StateOf(peer.index) == transport::PeerState::kUp;
    if (up == peer.reported_up && !(all && up)) continue;
    if (!session_->attached()) return;
    peer.reported_up = up;
    session_->SendNodeReport(node, up);
  }
}

void NodeEngine::OnAttached() {
  table_.Restart();
  for (auto& [node, peer] : peers_) peer.reported_up = false;
  ReportNodes(true);
}

// --- The agent's table

void NodeEngine::OnNodeTable(const api::NodeTable& table) {
  if (!table_.Take(table)) return;
  ApplyRemote();
  ApplyLocal();
}

void NodeEngine::ApplyRemote() {
  for (const uint64_t id : remote_callees_) {
    if (!table_.remote().contains(id)) core_.StopServing(core_.Function(FunctionId{id}));
  }
  remote_callees_.clear();
  for (const auto& [id, name] : table_.remote()) {
    core_.Serve(name, nullptr);
    remote_callees_.push_back(id);
  }
}

void NodeEngine::ApplyLocal() {
  for (const uint64_t id : local_callees_) {
    if (!table_.local().contains(id)) transport_->RemoveFunction(FunctionId{id});
  }
  local_callees_.clear();
  for (const auto& [id, callee] : table_.local()) {
    // One too many is rejected by the transport, and counted there.
    if (!transport_->SetFunction(FunctionId{id}, transport::TenantIndex{callee.tenant}).ok()) continue;
    local_callees_.push_back(id);
  }
}

void NodeEngine::AddCounters(const std::function<void(absl::string_view name, uint64_t value)>& add) {
#define WEFT_ADD_COUNTER(name) add("engine_" #name, counters_.name);
  WEFT_ENGINE_COUNTERS(WEFT_ADD_COUNTER)
#undef WEFT_ADD_COUNTER
  add("nodes_reached",
      static_cast<uint64_t>(std::count_if(peers_.begin(), peers_.end(),
                                          [](const auto& entry) { return entry.second.reported_up; })));
  const transport::Counters& transport = transport_->counters();
  add("datagrams_in", transport.datagrams_in);
  add("datagrams_out", transport.datagrams_out);
  add("bytes_in", transport.bytes_in);
  add("bytes_out", transport.bytes_out);
  add("packets_lost", transport.packets_lost);
  add("segments_resent", transport.segments_resent);
  add("peer_deaths", transport.peer_deaths);
  add("frames_refused", transport.frames_refused);
#define WEFT_ADD_DROP(name, number, text) \
  if ((number) != 0) add("drop_" text, transport.drops[number]);
  WEFT_DROP_REASONS(WEFT_ADD_DROP)
#undef WEFT_ADD_DROP
}

}  // namespace weft::engine
