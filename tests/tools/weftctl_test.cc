// SPDX-License-Identifier: Apache-2.0
// The program against daemons that say what is written here: outputs to the letter, exit codes, errors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/status/status.h"
#include "dataplane/api/host.pb.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"
#include "tests/tools/fake_daemon.h"
#include "tools/weftctl/output.h"

namespace weft::ctl {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

const std::string kProgram = WEFT_BIN_DIR "/weftctl";

std::string ReplyOf(uint64_t generation, const std::vector<api::Item>& items, bool more = false) {
  api::AdminReply reply;
  reply.mutable_query_reply()->set_generation(generation);
  for (const api::Item& item : items) *reply.mutable_query_reply()->add_items() = item;
  reply.mutable_query_reply()->set_more(more);
  return reply.SerializeAsString();
}

std::string FailureOf(absl::StatusCode code, const std::string& reason) {
  api::AdminReply reply;
  reply.mutable_failed()->set_code(static_cast<uint32_t>(code));
  reply.mutable_failed()->set_reason(reason);
  return reply.SerializeAsString();
}

api::Item HostRow(const std::string& host) {
  return Row()
      .Text("host", host)
      .Text("state", "attached")
      .Text("counters", "current")
      .Number("sent", 5)
      .Take();
}

class WeftctlTest : public testing::Test {
 protected:
  test::Ran Ctl(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {kProgram, "--run-dir", directory_.path()});
    return test::Run(arguments);
  }
  // weftd with one host, and weft-control in step with it.
  std::vector<std::string> Agent(const api::AdminRequest& request) {
    if (request.has_explain()) {
      return {ReplyOf(4, {Row()
                              .Text("caller", request.explain().caller())
                              .Text("callee", request.explain().callee())
                              .Text("verdict", verdict_)
                              .Take()})};
    }
    if (request.has_drain_host()) {
      return {ReplyOf(4, {Row().Text("host", request.drain_host().host()).Text("state", verdict_).Take()})};
    }
    switch (request.query().kind()) {
      case api::Query::STATUS:
        return {ReplyOf(4, {AgentRow()})};
      case api::Query::HOSTS:
        return {ReplyOf(4, {HostRow("a")}, true), ReplyOf(4, {HostRow("b-2")})};
      case api::Query::FUNCTIONS: {
        Row row;
        row.Text("function", "v/f").Number("ready", ready_);
        if (!function_.empty()) row.Text("state", function_);
        return {ReplyOf(4, {row.Take()})};
      }
      case api::Query::NODES:
        return {ReplyOf(4, nodes_)};
      default:
        return {ReplyOf(4, {})};
    }
  }
  api::Item AgentRow() {
    Row row;
    row.Text("node", "n1").Text("version", "9").Number("generation", 4);
    if (!port_.empty()) row.Text("packet_port", port_).Text("packet_port_why", port_why_);
    if (!second_worker_.empty())
      row.Number("workers", 2).Text("worker_0", port_ + "; hosts 1").Text("worker_1", second_worker_);
    if (!until_.empty()) row.Text("identity", "spiffe://t/node/n1").Text("certificate_until", until_);
    if (!certificate_problem_.empty()) row.Text("certificate_problem", certificate_problem_);
    return row.Take();
  }
  std::vector<std::string> Control(const api::AdminRequest&) {
    std::vector<api::Item> rows = {
        Row()
            .Text("component", "weft-control")
            .Text("version", "9")
            .Text("source", "/m.yaml")
            .Text("agent", link_)
            .Number("generation", sent_)
            .Text("problem", "why")
            .Take(),
        Row().Text("file", "/m.yaml").Text("state", file_).Text("error", file_error_).Take()};
    if (!watch_.empty()) {
      rows.push_back(Row().Text("watch", "etcd").Text("state", watch_).Text("error", "no leader").Take());
    }
    if (steer_keys_ >= 0) {
      Row row;
      row.Text("steer", "eth0")
          .Text("mode", steer_mode_)
          .Number("port", steer_port_)
          .Number("keys", steer_keys_);
      if (!steer_problem_.empty()) row.Text("mode_problem", steer_problem_);
      rows.push_back(row.Take());
    }
    return {ReplyOf(4, rows)};
  }
  void StartBoth() {
    agent_ =
        std::make_unique<FakeDaemon>(directory_ / "admin.sock", [this](const auto& r) { return Agent(r); });
    control_ = std::make_unique<FakeDaemon>(directory_ / "control.sock",
                                            [this](const auto& r) { return Control(r); });
  }

