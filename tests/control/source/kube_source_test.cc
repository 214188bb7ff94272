// SPDX-License-Identifier: Apache-2.0
// The Kubernetes source against a real API server that is written to, killed, restarted and compacted.
#include "control/source/kubernetes/kube_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/control/source/said_mesh.h"
#include "tests/control/source/source_turn.h"
#include "tests/support/kube.h"
#include "tests/support/turns.h"

namespace weft::control {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr char kNodes[] = "/api/v1/nodes";
constexpr char kServices[] = "/api/v1/namespaces/default/services";
constexpr char kSlices[] = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

std::string NodeJson(const std::string& name, const std::string& ip) {
  return absl::StrCat(R"({"metadata":{"name":")", name,
                      R"(","labels":{"topology.kubernetes.io/zone":"z1"}},"status":{"addresses":)",
                      R"([{"type":"InternalIP","address":")", ip, R"("}]}})");
}
std::string ServiceJson(const std::string& name) {
  return absl::StrCat(R"({"metadata":{"name":")", name,
                      R"("},"spec":{"ports":[{"name":"w","port":4811,"appProtocol":"weft/host"}]}})");
}
std::string PodJson(const std::string& uid, const std::string& conditions = R"({"ready":true})") {
  return absl::StrCat(R"({"addresses":["10.1.0.1"],"nodeName":"n1","conditions":)", conditions,
                      R"(,"targetRef":{"kind":"Pod","namespace":"default","name":")", uid, R"(","uid":")",
                      uid, R"("}})");
}
std::string SliceJson(const std::string& name, const std::string& service, const std::string& endpoints,
                      const std::string& type = "IPv4") {
  return absl::StrCat(R"({"metadata":{"name":")", name, R"(","labels":{"kubernetes.io/service-name":")",
                      service, R"("}},"addressType":")", type,
                      R"(","ports":[{"name":"w","port":4811,"appProtocol":"weft/host"}],"endpoints":[)",
                      endpoints, "]}");
}

class KubeSourceTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::Kube::Installed()) GTEST_SKIP() << "no kube-apiserver on this machine";
    // One server for all tests: it takes seconds to start.
    if (kube_ == nullptr) kube_ = std::make_unique<test::Kube>();
    for (const char* path : {kNodes, kServices, kSlices}) kube_->Delete(path);
    kube_->Create(kNodes, NodeJson("n1", "10.0.0.1"));
    kube_->Create(kServices, ServiceJson("f"));
    kube_->Create(kSlices, SliceJson("f-1", "f", PodJson("u1")));
    options_.page_entries = 2;
    options_.watch_s = 60;
  }
  static void TearDownTestSuite() { kube_.reset(); }
  void Start(const KubeOptions& kube) {
    auto source = KubeSource::Create(kube, options_);
    ASSERT_TRUE(source.ok()) << source.status();
    source_ = *std::move(source);
  }
  // The daemon's loop.
  template <typename Done>
  bool RunUntil(Done&& done, uint64_t timeout_ns = 30 * kNsPerSecond) {
    const auto turn = [&] {
      TurnSource(*source_, [this](std::vector<SourceChange> changes) { Take(std::move(changes)); });
      for (const std::string& note : source_->TakeNotes()) absl::StrAppend(&notes_, note, "\n");
    };
    return test::TurnUntil(turn, done, timeout_ns);
  }
  void Take(std::vector<SourceChange> changes) {
    for (SourceChange& change : changes) {
      endpoints_.clear();
      said_.Take(change.offer);
      for (const auto& said : said_.mesh().endpoints) {
        const api::Endpoint& e = said.value;
        endpoints_.push_back(absl::StrCat(e.function(), " ", e.host(),
                                          e.state() == api::ENDPOINT_DRAINING ? " draining" : ""));
      }
      fewest_ = std::min(fewest_, endpoints_.size());
      if (last_.origin.empty()) first_event_ns_ = change.event_ns;
      last_ = std::move(change);
    }
  }
  bool RunUntilSynced() {
    return RunUntil([&] { return source_->Health().synced && !last_.origin.empty(); });
  }
  bool RunUntilEndpoints(std::vector<std::string> wanted) {
    for (std::string& each : wanted) each = "default/" + each;
    return RunUntil([&] { return endpoints_ == wanted; });
  }
  bool RunUntilProblem(const std::string& part) {
    return RunUntil([&] { return source_->Health().problem.find(part) != std::string::npos; });
  }

  static std::unique_ptr<test::Kube> kube_;
  KubeWatchOptions options_;
  std::unique_ptr<KubeSource> source_;
  SourceChange last_;
  uint64_t first_event_ns_ = 0;
  SaidMesh said_;
  std::vector<std::string> endpoints_;
  std::size_t fewest_ = 1'000;
  std::string notes_;
};

