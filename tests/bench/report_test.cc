// SPDX-License-Identifier: Apache-2.0
// The form of a report: every suite and the demo read it.
#include "bench/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "bench/machine.h"
#include "bench/plot_svg.h"
#include "tests/support/temporary_directory.h"

namespace weft::bench {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

RowResult Named(const std::string& name) {
  RowResult result;
  result.spec.name = name;
  return result;
}

RowResult WithSamples(const std::string& name, int samples) {
  RowResult result = Named(name);
  result.spec.bytes = 64;
  for (int i = 1; i <= samples; ++i) result.latency.Record(static_cast<uint64_t>(i));
  result.messages = static_cast<uint64_t>(samples);
  result.elapsed_ns = 1'000'000'000;
  result.cpu_ns = static_cast<uint64_t>(samples) * 10;
  return result;
}

TEST(ReportTest, RowHasEveryNamedFigure) {
  RowResult result = WithSamples("weft/x", 2'000);
  result.block_ratios["limit/y"] = {1.0, 1.25, 9.0};
  result.counts["sleeps"] = 7;
  const json row = ToJson(result);
  EXPECT_EQ(row["name"], "weft/x");
  EXPECT_EQ(row["bytes"], 64);
  EXPECT_EQ(row["p50_ns"], 1'000);
  EXPECT_EQ(row["p99_ns"], 1'980);
  EXPECT_EQ(row["p999_ns"], 1'998);
  EXPECT_EQ(row["samples"], 2'000);
  EXPECT_EQ(row["messages_per_s"], 2'000.0);
  EXPECT_EQ(row["cpu_ns_per_message"], 10.0);
  EXPECT_EQ(row["ratios"], json({{"limit/y", 1.25}}));
  EXPECT_EQ(row["ratio_spread"], json({{"limit/y", {{"count", 3}, {"p25", 1.0}, {"p75", 1.25}}}}));
  EXPECT_EQ(row["sleeps"], 7);
}

TEST(ReportTest, FigureThatARowHasNotIsNullAndNotLeftOut) {
  RowResult result = Named("weft/x");
  result.status = absl::UnavailableError("no root");
  const json row = ToJson(result);
  for (const char* key : {"p50_ns", "p99_ns", "p999_ns", "messages_per_s", "cpu_ns_per_message"}) {
    ASSERT_TRUE(row.contains(key)) << key;
    EXPECT_TRUE(row[key].is_null()) << key;
  }
  EXPECT_EQ(row["samples"], 0);
  EXPECT_TRUE(row["ratios"].is_object());
  EXPECT_THAT(row["error"].get<std::string>(), HasSubstr("no root"));
}

TEST(ReportTest, TailThatTooFewSamplesSupportIsNull) {
  const json few = ToJson(WithSamples("weft/x", 99));
  EXPECT_TRUE(few["p50_ns"].is_number());
  EXPECT_TRUE(few["p99_ns"].is_null());
  const json more = ToJson(WithSamples("weft/x", 999));
  EXPECT_TRUE(more["p99_ns"].is_number());
  EXPECT_TRUE(more["p999_ns"].is_null());
}

TEST(ReportTest, MachineTellsWhatAFigureDependsOn) {
  const json machine = MachineFacts();
  for (const char* key :
       {"cpu", "cores", "smt_active", "kernel", "virtual", "mitigations", "frequency_governor", "idle_states",
        "clock_source", "clock_read_ns", "clock_step_ns", "transparent_hugepages", "hugepages",
        "load_average", "separate_users", "compiler", "build"}) {
    EXPECT_TRUE(machine.contains(key)) << key;
  }
}

TEST(ReportTest, DisturbedRunIsWarnedOfByName) {
  RowResult limit = Named("limit/shm_spin");
  limit.block_p50s_ns = {100, 100, 100, 500, 500, 500};
  RowResult jitter = Named("noise/spin_jitter");
  for (int i = 0; i < 100; ++i) jitter.latency.Record(100'000);
  const RunConditions conditions{
      .busy_before = 0.5, .before = {}, .after = {.total = 1'000, .idle = 0, .steal = 100}};
  const std::vector<std::string> warnings = NoiseWarnings(conditions, {limit, jitter});
  const std::string all = ::testing::PrintToString(warnings);
  EXPECT_THAT(all, HasSubstr("other processes used 50 %"));
  EXPECT_THAT(all, HasSubstr("took 10.0 %"));
  EXPECT_THAT(all, HasSubstr("limit/shm_spin: p50 moved between 100 and 500 ns"));
  EXPECT_THAT(all, HasSubstr("held up for 100.0 us"));
}

TEST(ReportTest, QuietRunIsNotWarnedOf) {
  RowResult limit = Named("limit/shm_spin");
  limit.block_p50s_ns = {100, 101, 102, 100, 101, 102};
  const RunConditions conditions{
      .busy_before = 0.01, .before = {}, .after = {.total = 1'000, .idle = 10, .steal = 1}};
  for (const std::string& warning : NoiseWarnings(conditions, {limit})) {
    EXPECT_THAT(warning, ::testing::AnyOf(HasSubstr("release build"), HasSubstr("one core")));
  }
}

TEST(PlotTest, DrawsOneLabelledCurveForEachRowOfSmallMessages) {
  RowResult large = WithSamples("weft/large", 1'000);
  large.spec.bytes = 1 << 20;
  const std::string svg =
      LatencySvg(ToJson(MachineFacts(), {WithSamples("weft/a", 100'000), WithSamples("limit/<b>", 1'000),
                                         large, Named("limit/none")}));
  EXPECT_THAT(svg, HasSubstr("weft/a"));
  EXPECT_THAT(svg, HasSubstr("limit/&lt;b&gt;"));
  EXPECT_THAT(svg, Not(HasSubstr("weft/large")));
  std::size_t curves = 0;
  const std::string mark = "class=\"curve\"";
  for (std::size_t at = svg.find(mark); at != std::string::npos; at = svg.find(mark, at + 1)) ++curves;
  EXPECT_EQ(curves, 2u);
}

TEST(ReportTest, FileThatCannotBeWrittenIsToldAndOneThatCanStaysAsItIs) {
  const test::TemporaryDirectory directory;
  const absl::Status nowhere = CheckWritable(directory / "none/report.json");
  EXPECT_EQ(nowhere.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(nowhere.message()), HasSubstr("write " + directory / "none/report.json"));
  EXPECT_FALSE(CheckWritable(directory.path()).ok());
  test::WriteFile(directory / "report.json", "before");
  EXPECT_TRUE(CheckWritable(directory / "report.json").ok());
  EXPECT_EQ(test::ReadFile(directory / "report.json"), "before");
  EXPECT_TRUE(CheckWritable("-").ok());
  EXPECT_TRUE(CheckWritable("").ok());
}

TEST(PlotTest, ReportWithoutLatenciesIsStillAPicture) {
  const std::string svg = LatencySvg(ToJson(json::object(), {}));
  EXPECT_THAT(svg, HasSubstr("No row has latencies"));
  EXPECT_THAT(svg, ::testing::EndsWith("</svg>\n"));
}

}  // namespace
}  // namespace weft::bench
