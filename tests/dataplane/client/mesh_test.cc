// SPDX-License-Identifier: Apache-2.0
// A Mesh without an agent, on one thread with the peer that it exchanges calls with: whom a cancel means,
// and what callbacks leave to others.
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "dataplane/api/host.pb.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/unix_socket.h"
#include "dataplane/client/mesh_impl.h"
#include "tests/dataplane/call/call_pair.h"
#include "weft/client.h"
#include "weft/server.h"

namespace weft {
namespace {

using absl::StatusCode;

// A call that the peer makes.
struct PeerCall {
  Ended ended;
  CallHandle handle;
};

class MeshTest : public testing::Test {
 protected:
  MeshTest()
      : mesh_(*Mesh::Create({.run_dir = "/nonexistent", .poll_time = absl::ZeroDuration()})),
        client_(*mesh_),
        server_(*mesh_) {
    peer_.now_ns = NowNs();
    peer_.core.Serve("test/echo", nullptr);
    peer_.core.SetServePolicy("test/echo", {});
    peer_.handler = [](TestHost& host, const TestHost::Request& request) { host.Echo(request); };
    const auto serve = [this](const char* name, auto handler) {
      EXPECT_TRUE(server_.Register(name, handler).ok());
      core().SetServePolicy(name, {});
      core().SetRoute(core().Route("demo", name), {{.link = kLocalLink, .weight = 1}}, {}, StatusCode::kOk,
                      "");
    };
    serve("demo/hold", [this](ServerCall& call) { held_.push_back(call.Defer()); });
    serve("demo/run", [this](ServerCall& call) {
      ++runs_;
      if (on_run_) on_run_(call);
      call.Reply(call.request());
    });
    Connect();
  }

  MeshImpl& impl() { return mesh_->impl(); }
  CallCore& core() { return impl().core(); }
  Function Local(const char* name) { return Function(&core().Route("demo", name)); }
  Function Echo() { return Function(&core().Route("demo", "test/echo")); }

  void Connect() {
    std::tie(link_, peer_link_) = Join(core(), peer_.core);
    EXPECT_TRUE(impl().session().poller().AddDoorbell(link_->doorbell.get()).ok());
    EXPECT_TRUE(impl().session().poller().AddChannel(link_->channel.get()).ok());
    std::vector<AccessGrant> grants;
    for (const char* name : {"demo/hold", "demo/run"}) {
      grants.push_back({kTestCaller, "test/peer", FunctionIdOf(name)});
      peer_.core.SetRoute(peer_.core.Route("test/peer", name),
                          {{.link = peer_link_->index, .weight = 1, .caller_index = kTestCaller}}, {},
                          StatusCode::kOk, "");
    }
    core().SetAccess(*link_, grants);
    peer_.core.SetAccess(*peer_link_, {{kTestCaller, "demo", FunctionIdOf("test/echo")}});
    core().SetRoute(core().Route("demo", "test/echo"),
                    {{.link = link_->index, .weight = 1, .caller_index = kTestCaller}}, {}, StatusCode::kOk,
                    "");
  }
  void Disconnect() {
    impl().session().poller().RemoveChannel(link_->channel.get());
    impl().session().poller().RemoveDoorbell(link_->doorbell.get());
    core().CloseLink(*link_, StatusCode::kUnavailable, "died");
    peer_.core.CloseLink(*peer_link_, StatusCode::kUnavailable, "died");
  }
  // Another peer has the link's place; its ids begin at 1.
  void Replace() {
    const uint32_t index = link_->index;
    Disconnect();
    Connect();
    ASSERT_EQ(link_->index, index);
    peer_.core.table().set_next_id(1);
  }

  void Start(PeerCall& call, const char* function) {
    CallSpec spec;
    spec.done = Ended::Done;
    spec.context = &call.ended;
    ASSERT_EQ(peer_.core.StartNow(peer_.core.Route("test/peer", function), spec, NowNs(), &call.handle),
              StartState::kStarted);
  }
  TraceContext Trace(char fill) {
    std::array<std::byte, kTraceBytes> bytes;
    bytes.fill(static_cast<std::byte>(fill));
    return TraceContext::FromWire(bytes);
  }
  void CancelFirstId() {
    ASSERT_TRUE(
        peer_link_->channel->TrySend({.request_id = 1, .kind = MessageKind::kCancel}, {}, Lane::kRequest));
    peer_link_->channel->Publish();
  }

