// SPDX-License-Identifier: Apache-2.0
// What an HTTPRoute in a real API server says of a Service, seen in the calls of a real node.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "tests/integration/load_run.h"
#include "tests/support/kube.h"

namespace weft::test {
namespace {

using testing::HasSubstr;

constexpr int kCalls = 5'000;
constexpr char kRoutes[] = "/apis/gateway.networking.k8s.io/v1/namespaces/app/httproutes";
const std::vector<std::string> kExplain = {"explain", "app", "app/echo"};

// A Service whose pods are weft hosts, and its slice with the pod `pod`, where one is named.
void MakeService(Kube* kube, const std::string& name, const std::string& pod) {
  kube->Create("/api/v1/namespaces/app/services",
               absl::StrCat(R"({"metadata":{"name":")", name,
                            R"("},"spec":{"ports":[{"name":"w","port":4810,"appProtocol":"weft/host"}]}})"));
  if (pod.empty()) return;
  kube->Create(
      "/apis/discovery.k8s.io/v1/namespaces/app/endpointslices",
      absl::StrCat(
          R"({"metadata":{"name":")", name, R"(-1","labels":{"kubernetes.io/service-name":")", name,
          R"("}},"addressType":"IPv4","ports":[{"name":"w","port":4810,"appProtocol":"weft/host"}],)",
          R"("endpoints":[{"addresses":["10.1.0.1"],"nodeName":"n1","targetRef":{"kind":"Pod",)",
          R"("namespace":"app","name":")", pod, R"(","uid":")", pod, R"("}}]})"));
}

nlohmann::json Route(const std::string& backends) {
  return nlohmann::json::parse(absl::StrCat(
      R"({"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute","metadata":{"name":"split"},"spec":{)",
      R"("parentRefs":[{"group":"","kind":"Service","name":"echo"}],"rules":[{"backendRefs":[)", backends,
      "]}]}}"));
}

bool Change(Kube* kube, const std::string& backends) {
  nlohmann::json route = nlohmann::json::parse(*kube->Ask("GET", absl::StrCat(kRoutes, "/split")));
  route["spec"] = Route(backends)["spec"];
  // A status that was written meanwhile makes it another version.
  return Eventually([&] {
    const auto now = nlohmann::json::parse(*kube->Ask("GET", absl::StrCat(kRoutes, "/split")));
    route["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"];
    return kube->Ask("PUT", absl::StrCat(kRoutes, "/split"), route.dump()).ok();
  });
}

TEST(KubeRouteTest, AnHttpRouteSplitsCallsNinetyToTenAndSaysWhatIsMissing) {
  if (!Mesh::Privileged()) GTEST_SKIP() << "hosts under users of their own need root";
  if (!Kube::Installed()) GTEST_SKIP() << "no kube-apiserver on this machine";
  Kube kube;
  kube.InstallGatewayApi();
  kube.Create("/api/v1/namespaces", R"({"metadata":{"name":"app"}})");
  kube.Create("/api/v1/nodes", R"({"metadata":{"name":"n1"}})");
  // Nothing is behind `echo` itself: it is the name that is called.
  MakeService(&kube, "echo", "");
  MakeService(&kube, "echo-v1", "a");
  MakeService(&kube, "echo-v2", "b");
  kube.Create(
      kRoutes,
      Route(R"({"name":"echo-v1","port":4810,"weight":90},{"name":"echo-v2","port":4810,"weight":10})")
          .dump());
  TemporaryDirectory files;
  WriteFile(files / "ca.crt", ReadFile(kube.authority().path("ca.crt")));
  WriteFile(files / "kubeconfig",
            absl::StrCat("current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n",
                         "clusters: [{name: k, cluster: {server: \"", kube.url(),
                         "\", certificate-authority: ca.crt}}]\nusers: [{name: u, user: {token: ",
                         kube.token(), "}}]\n"));
  NodeOptions options;
  options.control = absl::StrCat("version: 1\nkubernetes: {kubeconfig: ", files / "kubeconfig", "}\n");
  Mesh mesh(LoadTenants(), options);
  mesh.StartAgent();
  mesh.StartControl();
  LoadRun run(mesh);
  const Process a = run.StartServer("a", kUidA, 1);
  const Process b = run.StartServer("b", kUidB, 2);
  const auto calls = [&run] {
    Process client = run.StartClient(1, kCalls, {"--in-turn"});
    return run.Finish(client);
  };
  ASSERT_TRUE(mesh.WaitForCtl(kExplain, "host a: ready")) << mesh.control().Output();
  ASSERT_TRUE(mesh.WaitForCtl(kExplain, "host b: ready")) << mesh.Ctl(kExplain).output;
  const nlohmann::json split = calls();
  EXPECT_EQ(split["ok"], kCalls) << split;
  std::printf("%d of %d calls went to the backend with a tenth of the weights\n",
              split["tags"]["2"]["ok"].get<int>(), kCalls);
  EXPECT_GE(split["tags"]["2"]["ok"], kCalls * 9 / 100) << split;
  EXPECT_LE(split["tags"]["2"]["ok"], kCalls * 11 / 100) << split;

  ASSERT_TRUE(Change(&kube, R"({"name":"echo-v1","weight":0},{"name":"echo-v2"})"));
  ASSERT_TRUE(Eventually([&] { return mesh.Ctl(kExplain).output.find("host a") == std::string::npos; }));
  const nlohmann::json moved = calls();
  EXPECT_EQ(moved["tags"]["2"]["ok"], kCalls) << moved;
  // The share of a backend that is not to be had fails, whatever else there is, and is not tried there.
  ASSERT_TRUE(Change(&kube, R"({"name":"echo-v2","weight":90},{"name":"gone","weight":10})"));
  ASSERT_TRUE(mesh.WaitForCtl(kExplain, "10.0% of the calls fail")) << mesh.Ctl(kExplain).output;
  const nlohmann::json partly = calls();
  const std::string said = partly["texts"]["UNAVAILABLE"].dump();
  const int failed = partly["codes"].value("UNAVAILABLE", 0);
  std::printf("%d of %d calls failed by a backend that is not there and has a tenth of the weights\n", failed,
              kCalls);
  EXPECT_THAT(failed, testing::AllOf(testing::Ge(kCalls * 8 / 100), testing::Le(kCalls * 12 / 100)))
      << partly;
  EXPECT_EQ(partly["ok"], kCalls - failed) << partly;
  EXPECT_THAT(said, HasSubstr("there is no Service app/gone"));
  ASSERT_TRUE(Change(&kube, R"({"name":"gone"})"));
  ASSERT_TRUE(mesh.WaitForCtl(kExplain, "there is no Service app/gone")) << mesh.Ctl(kExplain).output;
  const Ran call = mesh.Ctl({"call", "app/echo", "x"});
  EXPECT_EQ(call.exit_code, 1);
  EXPECT_THAT(call.error,
              HasSubstr("UNAVAILABLE: no host of app/echo is ready: httproutes app/split: rules[0]."));
}

}  // namespace
}  // namespace weft::test
