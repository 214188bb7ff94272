// SPDX-License-Identifier: Apache-2.0
#include "dataplane/engine/engine_thread.h"

#include <condition_variable>
#include <utility>
#include <vector>

#include "dataplane/base/status.h"
#include "dataplane/engine/port_paths.h"
#include "dataplane/engine/steered_port.h"
#include "dataplane/engine/worker.h"
#include "dataplane/port/af_xdp_port.h"
#ifdef WEFT_HAS_DPDK
#include "dataplane/port/dpdk_port.h"
#endif
#include "dataplane/port/udp_port.h"
#include "dataplane/port/udp_socket.h"

namespace weft::engine {
namespace {

// Of one key: more than a link of 100 Gb/s carries in packets of 1,500 B, so that only a flood meets it.
constexpr uint64_t kKeyPacketsPerSecond = 10'000'000;

}  // namespace

// The loop over whichever port was chosen; called once, so that no call on the packet path is virtual.
class EngineThread::Runner {
 public:
  virtual ~Runner() = default;
  virtual absl::Status Join(NodeEngine& engine) = 0;
  virtual void Run(NodeEngine& engine, const std::atomic<bool>& stop) = 0;
  virtual port::PortStatus status() const = 0;
  virtual Paths paths() = 0;
};

template <typename Port>
class EngineThread::RunnerOf final : public EngineThread::Runner {
 public:
  explicit RunnerOf(std::unique_ptr<Port> port) : port_(std::move(port)) {}

  absl::Status Join(NodeEngine& engine) override {
    return port_->sleep_fd() < 0 ? absl::OkStatus() : engine.WatchFd(port_->sleep_fd());
  }

  void Run(NodeEngine& engine, const std::atomic<bool>& stop) override {
    Worker<Port> worker(engine, *port_);
    engine.Start();
    worker.Run(stop);
    worker.TakeLeave();
  }

  port::PortStatus status() const override { return port_->status(); }

  Paths paths() override { return PathsOf(port_.get()); }

 private:
  std::unique_ptr<Port> port_;
};

absl::StatusOr<std::unique_ptr<EngineThread::Runner>> EngineThread::MakeRunner(
    const EngineThreadOptions& options) {
  if (options.port == PortKind::kDpdk) {
#ifdef WEFT_HAS_DPDK
    port::DpdkPort::Options dpdk;
    dpdk.device.device = options.dpdk_device;
    dpdk.local = options.listen;
    dpdk.datagram_bytes_max = options.engine.transport.datagram_bytes_max;
    WEFT_ASSIGN_OR_RETURN(std::unique_ptr<port::DpdkPort> port, port::DpdkPort::Create(dpdk));
    return std::make_unique<RunnerOf<port::DpdkPort>>(std::move(port));
#else
    return absl::UnimplementedError("packet_port: dpdk: this weftd was built without DPDK");
#endif
  }
  port::UdpPort::Options udp;
  udp.local = options.listen;
  udp.workers = options.workers;
  udp.datagram_bytes_max = options.engine.transport.datagram_bytes_max;
  if (options.workers > 1 && options.worker == 0) WEFT_RETURN_IF_ERROR(port::AwaitUdpFree(options.listen));
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<port::UdpPort> socket, port::UdpPort::Create(std::move(udp)));
  if (!options.may_steer) return std::make_unique<RunnerOf<port::UdpPort>>(std::move(socket));
  auto steered = std::make_unique<SteeredPort>(std::move(socket), options.crossing, options.worker);
  steered_ = steered.get();
  return std::make_unique<RunnerOf<SteeredPort>>(std::move(steered));
}

absl::StatusOr<std::unique_ptr<EngineThread>> EngineThread::Create(EngineThreadOptions options) {
  std::unique_ptr<EngineThread> thread(new EngineThread());
  WEFT_ASSIGN_OR_RETURN(thread->runner_, thread->MakeRunner(options));
  thread->SetStatus(thread->runner_->status(), options.why_not_steered);
  thread->wants_xdp_ = options.port != PortKind::kIoUring;
  thread->worker_ = options.worker;
  thread->workers_ = options.workers;
  thread->key_index_bits_ = options.engine.transport.key_index_bits;
  thread->key_indices_ = options.engine.transport.key_indices;
  thread->listen_ = options.listen;
  thread->datagram_bytes_max_ = options.engine.transport.datagram_bytes_max;
  options.engine.paths = thread->runner_->paths();
  WEFT_ASSIGN_OR_RETURN(thread->engine_, NodeEngine::Create(std::move(options.engine)));
  WEFT_RETURN_IF_ERROR(thread->runner_->Join(*thread->engine_));
  if (options.crossing != nullptr)
    WEFT_RETURN_IF_ERROR(thread->engine_->WatchFd(options.crossing->wake_fd(options.worker)));
  EngineThread* const raw = thread.get();
  thread->thread_ = std::thread([raw] { raw->runner_->Run(*raw->engine_, raw->stop_); });
  return thread;
}

EngineThread::~EngineThread() {
  if (!thread_.joinable()) return;
  stop_.store(true, std::memory_order_relaxed);                 // Post publishes.
  while (!Post([](NodeEngine&) {})) std::this_thread::yield();  // The thread takes what fills it.
  thread_.join();
}

