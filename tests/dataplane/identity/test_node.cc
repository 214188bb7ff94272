// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/identity/test_node.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <utility>

#include "dataplane/base/check.h"
#include "dataplane/base/clock.h"

namespace weft::identity {

TestWorld::TestWorld() : authority(std::move(*Authority::Make("test.example", kTestYear))) {}

CredentialPaths TestWorld::Write(const std::string& node, const PemPair& pair, const std::string& ca) {
  const CredentialPaths paths{directory / (node + ".pem"), directory / (node + "-key.pem"),
                              directory / (node + "-ca.pem")};
  test::WriteFile(paths.certificate, pair.certificate);
  test::WriteFile(paths.key, pair.key);
  chmod(paths.key.c_str(), 0600);
  test::WriteFile(paths.ca, ca);
  return paths;
}

CredentialPaths TestWorld::Issue(const std::string& node, const Authority* from, const Validity& validity) {
  const Authority& issuer = from == nullptr ? authority : *from;
  const auto pair = issuer.IssueNode(node, validity);
  WEFT_CHECK(pair.ok());
  return Write(node, *pair, issuer.ToPem().certificate);
}

UniqueFd BoundSocket(const std::string& address, Endpoint* endpoint) {
  UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_in in{};
  in.sin_family = AF_INET;
  WEFT_CHECK(inet_pton(AF_INET, address.c_str(), &in.sin_addr) == 1);
  WEFT_CHECK(bind(socket.get(), reinterpret_cast<sockaddr*>(&in), sizeof(in)) == 0);
  sockaddr_storage bound;
  socklen_t length = sizeof(bound);
  WEFT_CHECK(getsockname(socket.get(), reinterpret_cast<sockaddr*>(&bound), &length) == 0);
  *endpoint = Endpoint::FromSockaddr(bound);
  return socket;
}

UniqueFd ConnectTo(const Endpoint& endpoint, const std::string& from) {
  UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in in{};
  in.sin_family = AF_INET;
  WEFT_CHECK(inet_pton(AF_INET, from.c_str(), &in.sin_addr) == 1);
  WEFT_CHECK(bind(socket.get(), reinterpret_cast<sockaddr*>(&in), sizeof(in)) == 0);
  sockaddr_storage to;
  const socklen_t length = endpoint.ToSockaddr(&to);
  WEFT_CHECK(connect(socket.get(), reinterpret_cast<sockaddr*>(&to), length) == 0);
  return socket;
}

TestNode::TestNode(TestWorld* world, const std::string& name, int workers,
                   const std::function<void(KeyExchangeOptions*)>& change)
    : world_(world) {
  static uint32_t next_key_id = 1;
  next_key_id_ = next_key_id += 100'000;
  KeyExchangeOptions options;
  options.credentials = {world->directory / (name + ".pem"), world->directory / (name + "-key.pem"),
                         world->directory / (name + "-ca.pem")};
  options.node = name;
  options.listener = BoundSocket("127.0.0.1", &endpoint_);
  for (int i = 0; i < workers; ++i) {
    Worker worker;
    worker.id = static_cast<uint16_t>(i);
    worker.hint = static_cast<uint16_t>(100 + i);
    worker.address.port = 4810;
    options.workers.push_back(worker);
  }
  options.unix_time_s = [world] { return world->unix_s; };
  options.seed = 7;
  if (change) change(&options);
  auto exchange = KeyExchange::Create(std::move(options), this);
  WEFT_CHECK(exchange.ok());
  exchange_ = *std::move(exchange);
}

void TestNode::Step() {
  if (exchange_ != nullptr) exchange_->Step(NowNs() + world_->ahead_ns);
}

void TestNode::OnSessionUp(const SessionInfo& session) {
  WEFT_CHECK(!sessions.contains(session.peer));
  sessions[session.peer] = session;
}
void TestNode::OnWorkers(const SessionInfo& session) { sessions.at(session.peer) = session; }

void TestNode::OnReceiveKeyWanted(const LaneKey& key, const PacketSecret& secret) {
  WEFT_CHECK(sessions.at(key.peer).session == key.session);
  WEFT_CHECK(receive_secrets.emplace(NameOf(key), secret).second);
  if (!answers || withholds.contains(key.lane.remote_worker)) return;
  if (declines.contains(key.lane.remote_worker)) return exchange_->DeclineLane(key);
  receive_ids[NameOf(key)] = next_key_id_;
  exchange_->SetReceiveKeyId(key, next_key_id_++);
}

void TestNode::OnSendKey(const LaneKey& key, uint32_t key_id, uint16_t worker_hint,
                         const PacketSecret& secret) {
  WEFT_CHECK(sessions.at(key.peer).session == key.session);
  WEFT_CHECK(send_keys.emplace(NameOf(key), SendKey{key_id, worker_hint, secret}).second);
}

void TestNode::OnRetireReceiveKey(const LaneKey& key) { retired.push_back(NameOf(key)); }
void TestNode::OnConnectionLost(const std::string& peer, uint64_t session) { lost.push_back(peer); }

void TestNode::OnSessionDown(const std::string& peer, uint64_t session, Refusal reason) {
  WEFT_CHECK(sessions.at(peer).session == session);
  sessions.erase(peer);
  ended.emplace_back(peer, reason);
}

uint64_t TestNode::SessionWith(const std::string& peer) const {
  const auto found = sessions.find(peer);
  return found == sessions.end() ? 0 : found->second.session;
}

bool TestNode::HasKeys(const std::string& peer, int epoch) const {
  const auto session = sessions.find(peer);
  if (session == sessions.end() || session->second.workers.empty()) return false;
  std::size_t received = 0;
  std::size_t sent = 0;
  for (const auto& [name, key] : send_keys) {
    sent += std::get<1>(name) == session->second.session && std::get<4>(name) == epoch ? 1 : 0;
  }
  for (const auto& [name, key] : receive_secrets) {
    received += std::get<1>(name) == session->second.session && std::get<4>(name) == epoch ? 1 : 0;
  }
  return sent > 0 && sent == received;
}

void Introduce(TestNode& a, const std::string& a_name, TestNode& b, const std::string& b_name) {
  WEFT_CHECK(a.exchange().AddPeer(b_name, b.endpoint()).ok());
  WEFT_CHECK(b.exchange().AddPeer(a_name, a.endpoint()).ok());
}

bool RunUntil(const std::vector<TestNode*>& nodes, const std::function<bool()>& condition) {
  constexpr int kRoundsMax = 5'000;
  for (int round = 0; round < kRoundsMax; ++round) {
    if (condition()) return true;
    std::vector<pollfd> fds;
    for (TestNode* const node : nodes) {
      node->Step();
      if (node->alive()) fds.push_back({node->exchange().fd(), POLLIN, 0});
    }
    poll(fds.data(), fds.size(), 2);
  }
  return condition();
}

void RunRounds(const std::vector<TestNode*>& nodes, int rounds) {
  (void)RunUntil(nodes, [&rounds] { return rounds-- == 0; });
}

}  // namespace weft::identity
