// SPDX-License-Identifier: Apache-2.0
// Which endpoints of a function its source hints for callers on this node, by kube-proxy's rules: hints for
// nodes count where every ready endpoint has some and one is for this node, those for zones likewise. Pure;
// part of PlanFunction() and PlanCall(), on the registry's thread.
#ifndef WEFT_DATAPLANE_AGENT_HINTS_H_
#define WEFT_DATAPLANE_AGENT_HINTS_H_

#include <optional>
#include <string>

#include "dataplane/agent/model.h"
#include "dataplane/route/target_set.h"

namespace weft::agent {

class Hints {
 public:
  // `node` is this node's name, `zone` where it is, empty where that is not known.
  Hints(const Model& model, const std::string& function, std::string node, std::string zone);

  bool count() const { return by_node_ || by_zone_; }
  // How far a ready endpoint on another node is by its hints; nothing where they do not say.
  std::optional<Distance> DistanceOf(const api::Endpoint& endpoint) const;
  // Which hints count, or why none does, for explain; empty where no endpoint has any.
  std::string Note() const;

 private:
  const std::string node_;
  const std::string zone_;
  bool some_ = false;          // A ready endpoint has hints.
  bool all_ = false;           // All have, of one kind or the other.
  bool any_locality_ = false;  // Shares are of all calls, wherever the endpoint is.
  bool by_node_ = false;
  bool by_zone_ = false;
};

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_HINTS_H_
