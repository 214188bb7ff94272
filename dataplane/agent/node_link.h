// SPDX-License-Identifier: Apache-2.0
// weftd's link to other nodes: the engine threads that carry calls, and a thread that holds the TLS
// connections to other agents and gives the engines their keys. Made by weftd where `listen` is set. The
// registry tells it which nodes there are and asks it how they do.
#ifndef WEFT_DATAPLANE_AGENT_NODE_LINK_H_
#define WEFT_DATAPLANE_AGENT_NODE_LINK_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
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
#include "dataplane/agent/steer_watch.h"
#include "dataplane/api/host.pb.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/fd.h"
#include "dataplane/config/agent_config.h"
#include "dataplane/engine/engine_thread.h"
#include "dataplane/identity/key_exchange.h"

namespace weft::agent {

// The number of a worker's first keys: another one than before it was started anew.
uint32_t RandomKeyGeneration();

class NodeLink final : private identity::KeyExchangeObserver {
 public:
  // Binds its sockets, loads the certificates and starts the threads. Errors name the setting at fault.
  // `door` and `config` outlive it.
  // Where an interface is to be steered, the engines start once weft-control has given its maps, or refused,
  // or has not answered for kSteerPatienceNs; until then no call leaves the node. Without maps it speaks over
  // the kernel's UDP sockets, and goes over to AF_XDP when they come, and back where the interface is
  // deleted.
  static absl::StatusOr<std::unique_ptr<NodeLink>> Create(const AgentConfig& config,
                                                          const std::string& run_dir, EngineDoor* door);
  static constexpr uint64_t kSteerPatienceNs = kNsPerSecond;
  // Takes leave of the other nodes.
  ~NodeLink() override;

  // The other nodes by name, with their addresses: all of them. Any thread.
  void SetPeers(const std::map<std::string, std::string>& addresses);

  // What other nodes are to be told of drains; see KeyExchange. Any thread.
  void SetDrains(std::map<std::string, identity::Drains> to_peers);

  // A worker of this node that runs inside a host. Its socket has a port of its own, since one in a group of
  // SO_REUSEPORT would outlive weftd in the host and shift the places of a later weftd's.
  struct Inside {
    uint16_t worker = 0;
    UniqueFd socket;
    UniqueFd
        twin;  // Of the socket, which the host cannot make, as another user; invalid where there is none.
    api::InsideEngine given;
  };
  // Announces a worker inside `host` of `tenant` to the other nodes. RESOURCE_EXHAUSTED: there are as many as
  // may be, no port is free, or the tenant has had its share. Registry thread.
  // With `raw_packets` it gets an AF_XDP socket too, by the door, as soon as there can be one: on a queue
  // behind those of weftd's workers.
  absl::StatusOr<Inside> AddInside(const std::string& host, const std::string& tenant, bool raw_packets);
  void RemoveInside(uint16_t worker);
  // Its answer to a receive key; one that is not its to give ends it. Registry thread.
  void TakeInsideKeyId(uint16_t worker, const api::PeerKeyId& answer);
  // Whether its host uses the AF_XDP socket of that number: from then on what comes for it goes there.
  // Registry thread.
  void TakeInsideXdp(uint16_t worker, uint64_t number, const std::string& problem);
  // How many have their packets by one. Any thread.
  std::size_t inside_by_af_xdp() const { return inside_by_af_xdp_.load(std::memory_order_relaxed); }
  // Ports that they have are those after `listen`'s. With several workers of weftd's there may be fewer.
  static constexpr uint16_t kInsideMax = 15;
  // Of engines that hosts of one tenant may have given to them: each time costs all other nodes new keys, and
  // one worker id for good. All hosts that can have one at all may start, and three times be restarted, at
  // once: one that is refused goes without until it attaches again.
  static constexpr double kInsideBurst = 4 * kInsideMax, kInsidePerSecond = 1;
  // What a path of the settings' MTU carries.
  static uint32_t DatagramBytesMax(const AgentConfig& config, bool ipv4) {
    return config.mtu - (ipv4 ? 20 : 40) - 8;
  }
  // Which key ids are those of weftd's own engine that is worker `worker` of `workers`.
  static void SetKeyIndices(uint16_t worker, uint16_t workers, transport::Config* transport);
  // What an engine inside a host may take for a key: far less than the key exchange waits, whose connection
  // carries all other workers as well.
  static constexpr uint64_t kInsideAnswerNs = 3 * kNsPerSecond;

