// SPDX-License-Identifier: Apache-2.0
// A real source, weft-control and weftd of one node, killed and started again in every order while what the
// source holds changes and calls run: none fails, and in the end weftd holds what the source does. One seed
// decides what changes when and in which order the three come back; WEFT_ORDERS_SEED names another, and
// WEFT_ORDERS_ROUNDS goes through all orders so many times (tools/test goes through them once at most).
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "dataplane/agent/store.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/random.h"
#include "tests/integration/load_run.h"
#include "tests/support/etcd.h"
#include "tests/support/kube.h"
#include "tests/support/propeller_manager.h"

namespace weft::test {
namespace {

enum class Stage { kReady, kDraining };
// By function and host: what the source holds on node n1. app/echo on host a is always there, and ready.
using World = std::map<std::pair<std::string, std::string>, Stage>;
constexpr const char* kFunctionNames[] = {"echo", "f0", "f1", "f2"};

// The orchestrator, which the test kills and writes to.
class Subject {
 public:
  virtual ~Subject() = default;
  virtual std::string ControlYaml() const = 0;
  virtual void Kill() = 0;
  virtual void Start() = 0;
  // From now on it holds this, and nothing else. Only while it runs.
  virtual void Say(const World& world) = 0;
  // Where the source itself loses what it was told, as it stands.
  virtual void SayAgain() {}
  // What it can say: on which hosts, and whether an endpoint can drain. The first host always serves.
  virtual std::vector<std::string> Hosts() const { return {"a", "b"}; }
  virtual bool Drains() const { return true; }
  // Whether it says that other/* may call app/echo. Then the caller is of that namespace, and a weftd that
  // forgot what it was told would refuse it.
  virtual bool SaysRule() const { return false; }
};

class EtcdSubject final : public Subject {
 public:
  EtcdSubject() {
    etcd_.Put("/weft/nodes/n1", "{}");
    for (const char* name : kFunctionNames) etcd_.Put(absl::StrCat("/weft/functions/app/", name), "{}");
    etcd_.Put("/weft/allow/other/*/app/echo", "{}");
  }
  bool SaysRule() const override { return true; }
  std::string ControlYaml() const override {
    return absl::StrCat("version: 1\netcd: {endpoints: [\"", etcd_.url(), "\"]}\n");
  }
  void Kill() override { etcd_.Kill(); }
  void Start() override { etcd_.Start(); }
  void Say(const World& world) override {
    for (const auto& [key, stage] : said_) {
      if (!world.contains(key)) etcd_.Delete(KeyOf(key));
    }
    for (const auto& [key, stage] : world) {
      const auto said = said_.find(key);
      if (said != said_.end() && said->second == stage) continue;
      etcd_.Put(KeyOf(key), stage == Stage::kReady ? "{}" : R"({"state":"draining"})");
    }
    said_ = world;
  }

 private:
  static std::string KeyOf(const World::key_type& key) {
    return absl::StrCat("/weft/endpoints/n1/", key.second, "/app/", key.first);
  }
  Etcd etcd_;
  World said_;
};

class KubeSubject final : public Subject {
 public:
  KubeSubject() {
    kube_.Create("/api/v1/namespaces", R"({"metadata":{"name":"app"}})");
    kube_.Create("/api/v1/nodes", R"({"metadata":{"name":"n1"},"status":{"addresses":[)"
                                  R"({"type":"InternalIP","address":"10.0.0.1"}]}})");
    for (const std::string name : kFunctionNames) {
      kube_.Create("/api/v1/namespaces/app/services",
                   absl::StrCat(R"({"metadata":{"name":")", name, R"("},"spec":{"ports":[{"port":1}]}})"));
      kube_.Create(kSlices, SliceOf(name, {}));
    }
    WriteFile(files_ / "token", kube_.token());
    WriteFile(files_ / "kubeconfig",
              absl::StrCat("current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n",
                           "clusters: [{name: k, cluster: {server: \"", kube_.url(),
                           "\", certificate-authority: ", files_ / "ca.crt",
                           "}}]\nusers: [{name: u, user: {tokenFile: token}}]\n"));
    WriteFile(files_ / "ca.crt", ReadFile(kube_.authority().path("ca.crt")));
  }
  std::string ControlYaml() const override {
    return absl::StrCat("version: 1\nkubernetes: {kubeconfig: ", files_ / "kubeconfig", "}\n");
  }
  void Kill() override { kube_.Kill(); }
  void Start() override { kube_.Start(); }
  void Say(const World& world) override {
    for (const std::string name : kFunctionNames) {
      const World hosts = Of(name, world);
      if (hosts == Of(name, said_)) continue;
      kube_.Replace(absl::StrCat(kSlices, "/", name), SliceOf(name, hosts));
    }
    said_ = world;
  }

