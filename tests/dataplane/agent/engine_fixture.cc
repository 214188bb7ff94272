// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/agent/engine_fixture.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace weft::agent::test {

EngineTest::EngineTest() {
  for (const char* name : {"web", "vision", "shop"}) {
    Tenant& tenant = tenants_[name];
    tenant.name = name;
    tenant.serve = {absl::StrCat(name, "/*")};
    tenant.call_as = name;
  }
  MakeEngine();
}

void EngineTest::MakeEngine() {
  EngineOptions options;
  options.node = "n1";
  options.start_ns = now_ns_;
  options.new_channel_id = [this] { return absl::StrFormat("channel-%08d", ++last_channel_); };
  options.tenant_of_host = [](const std::string&) { return 0; };
  options.index_of_tenant = [](const Tenant*) { return 0; };
  engine_ = std::make_unique<Engine>(std::move(options));
}

void EngineTest::RestartAgent() {
  MakeEngine();
  if (saved_ != nullptr) engine_->Restore(*saved_);
  models_.push_back(saved_ != nullptr ? saved_ : std::make_shared<const Model>());
  for (auto& [name, host] : hosts_) {
    host->inbox.clear();
    host->id = 0;
  }
}

absl::Status EngineTest::TryAttach(const std::string& name, const std::string& tenant,
                                   const api::Hello& hello) {
  AttachRequest request;
  request.session = ++last_session_;
  request.tenant = &tenants_.at(tenant);
  request.host = name;
  request.is_client = hello.host().empty();
  request.call_as = request.tenant->call_as;
  request.hello = hello;
  request.hello.set_takes_route_lists(last_session_ % 2 == 0);  // Some are from before these.
  return engine_->Attach(request, now_ns_);
}

FakeHost& EngineTest::Attach(const std::string& name, const std::string& tenant, api::Hello hello) {
  const absl::Status attached = TryAttach(name, tenant, hello);
  EXPECT_TRUE(attached.ok()) << attached;
  std::unique_ptr<FakeHost>& host = hosts_[name];
  if (host == nullptr) host = std::make_unique<FakeHost>();
  host->name = name;
  host->id = last_session_;
  for (const std::string& function : hello.serves()) host->serves.insert(function);
  return *host;
}

FakeHost& EngineTest::Attach(const std::string& name, const std::string& tenant,
                             std::vector<std::string> functions) {
  api::Hello hello;
  hello.set_host(name);
  for (const std::string& function : functions) hello.add_serves(function);
  return Attach(name, tenant, hello);
}

FakeHost& EngineTest::AttachClient(const std::string& tenant) {
  return Attach(absl::StrCat("client:", ++clients_), tenant, api::Hello());
}

api::Hello EngineTest::HelloOf(const FakeHost& host) const {
  api::Hello hello;
  hello.set_host(host.name);
  for (const std::string& function : host.serves) hello.add_serves(function);
  for (const ChannelId& id : host.channels) {
    api::HeldChannel& held = *hello.add_channels();
    held.set_id(id);
    if (const auto arena = host.arenas.find(id); arena != host.arenas.end()) {
      held.set_arena_bytes(arena->second);
    }
    for (const auto& [name, other] : hosts_) {
      if (name != host.name && other->channels.contains(id)) held.set_peer(name);
    }
    const auto access = host.access.find(id);
    if (access == host.access.end()) continue;
    for (const auto& [index, entry] : access->second) {
      api::ChannelAccess::Caller& caller = *held.add_callers();
      caller.set_index(index);
      caller.set_name(entry.first);
      for (const uint64_t callee : entry.second) caller.add_callee_ids(callee);
      held.set_index_max(std::max(held.index_max(), index));
    }
  }
  return hello;
}

FakeHost& EngineTest::AttachNodeEngine(uint16_t worker) {
  AttachRequest request;
  request.session = 1000u + worker;
  request.worker = worker;
  request.tenant = &tenants_.at("web");
  request.host = EngineName("n1", worker);
  request.is_client = request.is_engine = true;
  EXPECT_TRUE(engine_->Attach(request, now_ns_).ok());
  FakeHost& host = *hosts_.emplace(request.host, std::make_unique<FakeHost>()).first->second;
  host.name = request.host;
  host.id = request.session;
  return host;
}

void EngineTest::Subscribe(FakeHost& host, const std::string& caller, const std::string& callee) {
  api::Subscribe subscribe;
  subscribe.set_caller(caller);
  subscribe.set_callee(callee);
  const absl::Status taken = engine_->Subscribe(host.id, subscribe);
  EXPECT_TRUE(taken.ok()) << taken;
}

