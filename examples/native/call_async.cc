// SPDX-License-Identifier: Apache-2.0
// Keeps eight calls of demo/echo under way at a time with callbacks, until a thousand are done:
//
//   native-call-async [--run-dir DIR]
#include <array>
#include <cstdio>
#include <cstring>
#include <string>

#include "weft/client.h"

namespace {

constexpr int kDepth = 8;
constexpr int kCalls = 1000;

// One of the calls under way. Request and response are borrowed by the library until the callback runs.
struct Lane {
  weft::Client* client = nullptr;
  weft::Function function;
  int* started = nullptr;
  int* done = nullptr;
  int* failed = nullptr;
  std::string request;
  std::array<std::byte, 64> response;

  void Start() {
    if (*started == kCalls) return;
    request = "call " + std::to_string((*started)++);
    absl::StatusOr<weft::CallId> call = client->CallAsync(
        function, std::as_bytes(std::span(request.data(), request.size())), response,
        [](void* context, const weft::CallResult& result) { static_cast<Lane*>(context)->Ended(result); },
        this);
    if (!call.ok()) Count(false);
  }
  void Ended(const weft::CallResult& result) {
    Count(result.ok() && result.response_bytes == request.size() &&
          std::memcmp(response.data(), request.data(), request.size()) == 0);
    Start();
  }
  void Count(bool ok) {
    ++*done;
    *failed += ok ? 0 : 1;
  }
};

}  // namespace

int main(int argc, char** argv) {
  weft::MeshOptions options;
  if (argc == 3 && std::strcmp(argv[1], "--run-dir") == 0) options.run_dir = argv[2];
  absl::StatusOr<std::unique_ptr<weft::Mesh>> mesh = weft::Mesh::Create(options);
  absl::Status status = mesh.ok() ? (*mesh)->Attach() : mesh.status();
  if (!status.ok()) {
    std::fprintf(stderr, "native-call-async: %s\n", status.ToString().c_str());
    return 1;
  }
  weft::Client client(**mesh);
  absl::StatusOr<weft::Function> echo = client.Resolve("demo/echo");
  if (!echo.ok()) {
    std::fprintf(stderr, "native-call-async: %s\n", echo.status().ToString().c_str());
    return 1;
  }
  int started = 0;
  int done = 0;
  int failed = 0;
  std::array<Lane, kDepth> lanes;
  for (Lane& lane : lanes) {
    lane.client = &client;
    lane.function = *echo;
    lane.started = &started;
    lane.done = &done;
    lane.failed = &failed;
    lane.Start();
  }
  while (done < kCalls) client.Wait(absl::Seconds(1));
  std::printf("%d calls, %d failed\n", done, failed);
  return failed == 0 ? 0 : 1;
}
