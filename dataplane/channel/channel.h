// SPDX-License-Identifier: Apache-2.0
// One channel: joins this process to one peer process by two sealed memories, each written by one of them.
// Made by libweft and weft-host, brokered by the agent, driven by a Poller. Everything here runs on the
// channel's owner thread; nothing blocks, and after Connect nothing allocates.
#ifndef WEFT_DATAPLANE_CHANNEL_CHANNEL_H_
#define WEFT_DATAPLANE_CHANNEL_CHANNEL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/base/attributes.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/mapping.h"
#include "dataplane/channel/access.h"
#include "dataplane/channel/byte_budget.h"
#include "dataplane/channel/consumer.h"
#include "dataplane/channel/doorbell.h"
#include "dataplane/channel/layout.h"
#include "dataplane/channel/message.h"
#include "dataplane/channel/poison.h"
#include "dataplane/channel/producer.h"
#include "dataplane/channel/side_memory.h"

namespace weft {

struct ChannelOptions {
  uint32_t arena_bytes = kArenaBytesDefault;       // This side's arena; ValidArenaBytes.
  uint32_t peer_arena_bytes = kArenaBytesDefault;  // The peer's; the agent tells it.
  uint32_t message_bytes_max = kMessageBytesMaxDefault;
  // What messages in parts may hold here, in bytes; shared by the channels of a thread. nullptr: no limit.
  ByteBudget* budget = nullptr;
};

enum class ChannelState : uint8_t {
  kNew,  // Not connected yet.
  kOpen,
  kPoisoned,  // The peer broke a rule: poison_reason().
  kPeerDead,  // The peer is gone, and what it had published has been read.
};

enum class StreamState : uint8_t {
  kMoreToSend,  // No room, or as much went out as one call sends: a caller waits for room only after a call
                // that sent nothing, since nobody rings for room that is there already.
  kDone,        // All is published; the payload is no longer needed.
  kStalled,     // The peer read nothing for kStreamStallNs. Given up: DEADLINE_EXCEEDED.
  kClosed,      // The channel is not open.
};

struct PollerBell;

// What the Poller keeps about a channel, in the channel, so that it finds it without a look-up.
struct PollerHook {
  PollerBell* bell = nullptr;  // Null: no poller has the channel.
  void* poller = nullptr;
  void (*unpark)(void* poller, void* channel) = nullptr;
  int active_index = -1;       // In the poller's set of channels that it polls; -1: parked.
  uint32_t progress = 0;       // Sum of both heads when the doorbell was last drained.
  uint64_t traffic_ticks = 0;  // When a poll last found something.
};

template <class Access>
class BasicChannel {
 public:
  // Makes this side's memory. INVALID_ARGUMENT names an option out of range; RESOURCE_EXHAUSTED: no memory.
  static absl::StatusOr<std::unique_ptr<BasicChannel>> Create(const ChannelOptions& options);

  // Descriptor of this side's memory, to be passed to the peer; stays the channel's.
  int memory_fd() const { return memory_.fd(); }
  // Bytes of this side's memory, which count against its owner's limit.
  std::size_t memory_bytes() const { return memory_.bytes(); }

  // Checks and maps the peer's memory and opens the channel. `doorbell` leads to the peer's process, may be
  // nullptr (then the peer never sleeps), and outlives the channel. FAILED_PRECONDITION names what is wrong
  // with the memory.
  absl::Status Connect(UniqueFd peer_memory, Doorbell* doorbell);

  // --- Sending. See BasicProducer for the terms.
  WEFT_HOT_INLINE void FetchNextCell() const { producer_->FetchNextCell(); }
  WEFT_HOT_INLINE bool TrySend(MessageHeader header, const Payload& payload, Lane lane) {
    if (producer_->TrySend(header, payload, lane)) [[likely]]
      return true;
    return asleep_ && AskForSpace() && producer_->TrySendAgain(header, payload, lane);
  }
  WEFT_HOT uint32_t TrySendRun(const MessageHeader& first,
                               std::span<const std::span<const std::byte>> messages, Lane lane) {
    const uint32_t sent = producer_->TrySendRun(first, messages, lane);
    if (sent != 0) [[likely]]
      return sent;
    return asleep_ && AskForSpace() ? producer_->TrySendRun(first, messages, lane) : 0;
  }
  WEFT_HOT_INLINE void Publish() {
    producer_->Publish();
    // What is sent on a parked channel will be answered there.
    if (asleep_) [[unlikely]]
      Unpark();
  }
  uint32_t whole_bytes_max() const { return producer_->whole_bytes_max(); }
  uint32_t message_bytes_max() const { return options_.message_bytes_max; }

