// SPDX-License-Identifier: Apache-2.0
// The conversation of a host or client with its node's agent, and what follows from it: channels, access
// tables and routes in a CallCore. Used by libweft's Mesh and by weft-host; driven by a HostLoop. While there
// is no agent, everything stays as the last one said, and the session connects again by itself: after 10 ms,
// then twice as long each time, up to 200 ms, or 500 where the agent refuses it, less up to half by chance.
//
// One thread at a time, the owner of the CallCore; nothing here blocks.
#ifndef WEFT_DATAPLANE_CLIENT_SESSION_H_
#define WEFT_DATAPLANE_CLIENT_SESSION_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "dataplane/api/host.pb.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/random.h"
#include "dataplane/base/unix_socket.h"
#include "dataplane/call/call_core.h"
#include "dataplane/channel/byte_budget.h"
#include "dataplane/channel/poller.h"

namespace weft {

struct SessionOptions {
  std::string run_dir = "/run/weft";
  std::string host;     // Empty: a client
  std::string call_as;  // With `admin` only
  bool admin = false;
  bool inside_engine = false;  // Ask for a node engine of this host's own.
  bool runs_once = false;      // It runs modules once.
  std::string version;
  uint32_t calls_max = 4096;
  uint64_t poll_time_ns = kCalibratedPollTime;
  uint64_t seed = 0;  // 0: from the clock.
  // Makes the connection to the agent, in place of the socket in run_dir.
  std::function<absl::StatusOr<UniqueFd>()> connect;
};

// What a session tells the program that it serves. On the owner's thread, or the keeper's while that owns the
// session. None of them may poll.
class SessionEvents {
 public:
  virtual ~SessionEvents() = default;
  // Admitted, for the first time or again.
  virtual void OnAttached() {}
  // Not attached, since `why`: the conversation has ended or could not begin. Once, until it is attached
  // again; the session goes on trying.
  virtual void OnAway(const absl::Status& why) {}
  // Load this function; report it by Report. `module` is the program's.
  virtual void OnPlace(const api::Place& place, UniqueFd module) {}
  virtual void OnUnplace(const std::string& function) {}
  // Run this module once; report it by SendRunEnded. `module` is the program's.
  virtual void OnRunOnce(const api::RunOnce& run, UniqueFd module) {}
  // Finish all calls, then call SendDrained.
  virtual void OnDrain() {}
  // For node engines only.
  virtual void OnNodeTable(const api::NodeTable& table) {}
  virtual void OnPeerKeys(const api::PeerKeys& keys) {}
  // Answered by SendEndsLeft.
  virtual void OnLeaveEnds(const api::LeaveEnds& leave) {}
  // Run a node engine that attaches by `agent` and speaks to other nodes by `socket` and, where it is
  // valid, its `twin`, in place of any earlier one. For a session that asked for it.
  virtual void OnInsideEngine(const api::InsideEngine& engine, UniqueFd agent, UniqueFd socket,
                              UniqueFd twin) {}
  // That engine may have packets by an AF_XDP socket too, in place of any earlier one; `fds` as XdpSocket
  // says, however many came. Answered by SendXdpTaken.
  virtual void OnXdpSocket(const api::XdpSocket& given, std::vector<UniqueFd> fds) {}
  // Placed functions that are loaded and ready, for an agent that has been restarted.
  virtual std::vector<std::string> Loaded() { return {}; }
  // Further counters for the agent's statistics.
  virtual void AddCounters(const std::function<void(absl::string_view name, uint64_t value)>& add) {}
  // Adds Incoming::caller of all requests that have come in whole where it may yet be read. False, as where
  // nothing is served: ForgetCallers is left to the owner.
  virtual bool AddHeldCallers(absl::flat_hash_set<const std::string*>* held) { return false; }
  // What calls of each function served here came to.
  virtual std::vector<api::FunctionStats> Functions() { return {}; }
};

class Session {
 public:
  static absl::StatusOr<std::unique_ptr<Session>> Create(const SessionOptions& options);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Before Start. `events` outlives the session.
  void set_events(SessionEvents* events) { events_ = events; }
  CallCore& core() { return *core_; }
  Poller& poller() { return *poller_; }

  // Begins to connect, now and whenever the agent is lost.
  void Start();
  // Ends the conversation and connects no more, until Start.
  void Stop();
  bool attached() const { return state_ == State::kAttached; }
  // Attached at least once.
  bool welcomed() const { return welcomed_; }
  // Why the last attempt failed. `refused`: the agent said so, and will say it again.
  const absl::Status& last_error() const { return last_error_; }
  bool refused() const { return refused_; }
  const api::Welcome& welcome() const { return welcome_; }

  // A function that this host serves of its own accord. Call CallCore::Serve as well.
  void AddServed(const std::string& function);
  void Report(absl::string_view function, api::FunctionReport::State state, absl::string_view error = "");
  // Asks for the route of the pair, once. Empty `caller`: the namespace that this session calls as; not
  // before welcomed().
  RouteEntry& Subscribe(absl::string_view caller, absl::string_view callee);
  // Its route is needed no more, and no call will be started by it; it goes, at the latest once there are
  // twice as many routes as are needed. Subscribe makes it anew.
  void Unsubscribe(RouteEntry& route);
  void SendDrained();
  void SendRunEnded(const api::RunEnded& ended);
  void SendNodeReport(const std::string& node, bool up);
  void SendPeerKeyId(const api::PeerKeyId& answer);
  void SendEndsLeft(uint64_t number);
  void SendXdpTaken(uint64_t number, const absl::Status& taken);

