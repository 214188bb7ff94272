// SPDX-License-Identifier: Apache-2.0
// A node of a test: a KeyExchange on a loopback socket, an observer that answers as an engine does and writes
// down what it is told, and a clock that the test moves on. Certificates come from an Authority.
#ifndef WEFT_TESTS_DATAPLANE_IDENTITY_TEST_NODE_H_
#define WEFT_TESTS_DATAPLANE_IDENTITY_TEST_NODE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "dataplane/identity/authority.h"
#include "dataplane/identity/key_exchange.h"
#include "tests/support/temporary_directory.h"

namespace weft::identity {

// 2026-01-01 and a year; tests move their clocks within.
inline constexpr int64_t kTestUnixS = 1'767'225'600;
inline constexpr Validity kTestYear{kTestUnixS - 86'400, kTestUnixS + 365 * 86'400};

// Shared by the nodes of a test: the authority, the time, the files.
struct TestWorld {
  TestWorld();
  // Writes the certificate, key and CA of `node` into the directory; `authority` null: the world's own.
  CredentialPaths Issue(const std::string& node, const Authority* authority = nullptr,
                        const Validity& validity = kTestYear);
  CredentialPaths Write(const std::string& node, const PemPair& pair, const std::string& ca);

  test::TemporaryDirectory directory;
  Authority authority;
  int64_t unix_s = kTestUnixS;
  uint64_t ahead_ns = 0;  // Of CLOCK_MONOTONIC.
};

class TestNode : public KeyExchangeObserver {
 public:
  // By peer, session, local worker, remote worker, epoch.
  using KeyName = std::tuple<std::string, uint64_t, uint16_t, uint16_t, int>;
  struct SendKey {
    uint32_t id = 0;
    uint16_t hint = 0;
    PacketSecret secret;
  };

  TestNode(TestWorld* world, const std::string& name, int workers = 1,
           const std::function<void(KeyExchangeOptions*)>& change = {});

  void Step();
  KeyExchange& exchange() { return *exchange_; }
  const Endpoint& endpoint() const { return endpoint_; }
  // Dies as by SIGKILL: its sockets are closed, nothing is said.
  void Kill() { exchange_.reset(); }
  bool alive() const { return exchange_ != nullptr; }
  uint64_t refused(Refusal reason) const {
    return exchange_->counters().refused[static_cast<std::size_t>(reason)];
  }
  // All lanes have keys both ways in `epoch` of the session with `peer`.
  bool HasKeys(const std::string& peer, int epoch) const;
  uint64_t SessionWith(const std::string& peer) const;

  void OnSessionUp(const SessionInfo& session) override;
  void OnWorkers(const SessionInfo& session) override;
  void OnReceiveKeyWanted(const LaneKey& key, const PacketSecret& secret) override;
  void OnSendKey(const LaneKey& key, uint32_t key_id, uint16_t worker_hint,
                 const PacketSecret& secret) override;
  void OnRetireReceiveKey(const LaneKey& key) override;
  void OnConnectionLost(const std::string& peer, uint64_t session) override;
  void OnSessionDown(const std::string& peer, uint64_t session, Refusal reason) override;
  void OnDrains(const std::string& peer, const Drains& said) override { drains[peer] = said; }
  void OnCredentials(const absl::Status& status) override { credentials.push_back(status); }
  void OnNote(const std::string& line) override { notes.push_back(line); }

  std::map<std::string, SessionInfo> sessions;
  std::map<KeyName, PacketSecret> receive_secrets;
  std::map<KeyName, uint32_t> receive_ids;
  std::map<KeyName, SendKey> send_keys;
  std::vector<KeyName> retired;
  std::vector<std::pair<std::string, Refusal>> ended;
  std::map<std::string, Drains> drains;  // As told last, by peer
  std::vector<std::string> lost;
  std::vector<absl::Status> credentials;
  std::vector<std::string> notes;
  bool answers = true;           // Key ids are given at once.
  std::set<uint16_t> declines;   // Packets of these remote workers.
  std::set<uint16_t> withholds;  // The keys for those.

 private:
  static KeyName NameOf(const LaneKey& key) {
    return {key.peer, key.session, key.lane.local_worker, key.lane.remote_worker, key.epoch};
  }

  TestWorld* const world_;
  Endpoint endpoint_;
  uint32_t next_key_id_;
  std::unique_ptr<KeyExchange> exchange_;
};

// Tells two nodes of each other.
void Introduce(TestNode& a, const std::string& a_name, TestNode& b, const std::string& b_name);

// Lets the nodes run until `condition` holds; false where it does not within a bounded number of rounds.
bool RunUntil(const std::vector<TestNode*>& nodes, const std::function<bool()>& condition);
// As long as that many rounds take.
void RunRounds(const std::vector<TestNode*>& nodes, int rounds);

// A TCP socket bound to a free port of `address`, and where that is.
UniqueFd BoundSocket(const std::string& address, Endpoint* endpoint);
// Connected to it, blocking.
UniqueFd ConnectTo(const Endpoint& endpoint, const std::string& from = "127.0.0.1");

}  // namespace weft::identity

#endif  // WEFT_TESTS_DATAPLANE_IDENTITY_TEST_NODE_H_
