// SPDX-License-Identifier: Apache-2.0
// Guests that misbehave in a real host, seen from other processes: exactly the call at fault fails, with
// words that say why, the other channels of the host's thread go on, and the limits of the mesh file are
// those that count.
#include <gmock/gmock.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/escaping.h"
#include "dataplane/base/function_id.h"
#include "tests/integration/host_fixture.h"

namespace weft::test {
namespace {

using absl::StatusCode;
using ::testing::HasSubstr;

// A request of test_tool.
std::string Tool(char command, uint32_t number = 0) {
  std::string request(5, command);
  std::memcpy(request.data() + 1, &number, sizeof number);
  return request;
}

uint32_t NumberIn(const absl::StatusOr<std::string>& answer) {
  uint32_t number = 0;
  EXPECT_TRUE(answer.ok()) << answer.status();
  if (answer.ok() && answer->size() == sizeof number) std::memcpy(&number, answer->data(), sizeof number);
  return number;
}

// A client process's side: a channel of its own to each host.
struct Caller {
  explicit Caller(std::unique_ptr<weft::Mesh> attached) : mesh(std::move(attached)), client(*mesh) {}

  absl::StatusOr<std::string> Call(const std::string& function, absl::string_view request) {
    return client.Call(*client.Resolve(function), request, {.timeout = absl::Seconds(20)});
  }

  std::unique_ptr<weft::Mesh> mesh;
  Client client;
};

// An endless loop in `function`, begun over a channel of its own; driven by Over().
class Loop {
 public:
  Loop(Caller& caller, const std::string& function) : caller_(caller) {
    function_ = *caller_.client.Resolve(function);
    EXPECT_TRUE(caller_.client
                    .CallAsync(function_, std::span(&command_, 1), room_,
                               [this](const CallResult& result) { result_ = result.status(); },
                               {.timeout = absl::Seconds(30)})
                    .ok());
    caller_.client.Flush();
  }
  bool Over() {
    caller_.client.Poll();
    return result_.has_value();
  }
  const absl::Status& result() const { return *result_; }

