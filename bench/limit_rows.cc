// SPDX-License-Identifier: Apache-2.0
#include "bench/limit_rows.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "bench/pair_row.h"
#include "dataplane/base/attributes.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/status.h"

namespace weft::bench {
namespace {

// A word alone on its line, and two lines from the next, since some prefetchers fetch lines in pairs.
struct alignas(4 * kCacheLineBytes) LoneWord {
  std::atomic<uint32_t> value{0};
};

// Ids of a block begin at 1; 0 means that the block is over, and is what both words hold between blocks.
constexpr uint32_t kStop = 0;

struct PingPong {
  LoneWord ping;  // Written by the caller.  [B1]
  LoneWord pong;  // Written by the callee.  [B2]
};

class ShmSpinRow final : public PairRow {
 public:
  ShmSpinRow() : PairRow({.name = "limit/shm_spin"}) {}

 private:
  // A line belongs to one part of the last-level cache, near to the two cores or far from them: with one pair
  // of lines the row showed 257 ns in one run and 346 in the next. A call of weft goes through all cells of
  // two rings, so the flag takes many lines as well, the next pair in each block. A prime number of pairs: of
  // 64 a row that is judged by this one met only every eighth, where a round had eight blocks.
  static constexpr std::size_t kPlaces = 61;

  absl::Status Prepare() override {
    WEFT_ASSIGN_OR_RETURN(memory_, SharedMemory(kPlaces * sizeof(PingPong)));
    places_ = new (memory_.data()) PingPong[kPlaces];
    return absl::OkStatus();
  }

  Worker::Reply Call(uint32_t* out, uint64_t duration_ns) override {
    PingPong* const words = NextPlace();
    Samples samples(out, duration_ns);
    uint32_t id = kStop;
    uint64_t begin_ns = 0, end_ns = 0;
    do {
      ++id;
      begin_ns = NowNs();
      words->ping.value.store(id, std::memory_order_release);  // [B1]
      while (words->pong.value.load(std::memory_order_acquire) != id) {
      }
      end_ns = NowNs();
    } while (samples.Add(begin_ns, end_ns));
    words->ping.value.store(kStop, std::memory_order_release);
    while (words->pong.value.load(std::memory_order_acquire) != kStop) {
    }
    return {.messages = samples.count(), .samples = samples.count(), .elapsed_ns = samples.elapsed_ns()};
  }

  Worker::Reply Answer() override {
    PingPong* const words = NextPlace();
    uint32_t last = kStop;
    for (;;) {
      const uint32_t id = words->ping.value.load(std::memory_order_acquire);  // [B1]
      if (id == last) continue;
      words->pong.value.store(id, std::memory_order_release);  // [B2]
      last = id;
      if (id == kStop) return {};
    }
  }

  void Release() override { memory_ = Mapping(); }

  // The lines of the next block. Each of the two processes counts for itself: both run once a block.
  PingPong* NextPlace() { return &places_[blocks_++ % kPlaces]; }

  Mapping memory_;
  PingPong* places_ = nullptr;
  std::size_t blocks_ = 0;
};

constexpr uint64_t kBurst = 32;
constexpr std::size_t kSmallBytes = 64;
// 16 KiB, well inside a first-level cache. A ring of 64 or 1,024 lines is slower here.
constexpr uint64_t kRingLines = 256;
static_assert(kRingLines % kBurst == 0);

struct LineRing {
  alignas(4 * kCacheLineBytes) std::atomic<uint64_t> tail{0};  // Written by the producer.  [B3]
  alignas(4 * kCacheLineBytes) std::atomic<uint64_t> head{0};  // Written by the consumer.  [B4]
  // What the producer sent in all, plus one, once its block is over.
  alignas(4 * kCacheLineBytes) std::atomic<uint64_t> total_plus_1{0};  // [B5]
  struct alignas(kCacheLineBytes) Line {
    unsigned char bytes[kSmallBytes];
  };
  alignas(4 * kCacheLineBytes) std::array<Line, kRingLines> lines;
};

class SpscBatchedRow final : public PairRow {
 public:
  SpscBatchedRow() : PairRow({.name = "limit/spsc_batched", .bytes = kSmallBytes, .is_rate = true}) {}

 private:
  absl::Status Prepare() override {
    WEFT_ASSIGN_OR_RETURN(memory_, SharedMemory(sizeof(LineRing)));
    ring_ = new (memory_.data()) LineRing;
    return absl::OkStatus();
  }

  // Sends one burst, waiting for room.
  void SendBurst(uint64_t tail, uint64_t* known_head) {
    while (tail + kBurst - *known_head > kRingLines) {
      *known_head =
          ring_->head.load(std::memory_order_acquire);  // [B4] the lines before it may be overwritten
    }
    for (uint64_t i = tail; i < tail + kBurst; ++i) {
      FillPayload(ring_->lines[i % kRingLines].bytes, kSmallBytes, i);
    }
    ring_->tail.store(tail + kBurst, std::memory_order_release);  // [B3] publishes the burst's lines
  }

