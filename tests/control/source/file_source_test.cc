// SPDX-License-Identifier: Apache-2.0
// The file source against a real file system and a real inotify: writers that are slow, that stop half-way,
// that rename like editors, that hurry.
#include "control/source/file_source.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <set>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tests/control/source/said_mesh.h"
#include "tests/support/temporary_directory.h"

namespace weft::control {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr uint64_t kGraceNs = 100 * kNsPerMs;

std::string MeshOf(int zone) { return absl::StrCat("version: 1\nnodes:\n- {name: n1, zone: z", zone, "}\n"); }

void WriteInPlace(const std::string& path, absl::string_view text) {
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  ASSERT_TRUE(fd.valid());
  ASSERT_EQ(write(fd.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
}

class FileSourceTest : public testing::Test {
 protected:
  void Start(const std::string& path) {
    absl::StatusOr<std::unique_ptr<FileSource>> source = FileSource::Create({path, kGraceNs});
    ASSERT_TRUE(source.ok()) << source.status();
    source_ = *std::move(source);
  }

  // Runs the source as weft-control does until `count` changes came, or nothing came for `quiet_ms`.
  std::vector<SourceChange> Collect(std::size_t count, int quiet_ms = 5'000) {
    std::vector<SourceChange> changes;
    uint64_t last_ns = NowNs();
    while (changes.size() < count && NowNs() < last_ns + static_cast<uint64_t>(quiet_ms) * kNsPerMs) {
      pollfd entry{source_->fd(), POLLIN, 0};
      const uint64_t wake_ns = source_->wake_ns();
      const uint64_t now_ns = NowNs();
      const uint64_t wait_ns = wake_ns == 0 ? 50 * kNsPerMs : wake_ns > now_ns ? wake_ns - now_ns : 0;
      poll(&entry, 1, static_cast<int>(std::min<uint64_t>(50, (wait_ns + kNsPerMs - 1) / kNsPerMs)));
      std::vector<SourceChange> more =
          entry.revents != 0 ? source_->OnReadable(NowNs()) : source_->OnTime(NowNs());
      if (!more.empty()) last_ns = NowNs();
      std::move(more.begin(), more.end(), std::back_inserter(changes));
    }
    return changes;
  }

  static std::string ZoneOf(const SourceChange& change) {
    SaidMesh said;
    said.Take(change.offer);
    return said.mesh().nodes.empty() ? "" : said.mesh().nodes[0].value.zone();
  }

  test::TemporaryDirectory directory_;
  std::unique_ptr<FileSource> source_;
};

TEST_F(FileSourceTest, AMissingDirectoryIsAnErrorAMissingFileIsNot) {
  EXPECT_THAT(FileSource::Create({"/nonexistent/mesh.yaml"}).status().ToString(), HasSubstr("/nonexistent/"));
  Start(directory_ / "mesh.yaml");
  EXPECT_THAT(source_->Scan(), IsEmpty());
  EXPECT_THAT(source_->TakeNotes(), ElementsAre(HasSubstr("does not exist yet")));
  test::WriteFile(directory_ / "mesh.yaml", MeshOf(1));
  const std::vector<SourceChange> changes = Collect(1);
  ASSERT_THAT(changes, SizeIs(1));
  EXPECT_EQ(ZoneOf(changes[0]), "z1");
}

TEST_F(FileSourceTest, AFileIsTakenWhenItsWriterClosesItNotBefore) {
  const std::string path = directory_ / "mesh.yaml";
  WriteInPlace(path, MeshOf(1));
  Start(path);
  EXPECT_THAT(source_->Scan(), SizeIs(1));
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC));
  const std::string text = MeshOf(2);
  ASSERT_EQ(write(fd.get(), text.data(), 20), 20);
  EXPECT_THAT(Collect(1, 150), IsEmpty());
  ASSERT_EQ(write(fd.get(), text.data() + 20, text.size() - 20), static_cast<ssize_t>(text.size() - 20));
  EXPECT_THAT(Collect(1, 150), IsEmpty());
  fd.Reset();
  const std::vector<SourceChange> changes = Collect(1);
  ASSERT_THAT(changes, SizeIs(1));
  EXPECT_EQ(ZoneOf(changes[0]), "z2");
}

TEST_F(FileSourceTest, AnotherEventWhileAWriterIsHalfWayReadsNothing) {
  const std::string path = directory_ / "mesh.yaml";
  WriteInPlace(path, MeshOf(1));
  Start(path);
  EXPECT_THAT(source_->Scan(), SizeIs(1));
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC));
  ASSERT_EQ(write(fd.get(), "version: 1\n", 11), 11);
  ASSERT_EQ(chmod(path.c_str(), 0600), 0);
  EXPECT_THAT(Collect(1, 150), IsEmpty());
}

