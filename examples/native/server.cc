// SPDX-License-Identifier: Apache-2.0
// Serves demo/echo from a native process, and tells who called:
//
//   native-server --name echo-1 [--run-dir DIR]
//
// The agent's configuration must admit this user with that host name and `serve: ["demo/echo"]`. Ends on
// SIGTERM.
#include "weft/server.h"

#include <csignal>
#include <cstdio>
#include <cstring>

namespace {

weft::Server* running = nullptr;

}  // namespace

int main(int argc, char** argv) {
  weft::MeshOptions options;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--name") == 0) options.host = argv[i + 1];
    if (std::strcmp(argv[i], "--run-dir") == 0) options.run_dir = argv[i + 1];
  }
  absl::StatusOr<std::unique_ptr<weft::Mesh>> mesh = weft::Mesh::Create(options);
  if (!mesh.ok()) {
    std::fprintf(stderr, "native-server: %s\n", mesh.status().ToString().c_str());
    return 1;
  }
  weft::Server server(**mesh);
  absl::Status status =
      server.Register("demo/echo", [](weft::ServerCall& call) { call.Reply(call.request()); });
  if (status.ok()) status = (*mesh)->Attach();
  if (!status.ok()) {
    std::fprintf(stderr, "native-server: %s\n", status.ToString().c_str());
    return 1;
  }
  running = &server;
  std::signal(SIGTERM, [](int) { running->Stop(); });
  std::printf("host %s serves demo/echo on node %s\n", (*mesh)->host().c_str(), (*mesh)->node().c_str());
  std::fflush(stdout);
  return server.Run().ok() ? 0 : 1;
}
