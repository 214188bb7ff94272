// SPDX-License-Identifier: Apache-2.0
#include "control/model/who_said.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "dataplane/base/function_id.h"

namespace weft::control {
namespace {

std::string PlaceOf(const Claims::Claim& claim) {
  std::string place = claim.origin->name;
  if (claim.entry->where.line > 0) absl::StrAppend(&place, ":", claim.entry->where.line);
  if (claim.entry->implied) absl::StrAppend(&place, " (by the node itself)");
  return place;
}

// Nothing where nobody says anything of `key`.
void Append(const Claims& claims, const EntryKey& key, const std::string& thing,
            std::vector<Saying>* sayings) {
  const absl::Span<const Claims::Claim> all = claims.Of(key);
  if (all.empty()) return;
  std::vector<std::string> others;
  for (const Claims::Claim& claim : all.subspan(1)) others.push_back(PlaceOf(claim));
  sayings->push_back({thing, PlaceOf(all.front()), absl::StrJoin(others, ", ")});
}

}  // namespace

std::vector<Saying> WhoSaid(const Claims& claims, const std::string& caller, const std::string& callee,
                            std::size_t max) {
  std::vector<Saying> sayings;
  if (max == 0) return sayings;
  Append(claims, FunctionKey(callee), absl::StrCat("function ", callee), &sayings);
  std::set<absl::string_view> nodes;
  const std::vector<EntryKey> endpoints = claims.EndpointsOf(callee);
  for (std::size_t i = 0; i < endpoints.size(); ++i) {
    const auto& [function, node, host] = endpoints[i].names;
    if (i < max) Append(claims, endpoints[i], absl::StrCat("endpoint ", node, "/", host), &sayings);
    nodes.insert(node);
  }
  std::size_t left = max;
  for (const absl::string_view node : nodes) {
    if (left == 0) break;
    const std::size_t before = sayings.size();
    Append(claims, NodeKey(node), absl::StrCat("node ", node), &sayings);
    left -= sayings.size() - before;
  }
  left = max;
  const std::string callers[] = {absl::StrCat(NamespaceOf(caller), "/*"), caller};
  const std::string callees[] = {absl::StrCat(NamespaceOf(callee), "/*"), callee};
  for (const std::string& from : callers) {
    for (const std::string& to : callees) {
      if (left == 0) break;
      const std::size_t before = sayings.size();
      Append(claims, AllowKey(from, to), absl::StrCat("rule ", from, " to ", to), &sayings);
      left -= sayings.size() - before;
    }
  }
  return sayings;
}

}  // namespace weft::control
