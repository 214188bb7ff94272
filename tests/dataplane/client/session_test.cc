// SPDX-License-Identifier: Apache-2.0
// The conversation with an agent that the test plays: one that reads late, one that is replaced.
#include "dataplane/client/session.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "dataplane/base/clock.h"
#include "dataplane/client/host_loop.h"
#include "tests/dataplane/call/call_pair.h"

namespace weft {
namespace {

// Serves nothing.
struct NoLocal {
  uint64_t NowNs() const { return weft::NowNs(); }
  std::byte* OnRequestBegin(const Incoming&, uint32_t) { return nullptr; }
  void OnRequest(const Incoming&, std::byte*, uint32_t) {}
  void OnRequestAbort(const Incoming&, std::byte*) {}
  void OnCancel(uint32_t, uint32_t) {}
};

TEST(PolicyOfTest, NoRetriesAreNotTheDefault) {
  api::Policy policy;
  EXPECT_EQ(PolicyOf(policy).retries, Policy().retries);
  policy.set_retries(0);
  ASSERT_TRUE(policy.ParseFromString(policy.SerializeAsString()));
  EXPECT_EQ(PolicyOf(policy).retries, 0u);
}

class SessionTest : public testing::Test {
 protected:
  SessionTest() {
    SessionOptions options;
    options.poll_time_ns = 0;
    options.connect = [this]() -> absl::StatusOr<UniqueFd> {
      int ends[2];
      if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
        return absl::ErrnoToStatus(errno, "make a socket pair");
      }
      agent_ = UniqueFd(ends[0]);
      return UniqueFd(ends[1]);
    };
    session_ = *Session::Create(options);
    session_->set_events(&events_);
    loop_ = std::make_unique<HostLoop<NoLocal>>(*session_, local_);
  }

