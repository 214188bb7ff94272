// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/network.h"

#include <algorithm>
#include <utility>

namespace weft::sim {

Network::Network(uint32_t nodes, const LinkConfig& link, uint64_t seed, Deliver deliver)
    : nodes_(nodes),
      link_(link),
      deliver_(std::move(deliver)),
      random_(seed),
      uplink_free_ns_(nodes),
      downlink_free_ns_(nodes),
      cut_(nodes * nodes) {}

uint64_t Network::SerialisationNs(uint32_t datagram_bytes) const {
  return uint64_t{datagram_bytes + link_.overhead_bytes} * 8 * 1'000'000'000 / link_.bits_per_second;
}

uint32_t Network::Take() {
  if (free_.empty()) {
    datagrams_.emplace_back();
    held_.push_back(false);
    return static_cast<uint32_t>(datagrams_.size() - 1);
  }
  const uint32_t item = free_.back();
  free_.pop_back();
  held_[item] = false;
  return item;
}

void Network::Push(uint64_t time_ns, Kind kind, uint32_t item) {
  events_.push({time_ns, next_order_++, item, kind});
}

void Network::Send(uint32_t from, uint32_t to, const uint8_t* data, uint32_t bytes) {
  const uint32_t item = Take();
  datagrams_[item].bytes.assign(data, data + bytes);
  datagrams_[item].from = from;
  datagrams_[item].to = to;
  uplink_free_ns_[from] = std::max(uplink_free_ns_[from], now_ns_) + SerialisationNs(bytes);
  Push(uplink_free_ns_[from] + link_.link_delay_ns + link_.switch_delay_ns, Kind::kAtSwitch, item);
}

void Network::At(uint64_t time_ns, std::function<void()> what) {
  uint32_t item;
  if (free_calls_.empty()) {
    item = static_cast<uint32_t>(calls_.size());
    calls_.push_back(std::move(what));
  } else {
    item = free_calls_.back();
    free_calls_.pop_back();
    calls_[item] = std::move(what);
  }
  Push(std::max(time_ns, now_ns_), Kind::kCall, item);
}

void Network::HealAll() { std::fill(cut_.begin(), cut_.end(), false); }

// The faults of the wire, then the queue of the egress port.
void Network::AtSwitch(uint32_t item, bool delayed) {
  Datagram& datagram = datagrams_[item];
  if (!delayed) {
    const bool cut = cut_[datagram.from * nodes_ + datagram.to];
    if (cut || (faults_.loss > 0 && random_.Uniform() < faults_.loss)) {
      ++(cut ? fault_counts_.cut : fault_counts_.lost);
      free_.push_back(item);
      return;
    }
    if (faults_.corrupt > 0 && random_.Uniform() < faults_.corrupt) {
      ++fault_counts_.corrupted;
      const uint64_t bit = random_.Below(datagram.bytes.size() * 8);
      datagram.bytes[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
      if (random_.Below(4) == 0) datagram.bytes.resize(random_.Below(datagram.bytes.size()) + 1);
    }
    if (faults_.duplicate > 0 && random_.Uniform() < faults_.duplicate) {
      ++fault_counts_.duplicated;
      const uint32_t copy = Take();
      datagrams_[copy] = datagrams_[item];
      held_[copy] = true;
      Push(now_ns_ + random_.Below(faults_.reorder_ns_max + 1), Kind::kAtSwitch, copy);
    }
    if (faults_.reorder > 0 && random_.Uniform() < faults_.reorder) {
      ++fault_counts_.reordered;
      held_[item] = true;
      Push(now_ns_ + random_.Below(faults_.reorder_ns_max + 1), Kind::kAtSwitch, item);
      return;
    }
  }
  Queue(item);
}

void Network::Queue(uint32_t item) {
  const Datagram& datagram = datagrams_[item];
  uint64_t& free_ns = downlink_free_ns_[datagram.to];
  const uint64_t backlog_ns = free_ns > now_ns_ ? free_ns - now_ns_ : 0;
  const uint64_t backlog_bytes = backlog_ns * (link_.bits_per_second / 1'000'000) / 8'000;
  if (backlog_bytes + datagram.bytes.size() + link_.overhead_bytes > link_.queue_bytes) {
    ++queue_drops_;
    free_.push_back(item);
    return;
  }
  queue_bytes_max_ = std::max(queue_bytes_max_, backlog_bytes);
  free_ns = std::max(free_ns, now_ns_) + SerialisationNs(static_cast<uint32_t>(datagram.bytes.size()));
  Push(free_ns + link_.link_delay_ns, Kind::kAtNode, item);
}

void Network::RunUntil(uint64_t time_ns, const bool* stop) {
  while (!events_.empty() && events_.top().time_ns <= time_ns && (stop == nullptr || !*stop)) {
    const Event event = events_.top();
    events_.pop();
    now_ns_ = event.time_ns;
    if (event.kind == Kind::kAtSwitch) {
      AtSwitch(event.item, held_[event.item]);
    } else if (event.kind == Kind::kAtNode) {
      std::vector<uint8_t> bytes = std::move(datagrams_[event.item].bytes);
      deliver_(datagrams_[event.item].to, bytes);
      datagrams_[event.item].bytes = std::move(bytes);  // Keeps the memory for the next one.
      free_.push_back(event.item);
    } else {
      const std::function<void()> what = std::move(calls_[event.item]);
      free_calls_.push_back(event.item);
      what();
    }
  }
  if (stop == nullptr || !*stop) now_ns_ = std::max(now_ns_, time_ns);
}

}  // namespace weft::sim
