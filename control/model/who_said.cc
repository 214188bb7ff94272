// SPDX-License-Identifier: Apache-2.0
#include "control/model/who_said.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "dataplane/base/function_id.h"

namespace weft::control {
namespace {

struct Voice {
  bool implied = false;
  std::string place;
};
using Voices = std::map<std::string, std::vector<Voice>>;  // By thing

template <typename T, typename ThingOf>
void Listen(const SourceMesh& source, const std::vector<Said<T>>& all, ThingOf&& thing_of, Voices* voices) {
  for (const Said<T>& said : all) {
    const std::string thing = thing_of(said.value);
    if (thing.empty()) continue;
    std::string place = source.origin;
    if (said.where.line > 0) absl::StrAppend(&place, ":", said.where.line);
    if (said.implied) absl::StrAppend(&place, " (by the node itself)");
    (*voices)[thing].push_back({said.implied, std::move(place)});
  }
}

// What is said outright stands, whoever comes first.
void Append(Voices voices, std::size_t max, std::vector<Saying>* sayings) {
  for (auto& [thing, all] : voices) {
    if (max-- == 0) return;
    const auto first =
        std::find_if(all.begin(), all.end(), [](const Voice& voice) { return !voice.implied; });
    if (first != all.end()) std::rotate(all.begin(), first, first + 1);
    std::vector<std::string> others;
    for (std::size_t i = 1; i < all.size(); ++i) others.push_back(all[i].place);
    sayings->push_back({thing, all.front().place, absl::StrJoin(others, ", ")});
  }
}

}  // namespace

std::vector<Saying> WhoSaid(const std::map<std::string, SourceMesh>& sources, const std::string& caller,
                            const std::string& callee, std::size_t max) {
  const std::string from_all = absl::StrCat(NamespaceOf(caller), "/*");
  const std::string to_all = absl::StrCat(NamespaceOf(callee), "/*");
  Voices functions, endpoints, nodes, rules;
  std::set<std::string> on;  // Nodes that have an endpoint of the callee
  for (const auto& [origin, source] : sources) {
    Listen(
        source, source.functions,
        [&](const api::Function& f) { return f.name() == callee ? absl::StrCat("function ", f.name()) : ""; },
        &functions);
    Listen(
        source, source.endpoints,
        [&](const api::Endpoint& e) -> std::string {
          if (e.function() != callee) return "";
          on.insert(e.node());
          return absl::StrCat("endpoint ", e.node(), "/", e.host());
        },
        &endpoints);
    Listen(
        source, source.allow,
        [&](const api::Allow& a) -> std::string {
          const bool from = a.from() == caller || a.from() == from_all;
          const bool to = a.to() == callee || a.to() == to_all;
          return from && to ? absl::StrCat("rule ", a.from(), " to ", a.to()) : "";
        },
        &rules);
  }
  for (const auto& [origin, source] : sources) {
    Listen(
        source, source.nodes,
        [&](const api::Node& n) { return on.contains(n.name()) ? absl::StrCat("node ", n.name()) : ""; },
        &nodes);
  }
  std::vector<Saying> sayings;
  for (Voices* voices : {&functions, &endpoints, &nodes, &rules}) Append(std::move(*voices), max, &sayings);
  return sayings;
}

}  // namespace weft::control
