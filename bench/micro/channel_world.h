// SPDX-License-Identifier: Apache-2.0
// Two processes with channels between them, and the memory that the limits use: the caller, on core 0, runs
// the benchmarks; the callee, on core 1, answers as the mode says. One thread in each.
#ifndef WEFT_BENCH_MICRO_CHANNEL_WORLD_H_
#define WEFT_BENCH_MICRO_CHANNEL_WORLD_H_

#include <sched.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "dataplane/base/check.h"
#include "dataplane/channel/channel.h"

namespace weft {

inline constexpr std::size_t kSmall = 64;
inline constexpr std::size_t kLarge = 1 << 20;
inline constexpr uint32_t kStep = 64 << 10;
inline constexpr uint64_t kRingLines = 256;
inline constexpr int kManyChannels = 1000;

enum class Mode : uint32_t {
  kIdle,
  kRawPingPong,
  kChannelPingPong,
  kPollerPingPong,
  kManyPingPong,
  kRawBatched,
  kChannelBatched,
  kTwoMemcpy,
  kChannelLarge,
  kEventfdWake,
  kChannelWake,
  kExit,
};

struct alignas(256) Word {
  std::atomic<uint64_t> value{0};
};
struct alignas(64) Line {
  std::byte bytes[kSmall];
};

// What the two processes share beside the channels.
struct Shared {
  Word mode;  // [B1] written by the caller.
  Word done;  // [B2] written by the callee: the mode that it has left.
  Word stop;
  Word ping;  // [B3]
  Word pong;  // [B4]
  Word tail;  // [B5]
  Word head;  // [B6]
  Word errors;
  Line lines[kRingLines];
  alignas(4096) std::byte bulk[kLarge];
};

inline void Fill(std::byte* to, std::size_t bytes, uint64_t id) {
  std::memset(to, static_cast<int>(id * 0x9e & 0xff) ^ 0x5a, bytes);
}
inline bool Check(const std::byte* from, std::size_t bytes, uint64_t id) {
  const uint64_t want = 0x0101010101010101ull * ((id * 0x9e & 0xff) ^ 0x5a);
  uint64_t wrong = 0;
  for (std::size_t i = 0; i < bytes; i += 8) {
    uint64_t word;
    std::memcpy(&word, from + i, 8);
    wrong |= word ^ want;
  }
  return wrong == 0;
}

inline void Pin(int core) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(core, &cores);
  sched_setaffinity(0, sizeof(cores), &cores);
}

inline std::span<const std::byte> SpanOf(const std::byte* data, std::size_t bytes) { return {data, bytes}; }

// Receives messages into one buffer and counts the wrong ones.
struct CheckingSink {
  std::byte* OnBegin(const MessageHeader&, uint32_t bytes) { return buffer.data(); }
  [[gnu::always_inline]] void OnMessage(const MessageHeader& header, std::byte* payload, uint32_t bytes) {
    last = header.request_id;
    ++messages;
    errors += (bytes == kSmall ? Check(payload, kSmall, header.request_id)
                               : Check(payload, bytes, header.request_id))
                  ? 0
                  : 1;
  }
  void OnAbort(const MessageHeader&, std::byte*) { ++errors; }
  void OnNoBudget(const MessageHeader&, uint32_t) { ++errors; }

  alignas(64) std::array<std::byte, kLarge> buffer{};
  uint32_t last = 0;
  uint64_t messages = 0;
  uint64_t errors = 0;
};

struct End {
  std::optional<Doorbell> bell;
  std::unique_ptr<Channel> channel;
};

// Answers each request with 64 bytes. Large ones are checked after the answer, as in the limit's loop.
struct AnsweringSink : CheckingSink {
  [[gnu::always_inline]] void OnMessage(const MessageHeader& header, std::byte* payload, uint32_t bytes) {
    if (bytes <= kChunkBytesMax) CheckingSink::OnMessage(header, payload, bytes);
    MessageHeader reply;
    reply.kind = MessageKind::kResponse;
    reply.request_id = header.request_id;
    alignas(64) std::byte answer[kSmall];
    Fill(answer, kSmall, header.request_id);
    errors += channel->TrySend(reply, SpanOf(answer, kSmall), Lane::kReply) ? 0 : 1;
    channel->Publish();
    if (bytes <= kChunkBytesMax) return;
    CheckingSink::OnMessage(header, payload, bytes);
    checked->store(header.request_id, std::memory_order_release);  // [B6]
  }
  Channel* channel = nullptr;
  std::atomic<uint64_t>* checked = nullptr;
};

template <class Sink>
struct OneSinkHandler {
  Sink& SinkFor(Channel& channel) { return sink; }
  void OnClosed(Channel&) { ++closed; }
  Sink& sink;
  int closed = 0;
};

struct AnsweringHandler {
  AnsweringSink& SinkFor(Channel& channel) {
    sink.channel = &channel;
    return sink;
  }
  void OnClosed(Channel&) { ++closed; }
  AnsweringSink& sink;
  int closed = 0;
};

// Both processes inherit all of this; each uses its own end.
class World {
 public:
  static World& Get() {
    static World* world = new World();
    return *world;
  }

  Shared* shared;
  End caller;
  End callee;
  std::vector<End> many_caller;  // 0: the busy one.
  std::vector<End> many_callee;
  int event_fd;
  std::unique_ptr<CheckingSink> sink = std::make_unique<CheckingSink>();
  std::vector<std::byte> source = std::vector<std::byte>(kLarge);

  void Start(Mode mode) {
    shared->stop.value.store(0, std::memory_order_relaxed);
    shared->ping.value.store(0, std::memory_order_relaxed);
    shared->pong.value.store(0, std::memory_order_relaxed);
    shared->head.value.store(0, std::memory_order_relaxed);
    shared->tail.value.store(0, std::memory_order_relaxed);
    shared->mode.value.store(static_cast<uint64_t>(mode), std::memory_order_release);  // [B1]
  }
  // Waits for the callee to notice `stop`, which the caller has set by then.
  void Finish(Mode mode) {
    shared->stop.value.store(1, std::memory_order_release);
    while (shared->done.value.load(std::memory_order_acquire) != static_cast<uint64_t>(mode)) {  // [B2]
    }
    shared->mode.value.store(0, std::memory_order_release);
    while (shared->done.value.load(std::memory_order_acquire) != 0) {
    }
    WEFT_CHECK(shared->errors.value.load(std::memory_order_relaxed) == 0);
    WEFT_CHECK(sink->errors == 0);
  }

 private:
  World();

  bool Stopped() { return shared->stop.value.load(std::memory_order_acquire) != 0; }
  void Callee();
  void AnswerRaw();
  void AnswerChannel(AnsweringSink& answers);
  void AnswerPoller(AnsweringSink& answers, std::vector<End*> ends, uint64_t poll_time_ns);
  void TakeRawBatches();
  void TakeChannelBatches(CheckingSink& taken);
  void TakeBulk(CheckingSink& taken);
  void AnswerEvents();
};

}  // namespace weft

#endif  // WEFT_BENCH_MICRO_CHANNEL_WORLD_H_
