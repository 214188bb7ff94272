// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/chaos.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "tests/sim/cluster.h"
#include "tests/sim/ledger.h"

namespace weft::sim {
namespace {

using transport::Event;
using transport::EventKind;
using transport::SendResult;

transport::Config SmallCore(const LinkConfig& link) {
  transport::Config config;
  config.peers_max = 8;
  config.slots_per_peer = 32;
  config.calls_max = 128;
  config.messages_out_max = 256;
  config.messages_in_max = 256;
  config.memory_bytes = 8u << 20;
  config.tenants_max = 2;
  config.functions_max = 4;
  config.packets_in_flight_max = 512;
  config.link_bits_per_second = link.bits_per_second;
  config.pacing_slack_ns = 5'000;
  return config;
}

// The plan that a seed stands for.
struct Plan {
  ClusterOptions options;
  Faults faults;
  uint32_t messages = 0;
  uint64_t span_ns = 0;  // The time in which the messages begin.
  uint32_t size_max = 0;
  bool small_memory = false;
  uint32_t crashes = 0;
  uint32_t partitions = 0;
  uint32_t rotations = 0;
  double cancel = 0;
  uint64_t work_ns_max = 0;
};

Plan Draw(uint64_t seed) {
  Random random(seed ^ 0x51ed270b);
  Plan plan;
  plan.options.seed = seed;
  plan.options.check_replays = true;
  plan.options.nodes = 2 + static_cast<uint32_t>(random.Below(3));
  plan.options.link.bits_per_second = random.Below(2) == 0 ? 10'000'000'000 : 1'000'000'000;
  plan.options.link.queue_bytes = 20'000 << random.Below(5);
  plan.options.core = SmallCore(plan.options.link);
  plan.options.core.coalesce = random.Below(8) != 0;
  plan.options.core.granted_bytes_max = 8'000u << random.Below(6);
  plan.options.core.unscheduled_bytes_max = 2'000u << random.Below(5);
  plan.small_memory = random.Below(4) == 0;
  plan.options.tenant_bytes = plan.small_memory ? 200'000 : 4u << 20;
  if (random.Below(4) != 0) plan.faults.loss = random.Uniform() * (random.Below(4) == 0 ? 0.2 : 0.03);
  if (random.Below(2) == 0) plan.faults.reorder = random.Uniform() * 0.1;
  if (random.Below(2) == 0) plan.faults.duplicate = random.Uniform() * 0.05;
  if (random.Below(2) == 0) plan.faults.corrupt = random.Uniform() * 0.02;
  plan.faults.reorder_ns_max = 1'000 << random.Below(10);
  plan.messages = 40 + static_cast<uint32_t>(random.Below(120));
  plan.span_ns = (1 + random.Below(40)) * kMs;
  plan.size_max = 64u << random.Below(13);
  // A hundred messages of this size are more than any tenant may hold here.
  plan.small_memory |= plan.size_max > 30'000;
  plan.crashes = random.Below(3) == 0 ? 1 + static_cast<uint32_t>(random.Below(2)) : 0;
  plan.partitions = random.Below(3) == 0 ? 1 + static_cast<uint32_t>(random.Below(3)) : 0;
  plan.rotations = random.Below(2) == 0 ? static_cast<uint32_t>(random.Below(6)) : 0;
  plan.cancel = random.Below(4) == 0 ? 0.1 : 0;
  plan.work_ns_max = 1'000 << random.Below(15);
  return plan;
}

class Chaos {
 public:
  explicit Chaos(const Plan& plan)
      : plan_(plan),
        cluster_(plan.options, [this](uint32_t node, const Event& event) { OnEvent(node, event); }) {}

