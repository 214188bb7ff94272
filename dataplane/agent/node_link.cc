// SPDX-License-Identifier: Apache-2.0
#include "dataplane/agent/node_link.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/agent/steer_client.h"
#include "dataplane/base/check.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "spdlog/spdlog.h"

namespace weft::agent {
namespace {

// What one tenant's messages may hold in the transport, and as much again on their way to it: two of 16 MiB
// each way. Nothing is taken before it is needed.
constexpr uint64_t kTenantBytes = 128u << 20;
constexpr std::size_t kMessageMemoryBytes = 256u << 20;
// How long the farewell to other nodes may take.
constexpr uint64_t kLeaveNs = 100 * kNsPerMs;
// Between two questions to a weft-control that is not there yet.
constexpr int kSteerRetryMs = 50;

absl::StatusOr<UniqueFd> ListenTcp(const identity::Endpoint& endpoint) {
  UniqueFd fd(socket(endpoint.ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const std::string what = absl::StrCat("listen on ", endpoint.ToString(), " (TCP)");
  if (!fd.valid()) return absl::ErrnoToStatus(errno, what);
  const int one = 1;
  (void)setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  sockaddr_storage address{};
  const socklen_t bytes = endpoint.ToSockaddr(&address);
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), bytes) != 0 ||
      listen(fd.get(), SOMAXCONN) != 0) {
    return absl::ErrnoToStatus(errno, what);
  }
  return fd;
}

engine::PortKind PortKindOf(AgentConfig::PacketPort port) {
  switch (port) {
    case AgentConfig::PacketPort::kAuto:
      return engine::PortKind::kAuto;
    case AgentConfig::PacketPort::kAfXdp:
      return engine::PortKind::kAfXdp;
    case AgentConfig::PacketPort::kDpdk:
      return engine::PortKind::kDpdk;
    case AgentConfig::PacketPort::kIoUring:
      return engine::PortKind::kIoUring;
  }
  return engine::PortKind::kAuto;
}

uint32_t RandomGeneration() {
  uint32_t value = 0;
  WEFT_CHECK(getrandom(&value, sizeof(value), 0) == static_cast<ssize_t>(sizeof(value)));
  return value;
}

transport::SealSecret SealSecretOf(const identity::PacketSecret& secret) { return {secret.key, secret.iv}; }

absl::StatusOr<engine::EngineThreadOptions> OptionsOf(const AgentConfig& config, EngineDoor* door) {
  engine::EngineThreadOptions options;
  // A DPDK device has an address of its own on its link; keys still go by the kernel, to `listen`.
  const bool dpdk = config.packet_port == AgentConfig::PacketPort::kDpdk;
  WEFT_ASSIGN_OR_RETURN(options.listen, port::Address::Parse(dpdk ? config.dpdk.address : config.listen));
  options.port = PortKindOf(config.packet_port);
  options.dpdk_device = config.dpdk.device;
  transport::Config& transport = options.engine.transport;
  transport.memory_bytes = kMessageMemoryBytes;
  transport.messages_in_max = transport.messages_out_max = 4096;
  transport.functions_max = 4096;
  // As many as the key exchange takes. A peer that is there costs memory, a place for one does not. Its four
  // key ids for each make a table of 4,096, as steer's is where nobody chose another.
  transport.peers_max = identity::KeyExchangeOptions().peers_max;
  // An id from before a restart does not come back.
  transport.key_generation_first = RandomGeneration();
  options.engine.connect = [door] { return door->Connect(); };
  // Tenants in the order of the settings, and weftctl's own behind them.
  options.engine.tenant_limits.assign(config.tenants.size() + 1, kTenantBytes);
  return options;
}

}  // namespace

absl::StatusOr<std::unique_ptr<NodeLink>> NodeLink::Create(const AgentConfig& config,
                                                           const std::string& run_dir, EngineDoor* door) {
  std::unique_ptr<NodeLink> link(new NodeLink(config, run_dir, door));
  WEFT_ASSIGN_OR_RETURN(const identity::Endpoint endpoint, identity::Endpoint::Parse(config.listen));
  link->wake_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!link->wake_.valid()) return absl::ErrnoToStatus(errno, "make an eventfd");
  identity::KeyExchangeOptions keys;
  keys.credentials = {config.identity.certificate, config.identity.key, config.identity.ca};
  keys.node = config.node;
  identity::Worker worker;
  worker.address = endpoint;
  if (!config.dpdk.address.empty()) {
    WEFT_ASSIGN_OR_RETURN(worker.address, identity::Endpoint::Parse(config.dpdk.address));
  }
  keys.workers.push_back(worker);
  WEFT_ASSIGN_OR_RETURN(keys.listener, ListenTcp(endpoint));
  if (!endpoint.unspecified()) {
    identity::Endpoint from = endpoint;
    from.port = 0;
    const std::string text = from.ToString();
    keys.dial_from = text.substr(0, text.rfind(':'));
  }
  WEFT_ASSIGN_OR_RETURN(link->keys_, identity::KeyExchange::Create(std::move(keys), link.get()));
  if (config.interface.empty()) {
    const bool asked = config.packet_port == AgentConfig::PacketPort::kAfXdp;
    WEFT_RETURN_IF_ERROR(link->StartEngine(std::nullopt, asked ? "the settings name no `interface`" : ""));
  }
  NodeLink* const raw = link.get();
  link->thread_ = std::thread([raw] { raw->Run(); });
  return link;
}

