// SPDX-License-Identifier: Apache-2.0
// What the round engine tells the node engine of other nodes, and hears from it.
#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "dataplane/agent/engine.h"
#include "dataplane/agent/refusal.h"
#include "dataplane/base/check.h"
#include "dataplane/base/function_id.h"

namespace weft::agent {
namespace {

// A part of a table goes out once it is this large.
constexpr std::size_t kTablePartBytes = 48 * 1024;

// What an engine can name as reachable: some nodes and the engines inside hosts there.
constexpr std::size_t kReportedMax = 64 * 1024;
constexpr std::size_t kReportedBytesMax = 256;

// Who may call some functions: the rules' other side, so that one look a caller tells.
class CallersOfSome {
 public:
  CallersOfSome(const Model& model, const std::set<std::string>& callees) {
    for (const std::string& callee : callees) {
      const std::string to(NamespaceOf(callee));
      from_.insert(absl::StrCat(to, "/*"));
      to_.insert(absl::StrCat(to, "/*"));
      to_.insert(callee);
    }
    for (const auto& [rule, allowed] : model.allow()) {
      if (to_.contains(rule.second)) from_.insert(rule.first);
    }
  }
  bool Contain(const std::string& caller) const {
    return from_.contains(caller) || from_.contains(absl::StrCat(NamespaceOf(caller), "/*"));
  }

 private:
  std::set<std::string> from_;
  std::set<std::string> to_;
};

// The table of `model` as the node `self` sees it, in parts that each fit a message. With `host`, of the
// engine inside of it: what that host serves and has asked for, and who may call it.
class TableMaker {
 public:
  TableMaker(const Model& model, const std::string& self, const EngineOptions& options, const Session* host,
             bool keep)
      : model_(model), self_(self), options_(options), host_(host), keep_(keep) {
    if (host_ != nullptr) {
      std::set<std::string> served;
      for (const auto& [key, endpoint] : model_.endpoints()) {
        if (key.node == self_ && key.host == host_->host) served.insert(key.function);
      }
      callers_.emplace(model_, served);
      for (const auto& [call, subscription] : host_->subscriptions) asked_.insert(call.second);
    }
    Begin();
  }

  std::vector<api::NodeTable> Make() {
    AddNodes();
    for (auto it = model_.endpoints().begin(); it != model_.endpoints().end();) {
      const std::string& function = it->first.function;
      bool remote = false;
      std::string local_host;
      for (; it != model_.endpoints().end() && it->first.function == function; ++it) {
        if (it->first.node == self_) {
          if (host_ == nullptr || it->first.host == host_->host) local_host = it->first.host;
        } else {
          remote = true;
        }
      }
      if (!local_host.empty()) {
        api::NodeTable::Local& local = *Room(function.size() + 16).add_local();
        local.set_function(function);
        local.set_tenant(host_ != nullptr ? 0 : options_.tenant_of_host(local_host));
      }
      if (remote && (host_ == nullptr || asked_.contains(function)))
        Room(function.size() + 8).add_remote(function);
    }
    return std::move(parts_);
  }

 private:
  void Begin() {
    parts_.emplace_back().set_keep(keep_);
    bytes_ = 0;
  }
  api::NodeTable& Room(std::size_t bytes) {
    if (bytes_ != 0 && bytes_ + bytes > kTablePartBytes) {
      parts_.back().set_more(true);
      Begin();
    }
    bytes_ += bytes;
    return parts_.back();
  }

  // A node's engine may call as all that is there, the engine inside a host as what is at that host.
  void AddNodes() {
    std::map<std::string, std::set<std::string>> callers;
    for (const auto& [key, endpoint] : model_.endpoints()) {
      if (key.node == self_ || (callers_ && !callers_->Contain(key.function))) continue;
      callers[key.node].insert(key.function);
      callers[absl::StrCat(key.node, "/", key.host)].insert(key.function);
    }
    for (const auto& [name, node] : model_.nodes()) {
      if (name == self_) continue;
      for (const std::string& caller : node.call_as()) {
        if (!callers_ || callers_->Contain(caller)) callers[name].insert(caller);
      }
      callers.try_emplace(name);
    }
    for (const auto& [name, may_call] : callers) {
      // One of many callers is told in several entries of its name.
      api::NodeTable::Node* entry = AddNode(name);
      for (const std::string& caller : may_call) {
        if (bytes_ + caller.size() + 8 > kTablePartBytes) entry = AddNode(name);
        bytes_ += caller.size() + 8;
        entry->add_callers(caller);
      }
    }
  }
  api::NodeTable::Node* AddNode(const std::string& name) {
    const auto node = model_.nodes().find(name);
    api::NodeTable::Node* entry = Room(name.size() + 128).add_nodes();
    entry->set_name(name);
    if (node != model_.nodes().end()) entry->set_address(node->second.address());
    return entry;
  }

