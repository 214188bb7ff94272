// SPDX-License-Identifier: Apache-2.0
// What every source of weft-control does alike, whatever it follows: each with the real thing behind it, into
// a real model. A further source needs one more Subject.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "control/model/model.h"
#include "control/source/etcd/etcd_source.h"
#include "control/source/file_source.h"
#include "control/source/kubernetes/kube_source.h"
#include "control/source/propeller/propeller_commands.h"
#include "control/source/propeller/propeller_source.h"
#include "tests/control/model/typed_mesh.h"
#include "tests/support/etcd.h"
#include "tests/support/kube.h"
#include "tests/support/mosquitto.h"
#include "tests/support/propeller_manager.h"
#include "tests/support/tcp_relay.h"
#include "tests/support/turns.h"

namespace weft::control {
namespace {

using testing::ElementsAre;

// An endpoint of function ns/NAME on node n1.
struct Entry {
  std::string name;
  bool draining = false;
  int variant = 1;  // Something else that can change: its weight, or its host.
};
using Entries = std::vector<Entry>;

// One orchestrator, and a source that follows it.
class Subject {
 public:
  virtual ~Subject() = default;
  // From now on it holds these, and nothing else.
  virtual void Say(const Entries& entries) = 0;
  virtual std::vector<SourceChange> Begin() = 0;
  virtual Source& source() = 0;
  virtual void Lose() = 0;
  virtual void Recover(const Entries& entries) = 0;
  // What stands between it and the source, which goes on meanwhile: false where there is nothing, and Cut()
  // takes the orchestrator away as Lose() does, so that Mend() has to say what changed.
  virtual bool Changes() const { return relay_ != nullptr; }
  virtual void Cut() { relay_->Cut(); }
  virtual void Mend(const Entries& /*entries*/) { relay_->Mend(); }
  // Has the source read all again.
  virtual void Relist(const Entries& entries) {
    Lose();
    Recover(entries);
  }
  virtual int VariantOf(const api::Endpoint& endpoint) const { return static_cast<int>(endpoint.weight()); }

 protected:
  // The port that the source is to connect to instead of `port`.
  uint16_t Through(uint16_t port) {
    relay_ = std::make_unique<test::TcpRelay>(port);
    return relay_->port();
  }
  // The same of a URL that ends in its port.
  std::string Through(const std::string& url) {
    const std::size_t at = url.rfind(':') + 1;
    int port = 0;
    EXPECT_TRUE(absl::SimpleAtoi(url.substr(at), &port));
    return absl::StrCat(url.substr(0, at), Through(static_cast<uint16_t>(port)));
  }

 private:
  std::unique_ptr<test::TcpRelay> relay_;
};

class FileSubject final : public Subject {
 public:
  FileSubject() { EXPECT_EQ(mkdir(Path().c_str(), 0755), 0); }
  void Say(const Entries& entries) override {
    std::string functions, endpoints;
    for (const Entry& each : entries) {
      absl::StrAppend(&functions, "- {name: ns/", each.name, "}\n");
      absl::StrAppend(&endpoints, "- {function: ns/", each.name,
                      ", node: n1, host: h, weight: ", each.variant,
                      each.draining ? ", state: draining}\n" : "}\n");
    }
    test::WriteFile(Path() + "/mesh.yaml",
                    absl::StrCat("version: 1\nfunctions:\n", functions, "endpoints:\n", endpoints));
  }
  std::vector<SourceChange> Begin() override {
    FileSourceOptions options;
    options.path = Path();
    source_ = *FileSource::Create(options);
    return source_->Scan();
  }
  Source& source() override { return *source_; }
  void Lose() override { EXPECT_EQ(rename(Path().c_str(), (directory_ / "away").c_str()), 0); }
  void Recover(const Entries& entries) override {
    EXPECT_EQ(mkdir(Path().c_str(), 0755), 0);
    Say(entries);
  }
  void Cut() override { Lose(); }
  void Mend(const Entries& entries) override {
    std::filesystem::remove_all(directory_ / "away");
    Recover(entries);
  }

