// SPDX-License-Identifier: Apache-2.0
// A directory of mesh files, one a function, and one of all nodes; a change replaces one file by rename.
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/control/change_source.h"
#include "dataplane/base/status.h"
#include "tests/support/temporary_directory.h"

namespace weft::bench {
namespace {

// `weights`: of the endpoints that have not the default. `without`: the endpoint that is not there, or -1.
std::string FileOf(int function, int first_weight, int second_weight, int without) {
  std::string text =
      absl::StrCat("version: 1\nfunctions: [{name: app/", FunctionName(function), "}]\nendpoints:\n");
  for (int i = 0; i < kEndpointsPerFunction; ++i) {
    if (i == without) continue;
    absl::StrAppend(&text, "- {function: app/", FunctionName(function),
                    ", node: ", NodeName(NodeOf(function, i)), ", host: h");
    const int weight = i == 0 ? first_weight : i == 1 ? second_weight : 100;
    absl::StrAppend(&text, weight == 100 ? "" : absl::StrCat(", weight: ", weight), "}\n");
  }
  return text;
}

// Written beside the directory, then moved into it: one event each.
absl::Status Replace(const std::string& beside, const std::string& path, const std::string& text) {
  std::ofstream file(beside);
  file << text;
  file.close();
  if (!file.good()) return absl::ErrnoToStatus(errno, absl::StrCat("write ", beside));
  if (std::rename(beside.c_str(), path.c_str()) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("rename to ", path));
  return absl::OkStatus();
}

class FileWriter final : public ChangeWriter {
 public:
  FileWriter(std::string directory, std::string beside, int functions)
      : directory_(std::move(directory)), beside_(std::move(beside)), functions_(functions) {}

  absl::StatusOr<uint64_t> Write(uint64_t event) override {
    const ChangeEvent change = EventOf(event, functions_);
    // Of one function a removal comes first in a pass, then its end, the second weight, and the first.
    const auto of_pass = [](int pass) { return pass < 0 ? 100 : 1 + pass % 99; };
    const bool weight = change.kind == ChangeEvent::Kind::kWeight;
    const int first = of_pass(weight && change.endpoint == 0 ? change.pass : change.pass - 1);
    const int second = of_pass(weight ? change.pass : change.pass - 1);
    const int without = change.kind == ChangeEvent::Kind::kRemove ? 2
                        : weight && change.endpoint == 3          ? 3
                                                                  : -1;
    WEFT_RETURN_IF_ERROR(Replace(beside_,
                                 absl::StrCat(directory_, "/", FunctionName(change.function), ".yaml"),
                                 FileOf(change.function, first, second, without)));
    return static_cast<uint64_t>(change.function);
  }

 private:
  std::string directory_;
  std::string beside_;
  int functions_;
};

class FileChangeSource final : public ChangeSource {
 public:
  std::string name() const override { return "file"; }
  Numbering numbering() const override { return Numbering::kByTime; }
  bool HasList() const override { return false; }  // They are on this machine.
  std::string Settings() const override { return absl::StrCat("files: ", directory_ / "mesh.d", "\n"); }
  std::vector<std::string> WatchArguments() const override { return {directory_ / "mesh.d"}; }

  absl::Status Fill(int functions, const std::function<void(const std::string&)>& progress) override {
    functions_ = functions;
    if (mkdir((directory_ / "mesh.d").c_str(), 0755) != 0)
      return absl::ErrnoToStatus(errno, absl::StrCat("make ", directory_ / "mesh.d"));
    std::string nodes = "version: 1\nnodes:\n";
    for (int node = 0; node < kNodes; ++node) absl::StrAppend(&nodes, "- {name: ", NodeName(node), "}\n");
    WEFT_RETURN_IF_ERROR(Replace(directory_ / "new", directory_ / "mesh.d/nodes.yaml", nodes));
    for (int function = 0; function < functions; ++function) {
      WEFT_RETURN_IF_ERROR(Replace(directory_ / "new",
                                   absl::StrCat(directory_ / "mesh.d/", FunctionName(function), ".yaml"),
                                   FileOf(function, 100, 100, -1)));
      progress(absl::StrCat("file: ", function + 1, " of ", functions, " functions"));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<ChangeWriter>> NewWriter() override {
    return std::make_unique<FileWriter>(directory_ / "mesh.d", directory_ / absl::StrCat("new", ++writers_),
                                        functions_);
  }

 private:
  test::TemporaryDirectory directory_;
  int functions_ = 0;
  int writers_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ChangeSource>> NewFileChangeSource() {
  return std::make_unique<FileChangeSource>();
}

}  // namespace weft::bench