 private:
  static constexpr char kSlices[] = "/apis/discovery.k8s.io/v1/namespaces/app/endpointslices";

  static World Of(const std::string& name, const World& world) {
    World of;
    for (const auto& [key, stage] : world) {
      if (key.first == name) of.emplace(key, stage);
    }
    return of;
  }
  static std::string SliceOf(const std::string& name, const World& hosts) {
    std::vector<std::string> pods;
    for (const auto& [key, stage] : hosts) {
      pods.push_back(absl::StrCat(
          R"({"addresses":["10.1.0.)", pods.size() + 1, R"("],"nodeName":"n1","conditions":{"ready":)",
          stage == Stage::kReady ? "true" : R"(false,"serving":true,"terminating":true)",
          R"(},"targetRef":{"kind":"Pod","namespace":"app","name":"p","uid":")", key.second, R"("}})"));
    }
    return absl::StrCat(R"({"metadata":{"name":")", name, R"(","labels":{"kubernetes.io/service-name":")",
                        name, R"("}},"addressType":"IPv4","ports":[{"port":1,"appProtocol":"weft/host"}],)",
                        R"("endpoints":[)", absl::StrJoin(pods, ","), "]}");
  }

  Kube kube_;
  TemporaryDirectory files_;
  World said_;
};

// The node is a worker, whose host runs what starts and stops say. This broker keeps nothing when it is
// killed, and what is said to a worker that it has forgotten is lost: so a manager says it again.
class PropellerSubject final : public Subject {
 public:
  PropellerSubject() : manager_(broker_) {
    WriteFile(files_ / "mesh.yaml", "version: 1\nnodes: [{name: n1}]\n");
  }
  std::string ControlYaml() const override {
    return absl::StrCat("version: 1\nfiles: ", files_ / "mesh.yaml", "\n",
                        manager_.Settings("  namespace: app\n  worker: true\n  host: a\n"));
  }
  void Kill() override { broker_.Kill(); }
  void Start() override { broker_.Start(); }
  void Say(const World& world) override {
    for (auto& [name, task] : tasks_) {
      if (task.empty() || world.contains({name, "a"})) continue;
      stopped_.push_back(std::exchange(task, ""));
      manager_.Stop(stopped_.back());
    }
    for (const auto& [key, stage] : world) {
      std::string& task = tasks_[key.first];
      if (!task.empty()) continue;
      task = absl::StrCat(key.first, "-", ++count_);
      Place(key.first, task);
    }
  }
  void SayAgain() override {
    for (const std::string& task : stopped_) manager_.Stop(task);
    stopped_.clear();
    for (const auto& [name, task] : tasks_) {
      if (!task.empty()) Place(name, task);
    }
  }
  std::vector<std::string> Hosts() const override { return {"a"}; }
  bool Drains() const override { return false; }

 private:
  void Place(const std::string& name, const std::string& task) {
    manager_.Start(task, name, "n1", ReadFile(WEFT_GUEST_DIR "/test_load_echo.wasm"));
  }
  Mosquitto broker_;
  PropellerManager manager_;
  TemporaryDirectory files_;
  std::map<std::string, std::string> tasks_;  // By name: what runs it; empty: it was stopped.
  std::vector<std::string> stopped_;
  int count_ = 0;
};

struct Kind {
  const char* name;
  std::function<bool()> installed;
  std::function<std::unique_ptr<Subject>()> make;
  std::size_t orders;  // Of the six, in a run that names no number of rounds.
};

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  uint64_t number = 0;
  return text != nullptr && absl::SimpleAtoi(text, &number) ? number : otherwise;
}

class OrdersTest : public testing::TestWithParam<Kind> {
 protected:
  using Order = std::array<int, 3>;
  enum Part { kSource, kControl, kAgent };

