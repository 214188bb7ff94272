// SPDX-License-Identifier: Apache-2.0
// A native host for the integration tests of libweft: serves what --serve names under test/, each with a
// handler known by its name. Prints "ready" once attached. Ends when drained or killed.
//
//   test/echo[-x]    answers with the request            test/who      answers with this host's name
//   test/slow        "MS": answers after that time,      test/hold     never answers, until cancelled or
//   expired
//                    without leaving the handler
//   test/log         appends the request to --log        test/trace    answers with the traceparent it got
//   test/deadline    answers with the ns left            test/ping, test/pong  "N": calls the other with N -
//   1 test/fail        answers RESOURCE_EXHAUSTED "full"   test/relay    calls test/hold and answers its
//   status code test/grow        "N": answers with N bytes
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "dataplane/base/clock.h"
#include "weft/client.h"
#include "weft/server.h"

namespace weft::test {
namespace {

uint64_t NumberOf(absl::string_view text) {
  uint64_t number = 0;
  return absl::SimpleAtoi(text, &number) ? number : 0;
}

class Peer {
 public:
  Peer(weft::Mesh& mesh, const std::string& log) : mesh_(mesh), client_(mesh), server_(mesh) {
    if (!log.empty()) log_fd_ = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  }

  absl::Status Serve(const std::string& name) {
    absl::string_view kind = absl::string_view(name).substr(name.find('/') + 1);
    if (kind.substr(0, 4) == "echo") kind = "echo";
    using Handler = void (Peer::*)(ServerCall&);
    static const std::map<absl::string_view, Handler> handlers = {
        {"echo", &Peer::Echo}, {"who", &Peer::Who},     {"slow", &Peer::Slow},         {"hold", &Peer::Hold},
        {"log", &Peer::Log},   {"trace", &Peer::Trace}, {"deadline", &Peer::Deadline}, {"fail", &Peer::Fail},
        {"ping", &Peer::Ping}, {"pong", &Peer::Ping},   {"relay", &Peer::Relay},       {"grow", &Peer::Grow}};
    const auto found = handlers.find(kind);
    if (found == handlers.end()) return absl::InvalidArgumentError(absl::StrCat("no handler for ", name));
    const Handler handler = found->second;
    return server_.Register(name, [this, handler](ServerCall& call) { (this->*handler)(call); });
  }
  absl::Status Run() { return server_.Run(); }

 private:
  void Echo(ServerCall& call) { call.Reply(call.request()); }
  void Who(ServerCall& call) { call.Reply(mesh_.host()); }
  void Slow(ServerCall& call) {
    usleep(static_cast<useconds_t>(NumberOf(call.request_text()) * 1000));
    call.Reply(call.request());
  }
  void Hold(ServerCall& call) {
    if (held_.size() > 10'000) held_.clear();
    held_.push_back(call.Defer());
  }
  void Log(ServerCall& call) {
    const std::string line = absl::StrCat(call.request_text(), "\n");
    if (write(log_fd_, line.data(), line.size()) != static_cast<ssize_t>(line.size())) std::abort();
    call.Reply(call.request());
  }
  void Trace(ServerCall& call) { call.Reply(call.trace() ? call.trace()->ToTraceparent() : "none"); }
  void Deadline(ServerCall& call) { call.Reply(absl::StrCat(call.deadline_ns() - NowNs())); }
  void Fail(ServerCall& call) { call.ReplyError(absl::ResourceExhaustedError("full")); }
  void Grow(ServerCall& call) { call.Reply(std::string(NumberOf(call.request_text()), 'g')); }
  // Counts down by calling the other of the two, as itself.
  void Ping(ServerCall& call) {
    const uint64_t left = NumberOf(call.request_text());
    if (left == 0) return call.Reply("bottom");
    const std::string other = call.function() == "test/ping" ? "test/pong" : "test/ping";
    Forward(call, other, absl::StrCat(left - 1));
  }
  void Relay(ServerCall& call) { Forward(call, "test/hold", call.request_text()); }
  void Forward(ServerCall& call, const std::string& callee, absl::string_view request) {
    absl::StatusOr<Function> function = client_.ResolveLazily(callee, call.function());
    absl::StatusOr<std::string> answer = function.ok() ? client_.Call(*function, request) : function.status();
    if (!answer.ok()) return call.ReplyError(answer.status());
    call.Reply(*answer);
  }

  weft::Mesh& mesh_;
  Client client_;
  Server server_;
  int log_fd_ = -1;
  std::vector<DeferredCall> held_;
};

int Main(int argc, char** argv) {
  MeshOptions options;
  std::vector<std::string> serves;
  std::string log;
  for (int i = 1; i + 1 < argc; i += 2) {
    const absl::string_view name = argv[i];
    if (name == "--name") options.host = argv[i + 1];
    if (name == "--run-dir") options.run_dir = argv[i + 1];
    if (name == "--serve") serves.push_back(argv[i + 1]);
    if (name == "--log") log = argv[i + 1];
  }
  absl::StatusOr<std::unique_ptr<weft::Mesh>> mesh = weft::Mesh::Create(options);
  absl::Status status = mesh.status();
  if (status.ok()) {
    Peer peer(**mesh, log);
    for (const std::string& name : serves) {
      if (status.ok()) status = peer.Serve(name);
    }
    if (status.ok()) status = (*mesh)->Attach();
    if (status.ok()) {
      std::printf("ready\n");
      std::fflush(stdout);
      status = peer.Run();
    }
  }
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace weft::test

int main(int argc, char** argv) { return weft::test::Main(argc, argv); }
