// SPDX-License-Identifier: Apache-2.0
// Guests behind a real channel, on one thread with the peer that calls them: what the peer says while a guest
// is on the stack, inside a call of its own, or leaves unread; messages that guests send to functions of
// their own process.
#include <functional>
#include <span>

#include "dataplane/base/function_id.h"
#include "dataplane/host/mesh_bridge.h"
#include "tests/dataplane/call/call_pair.h"
#include "tests/dataplane/host/fixture.h"

namespace weft::host {
namespace {

constexpr uint32_t kPeer = 5;

class LinesTo final : public GuestLog {
 public:
  void Line(absl::string_view, uint32_t, absl::string_view) override {
    if (on_line) on_line();
  }
  std::function<void()> on_line;
};

// One call that the peer makes.
struct PeerCall {
  std::string request;
  std::byte room[256];
  Ended ended;
  CallHandle handle;
};

class BridgeTest : public ::testing::Test {
 protected:
  BridgeTest()
      : session_(MakeSession()), bridge_(*session_), host_(SharedEngine(), {}, bridge_, bridge_, lines_) {
    bridge_.Attach(&host_);
    peer_.now_ns = NowNs();
    peer_.core.Serve("test/slow", nullptr);
    peer_.core.SetServePolicy("test/slow", {});
    Serve("demo/outer", "test_caller");
    Serve("demo/caller", "test_caller");
    Connect();
    core().SetRoute(core().Route("demo/outer", "demo/caller"), {{.link = kLocalLink, .weight = 1}}, {},
                    absl::StatusCode::kOk, "");
  }

  void Connect() {
    std::tie(link_, peer_link_) = Join(core(), peer_.core);
    EXPECT_TRUE(session_->poller().AddDoorbell(link_->doorbell.get()).ok());
    EXPECT_TRUE(session_->poller().AddChannel(link_->channel.get()).ok());
    std::vector<AccessGrant> grants;
    for (const char* name : {"demo/outer", "demo/caller", "demo/tool"}) {
      grants.push_back({kPeer, "test/peer", FunctionIdOf(name)});
      peer_.core.SetRoute(peer_.core.Route("test/peer", name),
                          {{.link = peer_link_->index, .weight = 1, .caller_index = kPeer}}, {},
                          absl::StatusCode::kOk, "");
    }
    core().SetAccess(*link_, grants);
    peer_.core.SetAccess(*peer_link_, {{kPeer, "demo/caller", FunctionIdOf("test/slow")}});
    core().SetRoute(core().Route("demo/caller", "test/slow"),
                    {{.link = link_->index, .weight = 1, .caller_index = kPeer}}, {}, absl::StatusCode::kOk,
                    "");
  }
  void Disconnect() {
    session_->poller().RemoveChannel(link_->channel.get());
    session_->poller().RemoveDoorbell(link_->doorbell.get());
    core().CloseLink(*link_, absl::StatusCode::kUnavailable, "died");
    peer_.core.CloseLink(*peer_link_, absl::StatusCode::kUnavailable, "died");
  }

  static std::unique_ptr<Session> MakeSession() {
    SessionOptions options;
    options.poll_time_ns = 0;
    return *Session::Create(options);
  }
  CallCore& core() { return session_->core(); }
  Function& Serve(const std::string& name, const std::string& guest, const FunctionOptions& options = {}) {
    absl::StatusOr<std::shared_ptr<const Module>> module =
        Module::LoadFile(SharedEngine(), GuestPath(guest), std::nullopt, nullptr);
    EXPECT_TRUE(module.ok()) << module.status();
    absl::StatusOr<Function*> function = host_.Add(name, *module, options);
    EXPECT_TRUE(function.ok()) << function.status();
    bridge_.Serve(**function);
    core().SetServePolicy(name, {});
    return **function;
  }