void EngineTest::AddEndpoint(api::Mesh* mesh, const std::string& function, const std::string& host,
                             char module, api::EndpointState state) {
  api::Endpoint& endpoint = *mesh->add_endpoints();
  endpoint.set_function(function);
  endpoint.set_node("n1");
  endpoint.set_host(host);
  endpoint.set_state(state);
  if (module == '\0') return;
  endpoint.set_module(absl::StrCat("/modules/", std::string(1, module)));
  endpoint.set_sha256(std::string(32, module));
}

void EngineTest::AddAllow(api::Mesh* mesh, const std::string& from, const std::string& to) {
  api::Allow& rule = *mesh->add_allow();
  rule.set_from(from);
  rule.set_to(to);
}

uint64_t EngineTest::Program(const api::Mesh& mesh) {
  api::Program program;
  program.set_snapshot(true);
  *program.mutable_upsert() = mesh;
  return ProgramDelta(std::move(program));
}

uint64_t EngineTest::ProgramDelta(api::Program program) {
  program.set_generation(++generation_);
  program.set_last(true);
  const absl::Status taken = engine_->Program(1'000'000, program, now_ns_);
  EXPECT_TRUE(taken.ok()) << taken;
  models_.push_back(std::make_shared<const Model>(engine_->model()));
  return generation_;
}

FakeHost* EngineTest::ById(SessionId id) {
  for (auto& [name, host] : hosts_) {
    if (host->id == id) return host.get();
  }
  return nullptr;
}

void EngineTest::TakeOutputs() {
  engine_->Advance(now_ns_);
  for (Output& output : engine_->TakeOutputs()) {
    switch (output.kind) {
      case Output::Kind::kSend:
        if (FakeHost* host = ById(output.to); host != nullptr) host->inbox.push_back(std::move(output));
        break;
      case Output::Kind::kCutOff:
        if (FakeHost* host = ById(output.to); host != nullptr) {
          cut_off_.insert(host->name);
          host->id = 0;
        }
        break;
      case Output::Kind::kAcknowledged:
        programmed_[output.programmed.generation()] = output.programmed;
        saved_ = output.model;
        break;
      case Output::Kind::kChannelGone:
      case Output::Kind::kDrained:
        break;
    }
  }
  CheckInvariants();
}

void EngineTest::Load(FakeHost& host, const std::string& function) {
  api::FunctionReport report;
  report.set_function(function);
  report.set_state(host.fail_loading.empty() ? api::FunctionReport::READY : api::FunctionReport::FAILED);
  report.set_error(host.fail_loading);
  if (host.fail_loading.empty()) host.serves.insert(function);
  EXPECT_TRUE(engine_->Report(host.id, report).ok());
}

void EngineTest::FinishLoading(FakeHost& host, const std::string& function) {
  ASSERT_EQ(host.loading.erase(function), 1u);
  Load(host, function);
}

void EngineTest::FinishCalls(FakeHost& host, const std::string& function) {
  ASSERT_EQ(host.leaving.erase(function), 1u);
  host.serves.erase(function);
  api::FunctionReport report;
  report.set_function(function);
  report.set_state(api::FunctionReport::GONE);
  EXPECT_TRUE(engine_->Report(host.id, report).ok());
}

void EngineTest::Obey(FakeHost& host, const Output& output) {
  const api::ToHost& message = output.message;
  switch (message.kind_case()) {
    case api::ToHost::kWelcome:
      host.welcome = message.welcome();
      break;
    case api::ToHost::kRoute:
      host.routes[{message.route().caller(), message.route().callee()}] = message.route();
      break;
    case api::ToHost::kRouteList:
      for (const api::Route& route : message.route_list().routes())
        host.routes[{route.caller(), route.callee()}] = route;
      break;
    case api::ToHost::kChannelOpen:
      host.arenas[message.channel_open().id()] = static_cast<uint32_t>(message.channel_open().arena_bytes());
      if (engine_->ExpectedArena(host.id, message.channel_open().id()).value() != 0) {
        EXPECT_TRUE(engine_->MemoryArrived(host.id, message.channel_open().id()).ok());
      }
      break;
    case api::ToHost::kChannelPeer:
      EXPECT_EQ(output.attach, Output::Attach::kChannelPeer);
      host.channels.insert(message.channel_peer().id());
      break;
    case api::ToHost::kChannelAccess: {
      auto& table = host.access[message.channel_access().id()];
      table.clear();
      for (const api::ChannelAccess::Caller& caller : message.channel_access().callers()) {
        table[caller.index()] = {caller.name(), {caller.callee_ids().begin(), caller.callee_ids().end()}};
      }
      break;
    }
    case api::ToHost::kChannelClose:
      host.channels.erase(message.channel_close().id());
      host.access.erase(message.channel_close().id());
      host.closed[message.channel_close().id()] = {message.channel_close().code(),
                                                   message.channel_close().reason()};
      break;
    case api::ToHost::kPlace:
      EXPECT_EQ(output.attach, Output::Attach::kModule);
      host.loading.insert(message.place().function().name());
      if (!host.loads_slowly) FinishLoading(host, message.place().function().name());
      break;
    case api::ToHost::kUnplace:
      host.leaving.insert(message.unplace().function());
      if (!host.keeps_calls) FinishCalls(host, message.unplace().function());
      break;
    case api::ToHost::kDrain:
      host.drain_asked = true;
      break;
    default:
      break;
  }
  host.applied.push_back(message);
  if (message.serial() != 0) {
    EXPECT_TRUE(engine_->Applied(host.id, message.serial()).ok());
  }
}

