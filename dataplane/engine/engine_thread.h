// SPDX-License-Identifier: Apache-2.0
// A node engine with its port on a thread of its own: what weftd runs. Made, posted to and ended on any other
// thread.
#ifndef WEFT_DATAPLANE_ENGINE_ENGINE_THREAD_H_
#define WEFT_DATAPLANE_ENGINE_ENGINE_THREAD_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "dataplane/engine/node_engine.h"
#include "dataplane/port/address.h"
#include "dataplane/port/port_status.h"

namespace weft::engine {

enum class PortKind { kAuto, kAfXdp, kDpdk, kIoUring };

struct EngineThreadOptions {
  NodeEngineOptions engine;  // Its paths are the port's.
  PortKind port = PortKind::kAuto;
  port::Address listen;
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

  std::unique_ptr<NodeEngine> engine_;
  std::unique_ptr<Runner> runner_;
  port::PortStatus port_status_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace weft::engine

#endif  // WEFT_DATAPLANE_ENGINE_ENGINE_THREAD_H_