  test::TemporaryDirectory directory_;
  std::string verdict_ = "reachable";
  std::string link_ = "connected";
  std::string file_ = "current";
  std::string file_error_;
  std::string function_;                     // State of the one function; empty: not said.
  std::string watch_;                        // Of a source; empty: weft-control watches files alone.
  std::string port_, port_why_;              // What carries packets to other nodes.
  std::string second_worker_;                // Empty: there is one.
  std::string until_, certificate_problem_;  // Of weftd's certificate.
  std::vector<api::Item> nodes_;
  int64_t steer_keys_ = -1;  // That the XDP program knows; -1: there is none.
  std::string steer_mode_ = "native";
  std::string steer_problem_;
  int64_t steer_port_ = 4810;
  int64_t ready_ = 1;
  int64_t sent_ = 4;
  std::unique_ptr<FakeDaemon> agent_;
  std::unique_ptr<FakeDaemon> control_;
};

TEST_F(WeftctlTest, WrongUsageIsTwo) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{},
                                             {"frobnicate"},
                                             {"get"},
                                             {"get", "pods"},
                                             {"status", "now"},
                                             {"status", "-o", "yaml"},
                                             {"explain", "a/b"},
                                             {"call"},
                                             {"call", "a/b", "payload", "--file", "x"},
                                             {"call", "a/b", "--timeout", "5"},
                                             {"drain"},
                                             {"drain", "h", "--timeout", "soon"},
                                             {"validate"},
                                             {"completion", "tcsh"}}) {
    const test::Ran ran = Ctl(arguments);
    EXPECT_EQ(ran.exit_code, 2) << testing::PrintToString(arguments) << ran.output << ran.error;
    EXPECT_EQ(ran.output, "") << testing::PrintToString(arguments);
    EXPECT_THAT(ran.error, HasSubstr("weftctl: ")) << testing::PrintToString(arguments);
  }
  EXPECT_THAT(Ctl({"frobnicate"}).error, HasSubstr("no command \"frobnicate\""));
}

TEST_F(WeftctlTest, HelpIsZeroAndNamesEveryCommand) {
  const test::Ran ran = Ctl({"--help"});
  EXPECT_EQ(ran.exit_code, 0);
  for (const char* command : {"status", "check", "get", "call", "validate", "explain", "drain", "apply",
                              "delete", "edit", "version", "completion"}) {
    EXPECT_THAT(ran.output, HasSubstr(std::string("\n  ") + command));
  }
  EXPECT_EQ(ran.output.find("names"), std::string::npos);
  EXPECT_EQ(Ctl({"call", "--help"}).exit_code, 0);
}

TEST_F(WeftctlTest, VersionIsPrinted) {
  EXPECT_THAT(Ctl({"version"}).output, StartsWith("weftctl "));
  EXPECT_THAT(Ctl({"version", "-o", "json"}).output, HasSubstr("\"kind\": \"version\""));
}

