// SPDX-License-Identifier: Apache-2.0
#include "dataplane/agent/node_link.h"

#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bpf/abi/packet.h"
#include "dataplane/base/check.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "dataplane/port/next_hop.h"
#include "spdlog/spdlog.h"

namespace weft::agent {

uint32_t RandomKeyGeneration() {
  uint32_t value = 0;
  WEFT_CHECK(getrandom(&value, sizeof(value), 0) == static_cast<ssize_t>(sizeof(value)));
  return value;
}

namespace {

// What one tenant's messages may hold in the transport, and as much again on their way to it: two of 16 MiB
// each way. Nothing is taken before it is needed.
constexpr uint64_t kTenantBytes = 128u << 20;
constexpr std::size_t kMessageMemoryBytes = 256u << 20;
// How long the farewell to other nodes may take.
constexpr uint64_t kLeaveNs = 100 * kNsPerMs;
// Of which one may be an engine's, where the settings do not say.
constexpr uint32_t kProcessorsAWorker = 8;

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

absl::StatusOr<engine::EngineThreadOptions> OptionsOf(const AgentConfig& config, EngineDoor* door,
                                                      uint16_t worker, uint16_t workers) {
  engine::EngineThreadOptions options;
  options.worker = worker;
  options.workers = workers;
  // A DPDK device has an address of its own on its link; keys still go by the kernel, to `listen`.
  const bool dpdk = config.packet_port == AgentConfig::PacketPort::kDpdk;
  WEFT_ASSIGN_OR_RETURN(options.listen, port::Address::Parse(dpdk ? config.dpdk.address : config.listen));
  options.port = PortKindOf(config.packet_port);
  options.dpdk_device = config.dpdk.device;
  transport::Config& transport = options.engine.transport;
  transport.datagram_bytes_max = NodeLink::DatagramBytesMax(config, options.listen.is_ipv4());
  transport.memory_bytes = kMessageMemoryBytes;
  transport.messages_in_max = transport.messages_out_max = 4096;
  transport.functions_max = 4096;
  // As many as the key exchange takes. A peer that is there costs memory, a place for one does not. Its four
  // key ids for each make a table of 4,096, as steer's is where nobody chose another; several workers share
  // it.
  transport.peers_max = identity::KeyExchangeOptions().peers_max / workers;
  NodeLink::SetKeyIndices(worker, workers, &transport);
  // An id from before a restart does not come back.
  transport.key_generation_first = RandomKeyGeneration();
  options.engine.connect = [door, worker] { return door->Connect(worker); };
  // Tenants in the order of the settings, and weftctl's own behind them.
  options.engine.tenant_limits.assign(config.tenants.size() + 1, kTenantBytes);
  return options;
}

// Modulo the number of workers it is the worker; above that stands whether datagrams for it leave alone.
uint16_t HintOf(uint16_t worker, uint16_t workers, bool alone) {
  if (!alone) return worker;
  const int base = (WEFT_WORKER_HINT_ALONE + workers - 1) / workers * workers;
  return static_cast<uint16_t>(base + worker);
}

}  // namespace

absl::StatusOr<std::unique_ptr<NodeLink>> NodeLink::Create(const AgentConfig& config,
                                                           const std::string& run_dir, EngineDoor* door) {
  std::unique_ptr<NodeLink> link(new NodeLink(config, run_dir, door, WorkersOf(config)));
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
  worker.datagram_bytes_max = DatagramBytesMax(config, !worker.address.ipv6);
  // What DPDK carries passes no XDP program.
  const bool steered = !config.interface.empty() && config.packet_port != AgentConfig::PacketPort::kDpdk;
  link->alone_ = steered && (if_nametoindex(config.interface.c_str()) == 0 || port::IsVeth(config.interface));
  for (uint16_t i = 0; i < link->workers_; ++i) {
    worker.id = i;
    worker.hint = HintOf(i, link->workers_, link->alone_);
    keys.workers.push_back(worker);
  }
  WEFT_ASSIGN_OR_RETURN(keys.listener, ListenTcp(endpoint));
  if (!endpoint.unspecified()) {
    identity::Endpoint from = endpoint;
    from.port = 0;
    const std::string text = from.ToString();
    keys.dial_from = text.substr(0, text.rfind(':'));
  }
  WEFT_ASSIGN_OR_RETURN(link->keys_, identity::KeyExchange::Create(std::move(keys), link.get()));
  NodeLink* const raw = link.get();
  if (!steered) {
    const bool asked = config.packet_port == AgentConfig::PacketPort::kAfXdp;
    WEFT_RETURN_IF_ERROR(link->StartEngines(false, asked ? "the settings name no `interface`" : ""));
    link->LogPorts();
  }
  link->thread_ = std::thread([raw] { raw->Run(); });
  if (steered) {
    link->watch_ = std::make_unique<SteerWatch>(
        run_dir, config.interface, endpoint.port, kSteerPatienceNs, [raw](SteerAnswer answer) {
          raw->ToKeys([raw, answer = std::move(answer)] { raw->OnSteering(answer); });
        });
  }
  return link;
}

// Few cores are the hosts': an engine that polls beside them takes more than it gives.
uint16_t NodeLink::WorkersOf(const AgentConfig& config) {
  if (config.packet_port == AgentConfig::PacketPort::kDpdk) return 1;
  if (config.workers != 0) return static_cast<uint16_t>(config.workers);
  uint32_t workers = std::max(
      1u, std::min(std::thread::hardware_concurrency() / kProcessorsAWorker, AgentConfig::kWorkersMax));
  if (!config.interface.empty()) workers = std::min(workers, port::QueuesOf(config.interface));
  return static_cast<uint16_t>(workers);
}

absl::Status NodeLink::StartEngines(bool may_steer, const std::string& why_not_steered) {
  std::vector<std::unique_ptr<engine::EngineThread>> engines;
  std::shared_ptr<engine::Crossing> crossing;
  for (uint16_t worker = 0; worker < workers_; ++worker) {
    WEFT_ASSIGN_OR_RETURN(engine::EngineThreadOptions options, OptionsOf(config_, door_, worker, workers_));
    options.may_steer = may_steer;
    options.why_not_steered = why_not_steered;
    if (may_steer && workers_ > 1 && worker == 0) {
      WEFT_ASSIGN_OR_RETURN(crossing, engine::Crossing::Create(workers_));
    }
    options.crossing = crossing;
    WEFT_ASSIGN_OR_RETURN(std::unique_ptr<engine::EngineThread> engine,
                          engine::EngineThread::Create(std::move(options)));
    engines.push_back(std::move(engine));
  }
  steered_.resize(workers_);
  const std::lock_guard<std::mutex> lock(mutex_);
  engines_ = std::move(engines);
  crossing_ = std::move(crossing);
  return absl::OkStatus();
}

void NodeLink::LogPort(uint16_t worker) {
  const port::PortStatus port = engines_[worker]->port_status();
  std::string choices;
  for (const port::PortChoice& choice : port.choices) {
    absl::StrAppend(&choices, "; ", choice.feature, ": ", choice.chosen, choice.why.empty() ? "" : ", since ",
                    choice.why);
  }
  spdlog::log(port.fell_back ? spdlog::level::warn : spdlog::level::info, "{}packet port {} at {}{}",
              workers_ == 1 ? "" : absl::StrCat("worker ", worker, ": "), port.port, port.detail, choices);
}

void NodeLink::LogPorts() {
  for (uint16_t worker = 0; worker < workers_; ++worker) LogPort(worker);
}

std::vector<NodeLink::WorkerState> NodeLink::LookAtWorkers() {
  std::vector<WorkerState> workers(workers_);
  const std::lock_guard<std::mutex> lock(mutex_);
  for (uint16_t i = 0; i < workers_; ++i) {
    WorkerState& worker = workers[i];
    worker.port.port = "none";
    worker.port.detail = "yet";
    if (!started()) continue;
    worker.port = engines_[i]->port_status();
    if (crossing_ == nullptr) continue;
    worker.passed = crossing_->passed(i);
    worker.lost = crossing_->lost(i);
  }
  return workers;
}

NodeLink::~NodeLink() {
  watch_.reset();
  if (thread_.joinable()) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    Wake();
    thread_.join();
  }
  engines_.clear();  // Before the mutex that their answers take.
}