  TestHost peer_;
  std::unique_ptr<Mesh> mesh_;
  Client client_;
  Server server_;
  std::vector<DeferredCall> held_;
  int runs_ = 0;
  std::function<void(ServerCall&)> on_run_;
  Link* link_ = nullptr;
  Link* peer_link_ = nullptr;
};

TEST_F(MeshTest, ADeferredCallThatOutlivesItsLinkIsNotTakenForOneOfTheNextPeer) {
  PeerCall before, call;
  peer_.core.table().set_next_id(1);
  Start(before, "demo/hold");
  client_.Poll();
  ASSERT_EQ(held_.size(), 1u);
  Replace();
  CancelFirstId();
  client_.Poll();
  EXPECT_FALSE(held_[0].cancelled());

  // And its end does not hide the call of the same id.
  Start(call, "demo/hold");
  client_.Poll();
  ASSERT_EQ(held_.size(), 2u);
  held_[0].Reply({});
  ASSERT_TRUE(peer_.core.Cancel(call.handle));
  client_.Poll();
  EXPECT_TRUE(held_[1].cancelled());
}

TEST_F(MeshTest, ACancelOfTheNextPeerStopsNoRequestThatIsQueuedOrRuns) {
  PeerCall queued, running;
  peer_.core.table().set_next_id(1);
  Start(queued, "demo/run");
  impl().loop().PollOnce();
  Replace();
  CancelFirstId();
  client_.Poll();
  EXPECT_EQ(runs_, 1);
  EXPECT_EQ(core().counters().cancels_received, 1u);
  EXPECT_EQ(core().counters().dropped_cancelled, 0u);

  on_run_ = [this](const ServerCall& call) {
    Replace();
    CancelFirstId();
    client_.Poll();
    EXPECT_FALSE(call.cancelled());
  };
  Replace();
  Start(running, "demo/run");
  client_.Poll();
  EXPECT_EQ(runs_, 2);
  EXPECT_EQ(core().counters().cancels_received, 2u);
}

// A call of a function of the same process, which is answered at once and whose callback makes it anew.
struct Again {
  static void Done(void* context, const CallResult&) { static_cast<Again*>(context)->Start(); }
  void Start() {
    if (stop) return;
    EXPECT_TRUE(client.CallAsync(function, {}, {}, Done, this).ok());
  }
  Client& client;
  Function function;
  bool stop = false;
};

TEST_F(MeshTest, CallbacksThatCallAgainWithoutEndLeaveOthersTheirTurn) {
  constexpr int kWaits = 1000;
  Again again{.client = client_, .function = Local("demo/run")};
  again.Start();
  bool answered = false;
  ASSERT_TRUE(client_.CallAsync(Echo(), {}, {}, [&](const CallResult&) { answered = true; }).ok());
  client_.Flush();
  PeerCall call;
  Start(call, "demo/hold");
  for (int i = 0; i < kWaits && (!answered || held_.empty()); ++i) {
    client_.Wait(absl::ZeroDuration());
    peer_.Turn();
  }
  EXPECT_TRUE(answered);
  EXPECT_EQ(held_.size(), 1u);
  // One callback a turn is no better.
  again.stop = true;
  client_.Wait(absl::ZeroDuration());
  Start(call, "demo/hold");
  for (int i = 0; i < kWaits && held_.size() == 1; ++i) {
    ASSERT_TRUE(client_.CallAsync(Local("demo/run"), {}, {}, [](void*, const CallResult&) {}, nullptr).ok());
    client_.Wait(absl::ZeroDuration());
  }
  EXPECT_EQ(held_.size(), 2u);
}

TEST_F(MeshTest, AnAnswerThatNobodyWaitsForAnyMoreIsNotTakenForThatOfALaterCall) {
  const auto ignore = [](void*, const CallResult&) {};
  const absl::StatusOr<CallId> first = client_.CallAsync(Local("demo/hold"), {}, {}, ignore, nullptr);
  ASSERT_TRUE(first.ok());
  ASSERT_TRUE(client_.Cancel(*first));
  EXPECT_EQ(client_.Call(Local("demo/hold"), {}, {}, {.timeout = absl::Milliseconds(100)}).status().code(),
            StatusCode::kDeadlineExceeded);
  ASSERT_EQ(held_.size(), 2u);
  EXPECT_TRUE(held_[0].cancelled());
  EXPECT_TRUE(held_[1].cancelled());

  // 2^32 calls later.
  std::vector<std::string> answers;
  std::array<std::byte, 16> room;
  const auto note = [&](const CallResult& result) {
    answers.emplace_back(reinterpret_cast<const char*>(room.data()), result.response_bytes);
  };
  impl().set_next_local_id(first->generation);
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(client_.CallAsync(Local("demo/hold"), {}, room, note).ok());
  ASSERT_EQ(held_.size(), 4u);
  EXPECT_FALSE(client_.Cancel(*first));
  EXPECT_FALSE(held_[2].cancelled());
  EXPECT_TRUE(held_[0].cancelled());
  for (const char* answer : {"late", "later", "first", "second"}) {
    held_.front().Reply(std::as_bytes(std::span(answer, std::strlen(answer))));
    held_.erase(held_.begin());
    client_.Poll();
  }
  EXPECT_EQ(answers, (std::vector<std::string>{"first", "second"}));
}

TEST_F(MeshTest, WhatCallbacksAndHandlersHoldEndsWithTheMesh) {
  auto kept = std::make_shared<std::vector<DeferredCall>>();
  const std::weak_ptr<std::vector<DeferredCall>> by_handler = kept;
  ASSERT_TRUE(
      server_.Register("demo/keep", [kept](ServerCall& call) { kept->push_back(call.Defer()); }).ok());
  kept.reset();
  core().SetServePolicy("demo/keep", {});
  core().SetRoute(core().Route("demo", "demo/keep"), {{.link = kLocalLink, .weight = 1}}, {}, StatusCode::kOk,
                  "");
  std::deque<PeerCall> calls;
  for (int i = 0; i < 8; ++i) {
    const auto ignore = [](void*, const CallResult&) {};
    ASSERT_TRUE(client_.CallAsync(Local("demo/keep"), {}, {}, ignore, nullptr).ok());
    Start(calls.emplace_back(), "demo/hold");
  }
  while (held_.size() < 8) client_.Poll();
  ASSERT_EQ(by_handler.lock()->size(), 8u);
  // Handlers that pass calls on and answer once those are answered, which they never are.
  int ran = 0;
  for (DeferredCall& held : held_) {
    auto passed_on = std::make_shared<DeferredCall>(std::move(held));
    ASSERT_TRUE(client_.CallAsync(Echo(), {}, {}, [passed_on, &ran](const CallResult&) { ++ran; }).ok());
  }
  mesh_.reset();
  EXPECT_TRUE(by_handler.expired());
  peer_.Turn();
  EXPECT_EQ(ran, 0);
  for (const PeerCall& call : calls) EXPECT_EQ(call.ended.code, StatusCode::kInternal);
}

// Two handlers, one after the other at the same place of the stack, call on and answer later; their calls are
// refused at first.
TEST_F(MeshTest, TheTraceThatACallInheritsOutlivesItsHandler) {
  const auto ignore = [](void*, const CallResult&) {};
  ASSERT_TRUE(server_
                  .Register("demo/pass",
                            [&](ServerCall& call) {
                              held_.push_back(call.Defer());
                              ASSERT_TRUE(client_.CallAsync(Echo(), {}, {}, ignore, nullptr).ok());
                            })
                  .ok());
  core().SetServePolicy("demo/pass", {});
  core().SetAccess(*link_, {{kTestCaller, "test/peer", FunctionIdOf("demo/pass")}});
  RouteEntry& route = peer_.core.Route("test/peer", "demo/pass");
  peer_.core.SetRoute(route, {{.link = peer_link_->index, .weight = 1, .caller_index = kTestCaller}}, {},
                      StatusCode::kOk, "");
  const TraceContext traces[] = {Trace('a'), Trace('b')};
  PeerCall calls[2];
  for (int i = 0; i < 2; ++i) {
    CallSpec spec;
    spec.request = Payload(traces[i].wire(), {});
    spec.done = Ended::Done;
    spec.context = &calls[i].ended;
    ASSERT_EQ(peer_.core.StartNow(route, spec, NowNs(), &calls[i].handle), StartState::kStarted);
  }
  while (held_.size() < 2) client_.Poll();
  client_.Flush();
  std::vector<std::string> seen;
  peer_.handler = [&](TestHost& host, const TestHost::Request& request) {
    seen.push_back(request.payload);
    host.Answer(request, StatusCode::kOk, "");
  };
  peer_.refuse_requests = true;
  peer_.Turn();
  while (core().counters().retries < 2) client_.Poll();
  peer_.refuse_requests = false;
  peer_.Turn();
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(seen, (std::vector<std::string>{std::string(kTraceBytes, 'a'), std::string(kTraceBytes, 'b')}));
}

TEST_F(MeshTest, APolicyThatComesMeanwhileLeavesTheNameThatAHandlerReads) {
  constexpr char kName[] = "demo/a-name-that-does-not-fit-into-a-string-itself";
  bool ran = false;
  ASSERT_TRUE(server_
                  .Register(kName,
                            [&](ServerCall& call) {
                              const void* const name = call.function().data();
                              core().SetServePolicy(kName, {.concurrent_calls_max = 1});
                              EXPECT_EQ(call.function().data(), name);
                              EXPECT_EQ(call.function(), kName);
                              ran = true;
                              call.Reply(call.request());
                            })
                  .ok());
  core().SetRoute(core().Route("demo", kName), {{.link = kLocalLink, .weight = 1}}, {}, StatusCode::kOk, "");
  EXPECT_TRUE(client_.Call(Local(kName), absl::string_view()).ok());
  EXPECT_TRUE(ran);
}

TEST_F(MeshTest, ACallOfItsOwnThatIsRefusedForItsDepthIsCounted) {
  std::vector<StatusCode> codes;
  on_run_ = [&](const ServerCall&) {
    codes.push_back(client_.Call(Local("demo/run"), absl::string_view()).status().code());
  };
  EXPECT_TRUE(client_.Call(Local("demo/run"), absl::string_view()).ok());
  EXPECT_EQ(runs_, kNestingMax);
  ASSERT_EQ(codes.size(), static_cast<std::size_t>(kNestingMax));
  EXPECT_EQ(codes.front(), StatusCode::kResourceExhausted);
  EXPECT_EQ(codes.back(), StatusCode::kOk);
  EXPECT_EQ(core().counters().refused_room, 1u);
}

TEST_F(MeshTest, CallbacksThatWaitWithinCallbacksFindAnEnd) {
  constexpr int kCalls = 3 * kNestingMax;
  int depth = 0, deepest = 0, refused = 0;
  const auto callback = [&](const CallResult&) {
    deepest = std::max(deepest, ++depth);
    if (depth == kCalls) peer_.Turn();  // They found none.
    const absl::Status waited = client_.Call(Echo(), absl::string_view()).status();
    if (absl::IsResourceExhausted(waited)) {
      ++refused;
      BatchCall batch[1];
      batch[0].function = Echo();
      client_.CallBatch(batch);
      EXPECT_TRUE(absl::IsResourceExhausted(batch[0].result)) << batch[0].result;
      peer_.Turn();  // Those below get their answers.
    }
    --depth;
  };
  for (int i = 0; i < kCalls; ++i) ASSERT_TRUE(client_.CallAsync(Echo(), {}, {}, callback).ok());
  client_.Flush();
  while (peer_.Turn() != 0) {
  }
  client_.Wait(absl::ZeroDuration());
  EXPECT_EQ(deepest, kNestingMax + 1);
  EXPECT_GT(refused, 0);
}

// With an agent that the test plays, so that the Mesh has a keeper.
class KeptMeshTest : public testing::Test {
 protected:
  KeptMeshTest() {
    EXPECT_NE(mkdtemp(dir_.data()), nullptr);
    listener_ = *ListenUnix(dir_ + "/agent.sock", 0600);
    mesh_ = *Mesh::Create({.run_dir = dir_});
  }
  ~KeptMeshTest() override { std::filesystem::remove_all(dir_); }

