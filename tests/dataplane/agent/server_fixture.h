// SPDX-License-Identifier: Apache-2.0
// The shipping Server on a thread of its own, in a private directory, and peers that talk to it over real
// sockets.
#ifndef WEFT_TESTS_DATAPLANE_AGENT_SERVER_FIXTURE_H_
#define WEFT_TESTS_DATAPLANE_AGENT_SERVER_FIXTURE_H_

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "dataplane/agent/server.h"
#include "dataplane/api/admin.pb.h"
#include "dataplane/api/host.pb.h"
#include "dataplane/base/unix_socket.h"
#include "dataplane/channel/side_memory.h"
#include "tests/support/temporary_directory.h"

namespace weft::agent::test {

// Connects with the effective uid `uid` of this thread alone: what SO_PEERCRED then tells.
absl::StatusOr<UniqueFd> ConnectAs(const std::string& socket_path, std::optional<uid_t> uid);

// A host or client at the other end of agent.sock.
class Peer {
 public:
  // `uid`: connects under this one, which needs root; not given, under the test's own.
  explicit Peer(const std::string& socket_path, std::optional<uid_t> uid = std::nullopt);

  // Says Hello and waits for the answer; true where it is a Welcome.
  bool Hello(const std::string& host, std::vector<std::string> serves = {}, bool runs_once = false);
  void Send(const api::FromHost& message, absl::Span<const int> fds = {});
  void SendBytes(absl::string_view bytes, absl::Span<const int> fds = {});
  void Subscribe(const std::string& caller, const std::string& callee);

  // Obeys what arrives (makes memories, applies) until `done`, the end of the conversation, or 10 s. Returns
  // done().
  bool PumpUntil(const std::function<bool()>& done);
  bool PumpUntilRouted(const std::string& caller, const std::string& callee);
  // Waits until the agent has closed this socket; what it said last is in refusal().
  bool PumpUntilClosed() {
    return PumpUntil([this] { return closed(); });
  }

  int fd() const { return socket_.get(); }
  bool connected() const { return socket_.valid(); }
  bool closed() const { return closed_.load(std::memory_order_acquire); }  // Any thread
  const std::string& refusal() const { return refusal_; }
  const api::Welcome& welcome() const { return welcome_; }
  const std::map<std::pair<std::string, std::string>, api::Route>& routes() const { return routes_; }
  const std::set<std::string>& channels() const { return channels_; }
  const std::map<std::string, api::ChannelClose>& closes() const { return closes_; }
  // What it tells of functions when it is asked, each in a packet of its own.
  std::vector<api::FunctionStats>& function_stats() { return function_stats_; }
  std::map<std::string, api::ChannelAccess>& access() { return access_; }
  // Descriptors of each channel: the peer's memory and the doorbell.
  std::map<std::string, std::vector<UniqueFd>>& channel_fds() { return channel_fds_; }
  const std::set<std::string>& placed() const { return placed_; }
  const std::vector<api::RunOnce>& runs() const { return runs_; }
  std::vector<UniqueFd>& module_fds() { return module_fds_; }
  // Sends this in place of a memory of its own.
  void set_memory_maker(std::function<UniqueFd(const api::ChannelOpen&)> maker) {
    memory_maker_ = std::move(maker);
  }
  void set_on_place(std::function<void(const api::Place&)> on_place) { on_place_ = std::move(on_place); }

 private:
  void Obey(const api::ToHost& message, std::vector<UniqueFd> fds);
  void MakeMemory(const api::ChannelOpen& open);
  void SendStats(const api::StatsQuery& query);

  UniqueFd socket_;
  std::vector<api::FunctionStats> function_stats_;
  std::atomic<bool> closed_ = false;
  std::string refusal_;
  api::Welcome welcome_;
  bool welcomed_ = false;
  std::map<std::pair<std::string, std::string>, api::Route> routes_;
  std::map<std::string, SideMemory> memories_;
  std::map<std::string, api::ChannelAccess> access_;
  std::map<std::string, std::vector<UniqueFd>> channel_fds_;
  std::set<std::string> channels_;
  std::map<std::string, api::ChannelClose> closes_;
  std::set<std::string> placed_;
  std::vector<UniqueFd> module_fds_;
  std::vector<api::RunOnce> runs_;
  std::function<UniqueFd(const api::ChannelOpen&)> memory_maker_;
  std::function<void(const api::Place&)> on_place_;
};

// Somebody at admin.sock.
class AdminPeer {
 public:
  explicit AdminPeer(const std::string& socket_path, std::optional<uid_t> uid = std::nullopt);
  void Send(const api::AdminRequest& request);
  // The next reply that is no push of registrations; nothing at the end or after 10 s.
  std::optional<api::AdminReply> Next();
  // All rows of one question.
  std::vector<api::Item> Ask(api::Query::Kind kind, const std::vector<std::string>& functions = {});
  std::vector<api::Item> Explain(const std::string& caller, const std::string& callee);
  // A whole snapshot as generation `generation`; the acknowledgement.
  std::optional<api::Programmed> Program(uint64_t generation, const api::Mesh& mesh);
  int fd() const { return socket_.get(); }
  const api::Registrations& registrations() const { return registrations_; }  // The last part
  void set_on_registrations(std::function<void(const api::Registrations&)> told) { told_ = std::move(told); }

 private:
  std::vector<api::Item> Rows();

  UniqueFd socket_;
  api::Registrations registrations_;
  std::function<void(const api::Registrations&)> told_;
};

// Value of a field as text; "" where the row has none.
std::string Field(const api::Item& item, const std::string& name);

class ServerTest : public testing::Test {
 protected:
  // One tenant, the user of this test, unless a test changes config_ before Start().
  ServerTest();
  ~ServerTest() override;

  // `before_run_ns`: what it takes from when it can be connected to until it serves.
  // `before_run` is called where the agent listens and does not run yet.
  void Start(const std::function<void()>& before_run = {});
  void Stop();
  std::string agent_sock() const { return run_dir() + "/agent.sock"; }
  std::string admin_sock() const { return run_dir() + "/admin.sock"; }
  std::string run_dir() const { return directory_ / "run"; }
  // By which node engines attach; while it runs.
  EngineDoor& engine_door() { return server_->engine_door(); }
  // How often `refusal` was counted, as weftctl status would say.
  uint64_t Refused(const std::string& name);
  // A pair of hosts that have a route and a channel between them, and go on obeying when asked whether they
  // are well.
  void ConnectBystanders();
  void ExpectBystandersWell();

  weft::test::TemporaryDirectory directory_;
  AgentConfig config_;
  std::unique_ptr<Peer> front_;
  std::unique_ptr<Peer> back_;

 private:
  std::unique_ptr<Server> server_;
  UniqueFd stop_;
  std::thread thread_;
  int questions_ = 0;
};

// Runs `work` while `peer` obeys the agent.
template <typename Work>
void WhileObeying(Peer& peer, Work&& work) {
  std::atomic<bool> done = false;
  std::thread pump([&] { peer.PumpUntil([&] { return done.load(std::memory_order_acquire); }); });
  work();
  done.store(true, std::memory_order_release);
  pump.join();
}

}  // namespace weft::agent::test

#endif  // WEFT_TESTS_DATAPLANE_AGENT_SERVER_FIXTURE_H_
