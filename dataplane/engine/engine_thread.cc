// SPDX-License-Identifier: Apache-2.0
#include "dataplane/engine/engine_thread.h"

#include <utility>

#include "dataplane/base/status.h"
#include "dataplane/engine/worker.h"
#include "dataplane/port/udp_port.h"

namespace weft::engine {

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
    engine.CloseAll();
    // A few datagrams tell the peers so, as far as they go out at once.
    for (int i = 0; i < kLastTurns; ++i) worker.Turn();
  }

  port::PortStatus status() const override { return port_->status(); }

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
};

absl::StatusOr<std::unique_ptr<EngineThread>> EngineThread::Create(EngineThreadOptions options) {
  if (options.port == PortKind::kAfXdp || options.port == PortKind::kDpdk) {
    return absl::UnimplementedError("packet_port: this weftd speaks io_uring UDP only");
  }
  std::unique_ptr<EngineThread> thread(new EngineThread());
  port::UdpPort::Options udp;
  udp.local = options.listen;
  udp.datagram_bytes_max = options.engine.transport.datagram_bytes_max;
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<port::UdpPort> port, port::UdpPort::Create(std::move(udp)));
  thread->runner_ = std::make_unique<RunnerOf<port::UdpPort>>(std::move(port));
  thread->port_status_ = thread->runner_->status();
  options.engine.paths = thread->runner_->paths();
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