  ChaosResult Run() {
    cluster_.network().set_faults(plan_.faults);
    const uint64_t begin = cluster_.now_ns();
    for (uint32_t i = 0; i < plan_.messages; ++i) {
      cluster_.At(begin + Below(plan_.span_ns), [this] { SendOne(20); });
    }
    PlanTrouble(begin);
    cluster_.Run(plan_.span_ns + 50 * kMs);
    // The trouble ends; everything must come to an end within a bounded time.
    cluster_.network().HealAll();
    cluster_.network().set_faults({});
    for (uint32_t node = 0; node < plan_.options.nodes; ++node) {
      if (!cluster_.alive(node)) cluster_.Restart(node);
    }
    // The longest: five probes (2 + 4 + ... + 64 ms) after a keepalive, a new attempt each 100 ms, RESENDs
    // each 10 ms.
    for (int i = 0; i < 100 && !cluster_.broken() && ledger_.ended() < ledger_.size(); ++i)
      cluster_.Run(20 * kMs);
    CheckEnd();
    ChaosResult result;
    result.violation = cluster_.violation();
    result.calls = ledger_.size();
    result.succeeded = ledger_.succeeded();
    result.crashes = crashed_;
    result.faults = cluster_.network().fault_counts();
    result.queue_drops = cluster_.network().datagrams_dropped_by_queues();
    result.rotations = cluster_.rotations();
    result.digest = cluster_.digest();
    for (uint32_t node = 0; node < plan_.options.nodes; ++node) {
      if (!cluster_.alive(node)) continue;
      result.datagrams += cluster_.core(node).counters().datagrams_out;
      result.lost += cluster_.core(node).counters().packets_lost;
    }
    return result;
  }

 private:
  struct Answer {
    uint32_t node;
    uint32_t incarnation;
    transport::CallHandle handle;
    uint64_t tag;
  };

  uint64_t Below(uint64_t bound) { return cluster_.random().Below(std::max<uint64_t>(bound, 1)); }

  void PlanTrouble(uint64_t begin) {
    const uint32_t nodes = plan_.options.nodes;
    for (uint32_t i = 0; i < plan_.crashes; ++i) {
      const auto node = static_cast<uint32_t>(Below(nodes));
      const uint64_t at = begin + Below(plan_.span_ns);
      cluster_.At(at, [this, node] { Crash(node); });
      cluster_.At(at + Below(60 * kMs), [this, node] {
        if (!cluster_.alive(node)) cluster_.Restart(node);
      });
    }
    for (uint32_t i = 0; i < plan_.partitions; ++i) {
      const auto from = static_cast<uint32_t>(Below(nodes)), to = static_cast<uint32_t>(Below(nodes));
      const bool both = Below(2) == 0;
      const uint64_t at = begin + Below(plan_.span_ns), length = Below(Below(2) == 0 ? 5 * kMs : 150 * kMs);
      for (const bool cut : {true, false}) {
        cluster_.At(cut ? at : at + length, [this, from, to, both, cut] {
          cluster_.network().SetCut(from, to, cut);
          if (both) cluster_.network().SetCut(to, from, cut);
        });
      }
    }
    for (uint32_t i = 0; i < plan_.rotations; ++i) {
      const auto a = static_cast<uint32_t>(Below(nodes)), b = static_cast<uint32_t>(Below(nodes));
      if (a == b) continue;
      // Less than two rotations in the time that a packet lives: two epochs are kept.
      cluster_.At(begin + plan_.span_ns * (i + 1) / (plan_.rotations + 1),
                  [this, a, b] { cluster_.Rotate(a, b); });
    }
  }

  void Crash(uint32_t node) {
    if (!cluster_.alive(node)) return;
    ++crashed_;
    cluster_.Crash(node);
    ledger_.Forget(node);
    ledger_.MarkCrashed(node);
  }

