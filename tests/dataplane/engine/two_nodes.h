// SPDX-License-Identifier: Apache-2.0
// Two whole nodes in one process: the shipping agent on a thread each, node engines with the shipping loop
// over memory ports on a thread of their own, which is also the wire between them, and hosts of libweft on
// real channels.
#ifndef WEFT_TESTS_DATAPLANE_ENGINE_TWO_NODES_H_
#define WEFT_TESTS_DATAPLANE_ENGINE_TWO_NODES_H_

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "dataplane/agent/server.h"
#include "dataplane/engine/node_engine.h"
#include "dataplane/engine/worker.h"
#include "dataplane/port/memory_port.h"
#include "tests/support/temporary_directory.h"
#include "weft/client.h"
#include "weft/mesh.h"
#include "weft/server.h"

namespace weft::engine::test {

// For calls whose time is not what a test is about.
inline const CallOptions kPatient = {.timeout = absl::Seconds(10)};

inline void Echo(ServerCall& call) { call.Reply(call.request()); }

// A host that serves functions on a thread of its own until it ends.
class ServingHost {
 public:
  using Handler = std::function<void(ServerCall&)>;
  // `at_end` runs on that thread when no handler does any more.
  ServingHost(const std::string& run_dir, const std::string& name,
              std::vector<std::pair<std::string, Handler>> functions, std::function<void()> at_end = {});
  ~ServingHost();

 private:
  std::unique_ptr<Mesh> mesh_;
  std::unique_ptr<Server> server_;
  std::thread thread_;
};

// A host that calls as `caller`, which it serves. Used by the test's thread.
struct CallingHost {
  CallingHost(const std::string& run_dir, const std::string& name, const std::string& caller);
  Function Resolve(const std::string& callee);

  std::unique_ptr<Mesh> mesh;
  std::unique_ptr<Server> server;
  std::unique_ptr<Client> client;
  std::string caller;
};

struct Node {
  weft::test::TemporaryDirectory directory;
  std::string name;
  std::unique_ptr<agent::Server> server;
  UniqueFd stop;
  std::thread thread;
  std::unique_ptr<NodeEngine> engine;
  std::unique_ptr<port::MemoryPort> port;
  std::unique_ptr<Worker<port::MemoryPort>> worker;
  uint64_t generation = 0;
  int paths = 0;          // That the engine has named and not removed. On the wire's thread.
  bool no_paths = false;  // There is no room for more. On the wire's thread.
  // Bytes of the largest datagram that a way takes, as far as the engine asks. On the wire's thread.
  std::size_t carries = SIZE_MAX;

  std::string run_dir() const { return directory / "run"; }
};

class TwoNodesTest : public testing::Test {
 protected:
  // `options`: what the test cares about; the rest is filled in.
  explicit TwoNodesTest(const NodeEngineOptions& options = {}) : TwoNodesTest(options, options) {}
  TwoNodesTest(const NodeEngineOptions& first, const NodeEngineOptions& second);
  ~TwoNodesTest() override;

  void StartAgent(int node);
  void StopAgent(int node);
  // Programs the mesh on one node, or both, and waits until it is acknowledged.
  void Program(int node, const api::Mesh& mesh);
  void ProgramBoth(const api::Mesh& mesh);
  // The mesh that most tests use: web/front on host a of n1, demo/echo on host b of n2, and the rule for it.
  static api::Mesh CommonMesh();
  static void AddEndpoint(api::Mesh* mesh, const std::string& function, const std::string& node,
                          const std::string& host);
  static void AddAllow(api::Mesh* mesh, const std::string& from, const std::string& to);

  // demo/echo served on host b of n2, and called once from web/front on host a of n1, by the common mesh.
  struct EchoAcross {
    explicit EchoAcross(TwoNodesTest& test);

    ServingHost echo;
    CallingHost front;
    Function function;
  };

  // Runs `what` on the engines' thread and waits for it.
  void OnWire(const std::function<void()>& what);
  // The tenants, as engines number them: "other" is whose the functions of host e are, though no process may
  // attach as it, "web" whose all else is, and the last is who comes by admin.sock.
  static constexpr uint32_t kOther = 0, kWeb = 1, kAdmin = 2;
  // A session with new keys between the two engines; waits until both agents know that the other can be
  // reached. `datagram_bytes`: what both take, or 0, as NodeEngine::BeginSession has it.
  void Connect(uint32_t datagram_bytes = 0);
  // The same, but n2's engine knows n1's as a further worker of that node, to which no calls leave.
  void ConnectAsFurther();
  void WaitReachable(int node, bool reachable = true);
  EngineCounters CountersOf(int node);

  std::array<Node, 2> nodes_;
  uint64_t session_ = 0;           // Between the two engines; on the wire's thread.
  std::atomic<bool> cut_{false};   // The wire loses everything.
  std::atomic<uint32_t> lose_{0};  // Of 1,000 datagrams.
  std::atomic<uint64_t> carried_{0};

 private:
  void MakeEngine(int node, NodeEngineOptions options);
  void BeginSession(const std::array<std::string, 2>& known_as, uint32_t datagram_bytes);
  void RunWire();
  bool Carry(int from);

  Random random_{1};
  std::atomic<bool> stop_{false};
  std::atomic<const std::function<void()>*> errand_{nullptr};
  std::thread wire_;
};

}  // namespace weft::engine::test

#endif  // WEFT_TESTS_DATAPLANE_ENGINE_TWO_NODES_H_