void NodeLink::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_.get(), &one, sizeof(one));
}

void NodeLink::ToKeys(std::function<void()> what) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for_keys_.push_back(std::move(what));
  }
  Wake();
}

void NodeLink::ToEngine(uint16_t worker, const std::function<void(engine::NodeEngine&)>& what) {
  while (!engines_[worker]->Post(what)) std::this_thread::sleep_for(std::chrono::microseconds(100));
}

void NodeLink::SetPeers(const std::map<std::string, std::string>& addresses) {
  ToKeys([this, addresses] { TakePeers(addresses); });
}

void NodeLink::SetDrains(std::map<std::string, identity::Drains> to_peers) {
  ToKeys([this, to_peers = std::move(to_peers)] { keys_->SetDrains(to_peers); });
}

void NodeLink::OnDrains(const std::string& peer, const identity::Drains& drains) {
  door_->PostDrains(DrainMail{peer, false, false, drains});
}

void NodeLink::TakePeers(const std::map<std::string, std::string>& addresses) {
  std::erase_if(peers_, [&](const auto& known) {
    if (addresses.contains(known.first)) return false;
    keys_->RemovePeer(known.first);
    peer_logs_.erase(known.first);
    return true;
  });
  // Those for which there is no room are tried again with the next change, which may make some.
  std::size_t left_out = 0;
  for (const auto& [name, address] : addresses) {
    const auto known = peers_.find(name);
    if (known != peers_.end() && known->second == address) continue;
    if (left_out != 0 && known == peers_.end()) {
      ++left_out;
      continue;
    }
    const absl::StatusOr<identity::Endpoint> endpoint = identity::Endpoint::Parse(address);
    const absl::Status added = endpoint.ok() ? keys_->AddPeer(name, *endpoint) : endpoint.status();
    if (added.ok()) {
      peers_[name] = address;
      continue;
    }
    if (absl::IsResourceExhausted(added)) left_out = 1;
    if (log_limit_.Allow(NowNs()))
      spdlog::error("node {} cannot be reached: {}", name, std::string(added.message()));
  }
  if (left_out > 1 && log_limit_.Allow(NowNs()))
    spdlog::error("{} more nodes cannot be reached either", left_out - 1);
}