  // A message from anywhere to anywhere; tried again where there is no room for it now.
  void SendOne(int tries) {
    const uint32_t nodes = plan_.options.nodes;
    Entry entry;
    entry.from = static_cast<uint32_t>(Below(nodes));
    entry.to = (entry.from + 1 + static_cast<uint32_t>(Below(nodes - 1))) % nodes;
    entry.bytes = std::max(kTaggedBytesMin, SizeBelow(plan_.size_max));
    entry.response_bytes = SizeBelow(plan_.size_max);
    if (entry.response_bytes > 0) entry.response_bytes = std::max(entry.response_bytes, kTaggedBytesMin);
    entry.one_way = Below(4) == 0;
    entry.began_ns = cluster_.now_ns();
    if (!cluster_.alive(entry.from)) return;
    const uint64_t tag = ledger_.Begin(entry);
    transport::SendOptions options;
    options.peer = cluster_.PeerOf(entry.from, entry.to);
    options.tenant = kCallers;
    options.function = kFunction;
    options.user = tag;
    options.one_way = entry.one_way;
    options.response_bytes_max = Below(2) == 0 ? entry.response_bytes : 512;
    const std::vector<uint8_t> bytes = ledger_.RequestBytes(tag);
    const auto split = static_cast<std::size_t>(Below(bytes.size()));
    transport::CallHandle handle;
    const SendResult result = cluster_.core(entry.from)
                                  .TrySend(options, transport::Bytes(bytes.data(), split),
                                           transport::Bytes(bytes.data() + split, bytes.size() - split),
                                           cluster_.now_ns(), &handle);
    if (result != SendResult::kOk) {
      ledger_.Undo();
      if (result == SendResult::kTooLarge)
        cluster_.Violation("a message of legal size was refused as too large");
      if (tries > 0) cluster_.At(cluster_.now_ns() + Below(5 * kMs), [this, tries] { SendOne(tries - 1); });
      return;
    }
    if (cluster_.random().Uniform() < plan_.cancel) {
      cluster_.At(cluster_.now_ns() + Below(2 * kMs),
                  [this, tag, handle, from = entry.from, incarnation = cluster_.incarnation(entry.from)] {
                    if (!cluster_.alive(from) || cluster_.incarnation(from) != incarnation) return;
                    ledger_.entry(tag).cancelled = true;
                    cluster_.core(from).Cancel(handle, cluster_.now_ns());
                    cluster_.Kick(from);
                  });
    }
    cluster_.Kick(entry.from);
  }

  // Mostly small, at times up to `max`.
  uint32_t SizeBelow(uint32_t max) {
    return static_cast<uint32_t>(Below(Below(4) == 0 ? max : std::min<uint32_t>(max, 1000)));
  }

  void OnEvent(uint32_t node, const Event& event) {
    std::string error;
    if (event.kind == EventKind::kCompleted) {
      ledger_.Ended(node, event, plan_.crashes + plan_.partitions > 0, plan_.small_memory, &error);
    } else if (event.kind != EventKind::kCancelled) {
      const uint64_t tag = ledger_.Executed(node, event, &error);
      if (event.kind == EventKind::kRequest && error.empty()) {
        const Answer answer{node, cluster_.incarnation(node), event.handle, tag};
        cluster_.At(cluster_.now_ns() + Below(plan_.work_ns_max), [this, answer] { Respond(answer); });
      }
    }
    cluster_.core(node).Release(event);
    if (!error.empty()) cluster_.Violation(error);
  }

  void Respond(const Answer& answer) {
    if (!cluster_.alive(answer.node) || cluster_.incarnation(answer.node) != answer.incarnation) return;
    transport::Core& core = cluster_.core(answer.node);
    const std::vector<uint8_t> bytes = ledger_.ResponseBytes(answer.tag);
    SendResult result = core.TryRespond(answer.handle, absl::StatusCode::kOk, {},
                                        transport::Bytes(bytes.data(), bytes.size()), cluster_.now_ns());
    if (result == SendResult::kFull) {
      if (!plan_.small_memory) cluster_.Violation("no room for a response");
      result =
          core.TryRespond(answer.handle, absl::StatusCode::kResourceExhausted, {}, {}, cluster_.now_ns());
      if (result == SendResult::kFull) cluster_.Violation("no room for a response without bytes");
    }
    cluster_.Kick(answer.node);
  }

  void CheckEnd() {
    if (cluster_.broken()) return;
    if (ledger_.ended() < ledger_.size()) {
      const uint64_t tag = ledger_.FirstOpen();
      const Entry& entry = ledger_.entry(tag);
      cluster_.Violation("message " + std::to_string(tag) + " of " + std::to_string(entry.bytes) +
                         " B from " + std::to_string(entry.from) + " to " + std::to_string(entry.to) +
                         " never ended" + (entry.executed > 0 ? " (executed)" : ""));
      return;
    }
    // Handlers at work may still answer calls that their callers gave up; partial messages of senders that
    // died are asked for and then dropped.
    cluster_.Run(plan_.work_ns_max + 300 * kMs);
    for (uint32_t node = 0; node < plan_.options.nodes; ++node) {
      const transport::Core& core = cluster_.core(node);
      if (core.memory_used_bytes() != 0 || core.messages_in() != 0 || core.messages_out() != 0 ||
          core.calls_outstanding() != 0 || core.granted_bytes() != 0) {
        cluster_.Violation(
            "node " + std::to_string(node) +
            " keeps something of messages that are over: " + std::to_string(core.memory_used_bytes()) +
            " B, " + std::to_string(core.messages_in()) + " in, " + std::to_string(core.messages_out()) +
            " out, " + std::to_string(core.granted_bytes()) + " B granted");
      }
    }
  }

