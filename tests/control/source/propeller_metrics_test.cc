// SPDX-License-Identifier: Apache-2.0
// What a Propeller worker's functions took: when it is asked for, and what is told of the answers.
#include "control/source/propeller/propeller_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "control/source/propeller/propeller_tasks.h"

namespace weft::control {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

api::Item RowOf(const std::string& function, int64_t handler_ns, const std::string& counters = "current") {
  api::Item item;
  const auto add = [&](const char* name) {
    item.add_fields()->set_name(name);
    return item.mutable_fields(item.fields_size() - 1);
  };
  add("function")->set_text(function);
  add("calls")->set_number(9);
  add("counters")->set_text(counters);
  add("handler_ns")->set_number(handler_ns);
  add("memory_bytes")->set_number(65'536);
  return item;
}

constexpr uint64_t kBegin = 1'000 * kNsPerSecond;
constexpr uint64_t kTen = 10 * kNsPerSecond;

TEST(PropellerMetricsTest, EachIsAskedForAtOnceAndThenInItsInterval) {
  PropellerMetrics metrics;
  EXPECT_EQ(metrics.wake_ns(), 0u);
  metrics.Follow({{"t1", "ns/f", kTen}, {"t2", "ns/f", kTen}, {"t3", "ns/g", 2 * kTen}}, kBegin);
  EXPECT_EQ(metrics.wake_ns(), kBegin);
  EXPECT_THAT(metrics.TakeDue(kBegin), ElementsAre("ns/f", "ns/g"));
  EXPECT_THAT(metrics.TakeDue(kBegin), IsEmpty());
  EXPECT_EQ(metrics.wake_ns(), kBegin + kTen);
  EXPECT_THAT(metrics.TakeDue(kBegin + kTen), ElementsAre("ns/f"));
  metrics.Follow({{"t3", "ns/g", 2 * kTen}}, kBegin + kTen);
  EXPECT_EQ(metrics.wake_ns(), kBegin + 2 * kTen);
  metrics.Follow({}, kBegin + kTen);
  EXPECT_EQ(metrics.wake_ns(), 0u);
}

TEST(PropellerMetricsTest, WhatWasTakenIsToldSinceItWasToldLast) {
  PropellerMetrics metrics;
  metrics.Follow({{"t1", "ns/f", kTen}}, kBegin);
  EXPECT_THAT(metrics.Take({RowOf("ns/f", 5)}, kBegin), IsEmpty());  // Nobody asked.
  const auto tell = [&](uint64_t at_ns, const api::Item& row) {
    (void)metrics.TakeDue(at_ns);
    return metrics.Take({RowOf("ns/other", 1), row}, at_ns);
  };
  auto told = tell(kBegin, RowOf("ns/f", 7 * static_cast<int64_t>(kNsPerSecond)));
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].first, "t1");
  EXPECT_EQ(told[0].second.elapsed_ns, 0u);  // Of the time before nothing is known.
  EXPECT_EQ(told[0].second.memory_bytes, 65'536u);
  told = tell(kBegin + kTen, RowOf("ns/f", 8 * static_cast<int64_t>(kNsPerSecond)));
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].second.cpu_ns, kNsPerSecond);
  EXPECT_EQ(told[0].second.elapsed_ns, kTen);
  EXPECT_THAT(TaskMetricsText("p", "t1", told[0].second), HasSubstr(R"("cpu_percent":10.0)"));
  EXPECT_THAT(TaskMetricsText("p", "t1", told[0].second), HasSubstr(R"("uptime_seconds":10)"));
  EXPECT_THAT(TaskMetricsText("p", "t1", told[0].second), HasSubstr(R"("calls":9)"));
  // A host that does not answer would make the sum fall; one that is new begins anew.
  EXPECT_THAT(tell(kBegin + 2 * kTen, RowOf("ns/f", 0, "not answered")), IsEmpty());
  told = tell(kBegin + 3 * kTen, RowOf("ns/f", 20));
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].second.cpu_ns, 20u);
  EXPECT_EQ(told[0].second.elapsed_ns, 2 * kTen);
}

TEST(PropellerMetricsTest, HowOftenIsAsTheStartSaysAndOutlivesARestart) {
  const auto start_of = [](const std::string& more) {
    return *ParsePropellerCommand("control/manager/start",
                                  R"({"id":"t","name":"f","file":"AA==")" + more + "}");
  };
  EXPECT_EQ(start_of("").interval_ns, kTen);
  EXPECT_EQ(start_of(R"(,"daemon":true)").interval_ns, 12 * kTen);
  EXPECT_EQ(start_of(R"(,"monitoring_profile":{"interval":3})").interval_ns, 3 * kNsPerSecond);
  EXPECT_EQ(start_of(R"(,"monitoring_profile":{"interval":5000000000})").interval_ns, 5 * kNsPerSecond);
  PropellerTasks tasks("ns", "h");
  PropellerCommand start =
      start_of(R"(,"monitoring_profile":{"enabled":true,"export_to_mqtt":true,"interval":3})");
  EXPECT_TRUE(tasks.Start(start, kBegin));
  tasks.ModuleOf("t", std::string(64, 'a'), true, kBegin);
  EXPECT_THAT(tasks.Measured(), IsEmpty());
  MeshState mesh;
  for (const api::Endpoint& each : tasks.Endpoints("n1", [](const std::string& sha) { return sha; }))
    mesh.Put(MakeEntry(each));
  tasks.OnProgrammed("n1", mesh, {}, true, kBegin);
  tasks.OnTime(kBegin + PropellerTasks::kSettleNs);
  ASSERT_EQ(tasks.Measured().size(), 1u);
  PropellerTasks next("ns", "h");
  ASSERT_TRUE(next.Load(tasks.Save(), [](const std::string&) { return absl::OkStatus(); }, kBegin).ok());
  ASSERT_EQ(next.Measured().size(), 1u);
  EXPECT_EQ(next.Measured()[0].function, "ns/f");
  EXPECT_EQ(next.Measured()[0].interval_ns, 3 * kNsPerSecond);
}

}  // namespace
}  // namespace weft::control
