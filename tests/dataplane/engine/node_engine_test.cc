// SPDX-License-Identifier: Apache-2.0
// Calls between two nodes do what they do on one: payloads, codes, deadlines, permission.
#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "tests/dataplane/engine/two_nodes.h"
#include "tests/support/process.h"

namespace weft::engine::test {
namespace {

using testing::HasSubstr;
using weft::test::Eventually;

std::string Pattern(std::size_t bytes) {
  std::string text(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(i * 31 + (i >> 12));
  return text;
}

TEST_F(TwoNodesTest, PayloadsOfAllSizesGoThereAndBack) {
  ServingHost echo(nodes_[1].run_dir(), "b", {{"demo/echo", Echo}});
  CallingHost front(nodes_[0].run_dir(), "a", "web/front");
  ProgramBoth(CommonMesh());
  Connect();
  const Function function = front.Resolve("demo/echo");
  for (const std::size_t bytes : {0, 1, 64, 512, 1400, 1500, 10'000, 100'000, 1 << 20, 16 << 20}) {
    const std::string request = Pattern(bytes);
    const absl::StatusOr<std::string> response = front.client->Call(function, request, kPatient);
    ASSERT_TRUE(response.ok()) << bytes << " bytes: " << response.status();
    EXPECT_TRUE(*response == request) << bytes << " bytes";
  }
  EXPECT_EQ(CountersOf(0).requests_out, 10u);
  EXPECT_EQ(CountersOf(1).delivered, 10u);
  EXPECT_GT(carried_.load(), 20'000u);
}

// One of several workers of a node speaks for that node, and no call of this one leaves for it.
TEST_F(TwoNodesTest, AFurtherWorkerOfANodeCallsAsThatAndIsNotCalled) {
  ServingHost echo(nodes_[1].run_dir(), "b", {{"demo/echo", Echo}});
  CallingHost front(nodes_[0].run_dir(), "a", "web/front");
  ProgramBoth(CommonMesh());
  ConnectAsFurther();
  const Function function = front.Resolve("demo/echo");
  const absl::StatusOr<std::string> response = front.client->Call(function, "hello", kPatient);
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(CountersOf(1).refused_caller, 0u);
  WaitReachable(1, false);
}

TEST_F(TwoNodesTest, LossOnTheWireLosesNoCall) {
  ServingHost echo(nodes_[1].run_dir(), "b", {{"demo/echo", Echo}});
  CallingHost front(nodes_[0].run_dir(), "a", "web/front");
  ProgramBoth(CommonMesh());
  Connect();
  lose_.store(20);
  const Function function = front.Resolve("demo/echo");
  for (int i = 0; i < 500; ++i) {
    const std::string request = Pattern(static_cast<std::size_t>(i) * 37);
    const absl::StatusOr<std::string> response = front.client->Call(function, request, kPatient);
    ASSERT_TRUE(response.ok()) << response.status();
    ASSERT_TRUE(*response == request);
  }
  EXPECT_EQ(CountersOf(1).delivered, 500u);
}

TEST_F(TwoNodesTest, ErrorsOfTheCalleeArriveWithCodeAndText) {
  ServingHost host(nodes_[1].run_dir(), "b", {{"demo/echo", [](ServerCall& call) {
                                                 EXPECT_EQ(call.caller(), "web/front");
                                                 call.ReplyError(absl::DataLossError("worm in the apple"));
                                               }}});
  CallingHost front(nodes_[0].run_dir(), "a", "web/front");
  ProgramBoth(CommonMesh());
  Connect();
  const absl::Status status = front.client->Call(front.Resolve("demo/echo"), "x", kPatient).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("worm in the apple"));
}

TEST_F(TwoNodesTest, ADeadlineTravelsAndCancelsTheWork) {
  std::atomic<uint64_t> left_ns{0};
  std::atomic<bool> cancelled{false};
  DeferredCall kept;
  ServingHost host(nodes_[1].run_dir(), "b",
                   {{"demo/echo",
                     [&](ServerCall& call) {
                       if (call.request_text() == "look") {
                         cancelled = kept.cancelled();
                         return call.Reply("");
                       }
                       left_ns = call.deadline_ns() - NowNs();
                       kept = call.Defer();
                     }}},
                   [&] { kept = DeferredCall(); });
  CallingHost front(nodes_[0].run_dir(), "a", "web/front");
  ProgramBoth(CommonMesh());
  Connect();
  const Function function = front.Resolve("demo/echo");
  const absl::Status status =
      front.client->Call(function, "wait", {.timeout = absl::Milliseconds(300)}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_GT(left_ns.load(), 0u);
  EXPECT_LE(left_ns.load(), 300 * kNsPerMs);
  EXPECT_TRUE(
      Eventually([&] { return front.client->Call(function, "look", kPatient).ok() && cancelled.load(); }));
}

TEST_F(TwoNodesTest, EndsAreLeftOnceNoCallThereIsUnderWay) {
  std::atomic<bool> came{false};
  std::atomic<bool> go{false};
  ServingHost host(nodes_[1].run_dir(), "b", {{"demo/echo", [&](ServerCall& call) {
                                                 came = true;
                                                 while (!go) absl::SleepFor(absl::Milliseconds(1));
                                                 call.Reply("late");
                                               }}});
  CallingHost front(nodes_[0].run_dir(), "a", "web/front");
  ProgramBoth(CommonMesh());
  Connect();
  const Function function = front.Resolve("demo/echo");
  absl::StatusOr<std::string> late;
  std::thread waits([&] { late = front.client->Call(function, "wait", kPatient); });
  EXPECT_TRUE(Eventually([&] { return came.load(); }));
  const auto ask = [&](const std::string& end, const std::string& callee, bool more = false) {
    api::LeaveEnds leave;
    leave.set_number(1);
    leave.set_more(more);
    api::LeaveEnds::End& left = *leave.add_ends();
    left.set_end(end);
    left.add_callee_ids(FunctionIdOf(callee).value);
    OnWire([&] { nodes_[0].engine->OnLeaveEnds(leave); });
  };
  const auto open = [&] {
    std::size_t leaves = 0;
    OnWire([&] { leaves = nodes_[0].engine->leaves(); });
    return leaves;
  };
  ask("n2", "demo/other");
  ask("n3", "demo/echo", true);
  absl::SleepFor(absl::Milliseconds(50));
  EXPECT_EQ(open(), 1u);  // Not before its last part.
  ask("n4", "demo/echo");
  EXPECT_TRUE(Eventually([&] { return open() == 0; }));
  ask("n2", "demo/echo", true);
  ask("n3", "demo/echo");  // Another part of the same question.
  absl::SleepFor(absl::Milliseconds(50));
  EXPECT_EQ(open(), 1u);
  go = true;
  waits.join();
  EXPECT_TRUE(late.ok()) << late.status();
  EXPECT_TRUE(Eventually([&] { return open() == 0; }));
}

TEST_F(TwoNodesTest, OneWayMessagesAndTracesArrive) {
  std::atomic<int> heard{0};
  TraceContext seen{};
  ServingHost host(nodes_[1].run_dir(), "b", {{"demo/echo", [&](ServerCall& call) {
                                                 if (call.one_way()) {
                                                   ++heard;
                                                   return;
                                                 }
                                                 if (call.trace().has_value()) seen = *call.trace();
                                                 call.Reply(call.request());
                                               }}});
  CallingHost front(nodes_[0].run_dir(), "a", "web/front");
  ProgramBoth(CommonMesh());
  Connect();
  const Function function = front.Resolve("demo/echo");
  ASSERT_TRUE(front.client->Call(function, "x", kPatient).ok());
  const std::string message = Pattern(3000);
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(front.client->Send(function, std::as_bytes(std::span(message)), kPatient).ok());
  }
  EXPECT_TRUE(Eventually([&] { return heard.load() == 100; })) << heard.load();
  const TraceContext trace =
      *TraceContext::FromTraceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  CallOptions options = kPatient;
  options.trace = &trace;
  const absl::StatusOr<std::string> response = front.client->Call(function, "traced", options);
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(*response, "traced");
  EXPECT_EQ(seen.ToTraceparent(), trace.ToTraceparent());
}

TEST_F(TwoNodesTest, ACallerThatIsNotPlacedOnItsNodeIsRefusedAndCounted) {
  ServingHost echo(nodes_[1].run_dir(), "b", {{"demo/echo", Echo}});
  CallingHost front(nodes_[0].run_dir(), "a", "web/front");
  // n1 holds that web/front is there; the control of n2 knows better.
  Program(0, CommonMesh());
  api::Mesh other = CommonMesh();
  other.mutable_endpoints(0)->set_node("n2");
  Program(1, other);
  Connect();
  const absl::Status status = front.client->Call(front.Resolve("demo/echo"), "x", kPatient).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("caller web/front may not call demo/echo from node n1"));
  EXPECT_EQ(CountersOf(1).refused_caller, 1u);
  EXPECT_EQ(CountersOf(1).delivered, 0u);
}

TEST_F(TwoNodesTest, ARuleThatTheCalleesNodeHasNotIsMissedThereToo) {
  EchoAcross across(*this);
  auto& [echo, front, function] = across;
  api::Mesh mesh = CommonMesh();
  mesh.clear_allow();
  Program(1, mesh);  // Acknowledged: from here on nothing is delivered.
  const uint64_t before = CountersOf(1).delivered;
  const absl::Status status = front.client->Call(function, "x", kPatient).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("no rule allows"));
  EXPECT_EQ(CountersOf(1).delivered, before);
  Program(1, CommonMesh());
  EXPECT_TRUE(Eventually([&] { return front.client->Call(function, "x", kPatient).ok(); }));
}

TEST_F(TwoNodesTest, ClientsCallAsTheNamespacesOfTheirNode) {
  ServingHost echo(nodes_[1].run_dir(), "b", {{"demo/echo", Echo}});
  auto mesh = Mesh::Create({.run_dir = nodes_[0].run_dir()});
  ASSERT_TRUE(mesh.ok() && (*mesh)->Attach().ok());
  Client client(**mesh);
  api::Mesh state = CommonMesh();
  AddAllow(&state, "web/*", "demo/echo");
  ProgramBoth(state);
  Connect();
  const absl::StatusOr<Function> function = client.ResolveLazily("demo/echo");
  ASSERT_TRUE(function.ok());
  const absl::Status refused = client.Call(*function, "x", kPatient).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("caller web may not call demo/echo from node n1"));
  state.mutable_nodes(0)->add_call_as("web");
  Program(1, state);
  const absl::StatusOr<std::string> response = client.Call(*function, "x", kPatient);
  EXPECT_TRUE(response.ok()) << response.status();
}

