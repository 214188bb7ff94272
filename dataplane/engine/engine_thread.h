// SPDX-License-Identifier: Apache-2.0
// A node engine with its port on a thread of its own: a worker, of which weftd runs one or several. Made,
// posted to and ended on any other thread.
#ifndef WEFT_DATAPLANE_ENGINE_ENGINE_THREAD_H_
#define WEFT_DATAPLANE_ENGINE_ENGINE_THREAD_H_

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "dataplane/engine/crossing.h"
#include "dataplane/engine/node_engine.h"
#include "dataplane/port/address.h"
#include "dataplane/port/port_status.h"
#include "dataplane/port/steer_table.h"

namespace weft::port {
class AfXdpPort;
}

namespace weft::engine {

enum class PortKind { kAuto, kAfXdp, kDpdk, kIoUring };

class SteeredPort;

// What the XDP program on the interface is given and gives; the descriptors may be closed after the call.
struct Steering {
  std::string interface;
  uint32_t interface_index = 0;
  int xsks_fd = -1;
  int keys_fd = -1;
  int drops_fd = -1;
  uint32_t cpus = 0;
};

struct EngineThreadOptions {
  NodeEngineOptions engine;  // Its paths are the port's, its gate is the steering's.
  PortKind port = PortKind::kAuto;
  port::Address listen;
  // Steer may be called. The engine begins with the kernel's UDP socket.
  bool may_steer = false;
  std::string why_not_steered;  // Where that was asked for and is not, yet.
  std::string dpdk_device;      // With kDpdk; `listen` is then its address on the device's link.
  // Which one it is of all that share the address: they are made in this order. The number is its worker hint
  // and its queue of the interface; of the indices of key ids each has as many as the others, in order too.
  uint16_t worker = 0;
  uint16_t workers = 1;
  std::shared_ptr<Crossing> crossing;  // Of several that may be steered.
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
  // What was chosen, and why. Any thread.
  port::PortStatus port_status() const;

  // --- Where it may be steered. One at a time, not on the engine's thread, for which they wait.
  // Has the XDP program let through this engine's key ids in use, now and as they change, and no others of
  // its part of the table.
  absl::Status GiveKeys(const Steering& steering);
  // Goes over to AF_XDP on the program's interface, or, where the engine is there already, enters its socket
  // into the program's map. The error says why it is not AF_XDP: UNAVAILABLE may be otherwise later.
  absl::Status Steer(const Steering& steering);
  // Whether AF_XDP's interface has been deleted.
  bool interface_lost() const;
  // Goes back to the kernel's UDP socket, for the reason given.
  absl::Status Unsteer(const std::string& why);
  // While it is on that socket: what stands in the way of AF_XDP now.
  void SetWhyNotSteered(const std::string& why);

 private:
  class Runner;
  template <typename Port>
  class RunnerOf;

  EngineThread() = default;

  absl::StatusOr<std::unique_ptr<Runner>> MakeRunner(const EngineThreadOptions& options);
  // Runs `what` on the engine's thread and waits for its end.
  void Do(const std::function<void(NodeEngine&)>& what);
  void SetStatus(port::PortStatus status, const std::string& why);
  // Whether a key id that was found in the XDP program's table is this engine's to forget.
  bool Sweeps(uint32_t key_id) const;
  // In the engine's thread. `xdp` becomes the one that was in use.
  absl::Status ChangePort(NodeEngine& engine, std::unique_ptr<port::AfXdpPort>* xdp);

  std::unique_ptr<port::SteerTable> steer_;  // Outlives the engine, which uses it on its thread.
  std::unique_ptr<NodeEngine> engine_;
  std::unique_ptr<Runner> runner_;
  SteeredPort* steered_ = nullptr;  // The runner's, where it may be steered; used on the engine's thread.
  bool wants_xdp_ = false;
  uint16_t worker_ = 0;
  uint16_t workers_ = 1;
  uint32_t key_index_bits_ = 0;
  uint32_t key_indices_ = 0;
  port::Address listen_;
  std::size_t datagram_bytes_max_ = 0;
  uint32_t xdp_interface_ = 0;  // Index of AF_XDP's; 0: not in use.
  mutable std::mutex status_mutex_;
  port::PortStatus port_status_;  // Under status_mutex_.
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace weft::engine

#endif  // WEFT_DATAPLANE_ENGINE_ENGINE_THREAD_H_
