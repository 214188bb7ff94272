// SPDX-License-Identifier: Apache-2.0
// The peer's memory changes before every single read that producer and consumer make of it, ten million
// times: the shipping templates run over an access policy that mutates first and then reads. Nothing outside
// the mapping is read, nothing outside a buffer written, every wrong word ends in a named reason, and a pair
// beside it is untouched.
#include <gtest/gtest.h>

#include <array>
#include <optional>

#include "dataplane/base/clock.h"
#include "dataplane/base/random.h"
#include "dataplane/channel/consumer.h"
#include "dataplane/channel/producer.h"
#include "tests/dataplane/channel/guarded_side.h"

namespace weft {
namespace {

constexpr uint32_t kArena = 16 * 1024;
constexpr uint32_t kMessageMax = 100'000;
constexpr uint64_t kMutations = WEFT_SANITIZED ? 2'000'000 : 10'000'000;

// Rewrites words of one side memory.
class Mutator {
 public:
  Mutator(GuardedSide* side, uint64_t seed) : side_(side), random_(seed) {}

  void Step() {
    if (!armed || random_.Below(mercy) != 0) return;
    ++mutations;
    switch (random_.Below(8)) {
      case 0:
        return Store(0x000, side_->own().lines->tail.load(std::memory_order_relaxed));
      case 1:
        return Store(0x080, side_->own().lines->head.load(std::memory_order_relaxed));
      case 2:
        return Store(0x100, 0);
      case 3:  // The lap of some cell.
        return StoreAt(kCellsOffset + random_.Below(kCells) * kCellBytes);
      case 4:  // The rest of some cell's first line: length, header, chunk descriptor.
        return StoreAt(kCellsOffset + random_.Below(kCells) * kCellBytes + 4 * (1 + random_.Below(11)));
      case 5:
        return StoreAt(kCellsOffset + 4 * random_.Below(kCells * kCellBytes / 4));
      case 6:  // Where blocks of records begin.
        return StoreAt(kArenaOffset + 4 * random_.Below(64));
      default:
        return StoreAt(kArenaOffset + 4 * random_.Below(kArena / 4));
    }
  }

  bool armed = false;
  uint64_t mercy = 1;  // One read in so many finds something changed.
  uint64_t mutations = 0;

 private:
  void StoreAt(std::size_t offset) {
    uint32_t old;
    std::memcpy(&old, side_->data() + offset, 4);
    Store(offset, old);
  }
  void Store(std::size_t offset, uint32_t old) {
    const std::array<uint32_t, 17> values = {
        old + 1,
        old - 1,
        old + kCells,
        old - kCells,
        0,
        ~0u,
        old ^ (1u << random_.Below(32)),
        static_cast<uint32_t>(random_.Next()),
        kChunkBit | static_cast<uint32_t>(random_.Below(kArena)),
        kBatchBit | static_cast<uint32_t>(random_.Below(kBatchBytesMax + 8)),
        kRunBit | static_cast<uint32_t>(random_.Below(kRunBytesMax + 16)),
        kRunBit | static_cast<uint32_t>(8 * random_.Below(40)),
        kChunkBit,
        static_cast<uint32_t>(random_.Below(128)),
        kArena - static_cast<uint32_t>(random_.Below(200)),
        kMessageMax + 1,
        static_cast<uint32_t>(random_.Below(12))};
    const uint32_t value = values[random_.Below(values.size())];
    std::memcpy(side_->data() + offset, &value, 4);
  }

  GuardedSide* side_;
  Random random_;
};

Mutator* mutator = nullptr;

struct MutatingAccess : SharedAccess {
  template <class Word>
  static Word LoadAcquire(const std::atomic<Word>& word) {
    mutator->Step();
    return SharedAccess::LoadAcquire(word);
  }
  template <class Word>
  static Word LoadSeqCst(const std::atomic<Word>& word) {
    mutator->Step();
    return SharedAccess::LoadSeqCst(word);
  }
  template <class Word>
  static Word LoadOnce(const Word& word) {
    mutator->Step();
    return SharedAccess::LoadOnce(word);
  }
  static void CopyFromPeer(void* to, const void* from, std::size_t bytes) {
    mutator->Step();
    SharedAccess::CopyFromPeer(to, from, bytes);
    mutator->Step();
  }
  static void CopySmallFromPeer(std::byte* to, const std::byte* from, std::size_t bytes) {
    mutator->Step();
    SharedAccess::CopySmallFromPeer(to, from, bytes);
    mutator->Step();
  }
};

// A victim over two guarded sides, and a peer whose honest halves keep the victim's ring lively.
class Duel {
 public:
  explicit Duel(uint64_t seed) : random_(seed), mutator_(&peer_side_, seed + 1) {
    mutator = &mutator_;
    sink_.bytes_max = kMessageMax;
    payload_.resize(kMessageMax);
    Reopen();
  }

