// SPDX-License-Identifier: Apache-2.0
#include "control/publish/state_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/control/model/mesh_builder.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"

namespace weft::control {
namespace {

std::map<std::string, SourceMesh> Sources() {
  std::map<std::string, SourceMesh> sources;
  sources["a"] = MeshBuilder("a").Node("n1").Function("v/f").Build();
  sources["b"] = MeshBuilder("b").Endpoint("v/f", "n1", "h").Allow("x/*", "v/f").Build();
  return sources;
}

TEST(StateFileTest, WhatIsWrittenIsRead) {
  test::TemporaryDirectory directory;
  {
    auto writer = StateWriter::Create(directory / "state");
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (uint64_t generation = 1; generation <= 20; ++generation) {
      (*writer)->Write(EncodeLastGood(generation, Sources()));
    }
  }  // Ends with the last one on disk.
  absl::StatusOr<LastGood> read = LoadLastGood(directory / "state");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->generation, 20u);
  std::map<std::string, SourceMesh> back;
  for (SourceMesh& mesh : read->sources) back[mesh.origin] = mesh;
  EXPECT_EQ(EncodeLastGood(20, back), EncodeLastGood(20, Sources()));
}

TEST(StateFileTest, NoFileIsNotFound) {
  test::TemporaryDirectory directory;
  EXPECT_TRUE(absl::IsNotFound(LoadLastGood(directory.path()).status()));
}

TEST(StateFileTest, EveryDamageIsSeen) {
  test::TemporaryDirectory directory;
  const std::string good = EncodeLastGood(5, Sources());
  for (std::size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    test::WriteFile(directory / "state.pb", bad);
    EXPECT_TRUE(absl::IsDataLoss(LoadLastGood(directory.path()).status())) << at;
    test::WriteFile(directory / "state.pb", good.substr(0, at));
    EXPECT_TRUE(absl::IsDataLoss(LoadLastGood(directory.path()).status())) << at;
  }
}

TEST(StateFileTest, ADirectoryThatCannotBeMadeIsAnError) {
  EXPECT_FALSE(StateWriter::Create("/proc/weft").ok());
  EXPECT_FALSE(StateWriter::Create("/nonexistent/weft").ok());
}

TEST(StateFileTest, AFailedWriteIsTold) {
  test::TemporaryDirectory directory;
  auto writer = StateWriter::Create(directory / "state");
  ASSERT_TRUE(writer.ok());
  // A directory stands where the file should go.
  mkdir((directory / "state/state.pb").c_str(), 0755);
  mkdir((directory / "state/state.pb/x").c_str(), 0755);
  (*writer)->Write("bytes");
  absl::Status error;
  EXPECT_TRUE(test::Eventually([&] {
    error = (*writer)->TakeError();
    return !error.ok();
  }));
  EXPECT_NE(error.message().find("rename to "), std::string::npos) << error;
}

}  // namespace
}  // namespace weft::control
