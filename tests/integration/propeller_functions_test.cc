// SPDX-License-Identifier: Apache-2.0
// Functions that Propeller has placed, over a real broker: what their calls came to is told to the manager,
// and its invocations call them.
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

TEST_F(PropellerFunctionsTest, AnInvocationIsACallWhoseAnswerIsItsResult) {
  constexpr char kInvoked[] = "control/proplet/invoke_results";
  const auto invoke = [&](const std::string& task, const std::string& id, const std::string& inputs) {
    manager_->Say("control/manager/invoke", absl::StrCat(R"({"id":")", task, R"(","invocation_id":")", id,
                                                         R"(","inputs":)", inputs, R"(,"proplet_id":"n1"})"));
  };
  const auto ends = [&](const std::string& id, const std::string& error, const std::string& results) {
    EXPECT_TRUE(manager_->Hears(kInvoked, absl::StrCat(R"({"error":)", error, R"(,"invocation_id":")", id,
                                                       R"(","proplet_id":"n1","results":")", results)))
        << manager_->Log() << Logs();
  };
  manager_->Start("l1", "hello", "n1", Guest("hello"), R"(,"latent":true)");
  manager_->Start("l2", "tool", "n1", Guest("test_tool"), R"(,"latent":true)");
  ASSERT_TRUE(manager_->Hears(kResults, Runs("l1"))) << Logs();
  ASSERT_TRUE(manager_->Hears(kResults, Runs("l2"))) << Logs();
  invoke("l1", "i1", R"(["there"])");
  ends("i1", "null", "Hello, there!");
  invoke("l1", "i2", R"(["a","b"])");
  ends("i2", "null", R"(Hello, [\"a\",\"b\"]!)");
  invoke("l1", "i3", "[]");
  ends("i3", "null", "Hello, !");
  invoke("l2", "i4", R"(["t"])");  // Traps
  EXPECT_TRUE(manager_->Hears(kInvoked, R"({"error":"INTERNAL: )")) << manager_->Log();
  invoke("nobody", "i5", "[]");
  EXPECT_TRUE(manager_->Hears(kInvoked, "has not been precompiled here"));
  // Said twice, it is called once.
  const auto calls = [&] {
    const std::string text = mesh_->Ctl({"get", "functions", "-o", "json"}).output;
    return nlohmann::json::parse(text)["items"][0]["calls"].get<int>();
  };
  const int before = calls();
  invoke("l1", "i6", R"(["once"])");
  invoke("l1", "i6", R"(["once"])");
  invoke("l1", "i7", R"(["then"])");
  ends("i7", "null", "Hello, then!");
  EXPECT_EQ(manager_->Heard(kInvoked, R"("invocation_id":"i6")"), 1u);
  EXPECT_EQ(calls(), before + 2);
  // The agent's restart costs it nothing but time.
  mesh_->agent().Kill();
  mesh_->StartAgent();
  ASSERT_TRUE(mesh_->WaitForHost("h"));
  invoke("l1", "i8", R"(["again"])");
  ends("i8", "null", "Hello, again!");
  manager_->Stop("l1");
  ASSERT_TRUE(manager_->Hears("weft/n1", R"("name":"hello","ready":false)")) << Logs();
  invoke("l1", "i9", "[]");
  EXPECT_TRUE(manager_->Hears(kInvoked, "it comes or goes"));
}

}  // namespace
}  // namespace weft::test
