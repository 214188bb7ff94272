// SPDX-License-Identifier: Apache-2.0
// libweft against the real agent: native hosts as processes of their own, called by this one.
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tests/integration/client_fixture.h"

namespace weft::test {
namespace {

using absl::StatusCode;

class ClientCallTest : public ClientTest {};

TEST_F(ClientCallTest, CallByNameReachesTheOtherProcess) {
  StartPeer("b", {"test/echo", "test/who"});
  auto mesh = Attach();
  Client client(*mesh);
  EXPECT_EQ(*client.Call(*client.Resolve("test/who"), "x"), "b");
  Function echo = *client.Resolve("test/echo");
  for (const std::size_t bytes : {0u, 1u, 64u, 96u, 97u, 4096u, 65536u, 65537u, 1u << 20}) {
    const std::string request(bytes, 'r');
    absl::StatusOr<std::string> answer = client.Call(echo, request);
    ASSERT_TRUE(answer.ok()) << bytes << ": " << answer.status();
    EXPECT_TRUE(*answer == request) << bytes;
  }
  EXPECT_EQ(mesh->node(), "n1");
  EXPECT_EQ(mesh->call_as(), "test");
}

TEST_F(ClientCallTest, SixteenMebibytesPassAndOneByteMoreIsRefusedWithTheSizes) {
  StartPeer("b", {"test/echo", "test/grow"});
  auto mesh = Attach();
  Client client(*mesh);
  Function echo = *client.Resolve("test/echo");
  std::string request(16 << 20, 'r');
  absl::StatusOr<std::string> answer = client.Call(echo, request, {.timeout = absl::Seconds(20)});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_TRUE(*answer == request);
  request.push_back('x');
  answer = client.Call(echo, request, {.timeout = absl::Seconds(20)});
  EXPECT_EQ(answer.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(answer.status().message().find("16777217"), std::string::npos) << answer.status();
  EXPECT_NE(answer.status().message().find("16777216"), std::string::npos) << answer.status();
  answer =
      client.Call(*client.Resolve("test/grow"), absl::StrCat((16 << 20) + 1), {.timeout = absl::Seconds(20)});
  EXPECT_EQ(answer.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(answer.status().message().find("16777217"), std::string::npos) << answer.status();
  EXPECT_TRUE(client.Call(echo, "after").ok());
}

TEST_F(ClientCallTest, ErrorsNameWhatIsWrong) {
  StartPeer("b", {"test/fail"});
  auto mesh = Attach();
  Client client(*mesh);
  EXPECT_EQ(client.Resolve("no-slash").status().code(), StatusCode::kInvalidArgument);
  const absl::Status unknown = client.Resolve("test/unknown").status();
  EXPECT_FALSE(unknown.ok());
  EXPECT_NE(unknown.message().find("test/unknown"), std::string::npos) << unknown;
  const absl::Status denied = client.Resolve("other/secret").status();
  EXPECT_FALSE(denied.ok());
  EXPECT_NE(denied.message().find("other/secret"), std::string::npos) << denied;
  EXPECT_EQ(client.Call(*client.Resolve("test/fail"), "x").status(), absl::ResourceExhaustedError("full"));
}

TEST_F(ClientCallTest, CrossNamespaceCallWithoutRuleIsDeniedByName) {
  StartPeer("o", {"other/echo"}, kOtherUid);
  auto mesh = Attach();
  Client client(*mesh);
  const absl::Status denied = client.Resolve("other/echo").status();
  EXPECT_EQ(denied.code(), StatusCode::kPermissionDenied);
  for (const char* part : {"test", "other/echo", "no rule"}) {
    EXPECT_NE(denied.message().find(part), std::string::npos) << denied;
  }
}

TEST_F(ClientCallTest, RefusedAttachTellsTheReason) {
  auto mesh = weft::Mesh::Create({.run_dir = mesh_->run_dir(), .host = "not-mine"});
  const absl::Status refused = (*mesh)->Attach(absl::Seconds(10));
  EXPECT_FALSE(refused.ok());
  EXPECT_NE(refused.message().find("not-mine"), std::string::npos) << refused;
}

TEST_F(ClientCallTest, AttachWithoutAgentEndsWithItsTimeout) {
  auto mesh = weft::Mesh::Create({.run_dir = mesh_->path("nowhere")});
  const absl::Status status = (*mesh)->Attach(absl::Milliseconds(100));
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_NE(status.message().find("nowhere"), std::string::npos) << status;
}

TEST_F(ClientCallTest, DeadlineTravelsAndFires) {
  StartPeer("b", {"test/deadline", "test/hold", "test/echo"});
  auto mesh = Attach();
  Client client(*mesh);
  absl::StatusOr<std::string> left =
      client.Call(*client.Resolve("test/deadline"), "", {.timeout = absl::Seconds(7)});
  ASSERT_TRUE(left.ok()) << left.status();
  int64_t left_ns = 0;
  ASSERT_TRUE(absl::SimpleAtoi(*left, &left_ns));
  EXPECT_GT(left_ns, absl::ToInt64Nanoseconds(absl::Seconds(1)));
  EXPECT_LE(left_ns, absl::ToInt64Nanoseconds(absl::Seconds(7)));
  const absl::Status held =
      client.Call(*client.Resolve("test/hold"), "", {.timeout = absl::Milliseconds(50)}).status();
  EXPECT_EQ(held.code(), StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(client.Call(*client.Resolve("test/echo"), "x").ok());
  EXPECT_EQ(mesh->Counter("deadlines_fired"), 1u);
}

// The deadline of the outer call ends the inner one two hosts away, whatever timeout that asked for.
TEST_F(ClientCallTest, DeadlineGoesDownstream) {
  StartPeer("b", {"test/relay"});
  StartPeer("c", {"test/hold"});
  auto mesh = Attach();
  Client client(*mesh);
  Function relay = *client.Resolve("test/relay");
  const uint64_t start_ns = NowNs();
  const absl::Status ended = client.Call(relay, "", {.timeout = absl::Milliseconds(200)}).status();
  EXPECT_EQ(ended.code(), StatusCode::kDeadlineExceeded);
  EXPECT_GE(NowNs() - start_ns, 200 * kNsPerMs);
  // Host b is free again: its inner call ended with the outer one, not after the policy's second.
  absl::StatusOr<CallId> again = client.CallAsync(relay, {}, {}, [](void*, const CallResult&) {}, nullptr);
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(client.Cancel(*again));
  EXPECT_EQ(client.Poll(), 1);
}

TEST_F(ClientCallTest, TraceContextIsCarried) {
  StartPeer("b", {"test/trace"});
  auto mesh = Attach();
  Client client(*mesh);
  Function trace = *client.Resolve("test/trace");
  EXPECT_EQ(*client.Call(trace, "x"), "none");
  const std::string text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  const TraceContext context = *TraceContext::FromTraceparent(text);
  EXPECT_EQ(*client.Call(trace, "x", {.trace = &context}), text);
}

TEST_F(ClientCallTest, CallbacksRunOnceEach) {
  StartPeer("b", {"test/echo"});
  auto mesh = Attach();
  Client client(*mesh);
  Function echo = *client.Resolve("test/echo");
  constexpr int kCalls = 5000;
  std::vector<int> ended(kCalls);
  std::vector<std::array<std::byte, 16>> responses(kCalls);
  std::vector<std::string> requests(kCalls);
  int done = 0;
  for (std::size_t i = 0; i < kCalls; ++i) {
    requests[i] = absl::StrCat("call ", i);
    for (;;) {
      absl::StatusOr<CallId> call = client.CallAsync(
          echo, std::as_bytes(std::span(requests[i])), responses[i], [&, i](const CallResult& result) {
            EXPECT_TRUE(result.ok()) << result.text;
            EXPECT_EQ(result.response_bytes, requests[i].size());
            EXPECT_EQ(std::memcmp(responses[i].data(), requests[i].data(), requests[i].size()), 0);
            ++ended[i];
            ++done;
          });
      if (call.ok()) break;
      ASSERT_EQ(call.status().code(), StatusCode::kResourceExhausted) << call.status();
      client.Wait(absl::Seconds(1));
    }
  }
  while (done < kCalls) ASSERT_NE(client.Wait(absl::Seconds(10)), 0);
  for (const int count : ended) ASSERT_EQ(count, 1);
}

TEST_F(ClientCallTest, BatchesOfCallsAndMessages) {
  StartPeer("b", {"test/echo", "test/log"}, kPeerUid, {"--log", SharedFile("log.txt")});
  auto mesh = Attach();
  Client client(*mesh);
  Function echo = *client.Resolve("test/echo");
  std::vector<std::string> requests(300);
  std::vector<std::array<std::byte, 16>> responses(300);
  std::vector<BatchCall> batch(300);
  for (std::size_t i = 0; i < batch.size(); ++i) {
    requests[i] = absl::StrCat(i);
    batch[i].function = echo;
    batch[i].request = std::as_bytes(std::span(requests[i]));
    batch[i].response = responses[i];
  }
  client.CallBatch(batch);
  for (std::size_t i = 0; i < batch.size(); ++i) {
    ASSERT_TRUE(batch[i].result.ok()) << batch[i].result;
    EXPECT_EQ(batch[i].response_bytes, requests[i].size());
  }
  std::vector<std::span<const std::byte>> messages;
  for (const std::string& request : requests) messages.push_back(std::as_bytes(std::span(request)));
  std::size_t sent = 0;
  Function log = *client.Resolve("test/log");
  ASSERT_TRUE(client.SendBatch(log, messages, {}, &sent).ok());
  EXPECT_EQ(sent, 300u);
  // A call behind the messages tells that they have run.
  ASSERT_TRUE(client.Call(log, "end").ok());
  std::string expected;
  for (const std::string& request : requests) absl::StrAppend(&expected, request, "\n");
  EXPECT_EQ(ReadFile(mesh_->path("log.txt")), expected + "end\n");
}

// Two functions that call each other to a depth: within the bound they answer, beyond it they are refused, at
// once.
TEST_F(ClientCallTest, MutualRecursionEndsAndDoesNotDeadlock) {
  StartPeer("b", {"test/ping"});
  StartPeer("c", {"test/pong"});
  auto mesh = Attach();
  Client client(*mesh);
  Function ping = *client.Resolve("test/ping");
  const CallOptions patient{.timeout = absl::Seconds(20)};
  for (const int depth : {0, 1, 2, 50, 120}) {
    absl::StatusOr<std::string> answer = client.Call(ping, absl::StrCat(depth), patient);
    ASSERT_TRUE(answer.ok()) << depth << ": " << answer.status();
    EXPECT_EQ(*answer, "bottom");
  }
  const absl::Status refused = client.Call(ping, "1000", patient).status();
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted) << refused;
  EXPECT_TRUE(client.Call(ping, "10", patient).ok());
}

TEST_F(ClientCallTest, FunctionOfTheSameProcessIsCalledDirectly) {
  auto mesh = *weft::Mesh::Create({.run_dir = mesh_->run_dir(), .host = "self"});
  Server server(*mesh);
  int ran = 0;
  ASSERT_TRUE(server
                  .Register("test/self",
                            [&](ServerCall& call) {
                              ++ran;
                              call.Reply(call.request());
                            })
                  .ok());
  ASSERT_TRUE(mesh->Attach().ok());
  Client client(*mesh);
  absl::StatusOr<Function> self = client.Resolve("test/self", "test/self");
  ASSERT_TRUE(self.ok()) << self.status();
  EXPECT_EQ(*client.Call(*self, "me"), "me");
  EXPECT_TRUE(client.Send(*self, std::as_bytes(std::span("you", 3))).ok());
  EXPECT_EQ(ran, 2);
  EXPECT_EQ(mesh->Counter("requests_sent"), 0u);
}

// While the process is busy with something else, the keeper keeps the agent content: a new host's channel to
// this one is opened, and used as soon as this process comes back.
TEST_F(ClientCallTest, KeeperAnswersTheAgentWhileNobodyIsInside) {
  auto mesh = *weft::Mesh::Create({.run_dir = mesh_->run_dir(), .host = "self"});
  Server server(*mesh);
  ASSERT_TRUE(server.Register("test/self", [&](ServerCall& call) { call.Reply("here"); }).ok());
  ASSERT_TRUE(mesh->Attach().ok());
  // This thread stays outside. The other one resolves, which needs this session's answers.
  absl::StatusOr<Function> resolved;
  std::string answer;
  std::thread other([&] {
    auto caller = *weft::Mesh::Create({.run_dir = mesh_->run_dir()});
    ASSERT_TRUE(caller->Attach().ok());
    Client client(*caller);
    resolved = client.Resolve("test/self");
    ASSERT_TRUE(resolved.ok()) << resolved.status();
    absl::StatusOr<std::string> reply = client.Call(*resolved, "x", {.timeout = absl::Seconds(10)});
    answer = reply.ok() ? *reply : reply.status().ToString();
    server.Stop();
  });
  absl::SleepFor(absl::Milliseconds(300));
  EXPECT_TRUE(server.Run().ok());
  other.join();
  EXPECT_EQ(answer, "here");
}

// More than the agent lets a process have at a time.
TEST_F(ClientCallTest, FunctionsThatComeAndGoAreLetGoOf) {
  StartPeer("b", {"test/who"});
  auto mesh = Attach();
  Client client(*mesh);
  const Function who = *client.Resolve("test/who");
  for (int i = 0; i < 17'000; ++i) {
    const std::string name = absl::StrCat("test/task", i);
    ASSERT_EQ(client.Resolve(name).status().code(), StatusCode::kNotFound) << i;
    ASSERT_TRUE(client.Forget(name)) << i;
  }
  EXPECT_TRUE(mesh->attached());
  EXPECT_EQ(*client.Call(who, "x"), "b");
}

TEST_F(ClientCallTest, AFunctionIsForgottenOnceNoCallByItIsUnderWay) {
  StartPeer("b", {"test/slow", "test/who"});
  auto mesh = Attach();
  Client client(*mesh);
  EXPECT_TRUE(client.Forget("test/slow"));  // Nothing to let go of
  const std::string request = "100";
  std::array<std::byte, 8> response;
  bool done = false;
  bool forgot_within = true;
  const auto slow = [&] {
    return client.CallAsync(*client.Resolve("test/slow"), std::as_bytes(std::span(request)), response,
                            [&](const CallResult& result) {
                              EXPECT_TRUE(result.ok()) << result.status();
                              forgot_within = client.Forget("test/slow");
                              done = true;
                            });
  };
  for (int round = 0; round < 2; ++round) {
    done = false;
    ASSERT_TRUE(slow().ok());
    EXPECT_FALSE(client.Forget("test/slow"));
    while (!done) client.Wait(absl::Seconds(1));
    EXPECT_FALSE(forgot_within);
    EXPECT_EQ(*client.Call(*client.Resolve("test/who"), "x"), "b");
    EXPECT_TRUE(client.Forget("test/slow"));  // And is asked for anew
  }
}

// A process that serves test/self, which is called from within it and answers later.
struct DeferringSelf {
  explicit DeferringSelf(test::Mesh& node)
      : mesh(*weft::Mesh::Create({.run_dir = node.run_dir(), .host = "self"})), server(*mesh), client(*mesh) {
    EXPECT_TRUE(
        server.Register("test/self", [this](ServerCall& call) { later.push_back(call.Defer()); }).ok());
    EXPECT_TRUE(mesh->Attach().ok());
  }
  std::unique_ptr<weft::Mesh> mesh;
  Server server;
  std::vector<DeferredCall> later;
  Client client;
};

TEST_F(ClientCallTest, AFunctionThatRunsInThisProcessIsNotForgotten) {
  DeferringSelf process(*mesh_);
  Client& client = process.client;
  std::vector<DeferredCall>& later = process.later;
  ASSERT_TRUE(client.Send(*client.Resolve("test/self"), std::as_bytes(std::span("x", 1))).ok());
  ASSERT_EQ(later.size(), 1u);
  EXPECT_FALSE(client.Forget("test/self"));
  later[0].Reply({});
  EXPECT_TRUE(client.Forget("test/self"));
}

// As one of another process would: at its deadline, or when it is cancelled, whatever its handler does.
TEST_F(ClientCallTest, ACallOfAFunctionThatRunsInThisProcessEndsAtItsDeadlineOrWhenCancelled) {
  DeferringSelf process(*mesh_);
  Client& client = process.client;
  std::vector<DeferredCall>& later = process.later;
  const Function self = *client.Resolve("test/self");
  std::array<std::byte, 8> response{};
  std::vector<StatusCode> ended;
  const auto start = [&](absl::Duration timeout) {
    return *client.CallAsync(self, {}, response,
                             [&](const CallResult& result) { ended.push_back(result.code); },
                             {.timeout = timeout});
  };
  const auto wait = [&](std::size_t count) {
    for (int i = 0; i < 100 && ended.size() < count; ++i) client.Wait(absl::Milliseconds(90));
    return ended.size() == count;
  };

  start(absl::Milliseconds(50));
  ASSERT_TRUE(wait(1));
  EXPECT_EQ(ended[0], StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(later[0].cancelled());
  EXPECT_EQ(process.mesh->Counter("deadlines_fired"), 1u);

  const CallId call = start(absl::Hours(1));
  start(absl::Hours(1));
  EXPECT_TRUE(client.Cancel(call));
  ASSERT_TRUE(wait(2));
  EXPECT_EQ(ended[1], StatusCode::kCancelled);
  EXPECT_FALSE(client.Cancel(call));
  EXPECT_TRUE(later[1].cancelled());
  EXPECT_FALSE(later[2].cancelled());

  std::array<BatchCall, 2> batch;
  for (BatchCall& member : batch) member.function = self;
  client.CallBatch(batch, {.timeout = absl::Milliseconds(50)});
  for (const BatchCall& member : batch)
    EXPECT_EQ(member.result.code(), StatusCode::kDeadlineExceeded) << member.result;

  // What comes too late goes nowhere; what comes in time does.
  for (DeferredCall& deferred : later) deferred.Reply(std::as_bytes(std::span("x", 1)));
  ASSERT_TRUE(wait(3));
  client.Poll();
  ASSERT_EQ(ended.size(), 3u);
  EXPECT_EQ(ended[2], StatusCode::kOk);
  EXPECT_TRUE(client.Forget("test/self"));
}

TEST_F(ClientCallTest, ExamplesRun) {
  Process server = mesh_->Start("native-server", {"--name", "b"}, kPeerUid, "native-server.log");
  ASSERT_TRUE(server.WaitForOutput("serves demo/echo", absl::Seconds(20))) << server.Output();
  const std::string dir = mesh_->run_dir();
  const Ran call = test::Run({Program("native-call"), "--run-dir", dir, "hello"}, kDemoUid);
  EXPECT_EQ(call.output, "hello\n") << call.error;
  const Ran async = test::Run({Program("native-call-async"), "--run-dir", dir}, kDemoUid);
  EXPECT_EQ(async.output, "1000 calls, 0 failed\n") << async.error;
  const Ran batch = test::Run({Program("native-call-batch"), "--run-dir", dir}, kDemoUid);
  EXPECT_EQ(batch.output, "32 calls, 0 failed; 32 messages sent\n") << batch.error;
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(absl::Seconds(10)), 0);
}

}  // namespace
}  // namespace weft::test
