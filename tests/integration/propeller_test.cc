// SPDX-License-Identifier: Apache-2.0
// A task that Propeller started, seen through the real daemons: known, told by whom, and not callable yet.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "absl/strings/str_cat.h"
#include "tests/support/etcd.h"
#include "tests/support/mesh.h"
#include "tests/support/mosquitto.h"

namespace weft::test {
namespace {

using testing::HasSubstr;

TEST(PropellerTest, AnHttpTaskIsKnownAndCallsToItSayWhatIsMissing) {
  if (!Mesh::Privileged()) GTEST_SKIP() << "hosts under users of their own need root";
  if (!Mosquitto::Installed()) GTEST_SKIP() << "no mosquitto on this machine";
  TemporaryDirectory lists;
  WriteFile(lists / "tasks", R"({"total":0,"tasks":[]})");
  WriteFile(lists / "proplets", R"({"total":1,"proplets":[{"id":"p1","metadata":{"ip":"127.0.0.1"}}]})");
  const int manager_port = FreePort();
  ProcessOptions manager_options;
  manager_options.arguments = {"/usr/bin/python3", "-m",          "http.server", "--bind",
                               "127.0.0.1",        "--directory", lists.path(),  absl::StrCat(manager_port)};
  manager_options.log = lists / "log";
  const Process manager(manager_options);
  Mosquitto broker;
  NodeOptions options;
  WriteFile(lists / "mesh.yaml", "version: 1\nnodes: [{name: n1}]\n");
  options.control = absl::StrCat("version: 1\nfiles: ", lists / "mesh.yaml",
                                 "\npropeller:\n  broker: mqtt://127.0.0.1:", broker.port(),
                                 "\n  manager: http://127.0.0.1:", manager_port, "\n  topic: m/T/c/C\n");
  Mesh mesh({{"tenant", kFirstTenantUid, {"a"}, {"app/*"}, "", ""}}, options);
  mesh.StartAgent();
  mesh.StartControl();
  ASSERT_TRUE(mesh.WaitForCtl({"status"}, "propeller 127.0.0.1:")) << mesh.control().Output();
  ASSERT_TRUE(mesh.WaitForCtl({"status"}, "  synced ")) << mesh.Ctl({"status"}).output;
  broker.Publish("m/T/c/C/control/manager/start", R"({"id":"t1","name":"fn","proplet_id":"p1"})");
  broker.Publish("m/T/c/C/control/proplet/results",
                 R"({"task_id":"t1","proplet_id":"p1","results":"started at port 8222","error":null})");
  ASSERT_TRUE(mesh.WaitForCtl({"get", "functions"}, "propeller/fn")) << mesh.control().Output();
  const Ran call = mesh.Ctl({"call", "propeller/fn", "x"});
  EXPECT_EQ(call.exit_code, 1);
  EXPECT_THAT(call.error, HasSubstr("UNAVAILABLE: no host of propeller/fn is ready"));
  EXPECT_THAT(call.error, HasSubstr("host t1: HTTP at 127.0.0.1:8222, needs the gateway"));
  const Ran explain = mesh.Ctl({"explain", "propeller", "propeller/fn"});
  EXPECT_EQ(explain.exit_code, 1);
  EXPECT_THAT(explain.output, HasSubstr("propeller:m/T/c/C (by the node itself)"));
  broker.Publish("m/T/c/C/control/manager/stop", R"({"id":"t1"})");
  EXPECT_TRUE(Eventually(
      [&] { return mesh.Ctl({"get", "functions"}).output.find("propeller/fn") == std::string::npos; }));
}

}  // namespace
}  // namespace weft::test