std::unique_ptr<test::Kube> KubeSourceTest::kube_;

TEST_F(KubeSourceTest, WhatIsThereAndWhatComesChangesAndGoesIsTaken) {
  for (int i = 2; i < 8; ++i) {
    kube_->Create(kSlices, SliceJson(absl::StrCat("f-", i), "f", PodJson(absl::StrCat("u", i))));
  }
  options_.watch_s = 1;  // Each watch ends and is begun anew many times.
  Start(kube_->Options());
  ASSERT_TRUE(RunUntilSynced()) << source_->Health().problem;
  // Seven slices are four pages.
  EXPECT_THAT(endpoints_, ElementsAre("default/f u1", "default/f u2", "default/f u3", "default/f u4",
                                      "default/f u5", "default/f u6", "default/f u7"));
  EXPECT_EQ(first_event_ns_, 0u);  // What was there is no event.
  ASSERT_EQ(said_.mesh().nodes.size(), 1u);
  EXPECT_EQ(said_.mesh().nodes[0].value.address(), "10.0.0.1:4810");
  for (int i = 2; i < 8; ++i) kube_->Delete(absl::StrCat(kSlices, "/f-", i));
  ASSERT_TRUE(RunUntilEndpoints({"f u1"}));
  EXPECT_NE(last_.event_ns, 0u);
  // One bad object, then a change of the good one
  kube_->Create(kSlices, SliceJson("f-2", "f", R"({"addresses":["pod.example.org"]})", "FQDN"));
  ASSERT_TRUE(RunUntil([&] { return source_->Health().refused == 1; }));
  EXPECT_THAT(source_->Health().problem, HasSubstr("endpointslices default/f-2: addressType \"FQDN\""));
  kube_->Replace(
      absl::StrCat(kSlices, "/f-1"),
      SliceJson("f-1", "f", PodJson("u1", R"({"ready":false,"serving":true,"terminating":true})")));
  ASSERT_TRUE(RunUntilEndpoints({"f u1 draining"}));
  kube_->Delete(absl::StrCat(kSlices, "/f-2"));
  ASSERT_TRUE(RunUntil([&] { return source_->Health().refused == 0; }));
  const uint64_t until_ns = NowNs() + 1'500 * kNsPerMs;  // Longer than a watch
  RunUntil([&] { return NowNs() > until_ns; });
  kube_->Create(kServices, ServiceJson("g"));
  kube_->Create(kSlices, SliceJson("g-1", "g", PodJson("u9")));
  ASSERT_TRUE(RunUntilEndpoints({"f u1 draining", "g u9"}));
  EXPECT_THAT(notes_, Not(HasSubstr("listing all again")));
  EXPECT_THAT(notes_, Not(HasSubstr("trying again")));
  // Hints, as the server has them
  std::string hinted = PodJson("u9");
  hinted.back() = ',';
  absl::StrAppend(&hinted,
                  R"("hints":{"forZones":[{"name":"z1"},{"name":"z2"}],"forNodes":[{"name":"n1"}]}})");
  kube_->Replace(absl::StrCat(kSlices, "/g-1"), SliceJson("g-1", "g", hinted));
  api::Hints hints;
  ASSERT_TRUE(RunUntil([&] {
    return hints.ParseFromString(said_.mesh().endpoints.back().value.hints()) && hints.zones_size() == 2;
  }));
  EXPECT_THAT(hints.zones(), ElementsAre("z1", "z2"));
  EXPECT_THAT(hints.nodes(), ElementsAre("n1"));
  // Deletions that the watch tells are believed, to the last one.
  kube_->Delete(absl::StrCat(kServices, "/f"));
  kube_->Delete(absl::StrCat(kServices, "/g"));
  ASSERT_TRUE(RunUntilEndpoints({}));
  EXPECT_TRUE(RunUntilSynced());
}

