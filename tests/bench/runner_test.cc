// SPDX-License-Identifier: Apache-2.0
// The runner pairs blocks, compares what stands side by side, and survives a row that fails.
#include "bench/runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace weft::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Writes its name into a shared log for each block and answers with figures given beforehand, the last one
// for ever. Times are far above the step of any clock.
class ScriptedRow final : public Row {
 public:
  ScriptedRow(RowSpec spec, std::vector<uint32_t> p50s_ns, std::vector<std::string>* log, int fail_at = -1)
      : Row(std::move(spec)), p50s_ns_(std::move(p50s_ns)), log_(log), fail_at_(fail_at) {}

  absl::Status Setup() override {
    return fail_at_ == 0 ? absl::UnavailableError("no such device") : absl::OkStatus();
  }
  absl::StatusOr<Block> RunBlock(uint64_t) override {
    log_->push_back(spec().name);
    if (static_cast<int>(blocks_) + 1 == fail_at_) return absl::DataLossError("wrong payload");
    const uint32_t ns = p50s_ns_[std::min(blocks_++, p50s_ns_.size() - 1)];
    if (spec().is_rate) return Block{.messages = ns, .elapsed_ns = 1'000'000'000};
    return Block{.samples_ns = {ns, ns, ns},
                 .messages = 3,
                 .elapsed_ns = 3 * ns,
                 .cpu_ns = 6 * ns,
                 .counts = {{"sleeps", 2}}};
  }
  void Teardown() override { log_->push_back("end " + spec().name); }

 private:
  std::vector<uint32_t> p50s_ns_;
  std::size_t blocks_ = 0;
  std::vector<std::string>* log_;
  int fail_at_;
};

// Rows are made in one go and the runner takes them.
struct Rows {
  std::vector<std::string> log;
  std::vector<std::unique_ptr<Row>> rows;
  void Add(RowSpec spec, std::vector<uint32_t> p50s_ns, int fail_at = -1) {
    rows.push_back(std::make_unique<ScriptedRow>(std::move(spec), std::move(p50s_ns), &log, fail_at));
  }
  std::vector<RowResult> Run(int rounds, const std::string& filter = "") {
    RunOptions options;
    options.rounds_min = rounds;
    options.filter = filter;
    auto results = RunRows(std::move(rows), options);
    EXPECT_TRUE(results.ok()) << results.status();
    return results.ok() ? *std::move(results) : std::vector<RowResult>();
  }
};

TEST(RunnerTest, RatioIsTheMedianOverNeighboursNotTheRatioOfMedians) {
  Rows rows;
  // The first block of each is warm-up. The ratios of neighbours are 2, 2 and 7; the ratio of the two rows'
  // own medians would be 7.
  rows.Add({.name = "limit"}, {1, 100'000, 500'000, 100'000});
  rows.Add({.name = "own", .against = {"limit"}}, {1, 200'000, 1'000'000, 700'000});
  const std::vector<RowResult> results = rows.Run(3);
  EXPECT_NEAR(results[1].ratios().at("limit"), 2.0, 0.01);
  EXPECT_TRUE(results[0].ratios().empty());
}

TEST(RunnerTest, EachBlockStandsBesideOneOfItsLimitAndTheyTakeTurnsInGoingFirst) {
  Rows rows;
  rows.Add({.name = "limit"}, {100});
  rows.Add({.name = "alone"}, {100});
  rows.Add({.name = "own", .against = {"limit"}}, {100});
  rows.Run(2);
  EXPECT_THAT(rows.log, ElementsAre("limit", "alone", "own",  // Warm-up.
                                    "alone", "limit", "own",  //
                                    "alone", "own", "limit",  //
                                    "end own", "end alone", "end limit"));
}

TEST(RunnerTest, RateRatioComparesMessagesPerSecond) {
  Rows rows;
  rows.Add({.name = "limit", .is_rate = true}, {1'000'000});
  rows.Add({.name = "own", .is_rate = true, .against = {"limit"}}, {600'000});
  EXPECT_DOUBLE_EQ(rows.Run(3)[1].ratios().at("limit"), 0.6);
}

// All samples of a block are its figure but the last of a hundred, which is ten times as long.
class TailRow final : public Row {
 public:
  using Row::Row;
  absl::Status Setup() override { return absl::OkStatus(); }
  absl::StatusOr<Block> RunBlock(uint64_t) override {
    const uint32_t ns = spec().against.empty() ? 10'000 : 20'000;
    Block block{.samples_ns = std::vector<uint32_t>(100, 10'000), .messages = 100, .elapsed_ns = 1'000'000};
    block.samples_ns.back() = 10 * ns;
    return block;
  }
  void Teardown() override {}
};

TEST(RunnerTest, ARowJudgedByItsTailComparesP99) {
  std::vector<std::unique_ptr<Row>> rows;
  rows.push_back(std::make_unique<TailRow>(RowSpec{.name = "limit", .by_p99 = true}));
  rows.push_back(std::make_unique<TailRow>(RowSpec{.name = "own", .by_p99 = true, .against = {"limit"}}));
  RunOptions options;
  options.rounds_min = 3;
  const auto results = RunRows(std::move(rows), options);
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_DOUBLE_EQ((*results)[1].ratios().at("limit"), 2.0);
}

TEST(RunnerTest, CountsAndCpuAreSummedOverBlocks) {
  Rows rows;
  rows.Add({.name = "own"}, {100});
  const std::vector<RowResult> results = rows.Run(4);
  EXPECT_EQ(results[0].latency.count(), 12u);
  EXPECT_EQ(results[0].messages, 12u);
  EXPECT_EQ(results[0].cpu_ns, 4u * 600u);
  EXPECT_EQ(results[0].counts.at("sleeps"), 8);
}

TEST(RunnerTest, FilterTakesInTheLimitsOfWhatItChooses) {
  Rows rows;
  rows.Add({.name = "limit/a"}, {100});
  rows.Add({.name = "limit/b"}, {100});
  rows.Add({.name = "weft/x", .against = {"limit/b"}}, {100});
  const std::vector<RowResult> results = rows.Run(3, "^weft/");
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[0].spec.name, "limit/b");
  EXPECT_EQ(results[1].spec.name, "weft/x");
}

TEST(RunnerTest, FilterThatFitsNothingOrDoesNotParseIsRefused) {
  for (const char* filter : {"nothing", "("}) {
    Rows rows;
    rows.Add({.name = "limit"}, {100});
    RunOptions options;
    options.filter = filter;
    const absl::Status status = RunRows(std::move(rows.rows), options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << filter;
    EXPECT_THAT(std::string(status.message()), HasSubstr(filter));
  }
}

TEST(RunnerTest, LimitThatIsNotThereIsNamed) {
  Rows rows;
  rows.Add({.name = "own", .against = {"limit/gone"}}, {100});
  const absl::Status status = RunRows(std::move(rows.rows), {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("limit/gone"));
}

TEST(RunnerTest, RowThatFailsIsEndedAndTheOthersGoOn) {
  Rows rows;
  rows.Add({.name = "limit"}, {100});
  rows.Add({.name = "broken", .against = {"limit"}}, {100}, /*fail_at=*/3);
  rows.Add({.name = "absent"}, {100}, /*fail_at=*/0);
  const std::vector<RowResult> results = rows.Run(6);
  EXPECT_EQ(results[1].status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(std::count(rows.log.begin(), rows.log.end(), "broken"), 3);
  EXPECT_EQ(results[2].status.code(), absl::StatusCode::kUnavailable);
  // The limit, now nobody's neighbour, is measured on its own.
  EXPECT_GE(results[0].latency.count(), 3u * 6u);
}

TEST(RunnerTest, RowThatFailsInItsFirstBlockIsEndedBeforeOthersAreMeasured) {
  Rows rows;
  rows.Add({.name = "broken"}, {100}, /*fail_at=*/1);
  rows.Add({.name = "own"}, {100});
  rows.Run(1);
  EXPECT_THAT(rows.log, ElementsAre("broken", "end broken", "own", "own", "end own", "end broken"));
}

TEST(RunnerTest, RunOfWhichNoRowIsLeftEnds) {
  std::vector<std::string> log;
  std::vector<std::unique_ptr<Row>> rows;
  rows.push_back(std::make_unique<ScriptedRow>(RowSpec{.name = "absent"}, std::vector<uint32_t>{100}, &log,
                                               /*fail_at=*/0));
  // Its first block is thrown away, so it fails in the first round.
  rows.push_back(std::make_unique<ScriptedRow>(RowSpec{.name = "broken"}, std::vector<uint32_t>{100}, &log,
                                               /*fail_at=*/2));
  int rounds = 0;
  RunOptions options;
  options.rounds_min = 1000;
  options.progress = [&](const std::string& line) { rounds += line.rfind("round ", 0) == 0 ? 1 : 0; };
  const auto results = RunRows(std::move(rows), options);
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_EQ(rounds, 1);
  EXPECT_EQ((*results)[1].status.code(), absl::StatusCode::kDataLoss);
}

TEST(RunnerTest, MedianTakesTheLowerMiddle) {
  EXPECT_EQ(Median({}), 0);
  EXPECT_EQ(Median({3}), 3);
  EXPECT_EQ(Median({4, 1, 3, 2}), 2);
}

}  // namespace
}  // namespace weft::bench
