// SPDX-License-Identifier: Apache-2.0
// The engine of a node: carries calls between the channels of this node's hosts and the engines of other
// nodes. To the agent it is one more session, whose functions are those of all other nodes; so channels,
// caller tables, routes and their rounds are the same as between two hosts. To another node it is a peer that
// may call what control allows.
//
//   a host's request -> OnRequest -> the node that its caller index stands for -> Core::TrySend
//   another node's -> the caller must be placed there, the callee here -> the agent's route of the pair ->
//   Start
//
// It owns no port and does not wait: worker.h is the loop around it. One thread, the owner's; only Post may
// be called on another. Nothing allocates on the path of a message of up to 8 KiB once as many were under way
// before.
#ifndef WEFT_DATAPLANE_ENGINE_NODE_ENGINE_H_
#define WEFT_DATAPLANE_ENGINE_NODE_ENGINE_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "dataplane/base/attributes.h"
#include "dataplane/base/fd.h"
#include "dataplane/client/host_loop.h"
#include "dataplane/client/session.h"
#include "dataplane/engine/buffer_pool.h"
#include "dataplane/engine/node_table.h"
#include "dataplane/engine/shares.h"
#include "dataplane/transport/core.h"

namespace weft::engine {

// How the engine names the ways to its peers; a port, or a test. On the owner's thread.
struct Paths {
  // The number of a new way to `address`, as "192.0.2.1:4810". An error too where it does not carry datagrams
  // of `bytes_least`.
  std::function<absl::StatusOr<uint64_t>(const std::string& address, std::size_t bytes_least)> add;
  // The same way leads elsewhere now.
  std::function<absl::Status(uint64_t path, const std::string& address, std::size_t bytes_least)> set;
  std::function<void(uint64_t path)> remove;
};

// What is told of the key ids that peers may send under, where something in front of the port asks for it.
// May be empty.
struct KeyGate {
  std::function<absl::Status(uint32_t key_id)> allow;
  std::function<void(uint32_t key_id)> forget;
};

struct NodeEngineOptions {
  transport::Config transport;
  Paths paths;
  KeyGate gate;
  // A new connection to the agent.
  std::function<absl::StatusOr<UniqueFd>()> connect;
  // Memory that each tenant's messages may hold, in the transport and on their way to it each, by its index.
  std::vector<uint64_t> tenant_limits;
  // From this node and to it, each. Each tenant and each peer gets as many as are left over.
  uint32_t calls_max = 2048;
  // Pairs of caller and callee that calls of other nodes may make known: each is a route that the agent keeps
  // up to date for this engine, of which it has 16,384. Each peer gets as many as are left over.
  uint32_t pairs_max = 8192;
  // One that was not used for this long makes way for another.
  uint64_t pair_idle_ns = 60 * kNsPerSecond;
  uint64_t seed = 0;  // 0: from the clock.
};

// What another engine's messages were refused for, and what became of this node's. Owner thread writes.
#define WEFT_ENGINE_COUNTERS(X)                                                       \
  X(requests_out)        /* Calls and one-ways handed to the transport. */            \
  X(requests_in)         /* Calls and one-ways taken from it. */                      \
  X(delivered)           /* Of those, given to a host's channel. */                   \
  X(refused_malformed)   /* No head, or one that makes no sense. */                   \
  X(refused_caller)      /* By a caller that control does not place on that node. */  \
  X(refused_function)    /* Of one that has left since the transport took it. */      \
  X(refused_room)        /* No record or no memory. */                                \
  X(refused_share)       /* Its tenant, or its peer, has its share of the records. */ \
  X(refused_pair)        /* Its peer has made too many pairs of names known. */       \
  X(refused_unreachable) /* Of a function whose nodes cannot be reached. */           \
  X(waited)              /* Messages that found no room at once. */                   \
  X(expired)             /* Messages whose deadline passed while they waited. */      \
  X(cancels_out)                                                                      \
  X(cancels_in)

struct EngineCounters {
#define WEFT_DECLARE_COUNTER(name) uint64_t name = 0;
  WEFT_ENGINE_COUNTERS(WEFT_DECLARE_COUNTER)
#undef WEFT_DECLARE_COUNTER
};

class NodeEngine final : public SessionEvents {
 public:
  // RESOURCE_EXHAUSTED: no memory. Connects to the agent when it first turns.
  static absl::StatusOr<std::unique_ptr<NodeEngine>> Create(NodeEngineOptions options);
  ~NodeEngine() override;
  NodeEngine(const NodeEngine&) = delete;
  NodeEngine& operator=(const NodeEngine&) = delete;

