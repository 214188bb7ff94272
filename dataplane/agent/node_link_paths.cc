// SPDX-License-Identifier: Apache-2.0
// NodeLink: what the paths to peers carry, which may change while a session lives.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/agent/node_link.h"
#include "dataplane/port/address.h"
#include "dataplane/port/udp_socket.h"
#include "dataplane/transport/frame.h"
#include "spdlog/spdlog.h"

namespace weft::agent {

// The kernel follows its interfaces, routes and what routers say of a path. Where it has no say, as with a
// DPDK device of its own, nothing is known of the path but the device's MTU.
void NodeLink::LookAtPaths(uint64_t now_ns) {
  if (now_ns < paths_looked_ns_ + kPathsNs || config_.packet_port == AgentConfig::PacketPort::kDpdk) return;
  paths_looked_ns_ = now_ns;
  const absl::StatusOr<port::Address> local = port::Address::Parse(config_.listen);
  if (!local.ok()) return;
  for (const auto& [name, session] : sessions_) {
    if (session.workers.empty()) continue;
    const std::string to = session.workers[0].address.ToString();
    const absl::StatusOr<port::Address> remote = port::Address::Parse(to);
    if (!remote.ok()) continue;
    const absl::StatusOr<uint32_t> carries = port::DatagramBytesTo(*local, *remote);
    if (!carries.ok()) continue;  // No way there, now.
    const uint32_t usual = UsualBytes(session.workers[0]);
    const uint32_t bytes = std::min(*carries, usual);
    if (std::exchange(path_bytes_[name], bytes) == bytes) continue;
    for (const identity::Worker& worker : session.workers)
      TellLanes(session, worker, api::PeerKeys::PATH, -1, bytes);
    std::string problem;
    if (bytes < usual) {
      problem = absl::StrCat("the path from ", config_.listen, " to ", to, " carries datagrams of ", bytes,
                             " bytes, less than the ", usual, " in use");
      absl::StrAppend(&problem, bytes < transport::kDatagramBytesLeast
                                    ? ", too few for weft: long calls are lost"
                                    : ": longer calls go in smaller ones, a new session does not begin");
    }
    if (path_problems_[name] == problem) continue;
    problem.empty() ? spdlog::info("node {}: the path to {} carries what is in use again", name, to)
                    : spdlog::error("node {}: {}", name, problem);
    path_problems_[name] = problem;
    changed_ = true;
  }
}

}  // namespace weft::agent
