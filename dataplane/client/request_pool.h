// SPDX-License-Identifier: Apache-2.0
// Memory of requests between their channel and their handler: a record with the payload behind it, in three
// sizes that are kept for reuse, last in, first out. Above, each is as large as it was first needed, and a
// few megabytes of those are kept: fresh memory costs a page fault every 4 KiB, more than copying a message
// into it. Owner thread only.
#ifndef WEFT_DATAPLANE_CLIENT_REQUEST_POOL_H_
#define WEFT_DATAPLANE_CLIENT_REQUEST_POOL_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "dataplane/base/attributes.h"
#include "dataplane/call/link.h"

namespace weft {

struct alignas(kCacheLineBytes) RequestBuffer {
  RequestBuffer* next = nullptr;
  uint32_t bytes = 0;
  uint32_t room_bytes = 0;
  // Of a run: its messages, those begun, those not ended, and where the next one begins. Their lengths stand
  // behind the payloads.
  uint32_t messages = 1;
  uint32_t begun = 0;
  uint32_t unended = 1;
  uint32_t next_at = 0;
  int size_class = 0;
  bool cancelled = false;
  Incoming incoming;

  std::byte* payload() { return reinterpret_cast<std::byte*>(this + 1); }
  static RequestBuffer* Of(std::byte* payload) { return reinterpret_cast<RequestBuffer*>(payload) - 1; }
};

class RequestPool {
 public:
  RequestPool() = default;
  RequestPool(const RequestPool&) = delete;
  RequestPool& operator=(const RequestPool&) = delete;
  ~RequestPool() {
    for (RequestBuffer*& list : free_) {
      while (list != nullptr) Delete(std::exchange(list, list->next));
    }
  }

  // A record with room for `bytes` of payload; nullptr where there is no memory. Allocates only where more
  // are in use than ever before, or none above kClassBytes is kept that is large enough.
  WEFT_HOT RequestBuffer* Take(uint32_t bytes) {
    const int size_class = bytes <= kClassBytes[0]   ? 0
                           : bytes <= kClassBytes[1] ? 1
                           : bytes <= kClassBytes[2] ? 2
                                                     : 3;
    if (size_class == kClasses - 1) [[unlikely]]
      return TakeLarge(bytes);
    RequestBuffer* buffer = free_[size_class];
    if (buffer != nullptr) [[likely]] {
      free_[size_class] = buffer->next;
      --kept_[size_class];
      return buffer;
    }
    return Make(size_class, bytes);
  }
  WEFT_HOT void Give(RequestBuffer* buffer) {
    const int size_class = buffer->size_class;
    if (kept_[size_class] >= kKeptMax[size_class] ||
        (size_class == kClasses - 1 && buffer->room_bytes > kLargeKeptBytes - large_kept_bytes_))
        [[unlikely]] {
      Delete(buffer);
      return;
    }
    if (size_class == kClasses - 1) large_kept_bytes_ += buffer->room_bytes;
    ++kept_[size_class];
    buffer->next = free_[size_class];
    free_[size_class] = buffer;
  }

 private:
  static constexpr int kClasses = 4;
  static constexpr uint32_t kClassBytes[kClasses - 1] = {256, 4096, 64 * 1024};
  // 1,024 × 384 B, 64 × 4 KiB, 8 × 64 KiB: about 1.2 MB at the most.
  static constexpr uint32_t kKeptMax[kClasses] = {1024, 64, 8, 8};
  // Of the last class, in all.
  static constexpr uint32_t kLargeKeptBytes = 4 * 1024 * 1024;

  // The latest of the large ones that were kept and has room.
  RequestBuffer* TakeLarge(uint32_t bytes) {
    for (RequestBuffer** at = &free_[kClasses - 1]; *at != nullptr; at = &(*at)->next) {
      RequestBuffer* const buffer = *at;
      if (buffer->room_bytes < bytes) continue;
      *at = buffer->next;
      --kept_[kClasses - 1];
      large_kept_bytes_ -= buffer->room_bytes;
      return buffer;
    }
    return Make(kClasses - 1, bytes);
  }

  static RequestBuffer* Make(int size_class, uint32_t bytes) {
    const std::size_t room = size_class < kClasses - 1 ? kClassBytes[size_class] : bytes;
    void* memory = std::aligned_alloc(kCacheLineBytes, (sizeof(RequestBuffer) + room + kCacheLineBytes - 1) /
                                                           kCacheLineBytes * kCacheLineBytes);
    if (memory == nullptr) return nullptr;
    auto* buffer = new (memory) RequestBuffer();
    buffer->size_class = size_class;
    buffer->room_bytes = static_cast<uint32_t>(room);
    return buffer;
  }
  static void Delete(RequestBuffer* buffer) {
    buffer->~RequestBuffer();
    std::free(buffer);
  }

  RequestBuffer* free_[kClasses] = {};
  uint32_t kept_[kClasses] = {};
  uint32_t large_kept_bytes_ = 0;
};

// First in, first out, of records that somebody else owns.
class RequestQueue {
 public:
  void Push(RequestBuffer* request) {
    request->next = nullptr;
    (last_ != nullptr ? last_->next : first_) = request;
    last_ = request;
    ++size_;
  }
  RequestBuffer* Pop() {
    RequestBuffer* request = first_;
    if (request == nullptr) return nullptr;
    first_ = request->next;
    if (first_ == nullptr) last_ = nullptr;
    --size_;
    return request;
  }
  RequestBuffer* first() const { return first_; }
  uint32_t size() const { return size_; }

 private:
  RequestBuffer* first_ = nullptr;
  RequestBuffer* last_ = nullptr;
  uint32_t size_ = 0;
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_CLIENT_REQUEST_POOL_H_
