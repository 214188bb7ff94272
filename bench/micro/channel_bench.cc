// SPDX-License-Identifier: Apache-2.0
// The channel beside the limits of its machine: two processes, caller on core 0 and callee on core 1, blocks
// of the channel and of its limit in turn, so that both see one placement of the cores. Counters: `ratio`,
// the median over blocks of own / limit (for rates also own / limit), and the p50 or rate of each. Payloads
// are filled from the message's number and checked at both ends.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>
#include <vector>

#include "bench/micro/channel_world.h"
#include "dataplane/base/check.h"
#include "dataplane/base/clock.h"
#include "dataplane/channel/poller.h"

namespace weft {
namespace {

constexpr uint64_t kBlockNs = 10 * kNsPerMs;
constexpr int kBlocks = 21;
constexpr uint64_t kBurst = 32;

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
