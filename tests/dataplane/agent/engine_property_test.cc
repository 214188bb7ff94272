// SPDX-License-Identifier: Apache-2.0
// Thousands of random histories of hosts, generations, deaths and restarts. The fixture checks after every
// message that no caller has a target ahead of its permission, nor one on a host that has left; here it is
// checked that every history ends where a fresh look at the same mesh would end.
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "dataplane/base/random.h"
#include "tests/dataplane/agent/engine_fixture.h"

namespace weft::agent::test {
namespace {

const std::vector<std::string> kFunctions = {"web/1", "web/2", "vision/1", "vision/2", "shop/1"};
const std::vector<std::pair<std::string, std::string>> kHosts = {
    {"w1", "web"}, {"w2", "web"}, {"v1", "vision"}, {"v2", "vision"}, {"s1", "shop"}};

class HistoryTest : public EngineTest, public testing::WithParamInterface<int> {
 protected:
  HistoryTest() : random_(static_cast<uint64_t>(GetParam()) + 1) {}

  template <typename T>
  const T& Pick(const std::vector<T>& from) {
    return from[random_.Below(from.size())];
  }
  // A host that is attached, or nullptr.
  FakeHost* PickHost() {
    std::vector<FakeHost*> attached;
    for (auto& [name, host] : hosts_) {
      if (host->id != 0) attached.push_back(host.get());
    }
    return attached.empty() ? nullptr : Pick(attached);
  }

  void AttachSomeone() {
    const auto& [name, tenant] = Pick(kHosts);
    const auto found = hosts_.find(name);
    if (found != hosts_.end() && found->second->id != 0) return;
    if (found != hosts_.end() && found->second->deaf) return;
    if (found != hosts_.end()) {
      // It comes back with what it holds, to the same agent that cut it off or to a new one.
      api::Hello hello = HelloOf(*found->second);
      found->second->inbox.clear();
      FakeHost& host = Attach(name, tenant, hello);
      const std::set<ChannelId> held = std::exchange(host.channels, {});
      // What the Welcome keeps is put back when it is applied; here the engine has answered already.
      engine_->Advance(now_ns_);
      for (const ChannelId& id : held) {
        if (engine_->state().channels.contains(id) || engine_->state().provisional.contains(id))
          host.channels.insert(id);
      }
      const std::map<Call, api::Route> asked = host.routes;
      for (const auto& [call, route] : asked) Subscribe(host, call.first, call.second);
      return;
    }
    std::vector<std::string> functions;
    for (const std::string& function : kFunctions) {
      if (function.starts_with(tenant) && random_.Below(2) == 0) functions.push_back(function);
    }
    Attach(name, tenant, functions);
  }

  void SubscribeSomething() {
    FakeHost* host = PickHost();
    if (host == nullptr) return;
    const Session* session = engine_->state().Find(host->id);
    std::vector<std::string> callers(session->registered.begin(), session->registered.end());
    callers.push_back(session->call_as);
    Subscribe(*host, Pick(callers), Pick(kFunctions));
  }

  void ProgramSomething() {
    api::Mesh mesh;
    for (const std::string& function : kFunctions) {
      for (const auto& [host, tenant] : kHosts) {
        if (!function.starts_with(tenant) || random_.Below(3) != 0) continue;
        AddEndpoint(&mesh, function, host,
                    random_.Below(2) == 0 ? '\0' : static_cast<char>('m' + random_.Below(2)),
                    random_.Below(4) == 0 ? api::ENDPOINT_DRAINING : api::ENDPOINT_READY);
      }
    }
    for (const char* from : {"web", "vision", "shop"}) {
      for (const char* to : {"web", "vision", "shop"}) {
        if (random_.Below(2) == 0) AddAllow(&mesh, absl::StrCat(from, "/*"), absl::StrCat(to, "/*"));
      }
    }
    Program(mesh);
  }

  // Changes one endpoint of what the agent holds, or takes it away.
  void ChangeOneEndpoint() {
    const std::string& function = Pick(kFunctions);
    const auto& [host, tenant] = Pick(kHosts);
    if (!function.starts_with(tenant)) return;
    api::Mesh mesh;
    AddEndpoint(&mesh, function, host, random_.Below(4) == 0 ? 'm' : '\0',
                random_.Below(4) == 0 ? api::ENDPOINT_DRAINING : api::ENDPOINT_READY);
    mesh.mutable_endpoints(0)->set_weight(1 + static_cast<uint32_t>(random_.Below(100)));
    api::Program delta;
    if (random_.Below(3) == 0) {
      *delta.add_delete_endpoints() = mesh.endpoints(0);
    } else {
      *delta.mutable_upsert() = mesh;
    }
    ProgramDelta(std::move(delta));
  }

