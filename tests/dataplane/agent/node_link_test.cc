// SPDX-License-Identifier: Apache-2.0
// The link of one agent to a peer that is a bare key exchange, and engines inside hosts that are the test.
#include "dataplane/agent/node_link.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <ctime>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "spdlog/sinks/base_sink.h"
#include "spdlog/spdlog.h"
#include "tests/dataplane/identity/test_node.h"
#include "tests/tools/fake_daemon.h"

namespace weft::agent {
namespace {

using identity::Endpoint;
using identity::TestNode;

class NodeLinkTest : public testing::Test {
 protected:
  NodeLinkTest() {
    world_.unix_s = time(nullptr);
    const identity::Validity validity{world_.unix_s - 3'600, world_.unix_s + 86'400};
    const identity::Authority authority = *identity::Authority::Make("test.example", validity);
    const identity::CredentialPaths mine = world_.Issue("n1", &authority, validity);
    world_.Issue("n2", &authority, validity);
    // An address of this process's own, so that the ports behind are free.
    const auto pid = static_cast<uint32_t>(getpid());
    config_.node = "n1";
    config_.listen = absl::StrCat("127.", 1 + (pid >> 16 & 63), ".", pid >> 8 & 255, ".",
                                  std::max(1u, pid & 255), ":4810");
    config_.workers = 1;
    config_.identity = {mine.certificate, mine.key, mine.ca};
    Start();
  }
  void Start() {
    link_.reset();
    auto link = NodeLink::Create(config_, world_.directory / "run", &door_);
    ASSERT_TRUE(link.ok()) << link.status();
    link_ = *std::move(link);
  }
  // n2, with so many engines inside hosts; both ends have all keys.
  void Join(int inside_there) {
    peer_ =
        std::make_unique<TestNode>(&world_, "n2", 1, [inside_there](identity::KeyExchangeOptions* options) {
          for (int i = 1; i <= inside_there; ++i) options->workers.push_back(Remote(i, "127.0.0.1"));
        });
    ASSERT_TRUE(peer_->exchange().AddPeer("n1", *Endpoint::Parse(config_.listen)).ok());
    link_->SetPeers({{"n2", peer_->endpoint().ToString()}});
    ASSERT_TRUE(RunUntil([&] { return peer_->HasKeys("n1", 0); }));
  }
  static identity::Worker Remote(int id, const std::string& address) {
    identity::Worker worker;
    worker.id = static_cast<uint16_t>(id);
    worker.address = *Endpoint::Parse(absl::StrCat(address, ":", 5000 + id % 1000));
    worker.host = absl::StrCat("h", id);
    return worker;
  }
  // Until then the peer runs, and what is for engines inside hosts here is noted.
  bool RunUntil(const std::function<bool()>& condition) {
    return identity::RunUntil({peer_.get()}, [&] {
      for (InsideMail& mail : door_.TakeMail()) {
        if (!mail.end.ok()) {
          ended_[mail.worker] = mail.end;
        } else if (mail.keys.what() == api::PeerKeys::BEGIN) {
          begun_bytes_[mail.keys.peer()] = mail.keys.datagram_bytes();
        } else if (mail.keys.what() == api::PeerKeys::PATH) {
          path_bytes_[mail.keys.peer()] = mail.keys.datagram_bytes();
        } else if (mail.keys.what() == api::PeerKeys::RECEIVE) {
          asked_[mail.worker].push_back(mail.keys);
        }
      }
      return condition();
    });
  }
  // Its host answers the key that it was asked for last.
  void AnswerOne(const NodeLink::Inside& inside) {
    std::vector<api::PeerKeys>& asked = asked_[inside.worker];
    ASSERT_FALSE(asked.empty());
    api::PeerKeyId answer;
    answer.set_peer(asked.back().peer());
    answer.set_session(asked.back().session());
    answer.set_epoch(asked.back().epoch());
    answer.set_key_id(1u << inside.given.key_index_bits() |
                      static_cast<uint32_t>(inside.given.key_index_first() + asked.size()));
    asked.pop_back();
    link_->TakeInsideKeyId(inside.worker, answer);
  }