  void Start(PeerCall& call, const std::string& function, std::string request) {
    call.request = std::move(request);
    CallSpec spec;
    spec.request = BytesOf(call.request);
    spec.response = call.room;
    spec.done = Ended::Done;
    spec.context = &call.ended;
    const StartState state =
        peer_.core.StartNow(peer_.core.Route("test/peer", function), spec, NowNs(), &call.handle);
    ASSERT_EQ(state, StartState::kStarted);
  }
  void Cancel(const PeerCall& call) {
    ASSERT_TRUE(peer_.core.Cancel(call.handle));
    peer_.core.Publish();
  }
  // More calls of demo/tool than the ring takes answers to, which the peer does not read.
  void Flood(std::span<PeerCall> unread) {
    for (PeerCall& call : unread) {
      Start(call, "demo/tool", Tool('g', 1000));
      Turn();
      Turn();
    }
    EXPECT_GT(link_->reply_jobs, 0u);
  }
  // One turn of weft-host's loop.
  void Turn() {
    bridge_.loop().PollOnce();
    if (bridge_.has_waiting()) bridge_.RetryWaiting();
    host_.RunReady();
    core().Publish();
  }
  Ended Run(const std::string& function, const std::string& request) {
    PeerCall call;
    Start(call, function, request);
    for (int i = 0; i < 1000 && call.ended.count == 0; ++i) {
      Turn();
      peer_.Turn();
    }
    return call.ended;
  }
  std::string Call(const std::string& function, const std::string& request) {
    const Ended ended = Run(function, request);
    EXPECT_EQ(ended.code, absl::StatusCode::kOk) << ended.text;
    return ended.response;
  }
  // demo/caller sends one message to demo/tool.
  absl::StatusCode Send(const std::string& message = "e") {
    return Run("demo/caller", Caller('s', 0, "demo/tool", message)).code;
  }
  // Whatever was cancelled has left nothing behind, and calls go on.
  void ExpectNothingLeft() {
    EXPECT_EQ(host_.in_call_count(), 0u);
    EXPECT_EQ(host_.out_call_count(), 0u);
    EXPECT_EQ(core().incoming_in_flight(), 0u);
    EXPECT_EQ(core().calls_in_flight(), 0u);
    for (const std::unique_ptr<Function>& function : host_.functions()) {
      EXPECT_EQ(function->active(), 0u);
      EXPECT_EQ(static_cast<LocalFunction*>(function->user)->limit.calls(), 0u);
    }
    peer_.handler = [](TestHost& host, const TestHost::Request& request) { host.Echo(request); };
    EXPECT_EQ(Call("demo/caller", Caller('c', 0, "test/slow", "ping")), "ping");
  }