  const Plan plan_;
  Ledger ledger_;
  uint64_t crashed_ = 0;
  Cluster cluster_;
};

}  // namespace

ChaosResult RunChaos(uint64_t seed) { return Chaos(Draw(seed)).Run(); }

ChaosResult RunFairness(uint64_t seed) {
  Random random(seed);
  ClusterOptions options;
  options.seed = seed;
  options.link.bits_per_second = 1'000'000'000;
  options.nodes = 4 + static_cast<uint32_t>(random.Below(4));
  options.core = SmallCore(options.link);
  options.core.granted_bytes_max = 30'000;
  options.core.granted_bytes_per_peer_max = 20'000;
  options.core.bandwidth_delay_bytes = 8'000;
  options.core.unscheduled_bytes_max = 8'000;
  // The contended link is the receiver's (many to one), or the sender's (one to all but the last, which the
  // long message is for: its grants are not the matter then).
  const bool to_one = random.Below(2) == 0;
  const uint32_t bytes = 10'000 + static_cast<uint32_t>(random.Below(20'000));
  const uint32_t long_bytes = 150'000;
  Ledger ledger;
  uint64_t long_tag = ~uint64_t{0};
  Cluster* cluster = nullptr;
  const auto send = [&](uint32_t from, uint32_t to, uint32_t message_bytes) {
    Entry entry;
    entry.from = from;
    entry.to = to;
    entry.bytes = message_bytes;
    entry.one_way = true;
    const uint64_t tag = ledger.Begin(entry);
    transport::SendOptions send_options;
    send_options.peer = cluster->PeerOf(from, to);
    send_options.tenant = kCallers;
    send_options.function = kFunction;
    send_options.user = tag;
    send_options.one_way = true;
    const std::vector<uint8_t> payload = ledger.RequestBytes(tag);
    if (cluster->core(from).TrySend(send_options, {}, transport::Bytes(payload.data(), payload.size()),
                                    cluster->now_ns(), nullptr) != SendResult::kOk) {
      cluster->Violation("a closed loop found no room");
    }
    return tag;
  };
  Cluster run(options, [&](uint32_t node, const Event& event) {
    std::string error;
    if (event.kind == EventKind::kCompleted) {
      const uint64_t tag = event.user;
      ledger.Ended(node, event, false, false, &error);
      // The next short message takes its place: the link never idles.
      if (tag != long_tag) send(ledger.entry(tag).from, ledger.entry(tag).to, bytes);
    } else {
      ledger.Executed(node, event, &error);
    }
    cluster->core(node).Release(event);
    if (!error.empty()) cluster->Violation(error);
  });
  cluster = &run;
  for (uint32_t node = 1; node + (to_one ? 0 : 1) < options.nodes; ++node) {
    for (int i = 0; i < 4; ++i) to_one ? send(node, 0, bytes) : send(0, node, bytes);
  }
  run.Run(2 * kMs);
  long_tag = to_one ? send(1, 0, long_bytes) : send(0, options.nodes - 1, long_bytes);
  for (uint32_t node = 0; node < options.nodes; ++node) run.Kick(node);
  // A twentieth of 1 Gb/s carries 150 KB in 24 ms; twice that, and the start, is 60.
  run.Run(60 * kMs);
  if (!run.broken() && !ledger.entry(long_tag).ended)
    run.Violation("the long message was starved by short ones");
  ChaosResult result;
  result.violation = run.violation();
  result.calls = ledger.size();
  result.succeeded = ledger.succeeded();
  result.digest = run.digest();
  return result;
}

}  // namespace weft::sim
