// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/two_node_fixture.h"

#include <sys/stat.h>
#include <unistd.h>

#include <ctime>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace weft::test {

bool TwoNodeTest::Prepare() {
  if (!Mesh::Privileged() || !VethPair::Privileged()) return false;
  veth_ = std::make_unique<VethPair>(veth_options_);
  const int64_t now_s = time(nullptr);
  validity_ = {now_s - 60, now_s + 3600};
  absl::StatusOr<identity::Authority> authority = identity::Authority::Make("two-node.test", validity_);
  EXPECT_TRUE(authority.ok()) << authority.status();
  authority_ = std::make_unique<identity::Authority>(*std::move(authority));
  return true;
}

void TwoNodeTest::Start() {
  if (!Prepare()) GTEST_SKIP() << "needs root: two namespaces, several users";
  StartNodes();
}

void TwoNodeTest::StartNodes() {
  near_ = MakeNode("n1", veth_->near(), VethPair::kNearAddress);
  far_ = MakeNode("n2", veth_->far(), VethPair::kFarAddress);
  SetMesh(CommonMesh());
  for (Mesh* node : {near_.get(), far_.get()}) {
    node->StartAgent();
    node->StartControl();
  }
}

std::unique_ptr<Mesh> TwoNodeTest::MakeNode(const std::string& name, const NetworkNamespace& network,
                                            const std::string& address) {
  NodeOptions options;
  options.node = name;
  options.steer = steer_;
  options.capabilities = capabilities_;
  options.network = &network;
  options.settings =
      absl::StrCat("listen: ", address, ":4810\nidentity: {certificate: ", files_ / (name + ".crt"),
                   ", key: ", files_ / (name + ".key"), ", ca: ", files_ / "ca.crt", "}\n");
  if (!steer_.empty() && name != unnamed_) absl::StrAppend(&options.settings, "interface: ", steer_, "\n");
  absl::StrAppend(&options.settings, more_settings_[name]);
  WriteFile(files_ / "ca.crt", authority_->ToPem().certificate);
  Issue(name, validity_);
  options.control = control_;
  std::vector<Tenant> tenants = tenants_;
  for (Tenant& tenant : tenants) {
    tenant.engine_inside = engine_inside_ && (tenant.name == "a" || tenant.name == "b");
    tenant.raw_packets = raw_packets_ && tenant.engine_inside;
  }
  return std::make_unique<Mesh>(std::move(tenants), options);
}

// By renaming, as whoever renews certificates of a running node does.
void TwoNodeTest::WriteOwned(const std::string& path, const std::string& content) {
  const std::string fresh = path + ".new";
  WriteFile(fresh, content);
  EXPECT_EQ(chmod(fresh.c_str(), 0600), 0);
  EXPECT_EQ(chown(fresh.c_str(), kAgentUid, kAgentUid), 0);
  EXPECT_EQ(rename(fresh.c_str(), path.c_str()), 0);
}

void TwoNodeTest::Issue(const std::string& name, const identity::Validity& validity) {
  const absl::StatusOr<identity::PemPair> issued = authority_->IssueNode(name, validity);
  ASSERT_TRUE(issued.ok()) << issued.status();
  WriteOwned(files_ / (name + ".key"), issued->key);
  WriteOwned(files_ / (name + ".crt"), issued->certificate);
}

std::string TwoNodeTest::CommonMesh(const std::string& near_more, const std::string& far_address) {
  return absl::StrCat("version: 1\nnodes:\n- {name: n1, address: \"", VethPair::kNearAddress, ":4810\", ",
                      near_more, "}\n- {name: n2, address: \"", far_address, ":4810\", call_as: [app]}\n",
                      kFunctions, "endpoints:\n- {function: app/echo, node: n2, host: a}\n");
}

void TwoNodeTest::SetMesh(const std::string& yaml) {
  near_->SetMesh(yaml);
  far_->SetMesh(yaml);
}

void TwoNodeTest::WaitReachable() {
  const std::vector<std::string> nodes = {"get", "nodes", "-o",
                                          "json"};  // Of a table "not reachable" has that, too.
  EXPECT_TRUE(near_->WaitForCtl(nodes, "\"reachable\"")) << Logs();
  EXPECT_TRUE(far_->WaitForCtl(nodes, "\"reachable\"")) << Logs();
}

std::string TwoNodeTest::Logs() {
  return absl::StrCat("n1:\n", near_->agent().Output(), "\nn2:\n", far_->agent().Output(), "\n",
                      near_->Ctl({"get", "nodes"}).output);
}

int64_t TwoNodeTest::CounterOf(Mesh& node, const std::string& host, const std::string& counter) {
  const nlohmann::json hosts =
      nlohmann::json::parse(node.Ctl({"get", "hosts", "-o", "json"}).output, nullptr, false);
  for (const nlohmann::json& item : hosts.value("items", nlohmann::json::array())) {
    if (item.value("host", "") == host) return item.value(counter, int64_t{-1});
  }
  return -1;
}

bool TwoNodeTest::Answers(Mesh& node) {
  return Eventually([&] {
    return absl::StrContains(node.Ctl({"call", "app/echo", "--as", "app", "x"}).error, "DATA_LOSS");
  });
}

}  // namespace weft::test