  LinesTo lines_;
  TestHost peer_;
  std::unique_ptr<Session> session_;
  MeshBridge bridge_;
  Host host_;
  Link* link_ = nullptr;
  Link* peer_link_ = nullptr;
};

TEST_F(BridgeTest, ACancelThatFindsItsGuestInsideACallWaitsUntilThatHasSuspended) {
  PeerCall call;
  Start(call, "demo/caller", Caller('c', 0, "test/slow", "x"));
  bridge_.loop().PollOnce();
  Cancel(call);
  // The guest runs, calls, and polls the ring in which the cancel of its own call lies.
  EXPECT_EQ(host_.RunReady(), 1);
  EXPECT_EQ(host_.in_call_count(), 1u);
  EXPECT_TRUE(bridge_.has_waiting());
  bridge_.RetryWaiting();
  EXPECT_FALSE(bridge_.has_waiting());
  core().Publish();
  peer_.Turn();
  EXPECT_EQ(peer_.cancelled.size(), 1u);
  EXPECT_EQ(call.ended.count, 1);
  ExpectNothingLeft();
}

TEST_F(BridgeTest, ACancelThatFindsACalleeOfTheSameProcessInsideACallWaitsToo) {
  PeerCall call;
  Start(call, "demo/outer", Caller('c', 0, "demo/caller", Caller('c', 0, "test/slow", "x")));
  bridge_.loop().PollOnce();
  Cancel(call);
  // The outer guest suspends in its call of the inner one, which polls.
  EXPECT_EQ(host_.RunReady(), 2);
  EXPECT_EQ(host_.in_call_count(), 2u);
  Turn();
  peer_.Turn();
  EXPECT_EQ(peer_.cancelled.size(), 1u);
  ExpectNothingLeft();
}

TEST_F(BridgeTest, ACallThatEndsBeforeItsCancelIsTakenUpIsEndedOnce) {
  Function& tool = Serve("demo/tool", "test_tool");
  for (uint32_t i = 0; i < 100 * kTrialCalls && !tool.plain(); ++i) Call("demo/tool", "e");
  ASSERT_TRUE(tool.plain());
  peer_.handler = [](TestHost& host, const TestHost::Request& request) { host.Echo(request); };
  // A leaf that runs while the guest polls: its line is when the peer answers the guest's own call.
  int lines = 0;
  lines_.on_line = [&] {
    if (lines++ == 0) peer_.Turn();
  };
  PeerCall call, line;
  Start(call, "demo/caller", Caller('c', 0, "test/slow", "x"));
  bridge_.loop().PollOnce();
  Cancel(call);
  Start(line, "demo/tool", "p");
  EXPECT_EQ(host_.RunReady(), 1);
  EXPECT_GT(lines, 0);
  EXPECT_EQ(host_.in_call_count(), 0u);
  // Another call has its record when the note is looked at.
  PeerCall next;
  peer_.handler = nullptr;
  Start(next, "demo/caller", Caller('c', 0, "test/slow", "y"));
  bridge_.loop().PollOnce();
  bridge_.RetryWaiting();
  EXPECT_EQ(host_.in_call_count(), 1u);
  host_.RunReady();
  core().Publish();
  peer_.Turn();
  ASSERT_EQ(peer_.held.size(), 1u);
  peer_.Echo(peer_.held.front());
  peer_.core.Publish();
  Turn();
  peer_.Turn();
  EXPECT_EQ(next.ended.response, "y");
  EXPECT_EQ(call.ended.count, 1);
  ExpectNothingLeft();
}

// Two peers, one after the other, give ids from 1 on, and have the same place among the links.
TEST_F(BridgeTest, ACallThatOutlivesItsLinkIsNotTakenForOneOfTheNextPeer) {
  PeerCall before, call;
  peer_.core.table().set_next_id(1);
  Start(before, "demo/caller", Caller('c', 0, "test/slow", "x"));
  Turn();
  const uint32_t index = link_->index;
  Disconnect();
  Connect();
  ASSERT_EQ(link_->index, index);
  ASSERT_EQ(host_.in_call_count(), 1u);

  // A cancel of the new peer does not stop it.
  ASSERT_TRUE(
      peer_link_->channel->TrySend({.request_id = 1, .kind = MessageKind::kCancel}, {}, Lane::kRequest));
  peer_link_->channel->Publish();
  bridge_.loop().PollOnce();
  EXPECT_EQ(core().counters().cancels_received, 1u);
  EXPECT_EQ(host_.in_call_count(), 1u);

  // And its end does not hide the call of the same id, which can be cancelled.
  peer_.core.table().set_next_id(1);
  Start(call, "demo/caller", Caller('c', 0, "test/slow", "y"));
  bridge_.loop().PollOnce();
  EXPECT_EQ(host_.RunReady(), 2);
  EXPECT_EQ(host_.in_call_count(), 1u);
  Cancel(call);
  Turn();
  EXPECT_EQ(host_.in_call_count(), 0u);
  peer_.Turn();
  EXPECT_EQ(peer_.cancelled.size(), 1u);
  ExpectNothingLeft();
}

TEST_F(BridgeTest, ACallerThatDoesNotReadHoldsNoInstance) {
  Function& kept = Serve("demo/tool", "test_tool", {.keep = true});
  PeerCall unread[200];
  Flood(unread);
  EXPECT_EQ(host_.in_call_count(), 0u);
  EXPECT_EQ(kept.active(), 0u);

  TestHost other;
  const auto [link, other_link] = Join(core(), other.core);
  ASSERT_TRUE(session_->poller().AddDoorbell(link->doorbell.get()).ok());
  ASSERT_TRUE(session_->poller().AddChannel(link->channel.get()).ok());
  core().SetAccess(*link, {{kPeer, "test/other", FunctionIdOf("demo/tool")}});
  RouteEntry& route = other.core.Route("test/other", "demo/tool");
  other.core.SetRoute(route, {{.link = other_link->index, .weight = 1, .caller_index = kPeer}}, {},
                      absl::StatusCode::kOk, "");
  PeerCall call;
  call.request = "e";
  CallSpec spec{
      .request = BytesOf(call.request), .response = call.room, .done = Ended::Done, .context = &call.ended};
  ASSERT_EQ(other.core.StartNow(route, spec, NowNs(), &call.handle), StartState::kStarted);
  for (int i = 0; i < 1000 && call.ended.count == 0; ++i) {
    Turn();
    other.Turn();
  }
  EXPECT_EQ(call.ended.response, "e");
}

TEST_F(BridgeTest, ALoopThatWaitsForRoomSharesItsCoreAsAPollerDoes) {
  Serve("demo/tool", "test_tool");
  PeerCall unread[200];
  Flood(unread);
  session_->poller().set_poll_time_ns(kNsPerMs);
  const PollerCounters& counters = session_->poller().counters();
  // None at all where the thread loses its core for all of that time.
  for (int i = 0; i < 1000 && counters.yields == 0; ++i) bridge_.loop().Wait(NowNs() + kNsPerMs / 2);
  EXPECT_GT(counters.yields, 0u);
}

TEST_F(BridgeTest, AMessageThatWaitedForItsRouteReachesAFunctionOfTheSameProcess) {
  const Function& tool = Serve("demo/tool", "test_tool");
  EXPECT_EQ(Send(), absl::StatusCode::kOk);
  EXPECT_TRUE(bridge_.has_waiting());
  core().SetRoute(core().Route("demo/caller", "demo/tool"), {{.link = kLocalLink, .weight = 1}}, {},
                  absl::StatusCode::kOk, "");
  Turn();
  EXPECT_FALSE(bridge_.has_waiting());
  EXPECT_EQ(tool.counters().calls, 1u);
  ExpectNothingLeft();
}

TEST_F(BridgeTest, MessagesToAFunctionHereAndElsewhereAllArrive) {
  constexpr uint64_t kSends = 1000;
  const Function& tool = Serve("demo/tool", "test_tool");
  peer_.core.Serve("demo/tool", nullptr);
  peer_.core.SetServePolicy("demo/tool", {});
  peer_.core.SetAccess(*peer_link_, {{kPeer, "demo/caller", FunctionIdOf("test/slow")},
                                     {kPeer, "demo/caller", FunctionIdOf("demo/tool")}});
  uint64_t elsewhere = 0;
  peer_.handler = [&](TestHost& host, const TestHost::Request& request) {
    ++elsewhere;
    host.Echo(request);
  };
  core().SetRoute(
      core().Route("demo/caller", "demo/tool"),
      {{.link = link_->index, .weight = 1, .caller_index = kPeer}, {.link = kLocalLink, .weight = 1}}, {},
      absl::StatusCode::kOk, "");
  for (uint64_t i = 0; i < kSends; ++i) EXPECT_EQ(Send(), absl::StatusCode::kOk);
  Turn();
  peer_.Turn();
  EXPECT_GT(elsewhere, 0u);
  EXPECT_EQ(tool.counters().calls + elsewhere, kSends);
  ExpectNothingLeft();
}

TEST_F(BridgeTest, ALongMessageOfAGuestArrives) {
  peer_.core.Serve("demo/tool", nullptr);
  peer_.core.SetServePolicy("demo/tool", {});
  peer_.core.SetAccess(*peer_link_, {{kPeer, "demo/caller", FunctionIdOf("test/slow")},
                                     {kPeer, "demo/caller", FunctionIdOf("demo/tool")}});
  core().SetRoute(core().Route("demo/caller", "demo/tool"),
                  {{.link = link_->index, .weight = 1, .caller_index = kPeer}},
                  Policy{.timeout_ns = 60 * kNsPerSecond}, absl::StatusCode::kOk, "");
  std::size_t seen = 0;
  peer_.handler = [&](TestHost& host, const TestHost::Request& request) {
    seen = request.payload.size();
    host.Answer(request, absl::StatusCode::kOk, "");
  };
  const std::string message(3 << 20, 'e');
  EXPECT_EQ(Send(message), absl::StatusCode::kOk);
  while (bridge_.has_waiting()) {
    Turn();
    peer_.Turn();
  }
  peer_.Turn();
  EXPECT_EQ(seen, message.size());
  EXPECT_EQ(core().counters().one_way_broken_off, 0u);
}

TEST_F(BridgeTest, AGuestLearnsThatItsMessageToAFunctionOfTheSameProcessIsRefused) {
  Function& tool = Serve("demo/tool", "test_tool");
  auto& local = *static_cast<LocalFunction*>(tool.user);
  // A share that is all but never drawn leaves the choice to the call layer.
  core().SetRoute(core().Route("demo/caller", "demo/tool"), {{.link = kLocalLink, .weight = 1}}, {},
                  absl::StatusCode::kUnavailable, "no Service tool", 1);
  core().SetServePolicy("demo/tool", {.concurrent_calls_max = 1});
  ASSERT_TRUE(core().AdmitLocal(local, "demo/caller", 0, NowNs()).ok());
  const std::string message(60'000, 'e');  // More than the ring's cells take.
  const std::string in_parts(100'000, 'e');
  for (const std::string& each : {std::string("e"), message, in_parts})
    EXPECT_EQ(Send(each), absl::StatusCode::kResourceExhausted) << each.size();
  core().EndLocal(local);
  EXPECT_EQ(Send(), absl::StatusCode::kOk);
  EXPECT_EQ(Send(in_parts), absl::StatusCode::kOk);
  tool.Drain();
  EXPECT_EQ(Send(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(tool.counters().calls, 2u);
  // Nobody serves it.
  core().SetRoute(core().Route("demo/caller", "demo/tool"), {}, {}, absl::StatusCode::kPermissionDenied,
                  "no");
  EXPECT_EQ(Send(in_parts), absl::StatusCode::kPermissionDenied);
  ExpectNothingLeft();
}

// The guest has been told that they are on their way.
TEST_F(BridgeTest, MessagesThatAreDroppedLaterAreCounted) {
  Function& tool = Serve("demo/tool", "test_tool");
  peer_.core.SetRoute(peer_.core.Route("test/peer", "demo/caller"),
                      {{.link = peer_link_->index, .weight = 1, .caller_index = kPeer}},
                      Policy{.timeout_ns = 100 * kNsPerMs}, absl::StatusCode::kOk, "");
  while (Send() != absl::StatusCode::kOk) {  // Too late where this thread lost its core for so long.
  }
  EXPECT_TRUE(bridge_.has_waiting());
  while (bridge_.has_waiting()) Turn();
  EXPECT_EQ(core().counters().one_way_expired, 1u);
  // One that is called too deep, as the callee finds.
  ASSERT_TRUE(core().AdmitLocal(*static_cast<LocalFunction*>(tool.user), "demo/caller", 0, NowNs()).ok());
  EXPECT_EQ(host_.SendLocal(tool, {}, {.depth = kDepthMax + 1}), kResourceExhausted);
  EXPECT_EQ(tool.counters().refused, 1u);
}

}  // namespace
}  // namespace weft::host
