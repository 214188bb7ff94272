// SPDX-License-Identifier: Apache-2.0
#include "control/publish/state_file.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>

#include "absl/strings/str_cat.h"
#include "tests/control/model/mesh_builder.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"

namespace weft::control {
namespace {

LastGood State(uint64_t generation) {
  SourceMesh live = MeshBuilder("c").Node("n1").Node("n2").Build();
  live.open = true;
  live.nodes[0].implied = true;
  return {generation,
          {OfferOf(MeshBuilder("a").Node("n1").Function("v/f").Build()),
           OfferOf(MeshBuilder("b").Endpoint("v/f", "n1", "h").Allow("x/*", "v/f").Build()), OfferOf(live),
           OfferOf(MeshBuilder("nothing").Build())}};
}

std::string TextOf(const LastGood& state) {
  std::string text = absl::StrCat(state.generation);
  for (const SourceOffer& source : state.sources) {
    absl::StrAppend(&text, "\n", source.origin, source.open ? " open" : "");
    for (const EntryPtr& entry : source.said) {
      absl::StrAppend(&text, "\n ", static_cast<int>(entry->kind), entry->implied ? "~" : "=", entry->bytes);
    }
  }
  return text;
}

void WriteTo(const std::string& directory, const LastGood& state) {
  auto writer = StateWriter::Create(directory);
  ASSERT_TRUE(writer.ok()) << writer.status();
  (*writer)->Write(state);
}

TEST(StateFileTest, WhatIsWrittenIsRead) {
  test::TemporaryDirectory directory;
  {
    auto writer = StateWriter::Create(directory / "state");
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (uint64_t generation = 1; generation <= 20; ++generation) (*writer)->Write(State(generation));
  }  // Ends with the last one on disk.
  absl::StatusOr<LastGood> read = LoadLastGood(directory / "state");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(TextOf(*read), TextOf(State(20)));
}

TEST(StateFileTest, ASourceOfManyPiecesIsOne) {
  test::TemporaryDirectory directory;
  MeshBuilder builder("a");
  for (int i = 0; i < 5'000; ++i) builder.Endpoint("v/f", "n1", std::string(60, 'h') + std::to_string(i));
  const LastGood state{3, {OfferOf(builder.Build()), OfferOf(MeshBuilder("b").Node("n1").Build())}};
  WriteTo(directory / "state", state);
  absl::StatusOr<LastGood> read = LoadLastGood(directory / "state");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(TextOf(*read), TextOf(state));
}

TEST(StateFileTest, AFileMayHaveAnyName) {
  test::TemporaryDirectory directory;
  const LastGood state{3, {OfferOf(MeshBuilder("/etc/weft/mesh.d/caf\xe9.yaml").Node("n1").Build())}};
  WriteTo(directory / "state", state);
  absl::StatusOr<LastGood> read = LoadLastGood(directory / "state");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(TextOf(*read), TextOf(state));
}

TEST(StateFileTest, NoFileIsNotFound) {
  test::TemporaryDirectory directory;
  EXPECT_TRUE(absl::IsNotFound(LoadLastGood(directory.path()).status()));
}

TEST(StateFileTest, EveryDamageIsSeen) {
  test::TemporaryDirectory directory;
  WriteTo(directory.path(), State(5));
  const std::string good = test::ReadFile(directory / "state.pb");
  ASSERT_GT(good.size(), 100u);
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
  (*writer)->Write(State(1));
  // At once, not with the next one
  pollfd failed{(*writer)->error_fd(), POLLIN, 0};
  ASSERT_EQ(poll(&failed, 1, 10'000), 1);
  const absl::Status error = (*writer)->TakeError();
  EXPECT_FALSE(error.ok());
  EXPECT_EQ(poll(&failed, 1, 0), 0);
  EXPECT_NE(error.message().find("rename to "), std::string::npos) << error;
  // The last one's, too
  (*writer)->Write(State(2));
  EXPECT_FALSE((*writer)->Finish().ok());
}

}  // namespace
}  // namespace weft::control