TEST_F(KubeSourceTest, AnEventThatChangesNothingIsNoCauseOfALaterChange) {
  Start(kube_->Options());
  ASSERT_TRUE(RunUntilSynced()) << source_->Health().problem;
  const uint64_t before = source_->Health().events;
  kube_->Replace(absl::StrCat(kNodes, "/n1"),
                 R"({"metadata":{"name":"n1","labels":{"topology.kubernetes.io/zone":"z1","beat":"2"}}})");
  ASSERT_TRUE(RunUntil([&] { return source_->Health().events > before; }));
  const uint64_t after_ns = NowNs();
  kube_->Replace(
      absl::StrCat(kSlices, "/f-1"),
      SliceJson("f-1", "f", PodJson("u1", R"({"ready":false,"serving":true,"terminating":true})")));
  ASSERT_TRUE(RunUntilEndpoints({"f u1 draining"}));
  EXPECT_GE(last_.event_ns, after_ns);
}

TEST_F(KubeSourceTest, PoliciesAreTakenAndTheirStatusSaysSo) {
  options_.absent_ns = 200 * kNsPerMs;
  Start(kube_->Options());
  ASSERT_TRUE(RunUntilSynced()) << source_->Health().problem;  // Without the kind
  kube_->Create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions?fieldValidation=Strict",
                test::ReadFile(WEFT_SOURCE_DIR "/tools/packaging/kubernetes/functionpolicy.yaml"));
  const std::string policies = "/apis/mesh.weft/v1/namespaces/default/functionpolicies";
  const auto policy = [](const std::string& name, const std::string& spec) {
    return absl::StrCat(R"({"apiVersion":"mesh.weft/v1","kind":"FunctionPolicy","metadata":{"name":")", name,
                        R"("},"spec":)", spec, "}");
  };
  ASSERT_TRUE(
      RunUntil([&] { return kube_->Ask("POST", policies, policy("f", R"({"timeout":"70ms"})")).ok(); }));
  EXPECT_FALSE(kube_->Ask("POST", policies, policy("g", R"({"retries":11})")).ok());  // By the schema
  kube_->Create(policies, policy("g", R"({"timeout":"2h"})"));
  ASSERT_TRUE(RunUntil([&] {
    return std::any_of(said_.mesh().functions.begin(), said_.mesh().functions.end(), [](const auto& f) {
      return f.value.name() == "default/f" && f.value.policy().timeout_ns() == 70 * kNsPerMs;
    });
  })) << source_->Health().problem;
  const auto status_holds = [&](const std::string& name, const std::string& part) {
    const auto answer = kube_->Ask("GET", absl::StrCat(policies, "/", name));
    return answer.ok() && answer->find(part) != std::string::npos;
  };
  EXPECT_TRUE(RunUntil([&] { return status_holds("f", R"("status":"True")"); })) << source_->Health().problem;
  EXPECT_TRUE(RunUntil([&] { return status_holds("g", R"("status":"False")"); }))
      << source_->Health().problem;
  EXPECT_TRUE(status_holds("g", "1us to 1h"));
  EXPECT_EQ(source_->Health().refused, 1u);
  kube_->Delete(policies + "/g");
  kube_->Delete(policies + "/f");
  EXPECT_TRUE(RunUntil([&] { return source_->Health().refused == 0; }));
}