 private:
  std::string Path() const { return directory_ / "mesh.d"; }
  test::TemporaryDirectory directory_;
  std::unique_ptr<FileSource> source_;
};

class EtcdSubject final : public Subject {
 public:
  void Say(const Entries& entries) override {
    for (const std::string& key : std::exchange(keys_, {})) {
      bool stays = false;
      for (const Entry& each : entries) stays |= key == KeyOf(each);
      if (!stays) etcd_.Delete(key);
    }
    for (const Entry& each : entries) {
      etcd_.Put(KeyOf(each), absl::StrCat("{\"weight\": ", each.variant,
                                          each.draining ? ", \"state\": \"draining\"}" : "}"));
      keys_.push_back(KeyOf(each));
    }
  }
  std::vector<SourceChange> Begin() override {
    EtcdSourceOptions options;
    options.etcd.endpoints = {Through(etcd_.url())};
    options.probe_ns = 200 * kNsPerMs;
    http_ = *HttpClient::Create();
    source_ = std::make_unique<EtcdSource>(options, http_.get());
    return {};
  }
  Source& source() override { return *source_; }
  void Lose() override { etcd_.Kill(); }
  void Recover(const Entries& entries) override {
    etcd_.Start();
    Say(entries);
  }
  void Relist(const Entries& entries) override {
    Lose();
    Recover(entries);
    etcd_.Compact();  // What the watch would go on from is gone.
  }

 private:
  static std::string KeyOf(const Entry& entry) {
    return absl::StrCat("/weft/endpoints/n1/h/ns/", entry.name);
  }
  test::Etcd etcd_;
  std::unique_ptr<HttpClient> http_;
  std::unique_ptr<EtcdSource> source_;
  std::vector<std::string> keys_;
};

class PropellerSubject final : public Subject {
 public:
  PropellerSubject() : manager_(broker_) {}
  // One worker a variant, whose host tells which it is.
  void Say(const Entries& entries) override {
    for (const int variant : {1, 2}) {
      std::vector<PropellerPlacement> placements;
      for (const Entry& each : entries) {
        if (each.variant == variant) placements.push_back({"t-" + each.name, each.name, !each.draining});
      }
      broker_.Publish(absl::StrCat("m/T/c/C/weft/p", variant),
                      WorkerText("n1", absl::StrCat("h", variant), placements), true);
    }
  }
  std::vector<SourceChange> Begin() override {
    PropellerOptions options;
    options.mqtt.host = broker_.address();
    options.mqtt.port = Through(broker_.port());
    options.base_topic = test::PropellerManager::kTopic;
    options.manager = manager_.url();
    options.ns = "ns";
    source_ = *PropellerSource::Create(options);
    return {};
  }
  Source& source() override { return *source_; }
  void Lose() override { broker_.Kill(); }
  void Recover(const Entries& entries) override {
    broker_.Start();
    Say(entries);
  }
  int VariantOf(const api::Endpoint& endpoint) const override { return endpoint.host() == "h1" ? 1 : 2; }

 private:
  test::Mosquitto broker_;
  test::PropellerManager manager_;
  std::unique_ptr<PropellerSource> source_;
};

class KubeSubject final : public Subject {
 public:
  KubeSubject() {
    // One server for all tests: it takes seconds to start.
    static std::unique_ptr<test::Kube> kube = std::make_unique<test::Kube>();
    kube_ = kube.get();
    (void)kube_->Ask("POST", "/api/v1/namespaces", R"({"metadata":{"name":"ns"}})");  // It may be there.
    kube_->Delete(kServices);
    kube_->Delete(kSlices);
  }
  void Say(const Entries& entries) override {
    for (const std::string& name : std::exchange(names_, {})) {
      bool stays = false;
      for (const Entry& each : entries) stays |= name == each.name;
      if (stays) continue;
      kube_->Delete(absl::StrCat(kServices, "/", name));
      kube_->Delete(absl::StrCat(kSlices, "/", name));
    }
    for (const Entry& each : entries) {
      // The one that is there already is refused, or replaced.
      (void)kube_->Ask(
          "POST", kServices,
          absl::StrCat(R"({"metadata":{"name":")", each.name, R"("},"spec":{"ports":[{"port":1}]}})"));
      const std::string slice = SliceOf(each);
      if (!kube_->Ask("POST", kSlices, slice).ok())
        kube_->Replace(absl::StrCat(kSlices, "/", each.name), slice);
      names_.push_back(each.name);
    }
  }
  std::vector<SourceChange> Begin() override {
    KubeOptions options = kube_->Options();
    options.server = Through(options.server);
    source_ = *KubeSource::Create(options, {});
    return {};
  }
  Source& source() override { return *source_; }
  void Lose() override { kube_->Kill(); }
  void Recover(const Entries& entries) override {
    kube_->Start();
    Say(entries);
  }
  int VariantOf(const api::Endpoint& endpoint) const override { return endpoint.host() == "u1" ? 1 : 2; }

 private:
  static constexpr char kServices[] = "/api/v1/namespaces/ns/services";
  static constexpr char kSlices[] = "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices";

