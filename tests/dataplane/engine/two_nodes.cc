// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/engine/two_nodes.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/dataplane/agent/server_fixture.h"
#include "tests/support/process.h"

namespace weft::engine::test {

using weft::test::Eventually;

ServingHost::ServingHost(const std::string& run_dir, const std::string& name,
                         std::vector<std::pair<std::string, Handler>> functions,
                         std::function<void()> at_end) {
  auto mesh = Mesh::Create({.run_dir = run_dir, .host = name});
  WEFT_CHECK(mesh.ok());
  mesh_ = *std::move(mesh);
  server_ = std::make_unique<Server>(*mesh_);
  for (auto& [function, handler] : functions) WEFT_CHECK(server_->Register(function, handler).ok());
  WEFT_CHECK(mesh_->Attach().ok());
  thread_ = std::thread([this, at_end = std::move(at_end)] {
    (void)server_->Run();
    if (at_end) at_end();
  });
}

ServingHost::~ServingHost() {
  server_->Stop();
  thread_.join();
}

CallingHost::CallingHost(const std::string& run_dir, const std::string& name, const std::string& caller_name)
    : caller(caller_name) {
  auto made = Mesh::Create({.run_dir = run_dir, .host = name});
  WEFT_CHECK(made.ok());
  mesh = *std::move(made);
  server = std::make_unique<Server>(*mesh);
  WEFT_CHECK(server->Register(caller, [](ServerCall& call) { call.Reply("front"); }).ok());
  WEFT_CHECK(mesh->Attach().ok());
  client = std::make_unique<Client>(*mesh);
}

Function CallingHost::Resolve(const std::string& callee) {
  const absl::StatusOr<Function> function = client->ResolveLazily(callee, caller);
  WEFT_CHECK(function.ok());
  return *function;
}

TwoNodesTest::TwoNodesTest(const NodeEngineOptions& first, const NodeEngineOptions& second) {
  for (int i = 0; i < 2; ++i) {
    nodes_[i].name = absl::StrCat("n", i + 1);
    StartAgent(i);
    MakeEngine(i, i == 0 ? first : second);
  }
  wire_ = std::thread([this] { RunWire(); });
}

TwoNodesTest::~TwoNodesTest() {
  stop_.store(true);
  wire_.join();
  for (int i = 0; i < 2; ++i) {
    nodes_[i].worker.reset();
    nodes_[i].engine.reset();
    StopAgent(i);
  }
}

void TwoNodesTest::StartAgent(int i) {
  Node& node = nodes_[i];
  node.stop = UniqueFd(eventfd(0, EFD_CLOEXEC));
  agent::ServerOptions options;
  options.run_dir = node.run_dir();
  options.state_dir = node.directory / "state";
  options.config.node = node.name;
  options.config.control_uid = geteuid();
  Tenant other;
  other.name = "other";
  other.uid = geteuid() + 1;
  other.hosts = {"e"};
  options.config.tenants.push_back(other);
  Tenant tenant;
  tenant.name = "web";
  tenant.uid = geteuid();
  tenant.hosts = {"a", "b", "c", "d", "e"};
  tenant.serve = {"web/*", "demo/*"};
  tenant.call_as = "web";
  options.config.tenants.push_back(tenant);
  options.stop = UniqueFd(dup(node.stop.get()));
  absl::StatusOr<std::unique_ptr<agent::Server>> server = agent::Server::Create(std::move(options));
  WEFT_CHECK(server.ok());
  OnWire([&] { node.server = *std::move(server); });
  node.thread = std::thread([&node] { EXPECT_TRUE(node.server->Run().ok()); });
}

void TwoNodesTest::StopAgent(int i) {
  Node& node = nodes_[i];
  if (!node.thread.joinable()) return;
  const uint64_t one = 1;
  EXPECT_EQ(write(node.stop.get(), &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
  node.thread.join();
  OnWire([&] { node.server.reset(); });
}

void TwoNodesTest::MakeEngine(int i, NodeEngineOptions options) {
  Node& node = nodes_[i];
  options.transport.peers_max = 8;
  options.transport.memory_bytes = 128u << 20;
  options.transport.key_generation_first = static_cast<uint32_t>(i) + 1;
  options.paths.add = [i, &node](const std::string&, std::size_t bytes_least) -> absl::StatusOr<uint64_t> {
    if (node.no_paths) return absl::ResourceExhaustedError("no room for a way");
    if (node.carries < bytes_least) return absl::FailedPreconditionError("a narrow way");
    ++node.paths;
    return 1 - i;
  };
  options.paths.set = [&node](uint64_t path, const std::string&, std::size_t bytes_least) -> absl::Status {
    if (node.carries < bytes_least) return absl::FailedPreconditionError("a narrow way");
    return path > 1 ? absl::NotFoundError("no such way") : absl::OkStatus();
  };
  options.paths.remove = [&node](uint64_t) { --node.paths; };
  options.connect = [&node]() -> absl::StatusOr<UniqueFd> {
    if (!node.server) return absl::UnavailableError("the agent is gone");
    return node.server->engine_door().Connect();
  };
  options.tenant_limits = {64u << 20, 64u << 20, 1u << 20};
  absl::StatusOr<std::unique_ptr<NodeEngine>> engine = NodeEngine::Create(std::move(options));
  WEFT_CHECK(engine.ok());
  node.engine = *std::move(engine);
  node.port = std::make_unique<port::MemoryPort>(256, 2048);
  node.worker = std::make_unique<Worker<port::MemoryPort>>(*node.engine, *node.port);
}

bool TwoNodesTest::Carry(int from) {
  bool moved = false;
  port::MemoryPort& port = *nodes_[from].port;
  for (const auto* sent = port.Sent(); sent != nullptr; sent = port.Sent()) {
    moved = true;
    const bool lost = cut_.load() || random_.Below(1000) < lose_.load();
    if (!lost) nodes_[1 - from].port->Deliver(sent->data, sent->bytes);
    carried_.fetch_add(1);
    port.PopSent();
  }
  return moved;
}

// The thread of both engines. It stays awake while there is work and looks every 50 us else, since a memory
// port has no descriptor to sleep on.
void TwoNodesTest::RunWire() {
  for (Node& node : nodes_) node.engine->Start();
  while (!stop_.load()) {
    bool moved = false;
    for (int i = 0; i < 2; ++i) {
      moved |= nodes_[i].worker->Turn() != 0;
      moved |= Carry(i);
    }
    if (const auto* errand = errand_.load(); errand != nullptr) {
      (*errand)();
      errand_.store(nullptr);
    }
    if (!moved) absl::SleepFor(absl::Microseconds(50));
  }
}

TwoNodesTest::EchoAcross::EchoAcross(TwoNodesTest& test)
    : echo(test.nodes_[1].run_dir(), "b", {{"demo/echo", Echo}}),
      front(test.nodes_[0].run_dir(), "a", "web/front") {
  test.ProgramBoth(CommonMesh());
  test.Connect();
  function = front.Resolve("demo/echo");
  EXPECT_TRUE(front.client->Call(function, "x", kPatient).ok());
}

void TwoNodesTest::OnWire(const std::function<void()>& what) {
  if (!wire_.joinable()) return what();
  errand_.store(&what);
  while (errand_.load() != nullptr) absl::SleepFor(absl::Microseconds(100));
}

// `known_as`: each node's engine to the other's.
void TwoNodesTest::BeginSession(const std::array<std::string, 2>& known_as, uint32_t datagram_bytes) {
  OnWire([&] {
    const uint64_t session = ++session_;
    for (int i = 0; i < 2; ++i) {
      ASSERT_TRUE(nodes_[i].engine->BeginSession(known_as[1 - i], session, "there", datagram_bytes).ok());
    }
    for (int from = 0; from < 2; ++from) {
      transport::SealSecret secret;
      for (auto& byte : secret.key) byte = static_cast<uint8_t>(random_.Next());
      for (auto& byte : secret.iv) byte = static_cast<uint8_t>(random_.Next());
      const uint32_t id = nodes_[1 - from].engine->InstallReceiveKey(known_as[from], session, 0, secret);
      ASSERT_NE(id, 0u);
      nodes_[from].engine->InstallSendKey(known_as[1 - from], session, 0, id, 0, secret);
    }
  });
}

void TwoNodesTest::Connect(uint32_t datagram_bytes) {
  BeginSession({nodes_[0].name, nodes_[1].name}, datagram_bytes);
  WaitReachable(0);
  WaitReachable(1);
}

void TwoNodesTest::ConnectAsFurther() {
  BeginSession({absl::StrCat(nodes_[0].name, ":1"), nodes_[1].name}, 0);
  WaitReachable(0);
}

void TwoNodesTest::WaitReachable(int i, bool reachable) {
  const auto state = [&] {
    agent::test::AdminPeer admin(nodes_[i].run_dir() + "/admin.sock");
    for (const api::Item& item : admin.Ask(api::Query::NODES)) {
      if (agent::test::Field(item, "node") == nodes_[1 - i].name) return agent::test::Field(item, "state");
    }
    return std::string();
  };
  EXPECT_TRUE(Eventually([&] { return state() == (reachable ? "reachable" : "not reachable"); })) << state();
}

EngineCounters TwoNodesTest::CountersOf(int i) {
  EngineCounters counters;
  OnWire([&] { counters = nodes_[i].engine->counters(); });
  return counters;
}

void TwoNodesTest::Program(int i, const api::Mesh& mesh) {
  agent::test::AdminPeer admin(nodes_[i].run_dir() + "/admin.sock");
  ASSERT_TRUE(admin.Program(++nodes_[i].generation, mesh).has_value());
}

void TwoNodesTest::ProgramBoth(const api::Mesh& mesh) {
  Program(0, mesh);
  Program(1, mesh);
}

void TwoNodesTest::AddEndpoint(api::Mesh* mesh, const std::string& function, const std::string& node,
                               const std::string& host) {
  api::Endpoint& endpoint = *mesh->add_endpoints();
  endpoint.set_function(function);
  endpoint.set_node(node);
  endpoint.set_host(host);
}

void TwoNodesTest::AddAllow(api::Mesh* mesh, const std::string& from, const std::string& to) {
  api::Allow& allow = *mesh->add_allow();
  allow.set_from(from);
  allow.set_to(to);
}

api::Mesh TwoNodesTest::CommonMesh() {
  api::Mesh mesh;
  for (const char* name : {"n1", "n2"}) {
    api::Node& node = *mesh.add_nodes();
    node.set_name(name);
    node.set_address("192.0.2.1:4810");
  }
  for (const char* name : {"web/front", "demo/echo"}) mesh.add_functions()->set_name(name);
  AddEndpoint(&mesh, "web/front", "n1", "a");
  AddEndpoint(&mesh, "demo/echo", "n2", "b");
  AddAllow(&mesh, "web/front", "demo/echo");
  return mesh;
}

}  // namespace weft::engine::test
