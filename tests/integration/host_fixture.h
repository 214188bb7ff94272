// SPDX-License-Identifier: Apache-2.0
// A node with weft-hosts for integration tests: the real agent, guests built from source, tenants of their
// own, and this process as a client of namespace `demo`.
#ifndef WEFT_TESTS_INTEGRATION_HOST_FIXTURE_H_
#define WEFT_TESTS_INTEGRATION_HOST_FIXTURE_H_

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <list>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/mesh.h"
#include "weft/client.h"

namespace weft::test {

inline constexpr uid_t kAlphaUid = kFirstTenantUid + 3;
inline constexpr uid_t kBetaUid = kFirstTenantUid + 4;

inline std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

class HostProcessTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!Mesh::Privileged()) GTEST_SKIP() << "needs root: hosts run as several users";
    mesh_ = std::make_unique<Mesh>(std::vector<Tenant>{
        {"alpha", kAlphaUid, {"a", "a2"}, {"demo/*"}, "demo", ""},
        {"beta", kBetaUid, {"b", "b2"}, {"demo/*", "other/*"}, "demo", ""},
        {"tests", 0, {}, {}, "demo", ""},
    });
    mesh_->StartAgent();
  }

  // A copy of a guest that every user may read, wherever the build tree lies.
  std::string Guest(const std::string& name) {
    const std::string path = mesh_->path(name + ".wasm");
    WriteFile(path, ReadFile(absl::StrCat(WEFT_GUEST_DIR, "/", name, ".wasm")));
    EXPECT_EQ(chmod(path.c_str(), 0644), 0);
    return path;
  }
  Process& StartHost(const std::string& name, uid_t uid, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--name", name, "--no-cache"});
    hosts_.push_back(
        mesh_->Start("weft-host", arguments, uid, absl::StrCat("host.", name, hosts_.size(), ".log")));
    EXPECT_TRUE(hosts_.back().WaitForOutput("attached to node", absl::Seconds(30))) << hosts_.back().Output();
    return hosts_.back();
  }
  // Two processes: demo/caller in host a, demo/tool in host b.
  void StartPair(const std::string& how = "--serve") {
    StartHost("a", kAlphaUid, {how, absl::StrCat("demo/caller=", Guest("test_caller"))});
    StartHost("b", kBetaUid, {how, absl::StrCat("demo/tool=", Guest("test_tool"))});
  }
  std::unique_ptr<weft::Mesh> Attach() {
    absl::StatusOr<std::unique_ptr<weft::Mesh>> mesh = weft::Mesh::Create({.run_dir = mesh_->run_dir()});
    EXPECT_TRUE(mesh.ok()) << mesh.status();
    const absl::Status attached = (*mesh)->Attach();
    EXPECT_TRUE(attached.ok()) << attached << "\n" << mesh_->agent().Output();
    return *std::move(mesh);
  }

  std::unique_ptr<Mesh> mesh_;
  std::list<Process> hosts_;
};

// A request of test_caller.
inline std::string CallerRequest(char command, uint8_t number, absl::string_view name,
                                 absl::string_view payload) {
  std::string request = {command, static_cast<char>(number)};
  absl::StrAppend(&request, name, absl::string_view("\0", 1), payload);
  return request;
}

}  // namespace weft::test

#endif  // WEFT_TESTS_INTEGRATION_HOST_FIXTURE_H_
