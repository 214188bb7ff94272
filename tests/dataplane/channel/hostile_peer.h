// SPDX-License-Identifier: Apache-2.0
// The hostile process of hostile_test.cc: takes channels over a control socket, and does to each what its
// draw says, until the victim closes it.
#ifndef WEFT_TESTS_DATAPLANE_CHANNEL_HOSTILE_PEER_H_
#define WEFT_TESTS_DATAPLANE_CHANNEL_HOSTILE_PEER_H_

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <memory>
#include <utility>

#include "dataplane/base/random.h"
#include "dataplane/base/unix_socket.h"
#include "dataplane/channel/consumer.h"
#include "dataplane/channel/producer.h"
#include "tests/dataplane/channel/channel_pair.h"
#include "tests/dataplane/channel/guarded_side.h"

namespace weft {

// Channels that are open at a time, each named by its slot.
inline constexpr int kSlots = 8;
inline constexpr uint32_t kSmallArena = 8 * 1024;
inline constexpr uid_t kNobody = 65534;

// The rest of this process belongs to a user of its own, and ends with its parent.
inline void BecomeNobody() {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (geteuid() == 0) {
    if (setgid(kNobody) != 0 || setuid(kNobody) != 0) _exit(2);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
  }
}

enum class Attack : uint8_t {
  kLap,
  kLength,
  kOffset,
  kTail,
  kHead,
  kKind,
  kChunk,
  kPartials,
  kFlag,
  kRings,
  kPacket,
  kHangUp,
  kRandom,
};
inline constexpr int kAttacks = 13;

class Attacker {
 public:
  explicit Attacker(int control) : control_(control), random_(4711) {}

  [[noreturn]] void Run() {
    for (;;) {
      TakeOrders();
      for (auto& front : fronts_) {
        if (front != nullptr) Act(*front);
      }
    }
  }

 private:
  struct Front {
    Front(SideMemory own, Mapping theirs)
        : memory(std::move(own)),
          victim(std::move(theirs)),
          producer(OwnSide(memory.data()), PeerSide(victim.data()), kSmallArena, 64 * 1024),
          consumer(OwnSide(memory.data()), PeerSide(victim.data()), kSmallArena, 64 * 1024, nullptr) {}
    SideMemory memory;
    Mapping victim;
    UniqueFd bell;
    BasicProducer<SharedAccess> producer;
    BasicConsumer<SharedAccess> consumer;
    CanarySink sink;
    Attack attack = Attack::kRandom;
    int turns = 0;
  };

  void TakeOrders() {
    for (;;) {
      absl::StatusOr<ReceivedMessage> order = ReceiveMessage(control_);
      if (absl::IsUnavailable(order.status())) return;
      if (!order.ok() || order->fds.size() != 2) _exit(0);
      const int slot = order->bytes[0];
      absl::StatusOr<SideMemory> memory = SideMemory::Create("hostile", SideMemoryBytes(kSmallArena));
      absl::StatusOr<Mapping> theirs =
          Mapping::Create(order->fds[0].get(), SideMemoryBytes(kSmallArena), Mapping::Access::kRead);
      if (!memory.ok() || !theirs.ok()) _exit(3);
      fronts_[slot] = std::make_unique<Front>(*std::move(memory), *std::move(theirs));
      Front& front = *fronts_[slot];
      InitialiseSide(OwnSide(front.memory.data()));
      front.bell = std::move(order->fds[1]);
      // The slow ones, which need the victim to sleep or to be rung often, come less often.
      const uint64_t pick = random_.Below(200);
      front.attack = pick < 2   ? Attack::kRings
                     : pick < 6 ? Attack::kTail
                                : static_cast<Attack>(random_.Below(kAttacks));
      if (pick >= 6 && (front.attack == Attack::kRings || front.attack == Attack::kTail))
        front.attack = Attack::kRandom;
      const int fd = front.memory.fd();
      if (!SendMessage(control_, order->bytes, absl::MakeConstSpan(&fd, 1)).ok()) _exit(0);
    }
  }

