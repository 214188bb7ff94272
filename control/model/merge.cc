// SPDX-License-Identifier: Apache-2.0
#include "control/model/merge.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"

namespace weft::control {
namespace {

class Merger {
 public:
  Merger(absl::Span<const SourceMesh* const> sources, const FunctionIdSource& id_of)
      : sources_(sources), id_of_(id_of) {
    for (const SourceMesh* source : sources) incomplete_ |= source->incomplete;
  }

  Merged Run() {
    for (const bool implied : {false, true}) {
      for (const SourceMesh* source : sources_) TakeNodesAndFunctions(*source, implied);
    }
    for (const bool implied : {false, true}) {
      for (const SourceMesh* source : sources_) TakeEndpointsAndRules(*source, implied);
    }
    const MeshState& state = merged_.state;
    const std::size_t entries =
        state.nodes.size() + state.functions.size() + state.endpoints.size() + state.allow.size();
    if (entries > kMeshEntriesMax) {
      merged_.errors.push_back(
          {sources_.back()->origin, Where{}, "",
           absl::StrCat("makes a mesh of ", entries, " entries; at most ", kMeshEntriesMax)});
    }
    return std::move(merged_);
  }

 private:
  void Error(const SourceMesh& source, Where where, absl::string_view list, std::size_t index,
             std::string message) {
    if (merged_.errors.size() >= kMergeErrorsMax) return;
    merged_.errors.push_back({source.origin, where, absl::StrCat(list, "[", index, "]"), std::move(message)});
  }

  // False, with an error, where `key` was there before.
  template <typename Key>
  bool First(absl::flat_hash_map<Key, std::string>* seen, const Key& key, const SourceMesh& source,
             Where where, absl::string_view list, std::size_t index, absl::string_view what) {
    const auto [it, fresh] = seen->emplace(key, PlaceOf(source, where));
    if (!fresh)
      Error(source, where, list, index, absl::StrCat("duplicate ", what, ", first at ", it->second));
    return fresh;
  }

  static std::string PlaceOf(const SourceMesh& source, Where where) {
    return where.line > 0 ? absl::StrCat(source.origin, ":", where.line) : source.origin;
  }

  void TakeNodesAndFunctions(const SourceMesh& source, bool implied) {
    for (std::size_t i = 0; i < source.nodes.size(); ++i) {
      const auto& [node, where, is_implied] = source.nodes[i];
      if (is_implied != implied || (implied && nodes_seen_.contains(node.name()))) continue;
      const std::string what = absl::StrCat("node \"", node.name(), "\"");
      if (!First(&nodes_seen_, node.name(), source, where, "nodes", i, what)) continue;
      merged_.state.nodes[node.name()] = node;
    }
    for (std::size_t i = 0; i < source.functions.size(); ++i) {
      const auto& [function, where, is_implied] = source.functions[i];
      if (is_implied != implied || (implied && functions_seen_.contains(function.name()))) continue;
      TakeFunction(source, function, where, i);
    }
  }

  void TakeFunction(const SourceMesh& source, const api::Function& function, Where where, std::size_t index) {
    const std::string what = absl::StrCat("function \"", function.name(), "\"");
    if (!First(&functions_seen_, function.name(), source, where, "functions", index, what)) return;
    const FunctionId id = id_of_(function.name());
    const auto [it, fresh] = names_of_ids_.emplace(id, function.name());
    if (id.value == 0 || !fresh) {
      const std::string other = fresh ? "of no function" : absl::StrCat("of function \"", it->second, "\"");
      Error(source, where, "functions", index,
            absl::StrCat(what, " has the wire id ", other, ": rename one of them"));
      return;
    }
    merged_.state.functions[function.name()] = function;
  }

  void TakeEndpointsAndRules(const SourceMesh& source, bool implied) {
    for (std::size_t i = 0; i < source.endpoints.size(); ++i) {
      const auto& [endpoint, where, is_implied] = source.endpoints[i];
      if (is_implied != implied) continue;
      const EndpointKey key = KeyOf(endpoint);
      const std::string joined = absl::StrCat(key.function, " ", key.node, " ", key.host);
      if (implied && endpoints_seen_.contains(joined)) continue;
      if (source.open && !nodes_seen_.contains(key.node)) continue;
      if (source.open && !functions_seen_.contains(key.function)) {
        api::Function function;
        function.set_name(key.function);
        TakeFunction(source, function, where, i);
      }
      CheckReferences(source, endpoint, where, i);
      const std::string what = absl::StrCat("endpoint of \"", key.function, "\" on host \"", key.host,
                                            "\" of node \"", key.node, "\"");
      if (!First(&endpoints_seen_, joined, source, where, "endpoints", i, what)) continue;
      merged_.state.endpoints[key] = endpoint;
    }
    for (std::size_t i = 0; i < source.allow.size(); ++i) {
      const auto& [allow, where, is_implied] = source.allow[i];
      if (is_implied != implied) continue;
      const std::string what = absl::StrCat("rule from \"", allow.from(), "\" to \"", allow.to(), "\"");
      const std::string joined = absl::StrCat(allow.from(), " ", allow.to());
      if (!First(&allow_seen_, joined, source, where, "allow", i, what)) continue;
      merged_.state.allow.insert(KeyOf(allow));
    }
  }

  void CheckReferences(const SourceMesh& source, const api::Endpoint& endpoint, Where where,
                       std::size_t index) {
    // A name that could not be read has its own error; what refers to it would only add noise.
    if (!incomplete_ && !functions_seen_.contains(endpoint.function())) {
      Error(source, where, "endpoints", index,
            absl::StrCat("unknown function \"", endpoint.function(), "\": no `functions` entry names it"));
    }
    if (!incomplete_ && !nodes_seen_.contains(endpoint.node())) {
      Error(source, where, "endpoints", index,
            absl::StrCat("unknown node \"", endpoint.node(), "\": no `nodes` entry names it"));
    }
  }

  absl::Span<const SourceMesh* const> sources_;
  const FunctionIdSource& id_of_;
  bool incomplete_ = false;
  Merged merged_;
  // Where each was first said. Names hold no space, so that joined keys are unambiguous.
  absl::flat_hash_map<std::string, std::string> nodes_seen_;
  absl::flat_hash_map<std::string, std::string> functions_seen_;
  absl::flat_hash_map<std::string, std::string> endpoints_seen_;
  absl::flat_hash_map<std::string, std::string> allow_seen_;
  absl::flat_hash_map<FunctionId, std::string> names_of_ids_;
};

}  // namespace

std::string MeshError::ToString() const {
  std::string text = origin;
  if (where.line > 0) absl::StrAppend(&text, ":", where.line);
  if (where.column > 0) absl::StrAppend(&text, ":", where.column);
  return absl::StrCat(text, ": ", key, key.empty() ? "" : ": ", message);
}

Merged Merge(absl::Span<const SourceMesh* const> sources, const FunctionIdSource& id_of) {
  return Merger(sources, id_of).Run();
}

}  // namespace weft::control
