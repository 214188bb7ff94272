// SPDX-License-Identifier: Apache-2.0
// What weftctl shows of an agent: tables made from the engine's state. Pure.
#ifndef WEFT_DATAPLANE_AGENT_VIEWS_H_
#define WEFT_DATAPLANE_AGENT_VIEWS_H_

#include <map>
#include <set>
#include <string>
#include <vector>

#include "dataplane/agent/engine.h"
#include "dataplane/api/admin.pb.h"
#include "dataplane/api/host.pb.h"

namespace weft::agent {

using StatsByHost = std::map<SessionId, api::Stats>;
// What hosts told of their functions: by host, then by function. Who has answered is there, be it with none.
using FunctionStatsByHost = std::map<SessionId, std::map<std::string, api::FunctionStats>>;

std::vector<api::Item> NodeItems(const Engine& engine);
// Of `only`, or where that is empty of all; each with what this node's hosts told of it, summed up.
std::vector<api::Item> FunctionItems(const Engine& engine, const std::set<std::string>& only,
                                     const FunctionStatsByHost& stats);
// `uids` and counters by session; a host whose counters did not come in time says so.
std::vector<api::Item> HostItems(const Engine& engine, const StatsByHost& stats);
std::vector<api::Item> RouteItems(const Engine& engine);
// One row for each end of a channel.
std::vector<api::Item> ChannelItems(const Engine& engine, const StatsByHost& stats);

// Which path calls of `callee` by `caller` take and why, or why none: one row a target, or one row that says
// why there is none.
std::vector<api::Item> ExplainItems(const Engine& engine, const std::string& caller,
                                    const std::string& callee);

void AddText(api::Item* item, const std::string& name, const std::string& text);
void AddNumber(api::Item* item, const std::string& name, uint64_t number);

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_VIEWS_H_