  void Attach() {
    std::thread admits([this] {
      pollfd comes{listener_.get(), POLLIN, 0};
      ASSERT_EQ(poll(&comes, 1, -1), 1);
      agent_ = UniqueFd(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      ASSERT_TRUE(agent_.valid());
      Welcome("first");
    });
    EXPECT_TRUE(mesh_->Attach().ok());
    admits.join();
  }
  void Welcome(const std::string& host) {
    api::ToHost message;
    message.mutable_welcome()->set_host(host);
    Say(message);
  }
  void Say(const api::ToHost& message, absl::Span<const int> fds = {}) {
    ASSERT_TRUE(SendMessage(agent_.get(), message.SerializeAsString(), fds).ok());
  }
  // The memory of a channel that was asked for.
  UniqueFd TakeMemory() {
    for (;;) {
      pollfd comes{agent_.get(), POLLIN, 0};
      EXPECT_EQ(poll(&comes, 1, -1), 1);
      absl::StatusOr<ReceivedMessage> received = ReceiveMessage(agent_.get());
      if (!received.ok()) return UniqueFd();
      if (!received->fds.empty()) return std::move(received->fds[0]);
    }
  }

  std::string dir_ = "/tmp/weft-mesh-test-XXXXXX";
  UniqueFd listener_;
  UniqueFd agent_;
  std::unique_ptr<Mesh> mesh_;
};

TEST_F(KeptMeshTest, ANameThatWasAskedForStaysWhenTheAgentTellsAnother) {
  Attach();
  const std::string& host = mesh_->host();
  ASSERT_EQ(host, "first");
  Welcome("other");
  while (mesh_->host() != "other") std::this_thread::yield();
  EXPECT_EQ(host, "first");
}

// Found by ThreadSanitizer where the handler reads what the keeper writes.
TEST_F(KeptMeshTest, AHandlerSeesACancelThatItsKeeperReadsFromALinkThatIsClosed) {
  const std::string id(16, 'i');
  TestHost peer;
  PeerCall call;
  bool cancelled = false;
  Server server(*mesh_);
  Client client(*mesh_);
  ASSERT_TRUE(server
                  .Register("demo/wait",
                            [&](ServerCall& served) {
                              ASSERT_TRUE(peer.core.Cancel(call.handle));
                              api::ToHost close;
                              close.mutable_channel_close()->set_id(id);
                              Say(close);
                              while (!served.cancelled()) std::this_thread::yield();
                              cancelled = true;
                            })
                  .ok());
  Attach();
  api::ToHost open;
  open.mutable_channel_open()->set_id(id);
  open.mutable_channel_open()->set_peer("b");
  open.mutable_channel_open()->set_arena_bytes(kArenaBytesDefault);
  Say(open);
  absl::StatusOr<DoorbellPair> bells = MakeDoorbellPair();
  auto bell = std::make_unique<Doorbell>(*Doorbell::Create(std::move(bells->first)));
  std::unique_ptr<Channel> channel = *Channel::Create({});
  ASSERT_TRUE(channel->Connect(TakeMemory(), bell.get()).ok());
  const int fds[] = {channel->memory_fd(), bells->second.get()};
  const Link& link = peer.core.AddLink(std::move(channel), std::move(bell), "a");
  api::ToHost joined, access;
  joined.mutable_channel_peer()->set_id(id);
  Say(joined, fds);
  access.mutable_channel_access()->set_id(id);
  api::ChannelAccess::Caller& caller = *access.mutable_channel_access()->add_callers();
  caller.set_index(kTestCaller);
  caller.set_name("test/peer");
  caller.add_callee_ids(FunctionIdOf("demo/wait").value);
  access.set_serial(1);
  Say(access);
  RouteEntry& route = peer.core.Route("test/peer", "demo/wait");
  peer.core.SetRoute(route, {{.link = link.index, .weight = 1, .caller_index = kTestCaller}},
                     Policy{.timeout_ns = 60 * kNsPerSecond}, StatusCode::kOk, "");
  // Once the table is there.
  for (bool applied = false; !applied;) {
    client.Wait(absl::Milliseconds(1));
    const absl::StatusOr<ReceivedMessage> received = ReceiveMessage(agent_.get());
    api::FromHost message;
    applied = received.ok() && message.ParseFromString(received->bytes) && message.has_applied();
  }
  CallSpec spec;
  spec.done = Ended::Done;
  spec.context = &call.ended;
  ASSERT_EQ(peer.core.StartNow(route, spec, NowNs(), &call.handle), StartState::kStarted);
  while (!cancelled) client.Wait(absl::Seconds(1));
  EXPECT_EQ(call.ended.code, StatusCode::kCancelled);
}

}  // namespace
}  // namespace weft
