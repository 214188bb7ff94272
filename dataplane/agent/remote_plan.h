// SPDX-License-Identifier: Apache-2.0
// The endpoints of one function on other nodes, as far as they can be called: which engine of this node leads
// to which engine of theirs. Part of PlanFunction() and PlanCall(), on the registry's thread.
#ifndef WEFT_DATAPLANE_AGENT_REMOTE_PLAN_H_
#define WEFT_DATAPLANE_AGENT_REMOTE_PLAN_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/agent/engine_state.h"
#include "dataplane/agent/hints.h"
#include "dataplane/agent/model.h"
#include "dataplane/agent/plan.h"

namespace weft::agent {

class RemotePlan {
 public:
  // For calls by the engine inside `host`, where there is one, or else by this node's. `self` is this node's
  // name. Borrows `model` and `state`.
  RemotePlan(const Model& model, const EngineState& state, const std::string& self,
             const std::string& function, const Session* host);

  // Whether it is to get no more calls while there are others.
  bool Drains(const EndpointKey& key, const api::Endpoint& endpoint) const {
    return endpoint.state() == api::ENDPOINT_DRAINING || state_.DrainsElsewhere(key.node, key.host);
  }
  bool Gone(const EndpointKey& key) const { return state_.GoneElsewhere(key.node, key.host); }
  // False: it cannot be called now.
  bool Add(const EndpointKey& key, const api::Endpoint& endpoint);
  // Draining ones serve where no other is left, here or elsewhere.
  void Choose(FunctionPlan* plan) const;
  const Hints& hints() const { return hints_; }

 private:
  // What calls to one end are for: those of its endpoints that are nearest. The others stand back.
  struct Share {
    Distance distance = kElsewhere;
    bool hinted = false;
    uint32_t weight = 0;
  };
  using Shares = std::map<std::pair<SessionId, std::string>, Share>;
  struct Way {
    SessionId engine;
    const std::set<std::string>* up;
  };

  void AddTo(Share* share, bool fresh, const EndpointKey& key, const api::Endpoint& endpoint) const;
  static std::vector<PlanTarget> Targets(const Shares& ends);

  const Model& model_;
  const EngineState& state_;
  const std::string zone_;
  const Hints hints_;
  std::vector<Way> ways_;  // The preferred first.
  Shares ready_;
  Shares draining_;
  std::set<std::pair<std::string, std::string>> drained_;  // Of draining_, those that their nodes drain.
};

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_REMOTE_PLAN_H_
