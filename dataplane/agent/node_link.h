// SPDX-License-Identifier: Apache-2.0
// weftd's link to other nodes: the engine thread that carries calls, and a thread that holds the TLS
// connections to other agents and gives the engine its keys. Made by weftd where `listen` is set. The
// registry tells it which nodes there are and asks it how they do.
#ifndef WEFT_DATAPLANE_AGENT_NODE_LINK_H_
#define WEFT_DATAPLANE_AGENT_NODE_LINK_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "dataplane/agent/engine_door.h"
#include "dataplane/agent/log_limit.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/fd.h"
#include "dataplane/config/agent_config.h"
#include "dataplane/engine/engine_thread.h"
#include "dataplane/identity/key_exchange.h"

namespace weft::agent {

class NodeLink final : private identity::KeyExchangeObserver {
 public:
  // Binds both sockets, loads the certificates and starts both threads. Errors name the setting at fault.
  // `door` and `config` outlive it.
  // Where an interface is to be steered, the engine starts once weft-control has given its maps, or refused,
  // or has not answered for kSteerPatienceNs; until then no call leaves the node.
  static absl::StatusOr<std::unique_ptr<NodeLink>> Create(const AgentConfig& config,
                                                          const std::string& run_dir, EngineDoor* door);
  static constexpr uint64_t kSteerPatienceNs = 10 * kNsPerSecond;
  // Takes leave of the other nodes.
  ~NodeLink() override;

  // The other nodes by name, with their addresses: all of them. Any thread.
  void SetPeers(const std::map<std::string, std::string>& addresses);

  struct State {
    std::vector<identity::PeerReport> peers;
    identity::KeyExchangeCounters keys;
  };
  // How things stand. Any thread; waits for what the key thread is at, at most a handshake's step.
  State Look();
  // What was chosen, and why; any thread. Of the name "none" before the engine has started, or where it could
  // not.
  port::PortStatus port_status();

 private:
  NodeLink(const AgentConfig& config, std::string run_dir, EngineDoor* door)
      : config_(config), run_dir_(std::move(run_dir)), door_(door) {}

  void Run();
  absl::Status StartEngine(std::optional<engine::Steering> steering, const std::string& why_not_steered);
  // Waits for weft-control's maps, then starts the engine. False: to stop.
  bool StartSteered();
  bool Stopping();
  // Posts to the engine; what is lost where its mailbox is full, the key exchange does anew.
  void ToEngine(std::function<void(engine::NodeEngine&)> what);
  // From the engine's thread: `what` runs on the key thread.
  void ToKeys(std::function<void()> what);
  void Wake();

  // --- identity::KeyExchangeObserver, on the key thread with mutex_ held.
  void OnSessionUp(const identity::SessionInfo& session) override;
  void OnWorkers(const identity::SessionInfo& session) override;
  void OnReceiveKeyWanted(const identity::LaneKey& key, const identity::PacketSecret& secret) override;
  void OnSendKey(const identity::LaneKey& key, uint32_t key_id, uint16_t worker_hint,
                 const identity::PacketSecret& secret) override;
  void OnRetireReceiveKey(const identity::LaneKey& key) override;
  void OnConnectionLost(const std::string& peer, uint64_t session) override;
  void OnSessionDown(const std::string& peer, uint64_t session, identity::Refusal reason) override;
  void OnCredentials(const absl::Status& status) override;
  void OnNote(const std::string& line) override;

  const AgentConfig& config_;
  const std::string run_dir_;
  EngineDoor* const door_;
  // Set once, under mutex_; the key thread reads it without.
  std::unique_ptr<engine::EngineThread> engine_;
  std::mutex mutex_;  // Of keys_ and peers_ too: held through a step.
  std::unique_ptr<identity::KeyExchange> keys_;
  std::map<std::string, std::string> peers_;
  LogLimit log_limit_;
  std::mutex answers_mutex_;
  std::vector<std::function<void()>> answers_;
  UniqueFd wake_;
  bool stop_ = false;  // Under answers_mutex_.
  std::thread thread_;
};

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_NODE_LINK_H_