  // Of one pod, whose UID tells the variant.
  static std::string SliceOf(const Entry& entry) {
    return absl::StrCat(
        R"({"metadata":{"name":")", entry.name, R"(","labels":{"kubernetes.io/service-name":")", entry.name,
        R"("}},"addressType":"IPv4","ports":[{"port":1,"appProtocol":"weft/host"}],)",
        R"("endpoints":[{"addresses":["10.1.0.1"],"nodeName":"n1","conditions":{"ready":)",
        entry.draining ? R"(false,"serving":true,"terminating":true)" : "true",
        R"(},"targetRef":{"kind":"Pod","namespace":"ns","name":"p","uid":"u)", entry.variant, R"("}}]})");
  }

  test::Kube* kube_;
  std::unique_ptr<KubeSource> source_;
  std::vector<std::string> names_;
};

struct Kind {
  const char* name;
  std::function<bool()> installed;
  std::function<std::unique_ptr<Subject>()> make;
};

class ConformanceTest : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    if (!GetParam().installed()) GTEST_SKIP() << "no " << GetParam().name << " on this machine";
    // The node, as something else names it.
    SourceMesh node;
    node.origin = "elsewhere";
    node.nodes.emplace_back().value.set_name("n1");
    model_.Offer(node);
    subject_ = GetParam().make();
    subject_->Say({{"stays"}});
    Take(subject_->Begin());
    ASSERT_TRUE(RunUntil({{"stays"}})) << Problem();
  }
  void Take(std::vector<SourceChange> changes) {
    for (SourceChange& change : changes) {
      if (change.gone) {
        model_.Withdraw(change.origin);
      } else if (change.errors.empty()) {
        change.offer.origin = change.origin;
        model_.Offer(std::move(change.offer));
      } else {
        model_.OfferUnreadable(change.origin, change.errors);
      }
    }
    EXPECT_THAT(model_.Evaluate().errors, ElementsAre());
    fewest_ = std::min(fewest_, model_.state().count(EntryKind::kEndpoint));
  }
  std::vector<std::string> Seen() const {
    std::vector<std::string> seen;
    const TypedMesh mesh = TypedOf(model_.state());
    for (const auto& [key, endpoint] : mesh.endpoints) {
      seen.push_back(absl::StrCat(key.function, "@", key.node, " ", endpoint.state(), " ",
                                  subject_->VariantOf(endpoint)));
    }
    return seen;
  }
  template <typename Done>
  bool RunWhile(Done&& done, uint64_t timeout_ns = 20 * kNsPerSecond) {
    Source& source = subject_->source();
    const auto turn = [&] {
      if (source.wake_ns() != 0 && NowNs() >= source.wake_ns()) Take(source.OnTime(NowNs()));
      std::vector<pollfd> entries;
      source.AddPollEntries(&entries);
      poll(entries.data(), entries.size(), 1);
      Take(source.OnEvents(entries, NowNs()));
    };
    return test::TurnUntil(turn, done, timeout_ns);
  }
  // Until the source is in step, and says these, which are in order of their names.
  bool RunUntil(const Entries& entries) {
    std::vector<std::string> wanted;
    for (const Entry& each : entries) {
      const int state = each.draining ? api::ENDPOINT_DRAINING : api::ENDPOINT_READY;
      wanted.push_back(absl::StrCat("ns/", each.name, "@n1 ", state, " ", each.variant));
    }
    return RunWhile([&] { return subject_->source().Health().synced && Seen() == wanted; });
  }
  std::string Problem() const {
    return absl::StrCat(subject_->source().Health().problem, " ", testing::PrintToString(Seen()));
  }

  std::unique_ptr<Subject> subject_;
  Model model_;
  std::size_t fewest_ = 1'000;
};

TEST_P(ConformanceTest, WhatIsAddedChangedDrainedAndDeletedIsFollowed) {
  for (const Entries& entries :
       {Entries{{"added"}, {"stays"}}, Entries{{"added", false, 2}, {"stays"}},
        Entries{{"added", true, 2}, {"stays"}}, Entries{{"added"}, {"stays", true}}, Entries{{"stays"}}}) {
    subject_->Say(entries);
    EXPECT_TRUE(RunUntil(entries)) << Problem();
  }
}

TEST_P(ConformanceTest, ARelistOfTheSameChangesNothing) {
  subject_->Say({{"other", true}, {"stays"}});
  ASSERT_TRUE(RunUntil({{"other", true}, {"stays"}})) << Problem();
  fewest_ = 1'000;
  subject_->Relist({{"other", true}, {"stays"}});
  // It has noticed, or is through with it already.
  RunWhile([&] { return !subject_->source().Health().synced; }, 500 * kNsPerMs);
  EXPECT_TRUE(RunUntil({{"other", true}, {"stays"}})) << Problem();
  EXPECT_EQ(fewest_, 2u);
}