TEST_F(FileSourceTest, HalfAFileIsAnErrorThatNamesIt) {
  const std::string path = directory_ / "mesh.yaml";
  WriteInPlace(path, MeshOf(1));
  Start(path);
  source_->Scan();
  WriteInPlace(path, MeshOf(2).substr(0, 30));
  std::vector<SourceChange> changes = Collect(1);
  ASSERT_THAT(changes, SizeIs(1));
  EXPECT_FALSE(changes[0].gone);
  EXPECT_THAT(changes[0].errors, testing::Contains(HasSubstr(path)));
  WriteInPlace(path, "");
  changes = Collect(1);
  ASSERT_THAT(changes, SizeIs(1));
  EXPECT_THAT(changes[0].errors, ElementsAre(path + ": the file is empty"));
}

TEST_F(FileSourceTest, AnUnreadableFileIsAnErrorAndItsModeIsWatched) {
  const std::string path = directory_ / "mesh.yaml";
  WriteInPlace(path, MeshOf(1));
  // Root reads every file: become somebody else for this test, who owns it.
  const bool root = geteuid() == 0;
  if (root) {
    ASSERT_EQ(chown(path.c_str(), 64999, 64999), 0);
    ASSERT_EQ(seteuid(64999), 0);
  }
  ASSERT_EQ(chmod(path.c_str(), 0), 0);
  Start(path);
  std::vector<SourceChange> changes = source_->Scan();
  EXPECT_THAT(changes, SizeIs(1));
  EXPECT_THAT(changes.at(0).errors, ElementsAre(HasSubstr("Permission denied")));
  ASSERT_EQ(chmod(path.c_str(), 0644), 0);
  changes = Collect(1);
  if (root) {
    ASSERT_EQ(seteuid(0), 0);
  }
  ASSERT_THAT(changes, SizeIs(1));
  EXPECT_EQ(ZoneOf(changes[0]), "z1");
}

