// SPDX-License-Identifier: Apache-2.0
// A virtual network: nodes on full-duplex links to one non-blocking switch with drop-tail queues, and the
// faults that a seed asks for. Time is a number; everything that happens is an event in one queue, so that a
// run is a function of its seed. Used by one thread.
#ifndef WEFT_TESTS_SIM_NETWORK_H_
#define WEFT_TESTS_SIM_NETWORK_H_

#include <cstdint>
#include <functional>
#include <queue>
#include <vector>

#include "dataplane/base/random.h"

namespace weft::sim {

inline constexpr uint64_t kMs = 1'000'000;  // In nanoseconds

struct LinkConfig {
  uint64_t bits_per_second = 10'000'000'000;
  uint64_t link_delay_ns = 1'000;
  uint64_t switch_delay_ns = 500;
  uint64_t queue_bytes = 200'000;  // Per egress port of the switch.
  uint32_t overhead_bytes = 66;    // Per datagram: Ethernet with preamble and gap, IPv4, UDP.
};

// Chances per datagram.
struct Faults {
  double loss = 0;
  double duplicate = 0;
  double corrupt = 0;
  double reorder = 0;
  uint64_t reorder_ns_max = 100'000;  // A reordered datagram is held for up to this long.
};

// Datagrams that met each of them.
struct FaultCounts {
  uint64_t cut = 0;
  uint64_t lost = 0;
  uint64_t corrupted = 0;
  uint64_t duplicated = 0;
  uint64_t reordered = 0;
};

class Network {
 public:
  using Deliver = std::function<void(uint32_t node, const std::vector<uint8_t>& datagram)>;

  Network(uint32_t nodes, const LinkConfig& link, uint64_t seed, Deliver deliver);

  // Hands a datagram to `from`'s link.
  void Send(uint32_t from, uint32_t to, const uint8_t* data, uint32_t bytes);
  // Runs `what` at `time_ns`, after all that was asked for earlier at the same time.
  void At(uint64_t time_ns, std::function<void()> what);
  // Runs events until there is none before or at `time_ns`, then sets the clock to it. Stops early where
  // `stop` says so.
  void RunUntil(uint64_t time_ns, const bool* stop = nullptr);

  uint64_t now_ns() const { return now_ns_; }
  void set_faults(const Faults& faults) { faults_ = faults; }
  // Cuts or joins the way from one node to another.
  void SetCut(uint32_t from, uint32_t to, bool cut) { cut_[from * nodes_ + to] = cut; }
  void HealAll();
  uint64_t SerialisationNs(uint32_t datagram_bytes) const;

  const FaultCounts& fault_counts() const { return fault_counts_; }
  uint64_t datagrams_dropped_by_queues() const { return queue_drops_; }
  uint64_t queue_bytes_max() const { return queue_bytes_max_; }

 private:
  enum class Kind : uint8_t { kAtSwitch, kAtNode, kCall };
  struct Event {
    uint64_t time_ns;
    uint64_t order;
    uint32_t item;  // Datagram or call, by kind.
    Kind kind;
    bool operator>(const Event& other) const {
      return time_ns != other.time_ns ? time_ns > other.time_ns : order > other.order;
    }
  };
  struct Datagram {
    std::vector<uint8_t> bytes;
    uint32_t from, to;
  };

  uint32_t Take();
  void Push(uint64_t time_ns, Kind kind, uint32_t item);
  void AtSwitch(uint32_t item, bool delayed);
  void Queue(uint32_t item);

  const uint32_t nodes_;
  const LinkConfig link_;
  const Deliver deliver_;
  Faults faults_;
  Random random_;
  uint64_t now_ns_ = 1'000'000'000;  // Not 0: nothing may depend on it.
  uint64_t next_order_ = 0;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::vector<Datagram> datagrams_;
  std::vector<uint32_t> free_;
  std::vector<std::function<void()>> calls_;
  std::vector<uint32_t> free_calls_;
  std::vector<uint64_t> uplink_free_ns_;
  std::vector<uint64_t> downlink_free_ns_;
  std::vector<bool> cut_;
  std::vector<bool> held_;  // Per datagram: was reordered already.
  FaultCounts fault_counts_;
  uint64_t queue_drops_ = 0;
  uint64_t queue_bytes_max_ = 0;
};

}  // namespace weft::sim

#endif  // WEFT_TESTS_SIM_NETWORK_H_
