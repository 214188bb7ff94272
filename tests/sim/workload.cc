// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/workload.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <utility>

#include "tests/sim/cluster.h"

namespace weft::sim {
namespace {

using transport::Event;
using transport::EventKind;
using transport::SendResult;

}  // namespace

absl::StatusOr<SizeDistribution> SizeDistribution::Read(const std::string& path, uint32_t cap) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError("cannot read " + path);
  SizeDistribution sizes;
  std::string line;
  double last = 0;
  while (std::getline(file, line)) {
    if (line.empty() || line[0] == '#') continue;
    double bytes = 0, fraction = 0;
    if (std::sscanf(line.c_str(), "%lf,%lf", &bytes, &fraction) != 2 || fraction < last ||
        fraction > 1.000001) {
      return absl::InvalidArgumentError(path + ": " + line);
    }
    const auto size = static_cast<uint32_t>(std::min<double>(bytes, cap));
    sizes.mean_ += size * (fraction - last);
    last = fraction;
    sizes.steps_.push_back({size, fraction});
  }
  if (sizes.steps_.empty() || last < 0.9999) return absl::InvalidArgumentError(path + " does not end at 1");
  return sizes;
}

uint32_t SizeDistribution::At(double fraction) const {
  const auto step = std::upper_bound(steps_.begin(), steps_.end(), fraction,
                                     [](double f, const Step& s) { return f < s.fraction; });
  return step == steps_.end() ? steps_.back().bytes : step->bytes;
}

LinkConfig ReferenceLink() { return LinkConfig{}; }

