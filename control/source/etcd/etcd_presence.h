// SPDX-License-Identifier: Apache-2.0
// Says in etcd that this node is there and what its hosts serve, under a lease, so that a dead node
// disappears by itself. One weft-control a node claims its name; a name that another address holds is left to
// it, and asked for again. Everything is said anew where the lease was lost. The lease is kept beside what is
// said: a member that does not answer is left in time for two others to be asked. A host that serves and does
// not serve in a loop is slowed down, and so are pods that come and go in one: etcd keeps each turn of it
// until it is compacted, and every node takes it. One thread.
#ifndef WEFT_CONTROL_SOURCE_ETCD_ETCD_PRESENCE_H_
#define WEFT_CONTROL_SOURCE_ETCD_ETCD_PRESENCE_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "control/source/etcd/etcd_connection.h"
#include "control/source/etcd/etcd_json.h"
#include "dataplane/api/mesh.pb.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/random.h"

namespace weft::control {

struct EtcdPresenceOptions {
  EtcdOptions etcd;
  std::string address;  // HOST:PORT where other nodes reach this one
  std::string zone;
  std::vector<std::string>
      call_as;  // Namespaces that clients of this node may call other nodes' functions as
  uint64_t lease_s = 5;
  // Of one host, or of all pods by functions of one namespace, are withdrawn so many at once, and one a
  // second.
  uint32_t withdrawals_max = 16'384;
  uint64_t seed = 1;  // Of the pauses' jitter
};

class EtcdPresence {
 public:
  // `http` outlives this; its owner drives it.
  EtcdPresence(EtcdPresenceOptions options, HttpClient* http);

  // What is to be said from now on: the node, as its agent names it, and what its hosts serve of their own
  // accord.
  void Say(const std::string& node, const std::vector<api::Endpoint>& endpoints);

  uint64_t wake_ns() const;  // CLOCK_MONOTONIC; 0: never
  void OnTime(uint64_t now_ns);

  bool published() const { return claimed_ && said_ == wanted_; }
  const std::string& problem() const { return problem_.empty() ? keep_problem_ : problem_; }
  std::vector<std::string> TakeNotes() { return std::exchange(notes_, {}); }

 private:
  using Keys = std::map<std::string, std::string>;  // Key to value
  // Of withdrawals that are left.
  struct Budget {
    double left = 0;
    uint64_t at_ns = 0;
  };

  void Next();
  void Grant();
  void Claim();
  void Contend();
  void TakeOver(const EtcdEntry& holder);
  void Publish();
  std::vector<EtcdOp> OpsNow(Keys* after, uint64_t now_ns);
  std::string BudgetOf(absl::string_view key) const;
  double LeftOf(const Budget& budget, uint64_t now_ns) const;
  double& LeftOf(const std::string& name, uint64_t now_ns);
  void KeepAlive(uint64_t now_ns);
  void Kept(uint64_t sent_ns);
  void FailToKeep(const absl::Status& why);
  void Claimed();
  void Lose(const std::string& why);
  void Fail(const absl::Status& why);
  void Tell(const absl::Status& why, std::string* problem);
  std::string NodeKey() const;
  std::string NodeValue() const;

  EtcdPresenceOptions options_;
  EtcdConnection connection_;  // One request at a time, of those that say something
  EtcdConnection keeper_;      // Keeps the lease alive
  Random random_;

  std::string node_;  // Empty: nothing to say yet
  Keys wanted_;       // The endpoints
  Keys said_;         // Those that stand under our lease
  int64_t lease_ = 0;
  bool claimed_ = false;
  uint64_t keep_at_ns_ = 0;  // Of the next keep-alive; 0: no lease
  uint64_t keep_pause_ns_ = 0;
  std::map<std::string, Budget> budgets_;  // By BudgetOf(); none: all that it may have
  std::string slowed_;                     // The budget that was told of last, until all is said
  uint64_t publish_at_ns_ = 0;             // Not 0: all that is to be said has to wait until then.
  uint64_t retry_at_ns_ = 0;               // 0: not waiting
  uint64_t pause_ns_ = 0;
  std::string problem_;
  std::string keep_problem_;
  std::vector<std::string> notes_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_ETCD_ETCD_PRESENCE_H_