  // For messages longer than whole_bytes_max(): start once, then pump until the state is no longer
  // kMoreToSend. `payload` stays as it is until then. False where too many streams of the lane are under way;
  // nothing is done then.
  bool TryStart(SendStream& stream, const MessageHeader& header, const Payload& payload, Lane lane,
                uint64_t now_ns) {
    return producer_->TryStart(stream, header, payload, lane, now_ns);
  }
  // Sends and publishes as many chunks as fit, at most one arena.
  StreamState Pump(SendStream& stream, uint64_t now_ns);
  // Gives a stream up that is not done, for the caller's own reasons.
  void Abort(SendStream& stream) {
    producer_->Abort(stream);
    Publish();
  }

  // --- Receiving. See BasicConsumer for the sink.
  bool Ready() const { return consumer_->Ready(); }
  // Takes at most `budget` cells; returns how many, where a run counts as its messages. 0 where there are
  // none: then state() may be final.
  template <class Sink>
  WEFT_HOT_INLINE int Poll(Sink& sink, int budget) {
    const int taken =
        consumer_->Poll(sink, budget, [this](uint64_t flags) { producer_->OnHeadPublished(flags); });
    // A poisoned ring ends here; a dead peer's does when it is empty.
    if (taken == 0 && closing()) [[unlikely]] {
      Finish(sink);
    }
    return taken;
  }
  // Takes what the peer has published so far, all of it: at most one ring, of however many messages.
  template <class Sink>
  void TakePublished(Sink& sink) {
    const uint32_t end = consumer_->head() + kCells;
    while (poison_reason() == PoisonReason::kNone && static_cast<int32_t>(end - consumer_->head()) > 0 &&
           consumer_->Poll(sink, kCells, [this](uint64_t flags) { producer_->OnHeadPublished(flags); }) !=
               0) {
    }
  }
  // Fails messages in parts that fell behind.
  template <class Sink>
  void ExpireStalled(uint64_t now_ns, Sink& sink) {
    consumer_->ExpireStalled(now_ns, sink);
  }

  // Drops the rest of the message that is being received into `payload`, where there is one.
  void Forget(const std::byte* payload) {
    if (consumer_) consumer_->Forget(payload);
  }

  // --- Life.
  ChannelState state() const { return state_; }
  PoisonReason poison_reason() const {
    return consumer_->poison_reason() != PoisonReason::kNone ? consumer_->poison_reason()
                                                             : producer_->poison_reason();
  }
  // The peer's process is gone: what it published is still read, then the state becomes kPeerDead.
  void MarkPeerDead() { peer_dead_ = true; }
  // The peer broke a rule outside the ring.
  void Poison(PoisonReason reason) { consumer_->Poison(reason); }
  // The channel is poisoned or its peer dead, and Finish is due.
  bool closing() const {
    return peer_dead_ || poison_reason() != PoisonReason::kNone ||
           (doorbell_ != nullptr && doorbell_->hung_up());
  }
  // Where closing(): takes what a dead peer had published, at most one ring, fails the messages in parts, and
  // sets the final state.
  template <class Sink>
  [[gnu::noinline]] void Finish(Sink& sink) {
    if (state_ != ChannelState::kOpen || !closing()) return;
    TakePublished(sink);
    state_ = poison_reason() != PoisonReason::kNone ? ChannelState::kPoisoned : ChannelState::kPeerDead;
    consumer_->AbortPartials(sink);
  }

  // --- Waiting; called by the Poller.
  // Tells the peer to ring; true where nothing came in before it could know. Where false, or on waking, call
  // EndSleep. Each call counts one episode, for which the peer rings once.
  bool BeginSleep();
  void EndSleep();
  bool asleep() const { return asleep_; }

  BasicProducer<Access>& producer() { return *producer_; }
  BasicConsumer<Access>& consumer() { return *consumer_; }
  Doorbell* doorbell() const { return doorbell_; }
  const ChannelOptions& options() const { return options_; }
  // For whoever keeps channels: which of them this is. Not looked at here.
  void* user_data = nullptr;
  PollerHook hook;  // The Poller's.

 private:
  BasicChannel(const ChannelOptions& options, SideMemory memory)
      : options_(options), memory_(std::move(memory)), own_(memory_.data()) {}

  // For a parked channel on which something did not fit; true where there is room by now.
  bool AskForSpace();
  void Unpark() {
    if (hook.unpark != nullptr && hook.active_index < 0) hook.unpark(hook.poller, this);
  }

