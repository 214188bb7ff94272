// SPDX-License-Identifier: Apache-2.0
// The node engine's control side: its start, mail and time, the agent's table. Peers and their keys are in
// node_engine_peers.cc.
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

// In turns, how often it is looked whether there are many records of what has left.
constexpr uint32_t kForgetEvery = 64;

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
      outbound_shares_(options_.tenant_limits.size()),
      inbound_(options_.calls_max),
      inbound_tenant_shares_(options_.tenant_limits.size()),
      inbound_peer_shares_(options_.transport.peers_max),
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
    has_mail_.store(true, std::memory_order_release);  // [M1] pairs with PollHosts and NextNs
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
  if (leave_asked_) [[unlikely]]
    TakePublished();
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
  const bool changed = transport_->state_changes() != states_told_;
  if (changed || ++turns_ % kForgetEvery == 0) {
    if (changed) ReportNodes(false);
    if (records() >= forget_at_) ForgetGone();
  }
  if (!leaves_.empty() && !leave_asked_) [[unlikely]]
    CheckLeaves(now_ns);
  core_.Publish();
  return count;
}

uint64_t NodeEngine::NextNs(uint64_t now_ns) const {
  // Its wake may be spent: the poller looks at descriptors now and then while it polls, after this turn has
  // looked for mail.
  if (has_mail_.load(std::memory_order_acquire)) return now_ns;  // [M1]
  // Of what the end of the turn brought, as a peer that was given up, TakeEvents has not heard yet.
  if (transport_->HasEvent() || transport_->state_changes() != states_told_) return now_ns;
  // What waits is tried at every turn; where nothing else happens, this often.
  uint64_t retry_ns = waiting_out_.empty() && waiting_in_.empty() ? ~uint64_t{0} : now_ns + kNsPerMs;
  for (const Leave& leave : leaves_) retry_ns = std::min(retry_ns, leave.due_ns);
  return std::min(retry_ns, transport_->NextTimerNs(now_ns));
}

void NodeEngine::OnAttached() {
  table_.Restart();
  leaves_.clear();  // Asked by the agent's former process.
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
  add("functions_unknown", transport.functions_unknown);
  add("messages_given_up", transport.messages_given_up);
  add("answers_given_up", transport.answers_given_up);
#define WEFT_ADD_DROP(name, number, text) \
  if ((number) != 0) add("drop_" text, transport.drops[number]);
  WEFT_DROP_REASONS(WEFT_ADD_DROP)
#undef WEFT_ADD_DROP
}

}  // namespace weft::engine
