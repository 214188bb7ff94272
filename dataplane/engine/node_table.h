// SPDX-License-Identifier: Apache-2.0
// What the agent has told a node engine of the mesh: which nodes there are and who may call from each, which
// functions are on other nodes, which functions of this one may be called. Looked up once a message;
// changed on the agent's word. Owner thread only.
#ifndef WEFT_DATAPLANE_ENGINE_NODE_TABLE_H_
#define WEFT_DATAPLANE_ENGINE_NODE_TABLE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "dataplane/api/host.pb.h"

namespace weft::engine {

struct LocalCallee {
  std::string name;
  uint32_t tenant = 0;
};

struct NodeEntry {
  std::string address;
  absl::flat_hash_map<uint64_t, std::string> callers;  // Names by wire id.
};

class NodeTable {
 public:
  // Takes one part; true where it was the last one of a table, which is then in force.
  bool Take(const api::NodeTable& part);

  // Forgets the parts of a table whose rest will not come: the conversation with the agent begins anew.
  void Restart() { coming_ = {}; }

  const std::map<std::string, NodeEntry>& nodes() const { return now_.nodes; }
  // Names by wire id.
  const absl::flat_hash_map<uint64_t, std::string>& remote() const { return now_.remote; }
  const absl::flat_hash_map<uint64_t, LocalCallee>& local() const { return now_.local; }

 private:
  struct Tables {
    std::map<std::string, NodeEntry> nodes;
    absl::flat_hash_map<uint64_t, std::string> remote;
    absl::flat_hash_map<uint64_t, LocalCallee> local;
  };

  Tables now_;
  Tables coming_;
};

}  // namespace weft::engine

#endif  // WEFT_DATAPLANE_ENGINE_NODE_TABLE_H_
