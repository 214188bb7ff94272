// SPDX-License-Identifier: Apache-2.0
// What the registry answers to `weftctl status` and `get nodes`: itself, and beside it what the link to other
// nodes knows and its engines count.
#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "dataplane/agent/server.h"
#include "dataplane/agent/views.h"

namespace weft::agent {
namespace {

// What a status tells of the node engine: how much goes between nodes, and what was not taken, by reason.
bool TellsOfNodes(absl::string_view counter, uint64_t value) {
  if (absl::StartsWith(counter, "drop_") || absl::StartsWith(counter, "engine_refused_")) return value != 0;
  return absl::StartsWith(counter, "datagrams_") || counter == "packets_lost" || counter == "peer_deaths";
}

// Why the link cannot have keys with a node of that address, or "" where it can.
std::string ProblemOf(const std::string& address) {
  if (address.empty()) return "no source says its address";
  const absl::StatusOr<identity::Endpoint> endpoint = identity::Endpoint::Parse(address);
  return endpoint.ok() ? "" : absl::StrCat("its address ", endpoint.status().message());
}

// Why calls do not go to a peer, or only in small packets, or "": as docs/identity.md names it where it is
// one of its refusals.
std::string ProblemOf(const identity::PeerReport& peer, bool reachable, const std::string& packets) {
  if (!peer.connected) {
    if (peer.last_refusal == identity::Refusal::kNone) return peer.last_problem;
    return absl::StrCat(identity::ToString(peer.last_refusal), peer.last_problem.empty() ? "" : ": ",
                        peer.last_problem);
  }
  if (peer.session == 0) return "";
  if (!packets.empty()) return packets;
  return reachable ? "" : "its keys stand, but its UDP packets are not answered";
}

}  // namespace

// The agent's view of nodes, and beside it what the link to them knows.
std::vector<api::Item> Server::NodeItems() const {
  std::vector<api::Item> items = agent::NodeItems(*engine_);
  NodeLink::State link;
  if (node_link_ != nullptr) link = node_link_->Look();
  std::map<std::string, identity::PeerReport> peers;
  for (identity::PeerReport& peer : link.peers) {
    const std::string name = peer.name;
    peers[name] = std::move(peer);
  }
  const auto& nodes = engine_->model().nodes();
  for (api::Item& item : items) {
    const std::string& name = item.fields(0).text();
    const auto peer = peers.find(name);
    std::string keys, problem;
    if (peer != peers.end()) {
      keys = peer->second.session == 0 ? "none" : absl::StrCat("epoch ", peer->second.epoch);
      problem = ProblemOf(peer->second, engine_->state().nodes_up.contains(name), link.packet_problems[name]);
    } else if (const auto node = nodes.find(name); node_link_ != nullptr && name != engine_->node()) {
      problem = ProblemOf(node == nodes.end() ? "" : node->second.address());
    }
    AddText(&item, "keys", keys);
    AddText(&item, "problem", problem);
  }
  return items;
}

// "af_xdp weft0 queue 1, 10.77.0.1:4810; hosts 2; datagrams_in 5, datagrams_out 7": the port, how many hosts'
// calls leave there, and what went.
std::string Server::TextOfWorker(const NodeLink::WorkerState& state, uint16_t worker,
                                 const StatsByHost& stats) const {
  const auto& sessions = engine_->state().sessions;
  const auto hosts = std::count_if(sessions.begin(), sessions.end(), [worker](const auto& entry) {
    return !entry.second.is_engine && !entry.second.is_client && entry.second.worker == worker;
  });
  std::string text = absl::StrCat(state.port.port, " ", state.port.detail, "; hosts ", hosts);
  if (state.port.fell_back && !state.port.choices.empty())
    absl::StrAppend(&text, "; fell back: ", state.port.choices.front().why);
  const auto engine = engine_->state().engines.find(worker);
  if (engine == engine_->state().engines.end()) return absl::StrCat(text, "; not attached");
  if (const auto found = stats.find(engine->second); found != stats.end()) {
    std::vector<std::string> counters;
    for (const api::Counter& counter : found->second.host()) {
      if (TellsOfNodes(counter.name(), counter.value()))
        counters.push_back(absl::StrCat(counter.name(), " ", counter.value()));
    }
    absl::StrAppend(&text, "; ", absl::StrJoin(counters, ", "));
  }
  if (state.passed + state.lost != 0)
    absl::StrAppend(&text, "; passed to other workers ", state.passed, ", lost for want of room ",
                    state.lost);
  return text;
}

// The link to other nodes: what carries packets, what can be reached, how the keys do.
void Server::AddLink(const StatsByHost& stats, api::Item* item) const {
  const std::vector<NodeLink::WorkerState> workers = node_link_->LookAtWorkers();
  const port::PortStatus& port = workers.front().port;
  AddText(item, "packet_port", absl::StrCat(port.port, " ", port.detail));
  std::vector<std::string> choices;
  for (const port::PortChoice& choice : port.choices) {
    choices.push_back(absl::StrCat(choice.feature, ": ", choice.chosen,
                                   choice.why.empty() ? "" : absl::StrCat(" (", choice.why, ")")));
  }
  AddText(item, "packet_port_why", absl::StrJoin(choices, "; "));
  AddNumber(item, "workers", workers.size());
  for (std::size_t i = 0; workers.size() > 1 && i < workers.size(); ++i)
    AddText(item, absl::StrCat("worker_", i), TextOfWorker(workers[i], static_cast<uint16_t>(i), stats));
  const std::set<std::string>& up = engine_->state().nodes_up;
  AddNumber(item, "nodes_reachable",
            static_cast<uint64_t>(std::count_if(up.begin(), up.end(), [](const std::string& name) {
              return !absl::StrContains(name, '/');
            })));
  AddNumber(item, "engines_inside", inside_sessions_.size());
  if (!inside_sessions_.empty()) {
    // They are counted where they leave: one more may stand there for a moment.
    const std::size_t by_af_xdp = std::min(node_link_->inside_by_af_xdp(), inside_sessions_.size());
    AddText(item, "engines_inside_port",
            by_af_xdp == 0
                ? "udp (AF_XDP is for tenants with `raw_packets`, on a queue of its own each)"
                : absl::StrCat("af_xdp of ", by_af_xdp, ", udp of ", inside_sessions_.size() - by_af_xdp));
  }
  const NodeLink::State link = node_link_->Look();
  if (!link.identity.empty()) {  // Else it has not begun yet.
    AddText(item, "identity", link.identity);
    AddText(item, "certificate_until",
            absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", absl::FromUnixSeconds(link.certificate_until_unix_s),
                             absl::UTCTimeZone()));
  }
  if (!link.certificate_problem.empty()) AddText(item, "certificate_problem", link.certificate_problem);
  const identity::KeyExchangeCounters& keys = link.keys;
  AddNumber(item, "tls_sessions", keys.sessions);
  for (std::size_t i = 1; i < identity::kRefusals; ++i) {
    if (keys.refused[i] == 0) continue;
    AddNumber(item, absl::StrCat("tls_refused_", identity::ToString(static_cast<identity::Refusal>(i))),
              keys.refused[i]);
  }
}

