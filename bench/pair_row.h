// SPDX-License-Identifier: Apache-2.0
// A row made by two forked processes, caller on core 0 and callee on core 1, that share what Prepare() made.
// Subclasses write the two loops; this starts the processes, runs blocks, moves samples out by shared memory
// and turns a wrong payload into an error.
#ifndef WEFT_BENCH_PAIR_ROW_H_
#define WEFT_BENCH_PAIR_ROW_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "bench/row.h"
#include "bench/worker.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/mapping.h"

namespace weft::bench {

inline constexpr int kCallerCore = 0;
inline constexpr int kCalleeCore = 1;

// 20 ms of round trips of 40 ns.
inline constexpr std::size_t kSamplesMax = 500'000;

// A block's first part is not recorded: the processes have slept, their caches and branch history are cold.
inline constexpr uint64_t kWarmUpNs = 2'000'000;

// Fills each byte from the request id, so that a byte of another request, or of none, shows.
inline void FillPayload(void* data, std::size_t bytes, uint64_t request_id) {
  std::memset(data, static_cast<int>((request_id * 0x9d) & 0xff) ^ 0x5a, bytes);
}

// True where every byte is what FillPayload wrote for this id.
bool CheckPayload(const void* data, std::size_t bytes, uint64_t request_id);

// Collects one block of a caller's round trips: when to stop, and what was measured after the warm-up.
class Samples {
 public:
  Samples(uint32_t* out, uint64_t duration_ns)
      : out_(out),
        start_ns_(NowNs()),
        warm_ns_(start_ns_ + WarmUpOf(duration_ns)),
        end_ns_(start_ns_ + duration_ns) {}

  // Records a round trip from `begin_ns` to `end_ns` (CLOCK_MONOTONIC). False once the block is over.
  bool Add(uint64_t begin_ns, uint64_t end_ns) {
    if (begin_ns >= warm_ns_) {
      if (count_ == 0) first_ns_ = begin_ns;
      const uint64_t took = end_ns - begin_ns;
      out_[count_++] = took > UINT32_MAX ? UINT32_MAX : static_cast<uint32_t>(took);
      last_ns_ = end_ns;
    }
    return end_ns < end_ns_ && count_ < kSamplesMax;
  }

  std::size_t count() const { return count_; }
  uint64_t elapsed_ns() const { return last_ns_ - first_ns_; }
  static uint64_t WarmUpOf(uint64_t duration_ns) {
    return kWarmUpNs < duration_ns / 4 ? kWarmUpNs : duration_ns / 4;
  }

 private:
  uint32_t* out_;
  uint64_t start_ns_;
  uint64_t warm_ns_;
  uint64_t end_ns_;
  uint64_t first_ns_ = 0;
  uint64_t last_ns_ = 0;
  std::size_t count_ = 0;
};

// Counts one block of a row of a rate: what ends after the warm-up, and the time from the first end to the
// last.
class RateMeter {
 public:
  explicit RateMeter(uint64_t duration_ns)
      : start_ns_(NowNs()),
        warm_ns_(start_ns_ + Samples::WarmUpOf(duration_ns)),
        end_ns_(start_ns_ + duration_ns) {}

  // `count` messages have ended at `now_ns`. False once the block is over.
  bool Add(uint64_t now_ns, uint64_t count) {
    if (now_ns >= warm_ns_) {
      if (first_ns_ == 0) {
        first_ns_ = now_ns;
      } else {
        messages_ += count;
        last_ns_ = now_ns;
      }
    }
    return now_ns < end_ns_;
  }
  uint64_t messages() const { return messages_; }
  uint64_t elapsed_ns() const { return last_ns_ - first_ns_; }

 private:
  uint64_t start_ns_;
  uint64_t warm_ns_;
  uint64_t end_ns_;
  uint64_t first_ns_ = 0;
  uint64_t last_ns_ = 0;
  uint64_t messages_ = 0;
};

class PairRow : public Row {
 public:
  using Row::Row;
  ~PairRow() override { Teardown(); }

  absl::Status Setup() final;
  absl::StatusOr<Block> RunBlock(uint64_t duration_ns) final;
  void Teardown() final;

 protected:
  // In the coordinator, before the fork: makes the sockets or the memory that both sides use.
  virtual absl::Status Prepare() = 0;
  // In the caller's process: round trips for `duration_ns`, then tells the callee through the medium under
  // test to stop. `samples` has room for kSamplesMax.
  virtual Worker::Reply Call(uint32_t* samples, uint64_t duration_ns) = 0;
  // In the callee's process: answers until told to stop.
  virtual Worker::Reply Answer() = 0;
  // In the coordinator: closes its copies of what Prepare() made.
  virtual void Release() {}
  // Adds the row's own counters, e.g. from the callee's reply.
  virtual void AddCounts(const Worker::Reply& caller, const Worker::Reply& callee, Block* block) {}

 private:
  Mapping samples_;
  Worker caller_;
  Worker callee_;
};

// Anonymous memory that forked children share with the coordinator, zeroed and populated.
absl::StatusOr<Mapping> SharedMemory(std::size_t bytes);

}  // namespace weft::bench

#endif  // WEFT_BENCH_PAIR_ROW_H_
