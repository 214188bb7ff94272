// SPDX-License-Identifier: Apache-2.0
// How producer and consumer touch memory that two processes share. Every read of what the peer wrote goes
// through this policy, so that tests can change the peer's memory before each of them, or weaken an order,
// with the very code that ships.
#ifndef WEFT_DATAPLANE_CHANNEL_ACCESS_H_
#define WEFT_DATAPLANE_CHANNEL_ACCESS_H_

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "dataplane/base/attributes.h"
#include "dataplane/channel/bulk_copy.h"

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace weft {

// 16 bytes at any address, in one register. An array in its place would be written to the stack as well, and
// stores are what a copy into shared memory waits for.
using Bytes16 [[gnu::vector_size(16), gnu::aligned(1), gnu::may_alias]] = char;

[[gnu::always_inline]] inline Bytes16 Load16(const std::byte* from) {
  return *reinterpret_cast<const Bytes16*>(from);
}
// The same by two loads of 8 bytes. A sender's message has often just been put together in words, and a load
// that spans two stores still under way waits until both are in the cache: 5 to 8 ns.
[[gnu::always_inline]] inline Bytes16 Load8And8(const std::byte* from) {
#if defined(__x86_64__)
  const __m128i low = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  return std::bit_cast<Bytes16>(
      _mm_loadh_pd(_mm_castsi128_pd(low), reinterpret_cast<const double*>(from + 8)));
#else
  return Load16(from);
#endif
}
[[gnu::always_inline]] inline void Store16(std::byte* to, Bytes16 value) {
  *reinterpret_cast<Bytes16*>(to) = value;
}

// Moves a line that this core has just written to the cache that all cores share, where the reader finds it
// without asking this core for it. A hint, after the stores to the line in program order; processors that do
// not have the instruction take it for a no-op.
[[gnu::always_inline]] inline void DemoteLine([[maybe_unused]] const std::byte* line) {
#if defined(__x86_64__)
  asm volatile("cldemote %0" : : "m"(*reinterpret_cast<const std::byte(*)[kCacheLineBytes]>(line)));
#endif
}

// Asks for a line that this core is about to write, and takes it from whoever has it. A hint, which changes
// nothing in memory.
[[gnu::always_inline]] inline void FetchToWrite(const std::byte* line) {
#if defined(__x86_64__)
  // The compiler's own makes a fetch to read of it unless it is told that the processor has this one; one
  // that has not takes it for a no-op.
  asm volatile("prefetchw %0" : : "m"(*reinterpret_cast<const std::byte(*)[kCacheLineBytes]>(line)));
#else
  __builtin_prefetch(line, /*rw=*/1);
#endif
}

// Copies 0 to 15 bytes without a call, in blocks of one size, of which two may overlap.
[[gnu::always_inline]] inline void CopyTiny(std::byte* to, const std::byte* from, std::size_t bytes) {
  const auto both = [&]<class Word>(Word first, Word last) {
    std::memcpy(&first, from, sizeof(Word));
    std::memcpy(&last, from + bytes - sizeof(Word), sizeof(Word));
    std::memcpy(to + bytes - sizeof(Word), &last, sizeof(Word));
    std::memcpy(to, &first, sizeof(Word));
  };
  if (bytes >= 8) {
    both(uint64_t{}, uint64_t{});
  } else if (bytes >= 4) {
    both(uint32_t{}, uint32_t{});
  } else if (bytes != 0) {
    // 1 to 3: first, middle and last coincide where there are fewer.
    const std::byte middle = from[bytes / 2];
    to[bytes - 1] = from[bytes - 1];
    to[bytes / 2] = middle;
    to[0] = from[0];
  }
}

// Keeps the compiler from moving stores across it. It orders nothing between processors and is not meant to:
// what it keeps apart are the stores of two cache lines, which a processor commits in program order.
[[gnu::always_inline]] inline void KeepStoreOrder() { asm volatile("" : : : "memory"); }

// Copies 0 to 96 bytes without a call, in falling order: where `to` is a cell's payload, the cell's second
// line is complete before the first, which the peer watches, is touched. Where the stores of both lines mix,
// the peer takes the first line back in between.
template <Bytes16 (*kLoad)(const std::byte*) = Load16>
[[gnu::always_inline]] inline void CopySmall(std::byte* to, const std::byte* from, std::size_t bytes) {
  if (bytes >= 32) {
    if (bytes > 64) {
      const Bytes16 low = kLoad(from + bytes - 64);
      Store16(to + bytes - 48, kLoad(from + bytes - 48));
      Store16(to + bytes - 64, low);
    }
    const Bytes16 first = kLoad(from);
    const Bytes16 second = kLoad(from + 16);
    const Bytes16 third = kLoad(from + bytes - 32);
    Store16(to + bytes - 16, kLoad(from + bytes - 16));
    Store16(to + bytes - 32, third);
    KeepStoreOrder();
    Store16(to + 16, second);
    Store16(to, first);
  } else if (bytes >= 16) {
    const Bytes16 first = kLoad(from);
    Store16(to + bytes - 16, kLoad(from + bytes - 16));
    Store16(to, first);
  } else {
    CopyTiny(to, from, bytes);
  }
}

// Copies 0 to 96 bytes without a call, in rising order: for many messages one behind the other, whose lines a
// processor fetches ahead of its stores. In falling order, with a store to another line between two messages,
// a message of 64 B took 14.5 ns instead of 9.4.
[[gnu::always_inline]] inline void CopySmallRising(std::byte* to, const std::byte* from, std::size_t bytes) {
  if (bytes < 16) return CopyTiny(to, from, bytes);
  std::size_t at = 0;
  for (; at + 16 <= bytes; at += 16) Store16(to + at, Load16(from + at));
  if (at != bytes) Store16(to + bytes - 16, Load16(from + bytes - 16));
}

struct SharedAccess {
  // The lap word publishes a cell. [C1]
  static constexpr std::memory_order kPublishOrder = std::memory_order_release;

  template <class Word>
  static Word LoadAcquire(const std::atomic<Word>& word) {
    return word.load(std::memory_order_acquire);
  }
  template <class Word>
  static Word LoadSeqCst(const std::atomic<Word>& word) {
    return word.load(std::memory_order_seq_cst);
  }

  // Reads a word of what the lap has published, once. Relaxed: ordered by the lap, atomic so that it is one
  // read.
  template <class Word>
  static Word LoadOnce(const Word& word) {
    return __atomic_load_n(&word, __ATOMIC_RELAXED);
  }

  // Copies out of the peer's memory. Whatever was read is read once: after the copy the compiler must take
  // the destination for unknown, so that it cannot read the source again in its place, which the peer may
  // have changed meanwhile. This orders nothing between processors and is not meant to.
  static void CopyFromPeer(void* to, const void* from, std::size_t bytes) {
    CopyBulk(static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes);
    asm volatile("" : : "r"(to) : "memory");
  }
  [[gnu::always_inline]] static void CopySmallFromPeer(std::byte* to, const std::byte* from,
                                                       std::size_t bytes) {
    CopySmall(to, from, bytes);
    asm volatile("" : : "r"(to) : "memory");
  }
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_CHANNEL_ACCESS_H_
