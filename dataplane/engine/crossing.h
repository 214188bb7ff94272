// SPDX-License-Identifier: Apache-2.0
// Datagrams on their way from the worker on whose queue they came in to the one that they are for. An AF_XDP
// socket hears its own queue only, and which queue a packet takes is the network's choice, not the worker
// hint's: so the worker that has it copies it into a bounded ring of the other's. A ring that is full loses
// what comes, counted, as a queue on the way would; no worker ever waits for another. Each method says whose
// thread it is for.
#ifndef WEFT_DATAPLANE_ENGINE_CROSSING_H_
#define WEFT_DATAPLANE_ENGINE_CROSSING_H_

#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bpf/abi/packet.h"
#include "dataplane/base/attributes.h"
#include "dataplane/base/check.h"
#include "dataplane/base/fd.h"
#include "dataplane/port/port.h"

namespace weft::engine {

class Crossing {
 public:
  using Received = port::ReceivedDatagram;
  // As many as a peer may have been granted at once, in datagrams of 1,472 bytes.
  static constexpr uint32_t kSlots = 256;
  // Whatever this node sends itself: a peer's `mtu` may be larger, and what was lost here would be each time.
  static constexpr std::size_t kSlotBytes =
      (WEFT_PACKET_BYTES_MAX + kCacheLineBytes - 1) / kCacheLineBytes * kCacheLineBytes;

  // Memory of kSlots datagrams for each pair of workers, taken by the kernel page by page when it is first
  // used.
  static absl::StatusOr<std::shared_ptr<Crossing>> Create(uint32_t workers) {
    std::shared_ptr<Crossing> crossing(new Crossing(workers));
    for (Worker& worker : crossing->workers_) {
      worker.wake = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
      if (!worker.wake.valid()) return absl::ErrnoToStatus(errno, "make an eventfd");
    }
    return crossing;
  }

  uint32_t workers() const { return static_cast<uint32_t>(workers_.size()); }

  // --- On the thread of `from`.
  // Copies one datagram and wakes `to` where it sleeps. False: its ring is full, or it is too long.
  bool TryPass(uint32_t from, uint32_t to, const uint8_t* data, uint32_t bytes) {
    Ring& ring = RingOf(from, to);
    const uint32_t tail = ring.tail.load(std::memory_order_relaxed);  // Its only writer is here.
    if (bytes > kSlotBytes || tail - ring.head.load(std::memory_order_acquire) >= kSlots) {  // [C2]
      Add(&workers_[from].lost);
      return false;
    }
    std::memcpy(SlotOf(ring, tail), data, bytes);
    ring.bytes[tail % kSlots] = bytes;
    // Publishes the slot to Take [C1]; seq_cst, since the flag is read after it: see PrepareSleep [C3].
    ring.tail.store(tail + 1, std::memory_order_seq_cst);
    Add(&workers_[from].passed);
    Worker& receiver = workers_[to];
    if (receiver.asleep.load(std::memory_order_seq_cst) &&  // [C3]
        receiver.asleep.exchange(false, std::memory_order_seq_cst)) {
      const uint64_t one = 1;
      [[maybe_unused]] const ssize_t written = write(receiver.wake.get(), &one, sizeof(one));
    }
    return true;
  }

  // --- On the thread of `worker`.
  // Up to `count` datagrams of one other worker, whose turn moves on; to be released before the next Take.
  std::size_t Take(uint32_t worker, Received* burst, std::size_t count) {
    Worker& self = workers_[worker];
    for (uint32_t tried = 0; tried < workers(); ++tried) {
      self.turn = (self.turn + 1) % workers();
      Ring& ring = RingOf(self.turn, worker);
      const uint32_t head = ring.head.load(std::memory_order_relaxed);          // Its only writer is here.
      const uint32_t there = ring.tail.load(std::memory_order_acquire) - head;  // [C1]
      if (there == 0) continue;
      const std::size_t taken = there < count ? there : count;
      for (uint32_t i = 0; i < taken; ++i)
        burst[i] = {SlotOf(ring, head + i), ring.bytes[(head + i) % kSlots], self.turn};
      return taken;
    }
    return 0;
  }
  void Release(uint32_t worker, const Received* burst, std::size_t count) {
    if (count == 0) return;
    Ring& ring = RingOf(burst[0].frame, worker);
    const uint32_t head = ring.head.load(std::memory_order_relaxed);
    ring.head.store(head + static_cast<uint32_t>(count), std::memory_order_release);  // [C2] frees the slots
  }
  // Readable when the worker is to wake.
  int wake_fd(uint32_t worker) const { return workers_[worker].wake.get(); }
  // False: something has come meanwhile. Raises the flag, then looks again; TryPass publishes, then looks at
  // the flag: one of the two sees the other [C3].
  bool PrepareSleep(uint32_t worker) {
    workers_[worker].asleep.store(true, std::memory_order_seq_cst);
    for (uint32_t from = 0; from < workers(); ++from) {
      const Ring& ring = RingOf(from, worker);
      if (ring.tail.load(std::memory_order_seq_cst) == ring.head.load(std::memory_order_relaxed)) continue;
      EndSleep(worker);
      return false;
    }
    return true;
  }
  void EndSleep(uint32_t worker) {
    workers_[worker].asleep.store(false, std::memory_order_relaxed);  // Taken for true, it costs a ring.
    uint64_t count;  // Looked at even if nobody rang: who found the flag may ring later.
    [[maybe_unused]] const ssize_t bytes = read(workers_[worker].wake.get(), &count, sizeof(count));
  }

  // --- Any thread: datagrams that `worker` has given to others, and that it lost for want of room there.
  uint64_t passed(uint32_t worker) const { return workers_[worker].passed.load(std::memory_order_relaxed); }
  uint64_t lost(uint32_t worker) const { return workers_[worker].lost.load(std::memory_order_relaxed); }

 private:
  struct Ring {
    // The giving worker's line.
    alignas(kCacheLineBytes) std::atomic<uint32_t> tail{0};
    // The taking worker's line.
    alignas(kCacheLineBytes) std::atomic<uint32_t> head{0};
    alignas(kCacheLineBytes) std::array<uint32_t, kSlots> bytes{};
    std::unique_ptr<uint8_t[]> slots;
  };
  struct alignas(kCacheLineBytes) Worker {
    std::atomic<bool> asleep{false};
    uint32_t turn = 0;  // The worker's own.
    UniqueFd wake;
    // Its own too, but for readers of a status.
    alignas(kCacheLineBytes) std::atomic<uint64_t> passed{0};
    std::atomic<uint64_t> lost{0};
  };

  explicit Crossing(uint32_t workers) : workers_(workers), rings_(std::size_t{workers} * workers) {
    WEFT_CHECK(workers > 0);
    for (uint32_t from = 0; from < workers; ++from) {
      for (uint32_t to = 0; to < workers; ++to) {
        // Not initialised: pages that no datagram ever touches cost nothing.
        if (from != to) RingOf(from, to).slots.reset(new uint8_t[kSlotBytes * kSlots]);
      }
    }
  }

  Ring& RingOf(uint32_t from, uint32_t to) { return rings_[std::size_t{from} * workers() + to]; }
  static uint8_t* SlotOf(Ring& ring, uint32_t at) { return ring.slots.get() + at % kSlots * kSlotBytes; }
  static void Add(std::atomic<uint64_t>* counter) {
    counter->store(counter->load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);  // One writer.
  }

  std::vector<Worker> workers_;
  std::vector<Ring> rings_;
};

}  // namespace weft::engine

#endif  // WEFT_DATAPLANE_ENGINE_CROSSING_H_