  Worker::Reply Call(uint32_t*, uint64_t duration_ns) override {
    uint64_t tail = ring_->tail.load(std::memory_order_relaxed);  // Our own.
    uint64_t known_head = tail;
    const uint64_t start_ns = NowNs();
    const uint64_t warm_ns = start_ns + Samples::WarmUpOf(duration_ns);
    uint64_t first_ns = 0, first = tail, now_ns = start_ns;
    while (now_ns < start_ns + duration_ns) {
      SendBurst(tail, &known_head);
      tail += kBurst;
      if (tail / kBurst % 32 != 0) continue;  // The clock is read once per 1,024 messages.
      now_ns = NowNs();
      if (first_ns == 0 && now_ns >= warm_ns) {
        first_ns = now_ns;
        first = ring_->head.load(std::memory_order_relaxed);  // Received by now; publishes nothing to us.
      }
    }
    ring_->total_plus_1.store(tail + 1, std::memory_order_release);  // [B5]
    while (ring_->head.load(std::memory_order_acquire) != tail) {
    }
    return {.messages = tail - first, .elapsed_ns = NowNs() - first_ns};
  }

  Worker::Reply Answer() override {
    uint64_t head = ring_->head.load(std::memory_order_relaxed);  // Our own.
    uint64_t known_tail = head, errors = 0;
    for (;;) {
      while (head == known_tail) {
        known_tail = ring_->tail.load(std::memory_order_acquire);  // [B3]
        if (head != known_tail) break;
        if (ring_->total_plus_1.load(std::memory_order_acquire) == head + 1) {  // [B5]
          ring_->total_plus_1.store(0, std::memory_order_relaxed);  // The next block is ordered by a socket.
          return {.errors = errors};
        }
      }
      for (; head < known_tail; ++head) {
        LineRing::Line copy;  // Out of shared memory first: that is what a receiver has to do.
        std::memcpy(&copy, &ring_->lines[head % kRingLines], sizeof(copy));
        errors += CheckPayload(copy.bytes, kSmallBytes, head) ? 0 : 1;
      }
      ring_->head.store(head, std::memory_order_release);  // [B4] gives the lines back
    }
  }

  void Release() override { memory_ = Mapping(); }

  Mapping memory_;
  LineRing* ring_ = nullptr;
};

constexpr std::size_t kLargeBytes = 1 << 20;
constexpr std::size_t kStepBytes = 64 << 10;

struct Bulk {
  LoneWord step;   // Steps published since the row began, in all messages.  [B6]
  LoneWord reply;  // Number of the last message answered.  [B7]
  LoneWord ready;  // Number of the last message that the callee has checked and is done with.  [B8]
  LoneWord stop;
  alignas(4 * kCacheLineBytes) unsigned char answer[kSmallBytes];
  alignas(4096) unsigned char bytes[kLargeBytes];
};

class TwoMemcpyRow final : public PairRow {
 public:
  TwoMemcpyRow() : PairRow({.name = "limit/two_memcpy", .bytes = kLargeBytes}) {}

 private:
  static constexpr uint32_t kSteps = kLargeBytes / kStepBytes;

  absl::Status Prepare() override {
    WEFT_ASSIGN_OR_RETURN(memory_, SharedMemory(sizeof(Bulk)));
    bulk_ = new (memory_.data()) Bulk;
    return absl::OkStatus();
  }

  Worker::Reply Call(uint32_t* out, uint64_t duration_ns) override {
    source_.resize(kLargeBytes);
    Samples samples(out, duration_ns);
    uint32_t id = bulk_->reply.value.load(std::memory_order_relaxed);  // The last one of the block before.
    uint64_t begin_ns = 0, end_ns = 0, errors = 0;
    unsigned char answer[kSmallBytes];
    do {
      ++id;
      FillPayload(source_.data(), kLargeBytes, id);
      while (bulk_->ready.value.load(std::memory_order_acquire) != id - 1) {  // [B8]
      }
      begin_ns = NowNs();
      for (uint32_t step = 0; step < kSteps; ++step) {
        std::memcpy(bulk_->bytes + step * kStepBytes, source_.data() + step * kStepBytes, kStepBytes);
        bulk_->step.value.store((id - 1) * kSteps + step + 1, std::memory_order_release);  // [B6]
      }
      while (bulk_->reply.value.load(std::memory_order_acquire) != id) {  // [B7]
      }
      std::memcpy(answer, bulk_->answer, kSmallBytes);
      end_ns = NowNs();
      errors += CheckPayload(answer, kSmallBytes, id) ? 0 : 1;
    } while (samples.Add(begin_ns, end_ns));
    while (bulk_->ready.value.load(std::memory_order_acquire) != id) {
    }
    bulk_->stop.value.store(1, std::memory_order_release);
    while (bulk_->stop.value.load(std::memory_order_acquire) != 0) {
    }
    return {.messages = samples.count(),
            .samples = samples.count(),
            .elapsed_ns = samples.elapsed_ns(),
            .errors = errors};
  }