  // Runs `what` on the owner's thread, soon. Any thread. False where kMailMax wait already.
  bool Post(std::function<void(NodeEngine&)> what);
  static constexpr std::size_t kMailMax = 4096;
  // Of a peer whose address the port took for no way: what is sent there is counted and lost.
  static constexpr uint64_t kNoPath = ~uint64_t{0};

  // --- Peers, as the key exchange has it. "node" is a node's worker to which calls leave for it, "node/host"
  // the engine inside that host of it, and "node:3" another worker of the node, whose calls come in here.
  // Begins a session with `node`, whose datagrams go to `address` and have at most `datagram_bytes`, or this
  // node's own number where that is less or the other is 0. Errors name the address.
  absl::Status BeginSession(const std::string& node, uint64_t session, const std::string& address,
                            uint32_t datagram_bytes = 0);
  // The peer's datagrams go elsewhere from now on; the session goes on. Errors name the address.
  absl::Status MoveSession(const std::string& node, uint64_t session, const std::string& address);
  // Its path carries datagrams of so many bytes from now on; see Core::SetDatagramBytes.
  void SetPathBytes(const std::string& node, uint64_t session, uint32_t datagram_bytes);
  // The key id, or 0 where the session is over.
  uint32_t InstallReceiveKey(const std::string& node, uint64_t session, uint8_t epoch,
                             const transport::SealSecret& secret);
  void InstallSendKey(const std::string& node, uint64_t session, uint8_t epoch, uint32_t key_id,
                      uint16_t worker_hint, const transport::SealSecret& secret);
  void RetireReceiveKey(const std::string& node, uint64_t session, uint8_t epoch);
  // The peer's process is most likely gone: what is outstanding there fails at once.
  void DeclareDead(const std::string& node, uint64_t session);
  void EndSession(const std::string& node, uint64_t session);
  // Takes leave of all peers.
  void CloseAll();

  // The same, as the agent says them to the engine inside a host.
  void OnPeerKeys(const api::PeerKeys& keys) override;
  // Routes have left these ends: answered once nothing that was sent there before is under way.
  void OnLeaveEnds(const api::LeaveEnds& leave) override;

  // --- What the agent changes while it runs; the owner's thread.
  // The key ids that peers may send under now.
  absl::flat_hash_set<uint32_t> ReceiveIds() const;
  // Tells `gate` of all of them, and of what comes. The first error, where it does not let one through.
  absl::Status SetGate(KeyGate gate);
  // Runs `change`, which has `paths` name other ways than before, and takes every peer's from it. The first
  // error; to that peer nothing is sent.
  absl::Status ChangeWays(const std::function<void()>& change);

  // --- For worker.h.
  void Start() { session_->Start(); }
  // Takes what hosts and the agent have sent. Returns what it took.
  WEFT_HOT int PollHosts();
  // Takes what the transport has to tell, and tries again what waited for room. Returns how much of it there
  // was.
  WEFT_HOT int TakeEvents(uint64_t now_ns);
  // Blocks until a host, the agent, mail or a watched descriptor has something, or until `deadline_ns`.
  void Sleep(uint64_t deadline_ns) { loop_.Wait(deadline_ns); }
  // When there is work again without any event.
  uint64_t NextNs(uint64_t now_ns) const;
  // The same for a thread that does not sleep here: its calls' deadlines too, which Sleep minds by itself.
  uint64_t WakeNs(uint64_t now_ns) const {
    return core_.Busy() ? std::min(NextNs(now_ns), core_.NextNs(now_ns)) : NextNs(now_ns);
  }
  // A descriptor on which Sleep is to wake, as the port's.
  absl::Status WatchFd(int fd);
  void UnwatchFd(int fd) { session_->poller().RemoveFd(fd); }
  // For a thread that sleeps elsewhere: readable when the agent or a host has something, which Look then
  // takes.
  int wait_fd() const { return session_->poller().epoll_fd(); }
  void Look() { session_->poller().Look(); }
  uint64_t NowNs() { return loop_.NowNs(); }
  transport::Core& transport() { return *transport_; }

  // --- Inspection.
  const EngineCounters& counters() const { return counters_; }
  bool attached() const { return session_->attached(); }
  bool Reaches(const std::string& node) const;
  // Nodes, and callers of this one, of which there is a record: fewer than kRecordsMin, or than twice what is
  // still needed of them.
  std::size_t records() const { return peers_.size() + core_.callers_kept(); }
  static constexpr std::size_t kRecordsMin = 256;
  uint32_t outbound_in_use() const { return static_cast<uint32_t>(outbound_.size() - free_outbound_.size()); }
  // Questions of the agent's that are not answered yet: see OnLeaveEnds.
  std::size_t leaves() const { return leaves_.size(); }
  uint32_t inbound_in_use() const { return static_cast<uint32_t>(inbound_.size() - free_inbound_.size()); }

