// SPDX-License-Identifier: Apache-2.0
// Memory of messages between a channel and the transport, counted against the tenant that they belong to. Two
// small sizes are kept for reuse; larger ones are allocated for each message, as are more of the small ones
// than ever before. Owner thread only.
#ifndef WEFT_DATAPLANE_ENGINE_BUFFER_POOL_H_
#define WEFT_DATAPLANE_ENGINE_BUFFER_POOL_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>
#include <vector>

#include "dataplane/base/attributes.h"

namespace weft::engine {

struct alignas(16) MessageBuffer {
  MessageBuffer* next = nullptr;
  uint32_t bytes = 0;  // Of the message.
  uint32_t room = 0;   // Charged.
  uint32_t tenant = 0;
  int size_class = 0;

  std::byte* payload() { return reinterpret_cast<std::byte*>(this + 1); }
  static MessageBuffer* Of(std::byte* payload) { return reinterpret_cast<MessageBuffer*>(payload) - 1; }
};

class BufferPool {
 public:
  // `limits`: what each tenant's messages may hold here, by its index.
  explicit BufferPool(std::vector<uint64_t> limits) : limits_(std::move(limits)), used_(limits_.size()) {}
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;
  ~BufferPool() {
    for (MessageBuffer*& list : free_) {
      while (list != nullptr) std::free(std::exchange(list, list->next));
    }
  }

  // nullptr: the tenant's limit is reached, or there is no memory.
  WEFT_HOT MessageBuffer* Take(uint32_t tenant, uint32_t bytes) {
    const int size_class = bytes <= kClassBytes[0] ? 0 : bytes <= kClassBytes[1] ? 1 : 2;
    const uint32_t room = size_class < 2 ? kClassBytes[size_class] : bytes;
    if (tenant >= limits_.size() || used_[tenant] + room > limits_[tenant]) return nullptr;
    MessageBuffer* buffer = free_[size_class];
    if (buffer != nullptr) [[likely]] {
      free_[size_class] = buffer->next;
      --kept_[size_class];
    } else {
      void* const memory = std::malloc(sizeof(MessageBuffer) + room);
      if (memory == nullptr) return nullptr;
      buffer = new (memory) MessageBuffer();
    }
    used_[tenant] += room;
    buffer->bytes = bytes;
    buffer->room = room;
    buffer->tenant = tenant;
    buffer->size_class = size_class;
    return buffer;
  }

  WEFT_HOT void Give(MessageBuffer* buffer) {
    used_[buffer->tenant] -= buffer->room;
    const int size_class = buffer->size_class;
    if (kept_[size_class] >= kKeptMax[size_class]) [[unlikely]] {
      std::free(buffer);
      return;
    }
    ++kept_[size_class];
    buffer->next = free_[size_class];
    free_[size_class] = buffer;
  }

  uint64_t used_bytes(uint32_t tenant) const { return used_[tenant]; }

 private:
  static constexpr uint32_t kClassBytes[2] = {512, 8192};
  // 512 × 512 B and 32 × 8 KiB: half a megabyte at the most.
  static constexpr uint32_t kKeptMax[3] = {512, 32, 0};

  std::vector<uint64_t> limits_;
  std::vector<uint64_t> used_;
  MessageBuffer* free_[3] = {};
  uint32_t kept_[3] = {};
};

}  // namespace weft::engine

#endif  // WEFT_DATAPLANE_ENGINE_BUFFER_POOL_H_
