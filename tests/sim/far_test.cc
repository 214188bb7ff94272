// SPDX-License-Identifier: Apache-2.0
// Nodes that are far from each other, or joined by a slow link: cloud and edge. What a call between them
// needs is told in virtual time, the same on each run.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/sim/cluster.h"

namespace weft::sim {
namespace {

using transport::Event;
using transport::EventKind;

struct Way {
  const char* name;
  uint64_t bits_per_second;
  uint64_t round_trip_ns;
  double goodput_least;  // Of the link's bits, by messages of 1 MB.
};

struct Outcome {
  uint64_t done = 0;
  uint64_t failed = 0;
  uint64_t resent = 0;
  std::string violation;
};

// Calls of `bytes`, `depth` at a time, for 20 s of virtual time.
Outcome CallsOver(const Way& way, std::size_t bytes, int depth) {
  ClusterOptions options;
  options.link.bits_per_second = way.bits_per_second;
  options.link.link_delay_ns = way.round_trip_ns / 4;  // Two links each way.
  options.link.queue_bytes = 1'000'000;
  options.core.memory_bytes = 256u << 20;
  const std::vector<uint8_t> payload(bytes, 0x5a);
  Outcome outcome;
  Cluster* cluster = nullptr;
  const auto call = [&] {
    transport::SendOptions send;
    send.peer = cluster->PeerOf(0, 1);
    send.tenant = kCallers;
    send.function = kFunction;
    send.response_bytes_max = 8;
    EXPECT_EQ(cluster->core(0).TrySend(send, {}, transport::Bytes(payload.data(), payload.size()),
                                       cluster->now_ns(), nullptr),
              transport::SendResult::kOk);
  };
  Cluster run(options, [&](uint32_t node, const Event& event) {
    if (event.kind == EventKind::kRequest) {
      cluster->core(node).TryRespond(event.handle, absl::StatusCode::kOk, {},
                                     transport::Bytes(event.payload, 8), cluster->now_ns());
    } else if (event.kind == EventKind::kCompleted) {
      ++(event.code == absl::StatusCode::kOk ? outcome.done : outcome.failed);
      call();
    }
    cluster->core(node).Release(event);
  });
  cluster = &run;
  run.Run(1'000 * kMs);  // The session begins.
  for (int i = 0; i < depth; ++i) call();
  run.Kick(0);
  run.Run(20'000 * kMs);
  outcome.resent = run.core(0).counters().segments_resent;
  outcome.violation = run.violation();
  return outcome;
}

class FarTest : public testing::TestWithParam<Way> {};

TEST_P(FarTest, ShortCallsTakeARoundTripEachAndNoneFails) {
  const Way& way = GetParam();
  const Outcome outcome = CallsOver(way, 64, 1);
  EXPECT_EQ(outcome.violation, "");
  EXPECT_EQ(outcome.failed, 0u);
  const uint64_t of_round_trips = 20'000 * kMs / (way.round_trip_ns + 2 * kMs);
  EXPECT_GE(outcome.done, of_round_trips * 9 / 10);
}

TEST_P(FarTest, LongMessagesFillWhatTheyMayAndNoneFails) {
  const Way& way = GetParam();
  const Outcome outcome = CallsOver(way, 1'000'000, 4);
  EXPECT_EQ(outcome.violation, "");
  EXPECT_EQ(outcome.failed, 0u);
  const double goodput =
      static_cast<double>(outcome.done) * 8e6 / (static_cast<double>(way.bits_per_second) * 20);
  EXPECT_GE(goodput, way.goodput_least);
  // Of the link 1 % at most goes to what was under way all the same.
  EXPECT_LE(outcome.resent, 700 + outcome.done * 7);
}

// A sender is granted some 100 kB a round trip.
INSTANTIATE_TEST_SUITE_P(Ways, FarTest,
                         testing::Values(Way{"Iot10MbitAt1Ms", 10'000'000, 1 * kMs, 0.8},
                                         Way{"Iot10MbitAt60Ms", 10'000'000, 60 * kMs, 0.6},
                                         Way{"Lan100MbitAt1Ms", 100'000'000, 1 * kMs, 0.8},
                                         Way{"Edge100MbitAt20Ms", 100'000'000, 20 * kMs, 0.35},
                                         Way{"Edge1GbitAt5Ms", 1'000'000'000, 5 * kMs, 0.14},
                                         Way{"Cloud1GbitAt60Ms", 1'000'000'000, 60 * kMs, 0.01},
                                         Way{"Cloud100MbitAt200Ms", 100'000'000, 200 * kMs, 0.02}),
                         [](const auto& way) { return way.param.name; });

}  // namespace
}  // namespace weft::sim
