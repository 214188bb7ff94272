// SPDX-License-Identifier: Apache-2.0
// Calls demo/echo once and prints the answer:
//
//   native-call [--run-dir DIR] TEXT
//
// A client serves nothing and has no name; it calls as the namespace that the agent's configuration gives its
// user.
#include <cstdio>
#include <cstring>

#include "weft/client.h"

int main(int argc, char** argv) {
  weft::MeshOptions options;
  const char* text = "hello";
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--run-dir") == 0 && i + 1 < argc) {
      options.run_dir = argv[++i];
    } else {
      text = argv[i];
    }
  }
  absl::StatusOr<std::unique_ptr<weft::Mesh>> mesh = weft::Mesh::Create(options);
  absl::Status status = mesh.ok() ? (*mesh)->Attach() : mesh.status();
  if (status.ok()) {
    weft::Client client(**mesh);
    absl::StatusOr<weft::Function> echo = client.Resolve("demo/echo");
    absl::StatusOr<std::string> answer = echo.ok() ? client.Call(*echo, text) : echo.status();
    if (answer.ok()) std::printf("%s\n", answer->c_str());
    status = answer.status();
  }
  if (!status.ok()) std::fprintf(stderr, "native-call: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
