// SPDX-License-Identifier: Apache-2.0
// A node engine with its port on a thread of its own: what weftd runs. Made, posted to and ended on any other
// thread.
#ifndef WEFT_DATAPLANE_ENGINE_ENGINE_THREAD_H_
#define WEFT_DATAPLANE_ENGINE_ENGINE_THREAD_H_

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "dataplane/engine/node_engine.h"
#include "dataplane/port/address.h"
#include "dataplane/port/port_status.h"
#include "dataplane/port/steer_table.h"

namespace weft::engine {

enum class PortKind { kAuto, kAfXdp, kDpdk, kIoUring };

// What the XDP program on the interface is given and gives; the descriptors may be closed after Create.
struct Steering {
  std::string interface;
  int xsks_fd = -1;
  int keys_fd = -1;
  int drops_fd = -1;
  uint32_t keys = 0;
  uint32_t cpus = 0;
};

struct EngineThreadOptions {
  NodeEngineOptions engine;  // Its paths are the port's, its gate is the steering's.
  PortKind port = PortKind::kAuto;
  port::Address listen;
  // Where the interface is steered. Then AF_XDP is tried, and key ids are let through also where it cannot be
  // had.
  std::optional<Steering> steering;
  std::string why_not_steered;  // Else, where that was asked for.
  std::string dpdk_device;      // With kDpdk; `listen` is then its address on the device's link.
};

class EngineThread {
 public:
  // Binds the port and starts the thread. Errors name the address and the cause; UNIMPLEMENTED: a port that
  // this build has not.
  static absl::StatusOr<std::unique_ptr<EngineThread>> Create(EngineThreadOptions options);
  // Takes leave of all peers, then ends the thread.
  ~EngineThread();
  EngineThread(const EngineThread&) = delete;
  EngineThread& operator=(const EngineThread&) = delete;

  // NodeEngine::Post.
  bool Post(std::function<void(NodeEngine&)> what) { return engine_->Post(std::move(what)); }
  // What was chosen at start, and why.
  const port::PortStatus& port_status() const { return port_status_; }

 private:
  class Runner;
  template <typename Port>
  class RunnerOf;

  EngineThread() = default;

  static absl::StatusOr<std::unique_ptr<Runner>> MakeRunner(const EngineThreadOptions& options);
  absl::Status MakeGate(const Steering& steering, NodeEngineOptions* engine);

  std::unique_ptr<port::SteerTable> steer_;  // Outlives the engine, which uses it on its thread.
  std::unique_ptr<NodeEngine> engine_;
  std::unique_ptr<Runner> runner_;
  port::PortStatus port_status_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace weft::engine

#endif  // WEFT_DATAPLANE_ENGINE_ENGINE_THREAD_H_
