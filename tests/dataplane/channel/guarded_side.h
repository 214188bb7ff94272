// SPDX-License-Identifier: Apache-2.0
// A side memory in this process with unreadable pages before and behind it, so that a read outside ends the
// test, and a sink that catches a write outside its buffers. For tests that put producer and consumer over
// one mapping.
#ifndef WEFT_TESTS_DATAPLANE_CHANNEL_GUARDED_SIDE_H_
#define WEFT_TESTS_DATAPLANE_CHANNEL_GUARDED_SIDE_H_

#include <sys/mman.h>

#include <cstring>
#include <map>
#include <memory>

#include "dataplane/base/check.h"
#include "dataplane/channel/layout.h"
#include "dataplane/channel/message.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define WEFT_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define WEFT_SANITIZED 1
#endif
#endif
#ifndef WEFT_SANITIZED
#define WEFT_SANITIZED 0
#endif

namespace weft {

class GuardedSide {
 public:
  explicit GuardedSide(uint32_t arena_bytes) : bytes_(SideMemoryBytes(arena_bytes)) {
    void* all = mmap(nullptr, bytes_ + 2 * kGuardBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    WEFT_CHECK(all != MAP_FAILED);
    all_ = static_cast<std::byte*>(all);
    WEFT_CHECK(mprotect(all_ + kGuardBytes, bytes_, PROT_READ | PROT_WRITE) == 0);
    InitialiseSide(own());
  }
  ~GuardedSide() { munmap(all_, bytes_ + 2 * kGuardBytes); }
  GuardedSide(const GuardedSide&) = delete;
  GuardedSide& operator=(const GuardedSide&) = delete;

  // As fresh memory.
  void Reset() {
    std::memset(data(), 0, kArenaOffset);
    InitialiseSide(own());
  }
  std::byte* data() { return all_ + kGuardBytes; }
  OwnSide own() { return OwnSide(data()); }
  PeerSide peer() { return PeerSide(data()); }

 private:
  static constexpr std::size_t kGuardBytes = 1 << 20;
  std::size_t bytes_;
  std::byte* all_;
};

// Gives each message a buffer of exactly its size, and checks a canary behind it where no sanitizer would.
class CanarySink {
 public:
  std::byte* OnBegin(const MessageHeader& header, uint32_t bytes) {
    CheckHeader(header);
    WEFT_CHECK(bytes <= bytes_max);
    auto buffer = std::make_unique<std::byte[]>(bytes + kCanaryBytes);
    std::memset(buffer.get() + bytes, kCanary, kCanaryBytes);
    std::byte* const at = buffer.get();
    open_[at] = Buffer{std::move(buffer), bytes};
    return at;
  }
  void OnMessage(const MessageHeader& header, std::byte* payload, uint32_t bytes) {
    CheckHeader(header);
    WEFT_CHECK(open_.at(payload).bytes == bytes);
    End(payload);
    ++messages;
  }
  void OnAbort(const MessageHeader& header, std::byte* payload) {
    End(payload);
    ++aborts;
  }
  void OnNoBudget(const MessageHeader& header, uint32_t bytes) { WEFT_CHECK(bytes <= bytes_max); }
  // Every other run is taken whole.
  std::byte* OnRunBegin(const MessageHeader& first, const MessageRun& run) {
    CheckRun(run);
    return ++runs % 2 == 0 ? OnBegin(first, run.bytes) : nullptr;
  }
  void OnRun(const MessageHeader& first, const MessageRun& run, std::byte* payload) {
    CheckRun(run);
    OnMessage(first, payload, run.bytes);
  }
  std::size_t open() const { return open_.size(); }

  uint32_t bytes_max = kMessageBytesMaxDefault;
  uint64_t messages = 0;
  uint64_t aborts = 0;
  uint64_t runs = 0;

 private:
  static constexpr std::size_t kCanaryBytes = WEFT_SANITIZED ? 0 : 64;
  static constexpr int kCanary = 0xc5;
  struct Buffer {
    std::unique_ptr<std::byte[]> memory;
    uint32_t bytes;
  };
  static void CheckHeader(const MessageHeader& header) {
    const auto kind = static_cast<uint8_t>(header.kind);
    WEFT_CHECK(kind >= 1 && kind <= kMessageKindLast);
  }
  static void CheckRun(const MessageRun& run) {
    uint32_t sum = 0;
    WEFT_CHECK(run.count >= 1 && run.count <= kRunMessagesMax);
    for (uint32_t i = 0; i < run.count; ++i) {
      WEFT_CHECK(run.lengths[i] <= kInlineBytesMax);
      sum += RunStride(run.lengths[i]);
    }
    WEFT_CHECK(sum == run.bytes);
  }
  void End(std::byte* payload) {
    auto found = open_.find(payload);
    WEFT_CHECK(found != open_.end());
    for (std::size_t i = 0; i < kCanaryBytes; ++i) {
      WEFT_CHECK(found->second.memory[found->second.bytes + i] == static_cast<std::byte>(kCanary));
    }
    open_.erase(found);
  }
  std::map<std::byte*, Buffer> open_;
};

}  // namespace weft

#endif  // WEFT_TESTS_DATAPLANE_CHANNEL_GUARDED_SIDE_H_