  // One turn of both; the victim's half under fire.
  void Turn() {
    PeerSends();
    peer_consumer_->Poll(peer_sink_, static_cast<int>(random_.Below(40)), [](uint64_t) {});
    mutator_.mercy = mercies_[random_.Below(mercies_.size())];
    mutator_.armed = true;
    VictimTurn();
    mutator_.armed = false;
    const PoisonReason reason = victim_consumer_->poison_reason() != PoisonReason::kNone
                                    ? victim_consumer_->poison_reason()
                                    : victim_producer_->poison_reason();
    // The peer's own halves are wrecked as well by what happened to its memory.
    const bool wrecked = ++turns_ > 50;
    if (reason == PoisonReason::kNone && !wrecked) return;
    ++reasons[static_cast<std::size_t>(reason)];
    victim_consumer_->AbortPartials(sink_);
    ASSERT_EQ(sink_.open(), 0u);
    ASSERT_EQ(budget_.used_bytes(), 0u);
    Reopen();
  }

  uint64_t mutations() const { return mutator_.mutations; }
  uint64_t messages() const { return sink_.messages; }
  std::array<uint64_t, kPoisonReasons> reasons{};

 private:
  void Reopen() {
    turns_ = 0;
    victim_side_.Reset();
    peer_side_.Reset();
    victim_producer_.emplace(victim_side_.own(), peer_side_.peer(), kArena, kMessageMax);
    victim_consumer_.emplace(victim_side_.own(), peer_side_.peer(), kArena, kMessageMax, &budget_);
    peer_producer_.emplace(peer_side_.own(), victim_side_.peer(), kArena, kMessageMax);
    peer_consumer_.emplace(peer_side_.own(), victim_side_.peer(), kArena, kMessageMax, nullptr);
    streams_ = 0;
  }

  template <class Producer>
  void SendSome(Producer& producer) {
    MessageHeader header;
    header.function_id = random_.Below(3);
    header.deadline_ns = random_.Below(3);
    for (uint64_t i = random_.Below(12); i > 0; --i) {
      const std::size_t bytes = random_.Below(4) == 0 ? random_.Below(kArena / 4) : random_.Below(97);
      producer.TrySend(header, Payload(std::span(payload_.data(), bytes)),
                       random_.Below(2) == 0 ? Lane::kRequest : Lane::kReply);
    }
    if (random_.Below(3) == 0) {
      std::array<std::span<const std::byte>, 70> messages;
      for (auto& message : messages) message = std::span(payload_).first(random_.Below(97));
      header.kind = MessageKind::kOneWay;
      producer.TrySendRun(header, std::span(messages).first(1 + random_.Below(70)), Lane::kRequest);
    }
    producer.Publish();
  }

  void PeerSends() {
    SendSome(*peer_producer_);
    if (random_.Below(4) == 0 && streams_ < kPartialsMax) {
      const std::size_t bytes = 1 + random_.Below(kMessageMax);
      streams_ +=
          peer_producer_->TryStart(stream_[streams_], MessageHeader{},
                                   std::span<const std::byte>(payload_.data(), bytes), Lane::kReply, 1)
              ? 1
              : 0;
    }
    for (uint32_t i = 0; i < streams_; ++i) {
      if (!peer_producer_->Complete(stream_[i])) peer_producer_->PushChunk(stream_[i]);
    }
    peer_producer_->Publish();
  }

  void VictimTurn() {
    const int budget = static_cast<int>(1 + random_.Below(40));
    const int taken = victim_consumer_->Poll(
        sink_, budget, [this](uint64_t flags) { victim_producer_->OnHeadPublished(flags); });
    ASSERT_LE(taken, budget + static_cast<int>(kRunMessagesMax));  // A run is taken whole.
    SendSome(*victim_producer_);
    victim_consumer_->PublishHead();
    if (random_.Below(3) == 0) victim_consumer_->EmptyForSleep();
    if (random_.Below(3) == 0) victim_producer_->RefreshHead();
    if (random_.Below(50) == 0) victim_consumer_->ExpireStalled(NowNs() + kStreamStallNs, sink_);
    ASSERT_LE(victim_producer_->unread_cells(), kCells);
  }

