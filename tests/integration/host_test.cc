// SPDX-License-Identifier: Apache-2.0
// weft-host against the real agent: guests of several processes call each other, are placed, fail and end.
#include <gmock/gmock.h>
#include <signal.h>

#include <cstring>
#include <functional>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/function_id.h"
#include "tests/integration/host_fixture.h"

namespace weft::test {
namespace {

using absl::StatusCode;
using ::testing::HasSubstr;

TEST_F(HostProcessTest, GuestIsCalledByName) {
  StartHost("a", kAlphaUid, {"--serve", absl::StrCat("demo/hello=", Guest("hello"))});
  auto mesh = Attach();
  Client client(*mesh);
  EXPECT_EQ(*client.Call(*client.Resolve("demo/hello"), "world"), "Hello, world!");
}

TEST_F(HostProcessTest, GuestCallsGuestOfAnotherProcess) {
  StartPair();
  auto mesh = Attach();
  Client client(*mesh);
  Function caller = *client.Resolve("demo/caller");
  for (int i = 0; i < 100; ++i) {
    const std::string payload = absl::StrCat("e", i);
    absl::StatusOr<std::string> answer = client.Call(caller, CallerRequest('c', 0, "demo/tool", payload));
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(*answer, payload);
  }
}

// More than a host keeps of one guest's names, and what is called all the time in between.
TEST_F(HostProcessTest, GuestMayUseAnyNumberOfNamesInItsLife) {
  StartPair();
  auto mesh = Attach();
  Client client(*mesh);
  Function caller = *client.Resolve("demo/caller");
  for (int i = 0; i < 2500; ++i) {
    const std::string task = absl::StrCat("demo/task", i);
    ASSERT_EQ(client.Call(caller, CallerRequest('c', 0, task, "x")).status().code(), StatusCode::kNotFound)
        << task;
    if (i % 100 != 0) continue;
    absl::StatusOr<std::string> answer = client.Call(caller, CallerRequest('c', 0, "demo/tool", "e!"));
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(*answer, "e!");
  }
}

TEST_F(HostProcessTest, MessagesOfEverySizeArriveWhole) {
  StartPair("--keep");
  auto mesh = Attach();
  Client client(*mesh);
  Function tool = *client.Resolve("demo/tool");
  Function caller = *client.Resolve("demo/caller");
  for (const size_t bytes :
       {1u, 64u, 97u, 2000u, 2049u, 16384u, 65536u, 65537u, 300'000u, 1u << 20, 5u << 20}) {
    std::string request(bytes, 'e');
    for (size_t i = 1; i < bytes; ++i) request[i] = static_cast<char>(i * 131 >> 3);
    absl::StatusOr<std::string> answer = client.Call(tool, request);
    ASSERT_TRUE(answer.ok()) << bytes << ": " << answer.status();
    EXPECT_TRUE(*answer == request) << bytes;
    if (bytes <= 256) continue;
    // Through a guest whose room is too small at first, so that the host keeps the answer for a second step.
    answer = client.Call(caller, CallerRequest('l', 0, "demo/tool", request));
    ASSERT_TRUE(answer.ok()) << bytes << ": " << answer.status();
    EXPECT_TRUE(*answer == request) << bytes;
  }
}

// Two guests of two processes that call each other, each call within the one before.
TEST_F(HostProcessTest, MutualCallsInDepthAnswerOrAreRefusedAndHarmNobody) {
  StartHost("a", kAlphaUid, {"--serve", absl::StrCat("demo/ping=", Guest("test_caller"))});
  StartHost("b", kBetaUid,
            {"--serve", absl::StrCat("demo/pong=", Guest("test_caller")), "--serve",
             absl::StrCat("demo/tool=", Guest("test_tool"))});
  auto mesh = Attach();
  Client client(*mesh);
  Function ping = *client.Resolve("demo/ping");
  const auto nested = [](int depth) {
    std::string request = CallerRequest('c', 0, "demo/tool", "e!");
    for (int i = 1; i < depth; ++i) {
      request = CallerRequest('c', 0, i % 2 == 0 ? "demo/ping" : "demo/pong", request);
    }
    return request;
  };
  for (const int depth : {1, 3, 51, 201}) {
    absl::StatusOr<std::string> answer = client.Call(ping, nested(depth), {.timeout = absl::Seconds(20)});
    ASSERT_TRUE(answer.ok()) << depth << ": " << answer.status();
    EXPECT_EQ(*answer, "e!");
  }
  // Deeper than the hosts have instances for, or than the policy's second lasts: it ends by name.
  const absl::StatusOr<std::string> deep = client.Call(ping, nested(9001), {.timeout = absl::Seconds(20)});
  if (!deep.ok()) {
    EXPECT_TRUE(deep.status().code() == StatusCode::kResourceExhausted ||
                deep.status().code() == StatusCode::kDeadlineExceeded)
        << deep.status();
  }
  EXPECT_EQ(*client.Call(ping, nested(3)), "e!");
}

TEST_F(HostProcessTest, FanOutAndOneWayCrossProcesses) {
  StartPair("--keep");
  auto mesh = Attach();
  Client client(*mesh);
  Function caller = *client.Resolve("demo/caller");
  // Each of the four payloads begins one byte later, and the tool takes its command from the first.
  absl::StatusOr<std::string> order = client.Call(caller, CallerRequest('f', 4, "demo/tool", "eeee"));
  ASSERT_TRUE(order.ok()) << order.status();
  EXPECT_EQ(*order, "eeee");
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(client.Call(caller, CallerRequest('s', 0, "demo/tool", "c")).ok());
  }
  // The tool counts its calls: four of the fan-out, ten messages, and these.
  uint32_t calls = 0;
  uint32_t asked = 0;
  EXPECT_TRUE(Eventually([&] {
    const std::string count = *client.Call(*client.Resolve("demo/tool"), "c");
    memcpy(&calls, count.data(), sizeof calls);
    return calls == 14 + ++asked;
  }));
}

TEST_F(HostProcessTest, FunctionsOfOneProcessCallEachOther) {
  StartHost("a", kAlphaUid,
            {"--keep", absl::StrCat("demo/caller=", Guest("test_caller")), "--keep",
             absl::StrCat("demo/tool=", Guest("test_tool"))});
  auto mesh = Attach();
  Client client(*mesh);
  Function caller = *client.Resolve("demo/caller");
  // Past the trial of the leaf: queued calls first, then direct ones.
  for (int i = 0; i < 3000; ++i) {
    absl::StatusOr<std::string> answer = client.Call(caller, CallerRequest('c', 0, "demo/tool", "e!"));
    ASSERT_TRUE(answer.ok()) << answer.status();
    ASSERT_EQ(*answer, "e!");
  }
}

TEST_F(HostProcessTest, TraceGoesThroughGuests) {
  StartPair();
  auto mesh = Attach();
  Client client(*mesh);
  const std::string text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const TraceContext trace = *TraceContext::FromTraceparent(text);
  absl::StatusOr<std::string> answer =
      client.Call(*client.Resolve("demo/caller"), CallerRequest('c', 0, "demo/tool", "a"), {.trace = &trace});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(*answer, text);
}

TEST_F(HostProcessTest, FailuresCarryTheirStatusThroughTheCaller) {
  StartPair();
  auto mesh = Attach();
  Client client(*mesh);
  Function caller = *client.Resolve("demo/caller");
  auto call = [&](absl::string_view name, absl::string_view payload) {
    return client.Call(caller, CallerRequest('c', 0, name, payload)).status();
  };
  EXPECT_EQ(call("demo/tool", "f").code(), StatusCode::kNotFound);
  EXPECT_THAT(std::string(call("demo/tool", "f").message()), HasSubstr("no such thing"));
  EXPECT_EQ(call("demo/tool", "t").code(), StatusCode::kInternal);
  EXPECT_THAT(std::string(call("demo/tool", "t").message()), HasSubstr("unreachable"));
  EXPECT_EQ(call("demo/nobody", "x").code(), StatusCode::kNotFound);
  EXPECT_EQ(call("other/tool", "x").code(), StatusCode::kPermissionDenied);
  EXPECT_TRUE(call("demo/tool", "e").ok());
}

TEST_F(HostProcessTest, EndlessLoopStallsNoOtherFunctionOfItsHost) {
  StartHost("b", kBetaUid,
            {"--serve", absl::StrCat("demo/loop=", Guest("test_tool")), "--serve",
             absl::StrCat("demo/hello=", Guest("hello"))});
  auto mesh = Attach();
  Client client(*mesh);
  Function loop = *client.Resolve("demo/loop");
  Function hello = *client.Resolve("demo/hello");
  std::byte room[64];
  const std::byte command{'l'};
  absl::Status looped;
  bool over = false;
  ASSERT_TRUE(client
                  .CallAsync(loop, std::span(&command, 1), room,
                             [&](const CallResult& result) {
                               looped = result.status();
                               over = true;
                             },
                             {.timeout = absl::Seconds(30)})
                  .ok());
  int calls = 0;
  while (!over) {
    ASSERT_EQ(*client.Call(hello, "you"), "Hello, you!");
    ++calls;
    client.Poll();
  }
  EXPECT_GT(calls, 20);
  EXPECT_EQ(looped.code(), StatusCode::kInternal);
  EXPECT_THAT(std::string(looped.message()), HasSubstr("time limit"));
}

TEST_F(HostProcessTest, DeadlineStopsTheWorkDownstream) {
  StartPair("--keep");
  auto mesh = Attach();
  Client client(*mesh);
  Function caller = *client.Resolve("demo/caller");
  Function tool = *client.Resolve("demo/tool");
  // The tool loops until its limit, its one instance taken, were it not for the deadline.

  const absl::Status status =
      client.Call(caller, CallerRequest('c', 0, "demo/tool", "l"), {.timeout = absl::Milliseconds(50)})
          .status();
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(client.Call(tool, "e").ok());
}

TEST_F(HostProcessTest, TerminationFinishesCallsAndEndsWithZero) {
  StartHost("a", kAlphaUid, {"--serve", absl::StrCat("demo/sleeper=", Guest("test_sleeper"))});
  auto mesh = Attach();
  Client client(*mesh);
  Function sleeper = *client.Resolve("demo/sleeper");
  const std::byte ms{200};
  std::byte room[4];
  absl::Status slept = absl::UnknownError("not ended");
  ASSERT_TRUE(client
                  .CallAsync(sleeper, std::span(&ms, 1), room,
                             [&](const CallResult& result) { slept = result.status(); })
                  .ok());
  client.Wait(absl::Milliseconds(50));
  hosts_.back().Signal(SIGTERM);
  while (slept.code() == StatusCode::kUnknown) client.Wait(absl::Seconds(5));
  EXPECT_TRUE(slept.ok()) << slept;
  EXPECT_EQ(hosts_.back().Wait(absl::Seconds(20)), 0) << hosts_.back().Output();
  EXPECT_TRUE(Eventually([&] {
    const StatusCode code = client.Call(sleeper, "x").status().code();
    return code == StatusCode::kUnavailable || code == StatusCode::kNotFound;
  }));
}

TEST_F(HostProcessTest, BadModulesAndArgumentsEndWithAClearMessage) {
  const std::string text = mesh_->path("text.wasm");
  WriteFile(text, "not a module");
  ASSERT_EQ(chmod(text.c_str(), 0644), 0);
  const std::string program = Program("weft-host");
  auto run = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), program);
    arguments.insert(arguments.end(), {"--no-cache", "--run-dir", mesh_->run_dir()});
    return test::Run(arguments);
  };
  const Ran bad = run({"--name", "a", "--serve", "demo/x=" + text});
  EXPECT_EQ(bad.exit_code, 1);
  EXPECT_THAT(bad.error, HasSubstr("not a WebAssembly module"));
  EXPECT_EQ(run({"--name", "a", "--serve", "demo/x=/none"}).exit_code, 1);
  EXPECT_EQ(run({"--name", "a", "--serve", "nonsense"}).exit_code, 2);
  EXPECT_EQ(run({"--name", "A B"}).exit_code, 2);
  EXPECT_EQ(run({"--nam", "a"}).exit_code, 2);
  EXPECT_EQ(run({}).exit_code, 2);
  EXPECT_EQ(run({"--help"}).exit_code, 0);
  // Nobody of user 0 may be host a.
  const Ran refused = run({"--name", "a", "--serve", "demo/hello=" + Guest("hello")});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.error, HasSubstr("refuse"));
}

