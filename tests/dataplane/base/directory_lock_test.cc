// SPDX-License-Identifier: Apache-2.0
#include "dataplane/base/directory_lock.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "tests/support/temporary_directory.h"

namespace weft {
namespace {

TEST(DirectoryLockTest, TheSecondIsToldOfTheFirst) {
  test::TemporaryDirectory directory;
  absl::StatusOr<UniqueFd> first = LockDirectory(directory.path(), "weftd");
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::Status second = LockDirectory(directory.path(), "weftd").status();
  EXPECT_TRUE(absl::IsAlreadyExists(second));
  EXPECT_EQ(second.message(),
            absl::StrCat("directory ", directory.path(), " is used by another weftd, process ", getpid()));
  EXPECT_TRUE(LockDirectory(directory.path(), "weft-control").ok()) << "another program's files are others";
  first->Reset();
  EXPECT_TRUE(LockDirectory(directory.path(), "weftd").ok());
}

TEST(DirectoryLockTest, WhoWritesNonsenseThereIsNotNamed) {
  test::TemporaryDirectory directory;
  const absl::StatusOr<UniqueFd> first = LockDirectory(directory.path(), "weftd");
  std::ofstream(directory / "weftd.lock") << "?";  // The same file
  const absl::Status second = LockDirectory(directory.path(), "weftd").status();
  EXPECT_EQ(second.message(), absl::StrCat("directory ", directory.path(), " is used by another weftd"));
}

TEST(DirectoryLockTest, ADirectoryThatIsNotThereIsAnError) {
  EXPECT_TRUE(absl::IsNotFound(LockDirectory("/nowhere/at/all", "weftd").status()));
}

}  // namespace
}  // namespace weft
