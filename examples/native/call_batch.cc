// SPDX-License-Identifier: Apache-2.0
// A batch of calls that travel together, then a burst of one-way messages:
//
//   native-call-batch [--run-dir DIR]
#include <array>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "weft/client.h"

int main(int argc, char** argv) {
  weft::MeshOptions options;
  if (argc == 3 && std::strcmp(argv[1], "--run-dir") == 0) options.run_dir = argv[2];
  absl::StatusOr<std::unique_ptr<weft::Mesh>> mesh = weft::Mesh::Create(options);
  absl::Status status = mesh.ok() ? (*mesh)->Attach() : mesh.status();
  if (!status.ok()) {
    std::fprintf(stderr, "native-call-batch: %s\n", status.ToString().c_str());
    return 1;
  }
  weft::Client client(**mesh);
  absl::StatusOr<weft::Function> echo = client.Resolve("demo/echo");
  if (!echo.ok()) {
    std::fprintf(stderr, "native-call-batch: %s\n", echo.status().ToString().c_str());
    return 1;
  }

  constexpr std::size_t kCalls = 32;
  std::array<std::string, kCalls> requests;
  std::array<std::array<std::byte, 32>, kCalls> responses;
  std::vector<weft::BatchCall> batch(kCalls);
  for (std::size_t i = 0; i < kCalls; ++i) {
    requests[i] = "item " + std::to_string(i);
    batch[i].function = *echo;
    batch[i].request = std::as_bytes(std::span(requests[i].data(), requests[i].size()));
    batch[i].response = responses[i];
  }
  client.CallBatch(batch);
  int failed = 0;
  for (const weft::BatchCall& call : batch) failed += call.result.ok() ? 0 : 1;

  std::vector<std::span<const std::byte>> messages;
  for (const std::string& request : requests)
    messages.push_back(std::as_bytes(std::span(request.data(), request.size())));
  std::size_t sent = 0;
  status = client.SendBatch(*echo, messages, {}, &sent);
  std::printf("%zu calls, %d failed; %zu messages sent\n", batch.size(), failed, sent);
  return failed == 0 && status.ok() ? 0 : 1;
}