 private:
  Caller& caller_;
  Function function_;
  const std::byte command_{'l'};
  std::byte room_[256];
  std::optional<absl::Status> result_;
};

class HostFaultTest : public HostProcessTest {
 protected:
  // A counter of a host, as the agent tells it.
  uint64_t Counter(const std::string& host, const std::string& name) {
    const auto report =
        nlohmann::json::parse(mesh_->Ctl({"-o", "json", "get", "hosts"}).output, nullptr, false);
    if (!report.is_object()) return 0;
    for (const auto& item : report["items"]) {
      if (item.value("host", "") == host && item.contains(name)) return item[name].get<uint64_t>();
    }
    return 0;
  }
  // Calls answered by demo/hello while the loop goes on, at least one.
  int HelloWhile(Loop& loop, Caller& caller) {
    int calls = 0;
    do {
      const absl::StatusOr<std::string> answer = caller.Call("demo/hello", "you");
      EXPECT_TRUE(answer.ok()) << answer.status();
      calls += answer.ok() && !loop.Over();
    } while (!loop.Over());
    return calls;
  }
};

TEST_F(HostFaultTest, EveryFaultCostsItsOwnCallOnly) {
  StartHost("b", kBetaUid,
            {"--serve", absl::StrCat("demo/tool=", Guest("test_tool")), "--serve",
             absl::StrCat("demo/hello=", Guest("hello"))});
  Caller one(Attach()), other(Attach());
  const std::pair<std::string, std::string> faults[] = {
      {Tool('t'), "unreachable"},       // A trap.
      {Tool('s', 1), ""},               // Recursion without end; its arrays may leave memory first.
      {Tool('k', 1'000'000), "stack"},  // The same of frames alone.
      {Tool('r'), "proc_exit"},
      {Tool('q'), "4711"},
      {Tool('l'), "time limit"},
  };
  for (const auto& [request, words] : faults) {
    const absl::Status status = one.Call("demo/tool", request).status();
    EXPECT_EQ(status.code(), StatusCode::kInternal) << request[0];
    EXPECT_THAT(std::string(status.message()), HasSubstr(words)) << request[0];
    EXPECT_EQ(*other.Call("demo/tool", "e"), "e") << request[0];
    EXPECT_EQ(*other.Call("demo/hello", "you"), "Hello, you!") << request[0];
  }
  // A memory bomb is told that there is no more, and can go on.
  EXPECT_LT(NumberIn(one.Call("demo/tool", "m")), 64u);
  EXPECT_EQ(*other.Call("demo/tool", "e"), "e");
}

TEST_F(HostFaultTest, AHostWithoutAnAgentSaysWhichSocketDoesNotAnswer) {
  mesh_->agent().Kill();
  Process host = mesh_->Start("weft-host", {"--name", "a", "--no-cache"}, kAlphaUid, "early.log");
  EXPECT_TRUE(host.WaitForOutput("agent.sock: ", absl::Seconds(20))) << host.Output();
  EXPECT_THAT(host.Output(), HasSubstr("no agent: "));
  mesh_->StartAgent();
  EXPECT_TRUE(host.WaitForOutput("attached to node", absl::Seconds(20))) << host.Output();
  EXPECT_EQ(host.Output().find("no agent: "), host.Output().rfind("no agent: ")) << "said once";
}

TEST_F(HostFaultTest, EndlessLoopStallsNoOtherChannelUntilPromotedThenOnce) {
  StartHost("b", kBetaUid,
            {"--serve", absl::StrCat("demo/loop=", Guest("test_tool")), "--serve",
             absl::StrCat("demo/hello=", Guest("hello"))});
  Caller one(Attach()), other(Attach());
  ASSERT_EQ(*one.Call("demo/loop", "e"), "e");
  {
    Loop unpromoted(one, "demo/loop");
    EXPECT_GT(HelloWhile(unpromoted, other), 20);
    EXPECT_EQ(unpromoted.result().code(), StatusCode::kInternal);
    EXPECT_THAT(std::string(unpromoted.result().message()), HasSubstr("time limit"));
  }
  // A thousand short calls promote a function; demo/hello's own count as plain ones too.
  const uint64_t plain = Counter("b", "guest_plain_calls");
  for (int i = 0; i < 100 && Counter("b", "guest_plain_calls") <= plain; ++i) {
    for (int call = 0; call < 1000; ++call) ASSERT_TRUE(one.Call("demo/loop", "e").ok());
  }
  ASSERT_GT(Counter("b", "guest_plain_calls"), plain);
  {
    Loop promoted(one, "demo/loop");
    // The thread is the loop's until its limit: at most what was taken before it began gets its answer
    // meanwhile.
    EXPECT_LE(HelloWhile(promoted, other), 1);
    EXPECT_THAT(std::string(promoted.result().message()), HasSubstr("time limit"));
  }
  EXPECT_EQ(*other.Call("demo/hello", "you"), "Hello, you!");
  EXPECT_TRUE(mesh_->WaitForHost("b"));  // It was not away for as long as the agent cuts a host off.
  {
    Loop again(one, "demo/loop");
    EXPECT_GT(HelloWhile(again, other), 20);
  }
  EXPECT_EQ(Counter("b", "guest_demotions"), 1u);
  EXPECT_EQ(Counter("b", "guest_time_limits"), 3u);
}

TEST_F(HostFaultTest, LimitsOfTheMeshFileAreThoseOfAPlacedFunction) {
  const std::string module = Guest("test_tool");
  const Sha256 hash = Sha256Of(ReadFile(module));
  StartHost("a", kAlphaUid, {});
  auto mesh = [&](const std::string& limits) {
    return absl::StrCat("version: 1\nnodes: [{name: n1, address: \"127.0.0.1:4810\"}]\n",
                        "functions: [{name: demo/tool, limits: ", limits, "}]\nendpoints:\n",
                        "  - {function: demo/tool, node: n1, host: a, module: ", module, ", sha256: ",
                        absl::BytesToHexString({reinterpret_cast<const char*>(hash.data()), hash.size()}),
                        "}\n");
  };
  mesh_->SetMesh(mesh("{memory: 8MiB, stack: 32KiB, run_time: 60ms}"));
  mesh_->StartControl();
  Caller caller(Attach());
  const Function tool = *caller.client.ResolveLazily("demo/tool");
  ASSERT_TRUE(Eventually([&] { return caller.client.Call(tool, "e").ok(); }, absl::Seconds(30)))
      << mesh_->control().Output() << hosts_.front().Output();
  const uint32_t mib = NumberIn(caller.Call("demo/tool", "m"));
  EXPECT_GT(mib, 3u);
  EXPECT_LT(mib, 8u);
  EXPECT_EQ(NumberIn(caller.Call("demo/tool", Tool('k', 200))), 200u);
  const absl::Status deep = caller.Call("demo/tool", Tool('k', 3000)).status();
  EXPECT_EQ(deep.code(), StatusCode::kInternal);
  EXPECT_THAT(std::string(deep.message()), HasSubstr("stack"));
  EXPECT_THAT(std::string(caller.Call("demo/tool", "l").status().message()), HasSubstr("time limit"));
  EXPECT_EQ(*caller.Call("demo/tool", "e"), "e");
}

}  // namespace
}  // namespace weft::test