  const Model& model_;
  const std::string& self_;
  const EngineOptions& options_;
  const Session* const host_;
  std::optional<CallersOfSome> callers_;
  std::set<std::string> asked_;
  const bool keep_;
  std::vector<api::NodeTable> parts_;
  std::size_t bytes_ = 0;
};

}  // namespace

// Tells node engines of the plan's model where they have not heard of it: with `keep` ahead of the routes, so
// that those which still lead elsewhere stay good, without it after them.
void Engine::SendNodeTables(bool keep) {
  for (auto& [id, session] : state_.sessions) {
    if (session.is_engine) SendNodeTable(session, keep);
  }
}

void Engine::SendNodeTable(Session& engine, bool keep) {
  const Session* const host = state_.Find(engine.inside_of);
  if (engine.inside_of != 0 && host == nullptr) return;  // It leaves with its host.
  const uint64_t asked = host == nullptr ? 0 : host->asked_changes;
  if (engine.told_members == plan_members_ && engine.told_asked == asked && (keep || !engine.told_keep))
    return;
  const std::vector<api::NodeTable> parts =
      TableMaker(*plan_.model, options_.node, options_, host, keep).Make();
  for (const api::NodeTable& part : parts) {
    api::ToHost& message = part.more() ? Send(engine) : SendAndWait(engine);
    *message.mutable_node_table() = part;
  }
  engine.told_members = plan_members_;
  engine.told_asked = asked;
  engine.told_keep = keep;
}

absl::Status Engine::ReportNode(SessionId id, const api::NodeReport& report) {
  Session* const session = state_.Find(id);
  WEFT_CHECK(session != nullptr);
  if (!session->is_engine) return Refuse(Refusal::kGarbage, "a host reports on nodes");
  if (report.node().size() > kReportedBytesMax) return Refuse(Refusal::kBadName, "a node of a long name");
  if (report.up() && session->nodes_up.size() >= kReportedMax)
    return Refuse(Refusal::kGarbage, "too many nodes reported");
  const bool changed = report.up() ? session->nodes_up.insert(report.node()).second
                                   : session->nodes_up.erase(report.node()) != 0;
  if (!changed) return absl::OkStatus();
  if (session->inside_of == 0) report.up() ? Reached(report.node()) : Lost(report.node());
  Touch();
  return absl::OkStatus();
}

// --- weftd's own engines, one a worker.

void Engine::AddEngine(SessionId id, uint16_t worker) {
  state_.engines[worker] = id;
  state_.engine = state_.engines.begin()->second;
}

// Its session still is in the state.
void Engine::RemoveEngine(Session& session) {
  if (const auto found = state_.engines.find(session.worker);
      found != state_.engines.end() && found->second == session.id)
    state_.engines.erase(found);
  state_.engine = state_.engines.empty() ? 0 : state_.engines.begin()->second;
  for (const std::string& node : std::exchange(session.nodes_up, {})) Lost(node);
}

void Engine::Reached(const std::string& node) { state_.nodes_up.insert(node); }

// By one engine: another may reach it still.
void Engine::Lost(const std::string& node) {
  const bool reached = std::any_of(state_.engines.begin(), state_.engines.end(), [&](const auto& entry) {
    const Session* const engine = state_.Find(entry.second);
    return engine != nullptr && engine->nodes_up.contains(node);
  });
  if (!reached) state_.nodes_up.erase(node);
}

// Where the calls of one more process leave: by the worker of the fewest of its kind. It stays there, so that
// one thread alone touches their channel.
uint16_t Engine::LeastDealt(bool is_client) const {
  std::vector<std::size_t> dealt(workers_);
  for (const auto& [id, session] : state_.sessions) {
    if (!session.is_engine && session.is_client == is_client) ++dealt[session.worker];
  }
  return static_cast<uint16_t>(std::min_element(dealt.begin(), dealt.end()) - dealt.begin());
}

}  // namespace weft::agent
