// SPDX-License-Identifier: Apache-2.0
// How producer and consumer touch memory that two processes share. Every read of what the peer wrote goes
// through this policy, so that tests can change the peer's memory before each of them, or weaken an order,
// with the very code that ships.
#ifndef WEFT_DATAPLANE_CHANNEL_ACCESS_H_
#define WEFT_DATAPLANE_CHANNEL_ACCESS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "dataplane/channel/bulk_copy.h"

namespace weft {

// Copies 0 to 96 bytes without a call, in blocks of one size, of which two may overlap. In falling order:
// where `to` is a cell's payload, the cell's second line is complete before the first, which the peer
// watches, is touched.
[[gnu::always_inline]] inline void CopySmall(std::byte* to, const std::byte* from, std::size_t bytes) {
  auto both = [&]<std::size_t kBlock>() {
    std::byte first[kBlock];
    std::byte last[kBlock];
    std::memcpy(first, from, kBlock);
    std::memcpy(last, from + bytes - kBlock, kBlock);
    std::memcpy(to + bytes - kBlock, last, kBlock);
    std::memcpy(to, first, kBlock);
  };
  if (bytes >= 32) {
    if (bytes > 64) std::memcpy(to + bytes - 64, from + bytes - 64, 32);
    both.template operator()<32>();
  } else if (bytes >= 16) {
    both.template operator()<16>();
  } else if (bytes >= 8) {
    both.template operator()<8>();
  } else if (bytes >= 4) {
    both.template operator()<4>();
  } else if (bytes != 0) {
    // 1 to 3: first, middle and last coincide where there are fewer.
    const std::byte middle = from[bytes / 2];
    to[bytes - 1] = from[bytes - 1];
    to[bytes / 2] = middle;
    to[0] = from[0];
  }
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