NodeLink::State NodeLink::Look() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return state_;
}

uint64_t NodeLink::NextNs() const {
  if (!started()) return ~uint64_t{0};
  uint64_t next_ns = keys_->NextTimerNs();
  if (leave_ns_ != 0) next_ns = std::min(next_ns, leave_ns_);
  for (const auto& [worker, inside] : inside_) {
    if (!inside.asked.empty()) next_ns = std::min(next_ns, inside.asked.front().first + kInsideAnswerNs);
  }
  return changed_ ? std::min(next_ns, snapshot_ns_ + kLookNs) : next_ns;
}

void NodeLink::Run() {
  do {
    const uint64_t now_ns = NowNs();
    const uint64_t next_ns = NextNs();
    const int timeout_ms =
        next_ns <= now_ns
            ? 0
            : static_cast<int>(std::min<uint64_t>((next_ns - now_ns + kNsPerMs - 1) / kNsPerMs, 60'000));
    // Before there is an engine nobody could be told of anything.
    pollfd fds[] = {{!started() ? -1 : keys_->fd(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
    (void)poll(fds, 2, timeout_ms);
    changed_ |= fds[0].revents != 0 || (started() && NowNs() >= keys_->NextTimerNs());
    uint64_t count;
    [[maybe_unused]] const ssize_t bytes = read(wake_.get(), &count, sizeof(count));
  } while (Turn());
}

bool NodeLink::Turn() {
  std::vector<std::function<void()>> posted;
  bool stop = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    posted.swap(for_keys_);
    stop = stop_;
  }
  changed_ |= !posted.empty();
  for (const auto& what : posted) what();
  if (!started()) return !stop;
  if (stop && leave_ns_ == 0) {
    keys_->Leave();
    leave_ns_ = NowNs() + kLeaveNs;
  }
  const uint64_t now_ns = NowNs();
  EndSilentInside(now_ns);
  keys_->Step(now_ns);
  LookAtPaths(now_ns);
  if (changed_ && now_ns >= snapshot_ns_ + kLookNs) {
    const identity::Credentials& own = keys_->credentials();
    std::map<std::string, std::string> problems = packet_problems_;
    problems.insert(path_problems_.begin(), path_problems_.end());
    State state{keys_->Peers(),      keys_->counters(),    std::move(problems),
                own.id().ToString(), own.expires_unix_s(), certificate_problem_};
    const std::lock_guard<std::mutex> lock(mutex_);
    state_ = std::move(state);
    changed_ = false;
    snapshot_ns_ = now_ns;
  }
  return leave_ns_ == 0 || NowNs() < leave_ns_;
}

// --- The key exchange's word; see node_link_lanes.cc too.

void NodeLink::OnCredentials(const absl::Status& status) {
  certificate_problem_ = std::string(status.message());
  changed_ = true;
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