  Worker::Reply Answer() override {
    target_.resize(kLargeBytes);
    uint64_t errors = 0;
    uint32_t id = bulk_->ready.value.load(std::memory_order_relaxed);  // Our own.
    for (;;) {
      ++id;
      for (uint32_t step = 0; step < kSteps; ++step) {
        const uint32_t wanted = (id - 1) * kSteps + step + 1;
        // The steps count up for ever and may wrap: compare the distance.
        while (static_cast<int32_t>(bulk_->step.value.load(std::memory_order_acquire) - wanted) <
               0) {  // [B6]
          if (bulk_->stop.value.load(std::memory_order_acquire) == 0) continue;
          bulk_->stop.value.store(0, std::memory_order_release);
          return {.errors = errors};
        }
        std::memcpy(target_.data() + step * kStepBytes, bulk_->bytes + step * kStepBytes, kStepBytes);
      }
      FillPayload(bulk_->answer, kSmallBytes, id);
      bulk_->reply.value.store(id, std::memory_order_release);  // [B7] publishes the answer
      errors += CheckPayload(target_.data(), kLargeBytes, id) ? 0 : 1;
      bulk_->ready.value.store(id, std::memory_order_release);  // [B8]
    }
  }

  void Release() override { memory_ = Mapping(); }

  Mapping memory_;
  Bulk* bulk_ = nullptr;
  std::vector<unsigned char> source_;  // The caller's copy of the message.
  std::vector<unsigned char> target_;  // The callee's.
};

constexpr uint64_t kSleepPeriodNs = 1'000'000;

class EventfdOneSideRow final : public PairRow {
 public:
  EventfdOneSideRow() : PairRow({.name = "limit/eventfd_one_side"}) {}

 private:
  absl::Status Prepare() override {
    WEFT_ASSIGN_OR_RETURN(memory_, SharedMemory(sizeof(PingPong)));
    words_ = new (memory_.data()) PingPong;
    wake_.Reset(eventfd(0, EFD_CLOEXEC));
    return wake_.valid() ? absl::OkStatus() : absl::ErrnoToStatus(errno, "create an eventfd");
  }

  Worker::Reply Call(uint32_t* out, uint64_t duration_ns) override {
    Samples samples(out, duration_ns);
    uint32_t id = kStop;
    uint64_t begin_ns = 0, end_ns = 0, errors = 0;
    const uint64_t one = 1;
    auto wake = [&] { errors += write(wake_.get(), &one, sizeof(one)) == sizeof(one) ? 0 : 1; };
    do {
      ++id;
      for (const uint64_t due_ns = NowNs() + kSleepPeriodNs; NowNs() < due_ns;) {
      }
      begin_ns = NowNs();
      words_->ping.value.store(id, std::memory_order_release);  // [B1]
      wake();
      while (words_->pong.value.load(std::memory_order_acquire) != id) {  // [B2]
      }
      end_ns = NowNs();
    } while (samples.Add(begin_ns, end_ns));
    words_->ping.value.store(kStop, std::memory_order_release);
    wake();
    return {.messages = samples.count(),
            .samples = samples.count(),
            .elapsed_ns = samples.elapsed_ns(),
            .errors = errors};
  }

  Worker::Reply Answer() override {
    uint64_t errors = 0;
    for (;;) {
      uint64_t woken = 0;
      if (read(wake_.get(), &woken, sizeof(woken)) != sizeof(woken)) return {.errors = errors + 1};
      const uint32_t id = words_->ping.value.load(std::memory_order_acquire);  // [B1]
      if (id == kStop) return {.errors = errors};
      errors += woken == 1 ? 0 : 1;
      words_->pong.value.store(id, std::memory_order_release);  // [B2]
    }
  }

  void Release() override {
    memory_ = Mapping();
    wake_.Reset();
  }

  Mapping memory_;
  PingPong* words_ = nullptr;
  UniqueFd wake_;
};

class SpinJitterRow final : public PairRow {
 public:
  SpinJitterRow() : PairRow({.name = "noise/spin_jitter"}) {}

 private:
  absl::Status Prepare() override { return absl::OkStatus(); }

  Worker::Reply Call(uint32_t* out, uint64_t duration_ns) override {
    Samples samples(out, duration_ns);
    uint64_t begin_ns = NowNs(), end_ns = begin_ns;
    bool more = true;
    while (more) {
      begin_ns = end_ns;
      end_ns = NowNs();
      more = samples.Add(begin_ns, end_ns);
    }
    return {.messages = samples.count(), .samples = samples.count(), .elapsed_ns = samples.elapsed_ns()};
  }

  // The other core stays idle.
  Worker::Reply Answer() override { return {}; }
};

}  // namespace

std::unique_ptr<Row> NewShmSpinRow() { return std::make_unique<ShmSpinRow>(); }
std::unique_ptr<Row> NewSpscBatchedRow() { return std::make_unique<SpscBatchedRow>(); }
std::unique_ptr<Row> NewTwoMemcpyRow() { return std::make_unique<TwoMemcpyRow>(); }
std::unique_ptr<Row> NewEventfdOneSideRow() { return std::make_unique<EventfdOneSideRow>(); }
std::unique_ptr<Row> NewSpinJitterRow() { return std::make_unique<SpinJitterRow>(); }

}  // namespace weft::bench
