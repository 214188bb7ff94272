// SPDX-License-Identifier: Apache-2.0
#include "control/source/propeller/propeller_state.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/text.h"

namespace weft::control {
namespace {

constexpr std::size_t kRefusedMax = 10'000;
constexpr std::size_t kRefusedBytesMax = 300;  // Of why, and of a name: both may be as long as a message.

std::string AddressOf(const std::string& ip, uint32_t port) {
  return absl::StrContains(ip, ":") ? absl::StrCat("[", ip, "]:", port) : absl::StrCat(ip, ":", port);
}

}  // namespace

void PropellerState::Take(const PropellerMessage& message, uint64_t now_ns) {
  using Kind = PropellerMessage::Kind;
  switch (message.kind) {
    case Kind::kStart:
      return Start(message, now_ns);
    case Kind::kStop:
      return Forget(message.task);
    case Kind::kResult:
      return Result(message, now_ns);
    case Kind::kCreate: {
      // A process that has just begun runs nothing of what another ran before.
      for (auto& [id, task] : tasks_) {
        const auto replica = task.replicas.find(message.proplet);
        if (replica == task.replicas.end()) continue;
        replica->second = {};
      }
      const bool wants_list = wants_list_;
      Saw(message.proplet, now_ns);
      if (proplets_.contains(message.proplet)) proplets_[message.proplet].ip = message.ip;
      if (!message.ip.empty()) wants_list_ = wants_list;  // It has said what a list would.
      all_changed_ = true;
      return;
    }
    case Kind::kAlive:
      return Saw(message.proplet, now_ns);
    case Kind::kOffline: {
      // That of a worker of weft tells of its weft-control alone. Its hosts serve on, and the data plane sees
      // for itself whether the node does.
      if (workers_.contains(message.proplet)) return;
      // The manager's and the proxy's wills come on the same topic, with ids that are no proplet's.
      const auto proplet = proplets_.find(message.proplet);
      if (proplet == proplets_.end()) return;
      all_changed_ |= !proplet->second.dead;
      proplet->second.dead = true;
      return;
    }
    case Kind::kWorker:
      return Runs(message, now_ns);
    case Kind::kOther:
      return;
  }
}

PropellerState::Task* PropellerState::TaskOf(const std::string& id, const std::string& name, bool encrypted) {
  const auto found = tasks_.find(id);
  absl::Status status = CheckFunctionName(absl::StrCat(ns_, "/", name));
  if (status.ok()) status = CheckLabel(id, "task");
  if (status.ok() && encrypted) status = absl::UnimplementedError("it is encrypted, which weft cannot run");
  if (status.ok() && found == tasks_.end() && tasks_.size() >= kTasksMax) {
    status = absl::ResourceExhaustedError(absl::StrCat("more than ", kTasksMax, " tasks"));
  }
  if (!status.ok()) {
    Refuse(id, absl::StrCat("task ", id, " (", name, "): ", status.message()));
    return nullptr;
  }
  refused_.erase(id);
  Task& task = tasks_[id];
  if (task.name != name) changed_.insert(id);
  task.name = name;
  return &task;
}

void PropellerState::Refuse(const std::string& id, absl::string_view why) {
  std::string name(Utf8Prefix(id, kRefusedBytesMax));
  if (refused_.size() >= kRefusedMax && !refused_.contains(name)) return;
  refused_[std::move(name)] = std::string(Utf8Prefix(why, kRefusedBytesMax));
}

PropellerState::Replica* PropellerState::ReplicaOf(Task* task, const std::string& proplet) {
  const auto found = task->replicas.find(proplet);
  if (found != task->replicas.end()) return &found->second;
  if (replicas_ >= kReplicasMax) return nullptr;
  if (!proplet.empty() && !CheckLabel(proplet, "proplet").ok()) return nullptr;
  ++replicas_;
  return &task->replicas[proplet];
}

void PropellerState::Start(const PropellerMessage& message, uint64_t now_ns) {
  Task* task = TaskOf(message.task, message.name, message.encrypted);
  if (task == nullptr) return;
  task->heard_ns = now_ns;
  // A start of what runs there already begins it anew; of what runs elsewhere, adds to it.
  Replica* replica = ReplicaOf(task, message.proplet);
  if (replica == nullptr) {
    return Refuse(message.task, absl::StrCat("task ", message.task, ": is not taken on \"", message.proplet,
                                             "\": there are ", replicas_, " of at most ", kReplicasMax,
                                             " replicas, or no proplet is called that"));
  }
  if (replica->port != 0) changed_.insert(message.task);
  *replica = {};
}

void PropellerState::Result(const PropellerMessage& message, uint64_t now_ns) {
  if (!message.proplet.empty()) Saw(message.proplet, now_ns);
  const auto found = tasks_.find(message.task);
  if (found == tasks_.end()) {
    wants_list_ |= message.port != 0 && !refused_.contains(message.task);
    return;
  }
  Task& task = found->second;
  task.heard_ns = now_ns;
  std::string proplet = message.proplet;
  // Some proplets do not say who they are: that is enough where only one was asked.
  if (proplet.empty() && task.replicas.size() == 1) proplet = task.replicas.begin()->first;
  if (message.failed) {
    const auto replica = task.replicas.find(proplet);
    if (replica == task.replicas.end()) return;
    if (replica->second.port != 0) changed_.insert(message.task);
    task.replicas.erase(replica);
    --replicas_;
  } else if (message.port != 0 && !proplet.empty()) {
    Replica* replica = ReplicaOf(&task, proplet);
    if (replica == nullptr) return;
    *replica = {message.port, true, false};
    changed_.insert(message.task);
  }
}

void PropellerState::Forget(const std::string& id) {
  refused_.erase(std::string(Utf8Prefix(id, kRefusedBytesMax)));
  if (listing_ && stopped_.size() < kTasksMax && CheckLabel(id, "task").ok()) stopped_.insert(id);
  const auto task = tasks_.find(id);
  if (task == tasks_.end()) return;
  replicas_ -= task->second.replicas.size();
  tasks_.erase(task);
  changed_.insert(id);
}

void PropellerState::BeginList(uint64_t now_ns) {
  list_began_ns_ = now_ns;
  listing_ = true;
  stopped_.clear();
  listed_ = 0;
  for (auto& [id, task] : tasks_) {
    task.listed = false;
    // Who did not answer when asked is asked again.
    for (auto& [proplet, replica] : task.replicas) replica.doubtful |= replica.port != 0 && !replica.proven;
    doubted_.insert(id);
  }
}

void PropellerState::TakePage(const PropellerPage& page, uint64_t now_ns) {
  const bool wants_list = wants_list_;
  for (const PropellerPage::Proplet& each : page.proplets) {
    const bool known = proplets_.contains(each.id);
    if (!known) Saw(each.id, now_ns);  // Its own beats decide from here on.
    const auto proplet = proplets_.find(each.id);
    if (proplet == proplets_.end() || each.ip.empty() || proplet->second.ip == each.ip) continue;
    proplet->second.ip = each.ip;
    all_changed_ = true;
  }
  wants_list_ = wants_list;  // Who is first seen in a list is no reason for another.
  for (const PropellerPage::Task& each : page.tasks) {
    ++listed_;
    if (stopped_.contains(each.id)) continue;
    Task* task = TaskOf(each.id, each.name, each.encrypted);
    if (task == nullptr) continue;
    task->listed = true;
    // What was heard of it is newer, or just as good; the list's states say nothing of servers.
    if (each.failed || each.proplet.empty()) continue;
    const bool fresh = !task->replicas.contains(each.proplet);
    Replica* replica = ReplicaOf(task, each.proplet);
    if (replica == nullptr) continue;
    if (fresh) task->heard_ns = now_ns;
    if (each.port == 0 || replica->port != 0) continue;
    *replica = {each.port, false, true};
    doubted_.insert(each.id);
  }
}

std::size_t PropellerState::EndList(bool allow_shrink) {
  listing_ = false;
  stopped_.clear();
  if (listed_ == 0 && !allow_shrink) return tasks_.size();
  for (auto it = tasks_.begin(); it != tasks_.end();) {
    const bool missed = !it->second.listed && it->second.heard_ns < list_began_ns_;
    const bool gone = missed && it->second.missed;
    it->second.missed = missed;
    wants_list_ |= missed && !gone;
    if (gone) {
      changed_.insert(it->first);
      replicas_ -= it->second.replicas.size();
    }
    it = gone ? tasks_.erase(it) : std::next(it);
  }
  return 0;
}

void PropellerState::Doubt(uint64_t now_ns) {
  for (auto& [id, task] : tasks_) {
    for (auto& [proplet, replica] : task.replicas) replica.doubtful = replica.port != 0;
    doubted_.insert(id);
  }
  for (auto& [id, proplet] : proplets_) proplet.seen_ns = now_ns;
}

std::vector<PropellerState::Server> PropellerState::Doubtful(std::size_t max) {
  std::vector<Server> servers;
  for (auto id = doubted_.begin(); id != doubted_.end() && servers.size() < max;) {
    const auto task = tasks_.find(*id);
    bool doubtful = false;
    if (task != tasks_.end()) {
      for (const auto& [name, replica] : task->second.replicas) {
        doubtful |= replica.doubtful;
        const auto proplet = proplets_.find(name);
        if (!replica.doubtful || proplet == proplets_.end() || proplet->second.ip.empty()) continue;
        servers.push_back({task->first, name, proplet->second.ip, replica.port});
      }
    }
    id = doubtful ? std::next(id) : doubted_.erase(id);
  }
  return servers;
}

void PropellerState::Judge(const Server& server, bool serves) {
  const auto task = tasks_.find(server.task);
  if (task == tasks_.end()) return;
  const auto replica = task->second.replicas.find(server.proplet);
  if (replica == task->second.replicas.end() || replica->second.port != server.port) return;
  if (!replica->second.doubtful) return;
  replica->second.doubtful = false;
  if (replica->second.proven != serves) changed_.insert(server.task);
  replica->second.proven = serves;
}

void PropellerState::OnTime(uint64_t now_ns) {
  if (silence_at_ns_ == 0 || now_ns < silence_at_ns_) return;
  silence_at_ns_ = 0;
  for (auto& [id, proplet] : proplets_) {
    if (proplet.dead) continue;
    const uint64_t at_ns = proplet.seen_ns + kSilenceNsMax;
    if (now_ns < at_ns) {
      silence_at_ns_ = silence_at_ns_ == 0 ? at_ns : std::min(silence_at_ns_, at_ns);
      continue;
    }
    proplet.dead = true;
    all_changed_ = true;
  }
}

SourceMesh PropellerState::MeshNow(const std::string& origin) const {
  SourceMesh mesh;
  mesh.origin = origin;
  mesh.open = true;
  mesh.allow_shrink = true;  // Shrinking by accident is what EndList() looks after.
  AddWorkers(&mesh);
  for (const auto& [name, proplet] : proplets_) {
    if (proplet.dead || workers_.contains(name)) continue;
    Said<api::Node> node;
    node.value.set_name(name);
    node.implied = true;
    mesh.nodes.push_back(std::move(node));
  }
  for (const auto& [id, task] : tasks_) AddTask(id, task, &mesh);
  return mesh;
}

void PropellerState::AddTask(const std::string& id, const Task& task, SourceMesh* mesh) const {
  for (const auto& [name, replica] : task.replicas) {
    const auto proplet = proplets_.find(name);
    if (replica.port == 0 || !replica.proven || proplet == proplets_.end()) continue;
    if (proplet->second.dead || proplet->second.ip.empty()) continue;
    Said<api::Endpoint> endpoint;
    endpoint.value.set_function(absl::StrCat(ns_, "/", task.name));
    endpoint.value.set_node(name);
    endpoint.value.set_host(id);
    endpoint.value.set_weight(100);
    endpoint.value.set_http(AddressOf(proplet->second.ip, replica.port));
    endpoint.implied = true;
    mesh->endpoints.push_back(std::move(endpoint));
  }
}

SourceOffer PropellerState::TakeOffer(const std::string& origin) {
  SourceOffer offer;
  const bool first = !std::exchange(told_, true);
  if (std::exchange(all_changed_, false) || first) {
    changed_.clear();
    offer = OfferOf(MeshNow(origin));
    offer.allow_shrink = !first;  // An earlier run may have been told of more.
    RememberSaid(offer);
    return offer;
  }
  offer.origin = origin;
  offer.open = true;
  offer.allow_shrink = true;
  offer.whole = false;
  for (const std::string& id : std::exchange(changed_, {})) {
    SourceMesh mesh;
    if (const auto task = tasks_.find(id); task != tasks_.end()) AddTask(id, task->second, &mesh);
    const std::vector<EntryPtr> before = std::exchange(said_[id], {});
    AppendDifference(before, OfferOf(mesh).said, &said_[id], &offer);
    if (said_[id].empty()) said_.erase(id);
  }
  return offer;
}

void PropellerState::RememberSaid(const SourceOffer& whole) {
  said_.clear();
  for (const EntryPtr& entry : whole.said) {
    if (entry->kind != EntryKind::kEndpoint) continue;
    const std::string host(entry->key().names[2]);
    if (tasks_.contains(host)) said_[host].push_back(entry);
  }
}

}  // namespace weft::control
