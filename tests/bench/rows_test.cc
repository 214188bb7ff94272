// SPDX-License-Identifier: Apache-2.0
// Every row of limits and kernel ways exchanges real messages between two processes, and a payload that is
// not what was sent fails the row.
#include <gtest/gtest.h>
#include <unistd.h>

#include <vector>

#include "bench/kernel_rows.h"
#include "bench/layer_rows.h"
#include "bench/limit_rows.h"
#include "bench/pair_row.h"

namespace weft::bench {
namespace {

constexpr uint64_t kBlockNs = 20'000'000;

TEST(RowsTest, EveryRowMeasuresTwoBlocksAndItsProcessesEnd) {
  for (auto make :
       {NewShmSpinRow, NewSpscBatchedRow, NewTwoMemcpyRow, NewEventfdOneSideRow, NewUnixSocketRow,
        NewTcpLoopbackRow, NewTcpLoopbackSpinRow, NewSpinJitterRow, NewChannelRow, NewChannelBatchedRow}) {
    const std::unique_ptr<Row> row = make();
    SCOPED_TRACE(row->spec().name);
    ASSERT_TRUE(row->Setup().ok());
    for (int i = 0; i < 2; ++i) {
      const absl::StatusOr<Block> block = row->RunBlock(kBlockNs);
      ASSERT_TRUE(block.ok()) << block.status();
      EXPECT_GT(block->messages, 0u);
      EXPECT_GT(block->elapsed_ns, 0u);
      EXPECT_GT(block->cpu_ns, 0u);
      EXPECT_EQ(block->samples_ns.size(), row->spec().is_rate ? 0 : block->messages);
    }
    row->Teardown();
    row->Teardown();
    EXPECT_FALSE(row->RunBlock(kBlockNs).ok());
  }
}

TEST(RowsTest, PayloadDependsOnTheRequestInEveryByte) {
  std::vector<unsigned char> bytes(1'000);
  FillPayload(bytes.data(), bytes.size(), 7);
  EXPECT_TRUE(CheckPayload(bytes.data(), bytes.size(), 7));
  EXPECT_FALSE(CheckPayload(bytes.data(), bytes.size(), 8));
  for (std::size_t i : {std::size_t{0}, std::size_t{500}, bytes.size() - 1}) {
    bytes[i] ^= 1;
    EXPECT_FALSE(CheckPayload(bytes.data(), bytes.size(), 7)) << i;
    bytes[i] ^= 1;
  }
}

// A pair whose callee saw a wrong byte, or died.
class FaultyRow final : public PairRow {
 public:
  explicit FaultyRow(bool die) : PairRow({.name = "faulty"}), die_(die) {}

 private:
  absl::Status Prepare() override { return absl::OkStatus(); }
  Worker::Reply Call(uint32_t* out, uint64_t duration_ns) override {
    Samples samples(out, duration_ns);
    while (samples.Add(NowNs(), NowNs())) {
    }
    return {.messages = samples.count(), .samples = samples.count(), .elapsed_ns = samples.elapsed_ns()};
  }
  Worker::Reply Answer() override {
    if (die_) _exit(3);
    return {.errors = 1};
  }
  bool die_;
};

TEST(RowsTest, WrongPayloadFailsTheBlock) {
  FaultyRow row(/*die=*/false);
  ASSERT_TRUE(row.Setup().ok());
  EXPECT_EQ(row.RunBlock(kBlockNs).status().code(), absl::StatusCode::kDataLoss);
}

TEST(RowsTest, DeathOfAProcessFailsTheBlock) {
  FaultyRow row(/*die=*/true);
  ASSERT_TRUE(row.Setup().ok());
  EXPECT_EQ(row.RunBlock(kBlockNs).status().code(), absl::StatusCode::kUnavailable);
}

TEST(RowsTest, TwoSidesRunUnderSeparateUsers) {
  if (!CanSeparateUsers()) GTEST_SKIP() << "needs root: makes processes of other users";
  absl::StatusOr<Worker> worker = Worker::Start({kCalleeCore, kCalleeUid, "w"}, [](const Worker::Command&) {
    return Worker::Reply{.messages = geteuid()};
  });
  ASSERT_TRUE(worker.ok());
  ASSERT_TRUE(worker->Run({}).ok());
  const absl::StatusOr<Worker::Reply> reply = worker->Finish(5'000);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->messages, kCalleeUid);
  static_assert(kCalleeUid != kCallerUid);
}

TEST(SamplesTest, WarmUpIsNotRecordedAndTheBlockEnds) {
  std::vector<uint32_t> out(kSamplesMax);
  const uint64_t before_ns = NowNs();
  Samples samples(out.data(), kBlockNs);
  EXPECT_TRUE(samples.Add(before_ns, before_ns + 10));
  EXPECT_EQ(samples.count(), 0u);
  EXPECT_TRUE(samples.Add(before_ns + kBlockNs / 2, before_ns + kBlockNs / 2 + 10));
  EXPECT_EQ(samples.count(), 1u);
  EXPECT_EQ(out[0], 10u);
  EXPECT_FALSE(samples.Add(before_ns + 2 * kBlockNs, before_ns + 2 * kBlockNs + 10));
}

}  // namespace
}  // namespace weft::bench