port::PortStatus EngineThread::port_status() const {
  const std::lock_guard<std::mutex> lock(status_mutex_);
  return port_status_;
}

// `why`: what stands in the way of AF_XDP; empty: nothing, or it was not asked for.
void EngineThread::SetStatus(port::PortStatus status, const std::string& why) {
  if (!why.empty()) {
    status.fell_back = true;
    status.choices.insert(status.choices.begin(), {"af_xdp", "no", why});
  }
  const std::lock_guard<std::mutex> lock(status_mutex_);
  port_status_ = std::move(status);
}

void EngineThread::Do(const std::function<void(NodeEngine&)>& what) {
  struct Errand {
    std::mutex mutex;
    std::condition_variable ended;
    bool done = false;
  };
  const auto errand = std::make_shared<Errand>();
  const auto run = [errand, &what](NodeEngine& engine) {
    what(engine);
    const std::lock_guard<std::mutex> lock(errand->mutex);
    errand->done = true;
    errand->ended.notify_one();
  };
  while (!Post(run)) std::this_thread::yield();  // The thread takes what fills it.
  std::unique_lock<std::mutex> lock(errand->mutex);
  errand->ended.wait(lock, [&errand] { return errand->done; });
}

absl::Status EngineThread::ChangePort(NodeEngine& engine, std::unique_ptr<port::AfXdpPort>* xdp) {
  absl::Status watched;
  absl::Status moved = engine.ChangeWays([&] {
    if (*xdp != nullptr) watched = engine.WatchFd((*xdp)->sleep_fd());
    *xdp = steered_->Change(std::move(*xdp));
    if (*xdp != nullptr) engine.UnwatchFd((*xdp)->sleep_fd());
  });
  moved.Update(watched);
  return moved;
}

// The first one also forgets what is in nobody's part of the table.
bool EngineThread::Sweeps(uint32_t key_id) const {
  if (workers_ <= 1 || key_index_bits_ == 0) return true;
  const uint32_t holder = (key_id & ((1u << key_index_bits_) - 1)) / key_indices_;
  return holder == worker_ || (worker_ == 0 && holder >= workers_);
}

absl::Status EngineThread::GiveKeys(const Steering& steering) {
  WEFT_ASSIGN_OR_RETURN(port::SteerTable mapped,
                        port::SteerTable::Map(steering.keys_fd, steering.drops_fd, steering.cpus));
  auto table = std::make_unique<port::SteerTable>(std::move(mapped));
  const std::vector<uint32_t> found = table->Ids();
  absl::Status gate;
  Do([&](NodeEngine& engine) {
    // What a predecessor, or an epoch that has ended meanwhile, has left there; it may hold a place.
    const absl::flat_hash_set<uint32_t> live = engine.ReceiveIds();
    for (const uint32_t id : found) {
      if (!live.contains(id) && Sweeps(id)) (void)table->Forget(id);
    }
    std::swap(steer_, table);
    gate = engine.SetGate(
        {.allow = [steer = steer_.get()](uint32_t id) { return steer->Allow(id, kKeyPacketsPerSecond); },
         .forget = [steer = steer_.get()](uint32_t id) { (void)steer->Forget(id); }});
  });
  return gate;
}

absl::Status EngineThread::Steer(const Steering& steering) {
  std::unique_ptr<port::AfXdpPort> xdp;
  absl::Status status;
  if (wants_xdp_ && xdp_interface_ != steering.interface_index) {
    absl::StatusOr<std::unique_ptr<port::AfXdpPort>> opened =
        port::AfXdpPort::Create({.interface = steering.interface,
                                 .queue = worker_,
                                 .xsks_map_fd = steering.xsks_fd,
                                 .local = listen_,
                                 .datagram_bytes_max = datagram_bytes_max_});
    status = opened.status();
    if (opened.ok()) xdp = *std::move(opened);
  }
  port::PortStatus chosen;
  Do([&](NodeEngine& engine) {
    if (xdp != nullptr) {
      xdp_interface_ = steering.interface_index;
      status.Update(ChangePort(engine, &xdp));
    } else if (steered_->xdp() != nullptr) {
      status.Update(steered_->xdp()->EnterInto(steering.xsks_fd));
    }
    chosen = steered_->status();
  });
  SetStatus(std::move(chosen), std::string(status.message()));
  return status;
}

bool EngineThread::interface_lost() const { return steered_ != nullptr && steered_->lost(); }

absl::Status EngineThread::Unsteer(const std::string& why) {
  std::unique_ptr<port::AfXdpPort> xdp;  // Ends here, since that takes its time.
  absl::Status status;
  port::PortStatus chosen;
  Do([&](NodeEngine& engine) {
    status = ChangePort(engine, &xdp);
    chosen = steered_->status();
  });
  xdp_interface_ = 0;
  SetStatus(std::move(chosen), why);
  return status;
}

void EngineThread::SetWhyNotSteered(const std::string& why) {
  port::PortStatus chosen;
  Do([&](NodeEngine&) { chosen = steered_->status(); });
  SetStatus(std::move(chosen), why);
}

}  // namespace weft::engine