  void SetUp() override {
    if (!Mesh::Privileged()) GTEST_SKIP() << "hosts under users of their own need root";
    if (!GetParam().installed()) GTEST_SKIP() << "no " << GetParam().name << " on this machine";
    subject_ = GetParam().make();
    for (const std::string& host : subject_->Hosts()) world_[{"echo", host}] = Stage::kReady;
    subject_->Say(world_);
    NodeOptions options;
    options.control = subject_->ControlYaml();
    mesh_ = std::make_unique<Mesh>(LoadTenants(), options);
    mesh_->StartAgent();
    StartControl();
  }
  void StartControl() { mesh_->StartControl({"--agent-user", absl::StrCat(kAgentUid)}); }

  void Stop(int part) {
    up_[part] = false;
    if (part == kSource) subject_->Kill();
    if (part == kControl) mesh_->control().Kill();
    if (part == kAgent) mesh_->agent().Kill();
  }
  void Start(int part) {
    if (part == kSource) subject_->Start();
    if (part == kControl) StartControl();
    if (part == kAgent) mesh_->StartAgent();
    up_[part] = true;
  }
  // Something comes, drains or goes; a source that is down cannot be told.
  void Change() {
    if (!up_[kSource]) return;
    const char* name = kFunctionNames[random_.Below(std::size(kFunctionNames))];
    const std::vector<std::string> hosts = subject_->Hosts();
    const World::key_type key(name, hosts[random_.Below(hosts.size())]);
    if (key == World::key_type("echo", "a")) return;
    const auto found = world_.find(key);
    if (found == world_.end()) {
      world_[key] = subject_->Drains() && random_.Below(4) == 0 ? Stage::kDraining : Stage::kReady;
    } else if (subject_->Drains() && random_.Below(2) == 0) {
      found->second = found->second == Stage::kReady ? Stage::kDraining : Stage::kReady;
    } else {
      world_.erase(found);
    }
    subject_->Say(world_);
    ++changes_;
  }
  void ChangeFor(absl::Duration time) {
    const absl::Time end = absl::Now() + time;
    do {
      Change();
      absl::SleepFor(absl::Milliseconds(5));
    } while (absl::Now() < end);
  }
  // One line an endpoint that weftd has acknowledged.
  std::set<std::string> Programmed() const {
    std::set<std::string> lines;
    // A copy, since whoever loads the files may mend them. One that was taken in between is not equal yet.
    const TemporaryDirectory copy;
    for (const char* name : {"routes.pb", "routes.log"}) {
      std::error_code error;
      std::filesystem::copy_file(mesh_->path(absl::StrCat("agent/", name)), copy / name, error);
    }
    const absl::StatusOr<std::unique_ptr<agent::Store>> store = agent::Store::Create(copy.path());
    if (!store.ok()) return {store.status().ToString()};
    const absl::StatusOr<agent::Model> model = (*store)->Load();
    if (!model.ok()) return {model.status().ToString()};
    for (const auto& [key, endpoint] : model->endpoints()) {
      lines.insert(absl::StrCat(key.function, " ", key.node, " ", key.host,
                                endpoint.state() == api::ENDPOINT_DRAINING ? " draining" : ""));
    }
    return lines;
  }
  std::set<std::string> Wanted() const {
    std::set<std::string> lines;
    for (const auto& [key, stage] : world_) {
      lines.insert(
          absl::StrCat("app/", key.first, " n1 ", key.second, stage == Stage::kDraining ? " draining" : ""));
    }
    return lines;
  }
  bool BecomesEqual() {
    uint64_t again_ns = NowNs() + kNsPerSecond / 2;
    return Eventually(
        [&] {
          if (NowNs() > again_ns) {
            subject_->SayAgain();
            again_ns = NowNs() + kNsPerSecond;
          }
          return Programmed() == Wanted();
        },
        absl::Seconds(20));
  }
  void GoThrough(const Order& kills) {
    Order starts = kills;
    for (std::size_t i = starts.size() - 1; i > 0; --i) std::swap(starts[i], starts[random_.Below(i + 1)]);
    for (const int part : kills) {
      Stop(part);
      ChangeFor(absl::Milliseconds(random_.Below(40)));
    }
    for (const int part : starts) {
      Start(part);
      ChangeFor(absl::Milliseconds(random_.Below(80)));
    }
    const uint64_t quiet_ns = NowNs();
    const bool equal = BecomesEqual();
    const auto text = [](const Order& order) {
      constexpr const char* kNames[] = {"source", "weft-control", "weftd"};
      return absl::StrCat(kNames[order[0]], ", ", kNames[order[1]], ", ", kNames[order[2]]);
    };
    std::printf("killed %s; started %s: equal %.0f ms after the last change\n", text(kills).c_str(),
                text(starts).c_str(), static_cast<double>(NowNs() - quiet_ns) / 1e6);
    ASSERT_TRUE(equal) << "weftd holds " << testing::PrintToString(Programmed()) << "\nthe source "
                       << testing::PrintToString(Wanted()) << "\n"
                       << mesh_->control().Output() << mesh_->agent().Output();
  }
  static std::vector<Order> AllOrders() {
    std::vector<Order> orders;
    Order order = {kSource, kControl, kAgent};
    do {
      orders.push_back(order);
    } while (std::next_permutation(order.begin(), order.end()));
    return orders;
  }

