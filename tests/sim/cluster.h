// SPDX-License-Identifier: Apache-2.0
// A cluster of nodes on a virtual network, each running the shipping core and loop, with the part of the
// control plane that gives them keys: sessions, rotation, crash and restart. What the wire must never show is
// checked on each datagram. Used by one thread.
#ifndef WEFT_TESTS_SIM_CLUSTER_H_
#define WEFT_TESTS_SIM_CLUSTER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/base/function_id.h"
#include "dataplane/port/memory_port.h"
#include "dataplane/transport/core.h"
#include "tests/sim/network.h"

namespace weft::sim {

inline constexpr FunctionId kFunction{0x7765667400000001};
inline constexpr transport::TenantIndex kCallers{0};
inline constexpr transport::TenantIndex kCallees{1};

struct ClusterOptions {
  uint32_t nodes = 2;
  LinkConfig link;
  transport::Config core;
  uint64_t tenant_bytes = 64u << 20;
  uint64_t seed = 1;
  bool check_replays = false;  // Remembers each datagram taken: for short runs.
  // Which pairs get a session; null: all.
  std::function<bool(uint32_t, uint32_t)> joined;
};

class Cluster {
 public:
  // `on_event(node, event)` is the application; it releases what it takes, now or later.
  using OnEvent = std::function<void(uint32_t node, const transport::Event& event)>;

  Cluster(const ClusterOptions& options, OnEvent on_event);
  ~Cluster();

  Network& network() { return network_; }
  uint64_t now_ns() const { return network_.now_ns(); }
  Random& random() { return random_; }
  bool alive(uint32_t node) const { return nodes_[node].core != nullptr; }
  transport::Core& core(uint32_t node) { return *nodes_[node].core; }
  // How often the node has been started.
  uint32_t incarnation(uint32_t node) const { return nodes_[node].incarnation; }
  transport::PeerIndex PeerOf(uint32_t node, uint32_t other) const { return nodes_[node].peers[other]; }

  // After the application has used a core out of its event: lets the node send.
  void Kick(uint32_t node) { Step(node); }
  void Crash(uint32_t node);
  // Starts it again, with new sessions to all others that live.
  void Restart(uint32_t node);
  // A new key epoch for both directions of a pair.
  void Rotate(uint32_t a, uint32_t b);
  void Run(uint64_t ns) { network_.RunUntil(now_ns() + ns, &broken_); }
  void At(uint64_t time_ns, std::function<void()> what) { network_.At(time_ns, std::move(what)); }

  // Notes a broken invariant; the run stops at the next event.
  void Violation(const std::string& what);
  bool broken() const { return broken_; }
  const std::string& violation() const { return violation_; }
  // Bytes of datagrams that arrived at a node, and a digest of the whole run: two runs of a seed are the same
  // where these are.
  uint64_t digest() const { return digest_; }
  uint64_t rotations() const { return rotations_; }

 private:
  struct Node {
    std::unique_ptr<transport::Core> core;
    std::unique_ptr<port::MemoryPort> port;
    std::vector<transport::PeerIndex> peers;
    uint32_t incarnation = 0;
    uint64_t wake_ns = ~uint64_t{0};  // The earliest wake asked for.
    bool stepping = false;
    std::set<std::pair<uint64_t, uint64_t>>
        taken;  // Key id, and counter, of datagrams that were not dropped.
  };
  struct Pair {
    uint64_t session = 0;  // The newest; what belongs to an older one is dropped.
    uint8_t epoch = 0;
    bool up = false;
  };

  void Start(uint32_t node);
  void Connect(uint32_t a, uint32_t b, uint64_t delay_ns_max);
  void InstallKeys(uint32_t a, uint32_t b, uint64_t delay_ns_max);
  uint32_t ReceiveKey(uint32_t node, uint32_t from, uint8_t epoch, const transport::SealSecret& secret);
  void Step(uint32_t node);
  void Arrive(uint32_t node, const std::vector<uint8_t>& datagram);
  void CheckNode(uint32_t node);
  void Tap(uint32_t from, uint32_t to, const uint8_t* datagram, uint32_t bytes);
  Pair& PairOf(uint32_t a, uint32_t b) { return pairs_[{std::min(a, b), std::max(a, b)}]; }
  transport::SealSecret NewSecret();

  const ClusterOptions options_;
  const OnEvent on_event_;
  Random random_;
  Network network_;
  std::vector<Node> nodes_;
  std::map<std::pair<uint32_t, uint32_t>, Pair> pairs_;
  uint64_t next_session_ = 1;
  std::set<std::pair<uint32_t, uint32_t>> key_ids_;  // (receiver, id), for ever.
  std::map<uint64_t, uint64_t> last_counter_;  // By receiver and key id: the next counter that may be used.
  uint64_t digest_ = 0xcbf29ce484222325;
  uint64_t rotations_ = 0;  // Of keys, that were begun.
  bool broken_ = false;
  std::string violation_;
};

}  // namespace weft::sim

#endif  // WEFT_TESTS_SIM_CLUSTER_H_
