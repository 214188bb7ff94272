// SPDX-License-Identifier: Apache-2.0
// The channel beside the limits of its machine: two processes, caller on core 0 and callee on core 1, blocks
// of the channel and of its limit in turn, so that both see one placement of the cores. Counters: `ratio`,
// the median over blocks of own / limit (for rates also own / limit), and the p50 or rate of each. Payloads
// are filled from the message's number and checked at both ends.
#include <benchmark/benchmark.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dataplane/base/check.h"
#include "dataplane/base/clock.h"
#include "dataplane/channel/channel.h"
#include "dataplane/channel/poller.h"

namespace weft {
namespace {

constexpr uint64_t kBlockNs = 10 * kNsPerMs;
constexpr int kBlocks = 21;
constexpr std::size_t kSmall = 64;
constexpr std::size_t kLarge = 1 << 20;
constexpr uint32_t kStep = 64 << 10;
constexpr uint64_t kBurst = 32;
constexpr uint64_t kRingLines = 256;
constexpr int kManyChannels = 1000;

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

void Fill(std::byte* to, std::size_t bytes, uint64_t id) {
  std::memset(to, static_cast<int>(id * 0x9e & 0xff) ^ 0x5a, bytes);
}
bool Check(const std::byte* from, std::size_t bytes, uint64_t id) {
  const uint64_t want = 0x0101010101010101ull * ((id * 0x9e & 0xff) ^ 0x5a);
  uint64_t wrong = 0;
  for (std::size_t i = 0; i < bytes; i += 8) {
    uint64_t word;
    std::memcpy(&word, from + i, 8);
    wrong |= word ^ want;
  }
  return wrong == 0;
}

void Pin(int core) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(core, &cores);
  sched_setaffinity(0, sizeof(cores), &cores);
}

std::span<const std::byte> SpanOf(const std::byte* data, std::size_t bytes) { return {data, bytes}; }

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
  World() {
    void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
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

  static void MakePair(const ChannelOptions& options, End* a, End* b) {
    auto pair = MakeDoorbellPair();
    WEFT_CHECK(pair.ok());
    a->bell.emplace(*Doorbell::Create(std::move(pair->first)));
    b->bell.emplace(*Doorbell::Create(std::move(pair->second)));
    a->channel = *Channel::Create(options);
    b->channel = *Channel::Create(options);
  }
  static void Connect(End* a, End* b, bool is_a) {
    End* own = is_a ? a : b;
    End* peer = is_a ? b : a;
    WEFT_CHECK(own->channel->Connect(UniqueFd(dup(peer->channel->memory_fd())), &*own->bell).ok());
  }

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

// Runs `call(id)` for one block and returns what it took in the middle, in ns.
template <class Call>
double Latency(Mode mode, uint64_t pace_ns, Call&& call) {
  World& world = World::Get();
  world.Start(mode);
  std::vector<uint64_t> took;
  took.reserve(1 << 17);
  const uint64_t start_ns = NowNs();
  uint64_t due_ns = start_ns;
  const uint64_t block_ns = pace_ns != 0 ? 40 * kNsPerMs : kBlockNs;
  for (uint32_t id = 1; took.size() < took.capacity(); ++id) {
    if (pace_ns != 0) {
      for (due_ns += pace_ns; NowNs() < due_ns;) {
      }
    }
    const uint64_t begin_ns = NowNs();
    const uint64_t extra_ns = call(id);
    const uint64_t end_ns = NowNs();
    if (begin_ns - start_ns > block_ns / 4) took.push_back(end_ns - begin_ns - extra_ns);
    if (end_ns - start_ns > block_ns) break;
  }
  if (mode == Mode::kEventfdWake) {
    world.shared->stop.value.store(1, std::memory_order_release);
    const uint64_t one = 1;
    WEFT_CHECK(write(world.event_fd, &one, sizeof(one)) == sizeof(one));
  }
  world.Finish(mode);
  // The mean of the middle half: a median that the clock's steps of 10 ns do not coarsen.
  std::sort(took.begin(), took.end());
  uint64_t sum_ns = 0;
  for (std::size_t i = took.size() / 4; i < took.size() * 3 / 4; ++i) sum_ns += took[i];
  const std::size_t counted = took.size() * 3 / 4 - took.size() / 4;
  return static_cast<double>(sum_ns) / static_cast<double>(counted);
}

double RawPingPong() {
  Shared* shared = World::Get().shared;
  return Latency(Mode::kRawPingPong, 0, [=](uint32_t id) {
    shared->ping.value.store(id, std::memory_order_release);            // [B3]
    while (shared->pong.value.load(std::memory_order_acquire) != id) {  // [B4]
    }
    return uint64_t{0};
  });
}

[[gnu::always_inline]] inline void SendSmall(Channel& channel, uint32_t id, std::size_t bytes) {
  alignas(64) static std::byte payload[64 << 10];
  Fill(payload, bytes, id);
  MessageHeader header;
  header.function_id = 7;
  header.request_id = id;
  WEFT_CHECK(channel.TrySend(header, SpanOf(payload, bytes), Lane::kRequest));
  channel.Publish();
}

template <std::size_t bytes>
double ChannelPingPong() {
  World& world = World::Get();
  Channel& channel = *world.caller.channel;
  CheckingSink& sink = *world.sink;
  return Latency(Mode::kChannelPingPong, 0, [&](uint32_t id) {
    SendSmall(channel, id, bytes);
    sink.last = 0;
    while (sink.last != id) channel.Poll(sink, 32);
    return uint64_t{0};
  });
}

double PollerPingPong(Mode mode, std::vector<End*> ends, uint64_t pace_ns) {
  World& world = World::Get();
  CheckingSink& sink = *world.sink;
  PollerOptions options;
  options.poll_time_ns = kNsPerSecond;
  auto poller = *Poller::Create(options);
  for (End* end : ends) {
    WEFT_CHECK(poller->AddDoorbell(&*end->bell).ok());
    WEFT_CHECK(poller->AddChannel(end->channel.get()).ok());
  }
  OneSinkHandler<CheckingSink> handler{sink};
  Channel& channel = *ends[0]->channel;
  const double p50 = Latency(mode, pace_ns, [&](uint32_t id) {
    SendSmall(channel, id, kSmall);
    sink.last = 0;
    while (sink.last != id) poller->Wait(handler, kNoDeadline);
    return uint64_t{0};
  });
  for (End* end : ends) {
    poller->RemoveChannel(end->channel.get());
    poller->RemoveDoorbell(&*end->bell);
  }
  return p50;
}

double RawBatched() {
  World& world = World::Get();
  Shared* shared = world.shared;
  world.Start(Mode::kRawBatched);
  uint64_t tail = shared->tail.value.load(std::memory_order_relaxed);
  uint64_t head = tail;
  const uint64_t first = tail;
  const uint64_t start_ns = NowNs();
  uint64_t now_ns = start_ns;
  while (now_ns - start_ns < kBlockNs) {
    for (int burst = 0; burst < 32; ++burst) {
      while (tail + kBurst - head > kRingLines)
        head = shared->head.value.load(std::memory_order_acquire);  // [B6]
      for (uint64_t i = 0; i < kBurst; ++i)
        Fill(shared->lines[(tail + i) % kRingLines].bytes, kSmall, tail + i);
      tail += kBurst;
      shared->tail.value.store(tail, std::memory_order_release);  // [B5]
    }
    now_ns = NowNs();
  }
  while (shared->head.value.load(std::memory_order_acquire) != tail) {
  }
  const double rate = static_cast<double>(tail - first) / static_cast<double>(NowNs() - start_ns) * 1e9;
  world.Finish(Mode::kRawBatched);
  return rate;
}

double ChannelBatched() {
  World& world = World::Get();
  Channel& channel = *world.caller.channel;
  static uint64_t sent = 0;
  world.Start(Mode::kChannelBatched);
  const uint64_t first = sent;
  const uint64_t start_ns = NowNs();
  uint64_t now_ns = start_ns;
  MessageHeader header;
  header.kind = MessageKind::kOneWay;
  while (now_ns - start_ns < kBlockNs) {
    for (int burst = 0; burst < 32; ++burst) {
      for (uint64_t i = 0; i < kBurst; ++i) {
        alignas(64) std::byte payload[kSmall];
        header.request_id = static_cast<uint32_t>(sent);
        Fill(payload, kSmall, header.request_id);
        while (!channel.TrySend(header, SpanOf(payload, kSmall), Lane::kRequest)) channel.Publish();
        ++sent;
      }
      channel.Publish();
    }
    now_ns = NowNs();
  }
  while (world.shared->pong.value.load(std::memory_order_acquire) != sent) {
  }
  const double rate = static_cast<double>(sent - first) / static_cast<double>(NowNs() - start_ns) * 1e9;
  world.Finish(Mode::kChannelBatched);
  return rate;
}

double TwoMemcpy() {
  World& world = World::Get();
  Shared* shared = world.shared;
  const double p50 = Latency(Mode::kTwoMemcpy, 0, [&](uint32_t id) -> uint64_t {
    const uint64_t begin_ns = NowNs();
    Fill(world.source.data(), kLarge, id);
    while (shared->head.value.load(std::memory_order_acquire) != id - 1) {
    }
    const uint64_t extra_ns = NowNs() - begin_ns;
    for (uint64_t step = 0; step < kLarge / kStep; ++step) {
      std::memcpy(shared->bulk + step * kStep, world.source.data() + step * kStep, kStep);
      shared->ping.value.store((id - 1) * (kLarge / kStep) + step + 1, std::memory_order_release);  // [B3]
    }
    while (shared->pong.value.load(std::memory_order_acquire) != id) {
    }
    Line answer;
    std::memcpy(&answer, &shared->lines[0], kSmall);
    WEFT_CHECK(Check(answer.bytes, kSmall, id));
    return extra_ns;
  });
  return p50;
}

double ChannelLarge() {
  World& world = World::Get();
  Channel& channel = *world.caller.channel;
  CheckingSink& sink = *world.sink;
  return Latency(Mode::kChannelLarge, 0, [&](uint32_t id) -> uint64_t {
    const uint64_t begin_ns = NowNs();
    Fill(world.source.data(), kLarge, id);
    while (world.shared->head.value.load(std::memory_order_acquire) != id - 1) {  // [B6]
    }
    const uint64_t now_ns = NowNs();
    MessageHeader header;
    header.request_id = id;
    SendStream stream;
    WEFT_CHECK(channel.TryStart(stream, header, SpanOf(world.source.data(), kLarge), Lane::kRequest, now_ns));
    while (channel.Pump(stream, now_ns) == StreamState::kMoreToSend) {
    }
    sink.last = 0;
    while (sink.last != id) channel.Poll(sink, 32);
    return now_ns - begin_ns;
  });
}

double EventfdWake() {
  World& world = World::Get();
  Shared* shared = world.shared;
  return Latency(Mode::kEventfdWake, kNsPerMs, [&](uint32_t id) {
    shared->ping.value.store(id, std::memory_order_release);  // [B3]
    const uint64_t one = 1;
    WEFT_CHECK(write(world.event_fd, &one, sizeof(one)) == sizeof(one));
    while (shared->pong.value.load(std::memory_order_acquire) != id) {  // [B4]
    }
    return uint64_t{0};
  });
}

template <class Own, class Limit>
void Compare(benchmark::State& state, int blocks, Own&& own, Limit&& limit) {
  World::Get();
  for (auto _ : state) {
    std::vector<double> owns, limits, ratios;
    for (int i = 0; i < blocks; ++i) {
      limits.push_back(limit());
      owns.push_back(own());
      ratios.push_back(owns.back() / limits.back());
    }
    auto median = [](std::vector<double>& values) {
      std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2), values.end());
      return values[values.size() / 2];
    };
    state.counters["ratio"] = median(ratios);
    state.counters["own"] = median(owns);
    state.counters["limit"] = median(limits);
  }
}