  struct State {
    std::vector<identity::PeerReport> peers;
    identity::KeyExchangeCounters keys;
    // By node, why no packets go there though its keys stand, or only small ones.
    std::map<std::string, std::string> packet_problems;
    // Of this node.
    std::string identity;
    int64_t certificate_until_unix_s = 0;
    std::string certificate_problem;  // Why what its files say now is not in force; empty: it is.
  };
  // How things stood at most kLookNs ago. Any thread; waits for nobody.
  State Look();
  static constexpr uint64_t kLookNs = 20 * kNsPerMs;
  // How many engines weftd has: as the settings say, or one for 8 processors, and no more than the interface
  // has queues.
  uint16_t workers() const { return workers_; }
  struct WorkerState {
    // What was chosen, and why. Of the name "none" before the engine has started, or where it could not.
    port::PortStatus port;
    // Datagrams that came in on its queue for another worker: given to that, and lost since it had no room.
    uint64_t passed = 0;
    uint64_t lost = 0;
  };
  // Of each worker; any thread.
  std::vector<WorkerState> LookAtWorkers();

 private:
  NodeLink(const AgentConfig& config, std::string run_dir, EngineDoor* door, uint16_t workers)
      : config_(config),
        run_dir_(std::move(run_dir)),
        door_(door),
        workers_(workers),
        last_worker_(static_cast<uint16_t>(workers - 1)) {}

  void Run();
  static uint16_t WorkersOf(const AgentConfig& config);
  absl::Status StartEngines(bool may_steer, const std::string& why_not_steered);
  bool started() const { return !engines_.empty(); }
  void LogPort(uint16_t worker);
  void LogPorts();
  // Runs what others have posted here, then the key exchange. False: to end.
  bool Turn();
  // The key exchange's next timer, or that of the next snapshot for Look.
  uint64_t NextNs() const;
  // Posts to an engine, which takes all its mail at each turn: where that is full, waits for it.
  void ToEngine(uint16_t worker, const std::function<void(engine::NodeEngine&)>& what);
  // From any thread: `what` runs on the key thread.
  void ToKeys(std::function<void()> what);
  void Wake();
  void TakePeers(const std::map<std::string, std::string>& addresses);
  // In node_link_steering.cc: weft-control's answer about the interface, once a second.
  void OnSteering(const SteerAnswer& answer);
  void GiveKeys(const SteerMaps& maps);
  void Steer(uint16_t worker, const SteerMaps& maps);
  void StayUnsteered(uint16_t worker, const std::string& why);
  // In node_link_inside_xdp.cc: AF_XDP sockets of engines inside hosts, on the key thread.
  struct InsideXdp {
    std::string host;
    uint16_t slot = 0;
    uint32_t queue = 0;                       // Its own, that of the last try too; 0: none.
    uint32_t interface_index = 0;             // That it was given a socket of, or cannot be; 0: to be tried.
    uint64_t number = 0;                      // Of the socket that it was given last.
    UniqueFd socket;                          // That one, to be entered into the program's map.
    bool taken = false;                       // The host uses it.
    std::array<uint32_t, 2> entered_in = {};  // Key table and XSKMAP that lead to it.
    std::string problem;                      // As logged last.
  };
  void AddInsideXdp(uint16_t worker, const std::string& host, uint16_t slot);
  void SteerInside(std::shared_ptr<const SteerMaps> maps);
  uint32_t QueueForInside(const InsideXdp& xdp) const;
  void MakeInsideXdp(uint16_t worker, InsideXdp* xdp);
  absl::StatusOr<UniqueFd> OpenInsideXdp(const InsideXdp& xdp, api::XdpSocket* given,
                                         std::vector<UniqueFd>* fds) const;
  void EnterInsideXdp(InsideXdp* xdp);
  void LeaveInsideXdp(InsideXdp* xdp);
  void RemoveInsideXdp(uint16_t worker);
  // In node_link_paths.cc: what the paths to peers carry, as the kernel has it, kPathsNs after the last look.
  void LookAtPaths(uint64_t now_ns);
  static constexpr uint64_t kPathsNs = kNsPerSecond;

  // --- node_link_lanes.cc, on the key thread: a lane joins a worker here and one of a peer.
  struct InsideWorker {
    std::string host;
    uint32_t key_first = 0;                               // Indices of the key ids that are its to give.
    std::map<std::string, identity::LaneKey> unanswered;  // By what PeerKeyId says.
    // What it was asked for, and when: the first is unanswered, those behind it may be.
    std::deque<std::pair<uint64_t, std::string>> asked;
    std::map<uint32_t, identity::LaneKey> given_ids;  // Ids that it named, and for which key.
  };
  void ToLane(uint16_t local, api::PeerKeys keys);
  // Bytes of the datagrams to that worker, where the path carries them.
  uint32_t UsualBytes(const identity::Worker& remote) const;
  void TellLanes(const identity::SessionInfo& session, const identity::Worker& remote,
                 api::PeerKeys::What what, int only_local = -1, uint32_t datagram_bytes = UINT32_MAX);
  bool IsOwn(uint16_t local) const { return local < workers_; }  // Of weftd itself.
  bool Joins(uint16_t local, const identity::Worker& remote, const std::vector<identity::Worker>& all) const;
  bool Stands(const identity::LaneKey& key) const;
  bool MayLog(const std::string& peer);
  void ForgetGoneIds();
  api::PeerKeys KeysFor(const identity::LaneKey& key, api::PeerKeys::What what) const;
  // In node_link_inside.cc.
  static std::string AnswerKey(const std::string& peer, uint64_t session, uint32_t epoch);
  void TakeKeyId(uint16_t worker, const api::PeerKeyId& answer);
  void EndSilentInside(uint64_t now_ns);
  void EndInside(uint16_t worker, const absl::Status& why);