  // --- What hosts send; see LinkSink.
  WEFT_HOT std::byte* OnRequestBegin(const Incoming& incoming, uint32_t bytes);
  WEFT_HOT void OnRequest(const Incoming& incoming, std::byte* payload, uint32_t bytes);
  void OnRequestAbort(const Incoming& incoming, std::byte* payload);
  void OnCancel(uint32_t link, uint32_t request_id);

  // --- SessionEvents.
  void OnAttached() override;
  void OnNodeTable(const api::NodeTable& table) override;
  void AddCounters(const std::function<void(absl::string_view name, uint64_t value)>& add) override;

 private:
  struct Peer {
    std::string node;
    std::string name;  // For which it speaks, as the agent's table has it.
    transport::PeerIndex index;
    bool added = false;  // To the transport; `index` and `path` are good.
    uint64_t path = 0;
    std::string address;                 // Where the path leads.
    uint32_t usual_bytes = 0;            // Datagrams that both nodes take,
    uint32_t narrow_bytes = 0;           // and those that the path carries, where these are shorter.
    uint64_t session = 0;                // 0: none.
    uint32_t receive_ids[2] = {0, 0};    // By epoch modulo 2, as the gate knows them,
    uint8_t receive_epochs[2] = {0, 0};  // and their epochs.
    uint32_t pairs = 0;                  // That its calls have made known.
    uint32_t calls = 0;                  // That this node's hosts have sent there and that go on,
    Shares call_shares;                  // and how many of them are whose, by tenant.
    bool reported_up = false;
  };
  // What a caller index of the agent's tables stands for: who calls, and the node that it chose.
  struct Via {
    uint64_t caller = 0;   // Wire id
    Peer* peer = nullptr;  // nullptr: the table names none.
  };

  // A pair of names that a peer's call has made known.
  struct Pair {
    RouteEntry* route = nullptr;
    Peer* peer = nullptr;  // nullptr: one that has left.
    uint64_t used_ns = 0;
  };
  // Ends that routes have left, and for which callees.
  struct Leave {
    uint64_t number = 0;  // The agent's
    bool more = false;    // Parts of it are still to come, next.
    absl::flat_hash_map<std::string, absl::flat_hash_set<uint64_t>> callees;
    uint64_t asked_ns = 0;
    uint64_t due_ns = 0;  // When it is looked at next.
  };
  static constexpr uint32_t kNoSlot = ~uint32_t{0};
  // A request of a host on its way to another node.
  struct Outbound {
    enum class State : uint8_t { kFree, kWaiting, kSent };
    State state = State::kFree;
    uint32_t generation = 0;
    uint32_t next = kNoSlot;  // In its chain of `outbound_chains_`.
    uint32_t tenant = 0;      // The caller's.
    Incoming incoming;
    MessageBuffer* request = nullptr;  // kWaiting
    transport::CallHandle handle;      // kSent
    Peer* peer = nullptr;              // kSent
  };
  // A request of another node on its way to a host.
  struct Inbound {
    enum class State : uint8_t { kFree, kWaiting, kCalling, kAnswering };
    NodeEngine* engine = nullptr;
    State state = State::kFree;
    bool one_way = false;
    bool queued = false;  // It stands in `waiting_in_`.
    uint8_t flags = 0;
    uint32_t tenant = 0;
    transport::Event event;
    RouteEntry* route = nullptr;
    uint64_t deadline_ns = 0;  // 0: none
    CallHandle call;
    MessageBuffer* response = nullptr;
  };

  NodeEngine(NodeEngineOptions options, std::unique_ptr<Session> session,
             std::unique_ptr<transport::Core> transport);

  // --- node_engine_peers.cc; what the agent says, and mail, in node_engine.cc.
  Peer& PeerOf(const std::string& node);
  Peer* PeerIn(const std::string& node, uint64_t session);
  Peer* PeerAt(transport::PeerIndex index);
  bool AllowAgain(uint32_t key_id);
  absl::Status SetPath(Peer& peer, const std::string& address, std::size_t bytes_least);
  void ForgetReceiveId(Peer& peer, int which);
  void ForgetGone();
  void ApplyRemote();
  void ApplyLocal();
  void ReportNodes(bool all);
  void TakeMail();

  // --- outbound.cc
  bool TrySendOut(uint32_t slot, uint64_t now_ns);
  void RefuseShare(uint32_t slot, const Peer& peer);
  void EndOutbound(Outbound& outbound, absl::StatusCode code, absl::string_view text, bool not_executed);
  void OnCompleted(const transport::Event& event);
  void FreeOutbound(uint32_t slot);
  bool MayTakeOutbound(uint32_t tenant);
  uint32_t& ChainOf(uint32_t link, uint32_t request_id);
  void CancelOutbound(Outbound& outbound);
  void CancelOrphans();
  void Retry(uint64_t now_ns);
  const Via& ViaOf(const std::string* caller);
  void TakePublished();
  bool UnderWay(const Leave& leave, const Incoming& incoming);
  bool AnyUnderWay(const Leave& leave);
  void CheckLeaves(uint64_t now_ns);