  std::unique_ptr<Subject> subject_;
  std::unique_ptr<Mesh> mesh_;
  World world_;
  std::array<bool, 3> up_ = {true, true, true};
  uint64_t seed_ = FromEnvironment("WEFT_ORDERS_SEED", 1);
  Random random_{seed_};
  int changes_ = 0;
};

TEST_P(OrdersTest, KilledAndStartedInAnyOrderNoCallFailsAndTheEndIsTheSources) {
  LoadRun run(*mesh_);
  std::vector<Process> servers;
  if (subject_->Hosts().size() == 1) {  // Which is told what to run, and guests write no ledger.
    run.WithoutLedger();
    servers.push_back(mesh_->StartHost("a", kUidA));
    ASSERT_TRUE(mesh_->WaitForHost("a"));
  } else {
    servers.push_back(run.StartServer("a", kUidA, 1));
    servers.push_back(run.StartServer("b", kUidB, 2));
  }
  ASSERT_TRUE(BecomesEqual()) << mesh_->control().Output();
  Process client =
      run.StartClient(600, 1000, {"--timeout-ms", "5000"}, subject_->SaysRule() ? "stranger" : "caller",
                      subject_->SaysRule() ? kUidStranger : kUidCaller);
  absl::SleepFor(absl::Milliseconds(200));  // Each host is called.
  ChangeFor(absl::Milliseconds(200));
  const uint64_t rounds = FromEnvironment("WEFT_ORDERS_ROUNDS", 0);
  std::vector<Order> orders = AllOrders();
  for (std::size_t i = orders.size() - 1; i > 0; --i) std::swap(orders[i], orders[random_.Below(i + 1)]);
  if (rounds == 0) orders.resize(GetParam().orders);
  for (uint64_t round = 0; round < std::max<uint64_t>(rounds, 1); ++round) {
    for (const Order& order : orders) ASSERT_NO_FATAL_FAILURE(GoThrough(order)) << "seed " << seed_;
  }
  client.Signal(SIGTERM);
  nlohmann::json result = run.Finish(client);
  EXPECT_EQ(result["ok"], result["started"])
      << "seed " << seed_ << "\n"
      << result << mesh_->control().Output() << mesh_->agent().Output();
  std::printf("%s: %d changes, %lld calls\n", GetParam().name, changes_,
              static_cast<long long>(result["ok"]));
  if (servers.size() == 2) {
    EXPECT_EQ(run.Totals().executed_twice, 0u);
    EXPECT_GT(result.value("/tags/2/ok"_json_pointer, 0), 0) << result;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Sources, OrdersTest,
    testing::Values(Kind{"Etcd", Etcd::Installed, [] { return std::make_unique<EtcdSubject>(); }, 6},
                    // A server takes seconds to start, a task seconds to end.
                    Kind{"Kubernetes", Kube::Installed, [] { return std::make_unique<KubeSubject>(); }, 2},
                    Kind{"Propeller", Mosquitto::Installed,
                         [] { return std::make_unique<PropellerSubject>(); }, 3}),
    [](const auto& kind) { return std::string(kind.param.name); });

}  // namespace
}  // namespace weft::test
