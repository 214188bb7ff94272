// SPDX-License-Identifier: Apache-2.0
// Carrying out what the engine decides: what goes to hosts, with which descriptors, and what becomes of those
// that do not read it.
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dataplane/agent/refusal.h"
#include "dataplane/agent/server.h"
#include "dataplane/channel/doorbell.h"
#include "spdlog/spdlog.h"

namespace weft::agent {

void Server::CarryOut(Output output) {
  switch (output.kind) {
    case Output::Kind::kSend:
      return SendToHost(std::move(output));
    case Output::Kind::kCutOff: {
      refusals_.Count(Refusal::kSilent);
      return Close(output.to, output.reason);
    }
    case Output::Kind::kChannelGone: {
      const auto parts = parts_.find(output.channel);
      if (parts == parts_.end()) return;
      // Memories were checked and doorbells not handed out: closing them cannot block.
      parts_.erase(parts);
      return;
    }
    case Output::Kind::kAcknowledged:
      return Acknowledge(output);
    case Output::Kind::kDrained:
      // One that has ended meanwhile was told of as it was closed.
      if (const Session* const session = engine_->state().Find(output.to); session != nullptr)
        TellDrained(output.to, session->host, true);
      return;
  }
}

void Server::SendToHost(Output output) {
  const auto found = connections_.find(output.to);
  if (found == connections_.end()) return;
  std::vector<UniqueFd> fds;
  if (output.attach == Output::Attach::kModule) {
    absl::StatusOr<UniqueFd> module = OpenModule(output.module);
    if (!module.ok()) {
      engine_->PlacementFailed(output.to, output.message.place().function().name(),
                               std::string(module.status().message()));
      return;
    }
    fds.push_back(*std::move(module));
  } else if (output.attach == Output::Attach::kChannelPeer) {
    Parts& parts = parts_[output.channel];
    if (!parts.doorbell[0].valid() && !parts.doorbell[1].valid()) {
      absl::StatusOr<DoorbellPair> pair = MakeDoorbellPair();
      if (!pair.ok()) {
        spdlog::error("make a doorbell: {}", pair.status().ToString());
        return Close(output.to, "the agent is out of descriptors");
      }
      parts.doorbell[0] = std::move(pair->first);
      parts.doorbell[1] = std::move(pair->second);
    }
    const auto end = static_cast<std::size_t>(output.end);
    fds.push_back(std::move(parts.memory[1 - end]));
    fds.push_back(std::move(parts.doorbell[end]));
    if (!parts.memory[0].valid() && !parts.memory[1].valid()) parts_.erase(output.channel);
  }
  SendTo(*found->second, output.message.SerializeAsString(), std::move(fds));
}

void Server::SendTo(Connection& connection, std::string bytes, std::vector<UniqueFd> fds) {
  const absl::Status sent = connection.Send(std::move(bytes), std::move(fds));
  if (!sent.ok()) {
    if (sent.code() == absl::StatusCode::kResourceExhausted) refusals_.Count(Refusal::kNeverReads);
    Close(connection.id, std::string(sent.message()));
    return;
  }
  if (connection.crowded_since_ns != 0) crowded_.insert(connection.id);
  UpdateInterest(connection);
}

// What they have read meanwhile was sent on by now.
void Server::CutOffCrowded(uint64_t now_ns) {
  for (const SessionId id : std::set<SessionId>(crowded_)) {
    const auto found = connections_.find(id);
    if (found != connections_.end() && found->second->crowded_since_ns != 0) {
      if (now_ns < found->second->crowded_since_ns + kCrowdedNs) continue;
      refusals_.Count(Refusal::kNeverReads);
      Close(id, std::string(found->second->NeverReads().message()));
    }
    crowded_.erase(id);
  }
}

}  // namespace weft::agent