TEST_P(ConformanceTest, ALossTakesNothingBackAndTheRecoveryBringsWhatIs) {
  subject_->Say({{"goes"}, {"stays"}});
  ASSERT_TRUE(RunUntil({{"goes"}, {"stays"}})) << Problem();
  fewest_ = 1'000;
  subject_->Lose();
  EXPECT_TRUE(RunWhile([&] { return !subject_->source().Health().synced; })) << Problem();
  EXPECT_NE(subject_->source().Health().lost_ns, 0u);
  RunWhile([] { return false; }, 300 * kNsPerMs);
  EXPECT_EQ(fewest_, 2u);
  subject_->Recover({{"new"}, {"stays", false, 2}});
  EXPECT_TRUE(RunUntil({{"new"}, {"stays", false, 2}})) << Problem();
  EXPECT_EQ(subject_->source().Health().lost_ns, 0u);
}

TEST_P(ConformanceTest, ASourceThatFlapsTakesNothingBackAndIsFollowedInTheEnd) {
  subject_->Say({{"goes"}, {"stays"}});
  ASSERT_TRUE(RunUntil({{"goes"}, {"stays"}})) << Problem();
  fewest_ = 1'000;
  for (int i = 0; i < 8; ++i) {
    const Entries entries = {{"goes", i % 2 == 0}, {"stays", i % 3 == 0}};
    subject_->Cut();
    if (subject_->Changes()) subject_->Say(entries);
    RunWhile([] { return false; }, static_cast<uint64_t>(20 + 40 * (i % 3)) * kNsPerMs);
    subject_->Mend(entries);
    RunWhile([] { return false; }, static_cast<uint64_t>(10 + 60 * (i % 4)) * kNsPerMs);
  }
  EXPECT_EQ(fewest_, 2u);
  subject_->Say({{"new"}, {"stays", false, 2}});
  EXPECT_TRUE(RunUntil({{"new"}, {"stays", false, 2}})) << Problem();
}

// For a second, or for as many as WEFT_AWAY_S says: a minute in a test that is run by hand.
TEST_P(ConformanceTest, WhatChangesWhileTheConnectionIsAwayIsTaken) {
  const char* text = std::getenv("WEFT_AWAY_S");
  int seconds = 1;
  if (text != nullptr) {
    ASSERT_TRUE(absl::SimpleAtoi(text, &seconds));
  }
  const uint64_t back_ns = NowNs() + static_cast<uint64_t>(seconds) * kNsPerSecond;
  fewest_ = 1'000;
  subject_->Cut();
  int changes = 0;
  Entries entries;
  do {
    // Comes, changes, drains, goes, over and over.
    entries = {{"b-stays", false, 1 + changes % 2}, {absl::StrCat("c", changes % 7), changes % 3 == 0}};
    if (changes % 5 != 0) entries.push_back({"d", changes % 2 == 0});
    entries.push_back({"stays"});
    if (subject_->Changes()) subject_->Say(entries);
    ++changes;
    RunWhile([] { return false; }, 20 * kNsPerMs);
  } while (NowNs() < back_ns);
  EXPECT_FALSE(subject_->source().Health().synced);
  EXPECT_EQ(Seen(), std::vector<std::string>{absl::StrCat("ns/stays@n1 ", api::ENDPOINT_READY, " 1")});
  subject_->Mend(entries);
  const uint64_t mended_ns = NowNs();
  EXPECT_TRUE(RunUntil(entries)) << Problem();
  EXPECT_GE(fewest_, 1u);
  std::printf("%s: away for %d s, %d changes, in step %.0f ms later\n", GetParam().name, seconds, changes,
              static_cast<double>(NowNs() - mended_ns) / 1e6);
}

INSTANTIATE_TEST_SUITE_P(
    Sources, ConformanceTest,
    testing::Values(Kind{"File", [] { return true; }, [] { return std::make_unique<FileSubject>(); }},
                    Kind{"Etcd", test::Etcd::Installed, [] { return std::make_unique<EtcdSubject>(); }},
                    Kind{"Kubernetes", test::Kube::Installed, [] { return std::make_unique<KubeSubject>(); }},
                    Kind{"Propeller", test::Mosquitto::Installed,
                         [] { return std::make_unique<PropellerSubject>(); }}),
    [](const auto& kind) { return std::string(kind.param.name); });

}  // namespace
}  // namespace weft::control
