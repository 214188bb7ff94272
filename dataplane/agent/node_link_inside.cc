// SPDX-License-Identifier: Apache-2.0
// NodeLink: workers inside hosts. The registry asks for them, on its own thread; what they answer, and their
// ends, are the key thread's.
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bpf/abi/packet.h"
#include "bpf/abi/steer.h"
#include "dataplane/agent/node_link.h"
#include "dataplane/agent/refusal.h"
#include "dataplane/base/status.h"
#include "dataplane/identity/messages.h"
#include "dataplane/port/udp_socket.h"

namespace weft::agent {
namespace {

// Each engine of a node has indices of its own for its key ids: weftd's are those of the XDP program's key
// table, the hosts', whose packets it leaves to the kernel, 256 each behind them.
constexpr uint32_t kInsideIndices = 256;
constexpr uint32_t kNodeIndices = WEFT_STEER_KEYS;
constexpr auto kIndexBits =
    static_cast<uint32_t>(std::bit_width(kNodeIndices + NodeLink::kInsideMax * kInsideIndices - 1));

absl::StatusOr<UniqueFd> BindInside(identity::Endpoint endpoint, uint16_t port) {
  endpoint.port = port;
  UniqueFd fd(socket(endpoint.ipv6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const std::string what = absl::StrCat("bind UDP ", endpoint.ToString());
  if (!fd.valid()) return absl::ErrnoToStatus(errno, what);
  sockaddr_storage address{};
  const socklen_t bytes = endpoint.ToSockaddr(&address);
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), bytes) != 0)
    return absl::ErrnoToStatus(errno, what);
  return fd;
}

}  // namespace

void NodeLink::SetKeyIndices(uint16_t worker, uint16_t workers, transport::Config* transport) {
  transport->key_index_bits = kIndexBits;
  transport->key_indices = kNodeIndices / workers;
  transport->key_index_first = worker * transport->key_indices;
}

std::string NodeLink::AnswerKey(const std::string& peer, uint64_t session, uint32_t epoch) {
  return absl::StrCat(peer, " ", session, " ", epoch);
}

// A host may attach and leave in a loop. Of the ids, which are not given twice, no tenant has more than it
// leaves to the others. Asked last: what fails for another reason is not one that it has been given.
absl::Status NodeLink::CheckInsideTenant(InsideTenant* tenant) const {
  if (tenant->ids >= UINT16_MAX - last_worker_) {
    return absl::ResourceExhaustedError(absl::StrCat(tenant->ids,
                                                     " engines were inside hosts of its tenant, of ",
                                                     UINT16_MAX, " in all since weftd's start: restart it"));
  }
  if (tenant->given.Allow(NowNs())) return absl::OkStatus();
  return absl::ResourceExhaustedError("hosts of its tenant ask for one too often: more than once a second");
}

// One whose port is free, with a socket there. Ports that hosts of the tenant keep from engines that have
// gone count against it: it has no more of them than it leaves to the others.
absl::StatusOr<uint16_t> NodeLink::FindSlot(const std::string& tenant, const identity::Endpoint& listen,
                                            UniqueFd* socket) {
  // The key exchange takes so many workers of a node.
  const auto inside_max =
      std::min<uint16_t>(kInsideMax, static_cast<uint16_t>(identity::kWorkersMax - workers_));
  absl::Status last = absl::ResourceExhaustedError(absl::StrCat(inside_max, " hosts have one already"));
  uint16_t found = 0;
  int free = 0;
  int kept = 0;
  for (uint16_t slot = 1; slot <= inside_max && listen.port + slot <= UINT16_MAX; ++slot) {
    if (std::any_of(inside_slots_.begin(), inside_slots_.end(),
                    [slot](const auto& entry) { return entry.second.slot == slot; }))
      continue;
    absl::StatusOr<UniqueFd> bound = BindInside(listen, static_cast<uint16_t>(listen.port + slot));
    const auto left = left_slots_.find(slot);
    if (!bound.ok()) {
      last = bound.status();
      kept += left != left_slots_.end() && left->second == tenant ? 1 : 0;
      continue;
    }
    if (left != left_slots_.end()) left_slots_.erase(left);
    if (free++ > 0) continue;
    found = slot;
    *socket = *std::move(bound);
  }
  if (found == 0) return last;
  if (kept < free) return found;
  return absl::ResourceExhaustedError(
      absl::StrCat("hosts of its tenant keep ", kept, " ports of engines that have gone"));
}