TEST_F(KubeSourceTest, WhoeverMayNotReadRoutesGoesOnWithoutThem) {
  // Rights from before weft read them
  kube_->Create("/apis/rbac.authorization.k8s.io/v1/clusterroles",
                R"({"metadata":{"name":"old"},"rules":[{"apiGroups":["","discovery.k8s.io","mesh.weft"],)"
                R"("resources":["*"],"verbs":["list","watch","patch"]}]})");
  kube_->Create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
                R"({"metadata":{"name":"old"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":)"
                R"("ClusterRole","name":"old"},"subjects":[{"kind":"User","name":"old"}]})");
  const TlsFiles old = kube_->authority().Issue("old", "/CN=old");
  KubeOptions few = kube_->Options();
  few.token.clear();
  few.tls.certificate = old.certificate;
  few.tls.key = old.key;
  Start(few);
  ASSERT_TRUE(RunUntilSynced()) << source_->Health().problem;
  EXPECT_THAT(notes_, HasSubstr("httproutes: https://127.0.0.1:"));
  EXPECT_THAT(source_->Health().problem, HasSubstr("going on without them"));
  EXPECT_THAT(endpoints_, ElementsAre("default/f u1"));
}

TEST_F(KubeSourceTest, RoutesAreTakenOnceTheGatewayApiIsThereAndTheirStatusSaysSo) {
  options_.absent_ns = 200 * kNsPerMs;
  Start(kube_->Options());
  ASSERT_TRUE(RunUntilSynced()) << source_->Health().problem;  // Without the kinds
  kube_->InstallGatewayApi();
  kube_->Create(kServices, ServiceJson("g"));
  kube_->Create(kSlices, SliceJson("g-1", "g", PodJson("u9")));
  const std::string routes = "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes";
  const auto route = [](const std::string& name, const std::string& backends) {
    return nlohmann::json::parse(absl::StrCat(
        R"({"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute","metadata":{"name":")", name,
        R"("},"spec":{"parentRefs":[{"group":"","kind":"Service","name":"f"}],"rules":[{"backendRefs":[)",
        backends, "]}]}}"));
  };
  kube_->Create(routes, route("bad", R"({"name":"g","weight":"all"})").dump());
  kube_->Create(routes, route("r", R"({"name":"f","weight":90},{"name":"g","weight":10})").dump());
  const auto weights = [this] {
    std::vector<std::string> all;
    for (const auto& said : said_.mesh().endpoints) {
      const api::Endpoint& e = said.value;
      if (e.function() == "default/f") {
        all.push_back(e.refuse().empty() ? absl::StrCat(e.host(), "=", e.weight()) : e.refuse());
      }
    }
    return absl::StrJoin(all, " ");
  };
  ASSERT_TRUE(RunUntil([&] { return weights() == "u1=1000 u9=111"; })) << weights() << notes_;
  EXPECT_EQ(source_->Health().refused, 1u);
  const auto parents = [&](const std::string& name) {
    const auto answer = kube_->Ask("GET", absl::StrCat(routes, "/", name));
    return nlohmann::json::parse(answer.value_or("{}"))
        .value("/status/parents"_json_pointer, nlohmann::json());
  };
  ASSERT_TRUE(RunUntil([&] { return !parents("r").empty(); })) << source_->Health().problem;
  EXPECT_EQ(parents("r")[0]["controllerName"], "mesh.weft/control");
  EXPECT_EQ(parents("r")[0]["conditions"][0]["status"], "True") << parents("r");
  // Another controller speaks first, then the route changes: both say what they have to.
  nlohmann::json held = nlohmann::json::parse(*kube_->Ask("GET", absl::StrCat(routes, "/r")));
  nlohmann::json& said = held["status"]["parents"];
  said.insert(said.begin(), nlohmann::json::object({{"controllerName", "example.org/other"}}));
  kube_->Replace(absl::StrCat(routes, "/r/status"), held.dump());
  held = nlohmann::json::parse(*kube_->Ask("GET", absl::StrCat(routes, "/r")));
  held["spec"] = route("r", R"({"name":"gone"})")["spec"];
  kube_->Replace(absl::StrCat(routes, "/r"), held.dump());
  ASSERT_TRUE(RunUntil([&] {
    return weights().find("there is no Service default/gone") != std::string::npos;
  })) << weights();
  ASSERT_TRUE(RunUntil([&] { return parents("r").dump().find("BackendNotFound") != std::string::npos; }))
      << parents("r") << source_->Health().problem;
  EXPECT_EQ(parents("r").size(), 2u);
  EXPECT_EQ(parents("r")[0]["controllerName"], "example.org/other");
  EXPECT_THAT(notes_, HasSubstr("httproutes default/r: ResolvedRefs=False (BackendNotFound)"));
  kube_->Delete(routes);
  EXPECT_TRUE(RunUntil([&] { return weights() == "u1=100"; })) << weights();
  EXPECT_EQ(source_->Health().refused, 0u);
}

TEST_F(KubeSourceTest, ALostServerTakesNothingBackAndItsNewHistoryIsReadAnew) {
  test::TemporaryDirectory directory;
  const std::string token_file = directory / "token";
  test::WriteFile(token_file, "none of theirs\n");
  KubeOptions kube = kube_->Options();
  kube.token.clear();
  kube.token_file = token_file;
  Start(kube);
  // The wrong token, until the file holds the right one
  ASSERT_TRUE(RunUntilProblem("HTTP status 401: Unauthorized")) << source_->Health().problem;
  EXPECT_THAT(endpoints_, IsEmpty());
  test::WriteFile(token_file, kube_->token() + "\n");
  ASSERT_TRUE(RunUntilSynced()) << source_->Health().problem;
  EXPECT_THAT(endpoints_, ElementsAre("default/f u1"));
  fewest_ = 1'000;

  kube_->Kill();
  ASSERT_TRUE(RunUntilProblem("https://127.0.0.1:")) << notes_;
  EXPECT_FALSE(source_->Health().synced);
  EXPECT_NE(source_->Health().lost_ns, 0u);
  // While nobody looks: an object comes, the history before it is forgotten, the old token expires.
  kube_->Start();
  kube_->Create(kSlices, SliceJson("f-2", "f", PodJson("u2")));
  kube_->etcd().Compact();
  kube_->Kill();
  kube_->SetToken("second");
  kube_->Start();
  ASSERT_TRUE(RunUntilProblem("HTTP status 401")) << source_->Health().problem;
  EXPECT_THAT(endpoints_, ElementsAre("default/f u1"));
  test::WriteFile(token_file, kube_->token() + "\n");
  ASSERT_TRUE(RunUntilEndpoints({"f u1", "f u2"})) << source_->Health().problem;
  EXPECT_TRUE(RunUntilSynced());
  EXPECT_EQ(source_->Health().lost_ns, 0u);
  EXPECT_THAT(notes_, HasSubstr("the watch cannot go on from version"));
  EXPECT_GE(fewest_, 1u);
  kube_->Delete(absl::StrCat(kSlices, "/f-1"));  // The new watches stand.
  EXPECT_TRUE(RunUntilEndpoints({"f u2"}));
}

// Its kernel goes on answering TCP, and who ends a watch is the server.
TEST_F(KubeSourceTest, AServerThatStandsStillIsNoticedAndTakesNothingBack) {
  options_.watch_s = 1;
  options_.overdue_ms = 500;
  Start(kube_->Options());
  ASSERT_TRUE(RunUntilSynced()) << source_->Health().problem;
  EXPECT_THAT(endpoints_, ElementsAre("default/f u1"));
  fewest_ = 1'000;
  kube_->Pause();
  EXPECT_TRUE(RunUntil([&] { return !source_->Health().synced && source_->Health().lost_ns != 0; }));
  EXPECT_THAT(source_->Health().problem, HasSubstr("imed out"));
  kube_->Resume();
  kube_->Create(kSlices, SliceJson("f-2", "f", PodJson("u2")));
  EXPECT_TRUE(RunUntilEndpoints({"f u1", "f u2"})) << source_->Health().problem;
  EXPECT_TRUE(RunUntilSynced()) << source_->Health().problem;
  EXPECT_GE(fewest_, 1u);
}

TEST_F(KubeSourceTest, AServerWithoutWhatItHadTakesNothingBack) {
  // So that the other store, which begins anew, does not come as far.
  for (int i = 0; i < 100; ++i) {
    kube_->Replace(absl::StrCat(kSlices, "/f-1"), SliceJson("f-1", "f", PodJson(i % 2 == 0 ? "u0" : "u1")));
  }
  Start(kube_->Options());
  ASSERT_TRUE(RunUntilSynced()) << source_->Health().problem;
  kube_->Kill();
  kube_->etcd().Kill();
  kube_->etcd().Forget();
  kube_->etcd().Start();
  kube_->Start();
  ASSERT_TRUE(RunUntil([&] { return notes_.find("keeping 1 that are not there") != std::string::npos; }))
      << notes_;
  ASSERT_TRUE(RunUntilSynced()) << source_->Health().problem;
  kube_->Create(kServices, ServiceJson("g"));
  kube_->Create(kSlices, SliceJson("g-1", "g", PodJson("u9")));
  EXPECT_TRUE(RunUntilEndpoints({"f u1", "g u9"})) << source_->Health().problem;
}

TEST_F(KubeSourceTest, CertificatesAndProgramsOfAKubeconfigOpenTheServer) {
  test::TemporaryDirectory directory;
  const TlsFiles client = kube_->authority().Issue("client", "/O=system:masters/CN=admin");
  const auto data = [](const std::string& path) { return absl::Base64Escape(test::ReadFile(path)); };
  const auto config = [&](const std::string& user) {
    test::WriteFile(directory / "kubeconfig",
                    absl::StrCat("apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts:\n- name: c\n",
                                 "  context: {cluster: k, user: u}\nclusters:\n- name: k\n  cluster:\n",
                                 "    server: ", kube_->url(), "/\n    certificate-authority-data: ",
                                 data(client.ca), "\nusers:\n- name: u\n  user:\n", user));
    return LoadKubeconfig(directory / "kubeconfig", "");
  };
  const std::string plugin = directory / "plugin";
  const std::string exec = absl::StrCat(
      "    exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin, args: [a b],\n",
      "      env: [{name: WHO, value: me}]}\n");
  for (const std::string& user :
       {absl::StrCat("    client-certificate: ", client.certificate, "\n    client-key: ", client.key, "\n"),
        absl::StrCat("    client-certificate-data: ", data(client.certificate),
                     "\n    client-key-data: ", data(client.key), "\n"),
        exec}) {
    // It fails at first, then prints a token that the server does not know, then the right one.
    test::WriteFile(
        plugin,
        absl::StrCat("#!/bin/sh\ncd ", directory.path(), "\necho \"$1 $WHO $KUBERNETES_EXEC_INFO\" >>runs\n",
                     "case $(wc -l <runs) in 1) exit 3;; 2) t=wrong;; *) t=", kube_->token(),
                     ";; esac\necho '{\"status\":{\"token\":\"'$t'\"}}'\n"));
    ASSERT_EQ(chmod(plugin.c_str(), 0755), 0);
    const absl::StatusOr<KubeOptions> kube = config(user);
    ASSERT_TRUE(kube.ok()) << kube.status();
    last_ = {};
    Start(*kube);
    ASSERT_TRUE(RunUntilSynced()) << source_->Health().problem;
    EXPECT_EQ(endpoints_.size(), 1u);
  }
  EXPECT_THAT(notes_, HasSubstr("no credential by"));
  EXPECT_THAT(notes_, HasSubstr("failed with 3"));
  EXPECT_THAT(notes_, HasSubstr("HTTP status 401"));
  EXPECT_THAT(test::ReadFile(directory / "runs"),
              HasSubstr(R"(a b me {"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential")"));
  // A server of another authority is not talked to.
  const test::TlsAuthority stranger;
  KubeOptions kube = kube_->Options();
  kube.tls.ca = stranger.path("ca.crt");
  Start(kube);
  EXPECT_TRUE(RunUntilProblem("SSL certificate problem")) << source_->Health().problem;
}

}  // namespace
}  // namespace weft::control