  identity::TestWorld world_;
  AgentConfig config_;
  EngineDoor door_;
  std::unique_ptr<NodeLink> link_;
  std::unique_ptr<TestNode> peer_;
  std::map<uint16_t, std::vector<api::PeerKeys>> asked_;
  std::map<uint16_t, absl::Status> ended_;
  // To what is at the other end: as its session began, and as its path was looked at.
  std::map<std::string, uint32_t> begun_bytes_;
  std::map<std::string, uint32_t> path_bytes_;
};

// All others' keys wait for the last one.
TEST_F(NodeLinkTest, AnEngineInsideThatAnswersOneKeyAfterTheOtherIsEndedForTheOneThatItOwes) {
  constexpr int kInsideThere = 8;
  Join(kInsideThere);
  const auto inside = link_->AddInside("camera", "cameras", false);
  ASSERT_TRUE(inside.ok()) << inside.status();
  ASSERT_TRUE(RunUntil([&] { return asked_[inside->worker].size() == kInsideThere + 1; }));
  while (!asked_[inside->worker].empty() && ended_.empty()) {
    AnswerOne(*inside);
    const uint64_t next_ns = NowNs() + kNsPerSecond;
    ASSERT_TRUE(RunUntil([&] { return !ended_.empty() || NowNs() >= next_ns; }));
  }
  ASSERT_TRUE(ended_.contains(inside->worker)) << "it has answered all";
  EXPECT_TRUE(absl::StrContains(ended_[inside->worker].message(), "does not take its keys"));
  link_->RemoveInside(inside->worker);
  EXPECT_TRUE(RunUntil([&] { return peer_->sessions.at("n1").workers.size() == 1; }));
  EXPECT_TRUE(peer_->lost.empty());
  EXPECT_TRUE(peer_->ended.empty());
}

// One that answers in time is left alone, also after the time for a key has passed.
TEST_F(NodeLinkTest, AnEngineInsideThatHasAnsweredAllStays) {
  Join(2);
  const auto inside = link_->AddInside("camera", "cameras", false);
  ASSERT_TRUE(inside.ok()) << inside.status();
  ASSERT_TRUE(RunUntil([&] { return asked_[inside->worker].size() == 3; }));
  while (!asked_[inside->worker].empty()) AnswerOne(*inside);
  const uint64_t over_ns = NowNs() + NodeLink::kInsideAnswerNs + kNsPerSecond / 2;
  ASSERT_TRUE(RunUntil([&] { return NowNs() >= over_ns; }));
  EXPECT_TRUE(ended_.empty());
  EXPECT_TRUE(peer_->HasKeys("n1", 0));
}

// The first reason, that nobody answers, is none any more once weft-control is there and steers something
// else.
TEST_F(NodeLinkTest, WhyItIsNotSteeredIsWhatControlSaysNow) {
  link_.reset();
  const std::string run_dir = world_.directory / "run";
  std::filesystem::create_directories(run_dir);
  config_.interface = "lo";
  Start();
  const auto shown = [this] {
    const port::PortStatus port = link_->LookAtWorkers()[0].port;
    return port.choices.empty() ? "" : absl::StrCat(port.choices[0].feature, ": ", port.choices[0].why);
  };
  ASSERT_TRUE(identity::RunUntil({}, [&] { return absl::StrContains(shown(), "af_xdp: connect to"); }))
      << shown();
  const ctl::FakeDaemon control(run_dir + "/control.sock", [](const api::AdminRequest&) {
    api::AdminReply reply;
    reply.mutable_failed()->set_reason("lo is not steered");
    return std::vector<std::string>{reply.SerializeAsString()};
  });
  EXPECT_TRUE(identity::RunUntil({}, [&] { return shown() == "af_xdp: lo is not steered"; })) << shown();
}

TEST_F(NodeLinkTest, TheSmallerOfBothNodesMtusCounts) {
  link_.reset();  // Its threads read the settings.
  config_.mtu = 9000;
  Start();
  Join(1);  // At 1,500.
  EXPECT_EQ(peer_->sessions.at("n1").workers.at(0).datagram_bytes_max, 9000u - 28);
  const auto inside = link_->AddInside("camera", "cameras", false);
  ASSERT_TRUE(inside.ok()) << inside.status();
  ASSERT_TRUE(RunUntil([&] { return path_bytes_.size() == 2; }));
  for (auto* const bytes : {&begun_bytes_, &path_bytes_}) {
    EXPECT_EQ((*bytes)["n2"], 1472u);
    EXPECT_EQ((*bytes)["n2/h1"], 1472u);
  }
  ASSERT_TRUE(RunUntil([&] { return peer_->sessions.at("n1").workers.size() == 2; }));
  EXPECT_EQ(peer_->sessions.at("n1").workers.at(1).datagram_bytes_max, 9000u - 28);
}

// Counts the lines about n2.
struct LinesOfNode : spdlog::sinks::base_sink<std::mutex> {
  void sink_it_(const spdlog::details::log_msg& message) override {
    const std::string_view line(message.payload.data(), message.payload.size());
    if (line.starts_with("node n2")) ++count;
  }
  void flush_() override {}
  std::atomic<int> count = 0;
};

// n2 tells of workers out of reach, each of which makes a line.
class UnreachableWorkersTest : public NodeLinkTest {
 protected:
  UnreachableWorkersTest() {
    link_.reset();  // Its threads write to the sinks.
    spdlog::default_logger()->sinks().push_back(lines_);
    Start();
    Join(kWorkers);
  }
  ~UnreachableWorkersTest() override {
    link_.reset();
    spdlog::default_logger()->sinks().pop_back();
  }
  // In the place of those that it told of before.
  void TellOfOthers() {
    for (int i = 0; i < kWorkers; ++i) {
      ++last_;
      peer_->exchange().RemoveWorker(static_cast<uint16_t>(last_ - kWorkers));
      ASSERT_TRUE(peer_->exchange().AddWorker(Remote(last_, "[::1]")).ok());
    }
  }

