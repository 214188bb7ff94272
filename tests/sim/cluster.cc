// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/cluster.h"

#include <algorithm>
#include <cstring>

#include "bpf/abi/packet.h"
#include "dataplane/base/check.h"
#include "dataplane/transport/pump.h"

namespace weft::sim {
namespace {
// Rounds of the loop that a node may need for what is there at one moment.
constexpr int kRoundsMax = 10'000;
}  // namespace

Cluster::Cluster(const ClusterOptions& options, OnEvent on_event)
    : options_(options),
      on_event_(std::move(on_event)),
      random_(options.seed),
      network_(options.nodes, options.link, options.seed * 2 + 1,
               [this](uint32_t node, const std::vector<uint8_t>& datagram) {
                 if (alive(node)) Arrive(node, datagram);
               }),
      nodes_(options.nodes) {
  for (uint32_t node = 0; node < options.nodes; ++node) Start(node);
  for (uint32_t a = 0; a < options.nodes; ++a) {
    for (uint32_t b = a + 1; b < options.nodes; ++b) {
      if (!options_.joined || options_.joined(a, b)) Connect(a, b, 0);
    }
  }
  network_.RunUntil(now_ns() + 1000);
}

Cluster::~Cluster() = default;

void Cluster::Violation(const std::string& what) {
  if (!broken_) violation_ = "at " + std::to_string(now_ns()) + " ns: " + what;
  broken_ = true;
}

void Cluster::Start(uint32_t node) {
  Node& n = nodes_[node];
  transport::Config config = options_.core;
  // As a real node does: at random at each start.
  config.key_generation_first = static_cast<uint32_t>(random_.Next());
  auto core = transport::Core::Create(config);
  WEFT_CHECK(core.ok());
  n.core = std::move(*core);
  n.port = std::make_unique<port::MemoryPort>(64, 2048);
  n.core->SetTenantLimit(kCallers, options_.tenant_bytes);
  n.core->SetTenantLimit(kCallees, options_.tenant_bytes);
  WEFT_CHECK(n.core->SetFunction(kFunction, kCallees).ok());
  n.peers.assign(options_.nodes, {});
  for (uint32_t other = 0; other < options_.nodes; ++other) {
    if (other == node || (options_.joined && !options_.joined(node, other))) continue;
    n.peers[other] = *n.core->AddPeer(other);
  }
  n.wake_ns = ~uint64_t{0};
  n.taken.clear();
  ++n.incarnation;
}

void Cluster::Crash(uint32_t node) {
  nodes_[node].core.reset();
  for (uint32_t other = 0; other < options_.nodes; ++other) {
    if (other != node) PairOf(node, other).up = false;
  }
}

void Cluster::Restart(uint32_t node) {
  Start(node);
  for (uint32_t other = 0; other < options_.nodes; ++other) {
    if (other != node && alive(other)) Connect(node, other, 2'000'000);
  }
}

transport::SealSecret Cluster::NewSecret() {
  transport::SealSecret secret;
  for (auto& byte : secret.key) byte = static_cast<uint8_t>(random_.Next());
  for (auto& byte : secret.iv) byte = static_cast<uint8_t>(random_.Next());
  return secret;
}

// A key exchange: both ends learn of the new session and choose key ids at times of their own, then of each
// other's ids.
void Cluster::Connect(uint32_t a, uint32_t b, uint64_t delay_ns_max) {
  Pair& pair = PairOf(a, b);
  pair.session = next_session_++;
  pair.epoch = 0;
  pair.up = false;
  const uint64_t session = pair.session;
  for (const auto& [node, other] : {std::pair{a, b}, std::pair{b, a}}) {
    At(now_ns() + random_.Below(delay_ns_max / 2 + 1), [this, node, other, session] {
      if (alive(node) && PairOf(node, other).session == session) {
        nodes_[node].core->BeginSession(PeerOf(node, other), session, now_ns());
        Step(node);
      }
    });
  }
  At(now_ns() + delay_ns_max / 2 + 1, [this, a, b, session, delay_ns_max] {
    if (!alive(a) || !alive(b) || PairOf(a, b).session != session) return;
    PairOf(a, b).up = true;
    InstallKeys(a, b, delay_ns_max / 2);
  });
}

void Cluster::Rotate(uint32_t a, uint32_t b) {
  Pair& pair = PairOf(a, b);
  if (!pair.up || !alive(a) || !alive(b)) return;
  ++pair.epoch;
  ++rotations_;
  InstallKeys(a, b, 200'000);
}

uint32_t Cluster::ReceiveKey(uint32_t node, uint32_t from, uint8_t epoch,
                             const transport::SealSecret& secret) {
  const uint32_t id = nodes_[node].core->InstallReceiveKey(PeerOf(node, from), epoch, secret);
  if (id == 0) Violation("no room for a receive key");
  if (!key_ids_.insert({node, id}).second) {
    Violation("node " + std::to_string(node) + " chose key id " + std::to_string(id) + " twice");
  }
  return id;
}

void Cluster::InstallKeys(uint32_t a, uint32_t b, uint64_t delay_ns_max) {
  const Pair pair = PairOf(a, b);
  for (const auto& [from, to] : {std::pair{a, b}, std::pair{b, a}}) {
    const transport::SealSecret secret = NewSecret();
    const uint32_t id = ReceiveKey(to, from, pair.epoch, secret);
    At(now_ns() + random_.Below(delay_ns_max + 1), [this, from, to, id, secret, pair] {
      const Pair& now = PairOf(from, to);
      if (!alive(from) || now.session != pair.session || now.epoch != pair.epoch) return;
      nodes_[from].core->InstallSendKey(PeerOf(from, to), pair.epoch, id, 0, secret);
      Step(from);
    });
  }
}

// Nothing is sealed twice under one key and counter; the digest makes a run comparable.
void Cluster::Tap(uint32_t from, uint32_t to, const uint8_t* datagram, uint32_t bytes) {
  weft_packet_header header;
  std::memcpy(&header, datagram, sizeof(header));
  const uint64_t key = uint64_t{to} << 32 | __builtin_bswap32(header.key_id);
  const uint64_t counter = __builtin_bswap64(header.counter);
  uint64_t& next = last_counter_[key];
  if (counter < next) Violation("key and counter reused by node " + std::to_string(from));
  next = counter + 1;
  digest_ = (digest_ ^ counter ^ now_ns() ^ bytes << 20 ^ datagram[bytes - 1]) * 0x100000001b3;
}

// A datagram comes out of the wire. No copy of one that the node has taken is taken again.
void Cluster::Arrive(uint32_t node, const std::vector<uint8_t>& datagram) {
  Node& n = nodes_[node];
  const auto dropped = [&n] {
    uint64_t sum = 0;
    for (const uint64_t drops : n.core->counters().drops) sum += drops;
    // A request that finds no room is counted as well, though its datagram was taken.
    return sum - n.core->counters().drops[WEFT_DROP_NO_ROOM];
  };
  const uint64_t before = options_.check_replays ? dropped() : 0;
  n.port->Deliver(datagram.data(), datagram.size());
  Step(node);
  if (!options_.check_replays || datagram.size() < WEFT_PACKET_BYTES_MIN || dropped() != before) return;
  weft_packet_header header;
  std::memcpy(&header, datagram.data(), sizeof(header));
  if (!n.taken.insert({header.key_id, header.counter}).second) Violation("a datagram was taken twice");
}

void Cluster::CheckNode(uint32_t node) {
  const transport::Core& core = *nodes_[node].core;
  for (const auto tenant : {kCallers, kCallees}) {
    if (core.UseOf(tenant).used_bytes > options_.tenant_bytes)
      Violation("a tenant holds more than its limit");
  }
  if (core.memory_used_bytes() != core.UseOf(kCallers).used_bytes + core.UseOf(kCallees).used_bytes) {
    Violation("memory that no tenant is charged for");
  }
  // Short messages find room of one bandwidth-delay product beside the long ones.
  if (core.granted_bytes() > std::max(core.config().granted_bytes_max + core.config().bandwidth_delay_bytes,
                                      core.config().grant_quantum_segments * core.segment_bytes())) {
    Violation("more granted than the bound");
  }
}

void Cluster::Step(uint32_t node) {
  Node& n = nodes_[node];
  if (n.stepping || !alive(node)) return;
  n.stepping = true;
  for (int round = 0;; ++round) {
    if (round == kRoundsMax) Violation("node " + std::to_string(node) + " does not come to rest");
    if (broken_) break;
    const std::size_t moved = transport::Turn(*n.core, *n.port, now_ns(), [this, node, &n] {
      transport::Event event;
      int taken = 0;
      for (; n.core->NextEvent(&event); ++taken) on_event_(node, event);
      return taken;
    });
    for (const auto* sent = n.port->Sent(); sent != nullptr; sent = n.port->Sent()) {
      Tap(node, static_cast<uint32_t>(sent->path), sent->data, sent->bytes);
      network_.Send(node, static_cast<uint32_t>(sent->path), sent->data, sent->bytes);
      n.port->PopSent();
    }
    if (moved == 0) break;
  }
  CheckNode(node);
  n.stepping = false;
  const uint64_t next = n.core->NextTimerNs(now_ns());
  if (next == ~uint64_t{0} || next >= n.wake_ns) return;
  n.wake_ns = std::max(next, now_ns() + 1);
  At(n.wake_ns, [this, node, wake = n.wake_ns, incarnation = n.incarnation] {
    Node& woken = nodes_[node];
    if (!alive(node) || woken.incarnation != incarnation || woken.wake_ns != wake) return;
    woken.wake_ns = ~uint64_t{0};
    Step(node);
  });
}

}  // namespace weft::sim
