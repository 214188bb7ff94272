// SPDX-License-Identifier: Apache-2.0
// A node that is a worker of Propeller, for tests: a real broker, somebody who speaks as the manager, weftd,
// weft-control and one weft-host, h.
#ifndef WEFT_TESTS_INTEGRATION_PROPELLER_FIXTURE_H_
#define WEFT_TESTS_INTEGRATION_PROPELLER_FIXTURE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/mesh.h"
#include "tests/support/propeller_manager.h"

namespace weft::test {

inline constexpr char kResults[] = "control/proplet/results";

inline std::string Guest(const std::string& name) {
  return ReadFile(absl::StrCat(WEFT_GUEST_DIR, "/", name, ".wasm"));
}

inline std::string Runs(const std::string& task) {
  return absl::StrCat(R"({"error":null,"proplet_id":"n1","results":"","task_id":")", task, "\"}");
}

class PropellerWorkerTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!Mesh::Privileged()) GTEST_SKIP() << "hosts under users of their own need root";
    if (!Mosquitto::Installed()) GTEST_SKIP() << "no mosquitto on this machine";
    broker_.emplace();
    manager_.emplace(*broker_);
    NodeOptions options;
    WriteFile(files_ / "mesh.yaml", "version: 1\nnodes: [{name: n1}]\n");
    options.control = absl::StrCat("version: 1\nfiles: ", files_ / "mesh.yaml", "\n",
                                   manager_->Settings("  worker: true\n  host: h\n"));
    mesh_.emplace(std::vector<Tenant>{{"tenant", kFirstTenantUid, {"h"}, {"propeller/*"}, "", ""}}, options);
    mesh_->StartAgent();
    StartControl();
    host_.emplace(mesh_->StartHost("h", kFirstTenantUid));
    ASSERT_TRUE(mesh_->WaitForHost("h"));
    ASSERT_TRUE(manager_->Hears("control/proplet/create", R"("proplet_id":"n1")")) << Logs();
  }
  void StartControl() { mesh_->StartControl({"--agent-user", absl::StrCat(kAgentUid)}); }
  std::string Logs() {
    return absl::StrCat(mesh_->control().Output(), mesh_->agent().Output(), manager_->Log());
  }
  Ran Call(const std::string& name) { return mesh_->Ctl({"call", "propeller/" + name, "there"}); }
  bool Answers(const std::string& name) {
    return Eventually([&] { return Call(name).output == "Hello, there!"; });
  }
  std::string modules() { return mesh_->path("control/modules"); }
  // Files that are there beside stray ones
  int Modules() { return Files("*.wasm"); }
  int Files(const std::string& pattern) {
    const Ran found = test::Run({"/usr/bin/find", modules(), "-type", "f", "-name", pattern});
    return static_cast<int>(std::count(found.output.begin(), found.output.end(), '\n'));
  }

  TemporaryDirectory files_;
  std::optional<Mosquitto> broker_;
  std::optional<PropellerManager> manager_;
  std::optional<Mesh> mesh_;
  std::optional<Process> host_;
};

}  // namespace weft::test

#endif  // WEFT_TESTS_INTEGRATION_PROPELLER_FIXTURE_H_
