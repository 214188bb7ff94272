// SPDX-License-Identifier: Apache-2.0
// What the round engine tells the node engine of other nodes, and hears from it.
#include "absl/strings/str_cat.h"
#include "dataplane/agent/engine.h"
#include "dataplane/agent/refusal.h"
#include "dataplane/base/check.h"
#include "dataplane/base/function_id.h"

namespace weft::agent {
namespace {

// A part of a table goes out once it is this large.
constexpr std::size_t kTablePartBytes = 48 * 1024;

// The table of `model` as the node `self` sees it, in parts that each fit a message.
class TableMaker {
 public:
  TableMaker(const Model& model, const std::string& self, const EngineOptions& options, bool keep)
      : model_(model), self_(self), options_(options), keep_(keep) {
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
          local_host = it->first.host;
        } else {
          remote = true;
        }
      }
      if (!local_host.empty()) {
        api::NodeTable::Local& local = *Room(function.size() + 16).add_local();
        local.set_function(function);
        local.set_tenant(options_.tenant_of_host(local_host));
      }
      if (remote) Room(function.size() + 8).add_remote(function);
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

  void AddNodes() {
    std::map<std::string, std::set<std::string>> callers;
    for (const auto& [key, endpoint] : model_.endpoints()) {
      if (key.node != self_) callers[key.node].insert(key.function);
    }
    for (const auto& [name, node] : model_.nodes()) {
      if (name == self_) continue;
      callers[name].insert(node.call_as().begin(), node.call_as().end());
      // A node of many callers is told in several entries of its name.
      api::NodeTable::Node* entry = AddNode(node);
      for (const std::string& caller : callers[name]) {
        if (bytes_ + caller.size() + 8 > kTablePartBytes) entry = AddNode(node);
        bytes_ += caller.size() + 8;
        entry->add_callers(caller);
      }
    }
  }
  api::NodeTable::Node* AddNode(const api::Node& node) {
    api::NodeTable::Node* entry = Room(node.name().size() + node.address().size() + 64).add_nodes();
    entry->set_name(node.name());
    entry->set_address(node.address());
    return entry;
  }

  const Model& model_;
  const std::string& self_;
  const EngineOptions& options_;
  const bool keep_;
  std::vector<api::NodeTable> parts_;
  std::size_t bytes_ = 0;
};

}  // namespace

// Tells the node engine of the plan's model where it has not heard of it: with `keep` ahead of the routes, so
// that those which still lead elsewhere stay good, without it after them.
void Engine::SendNodeTable(bool keep) {
  Session* const session = state_.Find(state_.engine);
  if (session == nullptr) return;
  if (told_model_ == plan_.model && (keep || !told_keep_)) return;
  const std::vector<api::NodeTable> parts = TableMaker(*plan_.model, options_.node, options_, keep).Make();
  for (const api::NodeTable& part : parts) {
    api::ToHost& message = part.more() ? Send(*session) : SendAndWait(*session);
    *message.mutable_node_table() = part;
  }
  told_model_ = plan_.model;
  told_keep_ = keep;
}

absl::Status Engine::ReportNode(SessionId id, const api::NodeReport& report) {
  const Session* session = state_.Find(id);
  WEFT_CHECK(session != nullptr);
  if (!session->is_engine) return Refuse(Refusal::kGarbage, "a host reports on nodes");
  const bool changed =
      report.up() ? state_.nodes_up.insert(report.node()).second : state_.nodes_up.erase(report.node()) != 0;
  if (changed) Touch();
  return absl::OkStatus();
}

}  // namespace weft::agent
