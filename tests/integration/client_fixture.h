// SPDX-License-Identifier: Apache-2.0
// A node for the integration tests of libweft: the real agent, and native peers (client_peer.cc) as other
// users.
#ifndef WEFT_TESTS_INTEGRATION_CLIENT_FIXTURE_H_
#define WEFT_TESTS_INTEGRATION_CLIENT_FIXTURE_H_

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <csignal>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/base/clock.h"
#include "tests/support/mesh.h"
#include "weft/client.h"
#include "weft/server.h"

namespace weft::test {

inline constexpr uid_t kPeerUid = kFirstTenantUid;
inline constexpr uid_t kOtherUid = kFirstTenantUid + 1;
inline constexpr uid_t kDemoUid = kFirstTenantUid + 2;

class ClientTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!Mesh::Privileged()) GTEST_SKIP() << "needs root: hosts run as several users";
    mesh_ = std::make_unique<Mesh>(std::vector<Tenant>{
        {"peers", kPeerUid, {"b", "c", "d"}, {"test/*", "demo/*"}, "test", ""},
        {"others", kOtherUid, {"o"}, {"other/*"}, "other", ""},
        {"demo", kDemoUid, {}, {}, "demo", ""},
        {"tests", 0, {"self"}, {"test/*"}, "test", ""},
    });
    mesh_->StartAgent();
  }

  // A host of another process that serves `functions`; up when it returns.
  Process& StartPeer(const std::string& name, const std::vector<std::string>& functions, uid_t uid = kPeerUid,
                     std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {"--name", name};
    for (const std::string& function : functions) arguments.insert(arguments.end(), {"--serve", function});
    arguments.insert(arguments.end(), more.begin(), more.end());
    peers_.push_back(
        mesh_->Start("client-peer", arguments, uid, "peer." + name + std::to_string(peers_.size())));
    EXPECT_TRUE(peers_.back().WaitForOutput("ready", absl::Seconds(20))) << peers_.back().Output();
    return peers_.back();
  }
  // An empty file that every user may write.
  std::string SharedFile(const std::string& name) {
    const std::string path = mesh_->path(name);
    WriteFile(path, "");
    EXPECT_EQ(chmod(path.c_str(), 0666), 0);
    return path;
  }
  std::unique_ptr<weft::Mesh> Attach() {
    absl::StatusOr<std::unique_ptr<weft::Mesh>> mesh = weft::Mesh::Create({.run_dir = mesh_->run_dir()});
    EXPECT_TRUE(mesh.ok()) << mesh.status();
    const absl::Status attached = (*mesh)->Attach();
    EXPECT_TRUE(attached.ok()) << attached << "\n" << mesh_->agent().Output();
    return *std::move(mesh);
  }

  std::unique_ptr<Mesh> mesh_;
  std::list<Process> peers_;
};

}  // namespace weft::test

#endif  // WEFT_TESTS_INTEGRATION_CLIENT_FIXTURE_H_
