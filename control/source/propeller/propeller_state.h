// SPDX-License-Identifier: Apache-2.0
// What is known of a Propeller cluster, and the mesh that follows: tasks that serve HTTP are endpoints, on
// nodes that are proplets. Messages, lists and time come in; no I/O. What the messages do not mean, though
// they seem to: a completed task may well serve (it is withdrawn by a stop, an error, or the death of its
// proplet alone); a second start of a task adds a replica; "alive" of the manager's list flaps; a last will
// may carry the id of another than a proplet. One thread.
#ifndef WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_STATE_H_
#define WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_STATE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "control/model/offer.h"
#include "control/source/propeller/propeller_messages.h"
#include "dataplane/base/clock.h"

namespace weft::control {

class PropellerState {
 public:
  // Three of its beats of 10 s, and a little.
  static constexpr uint64_t kSilenceNsMax = 32 * kNsPerSecond;
  // Whoever may write to the channel can make names up without end: what is kept of them is bounded.
  static constexpr std::size_t kTasksMax = 50'000;  // And functions of all workers together
  static constexpr std::size_t kReplicasMax = 2 * kTasksMax;
  // Where there are so many, dead ones make room at once.
  static constexpr std::size_t kPropletsMax = 10'000;
  // A proplet that begins anew has another id. Of those that no task is on and that were silent for this long
  // nothing stays, once there are twice as many proplets as there were left the last time.
  static constexpr uint64_t kForgetNs = 3600 * kNsPerSecond;
  // A node that takes part may have said what it serves only once: it is gone once it was silent for a day.
  static constexpr uint64_t kForgetWorkerNs = 24 * kForgetNs;
  static constexpr std::size_t kForgetAtMin = 64;

  // Functions are called `ns`/NAME of the task.
  explicit PropellerState(std::string ns) : ns_(std::move(ns)) {}

  void Take(const PropellerMessage& message, uint64_t now_ns);

  // A list of the manager's: pages between BeginList() and EndList(). What serves by the list's word alone is
  // in doubt. What two of them in a row do not hold any more, and was not heard of since the second began,
  // goes: a task slips between two pages where another in front of it is deleted while they are read. So
  // another list is wanted (TakeWantsList) where one is missed. Nothing goes where a list holds no task at
  // all, unless `allow_shrink`. Returns tasks that were kept so.
  void BeginList(uint64_t now_ns);
  void TakePage(const PropellerPage& page, uint64_t now_ns);
  std::size_t EndList(bool allow_shrink);

  // Messages were lost: every server is in doubt, and nobody counts as silent while nobody listened.
  void Doubt(uint64_t now_ns);
  struct Server {
    std::string task;
    std::string proplet;
    std::string ip;
    uint32_t port = 0;
    friend auto operator<=>(const Server&, const Server&) = default;
  };
  // Servers that must be asked whether they are there before calls may go to them; the first `max`.
  std::vector<Server> Doubtful(std::size_t max);
  // What came of it. Ignored where the server is another one by now.
  void Judge(const Server& server, bool serves);

  // Proplets that were silent for too long count as dead, until they speak again.
  void OnTime(uint64_t now_ns);
  uint64_t wake_ns() const { return silence_at_ns_; }  // CLOCK_MONOTONIC; 0: never

  // The node that this process runs on: what others say of its hosts is not believed.
  void set_node(const std::string& node) { node_ = node; }

  // Whether the mesh may be another one since the last call.
  bool changed() const { return all_changed_ || !changed_.empty(); }
  // What is to be said of what changed since the last call: the tasks that did, or the whole where more did.
  SourceOffer TakeOffer(const std::string& origin);
  // Something was said that only a list explains.
  bool TakeWantsList() { return std::exchange(wants_list_, false); }
  SourceMesh MeshNow(const std::string& origin) const;
  // By task or proplet: why it is not taken.
  const std::map<std::string, std::string>& refused() const { return refused_; }
  std::size_t tasks() const { return tasks_.size(); }
  std::size_t replicas() const { return replicas_; }  // Of all tasks
  // Also those that are dead.
  std::size_t proplets() const { return proplets_.size(); }

 private:
  struct Replica {
    uint32_t port = 0;      // 0: it does not serve, or not yet.
    bool proven = false;    // It said so, or was asked.
    bool doubtful = false;  // It is to be asked.
  };
  struct Task {
    std::string name;
    uint64_t heard_ns = 0;
    bool listed = false;                      // By the list under way
    bool missed = false;                      // By the last one
    std::map<std::string, Replica> replicas;  // By proplet; "" while it is not known which.
  };
  struct Proplet {
    std::string ip;
    uint64_t seen_ns = 0;
    bool dead = false;
  };

  // A node of weft that takes part as a proplet.
  struct Worker {
    std::string node;
    std::string host;
    std::map<std::string, bool> functions;  // By name: whether it is ready.
    friend bool operator==(const Worker&, const Worker&) = default;
  };

  void AddTask(const std::string& id, const Task& task, SourceMesh* mesh) const;
  // All that was said, by task
  void RememberSaid(const SourceOffer& whole);
  void Start(const PropellerMessage& message, uint64_t now_ns);
  void Runs(const PropellerMessage& message, uint64_t now_ns);
  void AddWorkers(SourceMesh* mesh) const;
  void Result(const PropellerMessage& message, uint64_t now_ns);
  void Saw(const std::string& proplet, uint64_t now_ns);
  // Of proplets that were silent for `quiet_ns`, and workers for `worker_quiet_ns`.
  void ForgetGone(uint64_t now_ns, uint64_t quiet_ns, uint64_t worker_quiet_ns);
  bool HasRoomForProplet(uint64_t now_ns);
  bool HasRoomFor(const std::string& proplet, const Worker& worker) const;
  // Null where there is no room for one more, or no proplet is called that.
  Replica* ReplicaOf(Task* task, const std::string& proplet);
  void Refuse(const std::string& id, absl::string_view why);
  // Null, and refused by name, where weft cannot take it.
  Task* TaskOf(const std::string& id, const std::string& name, bool encrypted);
  void Forget(const std::string& id);

  std::string ns_;
  std::map<std::string, Task> tasks_;
  std::size_t replicas_ = 0;  // Of all tasks
  std::map<std::string, Proplet> proplets_;
  uint64_t make_room_at_ns_ = 0;           // Not before
  std::size_t forget_at_ = kForgetAtMin;   // So many proplets make ForgetGone look at all.
  std::map<std::string, Worker> workers_;  // By proplet
  std::string node_;
  std::map<std::string, std::string> refused_;
  uint64_t list_began_ns_ = 0;
  bool listing_ = false;
  std::set<std::string> stopped_;  // Since the list began: it may still hold them.
  std::size_t listed_ = 0;
  std::set<std::string> changed_;                      // Tasks of which something else is to be said, perhaps
  bool all_changed_ = false;                           // Or of everything
  bool told_ = false;                                  // The whole was said at some time.
  std::map<std::string, std::vector<EntryPtr>> said_;  // By task
  std::set<std::string> doubted_;  // All tasks with a doubtful replica, and some that had one
  uint64_t silence_at_ns_ = 0;     // Nobody counts as silent before; 0: there is nobody.
  bool wants_list_ = false;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_STATE_H_
