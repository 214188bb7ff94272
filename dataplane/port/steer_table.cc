// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/steer_table.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"

namespace weft::port {
namespace {

// A bucket for a slow key still takes a coalesced burst of its peer.
constexpr uint64_t kBurstPacketsMin = 64;

uint64_t BurstOf(uint64_t packets_per_second) {
  return std::max<uint64_t>(kBurstPacketsMin, packets_per_second / (kNsPerSecond / WEFT_STEER_BURST_NS));
}

// The program writes and reads these words meanwhile. Its own side is plain loads and stores of whole words.
template <typename T>
T Load(T& word) {
  return std::atomic_ref<T>(word).load(std::memory_order_acquire);
}
template <typename T>
void Store(T& word, T value) {
  std::atomic_ref<T>(word).store(value, std::memory_order_release);
}

SteerCounters CountersOf(weft_steer_key* entry) {
  SteerCounters counters;
  counters.taken = Load(entry->taken);
  for (std::size_t i = 0; i < counters.drops.size(); ++i) counters.drops[i] = Load(entry->drops[i]);
  return counters;
}

absl::Status NotThere(uint32_t key_id) {
  return absl::NotFoundError(absl::StrFormat("steer key %#x: not in the table", key_id));
}

}  // namespace

SteerTable::SteerTable(Mapping keys_mapping, Mapping drops_mapping, uint32_t cpus)
    : keys_mapping_(std::move(keys_mapping)), drops_mapping_(std::move(drops_mapping)), cpus_(cpus) {}

absl::StatusOr<SteerTable> SteerTable::Map(int keys_fd, int drops_fd, uint32_t cpus) {
  if (cpus == 0) return absl::InvalidArgumentError("map steer's tables: 0 CPUs");
  WEFT_ASSIGN_OR_RETURN(Mapping keys_mapping,
                        Mapping::Create(keys_fd, sizeof(weft_steer_table), Mapping::Access::kReadWrite));
  WEFT_ASSIGN_OR_RETURN(Mapping drops_mapping,
                        Mapping::Create(drops_fd, cpus * sizeof(weft_steer_drops), Mapping::Access::kRead));
  return SteerTable(std::move(keys_mapping), std::move(drops_mapping), cpus);
}

weft_steer_key* SteerTable::EntryOf(uint32_t key_id) const {
  return &table()->keys[key_id & (WEFT_STEER_KEYS - 1)];
}

absl::Status SteerTable::Allow(uint32_t key_id, uint64_t packets_per_second) {
  if (key_id == 0) return absl::InvalidArgumentError("steer key 0: no key has that id");
  if (packets_per_second == 0 || packets_per_second > kPacketsPerSecondMax) {
    return absl::InvalidArgumentError(
        absl::StrFormat("steer key %#x: a rate of %d packets/s is not from 1 to %d", key_id,
                        packets_per_second, kPacketsPerSecondMax));
  }
  weft_steer_key* const entry = EntryOf(key_id);
  const uint32_t holder = Load(entry->key_id);
  if (holder != 0 && holder != key_id) {
    return absl::AlreadyExistsError(
        absl::StrFormat("steer key %#x: its place is taken by key %#x", key_id, holder));
  }
  Store(entry->packets_per_second, __u64{packets_per_second});
  const uint64_t burst_packets = BurstOf(packets_per_second);
  Store(entry->burst_packets, __u64{burst_packets});
  Store(entry->full_ns, __u64{burst_packets * kNsPerSecond / packets_per_second});
  if (holder == key_id) return absl::OkStatus();
  // An empty bucket that has never been filled: the first packet fills it.
  Store(entry->taken, __u64{0});
  Store(entry->limit, __u64{0});
  Store(entry->refilled_ns, __u64{0});
  for (__u64& count : entry->drops) Store(count, __u64{0});
  Store(entry->key_id, __u32{key_id});
  return absl::OkStatus();
}

void SteerTable::SetComplete() { Store(table()->complete, __u32{1}); }
bool SteerTable::complete() const { return Load(table()->complete) != 0; }

void SteerTable::SetInside(uint32_t slot, uint32_t queue) {
  Store(table()->inside_queues[slot], __u32{queue + 1});
}
void SteerTable::ClearInside(uint32_t slot) { Store(table()->inside_queues[slot], __u32{0}); }

absl::StatusOr<SteerCounters> SteerTable::Forget(uint32_t key_id) {
  weft_steer_key* const entry = EntryOf(key_id);
  if (key_id == 0 || Load(entry->key_id) != key_id) return NotThere(key_id);
  Store(entry->key_id, __u32{0});
  return CountersOf(entry);
}

absl::StatusOr<SteerCounters> SteerTable::Read(uint32_t key_id) const {
  weft_steer_key* const entry = EntryOf(key_id);
  if (key_id == 0 || Load(entry->key_id) != key_id) return NotThere(key_id);
  return CountersOf(entry);
}

SteerCounters SteerTable::ReadUnknown() const {
  SteerCounters sum;
  auto* const rows = reinterpret_cast<weft_steer_drops*>(drops_mapping_.data());
  for (uint32_t cpu = 0; cpu < cpus_; ++cpu) {
    for (std::size_t i = 0; i < sum.drops.size(); ++i) sum.drops[i] += Load(rows[cpu].drops[i]);
  }
  return sum;
}

std::vector<uint32_t> SteerTable::Ids() const {
  std::vector<uint32_t> ids;
  for (uint32_t index = 0; index < WEFT_STEER_KEYS; ++index) {
    if (const uint32_t id = Load(EntryOf(index)->key_id); id != 0) ids.push_back(id);
  }
  return ids;
}

}  // namespace weft::port
