// SPDX-License-Identifier: Apache-2.0
// The key table of the XDP program `steer`, mapped into the memory of its one owner (weftd): which key ids
// the program lets through, at what rate, and what it counted. It works on the descriptors of the maps alone,
// without privilege and without weft-control, so that keys rotate while that is gone. One thread; nothing
// blocks.
#ifndef WEFT_DATAPLANE_PORT_STEER_TABLE_H_
#define WEFT_DATAPLANE_PORT_STEER_TABLE_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bpf/abi/steer.h"
#include "dataplane/base/mapping.h"

namespace weft::port {

// What the program counted for one key, or for all that belong to none.
struct SteerCounters {
  uint64_t taken = 0;                                // Packets that found a token; 0 where there is no key.
  std::array<uint64_t, WEFT_STEER_REASONS> drops{};  // By enum weft_drop_reason.

  friend bool operator==(const SteerCounters&, const SteerCounters&) = default;
};

class SteerTable {
 public:
  // More than any interface carries in packets of 64 B today, and what the bucket's arithmetic is sized for.
  static constexpr uint64_t kPacketsPerSecondMax = 10'000'000'000;

  // Maps the key table and the drops of `cpus` CPUs. The descriptors may be closed afterwards.
  static absl::StatusOr<SteerTable> Map(int keys_fd, int drops_fd, uint32_t cpus);

  // Lets packets of `key_id` through, at most `packets_per_second` of them; for an id that is let through
  // already, changes its rate. ALREADY_EXISTS where another id has its place, which it shares with all ids
  // that are the same modulo WEFT_STEER_KEYS; INVALID_ARGUMENT for id 0 and for a rate of 0 or above
  // kPacketsPerSecondMax.
  absl::Status Allow(uint32_t key_id, uint64_t packets_per_second);
  // All keys that are live have been let through: from now on packets of others are dropped, which until then
  // are left to the kernel. For good.
  void SetComplete();
  bool complete() const;
  // Has packets of `key_id` dropped from now on, and returns what was counted for it; a packet that is being
  // looked at meanwhile may be missing there. NOT_FOUND where it is not let through.
  absl::StatusOr<SteerCounters> Forget(uint32_t key_id);
  absl::StatusOr<SteerCounters> Read(uint32_t key_id) const;
  // Drops that no key was charged with.
  SteerCounters ReadUnknown() const;
  // The engine inside a host of that slot, from 1 to WEFT_STEER_INSIDE_MAX, has a socket on `queue`, in the
  // XSKMAP at SocketOf(slot); or none, and what is for it is left to the kernel.
  void SetInside(uint32_t slot, uint32_t queue);
  void ClearInside(uint32_t slot);
  static constexpr uint32_t SocketOf(uint32_t slot) { return WEFT_STEER_QUEUES_MAX + slot - 1; }
  // All ids that are let through: what a predecessor left. Looks at the whole table.
  std::vector<uint32_t> Ids() const;

 private:
  SteerTable(Mapping keys_mapping, Mapping drops_mapping, uint32_t cpus);

  weft_steer_table* table() const { return reinterpret_cast<weft_steer_table*>(keys_mapping_.data()); }
  weft_steer_key* EntryOf(uint32_t key_id) const;

  Mapping keys_mapping_;
  Mapping drops_mapping_;
  uint32_t cpus_;
};

}  // namespace weft::port

#endif  // WEFT_DATAPLANE_PORT_STEER_TABLE_H_
