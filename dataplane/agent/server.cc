// SPDX-License-Identifier: Apache-2.0
// The loop: descriptors and timers.
#include "dataplane/agent/server.h"

#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/agent/admission.h"
#include "dataplane/base/check.h"
#include "dataplane/base/pod_uid.h"
#include "dataplane/base/socket_acl.h"
#include "dataplane/base/status.h"
#include "dataplane/channel/doorbell.h"
#include "dataplane/channel/layout.h"
#include "spdlog/spdlog.h"

namespace weft::agent {
namespace {

// What epoll's 64 bits of user data mean: a connection's number, or one of these with the top bit set.
constexpr uint64_t kTagSpecial = uint64_t{1} << 63;
constexpr uint64_t kTagAgentListener = kTagSpecial | 1;
constexpr uint64_t kTagAdminListener = kTagSpecial | 2;
constexpr uint64_t kTagStop = kTagSpecial | 3;
constexpr uint64_t kTagEngine = kTagSpecial | 4;
constexpr uint64_t kTagStore = kTagSpecial | 5;

constexpr int kEventsMax = 64;
// No step of the loop takes this long unless its thread does not get the CPU.
constexpr uint64_t kLostNs = 20 * kNsPerMs;

ChannelId RandomChannelId() {
  ChannelId id(kChannelIdBytes, '\0');
  // At most 256 bytes are never delivered in part, and never fail once the pool is ready.
  WEFT_CHECK(getrandom(id.data(), id.size(), 0) == static_cast<ssize_t>(id.size()));
  return id;
}

// Descriptors that connections leave to memories on their way, to messages full of them, and to the rest.
constexpr uint64_t kSpareFds = 1024;

// Takes as many descriptors as the system lets this process have. Returns how many connections that is: each
// needs a socket and a pidfd.
uint64_t RaiseDescriptorLimit() {
  rlimit limit{1024, 1024};
  (void)getrlimit(RLIMIT_NOFILE, &limit);
  const rlimit raised{limit.rlim_max, limit.rlim_max};
  if (setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  return (limit.rlim_cur - std::min<uint64_t>(kSpareFds, limit.rlim_cur / 2)) / 2;
}

void TellSaveError(const absl::Status& error) {
  if (!error.ok()) spdlog::error("a generation is programmed but not saved: {}", error.ToString());
}

}  // namespace

Server::Server(ServerOptions options) : options_(std::move(options)), started_ns_(NowNs()) {
  admin_tenant_.name = "admin";
  engine_tenant_.name = "engine";
  engine_tenant_.uid = geteuid();
  engine_tenant_.limits = NodeEngineLimits(options_.config.tenants, admin_tenant_.limits);
}

void Server::set_node_link(NodeLink* link) {
  node_link_ = link;
  engine_->set_workers(link->workers());
  engine_tenant_.limits = NodeEngineLimits(options_.config.tenants, admin_tenant_.limits, link->workers());
}

TenantLimits NodeEngineLimits(const std::vector<Tenant>& tenants, const TenantLimits& admin,
                              uint32_t workers) {
  TenantLimits limits;
  limits.hosts = 1;
  limits.clients = 0;
  limits.channels = 65'536 * workers;  // One with each process of the node, for each worker.
  limits.bytes = admin.bytes;
  for (const Tenant& tenant : tenants) limits.bytes += tenant.limits.bytes;
  limits.bytes *= workers;
  limits.arena_bytes = kArenaBytesMax;  // Each channel's is the smaller one, the host's.
  return limits;
}

// By which the engine counts a tenant's memory: its place in the settings, and behind them weftctl's.
uint32_t Server::IndexOfTenant(const Tenant* tenant) const {
  const std::vector<Tenant>& tenants = options_.config.tenants;
  const bool listed =
      !tenants.empty() && tenant >= tenants.data() && tenant < tenants.data() + tenants.size();
  return static_cast<uint32_t>(listed ? tenant - tenants.data() : tenants.size());
}

uint32_t Server::TenantOfHost(const std::string& host) const {
  const std::vector<Tenant>& tenants = options_.config.tenants;
  for (std::size_t i = 0; i < tenants.size(); ++i) {
    const std::vector<std::string>& hosts = tenants[i].hosts;
    if (std::find(hosts.begin(), hosts.end(), host) != hosts.end()) return static_cast<uint32_t>(i);
  }
  // A pod's UID tells its tenant only where one alone has pods.
  const auto has_pods = [](const Tenant& tenant) { return tenant.pods; };
  const auto first = std::find_if(tenants.begin(), tenants.end(), has_pods);
  if (IsPodUid(host) && std::count_if(tenants.begin(), tenants.end(), has_pods) == 1) {
    return static_cast<uint32_t>(first - tenants.begin());
  }
  return static_cast<uint32_t>(tenants.size());
}

Server::~Server() {
  if (store_ != nullptr) TellSaveError(store_->Finish());
}

absl::StatusOr<std::unique_ptr<Server>> Server::Create(ServerOptions options) {
  std::unique_ptr<Server> server(new Server(std::move(options)));
  server->connections_max_ = RaiseDescriptorLimit();
  WEFT_ASSIGN_OR_RETURN(server->store_, Store::Create(server->options_.state_dir));
  absl::StatusOr<Model> loaded = server->store_->Load();
  if (absl::IsInvalidArgument(loaded.status())) {
    // A node without its last routes still serves what is registered; control programs the rest.
    WEFT_RETURN_IF_ERROR(server->store_->SetAside());
    spdlog::error("{}: kept as {}.damaged; starting without the last generation",
                  std::string(loaded.status().message()), server->store_->path());
    loaded = server->store_->Load();
  }
  WEFT_ASSIGN_OR_RETURN(Model model, std::move(loaded));
  EngineOptions engine;
  engine.node = server->options_.config.node;
  engine.new_channel_id = RandomChannelId;
  engine.start_ns = server->ran_ns_ = NowNs();
  Server* const raw = server.get();
  engine.tenant_of_host = [raw](const std::string& host) { return raw->TenantOfHost(host); };
  engine.index_of_tenant = [raw](const Tenant* tenant) { return raw->IndexOfTenant(tenant); };
  server->engine_ = std::make_unique<Engine>(std::move(engine));
  spdlog::info("node {} starts with generation {}", server->options_.config.node, model.generation());
  server->engine_->Restore(std::move(model));
  WEFT_ASSIGN_OR_RETURN(const DoorbellPair probe, MakeDoorbellPair());
  if (!probe.refuses_descriptors) {
    spdlog::warn(
        "this kernel has no SO_PASSRIGHTS: a host that is sent descriptors through a doorbell closes that "
        "peer's channels");
  }
  WEFT_RETURN_IF_ERROR(server->Listen());
  return server;
}

absl::Status Server::Watch(int fd, uint64_t tag, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = tag;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return absl::ErrnoToStatus(errno, "watch a descriptor");
  return absl::OkStatus();
}

absl::Status Server::Listen() {
  epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.valid()) return absl::ErrnoToStatus(errno, "create an epoll");
  if (mkdir(options_.run_dir.c_str(), 0755) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, absl::StrCat("make run directory ", options_.run_dir));
  }
  const std::string admin_path = options_.run_dir + "/admin.sock";
  WEFT_ASSIGN_OR_RETURN(admin_listener_, ListenUnix(admin_path, 0660));
  if (options_.config.control_uid != geteuid() && options_.config.control_uid != 0) {
    const absl::Status granted = GrantSocket(admin_path, options_.config.control_uid);
    if (!granted.ok()) spdlog::warn("control_user may not be able to connect: {}", granted.ToString());
  }
  WEFT_ASSIGN_OR_RETURN(agent_listener_, ListenUnix(options_.run_dir + "/agent.sock", 0666));
  WEFT_RETURN_IF_ERROR(Watch(admin_listener_.get(), kTagAdminListener, EPOLLIN));
  WEFT_RETURN_IF_ERROR(Watch(agent_listener_.get(), kTagAgentListener, EPOLLIN));
  WEFT_RETURN_IF_ERROR(Watch(door_.fd(), kTagEngine, EPOLLIN));
  WEFT_RETURN_IF_ERROR(Watch(store_->error_fd(), kTagStore, EPOLLIN));
  if (options_.stop.valid()) WEFT_RETURN_IF_ERROR(Watch(options_.stop.get(), kTagStop, EPOLLIN));
  return absl::OkStatus();
}