TEST_F(HostProcessTest, HostWithOneSmallFunctionIsSmallAndIdle) {
  Process& host = StartHost("a", kAlphaUid, {"--serve", absl::StrCat("demo/hello=", Guest("hello"))});
  auto mesh = Attach();
  Client client(*mesh);
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(client.Call(*client.Resolve("demo/hello"), "x").ok());
  auto status = [&](const std::string& field) {
    const std::string text = ReadFile(absl::StrCat("/proc/", host.pid(), "/status"));
    return std::stoull(text.substr(text.find("\n" + field + ":") + field.size() + 2));
  };
  EXPECT_LE(status("VmRSS"), 30'000u);  // kB
  // Once the ticker sleeps nothing wakes: the sum of all threads' switches stands still.
  absl::SleepFor(absl::Milliseconds(300));
  auto cpu = [&] {
    const std::string stat = ReadFile(absl::StrCat("/proc/", host.pid(), "/stat"));
    std::istringstream fields(stat.substr(stat.rfind(')') + 2));
    std::string skipped;
    for (int i = 0; i < 11; ++i) fields >> skipped;
    uint64_t user = 0, system = 0;
    fields >> user >> system;
    return user + system;
  };
  const uint64_t before = cpu();
  absl::SleepFor(absl::Seconds(1));
  EXPECT_LE(cpu() - before, 1u);  // Hundredths of a second.
}

std::string MeshYaml(const std::string& host, const std::string& module, const std::string& hash) {
  return absl::StrCat(
      "version: 1\nnodes: [{name: n1, address: \"127.0.0.1:4810\"}]\n",
      "functions: [{name: demo/tool, state: keep}]\nendpoints:\n  - {function: demo/tool, node: n1, host: ",
      host, ", module: ", module, ", sha256: ", hash, "}\n");
}

std::string HashOf(const std::string& path) {
  const Sha256 hash = Sha256Of(ReadFile(path));
  return absl::BytesToHexString({reinterpret_cast<const char*>(hash.data()), hash.size()});
}

TEST_F(HostProcessTest, AgentPlacesAModuleAndMovesIt) {
  const std::string module = Guest("test_tool");
  StartHost("a", kAlphaUid, {});
  StartHost("b", kBetaUid, {});
  mesh_->SetMesh(MeshYaml("a", module, HashOf(module)));
  mesh_->StartControl();
  auto mesh = Attach();
  Client client(*mesh);
  auto answers = [&] { return client.Call(*client.ResolveLazily("demo/tool"), "e").ok(); };
  ASSERT_TRUE(Eventually(answers, absl::Seconds(30))) << mesh_->control().Output() << mesh_->agent().Output();
  EXPECT_THAT(hosts_.front().Output(), HasSubstr("placed demo/tool"));
  mesh_->SetMesh(MeshYaml("b", module, HashOf(module)));
  EXPECT_TRUE(hosts_.back().WaitForOutput("placed demo/tool", absl::Seconds(30)))
      << mesh_->control().Output();
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(answers());
  hosts_.front().Kill();
  EXPECT_TRUE(Eventually(answers));
}

TEST_F(HostProcessTest, AFunctionThatIsTakenBackLeavesAHostThatIsNeverIdle) {
  const std::string module = Guest("test_tool");
  StartHost("a", kAlphaUid, {"--serve", "demo/loop=" + module});
  mesh_->SetMesh(MeshYaml("a", module, HashOf(module)));
  mesh_->StartControl();
  auto mesh = Attach();
  Client client(*mesh);
  ASSERT_TRUE(Eventually([&] { return client.Call(*client.ResolveLazily("demo/tool"), "e").ok(); },
                         absl::Seconds(30)))
      << mesh_->control().Output() << mesh_->agent().Output();
  // Loops that are cut off at their limit, one always under way.
  const Function loop = *client.Resolve("demo/loop");
  const std::byte command{'l'};
  std::byte room[256];
  std::function<void(const CallResult&)> again = [&](const CallResult&) {
    ASSERT_TRUE(
        client.CallAsync(loop, std::span(&command, 1), room, again, {.timeout = absl::Seconds(30)}).ok());
  };
  for (int i = 0; i < 4; ++i) {
    again({});
    client.Wait(absl::Milliseconds(100));
  }
  mesh_->SetMesh("version: 1\nallowShrink: true\nnodes: [{name: n1, address: \"127.0.0.1:4810\"}]\n");
  const auto there = [&] {
    client.Wait(absl::Milliseconds(10));
    return absl::StrContains(mesh_->Ctl({"get", "functions"}).output, "demo/tool");
  };
  EXPECT_TRUE(Eventually([&] { return !there(); }, absl::Seconds(20)))
      << hosts_.front().Output() << mesh_->control().Output();
}

TEST_F(HostProcessTest, PlacedModuleOfAnotherHashIsNotServed) {
  const std::string module = Guest("test_tool");
  const std::string other = Guest("hello");
  StartHost("a", kAlphaUid, {});
  mesh_->SetMesh(MeshYaml("a", module, HashOf(other)));
  mesh_->StartControl();
  auto mesh = Attach();
  Client client(*mesh);
  EXPECT_TRUE(Eventually(
      [&] {
        return (hosts_.front().Output() + mesh_->agent().Output() + mesh_->control().Output())
                   .find("SHA-256") != std::string::npos;
      },
      absl::Seconds(30)))
      << hosts_.front().Output() << mesh_->agent().Output() << mesh_->control().Output();
  EXPECT_FALSE(client.Call(*client.ResolveLazily("demo/tool"), "e").ok());
}

}  // namespace
}  // namespace weft::test