  ChannelOptions options_;
  SideMemory memory_;
  OwnSide own_;
  Mapping peer_memory_;
  std::optional<BasicProducer<Access>> producer_;
  std::optional<BasicConsumer<Access>> consumer_;
  Doorbell* doorbell_ = nullptr;
  uint64_t episode_ = 0;
  ChannelState state_ = ChannelState::kNew;
  bool asleep_ = false;
  bool peer_dead_ = false;
};

using Channel = BasicChannel<SharedAccess>;

template <class Access>
absl::StatusOr<std::unique_ptr<BasicChannel<Access>>> BasicChannel<Access>::Create(
    const ChannelOptions& options) {
  if (!ValidArenaBytes(options.arena_bytes) || !ValidArenaBytes(options.peer_arena_bytes)) {
    return absl::InvalidArgumentError("channel: the arena must be a power of two from 4 KiB to 64 MiB");
  }
  if (options.message_bytes_max < kInlineBytesMax || options.message_bytes_max > kMessageBytesMaxLimit) {
    return absl::InvalidArgumentError("channel: the message limit must be 96 bytes to 1 GiB");
  }
  absl::StatusOr<SideMemory> memory =
      SideMemory::Create("weft-channel", SideMemoryBytes(options.arena_bytes));
  if (!memory.ok()) return memory.status();
  auto channel = std::unique_ptr<BasicChannel>(new BasicChannel(options, *std::move(memory)));
  InitialiseSide(channel->own_);
  return channel;
}

template <class Access>
absl::Status BasicChannel<Access>::Connect(UniqueFd peer_memory, Doorbell* doorbell) {
  if (state_ != ChannelState::kNew) return absl::FailedPreconditionError("channel: connected already");
  const std::size_t bytes = SideMemoryBytes(options_.peer_arena_bytes);
  if (absl::Status status = CheckSideMemory(peer_memory.get(), bytes); !status.ok()) return status;
  absl::StatusOr<Mapping> mapping = Mapping::Create(peer_memory.get(), bytes, Mapping::Access::kRead);
  if (!mapping.ok()) return mapping.status();
  peer_memory_ = *std::move(mapping);
  const PeerSide peer(peer_memory_.data());
  producer_.emplace(own_, peer, options_.arena_bytes, options_.message_bytes_max);
  consumer_.emplace(own_, peer, options_.peer_arena_bytes, options_.message_bytes_max, options_.budget);
  producer_->set_doorbell(doorbell);
  doorbell_ = doorbell;
  state_ = ChannelState::kOpen;
  return absl::OkStatus();
}

template <class Access>
StreamState BasicChannel<Access>::Pump(SendStream& stream, uint64_t now_ns) {
  if (state_ != ChannelState::kOpen || peer_dead_) return StreamState::kClosed;
  uint32_t pushed = 0;
  // Each chunk is published by itself, so that the peer copies one while this side copies the next.
  while (pushed < options_.arena_bytes && producer_->PushChunk(stream)) {
    Publish();
    pushed += producer_->whole_bytes_max();
  }
  if (producer_->Complete(stream)) return StreamState::kDone;
  if (pushed != 0) {
    stream.progress_ns = now_ns;
  } else if (now_ns - stream.progress_ns >= kStreamStallNs && now_ns > stream.progress_ns) {
    Abort(stream);
    return StreamState::kStalled;
  } else if (asleep_) {
    AskForSpace();
  }
  return StreamState::kMoreToSend;
}

template <class Access>
bool BasicChannel<Access>::BeginSleep() {
  asleep_ = true;
  // What is read but not reported might be what the peer waits for.
  producer_->OnHeadPublished(consumer_->PublishHead());
  ++episode_;
  const uint64_t wants = producer_->wants_space() ? kFlagWantsSpace : 0;
  // [C3] and [C4] Store, then load: either the peer sees the flag after its publication, or this side sees
  // what was published.
  own_.lines->flags.exchange(episode_ << kFlagEpisodeShift | kFlagAsleep | wants, std::memory_order_seq_cst);
  if (closing() || !consumer_->EmptyForSleep()) return false;
  return wants == 0 || !producer_->RefreshHead();
}

template <class Access>
bool BasicChannel<Access>::AskForSpace() {
  ++episode_;
  // [C4] as in BeginSleep.
  own_.lines->flags.exchange(episode_ << kFlagEpisodeShift | kFlagAsleep | kFlagWantsSpace,
                             std::memory_order_seq_cst);
  return producer_->RefreshHead();
}

template <class Access>
void BasicChannel<Access>::EndSleep() {
  asleep_ = false;
  // Relaxed: a peer that still sees the flag rings once too often.
  own_.lines->flags.store(episode_ << kFlagEpisodeShift, std::memory_order_relaxed);
}

}  // namespace weft

#endif  // WEFT_DATAPLANE_CHANNEL_CHANNEL_H_