// The listeners stay in the epoll, since to be added again can fail; a change of what is watched takes no
// memory.
void Server::SetAccepting(bool accepting) {
  for (const auto& [fd, tag] : {std::pair{admin_listener_.get(), kTagAdminListener},
                                std::pair{agent_listener_.get(), kTagAgentListener}}) {
    epoll_event event{};
    event.events = accepting ? uint32_t{EPOLLIN} : 0;
    event.data.u64 = tag;
    WEFT_CHECK(epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) == 0);
  }
}

// -1 where nothing is due: an idle agent does not wake.
int Server::TimeoutMs(uint64_t now_ns) const {
  uint64_t due_ns = engine_->NextDeadlineNs();
  if (accept_again_ns_ != 0) due_ns = std::min(due_ns, accept_again_ns_);
  if (next_watchdog_ns_ != 0) due_ns = std::min(due_ns, next_watchdog_ns_);
  if (registrations_changed_) due_ns = std::min(due_ns, registrations_next_ns_);
  for (const auto& [id, query] : queries_) due_ns = std::min(due_ns, query.deadline_ns);
  if (!hello_due_.empty()) due_ns = std::min(due_ns, hello_due_.front().first);
  for (const SessionId id : crowded_) {
    const auto found = connections_.find(id);
    if (found != connections_.end() && found->second->crowded_since_ns != 0)
      due_ns = std::min(due_ns, found->second->crowded_since_ns + kCrowdedNs);
  }
  if (due_ns == UINT64_MAX) return -1;
  if (due_ns <= now_ns) return 0;
  return static_cast<int>(std::min<uint64_t>((due_ns - now_ns + kNsPerMs - 1) / kNsPerMs, 1'000'000));
}

