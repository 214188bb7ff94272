// SPDX-License-Identifier: Apache-2.0
// Serves one function for the fault tests: checks the request's pattern, counts the execution in the ledger,
// and answers with its own tag, so that the caller can tell which server ran the call.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/base/clock.h"
#include "tests/support/ledger.h"
#include "tests/support/load_format.h"
#include "weft/server.h"

namespace weft::test {
namespace {

Server* running = nullptr;

int Main(int argc, char** argv) {
  std::string run_dir, host, function, ledger_path;
  uint32_t tag = 0, work_us = 0;
  CLI::App app("Serves one function that answers the load client of the fault tests.");
  app.add_option("--run-dir", run_dir)->required();
  app.add_option("--name", host)->required();
  app.add_option("--serve", function)->required();
  app.add_option("--ledger", ledger_path);
  app.add_option("--tag", tag);
  app.add_option("--work-us", work_us, "time that a call takes, spent on the CPU");
  CLI11_PARSE(app, argc, argv);

  std::unique_ptr<Ledger> ledger;
  if (!ledger_path.empty()) ledger = std::make_unique<Ledger>(ledger_path);
  MeshOptions options;
  options.run_dir = run_dir;
  options.host = host;
  absl::StatusOr<std::unique_ptr<Mesh>> mesh = Mesh::Create(options);
  if (!mesh.ok()) {
    std::fprintf(stderr, "%s\n", mesh.status().ToString().c_str());
    return 1;
  }
  Server server(**mesh);
  std::vector<std::byte> answer(1 << 20);
  absl::Status status = server.Register(function, [&](ServerCall& call) {
    uint32_t id = 0;
    if (!CheckRequest(call.request(), &id) || call.request().size() > answer.size()) {
      call.ReplyError(absl::DataLossError("the request's pattern is damaged"));
      return;
    }
    if (ledger != nullptr && id < Ledger::kIds) ledger->Execute(id);
    if (work_us != 0) {
      for (const uint64_t end_ns = NowNs() + work_us * kNsPerUs; NowNs() < end_ns;) {
      }
    }
    const std::span<std::byte> response(answer.data(), call.request().size());
    WriteResponse(response, id, tag);
    call.Reply(response);
  });
  if (status.ok()) status = (*mesh)->Attach();
  if (status.ok()) {
    running = &server;
    std::signal(SIGTERM, [](int) { running->Stop(); });
    std::printf("serving since %llu ns\n", static_cast<unsigned long long>(NowNs()));
    std::fflush(stdout);
    status = server.Run();
  }
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace weft::test

int main(int argc, char** argv) { return weft::test::Main(argc, argv); }