  static constexpr int kWorkers = 15;
  int last_ = kWorkers;  // Worker id.
  const std::shared_ptr<LinesOfNode> lines_ = std::make_shared<LinesOfNode>();
};

TEST_F(UnreachableWorkersTest, DoNotFillTheLog) {
  for (int i = 1; i < 40; ++i) {
    TellOfOthers();
    identity::RunRounds({peer_.get()}, 10);
  }
  EXPECT_TRUE(RunUntil([&] { return lines_->count > 40; })) << "there is something to be said";
  EXPECT_LT(lines_->count, 200);
}

// A node of its name is another one, whose lines are not counted with those of the one before.
TEST_F(UnreachableWorkersTest, AreForgottenWithTheirNodeThoughItsSessionEndedBefore) {
  ASSERT_TRUE(RunUntil([&] {
    TellOfOthers();
    return lines_->count >= 50;
  }));
  peer_->exchange().Leave();
  ASSERT_TRUE(RunUntil([&] {
    const std::vector<identity::PeerReport> peers = link_->Look().peers;
    return peers.size() == 1 && peers[0].session == 0;
  }));
  link_->SetPeers({});
  ASSERT_TRUE(RunUntil([&] { return link_->Look().peers.empty(); }));
  Join(kWorkers);
  last_ = kWorkers;
  // Fewer than a node may have said of it at once.
  for (int i = 0; i < 2; ++i) {
    const int before = lines_->count;
    TellOfOthers();
    ASSERT_TRUE(RunUntil([&] { return lines_->count >= before + kWorkers; })) << i;
  }
}

// Each costs all other nodes keys.
TEST_F(NodeLinkTest, ATenantWhoseHostsComeAndGoGetsNoEngineEachTime) {
  int given = 0;
  for (int i = 0; i < 100; ++i) {
    const auto inside = link_->AddInside("camera", "cameras", false);
    if (!inside.ok()) continue;
    ++given;
    link_->RemoveInside(inside->worker);
  }
  EXPECT_GE(given, NodeLink::kInsideBurst);
  EXPECT_LT(given, 100);
  EXPECT_TRUE(link_->AddInside("door", "doors", false).ok()) << "of another";
}

// As in a rollout, and when what was rolled out is taken back.
TEST_F(NodeLinkTest, AllHostsOfATenantThatAreRestartedAgainAndAgainHaveEngines) {
  for (int round = 0; round < 4; ++round) {
    std::vector<NodeLink::Inside> had;
    for (int i = 0; i < NodeLink::kInsideMax; ++i) {
      auto inside = link_->AddInside(absl::StrCat("camera-", i), "cameras", false);
      ASSERT_TRUE(inside.ok()) << round << ": " << inside.status();
      had.push_back(*std::move(inside));
    }
    for (const NodeLink::Inside& inside : had) link_->RemoveInside(inside.worker);
  }
}

TEST_F(NodeLinkTest, AHostForWhichThereIsNoPortTakesNothingFromItsTenant) {
  std::vector<NodeLink::Inside> had;
  for (int i = 0; i < NodeLink::kInsideMax; ++i) {
    auto inside = link_->AddInside(absl::StrCat("camera-", i), "cameras", false);
    ASSERT_TRUE(inside.ok()) << inside.status();
    had.push_back(*std::move(inside));
  }
  for (int i = 0; i < 10 * NodeLink::kInsideBurst; ++i)
    ASSERT_FALSE(link_->AddInside("another", "cameras", false).ok());
  link_->RemoveInside(had.back().worker);
  had.pop_back();
  const auto inside = link_->AddInside("another", "cameras", false);
  EXPECT_TRUE(inside.ok()) << inside.status();
}

TEST_F(NodeLinkTest, AHostThatKeepsTheSocketsOfItsEnginesLeavesPortsToOthers) {
  std::vector<NodeLink::Inside> kept;
  for (int i = 0; i < NodeLink::kInsideMax; ++i) {
    auto inside = link_->AddInside("camera", "cameras", false);
    if (!inside.ok()) break;
    link_->RemoveInside(inside->worker);
    kept.push_back(*std::move(inside));
  }
  EXPECT_EQ(kept.size(), NodeLink::kInsideMax / 2 + 1u);
  EXPECT_TRUE(link_->AddInside("door", "doors", false).ok());
  kept.clear();
  EXPECT_TRUE(link_->AddInside("camera", "cameras", false).ok()) << "they are closed now";
}

TEST_F(NodeLinkTest, ATenantThatKeepsNoneMayHaveAllPorts) {
  std::vector<NodeLink::Inside> had;
  for (int i = 0; i < NodeLink::kInsideMax; ++i) {
    auto inside = link_->AddInside(absl::StrCat("camera-", i), "cameras", false);
    ASSERT_TRUE(inside.ok()) << inside.status();
    had.push_back(*std::move(inside));
  }
  EXPECT_FALSE(link_->AddInside("another", "cameras", false).ok());
}

}  // namespace
}  // namespace weft::agent