  // --- inbound.cc
  void OnPeerRequest(const transport::Event& event, uint64_t now_ns);
  void RefuseRoom(const transport::Event& event, const Peer& peer, const std::string& callee,
                  uint64_t now_ns);
  void RefuseInbound(const transport::Event& event, absl::StatusCode code, absl::string_view text,
                     uint64_t now_ns);
  RouteEntry* RouteOf(Peer& peer, uint64_t caller, const std::string& caller_name, uint64_t callee,
                      const std::string& callee_name, uint64_t now_ns);
  void ForgetIdlePairs(uint64_t now_ns);
  // False where it has to wait for a route or for room.
  bool TryDeliver(Inbound& inbound, uint64_t now_ns);
  static std::byte* ReserveResponse(void* context, uint32_t bytes);
  static void OnAnswer(void* context, const CallOutcome& outcome);
  void Answer(Inbound& inbound, absl::StatusCode code, bool not_executed, absl::string_view text);
  bool TryAnswer(Inbound& inbound);
  uint32_t& InboundAt(const transport::CallHandle& handle);
  void OnPeerCancel(const transport::Event& event);
  void ReleaseRequest(Inbound& inbound);
  void FreeInbound(Inbound& inbound);

  NodeEngineOptions options_;
  EngineCounters counters_;
  std::unique_ptr<Session> session_;
  CallCore& core_;
  // LinkSink's Local: the engine itself, but for the clock.
  struct Local {
    NodeEngine& engine;
    uint64_t NowNs() { return engine.loop_.MessageNs(); }
    std::byte* OnRequestBegin(const Incoming& incoming, uint32_t bytes) {
      return engine.OnRequestBegin(incoming, bytes);
    }
    void OnRequest(const Incoming& incoming, std::byte* payload, uint32_t bytes) {
      engine.OnRequest(incoming, payload, bytes);
    }
    void OnRequestAbort(const Incoming& incoming, std::byte* payload) {
      engine.OnRequestAbort(incoming, payload);
    }
    void OnCancel(uint32_t link, uint32_t request_id) { engine.OnCancel(link, request_id); }
  };
  Local local_{*this};
  HostLoop<Local> loop_;
  std::unique_ptr<transport::Core> transport_;
  BufferPool pool_;
  NodeTable table_;
  std::map<std::string, Peer> peers_;     // By node; of those that have left, until ForgetGone.
  std::vector<Peer*> peers_by_index_;     // Of the transport's.
  std::vector<uint64_t> remote_callees_;  // As the call core serves them.
  std::vector<uint64_t> local_callees_;   // As the transport knows them.
  absl::flat_hash_map<const std::string*, Via> vias_;
  absl::flat_hash_map<std::pair<uint64_t, uint64_t>, Pair> pairs_;  // By caller and callee
  uint64_t pairs_swept_ns_ = 0;
  std::vector<Outbound> outbound_;
  std::vector<uint32_t> free_outbound_;
  std::vector<uint32_t> outbound_chains_;  // First slots, by what ChainOf makes of link and request id.
  uint64_t chain_factor_ = 1;              // Odd and random: hosts choose their ids.
  Shares outbound_shares_;                 // By the caller's tenant.
  std::vector<Inbound> inbound_;
  std::vector<uint32_t> free_inbound_;
  Shares inbound_tenant_shares_;      // By the callee's tenant,
  Shares inbound_peer_shares_;        // and by the transport's index of the caller's node.
  std::vector<uint32_t> inbound_at_;  // By peer and its slot; a hint, checked against the record.
  std::vector<Leave> leaves_;
  bool leave_asked_ = false;  // Of one of them no channel has been looked at yet.
  std::deque<uint32_t> waiting_out_;
  std::deque<uint32_t> waiting_in_;
  uint64_t channels_closed_ = 0;  // As of the last look for calls of hosts that are gone.
  uint32_t turns_ = 0;
  uint64_t states_told_ = 0;             // The transport's state_changes() as of the last ReportNodes.
  std::size_t forget_at_ = kRecordsMin;  // So many records() make ForgetGone look at all.

  std::mutex mail_mutex_;
  std::vector<std::function<void(NodeEngine&)>> mail_;
  std::atomic<bool> has_mail_{false};
  UniqueFd mail_fd_;
};

}  // namespace weft::engine

#endif  // WEFT_DATAPLANE_ENGINE_NODE_ENGINE_H_