void Server::RunTimers(uint64_t now_ns) {
  if (accept_again_ns_ != 0 && now_ns >= accept_again_ns_) {
    accept_again_ns_ = 0;
    SetAccepting(true);
  }
  if (next_watchdog_ns_ != 0 && now_ns >= next_watchdog_ns_) {
    options_.notifier.Send("WATCHDOG=1");
    next_watchdog_ns_ = now_ns + options_.notifier.watchdog_interval_ns();
  }
  while (!hello_due_.empty() &&
         (now_ns >= hello_due_.front().first || !connections_.contains(hello_due_.front().second))) {
    const auto found = connections_.find(hello_due_.front().second);
    hello_due_.pop_front();
    if (found != connections_.end() && found->second->role == Connection::Role::kNew &&
        !found->second->on_admin_socket) {
      RefuseAndClose(*found->second, Refuse(Refusal::kHelloLate, "no Hello within 5 s"));
    }
  }
  CutOffCrowded(now_ns);
  std::vector<PendingQuery> late;
  for (const auto& [id, query] : queries_) {
    if (now_ns >= query.deadline_ns) late.push_back(query);
  }
  std::erase_if(queries_, [&](const auto& entry) { return now_ns >= entry.second.deadline_ns; });
  for (const PendingQuery& query : late) FinishQuery(query);
}