  void Step() {
    FakeHost* host = PickHost();
    switch (random_.Below(16)) {
      case 0:
      case 1:
        return AttachSomeone();
      case 2:
      case 3:
      case 4:
        return SubscribeSomething();
      case 5:
        return ProgramSomething();
      case 6:
        if (host != nullptr && random_.Below(3) == 0) Kill(*host);
        return;
      case 7:
        if (host != nullptr) host->deaf = random_.Below(3) == 0;
        return;
      case 8:
        if (host != nullptr && !host->channels.empty()) {
          api::ChannelClosed closed;
          closed.set_id(*host->channels.begin());
          host->channels.erase(host->channels.begin());
          EXPECT_TRUE(engine_->ChannelClosed(host->id, closed, now_ns_).ok());
        }
        return;
      case 9:
        if (host != nullptr) host->loads_slowly = random_.Below(2) == 0;
        return;
      case 10:
        if (host != nullptr) FinishAll(*host);
        return;
      case 11:
        return Pass(random_.Below(300) * kNsPerMs);
      case 12:
      case 13:
        return ChangeOneEndpoint();
      case 14:
        if (random_.Below(6) == 0) RestartAgent();
        return;
      default:
        // One message only, so that hosts lag behind each other.
        if (host != nullptr && !host->deaf && !host->inbox.empty()) ApplyOne(*host);
        return;
    }
  }

  void FinishAll(FakeHost& host) {
    for (const std::string& function : std::set<std::string>(host.loading)) FinishLoading(host, function);
    for (const std::string& function : std::set<std::string>(host.leaving)) FinishCalls(host, function);
  }

  void ExpectConverged() {
    for (auto& [name, host] : hosts_) {
      host->deaf = host->loads_slowly = host->keeps_calls = false;
    }
    for (int i = 0; i < 5; ++i) {
      Pass(kNsPerSecond);
      for (auto& [name, host] : hosts_) {
        if (host->id != 0) FinishAll(*host);
      }
    }
    Pass(kPlacementNs + kNsPerSecond);
    if (generation_ > engine_->acknowledged_generation()) {
      EXPECT_LE(engine_->model().generation(), engine_->acknowledged_generation())
          << "a generation that this agent knows was never acknowledged";
    }
    ExpectAsPlannedFresh();
    // Single changes, without anything else that would make the engine look at all.
    for (int i = 0; i < 6 && !HasFailure(); ++i) {
      ChangeOneEndpoint();
      Settle();
      if (engine_->OpenNow().empty() && engine_->acknowledged_generation() == generation_)
        ExpectAsPlannedFresh();
    }
  }

  void ExpectAsPlannedFresh() {
    for (auto& [name, host] : hosts_) {
      if (host->id == 0) continue;
      for (const auto& [call, subscription] : engine_->state().Find(host->id)->subscriptions) {
        const FunctionPlan function =
            PlanFunction(engine_->model(), engine_->state(), engine_->OpenNow(), "n1", call.second);
        PlanRoute route = PlanCall(engine_->model(), engine_->state(), "n1", function,
                                   *engine_->state().Find(host->id), call);
        if (!engine_->state().Find(host->id)->MayCallAs(call.first)) route.targets.clear();
        std::set<std::string> expected;
        for (const PlanTarget& target : route.targets)
          expected.insert(engine_->state().Find(target.session)->host);
        EXPECT_EQ(TargetsAt(*host, call.first, call.second), expected)
            << name << ": " << call.first << " to " << call.second << ": " << host->routes[call].reason();
      }
    }
  }

  Random random_;
};

TEST_P(HistoryTest, EndsWhereAFreshLookWouldEnd) {
  for (int i = 0; i < 300 && !HasFailure(); ++i) {
    Step();
    if (random_.Below(4) == 0) Settle();
  }
  if (!HasFailure()) ExpectConverged();
}

INSTANTIATE_TEST_SUITE_P(Seeds, HistoryTest, testing::Range(0, 2000));

}  // namespace
}  // namespace weft::agent::test