absl::StatusOr<NodeLink::Inside> NodeLink::AddInside(const std::string& host, const std::string& tenant,
                                                     bool raw_packets) {
  WEFT_ASSIGN_OR_RETURN(const identity::Endpoint listen, identity::Endpoint::Parse(config_.listen));
  InsideTenant& of_tenant = inside_tenants_[tenant];
  Inside inside;
  WEFT_ASSIGN_OR_RETURN(const uint16_t slot, FindSlot(tenant, listen, &inside.socket));
  WEFT_RETURN_IF_ERROR(CheckInsideTenant(&of_tenant));
  if (absl::StatusOr<UniqueFd> twin = port::TwinOf(inside.socket.get()); twin.ok())
    inside.twin = *std::move(twin);
  inside.worker = ++last_worker_;
  ++of_tenant.ids;
  inside_slots_[inside.worker] = {slot, tenant};
  const uint32_t first = kNodeIndices + (slot - 1u) * kInsideIndices;
  inside.given.set_key_index_bits(kIndexBits);
  inside.given.set_key_index_first(first);
  inside.given.set_key_indices(kInsideIndices);
  inside.given.set_key_generation(RandomKeyGeneration());
  inside.given.set_datagram_bytes_max(DatagramBytesMax(config_, !listen.ipv6));
  identity::Worker worker;
  worker.id = inside.worker;
  worker.hint = raw_packets && alone_ ? WEFT_WORKER_HINT_ALONE : 0;
  worker.address = listen;
  worker.address.port = static_cast<uint16_t>(listen.port + slot);
  worker.datagram_bytes_max = inside.given.datagram_bytes_max();
  worker.host = host;
  ToKeys([this, worker, first, slot, raw_packets] {
    if (raw_packets) AddInsideXdp(worker.id, worker.host, slot);
    inside_[worker.id].host = worker.host;
    inside_[worker.id].key_first = first;
    for (const auto& [peer, session] : sessions_) {
      path_bytes_[peer] = 0;
      for (const identity::Worker& remote : session.workers)
        TellLanes(session, remote, api::PeerKeys::BEGIN, worker.id);
    }
    const absl::Status added = keys_->AddWorker(worker);
    if (!added.ok()) EndInside(worker.id, added);
  });
  return inside;
}

void NodeLink::RemoveInside(uint16_t worker) {
  if (const auto had = inside_slots_.find(worker); had != inside_slots_.end()) {
    left_slots_[had->second.slot] = std::move(had->second.tenant);
    inside_slots_.erase(had);
  }
  ToKeys([this, worker] {
    RemoveInsideXdp(worker);
    if (inside_.erase(worker) != 0) keys_->RemoveWorker(worker);
  });
}

void NodeLink::TakeInsideKeyId(uint16_t worker, const api::PeerKeyId& answer) {
  ToKeys([this, worker, answer] { TakeKeyId(worker, answer); });
}

// A host can only give ids out of its own part of the table, and only for keys that it was asked for.
void NodeLink::TakeKeyId(uint16_t worker, const api::PeerKeyId& answer) {
  const auto found = inside_.find(worker);
  if (found == inside_.end()) return;
  InsideWorker& inside = found->second;
  const std::string key = AnswerKey(answer.peer(), answer.session(), answer.epoch());
  const auto asked = inside.unanswered.find(key);
  const uint32_t index = answer.key_id() & ((1u << kIndexBits) - 1);
  const bool foreign = index < inside.key_first || index >= inside.key_first + kInsideIndices;
  // An id that it named for another key, which may still be in use there.
  const auto named = inside.given_ids.find(answer.key_id());
  const bool unasked = asked == inside.unanswered.end();
  const bool twice = !unasked && named != inside.given_ids.end() && !(named->second == asked->second);
  if (answer.key_id() != 0 && (unasked || foreign || twice)) {
    return EndInside(worker, Refuse(Refusal::kForeignKey,
                                    absl::StrCat("the engine inside host ", inside.host, " named key id ",
                                                 answer.key_id(), ", which is not its to give")));
  }
  if (unasked) return;
  const identity::LaneKey lane = asked->second;
  inside.unanswered.erase(asked);
  while (!inside.asked.empty() && !inside.unanswered.contains(inside.asked.front().second))
    inside.asked.pop_front();
  if (!Stands(lane)) return;  // The answer and the end of the lane crossed.
  // It has no room for that peer, or its end is under way: a lane without its key would hold up all others.
  if (answer.key_id() == 0) return keys_->DeclineLane(lane);
  inside.given_ids[answer.key_id()] = lane;
  keys_->SetReceiveKeyId(lane, answer.key_id());
}

// Each key has its own time: one that is owed holds up those of all others, whatever else its host answers.
void NodeLink::EndSilentInside(uint64_t now_ns) {
  std::vector<uint16_t> silent;
  for (const auto& [worker, inside] : inside_) {
    if (!inside.asked.empty() && now_ns >= inside.asked.front().first + kInsideAnswerNs)
      silent.push_back(worker);
  }
  for (const uint16_t worker : silent) {
    EndInside(worker, Refuse(Refusal::kSilent, absl::StrCat("the engine inside host ", inside_[worker].host,
                                                            " does not take its keys")));
  }
}

void NodeLink::EndInside(uint16_t worker, const absl::Status& why) {
  inside_.erase(worker);
  keys_->RemoveWorker(worker);
  door_->Post({worker, {}, why});
}

}  // namespace weft::agent