// Engines that take four pairs of names, for an hour or for a moment. Six functions to make pairs with.
class FewPairsTest : public TwoNodesTest {
 protected:
  explicit FewPairsTest(uint64_t idle_ns = 3600 * kNsPerSecond) : TwoNodesTest(Options(idle_ns)) {
    std::vector<std::pair<std::string, ServingHost::Handler>> functions;
    api::Mesh mesh = CommonMesh();
    for (int i = 0; i < 6; ++i) {
      const std::string name = absl::StrCat("demo/f", i);
      functions.emplace_back(name, Echo);
      mesh.add_functions()->set_name(name);
      AddEndpoint(&mesh, name, "n2", "b");
      AddAllow(&mesh, "web/front", name);
    }
    echo_ = std::make_unique<ServingHost>(nodes_[1].run_dir(), "b", functions);
    front_ = std::make_unique<CallingHost>(nodes_[0].run_dir(), "a", "web/front");
    ProgramBoth(mesh);
    Connect();
  }
  absl::Status Call(int i) {
    return front_->client->Call(front_->Resolve(absl::StrCat("demo/f", i)), "x", kPatient).status();
  }

 private:
  static NodeEngineOptions Options(uint64_t idle_ns) {
    NodeEngineOptions options;
    options.pairs_max = 4;
    options.pair_idle_ns = idle_ns;
    return options;
  }