// A full packet's way there (two serialisations, two links, the switch) and that of a small answer back.
uint32_t BandwidthDelayBytes() {
  const LinkConfig link = ReferenceLink();
  const uint64_t full_ns = 1538ull * 8 * 1'000'000'000 / link.bits_per_second;
  const uint64_t rtt_ns = 2 * (2 * link.link_delay_ns + link.switch_delay_ns) + 2 * full_ns + 200;
  return static_cast<uint32_t>(rtt_ns * link.bits_per_second / 8 / 1'000'000'000);
}

transport::Config ReferenceCore() {
  transport::Config config;
  const LinkConfig link = ReferenceLink();
  config.peers_max = 128;
  config.slots_per_peer = 1024;
  config.calls_max = 8192;
  config.messages_out_max = 16384;
  config.messages_in_max = 16384;
  config.memory_bytes = 1u << 30;
  config.tenants_max = 2;
  config.functions_max = 4;
  config.packets_in_flight_max = 1024;
  config.link_bits_per_second = link.bits_per_second;
  config.wire_overhead_bytes = link.overhead_bytes;
  config.pacing_slack_ns = 200;  // What is handed over cannot be overtaken any more.
  // Found by trying, on W3 to W5 at 80 % load; what each does to the slowdown of small messages is in
  // DECISIONS.md.
  const uint32_t bdp = BandwidthDelayBytes();
  config.bandwidth_delay_bytes = bdp;
  config.unscheduled_bytes_max = 4'300;        // Three segments.
  config.unscheduled_pool_bytes = 100'000;     // Half of a port's queue.
  config.granted_bytes_max = 15'000;           // 1.5 bandwidth-delay products, as in SIRD.
  config.granted_bytes_per_peer_max = 11'200;  // One and a quantum: an idle network is filled by one sender.
  config.granted_messages_max = 16;
  config.grant_quantum_segments = 2;
  config.grant_pace_percent = 97;
  config.congested_bytes = 2'800;  // Two segments.
  config.brake.target_queue_ns = 50'000;
  config.brake.window_bytes_first = 64 * 1024;
  return config;
}

namespace {

ClusterOptions ReferenceCluster(uint32_t nodes, uint64_t seed) {
  ClusterOptions options;
  options.nodes = nodes;
  options.link = ReferenceLink();
  options.core = ReferenceCore();
  options.tenant_bytes = 1u << 30;
  options.seed = seed;
  return options;
}

// Sends a one-way message of `bytes` whose payload begins with `tag`. False where there was no room.
bool SendTagged(Cluster& cluster, uint32_t from, uint32_t to, uint64_t tag, uint32_t bytes) {
  static const std::vector<uint8_t> kPayload(2'000'000, 0x5a);
  uint8_t head[8];
  std::memcpy(head, &tag, sizeof(head));
  transport::SendOptions options;
  options.peer = cluster.PeerOf(from, to);
  options.tenant = kCallers;
  options.function = kFunction;
  options.user = tag;
  options.one_way = true;
  const SendResult result = cluster.core(from).TrySend(
      options, transport::Bytes(head, std::min<uint32_t>(bytes, 8)),
      transport::Bytes(kPayload.data(), bytes - std::min<uint32_t>(bytes, 8)), cluster.now_ns(), nullptr);
  cluster.Kick(from);
  return result == SendResult::kOk;
}

uint64_t TagOf(const Event& event) {
  uint64_t tag = 0;
  std::memcpy(&tag, event.payload, std::min<uint32_t>(event.payload_bytes, 8));
  return tag;
}

// Time to deliver one message of each size on the idle network.
class IdleTimes {
 public:
  IdleTimes()
      : cluster_(ReferenceCluster(2, 99), [this](uint32_t node, const Event& event) {
          if (event.kind == EventKind::kOneWay) delivered_ns_ = cluster_.now_ns();
          cluster_.core(node).Release(event);
        }) {}

  uint64_t Of(uint32_t bytes) {
    uint64_t& known = known_[bytes];
    if (known != 0) return known;
    const uint64_t begin = cluster_.now_ns();
    delivered_ns_ = 0;
    SendTagged(cluster_, 0, 1, 0, bytes);
    while (delivered_ns_ == 0) cluster_.Run(10'000);
    known = delivered_ns_ - begin;
    cluster_.Run(kMs);
    return known;
  }

 private:
  Cluster cluster_;
  uint64_t delivered_ns_ = 0;
  std::map<uint32_t, uint64_t> known_;
};

struct Sample {
  uint32_t bytes;
  float slowdown;
};

SlowdownGroup Summarise(const std::vector<Sample>& samples, uint32_t above, uint32_t up_to) {
  std::vector<float> chosen;
  for (const Sample& sample : samples) {
    if (sample.bytes > above && sample.bytes <= up_to) chosen.push_back(sample.slowdown);
  }
  SlowdownGroup group;
  group.bytes_max = up_to;
  group.messages = chosen.size();
  if (chosen.empty()) return group;
  std::sort(chosen.begin(), chosen.end());
  const auto at = [&](double fraction) {
    return chosen[std::min(chosen.size() - 1,
                           static_cast<std::size_t>(fraction * static_cast<double>(chosen.size())))];
  };
  group.p50 = at(0.5);
  group.p99 = at(0.99);
  group.p999 = at(0.999);
  return group;
}

class Workload {
 public:
  Workload(const SizeDistribution& sizes, const WorkloadOptions& options)
      : sizes_(sizes),
        options_(options),
        random_(options.seed * 7919),
        cluster_(ReferenceCluster(options.nodes, options.seed),
                 [this](uint32_t node, const Event& event) { OnEvent(node, event); }) {
    const LinkConfig link = ReferenceLink();
    const double segment = cluster_.core(0).segment_bytes();
    const double packets = std::ceil(sizes.mean() / segment);
    const double wire =
        sizes.mean() + std::max(1.0, packets) * (link.overhead_bytes + transport::kDataOverheadBytes);
    interval_ns_ = wire * 8e9 / static_cast<double>(link.bits_per_second) / options.load / options.nodes;
  }

  WorkloadResult Run() {
    begin_ns_ = cluster_.now_ns();
    next_ns_ = static_cast<double>(begin_ns_);
    ScheduleNext();
    const uint64_t all = options_.warm_up + options_.messages;
    while (!cluster_.broken() && arrived_ < all && cluster_.now_ns() < 600'000 * kMs) cluster_.Run(kMs);
    WorkloadResult result;
    result.violation = cluster_.violation();
    if (arrived_ < all && result.violation.empty()) result.violation = "messages did not arrive";
    const uint32_t groups[] = {1'400, BandwidthDelayBytes(), 40'000, 100'000, 400'000, 1'000'000};
    uint32_t above = 0;
    for (uint32_t up_to : groups) {
      result.groups.push_back(Summarise(samples_, above, up_to));
      above = up_to;
    }
    result.small = Summarise(samples_, 0, BandwidthDelayBytes());
    result.all = Summarise(samples_, 0, ~0u);
    for (uint32_t node = 0; node < options_.nodes; ++node) {
      result.lost_packets += cluster_.core(node).counters().packets_lost;
    }
    result.queue_bytes_max = cluster_.network().queue_bytes_max();
    const double run_seconds = static_cast<double>(last_arrival_ns_ - begin_ns_) / 1e9;
    for (uint32_t node = 0; node < options_.nodes; ++node) {
      const transport::Counters& counters = cluster_.core(node).counters();
      result.wire_load +=
          static_cast<double>(counters.bytes_out + counters.datagrams_out * ReferenceLink().overhead_bytes) *
          8 / run_seconds / options_.nodes / static_cast<double>(ReferenceLink().bits_per_second);
    }
    const double seconds = static_cast<double>(last_arrival_ns_ - measure_begin_ns_) / 1e9;
    result.achieved_load = static_cast<double>(measured_bytes_) * 8 / seconds / options_.nodes /
                           static_cast<double>(ReferenceLink().bits_per_second);
    return result;
  }

 private:
  struct Message {
    uint64_t begin_ns;
    uint32_t bytes;
  };

  void ScheduleNext() {
    if (messages_.size() >= options_.warm_up + options_.messages + options_.warm_up) return;
    next_ns_ += -std::log(1 - random_.Uniform()) * interval_ns_;
    cluster_.At(static_cast<uint64_t>(next_ns_), [this] {
      const auto from = static_cast<uint32_t>(random_.Below(options_.nodes));
      const uint32_t to =
          (from + 1 + static_cast<uint32_t>(random_.Below(options_.nodes - 1))) % options_.nodes;
      const uint32_t bytes = std::max(8u, sizes_.At(random_.Uniform()));
      messages_.push_back({cluster_.now_ns(), bytes});
      if (messages_.size() == options_.warm_up) measure_begin_ns_ = cluster_.now_ns();
      if (!SendTagged(cluster_, from, to, messages_.size() - 1, bytes)) cluster_.Violation("no room to send");
      ScheduleNext();
    });
  }

  void OnEvent(uint32_t node, const Event& event) {
    if (event.kind == EventKind::kOneWay) {
      const uint64_t tag = TagOf(event);
      const Message& message = messages_[tag];
      if (message.bytes != event.payload_bytes) cluster_.Violation("wrong size");
      if (tag >= options_.warm_up && tag < options_.warm_up + options_.messages) {
        const uint64_t idle = idle_.Of(message.bytes);
        samples_.push_back({message.bytes, static_cast<float>(cluster_.now_ns() - message.begin_ns) /
                                               static_cast<float>(idle)});
        measured_bytes_ += message.bytes;
        last_arrival_ns_ = cluster_.now_ns();
      }
      if (tag < options_.warm_up + options_.messages) ++arrived_;
    } else if (event.kind == EventKind::kCompleted && event.code != absl::StatusCode::kOk) {
      cluster_.Violation("a message failed");
    }
    cluster_.core(node).Release(event);
  }

  const SizeDistribution& sizes_;
  const WorkloadOptions options_;
  Random random_;
  IdleTimes idle_;
  double interval_ns_ = 0;
  double next_ns_ = 0;
  std::vector<Message> messages_;
  std::vector<Sample> samples_;
  uint64_t arrived_ = 0;
  uint64_t measured_bytes_ = 0;
  uint64_t begin_ns_ = 0;
  uint64_t measure_begin_ns_ = 0;
  uint64_t last_arrival_ns_ = 0;
  Cluster cluster_;
};

}  // namespace

WorkloadResult RunWorkload(const SizeDistribution& sizes, const WorkloadOptions& options) {
  return Workload(sizes, options).Run();
}

GoodputResult RunIncast(uint32_t senders, uint32_t bytes, uint64_t ns, uint64_t seed) {
  ClusterOptions options = ReferenceCluster(senders + 1, seed);
  options.joined = [](uint32_t a, uint32_t b) { return a == 0 || b == 0; };
  options.core.memory_bytes = 256u << 20;
  options.tenant_bytes = 256u << 20;
  options.core.slots_per_peer = 64;
  options.core.calls_max = 256;
  options.core.messages_in_max = options.core.messages_out_max = 1024;
  Cluster* cluster = nullptr;
  uint64_t received = 0;
  Cluster run(options, [&](uint32_t node, const Event& event) {
    if (event.kind == EventKind::kOneWay) received += event.payload_bytes;
    if (event.kind == EventKind::kCompleted) {
      if (event.code != absl::StatusCode::kOk) cluster->Violation("a message failed");
      SendTagged(*cluster, node, 0, 0, bytes);
    }
    cluster->core(node).Release(event);
  });
  cluster = &run;
  for (uint32_t node = 1; node <= senders; ++node) SendTagged(run, node, 0, 0, bytes);
  run.Run(ns);
  GoodputResult result;
  result.violation = run.violation();
  const double segment = run.core(0).segment_bytes();
  const double full = segment + transport::kDataOverheadBytes + options.link.overhead_bytes;
  const double capacity =
      static_cast<double>(options.link.bits_per_second) / 8 * segment / full * static_cast<double>(ns) / 1e9;
  result.fraction = static_cast<double>(received) / capacity;
  for (uint32_t node = 0; node <= senders; ++node)
    result.lost_packets += run.core(node).counters().packets_lost;
  result.queue_drops = run.network().datagrams_dropped_by_queues();
  return result;
}

GoodputResult RunLoss(uint32_t bytes, uint32_t depth, uint64_t ns, uint64_t seed) {
  GoodputResult result;
  uint64_t done[2] = {0, 0};
  for (const bool faulty : {false, true}) {
    ClusterOptions options = ReferenceCluster(2, seed);
    options.core.memory_bytes = 256u << 20;
    Cluster* cluster = nullptr;
    const auto call = [&] {
      static const std::vector<uint8_t> kPayload(2'000'000, 0x5a);
      transport::SendOptions send;
      send.peer = cluster->PeerOf(0, 1);
      send.tenant = kCallers;
      send.function = kFunction;
      send.response_bytes_max = bytes;
      if (cluster->core(0).TrySend(send, {}, transport::Bytes(kPayload.data(), bytes), cluster->now_ns(),
                                   nullptr) != SendResult::kOk) {
        cluster->Violation("no room to send");
      }
    };
    uint64_t executed = 0, sent = depth;
    Cluster run(options, [&](uint32_t node, const Event& event) {
      if (event.kind == EventKind::kRequest) {
        ++executed;
        cluster->core(node).TryRespond(event.handle, absl::StatusCode::kOk, {},
                                       transport::Bytes(event.payload, event.payload_bytes),
                                       cluster->now_ns());
      } else if (event.kind == EventKind::kCompleted) {
        if (event.code != absl::StatusCode::kOk) cluster->Violation("a call failed");
        ++done[faulty];
        ++sent;
        call();
      }
      cluster->core(node).Release(event);
      if (executed > sent) cluster->Violation("a call ran twice");
    });
    cluster = &run;
    if (faulty) {
      Faults faults;
      faults.loss = 0.01;
      faults.reorder = 0.05;
      faults.reorder_ns_max = 50'000;
      run.network().set_faults(faults);
    }
    for (uint32_t i = 0; i < depth; ++i) call();
    run.Kick(0);
    run.Run(ns);
    if (result.violation.empty()) result.violation = run.violation();
    result.lost_packets = run.core(0).counters().packets_lost + run.core(1).counters().packets_lost;
  }
  result.fraction = static_cast<double>(done[1]) / static_cast<double>(std::max<uint64_t>(done[0], 1));
  return result;
}

}  // namespace weft::sim
