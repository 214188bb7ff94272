// SPDX-License-Identifier: Apache-2.0
// Serves one function for the fault tests: checks the request's pattern, counts the execution in the ledger,
// and answers with its own tag, so that the caller can tell which server ran the call. Fails calls or answers
// late where it is told to, and on each SIGUSR1 begins or leaves off with that.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/base/clock.h"
#include "dataplane/base/random.h"
#include "tests/support/ledger.h"
#include "tests/support/load_format.h"
#include "weft/client.h"
#include "weft/server.h"

namespace weft::test {
namespace {

struct Options {
  std::string run_dir, host, function, ledger;
  uint32_t tag = 0;
  uint32_t work_us = 0;
  bool fail = false;
  uint32_t late_every = 0;
  uint32_t late_ms = 20;
  uint32_t late_ms_min = 0;
  bool well = false;
};

Server* running = nullptr;
volatile sig_atomic_t stopped = 0;
volatile sig_atomic_t well = 0;

class Echo {
 public:
  explicit Echo(const Options& options) : options_(options), answer_(1 << 20), random_(options.tag + 1) {
    if (!options.ledger.empty()) ledger_ = std::make_unique<Ledger>(options.ledger);
  }

  void Handle(ServerCall& call) {
    uint32_t id = 0;
    if (!CheckRequest(call.request(), &id) || call.request().size() > answer_.size()) {
      call.ReplyError(absl::DataLossError("the request's pattern is damaged"));
      return;
    }
    if (ledger_ != nullptr && id < Ledger::kIds) ledger_->Execute(id);
    if (well == 0 && options_.fail) return call.ReplyError(absl::UnavailableError("told to fail"));
    if (options_.work_us != 0) {
      for (const uint64_t end_ns = NowNs() + options_.work_us * kNsPerUs; NowNs() < end_ns;) {
      }
    }
    const std::span<std::byte> response(answer_.data(), call.request().size());
    WriteResponse(response, id, options_.tag);
    if (well != 0 || options_.late_every == 0 || ++calls_ % options_.late_every != 0)
      return call.Reply(response);
    const uint64_t range_ns = (options_.late_ms - options_.late_ms_min) * kNsPerMs;
    const uint64_t late_ns = options_.late_ms_min * kNsPerMs + random_.Below(range_ns + 1);
    late_.emplace(NowNs() + late_ns, Late{call.Defer(), {response.begin(), response.end()}});
  }

  // Late answers hold up no other call.
  void ServeLate(Mesh& mesh) {
    Client client(mesh);
    while (stopped == 0) {
      client.Wait(absl::Milliseconds(1));
      while (!late_.empty() && late_.begin()->first <= NowNs()) {
        late_.begin()->second.call.Reply(late_.begin()->second.answer);
        late_.erase(late_.begin());
      }
    }
    late_.clear();
  }

 private:
  struct Late {
    DeferredCall call;
    std::vector<std::byte> answer;
  };

  const Options& options_;
  std::unique_ptr<Ledger> ledger_;
  std::vector<std::byte> answer_;
  Random random_;
  uint64_t calls_ = 0;
  std::multimap<uint64_t, Late> late_;  // By when they are due.
};

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Serves one function that answers the load client of the fault tests.");
  app.add_option("--run-dir", options.run_dir)->required();
  app.add_option("--name", options.host)->required();
  app.add_option("--serve", options.function)->required();
  app.add_option("--ledger", options.ledger);
  app.add_option("--tag", options.tag);
  app.add_option("--work-us", options.work_us, "time that a call takes, spent on the CPU");
  app.add_flag("--fail", options.fail, "answers each call with UNAVAILABLE, once it has run");
  app.add_option("--late-every", options.late_every, "of so many calls one is answered late; 0: none");
  app.add_option("--late-ms", options.late_ms, "so late");
  app.add_option("--late-ms-min", options.late_ms_min, "from this to --late-ms; default: --late-ms");
  app.add_flag("--well", options.well, "neither fails nor is late before SIGUSR1");
  CLI11_PARSE(app, argc, argv);
  if (options.late_ms_min == 0) options.late_ms_min = options.late_ms;
  well = options.well ? 1 : 0;
  std::signal(SIGUSR1, [](int) { well = well == 0 ? 1 : 0; });

  MeshOptions attach;
  attach.run_dir = options.run_dir;
  attach.host = options.host;
  absl::StatusOr<std::unique_ptr<Mesh>> mesh = Mesh::Create(attach);
  if (!mesh.ok()) {
    std::fprintf(stderr, "%s\n", mesh.status().ToString().c_str());
    return 1;
  }
  Echo echo(options);
  Server server(**mesh);
  absl::Status status = server.Register(options.function, [&](ServerCall& call) { echo.Handle(call); });
  if (status.ok()) status = (*mesh)->Attach();
  if (status.ok()) {
    running = &server;
    std::signal(SIGTERM, [](int) {
      stopped = 1;
      running->Stop();
    });
    std::printf("serving since %llu ns\n", static_cast<unsigned long long>(NowNs()));
    std::fflush(stdout);
    if (options.late_every != 0) {
      echo.ServeLate(**mesh);
    } else {
      status = server.Run();
    }
  }
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace weft::test

int main(int argc, char** argv) { return weft::test::Main(argc, argv); }
