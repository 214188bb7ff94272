// SPDX-License-Identifier: Apache-2.0
// Strangers, impostors and expiry at the TLS port: each is refused by name and disturbs nobody else.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/crypto.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cstdlib>
#include <memory>
#include <numeric>
#include <utility>

#include "dataplane/identity/messages.h"
#include "dataplane/identity/openssl.h"
#include "tests/dataplane/identity/test_node.h"

namespace weft::identity {
namespace {

constexpr Validity kLastYear{kTestUnixS - 2 * 365 * 86'400, kTestUnixS - 86'400};

// While it is set OpenSSL gets no memory.
bool no_memory = false;
// Before its first allocation, which is all that it takes: 1 where that was so.
const int kHooked = CRYPTO_set_mem_functions(
    [](std::size_t bytes, const char*, int) { return no_memory ? nullptr : std::malloc(bytes); },
    [](void* old, std::size_t bytes, const char*, int) {
      return no_memory ? nullptr : std::realloc(old, bytes);
    },
    [](void* old, const char*, int) { std::free(old); });

class ExchangeFaultTest : public testing::Test {
 protected:
  ExchangeFaultTest() {
    for (const char* const name : {"a", "b"}) world_.Issue(name);
    a_ = std::make_unique<TestNode>(&world_, "a");
    b_ = std::make_unique<TestNode>(&world_, "b");
    Introduce(*a_, "a", *b_, "b");
    EXPECT_TRUE(RunUntil(both(), [&] { return a_->HasKeys("b", 0) && b_->HasKeys("a", 0); }));
    session_ = a_->SessionWith("b");
    RunRounds(both(), 10);
  }
  std::vector<TestNode*> both() { return {a_.get(), b_.get()}; }
  // Of the keys that a has with the peer; -1: there is none of that name.
  int EpochWith(const std::string& name) const {
    for (const PeerReport& peer : a_->exchange().Peers()) {
      if (peer.name == name) return static_cast<int>(peer.epoch);
    }
    return -1;
  }
  // The good pair still holds its session, and makes new keys.
  void ExpectWell() {
    const int epoch = EpochWith("b");
    world_.ahead_ns += 2 * kNsPerSecond;
    RunRounds(both(), 5);
    a_->exchange().Rotate("b");
    EXPECT_TRUE(RunUntil(both(), [&] { return a_->HasKeys("b", epoch + 1) && b_->HasKeys("a", epoch + 1); }));
    EXPECT_EQ(a_->SessionWith("b"), session_);
    EXPECT_EQ(b_->SessionWith("a"), session_);
    EXPECT_THAT(a_->lost, testing::IsEmpty());
  }
  // A stranger that finishes the handshake as `pair` and then says what the test wants.
  class Stranger {
   public:
    Stranger(const Endpoint& endpoint, const PemPair& pair) : socket_(ConnectTo(endpoint)) {
      SSL_CTX* const context = SSL_CTX_new(TLS_client_method());
      const X509Ptr certificate(PEM_read_bio_X509(BioOf(pair.certificate).get(), nullptr, nullptr, nullptr));
      const KeyPtr key(PEM_read_bio_PrivateKey(BioOf(pair.key).get(), nullptr, nullptr, nullptr));
      SSL_CTX_use_certificate(context, certificate.get());
      SSL_CTX_use_PrivateKey(context, key.get());
      fcntl(socket_.get(), F_SETFL, O_NONBLOCK);
      ssl_.reset(SSL_new(context));
      SSL_CTX_free(context);
      SSL_set_fd(ssl_.get(), socket_.get());
      SSL_set_connect_state(ssl_.get());
    }
    // Whether the handshake is done.
    bool Step() {
      char buffer[4096];
      ERR_clear_error();
      while (SSL_read(ssl_.get(), buffer, sizeof(buffer)) > 0) continue;
      ERR_clear_error();
      return SSL_is_init_finished(ssl_.get()) != 0;
    }
    bool Say(const std::string& what) {
      ERR_clear_error();
      const bool said = SSL_write(ssl_.get(), what.data(), static_cast<int>(what.size())) > 0;
      ERR_clear_error();
      return said;
    }