  std::unique_ptr<ServingHost> echo_;
  std::unique_ptr<CallingHost> front_;
};

class ShortPairsTest : public FewPairsTest {
 protected:
  ShortPairsTest() : FewPairsTest(50 * kNsPerMs) {}
};

TEST_F(FewPairsTest, APeerMakesNoMorePairsKnownThanAreLeftForOthers) {
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 6; ++i) {
      const absl::Status status = Call(i);
      if (i < 2) {
        EXPECT_TRUE(status.ok()) << status;
      } else {
        EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << i << status;
        EXPECT_THAT(std::string(status.message()), HasSubstr("node n1"));
      }
    }
  }
  EXPECT_GE(CountersOf(1).refused_pair, 8u);
}

TEST_F(ShortPairsTest, PairsThatAreNotUsedMakeWayAndComeBack) {
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 6; ++i) {
      EXPECT_TRUE(Eventually([&] { return Call(i).ok(); })) << round << " " << i << " " << Call(i);
    }
  }
}

// An error that the callee's own function made, and whose text found no room, is not the node's refusal: the
// call has run, and must not run again elsewhere.
TEST_F(TwoNodesTest, NotFoundOfAFunctionIsNotTakenForTheNodesRefusal) {
  std::atomic<int> runs{0};
  ServingHost host(nodes_[1].run_dir(), "b", {{"demo/echo", [&](ServerCall& call) {
                                                 ++runs;
                                                 // From here on an answer with bytes finds no memory.
                                                 OnWire([this] {
                                                   for (const uint32_t tenant : {kOther, kWeb, kAdmin}) {
                                                     nodes_[1].engine->transport().SetTenantLimit({tenant},
                                                                                                  1);
                                                   }
                                                 });
                                                 call.ReplyError(absl::NotFoundError("no such worm"));
                                               }}});
  CallingHost front(nodes_[0].run_dir(), "a", "web/front");
  api::Mesh mesh = CommonMesh();
  mesh.mutable_functions(1)->mutable_policy()->set_retries(2);
  ProgramBoth(mesh);
  Connect();
  const absl::Status status = front.client->Call(front.Resolve("demo/echo"), "x", kPatient).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
  EXPECT_EQ(runs.load(), 1);
}

TEST_F(TwoNodesTest, AnAnswerThatFindsNoRoomHereIsNotTheOtherNodesSilence) {
  ServingHost host(nodes_[1].run_dir(), "b",
                   {{"demo/echo", [](ServerCall& call) { call.Reply(std::string(100'000, 'x')); }}});
  CallingHost front(nodes_[0].run_dir(), "a", "web/front");
  ProgramBoth(CommonMesh());
  Connect();
  OnWire([this] { nodes_[0].engine->transport().SetTenantLimit({kWeb}, 64'000); });
  const absl::Status status = front.client->Call(front.Resolve("demo/echo"), "x", kPatient).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("this node has no room"));
}

}  // namespace
}  // namespace weft::engine::test