absl::Status NodeLink::StartEngine(std::optional<engine::Steering> steering,
                                   const std::string& why_not_steered) {
  WEFT_ASSIGN_OR_RETURN(engine::EngineThreadOptions options, OptionsOf(config_, door_));
  options.steering = std::move(steering);
  options.why_not_steered = why_not_steered;
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<engine::EngineThread> engine,
                        engine::EngineThread::Create(std::move(options)));
  const port::PortStatus port = engine->port_status();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    engine_ = std::move(engine);
  }
  std::string choices;
  for (const port::PortChoice& choice : port.choices) {
    absl::StrAppend(&choices, "; ", choice.feature, ": ", choice.chosen, choice.why.empty() ? "" : ", since ",
                    choice.why);
  }
  spdlog::log(port.fell_back ? spdlog::level::warn : spdlog::level::info, "packet port {} at {}{}", port.port,
              port.detail, choices);
  return absl::OkStatus();
}

bool NodeLink::Stopping() {
  const std::lock_guard<std::mutex> lock(answers_mutex_);
  return stop_;
}

bool NodeLink::StartSteered() {
  const uint64_t give_up_ns = NowNs() + kSteerPatienceNs;
  const uint16_t udp_port = identity::Endpoint::Parse(config_.listen)->port;
  absl::StatusOr<SteerMaps> maps;
  for (;;) {
    if (Stopping()) return false;
    maps = AskForSteering(run_dir_, config_.interface, udp_port);
    if (!absl::IsUnavailable(maps.status()) || NowNs() >= give_up_ns) break;
    pollfd wake{wake_.get(), POLLIN, 0};
    (void)poll(&wake, 1, kSteerRetryMs);
    uint64_t count;
    [[maybe_unused]] const ssize_t bytes = read(wake_.get(), &count, sizeof(count));
  }
  std::optional<engine::Steering> steering;
  if (maps.ok()) {
    steering = {.interface = config_.interface,
                .xsks_fd = maps->xsks.get(),
                .keys_fd = maps->keys.get(),
                .drops_fd = maps->drops.get(),
                .keys = maps->key_count,
                .cpus = maps->cpus};
  }
  const absl::Status started = StartEngine(std::move(steering), std::string(maps.status().message()));
  if (!started.ok()) spdlog::error("no call leaves this node: {}", std::string(started.message()));
  return started.ok();
}

port::PortStatus NodeLink::port_status() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (engine_ != nullptr) return engine_->port_status();
  port::PortStatus none;
  none.port = "none";
  none.detail = "yet";
  return none;
}

NodeLink::~NodeLink() {
  if (thread_.joinable()) {
    {
      const std::lock_guard<std::mutex> lock(answers_mutex_);
      stop_ = true;
    }
    Wake();
    thread_.join();
  }
  engine_.reset();  // Before the mutexes that its answers take.
}

void NodeLink::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_.get(), &one, sizeof(one));
}

void NodeLink::ToKeys(std::function<void()> what) {
  {
    const std::lock_guard<std::mutex> lock(answers_mutex_);
    answers_.push_back(std::move(what));
  }
  Wake();
}

void NodeLink::ToEngine(std::function<void(engine::NodeEngine&)> what) {
  if (!engine_->Post(std::move(what))) spdlog::warn("the node engine's mailbox is full");
}

void NodeLink::SetPeers(const std::map<std::string, std::string>& addresses) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [name, address] : peers_) {
    if (!addresses.contains(name)) keys_->RemovePeer(name);
  }
  for (const auto& [name, address] : addresses) {
    const auto known = peers_.find(name);
    if (known != peers_.end() && known->second == address) continue;
    const absl::StatusOr<identity::Endpoint> endpoint = identity::Endpoint::Parse(address);
    const absl::Status added = endpoint.ok() ? keys_->AddPeer(name, *endpoint) : endpoint.status();
    if (!added.ok()) spdlog::error("node {} cannot be reached: {}", name, std::string(added.message()));
  }
  peers_ = addresses;
  Wake();
}