   private:
    UniqueFd socket_;
    SslPtr ssl_;
  };

  // For what it has said against the protocol; nobody else is touched.
  void ExpectClosed(Stranger& stranger, const std::string& name) {
    EXPECT_TRUE(RunUntil(both(), [&] {
      (void)stranger.Step();
      return a_->refused(Refusal::kProtocol) > 0;
    }));
    EXPECT_THAT(std::exchange(a_->lost, {}), testing::Each(name));
    ExpectWell();
  }

  // Makes `name` known to a, and a stranger that has its certificate and greets as it would.
  std::unique_ptr<Stranger> KnownStranger(PemPair* pair, const std::string& name = "c") {
    *pair = *world_.authority.IssueNode(name, kTestYear);
    Endpoint nowhere;
    nowhere_ = BoundSocket("127.0.0.1", &nowhere);
    EXPECT_TRUE(a_->exchange().AddPeer(name, nowhere).ok());
    auto stranger = std::make_unique<Stranger>(a_->endpoint(), *pair);
    const uint64_t handshakes = a_->exchange().counters().handshakes;
    EXPECT_TRUE(RunUntil(
        both(), [&] { return stranger->Step() && a_->exchange().counters().handshakes > handshakes; }));
    return stranger;
  }
  static Hello HelloOfC(const std::string& name = "c") {
    Hello hello;
    hello.incarnation = {7};
    hello.node = name;
    return hello;
  }
  static std::string WorkersOf(std::vector<uint16_t> ids) {
    Workers message;
    for (const uint16_t id : ids) {
      Worker worker;
      worker.id = id;
      worker.address.port = 4810;
      message.workers.push_back(worker);
    }
    return Encode(message);
  }

  bool Refused(Refusal reason, uint64_t times = 1) {
    return RunUntil(both(), [&] { return a_->refused(reason) >= times; });
  }

  // A stranger that speaks TLS with `pair` (null: without a certificate) and believes `a`. Returns whether it
  // received a byte of what the agents say to each other, after it had all the time it wanted.
  bool HearsAnything(const PemPair* pair, const std::string& says = "") {
    SSL_CTX* const context = SSL_CTX_new(TLS_client_method());
    if (pair != nullptr) {
      const X509Ptr certificate(PEM_read_bio_X509(BioOf(pair->certificate).get(), nullptr, nullptr, nullptr));
      const KeyPtr key(PEM_read_bio_PrivateKey(BioOf(pair->key).get(), nullptr, nullptr, nullptr));
      EXPECT_EQ(SSL_CTX_use_certificate(context, certificate.get()), 1);
      EXPECT_EQ(SSL_CTX_use_PrivateKey(context, key.get()), 1);
    }
    const UniqueFd socket = ConnectTo(a_->endpoint());
    fcntl(socket.get(), F_SETFL, O_NONBLOCK);
    const SslPtr ssl(SSL_new(context));
    SSL_CTX_free(context);
    SSL_set_fd(ssl.get(), socket.get());
    SSL_set_connect_state(ssl.get());
    bool heard = false;
    bool said = says.empty();
    (void)RunUntil(both(), [&] {
      ERR_clear_error();
      if (SSL_is_init_finished(ssl.get()) && !said) {
        said = SSL_write(ssl.get(), says.data(), static_cast<int>(says.size())) > 0;
      }
      char buffer[64];
      const int got = SSL_read(ssl.get(), buffer, sizeof(buffer));
      heard = heard || got > 0;
      const int error = SSL_get_error(ssl.get(), got);
      return got <= 0 && error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE;
    });
    ERR_clear_error();
    return heard;
  }

