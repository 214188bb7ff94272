// SPDX-License-Identifier: Apache-2.0
// The Kubernetes source at a real API server that restarts in the middle of a list, and on a node whose clock
// is wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "control/model/merge.h"
#include "control/model/model.h"
#include "control/source/kubernetes/kube_config.h"
#include "control/source/kubernetes/kube_source.h"
#include "tests/control/model/typed_mesh.h"
#include "tests/control/source/said_mesh.h"
#include "tests/control/source/source_turn.h"
#include "tests/support/kube.h"
#include "tests/support/turns.h"

namespace weft::control {
namespace {

constexpr char kServices[] = "/api/v1/namespaces/default/services";
constexpr char kSlices[] = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
constexpr std::size_t kPods = 40;

class KubeFaultTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::Kube::Installed()) GTEST_SKIP() << "no kube-apiserver on this machine";
    kube_ = std::make_unique<test::Kube>();
    kube_->Create("/api/v1/nodes", R"({"metadata":{"name":"n1"},"status":{"addresses":[)"
                                   R"({"type":"InternalIP","address":"10.0.0.1"}]}})");
    kube_->Create(kServices, R"({"metadata":{"name":"f"},"spec":{"ports":[{"port":1}]}})");
    for (std::size_t i = 0; i < kPods; ++i) {
      kube_->Create(kSlices,
                    absl::StrCat(R"({"metadata":{"name":"f-)", i, R"(","labels":{)",
                                 R"("kubernetes.io/service-name":"f"}},"addressType":"IPv4","ports":[{)",
                                 R"("port":1,"appProtocol":"weft/host"}],"endpoints":[{"addresses":[)",
                                 R"("10.1.0.1"],"nodeName":"n1","targetRef":{"kind":"Pod","namespace":)",
                                 R"("default","name":"p","uid":"u)", i, R"("}}]})"));
    }
  }
  void Begin(const KubeOptions& kube) {
    KubeWatchOptions options;
    options.page_entries = 1;
    auto source = KubeSource::Create(kube, options);
    ASSERT_TRUE(source.ok()) << source.status();
    source_ = *std::move(source);
  }
  template <typename Done>
  bool RunUntil(Done&& done, uint64_t timeout_ns = 30 * kNsPerSecond) {
    const auto turn = [&] {
      TurnSource(*source_, [this](const std::vector<SourceChange>& changes) {
        for (const SourceOffer& offer : source_->TakePrepared()) {
          prepared_ += offer.said.size();
          model_.Prepare(offer);
        }
        for (const SourceChange& change : changes) {
          model_.Offer(change.offer);
          EXPECT_TRUE(model_.Evaluate().errors.empty());
          mesh_.Take(change.offer);
          said_ = mesh_.count(EntryKind::kEndpoint);
          fewest_ = std::min(fewest_, said_);
        }
      });
    };
    return test::TurnUntil(turn, done, timeout_ns);
  }
  void RunFor(uint64_t ns) {
    RunUntil([] { return false; }, ns);
  }

  std::unique_ptr<test::Kube> kube_;
  std::unique_ptr<KubeSource> source_;
  SaidMesh mesh_;
  Model model_;
  std::size_t prepared_ = 0;  // Entries
  std::size_t said_ = 0;
  std::size_t fewest_ = SIZE_MAX;
};

// Nothing of a list that did not come to its end is ever said, though it is prepared by then; and what is
// gone when the list is begun again is in no mesh.
TEST_F(KubeFaultTest, ARestartInTheMiddleOfASyncIsBegunAgain) {
  Begin(kube_->Options());
  // A node, a function and the endpoint of the first pages at least
  ASSERT_TRUE(RunUntil([&] { return prepared_ >= 3; }));
  ASSERT_FALSE(source_->Health().synced);
  kube_->Kill();
  RunFor(50 * kNsPerMs);
  EXPECT_TRUE(model_.state().empty());
  EXPECT_TRUE(model_.claims().origins().empty());
  EXPECT_EQ(said_, 0u);
  kube_->Start();
  kube_->Delete(absl::StrCat(kSlices, "/f-0"));
  ASSERT_TRUE(RunUntil([&] { return source_->Health().synced && said_ == kPods - 1; }))
      << source_->Health().problem;
  EXPECT_EQ(fewest_, kPods - 1);
  const SourceMesh* const all[] = {&mesh_.mesh()};
  EXPECT_TRUE(Same(model_.state(), Merge(all).state));
}

// Here every credential has long expired; what counts is what the server says of it.
TEST_F(KubeFaultTest, AClockThatIsAheadNeitherLocksOutNorRunsTheProgramWithoutAPause) {
  test::TemporaryDirectory directory;
  const std::string plugin = directory / "plugin";
  test::WriteFile(plugin,
                  absl::StrCat("#!/bin/sh\necho run >>", directory / "runs",
                               "\necho '{\"status\":{\"expirationTimestamp\":\"2001-01-01T00:00:00Z\",",
                               "\"token\":\"", kube_->token(), "\"}}'\n"));
  ASSERT_EQ(chmod(plugin.c_str(), 0755), 0);
  test::WriteFile(
      directory / "kubeconfig",
      absl::StrCat("current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\nclusters: ",
                   "[{name: k, cluster: {server: \"", kube_->url(),
                   "\", certificate-authority: ", kube_->authority().path("ca.crt"),
                   "}}]\nusers:\n- name: u\n  user:\n    exec: {apiVersion: ",
                   "client.authentication.k8s.io/v1, command: ./plugin}\n"));
  const absl::StatusOr<KubeOptions> kube = LoadKubeconfig(directory / "kubeconfig", "");
  ASSERT_TRUE(kube.ok()) << kube.status();
  Begin(*kube);
  ASSERT_TRUE(RunUntil([&] { return source_->Health().synced && said_ == kPods; }))
      << source_->Health().problem;
  const uint64_t begin_ns = NowNs();
  RunFor(2'500 * kNsPerMs);
  kube_->Delete(absl::StrCat(kSlices, "/f-0"));
  EXPECT_TRUE(RunUntil([&] { return said_ == kPods - 1; })) << source_->Health().problem;
  EXPECT_TRUE(source_->Health().synced);
  const std::string runs = test::ReadFile(directory / "runs");
  // Once a second; one before, and one for the second that has begun.
  EXPECT_LE(static_cast<uint64_t>(std::count(runs.begin(), runs.end(), '\n')),
            (NowNs() - begin_ns) / kNsPerSecond + 3);
}

}  // namespace
}  // namespace weft::control