  // Makes the first cell by hand. The producer of this front has then sent nothing.
  void Craft(Front& front, uint32_t length, uint8_t kind, ChunkDescriptor chunk) {
    Cell& cell = OwnSide(front.memory.data()).cells[0];
    cell.length = length;
    cell.header = MessageHeader{};
    cell.header.kind = static_cast<MessageKind>(kind);
    std::memcpy(cell.payload, &chunk, sizeof(chunk));
    cell.lap.store(1, std::memory_order_release);
  }

  void Act(Front& front) {
    SideLines& lines = *OwnSide(front.memory.data()).lines;
    const uint32_t noise = static_cast<uint32_t>(random_.Next());
    ++front.turns;
    switch (front.attack) {
      case Attack::kLap:
        OwnSide(front.memory.data()).cells[0].lap.store(2 + noise % 1000, std::memory_order_release);
        return;
      case Attack::kLength:
        return Craft(front,
                     noise % 2 == 0 ? 97 + noise % 100'000 : kChunkBit | (kChunkBytesMax + 1 + noise % 1000),
                     1, {});
      case Attack::kOffset:
        return Craft(front, kChunkBit | 1000, 1, {kSmallArena - 999 + noise % 1'000'000, 1000, 0, 0});
      case Attack::kTail:
        lines.tail.store(1 + noise % 60 + (noise % 2) * 1'000'000, std::memory_order_release);
        return;
      case Attack::kHead:
        lines.head.store(kCells + 1 + noise % 1'000'000, std::memory_order_release);
        return;
      case Attack::kKind:
        return Craft(front, 10, noise % 2 == 0 ? 0 : 5 + noise % 200, {});
      case Attack::kChunk:
        return Craft(front, kChunkBit | 100, 1, {0, 1000, 64, noise % kPartialsMax});
      case Attack::kPartials:
        return Craft(front, kChunkBit | 100, 1, {0, 1000, 0, kPartialsMax + noise % 100});
      case Attack::kFlag:
        lines.flags.store(0x80 | noise, std::memory_order_release);
        return;
      case Attack::kRings:
        send(front.bell.get(), "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        return;
      case Attack::kPacket:
        send(front.bell.get(), "weft", 4, MSG_DONTWAIT | MSG_NOSIGNAL);
        return;
      case Attack::kHangUp:
        if (noise % 2 == 0) shutdown(front.bell.get(), SHUT_RDWR);
        front.bell.Reset();
        return;
      case Attack::kRandom:
        return Rage(front, lines);
    }
  }

  // Ordinary traffic, and words changed under it.
  void Rage(Front& front, SideLines& lines) {
    std::array<std::byte, 3000> payload{};
    MessageHeader header;
    for (uint64_t i = random_.Below(20); i > 0; --i) {
      const std::size_t bytes = random_.Below(4) == 0 ? random_.Below(2000) : random_.Below(97);
      if (!front.producer.TrySend(header, Payload(std::span<const std::byte>(payload.data(), bytes)),
                                  Lane::kReply))
        break;
    }
    front.producer.Publish();
    front.consumer.Poll(front.sink, 16, [](uint64_t) {});
    front.consumer.PublishHead();
    if (front.turns < 3) return;
    for (int i = 0; i < 20; ++i) {
      const uint64_t value = random_.Below(3) == 0 ? random_.Next() : random_.Below(200);
      std::size_t offset = 4 * random_.Below(SideMemoryBytes(kSmallArena) / 4);
      if (random_.Below(4) == 0) offset = 0x80 * random_.Below(3);
      if (random_.Below(4) == 0)
        offset = kCellsOffset + kCellBytes * random_.Below(kCells) + 4 * random_.Below(12);
      __atomic_store_n(reinterpret_cast<uint32_t*>(front.memory.data() + offset),
                       static_cast<uint32_t>(value), __ATOMIC_RELEASE);
    }
    if (random_.Below(50) == 0) send(front.bell.get(), "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (random_.Below(50) == 0)
      lines.flags.store(random_.Next() << 8 | kFlagAsleep, std::memory_order_release);
    char drained;
    recv(front.bell.get(), &drained, 1, MSG_DONTWAIT);
  }

  int control_;
  Random random_;
  std::array<std::unique_ptr<Front>, kSlots> fronts_;
};

}  // namespace weft

#endif  // WEFT_TESTS_DATAPLANE_CHANNEL_HOSTILE_PEER_H_