  TestWorld world_;
  std::unique_ptr<TestNode> a_;
  std::unique_ptr<TestNode> b_;
  uint64_t session_ = 0;
  UniqueFd nowhere_;
};

TEST_F(ExchangeFaultTest, GarbageOnTheTlsPortIsRefusedAndCounted) {
  const std::string inputs[] = {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", std::string(70'000, '\xff'),
                                std::string("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", 10),
                                std::string(1, '\0')};
  uint64_t times = 0;
  for (const std::string& input : inputs) {
    const UniqueFd socket = ConnectTo(a_->endpoint());
    (void)send(socket.get(), input.data(), input.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    shutdown(socket.get(), SHUT_WR);
    ++times;
    EXPECT_TRUE(RunUntil(both(), [&] {
      return a_->refused(Refusal::kGarbage) + a_->refused(Refusal::kClosed) >= times;
    })) << times;
  }
  EXPECT_GE(a_->refused(Refusal::kGarbage), 3u);
  ExpectWell();
}

TEST_F(ExchangeFaultTest, AConnectionThatThereIsNoMemoryForIsDroppedAlone) {
  ASSERT_EQ(kHooked, 1);
  const UniqueFd socket = ConnectTo(a_->endpoint());
  RunRounds(both(), 5);
  const uint64_t before = a_->refused(Refusal::kClosed);
  ASSERT_EQ(send(socket.get(), "x", 1, MSG_NOSIGNAL), 1);
  no_memory = true;
  a_->Step();
  no_memory = false;
  EXPECT_EQ(a_->refused(Refusal::kClosed), before + 1);
  EXPECT_THAT(a_->notes.back(), testing::HasSubstr("no memory for TLS"));
  ExpectWell();
}

TEST_F(ExchangeFaultTest, TlsOlderThan13IsRefused) {
  SSL_CTX* const context = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
  const SslPtr ssl(SSL_new(context));
  SSL_CTX_free(context);
  const UniqueFd socket = ConnectTo(a_->endpoint());
  fcntl(socket.get(), F_SETFL, O_NONBLOCK);
  SSL_set_fd(ssl.get(), socket.get());
  (void)SSL_connect(ssl.get());
  EXPECT_TRUE(Refused(Refusal::kGarbage));
  ExpectWell();
}

TEST_F(ExchangeFaultTest, ASlowHandshakeIsEndedThoughItSendsNowAndThen) {
  const UniqueFd silent = ConnectTo(a_->endpoint());
  const UniqueFd dripping = ConnectTo(a_->endpoint());
  for (int i = 0; i < 6; ++i) {
    (void)send(dripping.get(), &"\x16\x03\x01\x02\x00\x01"[i], 1, MSG_NOSIGNAL);
    world_.ahead_ns += kNsPerSecond;
    RunRounds(both(), 5);
  }
  EXPECT_TRUE(Refused(Refusal::kSlowHandshake, 2));
  ExpectWell();
}

TEST_F(ExchangeFaultTest, WithoutCertificateNothingIsHeard) {
  EXPECT_FALSE(HearsAnything(nullptr));
  EXPECT_EQ(a_->refused(Refusal::kNoCertificate), 1u);
  ExpectWell();
}

TEST_F(ExchangeFaultTest, AWrongTrustDomainHearsNothing) {
  const auto pair = world_.authority.Issue({"spiffe://other.example/node/b"}, kTestYear);
  EXPECT_FALSE(HearsAnything(&*pair));
  EXPECT_EQ(a_->refused(Refusal::kWrongTrustDomain), 1u);
  ExpectWell();
}

TEST_F(ExchangeFaultTest, AnExpiredCertificateHearsNothing) {
  const auto pair = world_.authority.IssueNode("b", kLastYear);
  EXPECT_FALSE(HearsAnything(&*pair));
  EXPECT_EQ(a_->refused(Refusal::kExpired), 1u);
  ExpectWell();
}

TEST_F(ExchangeFaultTest, AForeignCertificateHearsNothing) {
  const Authority foreign = std::move(*Authority::Make("test.example", kTestYear));
  const auto pair = foreign.IssueNode("b", kTestYear);
  EXPECT_FALSE(HearsAnything(&*pair));
  EXPECT_EQ(a_->refused(Refusal::kForeign), 1u);
  ExpectWell();
}

TEST_F(ExchangeFaultTest, ACertificateThatNamesNoNodeHearsNothing) {
  const auto pair = world_.authority.Issue({}, kTestYear);
  EXPECT_FALSE(HearsAnything(&*pair));
  EXPECT_EQ(a_->refused(Refusal::kNotSpiffe), 1u);
  ExpectWell();
}

TEST_F(ExchangeFaultTest, ANodeThatNobodyNamesHearsOnlyThatItIsUnknown) {
  const auto pair = world_.authority.IssueNode("stranger", kTestYear);
  EXPECT_TRUE(HearsAnything(&*pair));  // BYE
  EXPECT_EQ(a_->refused(Refusal::kUnknownNode), 1u);
  ExpectWell();
}

TEST_F(ExchangeFaultTest, APeerThatBreaksTheRulesIsClosedAndMayComeBack) {
  const auto pair = world_.authority.IssueNode("b", kTestYear);
  const std::string breaches[] = {
      Encode(Keepalive{}),               // Before HELLO.
      std::string("\x01\0\xff\xff", 4),  // Too long.
      std::string("\x2a\0\0\0", 4),      // No such type.
      std::string("weft is not a frame"),
  };
  uint64_t times = 0;
  for (const std::string& breach : breaches) {
    EXPECT_TRUE(HearsAnything(&*pair, breach));  // HELLO, then BYE.
    EXPECT_EQ(a_->refused(Refusal::kProtocol), ++times);
  }
  Hello hello;
  hello.incarnation = {1};
  hello.node = "c";  // Another than its certificate says.
  EXPECT_TRUE(HearsAnything(&*pair, Encode(hello)));
  EXPECT_EQ(a_->refused(Refusal::kProtocol), times + 1);
  hello.node = "b";
  hello.version_min = hello.version_max = 9;
  // The codec refuses a version of its own making only where none is common.
  EXPECT_TRUE(HearsAnything(&*pair, Encode(hello)));
  EXPECT_EQ(a_->refused(Refusal::kVersion), 1u);
  ExpectWell();
}

TEST_F(ExchangeFaultTest, ADialledNodeOfAnotherNameGetsNothing) {
  world_.Issue("c");
  TestNode c(&world_, "c");
  // "d" is said to live where c does.
  ASSERT_TRUE(a_->exchange().AddPeer("d", c.endpoint()).ok());
  std::vector<TestNode*> all = both();
  all.push_back(&c);
  EXPECT_TRUE(RunUntil(all, [&] { return a_->refused(Refusal::kNameMismatch) > 0; }));
  EXPECT_EQ(a_->SessionWith("d"), 0u);
  EXPECT_TRUE(c.sessions.empty());
  a_->exchange().RemovePeer("d");
  ExpectWell();
}

TEST_F(ExchangeFaultTest, TenThousandHalfOpenConnectionsDisturbNoGoodPeer) {
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  constexpr int kConnections = 10'000;
  if (files.rlim_cur < kConnections + 1'000) GTEST_SKIP() << "needs " << kConnections << " descriptors";
  std::vector<UniqueFd> open;
  int rotations = 0;
  for (int i = 0; i < kConnections; ++i) {
    // From many sources, some of which begin a handshake and stop.
    open.push_back(ConnectTo(a_->endpoint(), "127.0." + std::to_string(1 + i % 100) + ".9"));
    if (i % 3 == 0) (void)send(open.back().get(), "\x16\x03\x01\x02\x00\x01", 6, MSG_NOSIGNAL);
    a_->Step();
    if (i % 500 != 499) continue;
    world_.ahead_ns += 2 * kNsPerSecond;
    RunRounds(both(), 3);
    a_->exchange().Rotate("b");
    ++rotations;
    ASSERT_TRUE(RunUntil(both(), [&] { return a_->HasKeys("b", rotations) && b_->HasKeys("a", rotations); }));
  }
  EXPECT_GE(a_->refused(Refusal::kTooManyUnfinished) + a_->refused(Refusal::kSlowHandshake),
            static_cast<uint64_t>(kConnections) - 256);
  EXPECT_GT(a_->refused(Refusal::kTooManyUnfinished), 0u);
  EXPECT_EQ(a_->SessionWith("b"), session_);
  EXPECT_THAT(a_->lost, testing::IsEmpty());
  // A new good peer gets in while they hang on.
  world_.Issue("c");
  TestNode c(&world_, "c");
  Introduce(*a_, "a", c, "c");
  std::vector<TestNode*> all = both();
  all.push_back(&c);
  EXPECT_TRUE(RunUntil(all, [&] { return a_->HasKeys("c", 0) && c.HasKeys("a", 0); }));
}

TEST_F(ExchangeFaultTest, OneSourceHoldsNoMoreThanItsShare) {
  std::vector<UniqueFd> open;
  for (int i = 0; i < 100; ++i) open.push_back(ConnectTo(a_->endpoint(), "127.0.0.9"));
  EXPECT_TRUE(Refused(Refusal::kTooManyUnfinished, 100 - 32));
  EXPECT_EQ(a_->refused(Refusal::kTooManyUnfinished), 100u - 32);
  // The oldest have gone, the newest are still there.
  char byte;
  EXPECT_EQ(recv(open.front().get(), &byte, 1, MSG_DONTWAIT), 0);
  EXPECT_EQ(recv(open.back().get(), &byte, 1, MSG_DONTWAIT), -1);
  ExpectWell();
}

TEST_F(ExchangeFaultTest, APeersCertificateThatExpiresEndsItsSession) {
  world_.Issue("c", nullptr, {kTestYear.not_before_s, kTestUnixS + 100});
  TestNode c(&world_, "c");
  Introduce(*a_, "a", c, "c");
  std::vector<TestNode*> all = both();
  all.push_back(&c);
  ASSERT_TRUE(RunUntil(all, [&] { return a_->HasKeys("c", 0) && c.HasKeys("a", 0); }));
  world_.unix_s += 99;
  world_.ahead_ns += kNsPerSecond;
  RunRounds(all, 10);
  EXPECT_NE(a_->SessionWith("c"), 0u);
  world_.unix_s += 1;
  world_.ahead_ns += kNsPerSecond;
  ASSERT_TRUE(RunUntil(all, [&] { return a_->SessionWith("c") == 0 && c.SessionWith("a") == 0; }));
  EXPECT_EQ(a_->ended.back(), std::pair(std::string("c"), Refusal::kExpired));
  EXPECT_EQ(c.ended.back(), std::pair(std::string("a"), Refusal::kExpired));
  EXPECT_THAT(std::string(c.credentials.back().message()), testing::HasSubstr("has expired"));
  // Renewed, it is let in again.
  world_.Issue("c");
  for (int i = 0; i < 3; ++i) {
    world_.ahead_ns += kNsPerSecond;
    RunRounds(all, 5);
  }
  ASSERT_TRUE(RunUntil(all, [&] { return a_->SessionWith("c") != 0 && a_->HasKeys("c", 0); }));
  ExpectWell();
}

TEST_F(ExchangeFaultTest, ACertificateThatTheNewBundleDoesNotBelieveEndsItsSession) {
  const std::string old_bundle = test::ReadFile(world_.directory / "a-ca.pem");
  const auto list = world_.authority.Revoke({test::ReadFile(world_.directory / "b.pem")}, kTestYear);
  ASSERT_TRUE(list.ok());
  test::WriteFile(world_.directory / "a-ca.pem", old_bundle + *list);
  world_.ahead_ns += kNsPerSecond;
  ASSERT_TRUE(RunUntil(both(), [&] { return a_->SessionWith("b") == 0 && b_->SessionWith("a") == 0; }));
  EXPECT_EQ(a_->ended.back(), std::pair(std::string("b"), Refusal::kRevoked));
  // It tries again, and hears nothing.
  world_.ahead_ns += kNsPerSecond;
  EXPECT_TRUE(Refused(Refusal::kRevoked, 2));
  EXPECT_EQ(a_->SessionWith("b"), 0u);
}

TEST_F(ExchangeFaultTest, AHalfWrittenPairIsToldAndTheOldOneStaysInForce) {
  const auto renewed = world_.authority.IssueNode("a", kTestYear);
  test::WriteFile(world_.directory / "a.pem", renewed->certificate);
  world_.ahead_ns += kNsPerSecond;
  ASSERT_TRUE(RunUntil(both(), [&] { return !a_->credentials.empty(); }));
  EXPECT_THAT(std::string(a_->credentials.back().message()), testing::HasSubstr("is not the key of"));
  ExpectWell();
  test::WriteFile(world_.directory / "a-key.pem", renewed->key);
  chmod((world_.directory / "a-key.pem").c_str(), 0600);
  world_.ahead_ns += kNsPerSecond;
  ASSERT_TRUE(RunUntil(both(), [&] { return a_->credentials.back().ok(); }));
  EXPECT_EQ(a_->SessionWith("b"), session_);
}

TEST_F(ExchangeFaultTest, AnotherNodesCertificateIsNotTakenOver) {
  const auto other = world_.authority.IssueNode("b", kTestYear);
  test::WriteFile(world_.directory / "a.pem", other->certificate);
  test::WriteFile(world_.directory / "a-key.pem", other->key);
  chmod((world_.directory / "a-key.pem").c_str(), 0600);
  world_.ahead_ns += kNsPerSecond;
  ASSERT_TRUE(RunUntil(both(), [&] { return !a_->credentials.empty() && !a_->credentials.back().ok(); }));
  EXPECT_EQ(a_->exchange().credentials().id().name, "a");
  ExpectWell();
}

TEST_F(ExchangeFaultTest, ANodeRevokedBetweenHandshakeAndHelloIsNotLetIn) {
  PemPair pair;
  const std::unique_ptr<Stranger> stranger = KnownStranger(&pair);
  const auto list = world_.authority.Revoke({pair.certificate}, kTestYear);
  ASSERT_TRUE(list.ok());
  test::WriteFile(world_.directory / "a-ca.pem", world_.authority.ToPem().certificate + *list);
  world_.ahead_ns += kNsPerSecond;
  ASSERT_TRUE(RunUntil(both(), [&] { return !a_->credentials.empty() && a_->credentials.back().ok(); }));
  ASSERT_TRUE(stranger->Say(Encode(HelloOfC())));
  EXPECT_TRUE(RunUntil(both(), [&] {
    (void)stranger->Step();
    return a_->refused(Refusal::kRevoked) > 0;
  }));
  EXPECT_EQ(a_->SessionWith("c"), 0u);
  ExpectWell();
}

// It would get the same key for it again, with a replay window that has seen nothing.
TEST_F(ExchangeFaultTest, AWorkerThatHadGoneDoesNotComeBackInTheSameEpoch) {
  PemPair pair;
  const std::unique_ptr<Stranger> stranger = KnownStranger(&pair);
  ASSERT_TRUE(stranger->Say(Encode(HelloOfC()) + WorkersOf({0}) + WorkersOf({}) + WorkersOf({1})));
  ASSERT_TRUE(RunUntil(both(), [&] {
    (void)stranger->Step();
    return a_->sessions.contains("c") && a_->sessions.at("c").workers.size() == 1;
  }));
  ASSERT_TRUE(stranger->Say(WorkersOf({0, 1})));
  ExpectClosed(*stranger, "c");
}

// Each message is one that rules allow; that there are so many is not.
TEST_F(ExchangeFaultTest, APeerThatTellsOfItsWorkersTooOftenIsClosed) {
  PemPair pair;
  const std::unique_ptr<Stranger> stranger = KnownStranger(&pair);
  std::string says = Encode(HelloOfC());
  for (int i = 0; i < 300; ++i) says += WorkersOf({});
  ASSERT_TRUE(stranger->Say(says));
  ExpectClosed(*stranger, "c");
}

// A few messages, but of more workers than there can be reason for.
TEST_F(ExchangeFaultTest, APeerWhoseWorkersChangeTooOftenIsClosed) {
  PemPair pair;
  const std::unique_ptr<Stranger> stranger = KnownStranger(&pair);
  std::string says = Encode(HelloOfC());
  for (int i = 0; i < 40; ++i) {
    std::vector<uint16_t> ids(kWorkersMax);
    std::iota(ids.begin(), ids.end(), static_cast<uint16_t>(i * kWorkersMax));
    says += WorkersOf(ids);
  }
  ASSERT_TRUE(stranger->Say(says));
  ExpectClosed(*stranger, "c");
}

// All keys would be made anew as fast as the two tell each other of them.
TEST_F(ExchangeFaultTest, ALeaderThatRotatesBeforeTheLastKeysAreRetiredIsClosed) {
  PemPair pair;
  const std::unique_ptr<Stranger> stranger = KnownStranger(&pair, "1");
  ASSERT_TRUE(stranger->Say(Encode(HelloOfC("1")) + Encode(RotateTo{1})));
  EXPECT_TRUE(RunUntil(both(), [&] {
    (void)stranger->Step();
    return EpochWith("1") == 1;
  }));
  EXPECT_EQ(a_->refused(Refusal::kProtocol), 0u);
  ASSERT_TRUE(stranger->Say(Encode(RotateTo{2})));
  ExpectClosed(*stranger, "1");
}

TEST_F(ExchangeFaultTest, APeerThatConnectsTooOftenIsRefusedAndKeepsWhatItHas) {
  PemPair pair;
  std::unique_ptr<Stranger> established;
  std::unique_ptr<Stranger> stranger;
  for (int i = 0; i < 200 && a_->refused(Refusal::kProtocol) == 0; ++i) {
    established = std::move(stranger);
    stranger = KnownStranger(&pair);
    const uint64_t sessions = a_->exchange().counters().sessions;
    Hello hello = HelloOfC();
    hello.incarnation = {static_cast<uint8_t>(i + 1)};
    ASSERT_TRUE(stranger->Say(Encode(hello)));
    ASSERT_TRUE(RunUntil(both(), [&] {
      (void)stranger->Step();
      return a_->exchange().counters().sessions > sessions || a_->refused(Refusal::kProtocol) > 0;
    }));
  }
  EXPECT_EQ(a_->refused(Refusal::kProtocol), 1u);
  EXPECT_NE(a_->SessionWith("c"), 0u);
  EXPECT_THAT(a_->lost, testing::IsEmpty());
  ExpectWell();
}

TEST(EndpointTest, ASourceOfIpv6IsASlash64) {
  const auto at = [](const char* text) { return *Endpoint::Parse(text); };
  EXPECT_TRUE(at("[2001:db8::1]:1").SameSource(at("[2001:db8::ffff:1]:2")));
  EXPECT_FALSE(at("[2001:db8::1]:1").SameSource(at("[2001:db8:0:1::1]:1")));
  EXPECT_TRUE(at("192.0.2.1:1").SameSource(at("192.0.2.1:2")));
  EXPECT_FALSE(at("192.0.2.1:1").SameSource(at("192.0.2.2:1")));
  EXPECT_FALSE(at("0.0.0.0:1").SameSource(at("[::]:1")));
}

}  // namespace
}  // namespace weft::identity
