// SPDX-License-Identifier: Apache-2.0
// Both ends of a channel in one process, and a sink that keeps what arrives. For tests, on one thread or with
// one thread an end.
#ifndef WEFT_TESTS_DATAPLANE_CHANNEL_CHANNEL_PAIR_H_
#define WEFT_TESTS_DATAPLANE_CHANNEL_CHANNEL_PAIR_H_

#include <fcntl.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dataplane/channel/channel.h"
#include "dataplane/channel/doorbell.h"

namespace weft {

inline UniqueFd Duplicate(int fd) { return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

inline std::span<const std::byte> BytesOf(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// `bytes` that depend on `seed`: what one message carries is not what another does.
inline std::string Pattern(uint64_t seed, std::size_t bytes) {
  std::string text(bytes, '\0');
  uint64_t state = seed * 0x9e3779b97f4a7c15 + 1;
  for (std::size_t i = 0; i < bytes; ++i) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    text[i] = static_cast<char>(state);
  }
  return text;
}

// Arenas that are soon full.
inline ChannelOptions SmallArenas() { return {.arena_bytes = 256 * 1024, .peer_arena_bytes = 256 * 1024}; }

struct ChannelPair {
  explicit ChannelPair(const ChannelOptions& a_options = SmallArenas(),
                       const ChannelOptions& b_options = SmallArenas()) {
    absl::StatusOr<DoorbellPair> bells = MakeDoorbellPair();
    EXPECT_TRUE(bells.ok()) << bells.status();
    a_bell.emplace(*Doorbell::Create(std::move(bells->first)));
    b_bell.emplace(*Doorbell::Create(std::move(bells->second)));
    a = *Channel::Create(a_options);
    b = *Channel::Create(b_options);
    EXPECT_TRUE(a->Connect(Duplicate(b->memory_fd()), &*a_bell).ok());
    EXPECT_TRUE(b->Connect(Duplicate(a->memory_fd()), &*b_bell).ok());
  }

  std::optional<Doorbell> a_bell;
  std::optional<Doorbell> b_bell;
  std::unique_ptr<Channel> a;
  std::unique_ptr<Channel> b;
};

struct KeepingSink {
  struct Message {
    MessageHeader header;
    std::string payload;
  };
  std::byte* OnBegin(const MessageHeader& header, uint32_t bytes) {
    if (refuse) return nullptr;
    ++begun;
    buffers.push_back(std::make_unique<std::byte[]>(bytes + 1));
    return buffers.back().get();
  }
  void OnMessage(const MessageHeader& header, std::byte* payload, uint32_t bytes) {
    messages.push_back({header, std::string(reinterpret_cast<char*>(payload), bytes)});
  }
  void OnAbort(const MessageHeader& header, std::byte* payload) { aborted.push_back(header); }
  void OnNoBudget(const MessageHeader& header, uint32_t bytes) { no_budget.push_back(header); }

  bool refuse = false;
  int begun = 0;
  std::vector<std::unique_ptr<std::byte[]>> buffers;
  std::vector<Message> messages;
  std::vector<MessageHeader> aborted;
  std::vector<MessageHeader> no_budget;
};

// For ever.
inline constexpr uint64_t kFarDeadlineNs = uint64_t{1} << 62;

inline MessageHeader Request(uint32_t id) {
  MessageHeader header;
  header.function_id = 0x1122334455667788 + id;
  header.deadline_ns = kFarDeadlineNs;
  header.request_id = id;
  header.caller_index = static_cast<uint16_t>(id);
  header.kind = MessageKind::kRequest;
  header.flags = static_cast<uint8_t>(id);
  return header;
}

inline bool Send(Channel& channel, uint32_t id, const std::string& payload, Lane lane = Lane::kRequest) {
  const bool sent = channel.TrySend(Request(id), BytesOf(payload), lane);
  channel.Publish();
  return sent;
}

}  // namespace weft

#endif  // WEFT_TESTS_DATAPLANE_CHANNEL_CHANNEL_PAIR_H_
