// SPDX-License-Identifier: Apache-2.0
// weft-control as a pod of a real API server: with the role of our own manifests and nothing else it programs
// an agent, and goes on without the server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "dataplane/base/clock.h"
#include "tests/control/publish/scripted_agent.h"
#include "tests/support/kube.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/turns.h"

namespace weft::control {
namespace {

using testing::HasSubstr;

constexpr char kUid[] = "0c7f1b0e-4a1d-4e57-9d3c-2f6a1e8b9d40";

// The list that objects of `kind` are made in.
std::string ListOf(const std::string& kind) {
  const std::map<std::string, std::string> lists = {
      {"Namespace", "/api/v1/namespaces"},
      {"ServiceAccount", "/api/v1/namespaces/weft/serviceaccounts"},
      {"ConfigMap", "/api/v1/namespaces/weft/configmaps"},
      {"ClusterRole", "/apis/rbac.authorization.k8s.io/v1/clusterroles"},
      {"ClusterRoleBinding", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"},
      {"DaemonSet", "/apis/apps/v1/namespaces/weft/daemonsets"},
      {"CustomResourceDefinition", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"},
      {"Deployment", "/apis/apps/v1/namespaces/default/deployments"},
      {"Service", "/api/v1/namespaces/default/services"}};
  const auto found = lists.find(kind);
  return found == lists.end() ? "" : found->second;
}

class KubeDaemonTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::Kube::Installed()) GTEST_SKIP() << "no kube-apiserver on this machine";
    kube_ = std::make_unique<test::Kube>();
  }
  // Makes each object of a manifest; unknown fields are errors.
  void Apply(const std::string& name) {
    const std::string text =
        test::ReadFile(absl::StrCat(WEFT_SOURCE_DIR "/tools/packaging/kubernetes/", name));
    for (const std::string& part : std::vector<std::string>(absl::StrSplit(text, "\n---\n"))) {
      const std::size_t at = part.find("kind: ");
      ASSERT_NE(at, std::string::npos) << part;
      const std::string kind = part.substr(at + 6, part.find('\n', at) - at - 6);
      const auto made = kube_->Ask("POST", ListOf(kind) + "?fieldValidation=Strict", part);
      EXPECT_TRUE(made.ok()) << name << ": " << kind << ": " << made.status();
    }
  }
  test::Process StartControl() {
    test::ProcessOptions options;
    options.arguments = {WEFT_BIN_DIR "/weft-control",
                         "--config",
                         directory_ / "weft-control.yaml",
                         "--run-dir",
                         directory_.path(),
                         "--state-dir",
                         directory_ / "state"};
    options.log = directory_ / "log";
    return test::Process(options);
  }
  bool PumpUntilEndpoints(const std::vector<std::string>& hosts) {
    const auto turn = [this] {
      agent_.Pump();
      usleep(200);
    };
    const auto done = [&] {
      std::vector<std::string> now;
      for (const auto& [key, endpoint] : agent_.state.endpoints) {
        now.push_back(absl::StrCat(key.function, " ", key.node, " ", key.host));
      }
      return now == hosts;
    };
    return test::TurnUntil(turn, done, 30 * kNsPerSecond);
  }

  test::TemporaryDirectory directory_;
  ScriptedAgent agent_{directory_ / "admin.sock"};
  std::unique_ptr<test::Kube> kube_;
};

TEST_F(KubeDaemonTest, TheRoleOfTheManifestsIsEnoughAndTheAgentIsProgrammed) {
  Apply("functionpolicy.yaml");
  Apply("node.yaml");
  Apply("function.yaml");
  kube_->Create(
      "/api/v1/nodes",
      R"({"metadata":{"name":"n1"},"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.1"}]}})");
  const std::string slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
  kube_->Create(slices,
                absl::StrCat(R"({"metadata":{"name":"g","labels":{"kubernetes.io/service-name":"greet"}},)",
                             R"("addressType":"IPv4","ports":[{"name":"weft","port":4810,)",
                             R"("appProtocol":"weft/host"}],"endpoints":[{"addresses":["10.1.0.1"],)",
                             R"("nodeName":"n1","targetRef":{"kind":"Pod","namespace":"default",)",
                             R"("name":"p","uid":")", kUid, R"("}}]})"));
  // So that the list is not empty when that one is gone, which would take nothing back.
  kube_->Create(slices, R"({"metadata":{"name":"other"},"addressType":"IPv4","endpoints":[]})");
  const auto token =
      kube_->Ask("POST", "/api/v1/namespaces/weft/serviceaccounts/weft/token", R"({"spec":{}})");
  ASSERT_TRUE(token.ok()) << token.status();
  test::WriteFile(directory_ / "token", nlohmann::json::parse(*token)["status"]["token"].get<std::string>());
  test::WriteFile(directory_ / "kubeconfig",
                  absl::StrCat("current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n",
                               "clusters: [{name: k, cluster: {server: \"", kube_->url(),
                               "\", certificate-authority: ", kube_->authority().path("ca.crt"),
                               "}}]\nusers: [{name: u, user: {tokenFile: token}}]\n"));
  test::WriteFile(directory_ / "weft-control.yaml",
                  "version: 1\nkubernetes: {kubeconfig: " + directory_ / "kubeconfig" + "}\n");
  agent_.Listen();
  const std::string endpoint = absl::StrCat("default/greet n1 ", kUid);
  {
    test::Process control = StartControl();
    ASSERT_TRUE(PumpUntilEndpoints({endpoint})) << control.Output();
    EXPECT_EQ(agent_.state.nodes.at("n1").address(), "10.0.0.1:4810");
    EXPECT_THAT(control.Output(), testing::Not(HasSubstr("403")));
  }
  // Killed with the server: what was programmed is said again, and what happened meanwhile is learnt.
  kube_->Kill();
  test::Process control = StartControl();
  ASSERT_TRUE(control.WaitForOutput("trying again", absl::Seconds(20)));
  ASSERT_TRUE(PumpUntilEndpoints({endpoint})) << control.Output();
  kube_->Start();
  kube_->Delete(slices + "/g");
  ASSERT_TRUE(PumpUntilEndpoints({})) << control.Output();
}

}  // namespace
}  // namespace weft::control