TEST_F(FileSourceTest, EditorsRenamesAreOneChangeAndNoRemoval) {
  const std::string path = directory_ / "mesh.yaml";
  WriteInPlace(path, MeshOf(1));
  Start(path);
  source_->Scan();
  // As vim does: the old file is moved away, the new one written in its place, the old one removed.
  for (int edit = 2; edit < 8; ++edit) {
    ASSERT_EQ(rename(path.c_str(), (path + "~").c_str()), 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    WriteInPlace(path, MeshOf(edit));
    ASSERT_EQ(unlink((path + "~").c_str()), 0);
    const std::vector<SourceChange> changes = Collect(1);
    ASSERT_THAT(changes, SizeIs(1));
    EXPECT_FALSE(changes[0].gone);
    EXPECT_EQ(ZoneOf(changes[0]), absl::StrCat("z", edit));
  }
  EXPECT_THAT(Collect(1, 300), IsEmpty());
}

TEST_F(FileSourceTest, ARemovedFileIsReportedOnceAfterTheGrace) {
  WriteInPlace(directory_ / "a.yaml", MeshOf(1));
  WriteInPlace(directory_ / "b.yml", MeshOf(2));
  WriteInPlace(directory_ / "note.txt", "no mesh file");
  Start(directory_.path());
  EXPECT_THAT(source_->Scan(), SizeIs(2));
  const uint64_t removed_ns = NowNs();
  ASSERT_EQ(unlink((directory_ / "b.yml").c_str()), 0);
  const std::vector<SourceChange> changes = Collect(1);
  ASSERT_THAT(changes, SizeIs(1));
  EXPECT_TRUE(changes[0].gone);
  EXPECT_EQ(changes[0].origin, directory_ / "b.yml");
  EXPECT_GE(changes[0].event_ns, removed_ns + kGraceNs);
  EXPECT_THAT(Collect(1, 300), IsEmpty());
  EXPECT_EQ(source_->wake_ns(), 0u);
}

TEST_F(FileSourceTest, ALinkIsTakenWhenItIsMade) {
  WriteInPlace(directory_ / "real", MeshOf(3));
  Start(directory_.path());
  EXPECT_THAT(source_->Scan(), IsEmpty());
  ASSERT_EQ(symlink("real", (directory_ / "mesh.yaml").c_str()), 0);
  const std::vector<SourceChange> changes = Collect(1);
  ASSERT_THAT(changes, SizeIs(1));
  EXPECT_EQ(ZoneOf(changes[0]), "z3");
}

TEST_F(FileSourceTest, AConfigMapIsReadAgainWhenItsDataLinkMoves) {
  mkdir((directory_ / "..1").c_str(), 0755);
  mkdir((directory_ / "..2").c_str(), 0755);
  WriteInPlace(directory_ / "..1/mesh.yaml", MeshOf(1));
  WriteInPlace(directory_ / "..2/mesh.yaml", MeshOf(2));
  ASSERT_EQ(symlink("..1", (directory_ / "..data").c_str()), 0);
  ASSERT_EQ(symlink("..data/mesh.yaml", (directory_ / "mesh.yaml").c_str()), 0);
  Start(directory_.path());
  std::vector<SourceChange> changes = source_->Scan();
  ASSERT_THAT(changes, SizeIs(1));
  EXPECT_EQ(ZoneOf(changes[0]), "z1");
  ASSERT_EQ(symlink("..2", (directory_ / "..data_tmp").c_str()), 0);
  ASSERT_EQ(rename((directory_ / "..data_tmp").c_str(), (directory_ / "..data").c_str()), 0);
  changes = Collect(1);
  ASSERT_THAT(changes, SizeIs(1));
  EXPECT_EQ(ZoneOf(changes[0]), "z2");
}

TEST_F(FileSourceTest, ADirectoryThatGoesAwayRemovesNothingAndIsTakenUpAgain) {
  const std::string directory = directory_ / "mesh.d";
  mkdir(directory.c_str(), 0755);
  WriteInPlace(directory + "/a.yaml", MeshOf(1));
  Start(directory);
  EXPECT_THAT(source_->Scan(), SizeIs(1));
  ASSERT_EQ(rename(directory.c_str(), (directory_ / "old").c_str()), 0);
  EXPECT_THAT(Collect(1, 400), IsEmpty());
  EXPECT_THAT(source_->TakeNotes(), testing::Contains(HasSubstr("is gone; keeping the last good state")));
  mkdir(directory.c_str(), 0755);
  WriteInPlace(directory + "/a.yaml", MeshOf(2));
  const std::vector<SourceChange> changes = Collect(1);
  ASSERT_THAT(changes, SizeIs(1));
  EXPECT_EQ(ZoneOf(changes[0]), "z2");
}

TEST_F(FileSourceTest, ANameThatGoesBeforeItWasReadIsForgotten) {
  test::WriteFile(directory_ / "a.yaml", MeshOf(1));
  Start(directory_.path());
  EXPECT_THAT(source_->Scan(), SizeIs(1));
  for (const char* name : {"tmp1.yaml", "tmp2.yaml"}) WriteInPlace(directory_ / name, MeshOf(2));
  ASSERT_EQ(rename((directory_ / "tmp1.yaml").c_str(), (directory_ / "a.yaml").c_str()), 0);
  ASSERT_EQ(unlink((directory_ / "tmp2.yaml").c_str()), 0);
  const std::vector<SourceChange> changes = Collect(2, 3 * static_cast<int>(kGraceNs / kNsPerMs));
  ASSERT_THAT(changes, SizeIs(1));
  EXPECT_EQ(ZoneOf(changes[0]), "z2");
  EXPECT_THAT(source_->Describe(), HasSubstr("(1 file)"));
}

// Every edit is whole, so no read may ever see an error or a half, and the last one must win. The first half
// of each edit is good YAML by itself: only the events tell that there is more to come.
// Three events a file, so the kernel's queue ends at one that was made and, as far as its events tell, never
// closed.
TEST_F(FileSourceTest, WhereTheKernelsQueueOverflowsNoFileIsForgotten) {
  std::size_t queue = 0;
  ASSERT_TRUE(absl::SimpleAtoi(test::ReadFile("/proc/sys/fs/inotify/max_queued_events"), &queue));
  const std::size_t files = queue / 3 + 10;
  ASSERT_LE(files, 10'000u);
  test::WriteFile(directory_ / "a.yaml", MeshOf(1));
  Start(directory_.path());
  EXPECT_THAT(source_->Scan(), SizeIs(1));
  for (std::size_t i = 1; i < files; ++i) {
    WriteInPlace(directory_ / absl::StrCat("f", i, ".yaml"), "version: 1\n");
  }
  std::set<std::string> taken;
  for (const SourceChange& change : Collect(2 * files, 500)) taken.insert(change.origin);
  EXPECT_THAT(taken, SizeIs(files));  // With the first one, which is read again.
  EXPECT_THAT(source_->TakeNotes(), ElementsAre(HasSubstr("overflowed")));
}

TEST_F(FileSourceTest, HurriedEditsAreNeverSeenTorn) {
  const std::string path = directory_ / "mesh.yaml";
  std::string filler;
  for (int i = 0; i < 200; ++i) absl::StrAppend(&filler, "# ", i, " a comment that makes the file longer\n");
  WriteInPlace(path, MeshOf(0) + filler);
  Start(path);
  source_->Scan();
  constexpr int kEdits = 300;
  std::thread writer([&] {
    for (int edit = 1; edit <= kEdits; ++edit) {
      const std::string first = MeshOf(edit);
      const std::string second = filler + "- {name: n2}\n";
      FILE* file = fopen(path.c_str(), "w");
      fwrite(first.data(), 1, first.size(), file);
      fflush(file);
      std::this_thread::sleep_for(std::chrono::microseconds(500 + edit % 3 * 300));
      fwrite(second.data(), 1, second.size(), file);
      fclose(file);
      std::this_thread::sleep_for(std::chrono::microseconds(edit % 7 * 30));
    }
  });
  std::string last;
  int seen = 0;
  while (last != absl::StrCat("z", kEdits)) {
    const std::vector<SourceChange> changes = Collect(1);
    if (changes.empty()) break;
    for (const SourceChange& change : changes) {
      EXPECT_THAT(change.errors, IsEmpty());
      EXPECT_FALSE(change.gone);
      EXPECT_EQ(change.offer.said.size(), 2u);
      last = ZoneOf(change);
      ++seen;
    }
  }
  writer.join();
  EXPECT_EQ(last, absl::StrCat("z", kEdits));
  EXPECT_GT(seen, 10);
}

}  // namespace
}  // namespace weft::control