void EngineTest::ApplyOne(FakeHost& host) {
  ASSERT_FALSE(host.inbox.empty());
  const Output output = std::move(host.inbox.front());
  host.inbox.pop_front();
  if (host.id == 0) return;
  Obey(host, output);
  TakeOutputs();
}

void EngineTest::Settle() {
  TakeOutputs();
  for (int step = 0; step < 100'000; ++step) {
    FakeHost* next = nullptr;
    for (auto& [name, host] : hosts_) {
      if (!host->deaf && host->id != 0 && !host->inbox.empty()) next = host.get();
    }
    if (next == nullptr) return;
    ApplyOne(*next);
  }
  FAIL() << "the engine never comes to rest";
}

void EngineTest::Pass(uint64_t ns) {
  const uint64_t end_ns = now_ns_ + ns;
  Settle();
  while (engine_->NextDeadlineNs() <= end_ns) {
    now_ns_ = std::max(now_ns_ + 1, engine_->NextDeadlineNs());
    Settle();
  }
  now_ns_ = end_ns;
  Settle();
}

// Whether the policy has forbidden `call` at some time since `generation` held, so that a receiver may refuse
// it before the caller is told.
bool EngineTest::DeniedSince(uint64_t generation, const Call& call) const {
  auto model = models_.rbegin();
  for (; model != models_.rend(); ++model) {
    if (!(*model)->Allows(call.first, call.second)) return true;
    if ((*model)->generation() == generation) return false;
  }
  return false;
}

// What must hold at every moment, seen from the hosts: a caller never has a target whose table does not
// permit the call, unless the table shrank because policy forbids it now; and never one on a host that the
// engine knows as gone.
void EngineTest::CheckInvariants() {
  std::size_t registrations = 0;
  for (const auto& [id, session] : engine_->state().sessions) {
    registrations += session.registered.size();
    for (const std::string& function : session.registered) {
      ASSERT_TRUE(engine_->state().registered_at.at(function).contains(id));
    }
  }
  for (const auto& [function, ids] : engine_->state().registered_at) registrations -= ids.size();
  ASSERT_EQ(registrations, 0u) << "a registration is indexed that its session does not have";
  for (auto& [name, caller] : hosts_) {
    if (caller->id == 0) continue;
    const Session* session = engine_->state().Find(caller->id);
    ASSERT_NE(session, nullptr) << name;
    for (const auto& [call, subscription] : session->subscriptions) {
      for (const api::Target& target : subscription.route.targets()) {
        if (target.channel().empty()) continue;
        ASSERT_TRUE(engine_->state().channels.contains(target.channel()))
            << name << " was told of a channel that is gone";
        ASSERT_NE(engine_->state().FindHost(target.host()), nullptr)
            << name << " was told of a host that has left";
      }
    }
    for (const auto& [call, route] : caller->routes) {
      if (!session->subscriptions.contains(call)) continue;  // Not asked for again since the agent's restart.
      for (const api::Target& target : route.targets()) {
        const auto callee = hosts_.find(target.host());
        if (target.channel().empty() || callee == hosts_.end() || callee->second->id == 0) continue;
        if (!callee->second->channels.contains(target.channel()))
          continue;  // Closed; its caller is about to hear.
        if (DeniedSince(route.generation(), call)) continue;
        const auto& table = callee->second->access[target.channel()];
        const auto entry = table.find(target.caller_index());
        ASSERT_TRUE(entry != table.end() && CallerOf(entry->second.first) == call.first &&
                    entry->second.second.contains(FunctionIdOf(call.second).value))
            << name << " calls " << call.second << " as " << call.first << " at " << target.host()
            << " ahead of its permission";
      }
    }
  }
}

std::set<std::string> EngineTest::TargetsAt(FakeHost& host, const std::string& caller,
                                            const std::string& callee) {
  std::set<std::string> targets;
  for (const api::Target& target : host.routes[{caller, callee}].targets()) targets.insert(target.host());
  return targets;
}

}  // namespace weft::agent::test