  // --- identity::KeyExchangeObserver, on the key thread.
  void OnSessionUp(const identity::SessionInfo& session) override;
  void OnWorkers(const identity::SessionInfo& session) override;
  void OnReceiveKeyWanted(const identity::LaneKey& key, const identity::PacketSecret& secret) override;
  void OnSendKey(const identity::LaneKey& key, uint32_t key_id, uint16_t worker_hint,
                 const identity::PacketSecret& secret) override;
  void OnRetireReceiveKey(const identity::LaneKey& key) override;
  void OnConnectionLost(const std::string& peer, uint64_t session) override;
  void OnSessionDown(const std::string& peer, uint64_t session, identity::Refusal reason) override;
  void OnDrains(const std::string& peer, const identity::Drains& drains) override;
  void OnCredentials(const absl::Status& status) override;
  void OnNote(const std::string& line) override;

  const AgentConfig& config_;
  const std::string run_dir_;
  EngineDoor* const door_;
  const uint16_t workers_;
  bool alone_ = false;  // Datagrams for AF_XDP here are to leave their senders one by one.
  // By worker. Set once, under mutex_; the key thread, which sets them, reads them without.
  std::vector<std::unique_ptr<engine::EngineThread>> engines_;
  std::shared_ptr<engine::Crossing> crossing_;  // As engines_. Null: nothing comes in at the wrong one.
  std::mutex mutex_;
  State state_;                                  // Under mutex_.
  std::vector<std::function<void()>> for_keys_;  // Under mutex_.
  bool stop_ = false;                            // Under mutex_.

  // The key thread's.
  std::unique_ptr<identity::KeyExchange> keys_;
  std::map<std::string, std::string> peers_;
  std::string certificate_problem_;
  LogLimit log_limit_;
  std::map<std::string, LogLimit> peer_logs_;  // By node: what is said of it.
  uint64_t leave_ns_ = 0;                      // Not 0: leaving, until then.
  bool changed_ = true;                        // Something may have, since the last snapshot,
  uint64_t snapshot_ns_ = 0;                   // which was taken then.
  // By worker, the maps in use, as interface, key table and XSKMAP; nothing where they are to be tried again.
  struct Steered {
    std::optional<std::array<uint32_t, 3>> by;
    std::string problem;  // As logged last.
    std::string
        refused;  // By weft-control, as its status shows; empty: it has maps, or something else is why.
  };
  std::vector<Steered> steered_;
  // The key table that has all keys in use, now and as they change; and what stood in the way last.
  std::optional<uint32_t> keys_in_;
  std::string keys_problem_;
  std::string starting_problem_;                           // As logged last.
  std::map<std::string, identity::SessionInfo> sessions_;  // By peer
  std::map<std::string, std::string> packet_problems_;     // By peer, of its session
  // By peer, the datagrams that its lanes were told of (0: some were not), and what is to be said of them.
  std::map<std::string, uint32_t> path_bytes_;
  std::map<std::string, std::string> path_problems_;
  uint64_t paths_looked_ns_ = 0;
  std::map<uint16_t, InsideWorker> inside_;   // By worker
  std::map<uint16_t, InsideXdp> inside_xdp_;  // By worker, those that are to have one.
  std::shared_ptr<const SteerMaps> maps_;     // Of weft-control's last answer.
  std::atomic<std::size_t> inside_by_af_xdp_{0};

  // The registry thread's.
  uint16_t last_worker_;
  struct InsideTenant {
    Bucket given{kInsideBurst, kInsidePerSecond};
    uint16_t ids = 0;  // Of workers: how many it has used up.
  };
  absl::Status CheckInsideTenant(InsideTenant* tenant) const;
  std::map<std::string, InsideTenant> inside_tenants_;
  struct InsideSlot {
    uint16_t slot = 0;  // Whose port and key indices it has.
    std::string tenant;
  };
  absl::StatusOr<uint16_t> FindSlot(const std::string& tenant, const identity::Endpoint& listen,
                                    UniqueFd* socket);
  std::map<uint16_t, InsideSlot> inside_slots_;  // By worker
  // Slots of workers that went, by whose they were: until the port is seen to be free, their hosts keep it.
  std::map<uint16_t, std::string> left_slots_;

  UniqueFd wake_;
  std::thread thread_;
  std::unique_ptr<SteerWatch> watch_;
};

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_NODE_LINK_H_