  void Turn() { loop_->Wait(NowNs() + kNsPerMs); }
  // What the session has sent and the agent has not read yet.
  std::vector<api::FromHost> Read() {
    std::vector<api::FromHost> messages;
    while (true) {
      const absl::StatusOr<ReceivedMessage> received = ReceiveMessage(agent_.get());
      if (!received.ok()) return messages;
      EXPECT_TRUE(messages.emplace_back().ParseFromString(received->bytes));
    }
  }
  // Until the session has connected and was admitted.
  void Admit() {
    for (int i = 0; i < 5'000 && !agent_.valid(); ++i) Turn();
    ASSERT_TRUE(agent_.valid());
    bool hello = false;
    for (int i = 0; i < 100 && !hello; ++i) {
      for (const api::FromHost& message : Read()) hello |= message.has_hello();
      Turn();
    }
    ASSERT_TRUE(hello);
    api::ToHost welcome;
    welcome.mutable_welcome()->set_host("a");
    welcome.mutable_welcome()->set_call_as("web");
    ASSERT_TRUE(SendMessage(agent_.get(), welcome.SerializeAsString()).ok());
    for (int i = 0; i < 100 && !session_->attached(); ++i) Turn();
    ASSERT_TRUE(session_->attached());
  }
  void Say(const api::ToHost& message, absl::Span<const int> fds = {}) {
    ASSERT_TRUE(SendMessage(agent_.get(), message.SerializeAsString(), fds).ok());
    session_->ServeSocket();
  }
  // Joins the session to `peer` by a channel of this id; returns the peer's link.
  Link* Open(TestHost& peer, const std::string& id) {
    api::ToHost open;
    open.mutable_channel_open()->set_id(id);
    open.mutable_channel_open()->set_peer("b");
    open.mutable_channel_open()->set_arena_bytes(kArenaBytesDefault);
    Read();
    Say(open);
    absl::StatusOr<ReceivedMessage> memory = ReceiveMessage(agent_.get());
    if (!memory.ok() || memory->fds.size() != 1) return nullptr;
    absl::StatusOr<DoorbellPair> bells = MakeDoorbellPair();
    auto bell = std::make_unique<Doorbell>(*Doorbell::Create(std::move(bells->first)));
    std::unique_ptr<Channel> channel = *Channel::Create({});
    EXPECT_TRUE(channel->Connect(std::move(memory->fds[0]), bell.get()).ok());
    const int fds[] = {channel->memory_fd(), bells->second.get()};
    Link& link = peer.core.AddLink(std::move(channel), std::move(bell), "a");
    api::ToHost joined;
    joined.mutable_channel_peer()->set_id(id);
    Say(joined, fds);
    return &link;
  }
  // All that is asked for in the end, in order.
  std::vector<std::string> Asked(std::size_t count) {
    std::vector<std::string> callees;
    for (int i = 0; i < 10'000 && callees.size() < count; ++i) {
      for (const api::FromHost& message : Read()) {
        if (message.has_subscribe()) callees.push_back(message.subscribe().callee());
      }
      Turn();
    }
    return callees;
  }

  UniqueFd agent_;
  SessionEvents events_;
  NoLocal local_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<HostLoop<NoLocal>> loop_;
};

// An agent gives hosts less than a second to come back, whenever it comes.
TEST(SessionBackoffTest, AnAgentThatWasAwayForLongIsTriedAgainWithin200Ms) {
  SessionOptions options;
  options.run_dir = "/nonexistent";
  SessionEvents events;
  for (uint64_t seed = 1; seed < 50; ++seed) {
    options.seed = seed;
    const std::unique_ptr<Session> session = *Session::Create(options);
    session->set_events(&events);
    session->Start();
    for (int attempt = 0; attempt < 20; ++attempt) {
      const uint64_t next_ns = session->next_ns();
      const uint64_t now_ns = NowNs();
      ASSERT_LE(next_ns, now_ns + 200 * kNsPerMs) << "attempt " << attempt << ", seed " << seed;
      session->Tick(next_ns);
    }
  }
}

TEST_F(SessionTest, AnyNumberOfRoutesIsAskedForAsTheAgentReads) {
  session_->Start();
  Admit();
  std::vector<std::string> callees;
  for (int i = 0; i < 5'000; ++i) callees.push_back(absl::StrCat("demo/f", i));
  for (const std::string& callee : callees) session_->Subscribe("web/front", callee);
  session_->Subscribe("web/front", callees.front());  // Again: is not asked again.
  for (int i = 0; i < 3; ++i) Turn();
  ASSERT_TRUE(session_->attached()) << "an agent that has not read yet is no reason to leave";
  EXPECT_EQ(Asked(5'000), callees);
  // Another agent is asked for all of it again.
  agent_.Reset();
  Turn();
  ASSERT_FALSE(session_->attached());
  Admit();
  for (int i = 0; i < 3; ++i) Turn();
  ASSERT_TRUE(session_->attached());
  session_->Subscribe("web/front", "demo/last");
  callees.push_back("demo/last");
  EXPECT_EQ(Asked(5'001), callees);
  Turn();
  EXPECT_TRUE(Read().empty());
}

TEST_F(SessionTest, AllAnswersThatAChannelHoldsAreReadBeforeItCloses) {
  constexpr std::size_t kCalls = 2'000;
  const std::string id(16, 'i');
  session_->Start();
  Admit();
  TestHost peer;
  peer.now_ns = NowNs();
  Link* const link = Open(peer, id);
  ASSERT_NE(link, nullptr);
  peer.core.Serve("demo/echo", nullptr);
  peer.core.SetServePolicy("demo/echo", {});
  peer.core.SetAccess(*link, {{kTestCaller, "web/front", FunctionIdOf("demo/echo")}});
  RouteEntry& route = session_->Subscribe("web/front", "demo/echo");
  api::ToHost told;
  told.mutable_route()->set_caller("web/front");
  told.mutable_route()->set_callee("demo/echo");
  told.mutable_route()->mutable_policy()->set_timeout_ns(3600 * kNsPerSecond);
  told.mutable_route()->add_targets()->set_channel(id);
  told.mutable_route()->mutable_targets(0)->set_caller_index(kTestCaller);
  Say(told);
  std::vector<Ended> calls(kCalls);
  for (Ended& call : calls) {
    CallSpec spec;
    spec.done = Ended::Done;
    spec.context = &call;
    CallHandle handle;
    ASSERT_EQ(session_->core().Start(route, spec, NowNs(), &handle), StartState::kStarted);
  }
  session_->core().Publish();
  while (peer.held.size() < kCalls) ASSERT_NE(peer.Turn(), 0);
  for (const TestHost::Request& request : peer.held) peer.Answer(request, absl::StatusCode::kOk, "");
  peer.core.Publish();
  ASSERT_FALSE(peer.core.HasJobs());
  api::ToHost close;
  close.mutable_channel_close()->set_id(id);
  Say(close);
  loop_->PollOnce();
  EXPECT_EQ(session_->core().counters().calls_ok, kCalls);
  EXPECT_EQ(session_->core().counters().channels_closed, 1u);
}

TEST_F(SessionTest, RouteThatIsGivenUpIsAskedForAgainOnlyWhenItIsWanted) {
  session_->Start();
  Admit();
  RouteEntry& first = session_->Subscribe("web/front", "demo/first");
  session_->Subscribe("web/front", "demo/second");
  ASSERT_EQ(Asked(2).size(), 2u);
  api::ToHost route;
  route.mutable_route()->set_caller("web/front");
  route.mutable_route()->set_callee("demo/first");
  ASSERT_TRUE(SendMessage(agent_.get(), route.SerializeAsString()).ok());
  for (int i = 0; i < 100 && !first.known; ++i) Turn();
  ASSERT_TRUE(first.known);
  session_->Unsubscribe(first);
  EXPECT_FALSE(first.known);
  const std::vector<api::FromHost> told = Read();
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].unsubscribe().caller(), "web/front");
  EXPECT_EQ(told[0].unsubscribe().callee(), "demo/first");
  // What was on its way meanwhile changes nothing, and another agent is not asked.
  ASSERT_TRUE(SendMessage(agent_.get(), route.SerializeAsString()).ok());
  for (int i = 0; i < 3; ++i) Turn();
  EXPECT_FALSE(first.known);
  agent_.Reset();
  Turn();
  Admit();
  EXPECT_EQ(Asked(1), std::vector<std::string>{"demo/second"});
  EXPECT_EQ(&session_->Subscribe("web/front", "demo/first"), &first);
  EXPECT_EQ(Asked(1), std::vector<std::string>{"demo/first"});
}

TEST_F(SessionTest, NamesThatComeAndGoLeaveNothingBehind) {
  session_->Start();
  Admit();
  session_->Subscribe("web/front", "demo/stays");
  ASSERT_EQ(Asked(1).size(), 1u);
  for (int i = 0; i < 5'000; ++i) {
    RouteEntry& route = session_->Subscribe("web/front", absl::StrCat("demo/task", i));
    if (i % 2 != 0) Turn();
    session_->Unsubscribe(route);
  }
  EXPECT_LE(session_->core().routes_kept(), CallCore::kForgetMin);
  // An agent that did not read meanwhile hears of each in order, and of the one that is wanted again last.
  session_->Subscribe("web/front", "demo/task0");
  std::vector<std::string> told;
  for (int quiet = 0; quiet < 20; ++quiet) {
    for (const api::FromHost& message : Read()) {
      quiet = 0;
      if (message.has_subscribe()) told.push_back("+" + message.subscribe().callee());
      if (message.has_unsubscribe()) told.push_back("-" + message.unsubscribe().callee());
    }
    Turn();
  }
  ASSERT_TRUE(session_->attached()) << session_->last_error();
  std::set<std::string> open;
  for (const std::string& word : told) {
    if (word[0] == '+') {
      EXPECT_TRUE(open.insert(word.substr(1)).second) << word;
    } else {
      EXPECT_EQ(open.erase(word.substr(1)), 1u) << word;
    }
  }
  EXPECT_EQ(open, std::set<std::string>{"demo/task0"});
}

}  // namespace
}  // namespace weft
