// SPDX-License-Identifier: Apache-2.0
// Copies of a chunk into, and out of, memory that two cores share. Used by Producer and SharedAccess, on the
// channel's owner thread.
//
// What a copy into shared memory costs depends on where the reader's core is. An ordinary store first fetches
// the line, of which the reader's cache still holds a copy from the round before: 64 KiB take 2 to 3 us
// between neighbours, 8 us or 28 us where the two cores share no cache. A streaming store fetches nothing and
// takes 2.2 us anywhere, but the reader then finds the bytes in memory, 3.1 us for what takes 2 us out of a
// neighbour's cache. A virtual machine's cores move, so both ways are tried now and then, and the better one
// is taken until the next trial (bench rows of 1 MiB).
#ifndef WEFT_DATAPLANE_CHANNEL_BULK_COPY_H_
#define WEFT_DATAPLANE_CHANNEL_BULK_COPY_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "dataplane/base/attributes.h"
#include "dataplane/base/clock.h"

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace weft {

// From here on the string instructions of glibc's memcpy pay, and a streaming copy does.
inline constexpr std::size_t kBulkBytesMin = 4 * 1024;

#if defined(__x86_64__)
// Copies without fetching the lines of `to`; what follows in program order is seen after it.
inline void CopyStreaming(std::byte* to, const std::byte* from, std::size_t bytes) {
  const std::size_t head = std::min(bytes, -reinterpret_cast<std::uintptr_t>(to) % kCacheLineBytes);
  std::memcpy(to, from, head);
  std::size_t at = head;
  for (; at + kCacheLineBytes <= bytes; at += kCacheLineBytes) {
    // A whole line at once, so that it leaves the core in one piece.
    __m128i part[4];
    for (int i = 0; i < 4; ++i) part[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at) + i);
    for (int i = 0; i < 4; ++i) _mm_stream_si128(reinterpret_cast<__m128i*>(to + at) + i, part[i]);
  }
  std::memcpy(to + at, from + at, bytes - at);
  // Streaming stores are ordered with nothing; the lap that publishes them is an ordinary store.
  _mm_sfence();
}

// Copies with ordinary vector loads and stores.
inline void CopyInVectors(std::byte* to, const std::byte* from, std::size_t bytes) {
  std::size_t at = 0;
  for (; at + kCacheLineBytes <= bytes; at += kCacheLineBytes) {
    __m128i part[4];
    for (int i = 0; i < 4; ++i) part[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at) + i);
    for (int i = 0; i < 4; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + at) + i, part[i]);
  }
  std::memcpy(to + at, from + at, bytes - at);
}
#endif

// As memcpy. Zen's string copy, which glibc takes for large blocks, needs 15 times as long where the target
// lies 1 to 15 bytes further within its page than the source (m: 299 us for 1 MiB against 20).
inline void CopyBulk(std::byte* to, const std::byte* from, std::size_t bytes) {
#if defined(__x86_64__)
  constexpr std::uintptr_t kPageBytes = 4096;
  const std::uintptr_t ahead =
      (reinterpret_cast<std::uintptr_t>(to) - reinterpret_cast<std::uintptr_t>(from)) % kPageBytes;
  if (bytes >= kBulkBytesMin && ahead != 0 && ahead < kCacheLineBytes) [[unlikely]] {
    CopyInVectors(to, from, bytes);
    return;
  }
#endif
  std::memcpy(to, from, bytes);
}

// The copies of one producer into its arena.
class BulkWriter {
 public:
  WEFT_HOT void Copy(std::byte* to, const std::byte* from, std::size_t bytes) {
#if defined(__x86_64__)
    if (bytes >= kMeasuredBytesMin) {
      CopyMeasured(to, from, bytes);
      return;
    }
#endif
    CopyBulk(to, from, bytes);
  }

 private:
  // Below, the time of a copy says little.
  static constexpr std::size_t kMeasuredBytesMin = 32 * 1024;
  // Copies from one trial to the next, about a millisecond's worth, and those that are the trial, half each
  // way.
  static constexpr uint32_t kRoundCopies = 256;
  static constexpr uint32_t kTrialCopies = 4;

#if defined(__x86_64__)
  void CopyMeasured(std::byte* to, const std::byte* from, std::size_t bytes) {
    const uint32_t turn = turn_++ % kRoundCopies;
    if (turn >= kTrialCopies) [[likely]] {
      stream_ ? CopyStreaming(to, from, bytes) : CopyBulk(to, from, bytes);
      return;
    }
    if (turn == 0) best_[0] = best_[1] = UINT64_MAX;
    const bool stream = turn % 2 == 1;
    const uint64_t begin = Ticks();
    stream ? CopyStreaming(to, from, bytes) : CopyBulk(to, from, bytes);
    uint64_t& best = best_[stream ? 1 : 0];
    best = std::min(best, (Ticks() - begin) * 1024 / bytes);
    // What the reader loses weighs half as much again.
    if (turn == kTrialCopies - 1) stream_ = best_[0] > best_[1] + best_[1] / 2;
  }
#endif

  uint32_t turn_ = 0;
  bool stream_ = false;
  uint64_t best_[2] = {};  // Ticks a KiB of this trial: ordinary, streaming.
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_CHANNEL_BULK_COPY_H_
