// SPDX-License-Identifier: Apache-2.0
#include "dataplane/engine/node_table.h"

#include <utility>

#include "dataplane/base/function_id.h"

namespace weft::engine {

bool NodeTable::Take(const api::NodeTable& part) {
  for (const api::NodeTable::Node& node : part.nodes()) {
    NodeEntry& entry = coming_.nodes[node.name()];
    entry.address = node.address();
    for (const std::string& caller : node.callers()) entry.callers[FunctionIdOf(caller).value] = caller;
  }
  for (const std::string& function : part.remote()) {
    coming_.remote[FunctionIdOf(function).value] = function;
  }
  for (const api::NodeTable::Local& local : part.local()) {
    coming_.local[FunctionIdOf(local.function()).value] = {local.function(), local.tenant()};
  }
  if (part.more()) return false;
  Tables table = std::exchange(coming_, {});
  if (part.keep()) {
    // Routes still lead to what is about to go.
    table.remote.merge(now_.remote);
    table.local.merge(now_.local);
    for (auto& [name, entry] : now_.nodes) {
      NodeEntry& kept = table.nodes[name];
      if (kept.address.empty()) kept.address = entry.address;
      kept.callers.merge(entry.callers);
    }
  }
  now_ = std::move(table);
  return true;
}

}  // namespace weft::engine
