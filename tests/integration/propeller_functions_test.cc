// SPDX-License-Identifier: Apache-2.0
// Functions that Propeller has placed, over a real broker: what their calls came to is told to the manager.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "tests/integration/propeller_fixture.h"

namespace weft::test {
namespace {

using PropellerFunctionsTest = PropellerWorkerTest;

TEST_F(PropellerFunctionsTest, WhatTheirCallsCameToIsToldInTheirInterval) {
  constexpr char kMetrics[] = "control/proplet/task_metrics";
  manager_->Start("t1", "hello", "n1", Guest("hello"),
                  R"(,"monitoring_profile":{"enabled":true,"interval":1,"export_to_mqtt":true})");
  manager_->Start("t2", "quiet", "n1", Guest("hello"),
                  R"(,"monitoring_profile":{"enabled":false,"interval":1,"export_to_mqtt":true})");
  ASSERT_TRUE(manager_->Hears(kResults, Runs("t1"))) << Logs();
  ASSERT_TRUE(manager_->Hears(kResults, Runs("t2"))) << Logs();
  ASSERT_TRUE(manager_->Hears(kMetrics, R"("calls":0,)")) << Logs();
  EXPECT_EQ(Call("hello").output, "Hello, there!");
  EXPECT_NE(Call("hello").exit_code, 2);
  EXPECT_TRUE(manager_->Hears(kMetrics, R"("bytes_in":10,"bytes_out":26,"calls":2,)")) << Logs();
  EXPECT_EQ(manager_->Heard(kMetrics, R"("memory_bytes":0,)"), 0u) << manager_->Log();
  EXPECT_EQ(manager_->Heard(kMetrics, R"("task_id":"t2")"), 0u);
  const auto functions =
      nlohmann::json::parse(mesh_->Ctl({"get", "functions", "-o", "json"}).output, nullptr, false);
  ASSERT_FALSE(functions.is_discarded());
  const nlohmann::json& hello = functions["items"][0];
  EXPECT_EQ(hello["function"], "propeller/hello");
  EXPECT_EQ(hello["calls"], 2) << hello;
  EXPECT_GT(hello["handler_ns"], 0) << hello;
  EXPECT_GE(hello["memory_bytes"], 65'536) << hello;
  // One that has gone is told of no more.
  manager_->Stop("t1");
  ASSERT_TRUE(manager_->Hears("weft/n1", R"("name":"hello","ready":false)")) << Logs();
  const std::size_t told = manager_->Heard(kMetrics, "t1");
  ASSERT_TRUE(manager_->Hears("weft/n1", R"("tasks":[{"id":"t2")")) << Logs();  // 2 s later
  EXPECT_LE(manager_->Heard(kMetrics, "t1"), told + 1);
}

}  // namespace
}  // namespace weft::test