template <std::size_t bytes>
void PingPong(benchmark::State& state) {
  Compare(state, kBlocks, ChannelPingPong<bytes>, RawPingPong);
}
void PollerPing(benchmark::State& state) {
  Compare(
      state, kBlocks, [] { return PollerPingPong(Mode::kPollerPingPong, {&World::Get().caller}, 0); },
      RawPingPong);
}
void ThousandChannels(benchmark::State& state) {
  std::vector<End*> ends;
  for (End& end : World::Get().many_caller) ends.push_back(&end);
  Compare(
      state, kBlocks, [&] { return PollerPingPong(Mode::kManyPingPong, ends, 0); },
      [] { return PollerPingPong(Mode::kPollerPingPong, {&World::Get().caller}, 0); });
}
void Batched(benchmark::State& state) { Compare(state, kBlocks, ChannelBatched, RawBatched); }
void Large(benchmark::State& state) { Compare(state, kBlocks, ChannelLarge, TwoMemcpy); }
void Sleeping(benchmark::State& state) {
  Compare(
      state, kBlocks, [] { return PollerPingPong(Mode::kChannelWake, {&World::Get().caller}, kNsPerMs); },
      EventfdWake);
}

BENCHMARK(PingPong<64>)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(PingPong<16>)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(PingPong<96>)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(PingPong<1024>)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(PingPong<4096>)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(PingPong<65536>)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(PollerPing)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(ThousandChannels)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(Batched)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(Large)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(Sleeping)->Iterations(1)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace weft
