// SPDX-License-Identifier: Apache-2.0
// Two and three agents that are well: sessions, keys, rotation, restart.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <memory>
#include <set>
#include <thread>

#include "absl/time/clock.h"
#include "dataplane/base/random.h"
#include "tests/dataplane/identity/test_node.h"

namespace weft::identity {
namespace {

using Secret = std::array<uint8_t, 28>;
Secret BytesOf(const PacketSecret& secret) {
  Secret bytes;
  std::copy(secret.key.begin(), secret.key.end(), bytes.begin());
  std::copy(secret.iv.begin(), secret.iv.end(), bytes.begin() + 16);
  return bytes;
}

class ExchangeTest : public testing::Test {
 protected:
  ExchangeTest() {
    for (const char* const name : {"a", "b", "c"}) world_.Issue(name);
  }
  std::unique_ptr<TestNode> Make(const std::string& name, int workers = 1) {
    return std::make_unique<TestNode>(&world_, name, workers);
  }
  // `a` and `b` joined, with the keys of the first epoch.
  void Join() {
    a_ = Make("a");
    b_ = Make("b");
    Introduce(*a_, "a", *b_, "b");
    ASSERT_TRUE(RunUntil(both(), [&] { return a_->HasKeys("b", 0) && b_->HasKeys("a", 0); }));
  }
  std::vector<TestNode*> both() { return {a_.get(), b_.get()}; }
  bool Rotated(int epoch) {
    return RunUntil(both(), [&] { return a_->HasKeys("b", epoch) && b_->HasKeys("a", epoch); });
  }
  // Every key that `from` sends with is the one that `to` receives with, and no two of all are the same.
  static void ExpectSameSecrets(const TestNode& from, const std::string& from_name, const TestNode& to,
                                const std::string& to_name, std::set<Secret>* all) {
    int checked = 0;
    for (const auto& [name, key] : from.send_keys) {
      const auto& [peer, session, local, remote, epoch] = name;
      if (peer != to_name) continue;
      const TestNode::KeyName mirror{from_name, session, remote, local, epoch};
      ASSERT_TRUE(to.receive_secrets.contains(mirror));
      EXPECT_EQ(BytesOf(key.secret), BytesOf(to.receive_secrets.at(mirror)));
      EXPECT_EQ(key.id, to.receive_ids.at(mirror));
      EXPECT_EQ(key.hint, 100 + remote);
      EXPECT_TRUE(all->insert(BytesOf(key.secret)).second);
      ++checked;
    }
    EXPECT_GT(checked, 0);
  }

