// SPDX-License-Identifier: Apache-2.0
#include "dataplane/engine/engine_thread.h"

#include <utility>

#include "dataplane/base/status.h"
#include "dataplane/engine/steered_port.h"
#include "dataplane/engine/worker.h"
#include "dataplane/port/af_xdp_port.h"
#ifdef WEFT_HAS_DPDK
#include "dataplane/port/dpdk_port.h"
#endif
#include "dataplane/port/udp_port.h"

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
  // `why`: what stood in the way of a better port; empty: nothing.
  RunnerOf(std::unique_ptr<Port> port, std::string why) : port_(std::move(port)), why_(std::move(why)) {}

  absl::Status Join(NodeEngine& engine) override {
    if constexpr (requires { port_->second_sleep_fd(); }) {
      WEFT_RETURN_IF_ERROR(engine.WatchFd(port_->second_sleep_fd()));
    }
    return port_->sleep_fd() < 0 ? absl::OkStatus() : engine.WatchFd(port_->sleep_fd());
  }

  void Run(NodeEngine& engine, const std::atomic<bool>& stop) override {
    Worker<Port> worker(engine, *port_);
    engine.Start();
    worker.Run(stop);
    engine.CloseAll();
    // A few datagrams tell the peers so, as far as they go out at once.
    for (int i = 0; i < kLastTurns; ++i) worker.Turn();
  }

  port::PortStatus status() const override {
    port::PortStatus status = port_->status();
    if (!why_.empty()) {
      status.fell_back = true;
      status.choices.insert(status.choices.begin(), {"af_xdp", "no", why_});
    }
    return status;
  }

  Paths paths() override {
    Port* const port = port_.get();
    return {.add = [port](const std::string& text) -> absl::StatusOr<uint64_t> {
              WEFT_ASSIGN_OR_RETURN(const port::Address address, port::Address::Parse(text));
              return port->AddPath(address);
            },
            .set = [port](uint64_t path, const std::string& text) -> absl::Status {
              WEFT_ASSIGN_OR_RETURN(const port::Address address, port::Address::Parse(text));
              return port->SetPath(path, address);
            },
            .remove = [port](uint64_t path) { port->RemovePath(path); }};
  }

 private:
  static constexpr int kLastTurns = 8;
  std::unique_ptr<Port> port_;
  std::string why_;
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
    return std::make_unique<RunnerOf<port::DpdkPort>>(std::move(port), "");
#else
    return absl::UnimplementedError("packet_port: dpdk: this weftd was built without DPDK");
#endif
  }
  port::UdpPort::Options udp;
  udp.local = options.listen;
  udp.datagram_bytes_max = options.engine.transport.datagram_bytes_max;
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<port::UdpPort> socket, port::UdpPort::Create(std::move(udp)));
  std::string why = options.why_not_steered;
  if (options.steering.has_value() && options.port != PortKind::kIoUring) {
    port::AfXdpPort::Options xdp;
    xdp.interface = options.steering->interface;
    xdp.xsks_map_fd = options.steering->xsks_fd;
    xdp.local = options.listen;
    xdp.datagram_bytes_max = options.engine.transport.datagram_bytes_max;
    absl::StatusOr<std::unique_ptr<port::AfXdpPort>> port = port::AfXdpPort::Create(xdp);
    if (port.ok()) {
      return std::make_unique<RunnerOf<SteeredPort>>(
          std::make_unique<SteeredPort>(*std::move(port), std::move(socket)), "");
    }
    why = std::string(port.status().message());
  }
  return std::make_unique<RunnerOf<port::UdpPort>>(std::move(socket), why);
}

// Has the XDP program let through what this engine gives out, and nothing that a predecessor did.
absl::Status EngineThread::MakeGate(const Steering& steering, NodeEngineOptions* engine) {
  WEFT_ASSIGN_OR_RETURN(port::SteerTable table, port::SteerTable::Map(steering.keys_fd, steering.keys,
                                                                      steering.drops_fd, steering.cpus));
  steer_ = std::make_unique<port::SteerTable>(std::move(table));
  for (const uint32_t id : steer_->Ids()) (void)steer_->Forget(id);
  engine->gate.allow = [steer = steer_.get()](uint32_t id) { return steer->Allow(id, kKeyPacketsPerSecond); };
  engine->gate.forget = [steer = steer_.get()](uint32_t id) { (void)steer->Forget(id); };
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<EngineThread>> EngineThread::Create(EngineThreadOptions options) {
  std::unique_ptr<EngineThread> thread(new EngineThread());
  WEFT_ASSIGN_OR_RETURN(thread->runner_, MakeRunner(options));
  thread->port_status_ = thread->runner_->status();
  options.engine.paths = thread->runner_->paths();
  if (options.steering.has_value()) {
    WEFT_RETURN_IF_ERROR(thread->MakeGate(*options.steering, &options.engine));
  }
  WEFT_ASSIGN_OR_RETURN(thread->engine_, NodeEngine::Create(std::move(options.engine)));
  WEFT_RETURN_IF_ERROR(thread->runner_->Join(*thread->engine_));
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

}  // namespace weft::engine
