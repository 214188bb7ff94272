// SPDX-License-Identifier: Apache-2.0
// Channels that outlived the agent: hosts come back and say what they hold, and what both ends hold goes on.
#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "dataplane/agent/engine.h"
#include "dataplane/channel/layout.h"

namespace weft::agent {

// Takes over, or refuses, what a re-attaching host holds.
void Engine::AdoptChannels(Session& session, const api::Hello& hello, uint64_t now_ns,
                           api::Welcome* welcome) {
  for (const api::HeldChannel& held : hello.channels()) {
    if (now_ns >= settle_until_ns_ || state_.channels.contains(held.id())) continue;
    // An engine inside a host begins anew with each agent.
    if (absl::StartsWith(held.peer(), kEnginePrefix) && absl::StrContains(held.peer(), '/')) continue;
    if (welcome->keep_channels_size() >= kKeepChannelsMax) break;
    const auto other = state_.provisional.find(held.id());
    if (other == state_.provisional.end()) {
      const Session* peer = state_.FindHost(held.peer());
      // It has come back and does not hold this channel. What a client had for a name may be another's now.
      if (peer != nullptr && !peer->is_client) continue;
      state_.provisional[held.id()] = {session.id, held};
      welcome->add_keep_channels(held.id());
      continue;
    }
    const Provisional mine{session.id, held};
    const Session& peer = *state_.Find(other->second.session);
    // A client's name is new with each agent; a host's must be the one that its peer knows.
    const bool names_match = (peer.is_client || held.peer() == peer.host) &&
                             (session.is_client || other->second.held.peer() == session.host);
    if (peer.id == session.id || !names_match || session.channels.contains(peer.id)) continue;
    const Provisional theirs = other->second;
    state_.provisional.erase(other);
    if (const absl::Status adopted = AdoptChannel(theirs, mine); adopted.ok()) {
      welcome->add_keep_channels(held.id());
    } else {
      CloseAtHolder(theirs, adopted.message());
    }
  }
  if (session.is_client) return;
  std::erase_if(state_.provisional, [&](const auto& entry) {
    const Provisional& theirs = entry.second;
    if (theirs.session == session.id || theirs.held.peer() != session.host) return false;
    CloseAtHolder(theirs, absl::StrCat("host ", session.host, " has not come back with it"));
    return true;
  });
}

// Both ends of a channel have come back with it. The tables that the hosts enforce are taken as the former
// agent's: each protects its teller only. It has the size that it was made with, whatever the settings say
// today; both ends have to name the same, since one alone could make itself small.
absl::Status Engine::AdoptChannel(const Provisional& first, const Provisional& second) {
  Session& a = *state_.Find(first.session);
  Session& b = *state_.Find(second.session);
  Channel channel;
  channel.id = first.held.id();
  channel.arena_bytes = first.held.arena_bytes();
  if (channel.arena_bytes != second.held.arena_bytes()) {
    return absl::InvalidArgumentError("its two ends name different sizes");
  }
  // Hosts from before they told it.
  if (channel.arena_bytes == 0) {
    channel.arena_bytes = std::min(a.tenant->limits.arena_bytes, b.tenant->limits.arena_bytes);
  }
  if (!ValidArenaBytes(channel.arena_bytes))
    return absl::InvalidArgumentError("its size is none that it can have");
  const uint64_t side_bytes = SideMemoryBytes(channel.arena_bytes);
  const auto over = [] { return absl::ResourceExhaustedError("a limit of channels or bytes is reached"); };
  if (!Charge(a.tenant, side_bytes)) return over();
  if (!Charge(b.tenant, side_bytes)) {
    --state_.usage[a.tenant].channels;
    state_.usage[a.tenant].bytes -= side_bytes;
    return over();
  }
  channel.open = true;
  const Provisional* sources[2] = {&first, &second};
  for (int end = 0; end < 2; ++end) {
    ChannelEnd& target = channel.ends[end];
    target.session = sources[end]->session;
    target.memory = true;
    target.charged_bytes = side_bytes;
    target.tell = true;
    target.index_max = std::min(sources[end]->held.index_max(), kCallerIndexMax);
    for (const api::ChannelAccess::Caller& caller : sources[end]->held.callers()) {
      if (caller.index() == 0 || caller.index() > kCallerIndexMax) continue;
      target.index_max = std::max(target.index_max, caller.index());
      AccessEntry& entry = target.access[caller.index()];
      entry.caller = caller.name();
      entry.inherited = true;
      entry.callee_ids.insert(caller.callee_ids().begin(), caller.callee_ids().end());
    }
  }
  a.channels[b.id] = b.channels[a.id] = channel.id;
  state_.channels.emplace(channel.id, std::move(channel));
  return absl::OkStatus();
}

// Ends a channel that only one host claims.
void Engine::CloseAtHolder(const Provisional& provisional, absl::string_view reason) {
  Session* session = state_.Find(provisional.session);
  if (session == nullptr) return;
  api::ChannelClose& close = *Send(*session).mutable_channel_close();
  close.set_id(provisional.held.id());
  close.set_code(static_cast<uint32_t>(absl::StatusCode::kUnavailable));
  close.set_reason(std::string(reason));
}

// The time for hosts to come back is over: what only one end holds is closed.
void Engine::EndSettling(uint64_t now_ns) {
  provisional_done_ = true;
  for (const auto& [id, provisional] : std::exchange(state_.provisional, {})) {
    CloseAtHolder(provisional, absl::StrCat("host ", provisional.held.peer(),
                                            " did not come back after the agent's restart"));
  }
  Touch();
}

}  // namespace weft::agent