TEST_F(WeftctlTest, NoAgentIsNamedWithWhatToDo) {
  const test::Ran ran = Ctl({"get", "hosts"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_EQ(ran.error,
            "weftctl: get hosts: UNAVAILABLE: connect to " + directory_.path() +
                "/admin.sock: No such file or directory; is weftd running, and is --run-dir right?\n");
  EXPECT_EQ(Ctl({"status"}).exit_code, 1);
  EXPECT_EQ(Ctl({"check"}).exit_code, 1);
  EXPECT_EQ(Ctl({"drain", "a"}).exit_code, 1);
  EXPECT_EQ(Ctl({"explain", "a/b", "c/d"}).exit_code, 1);
}

TEST_F(WeftctlTest, TablesAreAsWrittenHere) {
  StartBoth();
  EXPECT_EQ(Ctl({"get", "hosts"}).output,
            "HOST  STATE     COUNTERS\n"
            "a     attached  current\n"
            "b-2   attached  current\n");
  EXPECT_EQ(Ctl({"get", "hosts", "-o", "wide"}).output,
            "HOST  STATE     COUNTERS  SENT\n"
            "a     attached  current   5\n"
            "b-2   attached  current   5\n");
  EXPECT_EQ(Ctl({"explain", "w/a", "v/f"}).output,
            "CALLER  CALLEE  VERDICT\n"
            "w/a     v/f     reachable\n");
  EXPECT_EQ(Ctl({"status"}).output,
            "weftd\n"
            "  node        n1\n"
            "  version     9\n"
            "  generation  4\n"
            "\n"
            "weft-control\n"
            "  version     9\n"
            "  source      /m.yaml\n"
            "  agent       connected\n"
            "  generation  4\n"
            "  problem     why\n"
            "\n"
            "FILE     STATE    ERROR\n"
            "/m.yaml  current  -\n");
  const test::Ran none = Ctl({"get", "routes"});
  EXPECT_EQ(none.exit_code, 0);
  EXPECT_EQ(none.output, "");
  EXPECT_EQ(none.error, "no routes\n");
}

TEST_F(WeftctlTest, OutputThatCannotBeWrittenIsAFailure) {
  StartBoth();
  for (const char* command :
       {"status", "check", "get hosts", "get hosts -o json", "version", "completion bash"}) {
    const test::Ran ran = test::Run(
        {"/bin/sh", "-c", kProgram + " --run-dir " + directory_.path() + " " + command + " >/dev/full"});
    EXPECT_EQ(ran.exit_code, 1) << command;
    EXPECT_EQ(ran.error, "weftctl: write to standard output: No space left on device\n") << command;
  }
}

TEST_F(WeftctlTest, JsonIsAsWrittenHere) {
  StartBoth();
  EXPECT_EQ(Ctl({"-o", "json", "get", "functions"}).output,
            "{\n"
            "  \"kind\": \"functions\",\n"
            "  \"generation\": 4,\n"
            "  \"items\": [\n"
            "    {\n"
            "      \"function\": \"v/f\",\n"
            "      \"ready\": 1\n"
            "    }\n"
            "  ]\n"
            "}\n");
  EXPECT_EQ(Ctl({"get", "routes", "-o", "json"}).output,
            "{\n  \"kind\": \"routes\",\n  \"generation\": 4,\n  \"items\": []\n}\n");
}

TEST_F(WeftctlTest, ExplainAndDrainTellTheirVerdictByExitCode) {
  StartBoth();
  EXPECT_EQ(Ctl({"explain", "w/a", "v/f"}).exit_code, 0);
  verdict_ = "denied";
  EXPECT_EQ(Ctl({"explain", "w/a", "v/f"}).exit_code, 1);
  verdict_ = "draining";
  EXPECT_EQ(Ctl({"drain", "a"}).exit_code, 1);
  verdict_ = "drained";
  EXPECT_EQ(Ctl({"drain", "a"}).exit_code, 0);
}

TEST_F(WeftctlTest, ExplainTellsWhichNameIsWrongAndHowItOughtToBe) {
  EXPECT_EQ(Ctl({"explain", "w/a", "v"}).error,
            "weftctl: explain w/a v: INVALID_ARGUMENT: function \"v\": must be NAMESPACE/NAME\n");
  EXPECT_THAT(Ctl({"explain", "W", "v/f"}).error,
              HasSubstr("INVALID_ARGUMENT: namespace \"W\": must be 1 to 63"));
  EXPECT_THAT(Ctl({"explain", "w/", "v/f"}).error, HasSubstr("INVALID_ARGUMENT: name of function \"w/\""));
  EXPECT_THAT(Ctl({"explain", "w", "v/f"}).error, HasSubstr("is weftd running"));
}

TEST_F(WeftctlTest, ChecksPassAndEachFailureIsNamed) {
  StartBoth();
  test::Ran ran = Ctl({"check"});
  EXPECT_EQ(ran.exit_code, 0) << ran.output;
  EXPECT_THAT(ran.output, HasSubstr("generation     ok"));
  EXPECT_THAT(ran.output, HasSubstr("sealed memory  ok"));
  sent_ = 5;
  ran = Ctl({"check"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.output, HasSubstr("control sent 5, the agent is at 4"));
  sent_ = 4;
  link_ = "refused";
  EXPECT_THAT(Ctl({"check"}).output, HasSubstr("refused why"));
  link_ = "connected";
  ready_ = 0;
  EXPECT_THAT(Ctl({"check"}).output, HasSubstr("no ready host: v/f"));
  function_ = "on other nodes";
  EXPECT_EQ(Ctl({"check"}).exit_code, 0);
  watch_ = "not synced";
  ran = Ctl({"check"});
  EXPECT_EQ(ran.exit_code, 0);
  EXPECT_THAT(ran.output, HasSubstr("etcd: not synced no leader"));
  ready_ = 1;
  file_ = "last good";
  file_error_ = "/m.yaml:3:1: bad";
  EXPECT_THAT(Ctl({"check"}).output, HasSubstr("/m.yaml:3:1: bad"));
  control_.reset();
  unlink((directory_ / "control.sock").c_str());
  ran = Ctl({"check"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.output, HasSubstr("is weft-control running"));
}

TEST_F(WeftctlTest, ChecksLookAtOtherNodesAndTheWayThere) {
  StartBoth();
  const auto node = [](const char* name, const char* state, const char* keys, const char* problem) {
    return Row().Text("node", name).Text("state", state).Text("keys", keys).Text("problem", problem).Take();
  };
  EXPECT_THAT(Ctl({"check"}).output, testing::Not(HasSubstr("nodes")));
  nodes_ = {node("n1", "here", "", ""), node("n2", "reachable", "epoch 0", "")};
  port_ = "af_xdp eth0 queue 0, 10.0.0.1:4810";
  port_why_ = "memory: 2 MiB (no huge pages); transfer: copy";
  steer_keys_ = 1;
  test::Ran ran = Ctl({"check"});
  EXPECT_EQ(ran.exit_code, 0) << ran.output;
  EXPECT_THAT(ran.output, testing::ContainsRegex("nodes +ok +1 other, reachable"));
  EXPECT_THAT(ran.output, testing::ContainsRegex("packet port +ok +af_xdp eth0 queue 0, 10.0.0.1:4810 "));
  EXPECT_THAT(ran.output, testing::ContainsRegex("steer +ok +eth0, native, port 4810"));
  // Another node that is away, and a slower way there, are no faults of this one.
  nodes_.push_back(node("n3", "not reachable", "none", "expired: the peer's certificate"));
  port_ = "io_uring 10.0.0.1:4810";
  port_why_ = "af_xdp: no (weft-control says no; so it is); socket buffers: 4 MiB";
  ran = Ctl({"check"});
  EXPECT_EQ(ran.exit_code, 0) << ran.output;
  EXPECT_THAT(ran.output, HasSubstr("1 of 2 not reachable: n3: expired: the peer's certificate  "));
  EXPECT_THAT(ran.output, HasSubstr("4810; af_xdp: no (weft-control says no; so it is)  "));
  until_ = "2999-01-31 23:59:59 UTC";
  EXPECT_THAT(Ctl({"check"}).output,
              testing::ContainsRegex("certificate +ok +spiffe://t/node/n1 until 2999"));
  certificate_problem_ = "open k: Permission denied";
  EXPECT_THAT(Ctl({"check"}).output, HasSubstr("UTC; its files now: open k: Permission denied"));
  until_ = "2001-01-31 23:59:59 UTC";
  ran = Ctl({"check"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.output, HasSubstr("UTC: it has ended"));
  until_.clear();
  // With keys in use, a program that knows none of them lets nothing in.
  steer_keys_ = 0;
  ran = Ctl({"check"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.output, HasSubstr("the program on eth0 knows no key of this node"));
  nodes_.erase(nodes_.begin() + 1);
  EXPECT_EQ(Ctl({"check"}).exit_code, 0);
}

TEST_F(WeftctlTest, ChecksTellWhereTheProgramIsSlowOrTakesAnotherPort) {
  StartBoth();
  steer_keys_ = 1;
  EXPECT_THAT(Ctl({"check"}).output,
              testing::ContainsRegex("steer +ok"));  // Without `listen` no port is the right one.
  port_ = "af_xdp eth0 queue 0, 10.0.0.1:4810";
  steer_port_ = 4999;
  test::Ran ran = Ctl({"check"});
  EXPECT_EQ(ran.exit_code, 0) << ran.output;
  EXPECT_THAT(ran.output,
              testing::ContainsRegex(
                  "steer +warning +eth0, native, port 4999; weftd's: af_xdp eth0 queue 0, 10.0.0.1:4810 "));
  EXPECT_THAT(ran.output, HasSubstr("--port of weft-control must be that of `listen`"));
  steer_port_ = 4810;
  steer_mode_ = "generic";  // As is best on a veth.
  EXPECT_THAT(Ctl({"check"}).output, testing::ContainsRegex("steer +ok +eth0, generic, port 4810"));
  steer_problem_ = "slower than native";
  EXPECT_THAT(Ctl({"check"}).output,
              testing::ContainsRegex("steer +warning +eth0, generic, port 4810 +slower than native"));
}

TEST_F(WeftctlTest, ChecksLookAtThePortOfEachWorker) {
  StartBoth();
  port_ = "af_xdp eth0 queue 0, 10.0.0.1:4810";
  second_worker_ = "af_xdp eth0 queue 1, 10.0.0.1:4810; hosts 0; datagrams_in 0";
  EXPECT_THAT(Ctl({"check"}).output,
              testing::ContainsRegex("packet port +ok +af_xdp eth0 queue 0, 10.0.0.1:4810 "));
  second_worker_ =
      "io_uring 10.0.0.1:4810; hosts 0; fell back: queue 1: the interface has no such queue; datagrams_in 0";
  const std::string told = Ctl({"check"}).output;
  EXPECT_THAT(told,
              testing::ContainsRegex("packet port +warning +worker_1: io_uring 10.0.0.1:4810; af_xdp: no "
                                     "\\(queue 1: the interface has no such queue\\) +packets take"));
  EXPECT_THAT(told, testing::Not(testing::ContainsRegex("packet port +ok")));
}

TEST_F(WeftctlTest, ChecksHintAtWhatIsWrong) {
  StartBoth();
  link_ = "refused";
  EXPECT_THAT(Ctl({"check"}).output, HasSubstr("must be control_user of weftd.yaml"));
  if (geteuid() == 0) {
    for (const char* const socket : {"admin.sock", "control.sock"})
      chmod((directory_ / socket).c_str(), 0600);
    const test::Ran ran = test::Run({kProgram, "--run-dir", directory_.path(), "check"}, 64999);
    EXPECT_EQ(ran.exit_code, 1);
    EXPECT_THAT(ran.output, HasSubstr("run as root or as the owner or group of the socket"));
    EXPECT_THAT(ran.output, testing::Not(HasSubstr("systemctl")));
  }
  agent_.reset();
  link_ = "disconnected";
  EXPECT_THAT(Ctl({"check"}).output,
              testing::AllOf(HasSubstr("systemctl status weftd"), HasSubstr("disconnected why"),
                             testing::Not(HasSubstr("control_user"))));
}

TEST_F(WeftctlTest, RefusalsAndBadAnswersAreErrors) {
  std::string packet = FailureOf(absl::StatusCode::kPermissionDenied, "PERMISSION_DENIED: not you");
  FakeDaemon agent(directory_ / "admin.sock", [&](const api::AdminRequest&) {
    return packet.empty() ? std::vector<std::string>() : std::vector<std::string>{packet};
  });
  EXPECT_EQ(Ctl({"get", "nodes"}).error, "weftctl: get nodes: PERMISSION_DENIED: not you\n");
  api::ToHost refused;
  refused.mutable_refused()->set_code(8);
  refused.mutable_refused()->set_reason("too many connections");
  packet = refused.SerializeAsString();
  EXPECT_EQ(Ctl({"get", "nodes"}).error, "weftctl: get nodes: RESOURCE_EXHAUSTED: too many connections\n");
  packet = std::string(100, '\xff');
  EXPECT_THAT(Ctl({"get", "nodes"}).error, HasSubstr("is no answer"));
  packet.clear();
  EXPECT_THAT(Ctl({"get", "nodes"}).error, HasSubstr("closed the connection without an answer"));
}

TEST_F(WeftctlTest, PushedMessagesAreNoAnswers) {
  FakeDaemon agent(directory_ / "admin.sock", [&](const api::AdminRequest&) {
    api::AdminReply pushed;
    pushed.mutable_registrations()->set_node("n1");
    return std::vector<std::string>{pushed.SerializeAsString(),
                                    ReplyOf(1, {Row().Text("node", "n1").Take()})};
  });
  EXPECT_EQ(Ctl({"get", "nodes"}).output, "NODE\nn1\n");
}

TEST_F(WeftctlTest, PayloadThatIsTooLongIsToldByItsFileBeforeTheAgentIsAsked) {
  const std::string file = directory_ / "payload";
  std::string payload;
  payload.resize(17'000'000);
  test::WriteFile(file, payload);
  const std::string why = " is longer than 16777216 bytes, which a message may have\n";
  test::Ran ran = Ctl({"call", "v/f", "--file", file});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_EQ(ran.error, "weftctl: call v/f: INVALID_ARGUMENT: " + file + why);
  ran = test::Run({"/bin/sh", "-c", kProgram + " --run-dir " + directory_.path() + " call v/f <" + file});
  EXPECT_EQ(ran.error, "weftctl: call v/f: INVALID_ARGUMENT: standard input" + why);
}

TEST_F(WeftctlTest, ValidateNamesFilesAndLines) {
  test::WriteFile(directory_ / "good.yaml",
                  "version: 1\nnodes: [{name: n1}]\nfunctions: [{name: v/f}]\n"
                  "endpoints:\n- {function: v/f, node: n1, host: h}\n");
  test::Ran ran = Ctl({"validate", directory_ / "good.yaml"});
  EXPECT_EQ(ran.exit_code, 0);
  EXPECT_EQ(ran.output, directory_ / "good.yaml" + ": good: 1 node, 1 function, 1 endpoint, 0 rules\n");
  test::WriteFile(directory_ / "bad.yaml",
                  "version: 1\nfunctions:\n- {name: v/f, hedge: {percentile: 95}}\n- {name: f}\n");
  ran = Ctl({"validate", directory_ / "bad.yaml"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_EQ(ran.error, directory_ / "bad.yaml" +
                           ":3:22: functions[0].hedge: a hedge runs a call twice: declare `idempotent: "
                           "true`, or remove the key\n" +
                           directory_ / "bad.yaml" +
                           ":4:10: functions[1].name: function \"f\": must be NAMESPACE/NAME\n");
  ran = Ctl({"validate", "-o", "json", directory_ / "bad.yaml"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.output, HasSubstr("\"kind\": \"validation\""));
  ran = Ctl({"validate", directory_ / "none.yaml"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_EQ(ran.error.rfind("weftctl: validate: ", 0), 0u) << ran.error;
  EXPECT_THAT(ran.error, HasSubstr(directory_ / "none.yaml"));
  const std::string strange = directory_ / "\xc2\x9b.yaml";
  test::WriteFile(strange, "version: 1\n");
  EXPECT_EQ(Ctl({"validate", strange}).output,
            directory_ / "?.yaml" + ": good: 0 nodes, 0 functions, 0 endpoints, 0 rules\n");
  test::WriteFile(strange, "version: 2\n");
  EXPECT_THAT(Ctl({"validate", strange}).error, HasSubstr(directory_ / "?.yaml"));
}

TEST_F(WeftctlTest, CompletionScriptsAreGoodShell) {
  StartBoth();
  const test::Ran bash = Ctl({"completion", "bash"});
  EXPECT_EQ(bash.exit_code, 0);
  test::WriteFile(directory_ / "completion.bash", bash.output);
  const test::Ran completed =
      test::Run({"/bin/bash", "-c",
                 "PATH=" WEFT_BIN_DIR ":$PATH; source " + directory_ / "completion.bash" +
                     "; COMP_WORDS=(weftctl --run-dir " + directory_.path() +
                     " drain ''); COMP_CWORD=4; _weftctl; echo \"${COMPREPLY[@]}\"; "
                     "COMP_WORDS=(weftctl get r); COMP_CWORD=2; _weftctl; echo \"${COMPREPLY[@]}\""});
  EXPECT_EQ(completed.output, "--timeout a b-2\nroutes\n") << completed.error;
  for (const char* shell : {"zsh", "fish"}) {
    EXPECT_THAT(Ctl({"completion", shell}).output, HasSubstr("weftctl"));
  }
}

}  // namespace
}  // namespace weft::ctl