// What the node's engines count, all workers together, in the order in which the first tells it.
void Server::AddSums(const StatsByHost& stats, api::Item* item) const {
  std::vector<std::pair<std::string, uint64_t>> sums;
  for (const auto& [worker, session] : engine_->state().engines) {
    const auto engine = stats.find(session);
    if (engine == stats.end()) continue;
    for (const api::Counter& counter : engine->second.host()) {
      const auto known = std::find_if(sums.begin(), sums.end(),
                                      [&](const auto& sum) { return sum.first == counter.name(); });
      if (known == sums.end()) {
        sums.emplace_back(counter.name(), counter.value());
      } else {
        known->second += counter.value();
      }
    }
  }
  for (const auto& [name, value] : sums) {
    if (TellsOfNodes(name, value)) AddNumber(item, name, value);
  }
}

std::vector<api::Item> Server::StatusItems(const StatsByHost& stats) const {
  uint64_t hosts = 0;
  for (const auto& [id, session] : engine_->state().sessions) hosts += session.is_client ? 0 : 1;
  std::vector<api::Item> items(1);
  api::Item& item = items[0];
  AddText(&item, "node", engine_->node());
  AddText(&item, "version", WEFT_VERSION);
  AddNumber(&item, "generation", engine_->acknowledged_generation());
  AddNumber(&item, "generation_held", engine_->model().generation());
  AddNumber(&item, "uptime_s", (NowNs() - started_ns_) / kNsPerSecond);
  AddNumber(&item, "hosts", hosts);
  AddNumber(&item, "clients", engine_->state().sessions.size() - hosts);
  AddNumber(&item, "connections", connections_.size());
  AddNumber(&item, "channels", engine_->state().channels.size());
  AddNumber(&item, "rounds", engine_->rounds());
  if (const absl::Status state = store_->last_error(); !state.ok())
    AddText(&item, "state_problem", std::string(state.message()));
  if (node_link_ != nullptr) AddLink(stats, &item);
  AddSums(stats, &item);
  if (engine_->foreign_functions() != 0)
    AddNumber(&item, "refused_foreign_function", engine_->foreign_functions());
  AddNumber(&item, "fds_closing", reaper_.waiting());
  for (std::size_t i = 0; i < kRefusals; ++i) {
    const auto refusal = static_cast<Refusal>(i);
    const uint64_t count =
        refusals_.count(refusal) + (refusal == Refusal::kForgedCaller ? engine_->forged_callers() : 0);
    if (count != 0) AddNumber(&item, absl::StrCat("refused_", RefusalName(refusal)), count);
  }
  return items;
}

}  // namespace weft::agent
