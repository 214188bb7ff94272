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

namespace weft {

// Copies 0 to 128 bytes without a call: two overlapping blocks of the largest power of two that fits.
inline void CopySmall(std::byte* to, const std::byte* from, std::size_t bytes) {
  auto ends = [&]<std::size_t kBlock>() {
    std::byte first[kBlock];
    std::byte last[kBlock];
    std::memcpy(first, from, kBlock);
    std::memcpy(last, from + bytes - kBlock, kBlock);
    std::memcpy(to, first, kBlock);
    std::memcpy(to + bytes - kBlock, last, kBlock);
  };
  if (bytes >= 64) {
    std::memcpy(to, from, 64);
    if (bytes == 64) return;
    if (bytes <= 96) {
      std::memcpy(to + bytes - 32, from + bytes - 32, 32);
    } else {
      std::memcpy(to + bytes - 64, from + bytes - 64, 64);
    }
  } else if (bytes >= 32) {
    ends.template operator()<32>();
  } else if (bytes >= 16) {
    ends.template operator()<16>();
  } else if (bytes >= 8) {
    ends.template operator()<8>();
  } else if (bytes >= 4) {
    ends.template operator()<4>();
  } else if (bytes >= 2) {
    ends.template operator()<2>();
  } else if (bytes == 1) {
    *to = *from;
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

  // Copies out of the peer's memory. Whatever was read is read once: after the copy the compiler must take
  // the destination for unknown, so that it cannot read the source again in its place, which the peer may
  // have changed meanwhile. This orders nothing between processors and is not meant to.
  static void CopyFromPeer(void* to, const void* from, std::size_t bytes) {
    std::memcpy(to, from, bytes);
    asm volatile("" : : "r"(to) : "memory");
  }
  static void CopySmallFromPeer(std::byte* to, const std::byte* from, std::size_t bytes) {
    CopySmall(to, from, bytes);
    asm volatile("" : : "r"(to) : "memory");
  }
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_CHANNEL_ACCESS_H_