  static constexpr std::array<uint64_t, 4> mercies_ = {1, 4, 30, 300};
  Random random_;
  GuardedSide victim_side_{kArena};
  GuardedSide peer_side_{kArena};
  Mutator mutator_;
  ByteBudget budget_{2 * kMessageMax};
  CanarySink sink_;
  CanarySink peer_sink_;
  std::vector<std::byte> payload_;
  std::optional<BasicProducer<MutatingAccess>> victim_producer_;
  std::optional<BasicConsumer<MutatingAccess>> victim_consumer_;
  std::optional<BasicProducer<SharedAccess>> peer_producer_;
  std::optional<BasicConsumer<SharedAccess>> peer_consumer_;
  SendStream stream_[kPartialsMax];
  uint32_t streams_ = 0;
  int turns_ = 0;
};

// A pair beside the duel, on the same thread, whose memory nobody mutates.
class HonestPair {
 public:
  void Turn() {
    for (uint64_t i = random_.Below(4); i > 0; --i) {
      const std::size_t bytes = random_.Below(16) == 0 ? random_.Below(kArena / 4) : random_.Below(97);
      payload_.resize(bytes);
      uint32_t sum = 0;
      for (std::byte& byte : payload_) {
        byte = static_cast<std::byte>(random_.Next());
        sum = sum * 31 + static_cast<uint32_t>(byte);
      }
      MessageHeader header;
      header.kind = MessageKind::kRequest;
      header.request_id = sent_;
      header.deadline_ns = sum;
      if (!producer_.TrySend(header, Payload(std::span<const std::byte>(payload_)), Lane::kRequest)) break;
      ++sent_;
    }
    producer_.Publish();
    consumer_.Poll(sink_, 40, [](uint64_t) {});
    consumer_.PublishHead();
    producer_.RefreshHead();
  }
  // Takes what is still in the ring.
  void Finish() {
    while (consumer_.Poll(sink_, 40, [](uint64_t) {}) != 0) consumer_.PublishHead();
  }
  uint32_t sent() const { return sent_; }
  uint32_t received() const { return sink_.received; }
  uint32_t wrong() const { return sink_.wrong; }
  bool well() const {
    return producer_.poison_reason() == PoisonReason::kNone &&
           consumer_.poison_reason() == PoisonReason::kNone;
  }

 private:
  struct Sink {
    std::byte* OnBegin(const MessageHeader&, uint32_t bytes) {
      buffer.resize(bytes + 1);
      return buffer.data();
    }
    void OnMessage(const MessageHeader& header, std::byte* payload, uint32_t bytes) {
      uint32_t sum = 0;
      for (uint32_t i = 0; i < bytes; ++i) sum = sum * 31 + static_cast<uint32_t>(payload[i]);
      wrong += header.request_id != received || header.deadline_ns != sum ? 1 : 0;
      ++received;
    }
    void OnAbort(const MessageHeader&, std::byte*) { ++wrong; }
    void OnNoBudget(const MessageHeader&, uint32_t) { ++wrong; }
    std::vector<std::byte> buffer;
    uint32_t received = 0;
    uint32_t wrong = 0;
  };

  Random random_{7};
  GuardedSide a_{kArena};
  GuardedSide b_{kArena};
  BasicProducer<SharedAccess> producer_{a_.own(), b_.peer(), kArena, kMessageMax};
  BasicConsumer<SharedAccess> consumer_{b_.own(), a_.peer(), kArena, kMessageMax, nullptr};
  Sink sink_;
  std::vector<std::byte> payload_;
  uint32_t sent_ = 0;
};

TEST(MutationTest, TenMillionMutationsBetweenReadsEndInNamedReasonsOnly) {
  Duel duel(20260101);
  HonestPair honest;
  const uint64_t give_up_ns = NowNs() + 100 * kNsPerSecond;
  while (duel.mutations() < kMutations && NowNs() < give_up_ns && !testing::Test::HasFatalFailure()) {
    duel.Turn();
    honest.Turn();
  }
  honest.Finish();
  EXPECT_TRUE(honest.well());
  EXPECT_GT(honest.sent(), 10'000u);
  EXPECT_EQ(honest.received(), honest.sent());
  EXPECT_EQ(honest.wrong(), 0u);
  EXPECT_GE(duel.mutations(), kMutations);
  EXPECT_GT(duel.messages(), 10'000u);
  for (int i = 1; i < kPoisonReasons; ++i) {
    const auto reason = static_cast<PoisonReason>(i);
    if (reason == PoisonReason::kSpuriousRings || reason == PoisonReason::kDoorbellMisuse) continue;
    EXPECT_GT(duel.reasons[static_cast<std::size_t>(i)], 0u) << PoisonReasonText(reason);
  }
}

}  // namespace
}  // namespace weft
