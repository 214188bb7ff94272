// SPDX-License-Identifier: Apache-2.0
// Producer and consumer as two threads over one and the same mapping, which is what ThreadSanitizer can see:
// it pairs accesses by address. Every way that a message takes is used, and every payload checked.
#ifndef WEFT_TESTS_DATAPLANE_CHANNEL_TWO_THREADS_H_
#define WEFT_TESTS_DATAPLANE_CHANNEL_TWO_THREADS_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "dataplane/base/check.h"
#include "dataplane/channel/consumer.h"
#include "dataplane/channel/producer.h"
#include "tests/dataplane/channel/guarded_side.h"

namespace weft {

struct FilledSink {
  std::byte* OnBegin(const MessageHeader&, uint32_t bytes) {
    buffers.emplace_back(bytes + 1);
    return buffers.back().data();
  }
  void OnMessage(const MessageHeader& header, std::byte* payload, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes; ++i)
      wrong += payload[i] != static_cast<std::byte>(header.request_id) ? 1 : 0;
    ++messages;
    buffers.clear();
  }
  // Every other run is taken whole.
  std::byte* OnRunBegin(const MessageHeader& first, const MessageRun& run) {
    return ++runs % 2 == 0 ? OnBegin(first, run.bytes) : nullptr;
  }
  void OnRun(const MessageHeader& first, const MessageRun& run, std::byte* payload) {
    const std::vector<std::byte> block(payload, payload + run.bytes);
    MessageHeader header = first;
    uint32_t at = 0;
    for (uint32_t i = 0; i < run.count; ++i, ++header.request_id) {
      std::vector<std::byte> message(block.begin() + at, block.begin() + at + run.lengths[i]);
      message.emplace_back();
      OnMessage(header, message.data(), run.lengths[i]);
      at += RunStride(run.lengths[i]);
    }
  }
  void OnAbort(const MessageHeader&, std::byte*) { ++wrong; }
  void OnNoBudget(const MessageHeader&, uint32_t) { ++wrong; }
  std::vector<std::vector<std::byte>> buffers;
  uint64_t messages = 0;
  uint64_t wrong = 0;
  uint64_t runs = 0;
};

// Sends `messages` of 0 to 3,000 bytes, in batches and runs, from one thread to another. Returns how many
// payloads were wrong.
template <class Access>
uint64_t RunTwoThreads(uint32_t messages) {
  GuardedSide a(kArenaBytesMin * 4);
  GuardedSide b(kArenaBytesMin * 4);
  BasicProducer<Access> producer(a.own(), b.peer(), kArenaBytesMin * 4, kMessageBytesMaxDefault);
  BasicConsumer<Access> consumer(b.own(), a.peer(), kArenaBytesMin * 4, kMessageBytesMaxDefault, nullptr);
  FilledSink sink;
  std::thread receiver([&] {
    while (sink.messages < messages && consumer.poison_reason() == PoisonReason::kNone) {
      if (consumer.Poll(sink, 16, [](uint64_t) {}) == 0) std::this_thread::yield();
    }
  });
  std::vector<std::byte> payload(3000);
  for (uint32_t id = 0; id < messages;) {
    if (id % 5 == 0) {
      std::array<std::array<std::byte, 96>, 12> bytes;
      std::array<std::span<const std::byte>, 12> run;
      const uint32_t count = std::min<uint32_t>(12, messages - id);
      for (uint32_t i = 0; i < count; ++i) {
        bytes[i].fill(static_cast<std::byte>(id + i));
        run[i] = std::span(bytes[i]).first((id + i) % 97);
      }
      id += producer.TrySendRun({.request_id = id, .kind = MessageKind::kOneWay}, std::span(run).first(count),
                                Lane::kRequest);
      if (id >= messages) {
        producer.Publish();
        break;
      }
    }
    for (uint32_t burst = id % 7 == 0 ? 20 : 1; burst > 0 && id < messages; --burst) {
      const std::size_t bytes = id % 11 == 0 ? 97 + id % 2900 : id % 97;
      std::memset(payload.data(), static_cast<int>(id & 0xff), bytes);
      MessageHeader header;
      header.request_id = id;
      header.deadline_ns = id / 16;
      if (!producer.TrySend(header, Payload(std::span(payload.data(), bytes)), Lane::kRequest)) {
        std::this_thread::yield();
        break;
      }
      ++id;
    }
    producer.Publish();
  }
  receiver.join();
  WEFT_CHECK(consumer.poison_reason() == PoisonReason::kNone);
  WEFT_CHECK(producer.poison_reason() == PoisonReason::kNone);
  return sink.wrong;
}

}  // namespace weft

#endif  // WEFT_TESTS_DATAPLANE_CHANNEL_TWO_THREADS_H_