  // --- For HostLoop.
  // The poller has let go of `channel`, whose state says why; it is destroyed.
  void OnChannelClosed(Channel& channel);
  bool HasClosing() const { return !closing_.empty(); }
  // finish(Link&) is called for each link that the agent has closed, before it goes.
  template <typename Finish>
  void CloseClosing(Finish&& finish) {
    while (!closing_.empty()) {
      const Closing closing = std::move(closing_.back());
      closing_.pop_back();
      Link* link = core_->link(closing.link);
      if (!link->channel || link->epoch != closing.epoch) continue;
      finish(*link);
      DropLink(*link, closing.code, closing.reason);
    }
  }
  // Takes what the agent has sent.
  void ServeSocket();
  // Connects where it is time to.
  void Tick(uint64_t now_ns) {
    if (now_ns >= next_ns_.load(std::memory_order_relaxed)) Connect(now_ns);
  }
  // When Tick has something to do. Any thread; a hint on others than the owner's.
  uint64_t next_ns() const { return next_ns_.load(std::memory_order_relaxed); }
  // The agent's socket, or -1. Any thread; only to wait on.
  int wait_fd() const { return wait_fd_.load(std::memory_order_relaxed); }
  // Readable when wait_fd or next_ns have changed; the keeper reads it.
  int wake_fd() const { return wake_fd_.get(); }

 private:
  enum class State { kIdle, kWaiting, kConnected, kAttached };
  struct ChannelRecord {
    std::unique_ptr<Channel> pending;  // Until the peer's memory has come.
    std::string peer;
    uint32_t tenant = 0;
    uint32_t arena_bytes = 0;
    api::ChannelAccess access;
    uint32_t index_max = 0;
    uint32_t link = TargetSet::kNoLink;
  };
  struct Closing {
    uint32_t link;
    uint32_t epoch;
    absl::StatusCode code;
    std::string reason;
  };
  struct Outgoing {
    std::string bytes;
    int fd;  // Of a channel's memory, duplicated; or -1.
  };

  explicit Session(const SessionOptions& options);

  // --- The socket; session_socket.cc
  void Connect(uint64_t now_ns);
  void Disconnect(absl::Status why);
  void SetWait(int fd, uint64_t next_ns);
  void SendHello();
  void Send(const api::FromHost& message, int fd = -1);
  void FlushOutgoing();
  bool GiveUpNextRoute();
  bool AskForNextRoute();
  void OnMessage(ReceivedMessage& received);
  void Handle(api::ToHost& message, ReceivedMessage& received);

  // --- What the agent says; session.cc
  void OnWelcome(const api::Welcome& welcome);
  void OnRoute(const api::Route& route);
  void OnChannelOpen(const api::ChannelOpen& open);
  void OnChannelPeer(const api::ChannelPeer& peer, ReceivedMessage& received);
  void OnChannelAccess(const api::ChannelAccess& access);
  void OnChannelClose(const api::ChannelClose& close);
  void OnStatsQuery(const api::StatsQuery& query);
  void SendFunctionStats(uint64_t query);
  absl::Status OpenLink(ChannelRecord& record, const std::string& id, ReceivedMessage& received);
  void ApplyAccess(ChannelRecord& record);
  void CloseRecord(const std::string& id, absl::StatusCode code, absl::string_view reason);
  void DropLink(Link& link, absl::StatusCode code, absl::string_view reason);
  void SendChannelClosed(const std::string& id, absl::string_view reason);

  SessionOptions options_;
  SessionEvents* events_ = nullptr;
  std::unique_ptr<Poller> poller_;
  std::unique_ptr<ByteBudget> budget_;  // Outlives the channels of core_.
  std::unique_ptr<CallCore> core_;
  State state_ = State::kIdle;
  bool welcomed_ = false;
  bool refused_ = false;
  bool told_away_ = false;
  absl::Status last_error_;
  api::Welcome welcome_;
  UniqueFd socket_;
  bool wants_write_ = false;
  std::deque<Outgoing> outgoing_;
  uint64_t backoff_ns_ = 0;
  Random random_;
  std::vector<std::string> served_;
  std::map<std::string, ChannelRecord> channels_;  // By id
  std::vector<Closing> closing_;
  std::vector<const RouteEntry*> subscribed_;  // Asked for, in order; the first asked_ of this agent.
  absl::flat_hash_set<const RouteEntry*> subscribed_set_;
  std::size_t asked_ = 0;
  std::deque<std::pair<std::string, std::string>>
      given_up_;  // By caller and callee: to be told to this agent.
  std::size_t forget_routes_at_ = CallCore::kForgetMin;
  std::size_t forget_callers_at_ = CallCore::kForgetMin;
  uint64_t attaches_ = 0;
  std::atomic<int> wait_fd_{-1};
  std::atomic<uint64_t> next_ns_{~uint64_t{0}};
  UniqueFd wake_fd_;
};

// With the defaults of Policy where a field is 0.
Policy PolicyOf(const api::Policy& policy);

}  // namespace weft

#endif  // WEFT_DATAPLANE_CLIENT_SESSION_H_
