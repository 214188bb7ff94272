// SPDX-License-Identifier: Apache-2.0
#include "control/source/etcd/etcd_presence.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "control/source/etcd/etcd_keys.h"
#include "control/source/mesh_yaml.h"
#include "dataplane/base/pod_uid.h"

namespace weft::control {
namespace {

constexpr uint64_t kPresencePauseMinNs = 20 * kNsPerMs;
constexpr uint64_t kPresencePauseMaxNs = kNsPerSecond;
// A keep-alive that is sent after a third of the lease, and fails, leaves time for two more.
constexpr uint64_t kKeepAlivesPerLease = 3;
constexpr uint64_t kTriesPerLease = 6;
// Between two tries for a name that another node holds.
constexpr uint64_t kContendNs = kNsPerSecond;
// etcd takes 128 operations a transaction by default.
constexpr std::size_t kOpsMax = 100;
// A value that none of ours is.
constexpr char kUnknown = '?';
// By one budget, for as long as it goes on.
constexpr double kWithdrawalsPerSecond = 1;

}  // namespace

EtcdPresence::EtcdPresence(EtcdPresenceOptions options, HttpClient* http)
    : options_(std::move(options)),
      connection_(&options_.etcd, http),
      keeper_(&options_.etcd, http),
      random_(options_.seed) {
  keeper_.SetTimeout(options_.lease_s * 1'000 / kTriesPerLease);
}

std::string EtcdPresence::NodeKey() const {
  api::Node node;
  node.set_name(node_);
  return absl::StrCat(options_.etcd.prefix, EtcdKeyOf(node, true));
}

std::string EtcdPresence::NodeValue() const {
  api::Node node;
  node.set_address(options_.address);
  node.set_zone(options_.zone);
  for (const std::string& ns : options_.call_as) node.add_call_as(ns);
  return ObjectJson(node);
}

void EtcdPresence::Say(const std::string& node, const std::vector<api::Endpoint>& endpoints) {
  if (node != node_) {
    if (!node_.empty()) Lose("the node has another name");
    node_ = node;
  }
  wanted_.clear();
  for (const api::Endpoint& endpoint : endpoints) {
    wanted_.emplace(absl::StrCat(options_.etcd.prefix, EtcdKeyOf(endpoint, true)), ObjectJson(endpoint));
  }
  publish_at_ns_ = 0;
  Next();
}

uint64_t EtcdPresence::wake_ns() const {
  uint64_t wake_ns = 0;
  for (const uint64_t at_ns : {retry_at_ns_, publish_at_ns_, keeper_.busy() ? 0 : keep_at_ns_}) {
    if (at_ns != 0 && (wake_ns == 0 || at_ns < wake_ns)) wake_ns = at_ns;
  }
  return wake_ns;
}

void EtcdPresence::OnTime(uint64_t now_ns) {
  if (keep_at_ns_ != 0 && now_ns >= keep_at_ns_ && !keeper_.busy()) KeepAlive(now_ns);
  if (retry_at_ns_ != 0 && now_ns >= retry_at_ns_) retry_at_ns_ = 0;
  if (publish_at_ns_ != 0 && now_ns >= publish_at_ns_) publish_at_ns_ = 0;
  Next();
}

// The one step that is due, unless one is under way.
void EtcdPresence::Next() {
  if (node_.empty() || connection_.busy() || retry_at_ns_ != 0) return;
  if (lease_ == 0) return Grant();
  if (!claimed_) return Claim();
  if (said_ == wanted_) {
    slowed_.clear();
  } else if (publish_at_ns_ == 0) {
    Publish();
  }
}

void EtcdPresence::Grant() {
  connection_.Call("/v3/lease/grant", EtcdGrantJson(static_cast<int64_t>(options_.lease_s)),
                   [this, sent_ns = NowNs()](const absl::StatusOr<std::string>& reply) {
                     if (!reply.ok()) return Fail(reply.status());
                     const absl::StatusOr<EtcdLeaseReply> lease = ParseEtcdLease(*reply);
                     if (!lease.ok()) return Fail(lease.status());
                     lease_ = lease->id;
                     Kept(sent_ns);
                     Next();
                   });
}

void EtcdPresence::Claim() {
  connection_.Call("/v3/kv/txn",
                   EtcdTxnJson({{EtcdCompare::Target::kCreateRevision, NodeKey(), 0}},
                               {{false, NodeKey(), NodeValue(), lease_}}),
                   [this](const absl::StatusOr<std::string>& reply) {
                     if (!reply.ok()) return Fail(reply.status());
                     const absl::StatusOr<EtcdTxnReply> txn = ParseEtcdTxn(*reply);
                     if (!txn.ok()) return Fail(txn.status());
                     if (!txn->succeeded) return Contend();
                     Claimed();
                   });
}

// Somebody stands there. Our own earlier run, told by the address, is taken over; another node is left alone.
void EtcdPresence::Contend() {
  EtcdRange range;
  range.key = NodeKey();
  connection_.Call("/v3/kv/range", EtcdRangeJson(range), [this](const absl::StatusOr<std::string>& reply) {
    if (!reply.ok()) return Fail(reply.status());
    const absl::StatusOr<EtcdRangeReply> holder = ParseEtcdRange(*reply);
    if (!holder.ok()) return Fail(holder.status());
    if (holder->entries.empty()) return Next();  // Gone meanwhile
    TakeOver(holder->entries.front());
  });
}

void EtcdPresence::TakeOver(const EtcdEntry& holder) {
  MeshObject object = api::Node();
  const bool readable = LoadObject(holder.value, holder.key, &object).ok();
  const std::string address = readable ? std::get<api::Node>(object).address() : "?";
  if (address != options_.address) {
    const std::string problem =
        absl::StrCat("node ", node_, " is claimed by ", address, "; what this node serves is not published");
    if (problem != problem_) notes_.push_back(problem);
    problem_ = problem;
    retry_at_ns_ = NowNs() + kContendNs;
    return;
  }
  connection_.Call("/v3/kv/txn",
                   EtcdTxnJson({{EtcdCompare::Target::kModRevision, NodeKey(), holder.mod_revision}},
                               {{false, NodeKey(), NodeValue(), lease_}}),
                   [this](const absl::StatusOr<std::string>& reply) {
                     if (!reply.ok()) return Fail(reply.status());
                     const absl::StatusOr<EtcdTxnReply> txn = ParseEtcdTxn(*reply);
                     if (!txn.ok()) return Fail(txn.status());
                     if (txn->succeeded) return Claimed();
                     Next();
                   });
}

void EtcdPresence::Claimed() {
  claimed_ = true;
  problem_.clear();
  pause_ns_ = 0;
  said_.clear();
  publish_at_ns_ = 0;
  Next();
}

// By whose budget a key is withdrawn: its host's. A pod's name is its tenant's to choose, and each new one
// would have a budget of its own: its functions' namespace, which weftd's settings admit, stands for it.
std::string EtcdPresence::BudgetOf(absl::string_view key) const {
  const std::string below = absl::StrCat(options_.etcd.prefix, "live/endpoints/", node_, "/");
  key.remove_prefix(std::min(below.size(), key.size()));
  const std::size_t slash = std::min(key.find('/'), key.size());
  const absl::string_view host = key.substr(0, slash);
  if (!IsPodUid(host)) return absl::StrCat("host ", host);
  key.remove_prefix(std::min(slash + 1, key.size()));
  return absl::StrCat("pods in namespace ", key.substr(0, key.find('/')));
}

double EtcdPresence::LeftOf(const Budget& budget, uint64_t now_ns) const {
  const double earned = static_cast<double>(now_ns - budget.at_ns) / kNsPerSecond * kWithdrawalsPerSecond;
  return std::min<double>(options_.withdrawals_max, budget.left + earned);
}

// What the budget `name` has left of withdrawals.
double& EtcdPresence::LeftOf(const std::string& name, uint64_t now_ns) {
  const Budget all{static_cast<double>(options_.withdrawals_max), now_ns};
  Budget& budget = budgets_.try_emplace(name, all).first->second;
  budget = {LeftOf(budget, now_ns), now_ns};
  return budget.left;
}

// The next ones, as many as a transaction takes; `after`: what is said by then. Where more is to be
// withdrawn than the budget has, nothing new is said by it either: else it would pile up there.
std::vector<EtcdOp> EtcdPresence::OpsNow(Keys* after, uint64_t now_ns) {
  std::vector<EtcdOp> ops;
  const Keys before = *after;
  std::map<std::string, double> to_withdraw;
  for (const auto& [key, value] : before) {
    if (!wanted_.contains(key)) ++to_withdraw[BudgetOf(key)];
  }
  std::set<std::string> slow;
  for (const auto& [budget, count] : to_withdraw) {
    if (count > LeftOf(budget, now_ns)) slow.insert(budget);
  }
  for (const auto& [key, value] : wanted_) {
    if (ops.size() == kOpsMax) break;
    const auto said = before.find(key);
    if (said != before.end() && said->second == value) continue;
    if (!slow.empty() && slow.contains(BudgetOf(key))) continue;
    ops.push_back({false, key, value, lease_});
    (*after)[key] = value;
  }
  for (const auto& [key, value] : before) {
    if (ops.size() == kOpsMax) break;
    if (wanted_.contains(key)) continue;
    double& left = LeftOf(BudgetOf(key), now_ns);
    if (left < 1) continue;
    left -= 1;
    ops.push_back({true, key, "", 0});
    after->erase(key);
  }
  if (!slow.empty() && slowed_ != *slow.begin()) {
    slowed_ = *slow.begin();
    notes_.push_back(absl::StrCat("presence in etcd: functions of ", slowed_,
                                  " are withdrawn in a loop; they are told slowly"));
  }
  // One that is whole again is as good as none.
  std::erase_if(budgets_, [&](const auto& entry) {
    return LeftOf(entry.second, now_ns) >= static_cast<double>(options_.withdrawals_max);
  });
  return ops;
}

// Each transaction holds only while the node's key is under our lease.
void EtcdPresence::Publish() {
  const uint64_t now_ns = NowNs();
  Keys after = said_;
  const std::vector<EtcdOp> ops = OpsNow(&after, now_ns);
  if (ops.empty()) {
    publish_at_ns_ = now_ns + kNsPerSecond;
    return;
  }
  for (const EtcdOp& op : ops) {
    // Should the answer be lost, it may stand there or not: not as any value, but to be removed when
    // unwanted.
    if (!op.remove) said_.insert_or_assign(op.key, std::string(1, kUnknown));
  }
  connection_.Call("/v3/kv/txn", EtcdTxnJson({{EtcdCompare::Target::kLease, NodeKey(), lease_}}, ops),
                   [this, after = std::move(after)](const absl::StatusOr<std::string>& reply) {
                     if (!reply.ok()) return Fail(reply.status());
                     const absl::StatusOr<EtcdTxnReply> txn = ParseEtcdTxn(*reply);
                     if (!txn.ok()) return Fail(txn.status());
                     if (!txn->succeeded) {
                       Lose(absl::StrCat("another holds the name ", node_));
                       return Next();
                     }
                     said_ = after;
                     problem_.clear();
                     pause_ns_ = 0;
                     Next();
                   });
}

void EtcdPresence::KeepAlive(uint64_t now_ns) {
  keeper_.Follow(connection_);
  keeper_.Call("/v3/lease/keepalive", EtcdLeaseJson(lease_),
               [this, now_ns](const absl::StatusOr<std::string>& reply) {
                 if (!reply.ok()) return FailToKeep(reply.status());
                 const absl::StatusOr<EtcdLeaseReply> lease = ParseEtcdLease(*reply);
                 if (!lease.ok()) return FailToKeep(lease.status());
                 if (lease->ttl_s != 0) return Kept(now_ns);
                 Lose("the lease has run out");
                 Next();
               });
}

// By a request of then: that etcd took it later than that is not known.
void EtcdPresence::Kept(uint64_t sent_ns) {
  keep_at_ns_ = sent_ns + options_.lease_s * kNsPerSecond / kKeepAlivesPerLease;
  keep_pause_ns_ = 0;
  keep_problem_.clear();
}

// The next member is asked, soon enough for one more, also for what hangs with this one: its own time is
// longer.
void EtcdPresence::FailToKeep(const absl::Status& why) {
  Tell(why, &keep_problem_);
  if (absl::IsNotFound(why)) {
    Lose("the lease is not known any more");
    return Next();
  }
  if (connection_.member() == keeper_.member() && options_.etcd.endpoints.size() > 1) {
    connection_.Cancel();
    connection_.Rotate();
    Next();
  }
  const uint64_t pause_max_ns =
      std::min(kPresencePauseMaxNs, options_.lease_s * kNsPerSecond / kTriesPerLease);
  keep_pause_ns_ = std::clamp(keep_pause_ns_ * 2, kPresencePauseMinNs, pause_max_ns);
  keep_at_ns_ = NowNs() + keep_pause_ns_ - random_.Below(keep_pause_ns_ / 2);
}

// What is under way by the lease says nothing any more.
void EtcdPresence::Lose(const std::string& why) {
  notes_.push_back(absl::StrCat("presence in etcd: ", why, "; saying everything anew"));
  connection_.Cancel();
  keeper_.Cancel();
  lease_ = 0;
  keep_at_ns_ = 0;
  claimed_ = false;
  said_.clear();
}

void EtcdPresence::Tell(const absl::Status& why, std::string* problem) {
  std::string now = absl::StrCat("presence in etcd: ", why.message());
  if (now != *problem) notes_.push_back(now);
  *problem = std::move(now);
}

// What a request that failed has done is not known: what it was to say is said again, by the same lease.
void EtcdPresence::Fail(const absl::Status& why) {
  Tell(why, &problem_);
  if (absl::IsNotFound(why)) Lose("the lease is not known any more");
  connection_.Rotate();
  pause_ns_ = std::clamp(pause_ns_ * 2, kPresencePauseMinNs, kPresencePauseMaxNs);
  retry_at_ns_ = NowNs() + pause_ns_ - random_.Below(pause_ns_ / 2);
}

}  // namespace weft::control
