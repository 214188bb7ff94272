// SPDX-License-Identifier: Apache-2.0
#include "bench/micro/channel_world.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <utility>

#include "dataplane/base/clock.h"
#include "dataplane/channel/poller.h"

namespace weft {
namespace {

void MakePair(const ChannelOptions& options, End* a, End* b) {
  auto pair = MakeDoorbellPair();
  WEFT_CHECK(pair.ok());
  a->bell.emplace(*Doorbell::Create(std::move(pair->first)));
  b->bell.emplace(*Doorbell::Create(std::move(pair->second)));
  a->channel = *Channel::Create(options);
  b->channel = *Channel::Create(options);
}
void Connect(End* a, End* b, bool is_a) {
  End* own = is_a ? a : b;
  End* peer = is_a ? b : a;
  WEFT_CHECK(own->channel->Connect(UniqueFd(dup(peer->channel->memory_fd())), &*own->bell).ok());
}

}  // namespace

World::World() {
  void* memory =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  WEFT_CHECK(memory != MAP_FAILED);
  shared = new (memory) Shared;
  event_fd = eventfd(0, EFD_CLOEXEC);
  MakePair({}, &caller, &callee);
  ChannelOptions small;
  small.arena_bytes = small.peer_arena_bytes = kArenaBytesMin;
  many_caller.resize(kManyChannels);
  many_callee.resize(kManyChannels);
  for (int i = 0; i < kManyChannels; ++i) MakePair(small, &many_caller[i], &many_callee[i]);
  const pid_t parent = getpid();
  const pid_t child = fork();
  WEFT_CHECK(child >= 0);
  Connect(&caller, &callee, child != 0);
  for (int i = 0; i < kManyChannels; ++i) Connect(&many_caller[i], &many_callee[i], child != 0);
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    Callee();
    _exit(0);
  }
  Pin(0);
}

void World::Callee() {
  Pin(1);
  static AnsweringSink answers;
  static CheckingSink taken;
  for (;;) {
    const auto mode = static_cast<Mode>(shared->mode.value.load(std::memory_order_acquire));
    switch (mode) {
      case Mode::kIdle:
        break;
      case Mode::kRawPingPong:
        AnswerRaw();
        break;
      case Mode::kChannelPingPong:
      case Mode::kChannelLarge:
        AnswerChannel(answers);
        break;
      case Mode::kPollerPingPong:
        AnswerPoller(answers, {&callee}, kNsPerSecond);
        break;
      case Mode::kManyPingPong: {
        std::vector<End*> ends;
        for (End& end : many_callee) ends.push_back(&end);
        AnswerPoller(answers, ends, kNsPerSecond);
        break;
      }
      case Mode::kRawBatched:
        TakeRawBatches();
        break;
      case Mode::kChannelBatched:
        TakeChannelBatches(taken);
        break;
      case Mode::kTwoMemcpy:
        TakeBulk(taken);
        break;
      case Mode::kEventfdWake:
        AnswerEvents();
        break;
      case Mode::kChannelWake:
        AnswerPoller(answers, {&callee}, kCalibratedPollTime);
        break;
      case Mode::kExit:
        return;
    }
    shared->errors.value.store(answers.errors + taken.errors, std::memory_order_relaxed);
    shared->done.value.store(static_cast<uint64_t>(mode), std::memory_order_release);  // [B2]
    while (shared->mode.value.load(std::memory_order_acquire) == static_cast<uint64_t>(mode)) {
    }
  }
}

void World::AnswerRaw() {
  uint64_t last = 0;
  while (!Stopped()) {
    for (int i = 0; i < 1000; ++i) {
      const uint64_t id = shared->ping.value.load(std::memory_order_acquire);  // [B3]
      if (id == last) continue;
      last = id;
      shared->pong.value.store(id, std::memory_order_release);  // [B4]
    }
  }
}

void World::AnswerChannel(AnsweringSink& answers) {
  answers.channel = callee.channel.get();
  answers.checked = &shared->head.value;
  while (!Stopped()) {
    for (int i = 0; i < 1000; ++i) callee.channel->Poll(answers, 32);
  }
}

void World::AnswerPoller(AnsweringSink& answers, std::vector<End*> ends, uint64_t poll_time_ns) {
  PollerOptions options;
  options.poll_time_ns = poll_time_ns;
  auto poller = *Poller::Create(options);
  for (End* end : ends) {
    WEFT_CHECK(poller->AddDoorbell(&*end->bell).ok());
    WEFT_CHECK(poller->AddChannel(end->channel.get()).ok());
  }
  AnsweringHandler handler{answers};
  while (!Stopped()) poller->Wait(handler, NowNs() + 2 * kNsPerMs);
  WEFT_CHECK(handler.closed == 0);
  for (End* end : ends) {
    poller->RemoveChannel(end->channel.get());
    poller->RemoveDoorbell(&*end->bell);
  }
}

void World::TakeRawBatches() {
  uint64_t head = shared->head.value.load(std::memory_order_relaxed);
  uint64_t errors = 0;
  while (!Stopped()) {
    const uint64_t tail = shared->tail.value.load(std::memory_order_acquire);  // [B5]
    if (head == tail) continue;
    for (; head < tail; ++head) {
      Line copy;
      std::memcpy(&copy, &shared->lines[head % kRingLines], sizeof(copy));
      errors += Check(copy.bytes, kSmall, head) ? 0 : 1;
    }
    shared->head.value.store(head, std::memory_order_release);  // [B6]
  }
  WEFT_CHECK(errors == 0);
}

void World::TakeChannelBatches(CheckingSink& taken) {
  while (!Stopped()) {
    for (int i = 0; i < 100; ++i) callee.channel->Poll(taken, 64);
    shared->pong.value.store(taken.messages, std::memory_order_release);  // [B4]
  }
}

void World::TakeBulk(CheckingSink& taken) {
  uint64_t step = 0;
  while (!Stopped()) {
    const uint64_t steps = shared->ping.value.load(std::memory_order_acquire);  // [B3]
    while (step < steps) {
      const uint64_t at = step % (kLarge / kStep) * kStep;
      std::memcpy(taken.buffer.data() + at, shared->bulk + at, kStep);
      if (++step % (kLarge / kStep) != 0) continue;
      const uint64_t id = step / (kLarge / kStep);
      Fill(shared->lines[0].bytes, kSmall, id);
      shared->pong.value.store(id, std::memory_order_release);  // [B4]
      WEFT_CHECK(Check(taken.buffer.data(), kLarge, id));
      shared->head.value.store(id, std::memory_order_release);  // [B6]
    }
  }
}

void World::AnswerEvents() {
  uint64_t id = 0;
  while (!Stopped()) {
    uint64_t value;
    WEFT_CHECK(read(event_fd, &value, sizeof(value)) == sizeof(value));
    id = shared->ping.value.load(std::memory_order_acquire);  // [B3]
    shared->pong.value.store(id, std::memory_order_release);  // [B4]
  }
}

}  // namespace weft