absl::Status Server::Run() {
  if (options_.notifier.watchdog_interval_ns() != 0) next_watchdog_ns_ = NowNs();
  options_.notifier.Send("READY=1");
  spdlog::info("listening in {}", options_.run_dir);
  RunEngine();  // What was restored may name other nodes.
  epoll_event events[kEventsMax];
  while (!stopping_) {
    ran_ns_ = NowNs();
    const int timeout_ms = TimeoutMs(ran_ns_);
    const int count = epoll_wait(epoll_.get(), events, kEventsMax, timeout_ms);
    if (count < 0 && errno != EINTR) return absl::ErrnoToStatus(errno, "wait for events");
    if (timeout_ms < 0) ran_ns_ = NowNs();  // Nobody owes an answer.
    ExcuseLostTime(timeout_ms < 0 ? 0 : static_cast<uint64_t>(timeout_ms) * kNsPerMs);
    for (int i = 0; i < count; ++i) Serve(events[i].data.u64, events[i].events);
    RunTimers(NowNs());
    RunEngine();
  }
  options_.notifier.Send("STOPPING=1");
  spdlog::info("stopping; hosts keep their channels and attach again");
  return absl::OkStatus();
}

// Silence while this thread did not run says nothing about a host: its answer may lie in the socket, the
// question may not have been sent, and a machine that stood still stood still for the host as well.
void Server::ExcuseLostTime(uint64_t expected_ns) {
  const uint64_t now_ns = NowNs();
  const uint64_t passed_ns = now_ns - ran_ns_;
  ran_ns_ = now_ns;
  if (passed_ns <= expected_ns + kLostNs) return;
  const uint64_t lost_ns = passed_ns - expected_ns;
  engine_->Excuse(lost_ns, now_ns);
  // Nor does what waits here, which this thread alone can send on.
  for (const SessionId id : crowded_) {
    const auto found = connections_.find(id);
    if (found == connections_.end() || found->second->crowded_since_ns == 0) continue;
    uint64_t& since_ns = found->second->crowded_since_ns;
    since_ns = std::min(since_ns + lost_ns, now_ns);
  }
}

void Server::Serve(uint64_t tag, uint32_t events) {
  if (tag == kTagStop) {
    stopping_ = true;
    return;
  }
  if (tag == kTagEngine) return AcceptEngine();
  if (tag == kTagStore) return TellSaveError(store_->TakeError());
  if (tag == kTagAgentListener || tag == kTagAdminListener) return Accept(tag == kTagAdminListener);
  const SessionId id = tag & ~kTagProcess;
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;  // Closed by an earlier event of this batch.
  Connection& connection = *found->second;
  if ((tag & kTagProcess) != 0) return Close(id, "its process ended");
  if ((events & EPOLLOUT) != 0) {
    if (const absl::Status flushed = connection.Flush(); !flushed.ok())
      return Close(id, std::string(flushed.message()));
    UpdateInterest(connection);
  }
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) Receive(connection);
}

// Asks epoll for room in the socket's buffer only while something waits for it.
void Server::UpdateInterest(Connection& connection) {
  const bool wants_write = !connection.queue.empty();
  if (wants_write == connection.wants_write) return;
  connection.wants_write = wants_write;
  epoll_event event{};
  event.events = EPOLLIN | (wants_write ? EPOLLOUT : 0u);
  event.data.u64 = connection.id;
  (void)epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, connection.socket.get(), &event);
}

// Lets the engine go on until it has nothing more to say. What it says can fail, which tells it something
// new.
void Server::RunEngine() {
  if (node_link_ != nullptr && peers_told_ != engine_->shared_model()) TellNodeLink();
  for (;;) {
    ExcuseLostTime(0);
    engine_->Advance(NowNs());
    std::vector<Output> outputs = engine_->TakeOutputs();
    registrations_changed_ |= engine_->TakeRegistrationsChanged();
    if (registrations_changed_) PushChangedRegistrations();
    TellDrains();
    if (outputs.empty()) return;
    for (Output& output : outputs) CarryOut(std::move(output));
  }
}

// Tells the link to other nodes which there are, by the newest generation.
void Server::TellNodeLink() {
  peers_told_ = engine_->shared_model();
  std::map<std::string, std::string> peers;
  for (const auto& [name, node] : peers_told_->nodes()) {
    if (name != engine_->node() && !node.address().empty()) peers[name] = node.address();
  }
  node_link_->SetPeers(peers);
}

}  // namespace weft::agent
