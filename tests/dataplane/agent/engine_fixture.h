// SPDX-License-Identifier: Apache-2.0
// A mesh of simulated hosts around the pure engine: each host obeys what it is told, unless the test makes it
// deaf. Time is a number that the test moves.
#ifndef WEFT_TESTS_DATAPLANE_AGENT_ENGINE_FIXTURE_H_
#define WEFT_TESTS_DATAPLANE_AGENT_ENGINE_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "dataplane/agent/engine.h"
#include "dataplane/base/function_id.h"

namespace weft::agent::test {

// Codes of a route.
inline constexpr uint32_t kNotFound = 5;
inline constexpr uint32_t kUnavailable = 14;

// What a host knows from the messages that it applied.
struct FakeHost {
  std::string name;
  SessionId id = 0;
  bool deaf = false;          // Keeps its messages unread.
  bool loads_slowly = false;  // Leaves Place unanswered: see FinishLoading().
  bool keeps_calls = false;   // Leaves Unplace unanswered: see FinishCalls().
  std::string fail_loading;   // Not empty: answers Place so.
  std::deque<Output> inbox;
  std::set<std::string> serves;
  std::set<std::string> loading;
  std::set<std::string> leaving;
  std::set<ChannelId> channels;  // Handed over and not closed.
  std::map<ChannelId, uint32_t> arenas;
  std::map<ChannelId, std::map<uint32_t, std::pair<std::string, std::set<uint64_t>>>> access;
  std::map<ChannelId, std::pair<uint32_t, std::string>> closed;  // Code and reason
  std::map<Call, api::Route> routes;
  api::Welcome welcome;
  std::vector<api::ToHost> applied;
  bool drain_asked = false;
};

class EngineTest : public testing::Test {
 protected:
  EngineTest();

  // Attaches a host that serves `functions` of its own accord. `tenant` is one of tenants_.
  FakeHost& Attach(const std::string& name, const std::string& tenant,
                   std::vector<std::string> functions = {});
  FakeHost& Attach(const std::string& name, const std::string& tenant, api::Hello hello);
  FakeHost& AttachClient(const std::string& tenant);
  // The node engine of n1's `worker`, as session 1000 + worker.
  FakeHost& AttachNodeEngine(uint16_t worker = 0);
  absl::Status TryAttach(const std::string& name, const std::string& tenant, const api::Hello& hello);
  void Subscribe(FakeHost& host, const std::string& caller, const std::string& callee);
  void Kill(FakeHost& host) {
    engine_->Detach(host.id, "its process ended", now_ns_);
    hosts_.erase(host.name);
  }

  // Programs a whole mesh as the next generation; its outcome is in programmed_ once it is acknowledged.
  uint64_t Program(const api::Mesh& mesh);
  // The same with a change of what the agent holds.
  uint64_t ProgramDelta(api::Program delta);
  static void AddEndpoint(api::Mesh* mesh, const std::string& function, const std::string& host,
                          char module = '\0', api::EndpointState state = api::ENDPOINT_READY);
  static void AddAllow(api::Mesh* mesh, const std::string& from, const std::string& to);

  // Delivers and applies until nothing moves any more, at the time now_ns_. Checks the invariants after each
  // step.
  void Settle();
  // Moves the time, stopping at each deadline of the engine.
  void Pass(uint64_t ns);
  // Applies the oldest message of a host.
  void ApplyOne(FakeHost& host);
  void FinishLoading(FakeHost& host, const std::string& function);
  void FinishCalls(FakeHost& host, const std::string& function);

  // Hosts that calls go to by the route that `host` has applied; empty with a code.
  std::set<std::string> TargetsAt(FakeHost& host, const std::string& caller, const std::string& callee);
  bool Acknowledged(uint64_t generation) const { return programmed_.contains(generation); }
  void TakeOutputs();
  // A new agent with the model that the last one saved and none of its sessions.
  void RestartAgent();
  api::Hello HelloOf(const FakeHost& host) const;

  uint64_t now_ns_ = kNsPerSecond;
  std::map<std::string, Tenant> tenants_;
  std::unique_ptr<Engine> engine_;
  std::map<std::string, std::unique_ptr<FakeHost>> hosts_;
  std::map<uint64_t, api::Programmed> programmed_;
  std::shared_ptr<const Model> saved_;
  std::set<std::string> cut_off_;
  uint64_t generation_ = 0;

 private:
  void MakeEngine();
  void CheckInvariants();
  bool DeniedSince(uint64_t generation, const Call& call) const;
  void Obey(FakeHost& host, const Output& output);
  void Load(FakeHost& host, const std::string& function);
  FakeHost* ById(SessionId id);

  std::vector<std::shared_ptr<const Model>> models_;  // In the order in which agents held them
  SessionId last_session_ = 0;
  uint64_t last_channel_ = 0;
  int clients_ = 0;
};

}  // namespace weft::agent::test

#endif  // WEFT_TESTS_DATAPLANE_AGENT_ENGINE_FIXTURE_H_