NodeLink::State NodeLink::Look() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return {keys_->Peers(), keys_->counters()};
}

void NodeLink::Run() {
  if (engine_ == nullptr && !StartSteered()) return;
  uint64_t leave_ns = 0;  // Not 0: leaving, until then.
  for (;;) {
    uint64_t next_ns = 0;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      next_ns = keys_->NextTimerNs();
    }
    if (leave_ns != 0) next_ns = std::min(next_ns, leave_ns);
    const uint64_t before_ns = NowNs();
    const int timeout_ms =
        next_ns <= before_ns
            ? 0
            : static_cast<int>(std::min<uint64_t>((next_ns - before_ns + kNsPerMs - 1) / kNsPerMs, 60'000));
    pollfd fds[] = {{keys_->fd(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
    (void)poll(fds, 2, timeout_ms);
    uint64_t count;
    [[maybe_unused]] const ssize_t bytes = read(wake_.get(), &count, sizeof(count));
    std::vector<std::function<void()>> answers;
    bool stop = false;
    {
      const std::lock_guard<std::mutex> lock(answers_mutex_);
      answers.swap(answers_);
      stop = stop_;
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& answer : answers) answer();
    if (stop && leave_ns == 0) {
      keys_->Leave();
      leave_ns = NowNs() + kLeaveNs;
    }
    keys_->Step(NowNs());
    if (leave_ns != 0 && NowNs() >= leave_ns) return;
  }
}

// --- The key exchange's word

void NodeLink::OnSessionUp(const identity::SessionInfo& session) {
  if (session.workers.empty()) return;
  const std::string address = session.workers[0].address.ToString();
  spdlog::info("node {} is a peer, its packets go to {}", session.peer, address);
  ToEngine([this, peer = session.peer, id = session.session, address](engine::NodeEngine& engine) {
    const absl::Status begun = engine.BeginSession(peer, id, address);
    if (begun.ok()) return;
    ToKeys([peer, begun] { spdlog::error("node {}: {}", peer, begun.ToString()); });
  });
}

void NodeLink::OnWorkers(const identity::SessionInfo& session) {
  // Workers inside of hosts come and go; this node's calls go to the engine of the node, its first. That may
  // have moved: the peer's address changed.
  if (session.workers.empty()) return;
  const std::string address = session.workers[0].address.ToString();
  ToEngine([this, peer = session.peer, id = session.session, address](engine::NodeEngine& engine) {
    const absl::Status moved = engine.MoveSession(peer, id, address);
    if (moved.ok()) return;
    ToKeys([peer, moved] { spdlog::error("node {}: {}", peer, moved.ToString()); });
  });
}

void NodeLink::OnReceiveKeyWanted(const identity::LaneKey& key, const identity::PacketSecret& secret) {
  ToEngine([this, key, secret](engine::NodeEngine& engine) {
    const uint32_t id =
        key.lane.remote_worker != 0
            ? 0
            : engine.InstallReceiveKey(key.peer, key.session, key.epoch, SealSecretOf(secret));
    ToKeys([this, key, id] { keys_->SetReceiveKeyId(key, id); });
  });
}

void NodeLink::OnSendKey(const identity::LaneKey& key, uint32_t key_id, uint16_t worker_hint,
                         const identity::PacketSecret& secret) {
  if (key.lane.remote_worker != 0) return;
  ToEngine([key, key_id, worker_hint, secret](engine::NodeEngine& engine) {
    engine.InstallSendKey(key.peer, key.session, key.epoch, key_id, worker_hint, SealSecretOf(secret));
  });
}

void NodeLink::OnRetireReceiveKey(const identity::LaneKey& key) {
  ToEngine([key](engine::NodeEngine& engine) { engine.RetireReceiveKey(key.peer, key.session, key.epoch); });
}

void NodeLink::OnConnectionLost(const std::string& peer, uint64_t session) {
  spdlog::warn("node {}: its connection is lost", peer);
  ToEngine([peer, session](engine::NodeEngine& engine) { engine.DeclareDead(peer, session); });
}

void NodeLink::OnSessionDown(const std::string& peer, uint64_t session, identity::Refusal reason) {
  spdlog::warn("node {} is no peer any more: {}", peer, std::string(identity::ToString(reason)));
  ToEngine([peer, session](engine::NodeEngine& engine) { engine.EndSession(peer, session); });
}

void NodeLink::OnCredentials(const absl::Status& status) {
  if (status.ok()) {
    spdlog::info("the node's certificates were read again");
  } else {
    spdlog::error("the node's certificates: {}", std::string(status.message()));
  }
}

void NodeLink::OnNote(const std::string& line) {
  if (log_limit_.Allow(NowNs())) spdlog::info("{}", line);
}

}  // namespace weft::agent