  TestWorld world_;
  std::unique_ptr<TestNode> a_;
  std::unique_ptr<TestNode> b_;
};

TEST_F(ExchangeTest, ACertificateThatIsBeingWrittenAtTheStartIsWaitedFor) {
  std::string path;
  std::string whole;
  std::thread writer;
  TestNode node(&world_, "a", 1, [&](KeyExchangeOptions* options) {
    path = options->credentials.certificate;
    whole = test::ReadFile(path);
    test::WriteFile(path, whole.substr(0, whole.size() / 2));
    options->start_patience_ns = 60 * kNsPerSecond;
    writer = std::thread([&] {
      absl::SleepFor(absl::Milliseconds(100));
      test::WriteFile(path, whole);
    });
  });
  writer.join();
  EXPECT_TRUE(node.alive());
  // Not for ever
  test::WriteFile(path, "x");
  KeyExchangeOptions options;
  options.credentials = {path, path, path};
  options.node = "a";
  options.start_patience_ns = 1;
  EXPECT_FALSE(KeyExchange::Create(std::move(options), &node).ok());
}

TEST_F(ExchangeTest, BothSidesDeriveTheSameKeysForEachLaneAndDirection) {
  a_ = Make("a", 2);
  b_ = Make("b", 3);
  Introduce(*a_, "a", *b_, "b");
  ASSERT_TRUE(Rotated(0));
  EXPECT_EQ(a_->SessionWith("b"), b_->SessionWith("a"));
  EXPECT_EQ(a_->send_keys.size(), 6u);
  std::set<Secret> all;
  ExpectSameSecrets(*a_, "a", *b_, "b", &all);
  ExpectSameSecrets(*b_, "b", *a_, "a", &all);
  EXPECT_EQ(all.size(), 12u);
  // A worker that names no address is found where the connection came from.
  EXPECT_EQ(a_->sessions.at("b").workers.at(2).address.ToString(), "127.0.0.1:4810");
}

TEST_F(ExchangeTest, TwoThatDialAtOnceKeepOneConnectionAndOneSession) {
  for (int round = 0; round < 20; ++round) {
    a_ = Make("a");
    b_ = Make("b");
    Introduce(*a_, "a", *b_, "b");
    world_.ahead_ns += kNsPerSecond;  // Both are due to dial at once.
    ASSERT_TRUE(RunUntil(both(), [&] {
      const auto settled = [](TestNode& node) { return node.exchange().counters().dialled > 0; };
      return settled(*a_) && a_->SessionWith("b") != 0 && a_->SessionWith("b") == b_->SessionWith("a");
    }));
    RunRounds(both(), 30);
    EXPECT_EQ(a_->SessionWith("b"), b_->SessionWith("a"));
    EXPECT_TRUE(a_->exchange().Peers().at(0).connected);
    EXPECT_TRUE(b_->exchange().Peers().at(0).connected);
  }
}

// The two are stepped in any order, so that each message of either handshake is early or late in some round.
TEST_F(ExchangeTest, OfTwoThatDialAtOnceNeitherLosesASessionThatItHad) {
  Random random(1);
  for (int round = 0; round < 100; ++round) {
    a_ = Make("a");
    b_ = Make("b");
    Introduce(*a_, "a", *b_, "b");
    world_.ahead_ns += kNsPerSecond;  // Both are due to dial at once.
    for (int step = 0; step < 60; ++step) {
      // What was written reaches the other end a moment later.
      if (random.Below(2) == 0) absl::SleepFor(absl::Microseconds(20));
      (random.Below(2) == 0 ? a_ : b_)->Step();
    }
    // Of two connections within the session the second has brought the next epoch.
    ASSERT_TRUE(RunUntil(both(), [&] {
      const uint32_t epoch = a_->exchange().Peers().at(0).epoch;
      return epoch == b_->exchange().Peers().at(0).epoch && a_->HasKeys("b", static_cast<int>(epoch)) &&
             b_->HasKeys("a", static_cast<int>(epoch));
    })) << round;
    EXPECT_EQ(a_->SessionWith("b"), b_->SessionWith("a")) << round;
    for (const TestNode* const node : both()) {
      EXPECT_THAT(node->ended, testing::IsEmpty()) << round;
      EXPECT_THAT(node->lost, testing::IsEmpty()) << round;
    }
  }
}

TEST_F(ExchangeTest, RotationMakesNewKeysWithinTheSessionAndRetiresTheOld) {
  Join();
  const uint64_t session = a_->SessionWith("b");
  for (int epoch = 1; epoch <= 300; ++epoch) {
    // Either side may ask.
    (epoch % 2 == 0 ? *a_ : *b_).exchange().Rotate(epoch % 2 == 0 ? "b" : "a");
    ASSERT_TRUE(RunUntil(both(), [&] {
      return a_->send_keys.size() == static_cast<std::size_t>(epoch + 1) &&
             b_->send_keys.size() == static_cast<std::size_t>(epoch + 1);
    })) << epoch;
    if (epoch == 255) {  // The packet's epoch begins again; the keys are new all the same.
      std::set<Secret> all;
      ExpectSameSecrets(*a_, "a", *b_, "b", &all);
      EXPECT_EQ(all.size(), 256u);
      break;
    }
    world_.ahead_ns += 2 * kNsPerSecond;
    ASSERT_TRUE(RunUntil(both(), [&] {
      return a_->retired.size() == static_cast<std::size_t>(epoch) &&
             b_->retired.size() == static_cast<std::size_t>(epoch);
    })) << epoch;
    EXPECT_EQ(std::get<4>(a_->retired.back()), epoch - 1);
  }
  EXPECT_EQ(a_->SessionWith("b"), session);
  EXPECT_TRUE(a_->ended.empty());
}

TEST_F(ExchangeTest, KeysAreRotatedByAge) {
  Join();
  world_.ahead_ns += 2 * kNsPerSecond;
  RunRounds(both(), 5);
  EXPECT_FALSE(a_->HasKeys("b", 1));
  for (int i = 0; i < 300; ++i) {  // In steps that keepalives survive.
    world_.ahead_ns += 2 * kNsPerSecond;
    RunRounds(both(), 2);
  }
  EXPECT_TRUE(Rotated(1));
  EXPECT_TRUE(a_->ended.empty());
}

TEST_F(ExchangeTest, ARestartedProcessGetsANewSessionWithNewKeys) {
  Join();
  for (int restart = 0; restart < 3; ++restart) {
    const uint64_t before = a_->SessionWith("b");
    const bool follower = restart % 2 == 0;
    std::unique_ptr<TestNode>& victim = follower ? b_ : a_;
    TestNode& other = follower ? *a_ : *b_;
    const std::string victim_name = follower ? "b" : "a";
    const std::string other_name = follower ? "a" : "b";
    victim->Kill();
    ASSERT_TRUE(RunUntil({&other}, [&] { return !other.lost.empty(); }));
    std::set<Secret> all;
    for (const auto& [name, secret] : victim->receive_secrets) all.insert(BytesOf(secret));
    victim = Make(victim_name);
    Introduce(*a_, "a", *b_, "b");
    ASSERT_TRUE(RunUntil(both(), [&] {
      return a_->SessionWith("b") != 0 && a_->SessionWith("b") != before && a_->HasKeys("b", 0) &&
             b_->HasKeys("a", 0);
    }));
    EXPECT_EQ(a_->SessionWith("b"), b_->SessionWith("a"));
    EXPECT_EQ(other.ended.back(), std::pair(victim_name, Refusal::kRestarted));
    for (const auto& [name, secret] : victim->receive_secrets) {
      EXPECT_TRUE(all.insert(BytesOf(secret)).second);
    }
    other.lost.clear();
  }
}

TEST_F(ExchangeTest, ALostConnectionIsMadeAnewWithinTheSession) {
  Join();
  const uint64_t session = a_->SessionWith("b");
  RunRounds(both(), 20);  // What is under way arrives before the silence.
  // Both hear nothing for longer than three keepalives.
  for (int round = 1; round <= 3; ++round) {
    world_.ahead_ns += 4 * kNsPerSecond;
    ASSERT_TRUE(RunUntil(both(), [&] {
      const uint32_t epoch = a_->exchange().Peers().at(0).epoch;
      const int keys = static_cast<int>(epoch);
      return epoch >= static_cast<uint32_t>(round) && epoch == b_->exchange().Peers().at(0).epoch &&
             a_->HasKeys("b", keys) && b_->HasKeys("a", keys);
    }));
    RunRounds(both(), 20);
  }
  EXPECT_EQ(a_->SessionWith("b"), session);
  EXPECT_EQ(b_->SessionWith("a"), session);
  EXPECT_TRUE(a_->ended.empty());
  EXPECT_FALSE(a_->lost.empty());
  std::set<Secret> all;
  ExpectSameSecrets(*a_, "a", *b_, "b", &all);
}

TEST_F(ExchangeTest, AConnectionLostForLongerThanTheLingerEndsTheSession) {
  Join();
  b_->Kill();
  ASSERT_TRUE(RunUntil({a_.get()}, [&] { return !a_->lost.empty(); }));
  EXPECT_NE(a_->SessionWith("b"), 0u);
  world_.ahead_ns += 11 * kNsPerSecond;
  ASSERT_TRUE(RunUntil({a_.get()}, [&] { return a_->SessionWith("b") == 0; }));
  EXPECT_EQ(a_->ended.back().second, Refusal::kClosed);
}

TEST_F(ExchangeTest, ARenewedCertificateTakesTheConnectionsPlaceWithoutLosingIt) {
  Join();
  const uint64_t session = a_->SessionWith("b");
  int resumed = 0;
  for (const char* const name : {"a", "b"}) {
    world_.unix_s += 86'400;
    world_.Issue(name, nullptr, {kTestYear.not_before_s, kTestYear.not_after_s - 1'000 + resumed});
    for (int i = 0; i < 4; ++i) {
      world_.ahead_ns += kNsPerSecond;
      RunRounds(both(), 5);
    }
    ++resumed;
    ASSERT_TRUE(RunUntil(both(), [&] {
      return a_->exchange().counters().resumed == static_cast<uint64_t>(resumed) && Rotated(resumed);
    })) << name;
  }
  EXPECT_EQ(a_->exchange().Peers().at(0).expires_unix_s, kTestYear.not_after_s - 999);
  EXPECT_EQ(a_->SessionWith("b"), session);
  EXPECT_EQ(b_->SessionWith("a"), session);
  EXPECT_THAT(a_->lost, testing::IsEmpty());
  EXPECT_THAT(b_->lost, testing::IsEmpty());
}

// Else the connection stands with the old one, and ends with it.
TEST_F(ExchangeTest, ACertificateThatIsRenewedDuringAHandshakeIsShownSoonAfter) {
  a_ = Make("a");
  b_ = Make("b");
  ASSERT_TRUE(a_->exchange().AddPeer("b", b_->endpoint()).ok());
  // Where nobody is: what a dials is all that joins them.
  Endpoint nowhere;
  const UniqueFd closed = BoundSocket("127.0.0.1", &nowhere);
  ASSERT_TRUE(b_->exchange().AddPeer("a", nowhere).ok());
  ASSERT_TRUE(RunUntil({a_.get()}, [&] { return a_->exchange().counters().dialled == 1; }));
  RunRounds({a_.get()}, 5);
  world_.Issue("a", nullptr, {kTestYear.not_before_s, kTestYear.not_after_s - 1'000});
  world_.ahead_ns += kNsPerSecond;
  ASSERT_TRUE(RunUntil({a_.get()}, [&] { return a_->exchange().counters().reloads == 1; }));
  ASSERT_TRUE(RunUntil(both(), [&] { return a_->SessionWith("b") != 0 && b_->SessionWith("a") != 0; }));
  world_.ahead_ns += kNsPerSecond;
  EXPECT_TRUE(RunUntil(
      both(), [&] { return b_->exchange().Peers().at(0).expires_unix_s == kTestYear.not_after_s - 1'000; }));
  EXPECT_THAT(b_->ended, testing::IsEmpty());
}

// And not once nobody has answered at the old one for as long as a handshake may take.
TEST_F(ExchangeTest, APeerThatMovesIsDialledAtItsNewAddressAtOnce) {
  a_ = Make("a");
  b_ = Make("b");
  // Connects, and nobody speaks there.
  Endpoint silent, nowhere;
  const UniqueFd listener = BoundSocket("127.0.0.1", &silent);
  const UniqueFd closed = BoundSocket("127.0.0.1", &nowhere);
  ASSERT_EQ(listen(listener.get(), 8), 0);
  ASSERT_TRUE(a_->exchange().AddPeer("b", silent).ok());
  ASSERT_TRUE(b_->exchange().AddPeer("a", nowhere).ok());
  ASSERT_TRUE(RunUntil(both(), [&] { return a_->exchange().counters().dialled == 1; }));
  RunRounds(both(), 20);
  ASSERT_EQ(a_->SessionWith("b"), 0u);
  ASSERT_TRUE(a_->exchange().AddPeer("b", b_->endpoint()).ok());
  ASSERT_TRUE(RunUntil(both(), [&] { return a_->SessionWith("b") != 0; }));
  EXPECT_EQ(a_->refused(Refusal::kSlowHandshake), 0u);
}

TEST_F(ExchangeTest, WorkersComeAndGoWithinTheSessionAndAnIdIsNotUsedAgain) {
  Join();
  Worker inside;
  inside.id = 40;
  inside.hint = 140;
  inside.address = *Endpoint::Parse("127.0.0.1:5000");
  inside.host = "camera-1";
  ASSERT_TRUE(a_->exchange().AddWorker(inside).ok());
  ASSERT_TRUE(RunUntil(both(), [&] { return a_->send_keys.size() == 2 && b_->send_keys.size() == 2; }));
  EXPECT_EQ(b_->sessions.at("a").workers.at(1).host, "camera-1");
  std::set<Secret> all;
  ExpectSameSecrets(*b_, "b", *a_, "a", &all);
  a_->exchange().RemoveWorker(40);
  ASSERT_TRUE(RunUntil(both(), [&] { return b_->sessions.at("a").workers.size() == 1; }));
  EXPECT_FALSE(a_->exchange().AddWorker(inside).ok());
  world_.ahead_ns += 2 * kNsPerSecond;
  RunRounds(both(), 5);
  a_->exchange().Rotate("b");
  ASSERT_TRUE(RunUntil(both(), [&] { return a_->send_keys.size() == 3 && b_->send_keys.size() == 3; }));
}

TEST_F(ExchangeTest, DrainsAreToldAndAgainWhenANodeComesBack) {
  Join();
  const Drains first{{{"h1", 1}, {"h2", 2}}, {}, {{"x", 5}}, {}};
  const Drains second{{{"h2", 3}}, {"h1"}, {}, {"x"}};
  a_->exchange().SetDrains({{"b", first}, {"c", second}});
  ASSERT_TRUE(RunUntil(both(), [&] { return b_->drains["a"] == first; }));
  a_->exchange().SetDrains({{"b", second}});
  ASSERT_TRUE(RunUntil(both(), [&] { return b_->drains["a"] == second; }));
  b_->Kill();
  b_ = Make("b");
  Introduce(*a_, "a", *b_, "b");
  ASSERT_TRUE(RunUntil(both(), [&] { return b_->drains["a"] == second; }));
  a_->exchange().SetDrains({{"b", Drains{}}});
  ASSERT_TRUE(RunUntil(both(), [&] { return b_->drains["a"] == Drains{}; }));
}

// Between HELLO and the peer's too: what comes of its lane is for a worker that the peer knows.
TEST_F(ExchangeTest, AWorkerThatComesDuringTheHandshakeGetsItsKeys) {
  Worker inside;
  inside.id = 42;
  inside.address = *Endpoint::Parse("127.0.0.1:5000");
  inside.host = "camera-1";
  for (int steps = 0; steps < 24; ++steps) {
    a_ = Make("a");
    b_ = Make("b");
    Introduce(*a_, "a", *b_, "b");
    for (int i = 0; i < steps; ++i) (i % 2 == 0 ? a_ : b_)->Step();
    ASSERT_TRUE(a_->exchange().AddWorker(inside).ok());
    a_->Step();  // Tells those that have a session now.
    EXPECT_TRUE(RunUntil(both(), [&] { return a_->send_keys.size() == 2 && b_->send_keys.size() == 2; }))
        << "after " << steps << " steps";
  }
}

// The one lane carries nothing towards the node that declines it; all else goes on, epoch by epoch.
TEST_F(ExchangeTest, ALaneThatIsDeclinedGetsNoSendKeyAndHoldsUpNoOther) {
  Join();
  b_->declines = {41};
  Worker inside;
  inside.id = 41;
  inside.address = *Endpoint::Parse("127.0.0.1:5000");
  inside.host = "camera-1";
  ASSERT_TRUE(a_->exchange().AddWorker(inside).ok());
  ASSERT_TRUE(RunUntil(both(), [&] { return b_->send_keys.size() == 2; }));
  world_.ahead_ns += 2 * kNsPerSecond;
  RunRounds(both(), 5);
  a_->exchange().Rotate("b");
  ASSERT_TRUE(RunUntil(both(), [&] { return a_->send_keys.size() == 2 && b_->send_keys.size() == 4; }));
  for (const auto& [name, key] : a_->send_keys) EXPECT_EQ(std::get<2>(name), 0) << "of the declined lane";
  world_.ahead_ns += 11 * kNsPerSecond;
  RunRounds(both(), 5);
  EXPECT_EQ(a_->refused(Refusal::kStalled) + b_->refused(Refusal::kStalled), 0u);
}

// As by a host that attaches and leaves in a loop: a peer closes the connection of who tells it each time.
TEST_F(ExchangeTest, WorkersThatComeAndGoFasterThanPeersAreToldCostNoConnection) {
  Join();
  Worker inside;
  inside.address = *Endpoint::Parse("127.0.0.1:5000");
  inside.host = "camera-1";
  for (int i = 0; i < 400; ++i) {
    inside.id = static_cast<uint16_t>(100 + i);
    ASSERT_TRUE(a_->exchange().AddWorker(inside).ok());
    a_->Step();
    b_->Step();
    if (i < 399) a_->exchange().RemoveWorker(inside.id);
    a_->Step();
    b_->Step();
  }
  ASSERT_TRUE(RunUntil(both(), [&] { return b_->sessions.at("a").workers.back().id == inside.id; }));
  EXPECT_EQ(b_->sessions.at("a").workers.size(), 2u);
  const auto keyed = [&](const TestNode& node, uint16_t local, uint16_t remote) {
    return std::any_of(node.send_keys.begin(), node.send_keys.end(), [&](const auto& entry) {
      return std::get<2>(entry.first) == local && std::get<3>(entry.first) == remote;
    });
  };
  EXPECT_TRUE(RunUntil(both(), [&] { return keyed(*a_, inside.id, 0) && keyed(*b_, 0, inside.id); }));
  EXPECT_EQ(b_->refused(Refusal::kProtocol), 0u);
  EXPECT_TRUE(a_->lost.empty());
  EXPECT_TRUE(a_->ended.empty());
}

// As by a host that serves and does not serve, in a loop, a function that another node is draining.
TEST_F(ExchangeTest, DrainsThatChangeFasterThanPeersAreToldCostNoConnection) {
  Join();
  Drains drains{{{"h1", 0}}, {}, {}, {}};
  for (uint64_t i = 0; i < 400; ++i) {
    drains.draining[0].number = i;
    a_->exchange().SetDrains({{"b", drains}});
    a_->Step();
    b_->Step();
  }
  EXPECT_TRUE(RunUntil(both(), [&] { return b_->drains["a"] == drains; }));
  EXPECT_EQ(b_->refused(Refusal::kProtocol), 0u);
  EXPECT_TRUE(a_->lost.empty());
  EXPECT_TRUE(a_->ended.empty());
}

// Two hosts whose engines are silent in turn, each for less time than is waited for a key.
TEST_F(ExchangeTest, WorkersThatComeWithinAnEpochDoNotHoldItUp) {
  Join();
  b_->withholds = {40, 41};
  Worker first;
  first.id = 40;
  first.address = *Endpoint::Parse("127.0.0.1:5000");
  first.host = "camera-1";
  Worker second = first;
  second.id = 41;
  second.host = "camera-2";
  ASSERT_TRUE(a_->exchange().AddWorker(first).ok());
  world_.ahead_ns += 2 * kNsPerSecond;
  RunRounds(both(), 5);
  a_->exchange().Rotate("b");
  ASSERT_TRUE(RunUntil(both(), [&] { return b_->receive_secrets.size() == 4; }));
  const uint64_t agreed = a_->exchange().counters().epochs;
  const auto seconds = [&](int count) {
    for (int i = 0; i < count; ++i) {
      world_.ahead_ns += kNsPerSecond;
      RunRounds(both(), 5);
    }
  };
  seconds(6);
  EXPECT_EQ(a_->exchange().counters().epochs, agreed) << "it waits for the first";
  ASSERT_TRUE(a_->exchange().AddWorker(second).ok());
  ASSERT_TRUE(RunUntil(both(), [&] { return b_->receive_secrets.size() == 5; }));
  a_->exchange().RemoveWorker(40);
  seconds(6);
  EXPECT_EQ(a_->exchange().counters().epochs, agreed + 1);
  EXPECT_EQ(a_->refused(Refusal::kStalled) + b_->refused(Refusal::kStalled), 0u);
  EXPECT_TRUE(a_->ended.empty());
}

TEST_F(ExchangeTest, APeerThatIsRemovedOrLeavesEndsItsSessionAtOnce) {
  Join();
  a_->exchange().RemovePeer("b");
  ASSERT_TRUE(RunUntil(both(), [&] { return a_->SessionWith("b") == 0 && b_->SessionWith("a") == 0; }));
  EXPECT_EQ(a_->ended.back().second, Refusal::kRemoved);
  EXPECT_EQ(b_->ended.back().second, Refusal::kRemoved);
  // Unknown now, it gets nothing, and is let in again once it is known.
  world_.ahead_ns += kNsPerSecond;
  ASSERT_TRUE(RunUntil(both(), [&] { return a_->refused(Refusal::kUnknownNode) > 0; }));
  ASSERT_TRUE(a_->exchange().AddPeer("b", b_->endpoint()).ok());
  ASSERT_TRUE(RunUntil(both(), [&] { return a_->SessionWith("b") != 0 && b_->SessionWith("a") != 0; }));
  b_->exchange().Leave();
  ASSERT_TRUE(RunUntil(both(), [&] { return a_->SessionWith("b") == 0; }));
  EXPECT_EQ(a_->ended.back().second, Refusal::kLeft);
}

TEST_F(ExchangeTest, APeerMayTakeThePlaceOfOneThatIsRemoved) {
  a_ = std::make_unique<TestNode>(&world_, "a", 1,
                                  [](KeyExchangeOptions* options) { options->peers_max = 2; });
  b_ = Make("b");
  ASSERT_TRUE(a_->exchange().AddPeer("b", b_->endpoint()).ok());
  ASSERT_TRUE(a_->exchange().AddPeer("c", b_->endpoint()).ok());
  EXPECT_EQ(a_->exchange().AddPeer("d", b_->endpoint()).code(), absl::StatusCode::kResourceExhausted);
  a_->exchange().RemovePeer("c");
  EXPECT_TRUE(a_->exchange().AddPeer("d", b_->endpoint()).ok());
  // Not all at once, though the place of the one that has left is not empty yet.
  EXPECT_EQ(a_->exchange().AddPeer("c", b_->endpoint()).code(), absl::StatusCode::kResourceExhausted);
  a_->exchange().RemovePeer("d");
  EXPECT_TRUE(a_->exchange().AddPeer("c", b_->endpoint()).ok());
}

TEST_F(ExchangeTest, KeysThatAreNotAnsweredGiveTheConnectionUpAndItIsMadeAnew) {
  a_ = Make("a");
  b_ = Make("b");
  b_->answers = false;
  Introduce(*a_, "a", *b_, "b");
  ASSERT_TRUE(RunUntil(both(), [&] { return a_->SessionWith("b") != 0 && b_->SessionWith("a") != 0; }));
  for (int i = 0; i < 11; ++i) {
    world_.ahead_ns += kNsPerSecond;
    RunRounds(both(), 5);
  }
  ASSERT_TRUE(RunUntil(both(), [&] { return a_->refused(Refusal::kStalled) > 0; }));
  // With its session: keys that one side has and the other has not are not gone on with.
  EXPECT_THAT(a_->ended, testing::Contains(testing::Pair("b", Refusal::kStalled)));
  b_->answers = true;
  for (int i = 0; i < 11; ++i) {
    world_.ahead_ns += kNsPerSecond;
    RunRounds(both(), 5);
  }
  EXPECT_TRUE(RunUntil(both(), [&] { return !a_->send_keys.empty() && !b_->send_keys.empty(); }));
}

}  // namespace
}  // namespace weft::identity
