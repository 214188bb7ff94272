// SPDX-License-Identifier: Apache-2.0
#include "dataplane/base/directory_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "dataplane/base/process_ended.h"

namespace weft {
namespace {

// Another process may replace the file meanwhile.
constexpr int kTries = 3;

// 0 where the holder has not said yet.
pid_t HolderOf(int fd) {
  char bytes[32];
  const ssize_t count = pread(fd, bytes, sizeof(bytes), 0);
  pid_t pid = 0;
  const bool said =
      count > 0 && absl::SimpleAtoi(absl::string_view(bytes, static_cast<std::size_t>(count)), &pid);
  return said && pid > 0 ? pid : 0;
}

bool StandsAt(const std::string& path, int fd) {
  struct stat there{}, held{};
  return stat(path.c_str(), &there) == 0 && fstat(fd, &held) == 0 && there.st_dev == held.st_dev &&
         there.st_ino == held.st_ino;
}

}  // namespace

absl::StatusOr<UniqueFd> LockDirectory(const std::string& directory, absl::string_view program) {
  const std::string path = absl::StrCat(directory, "/", program, ".lock");
  std::string holder;
  for (int i = 0; i < kTries; ++i) {
    UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("open ", path));
    if (flock(fd.get(), LOCK_EX | LOCK_NB) == 0) {
      if (!StandsAt(path, fd.get())) continue;
      // Who it is is for those who come after: a full disk keeps nobody from holding it.
      const std::string pid = absl::StrCat(getpid(), "\n");
      if (ftruncate(fd.get(), 0) == 0) (void)!pwrite(fd.get(), pid.data(), pid.size(), 0);
      return fd;
    }
    if (errno != EWOULDBLOCK) return absl::ErrnoToStatus(errno, absl::StrCat("lock ", path));
    const pid_t pid = HolderOf(fd.get());
    holder = pid == 0 ? "" : absl::StrCat(", process ", pid);
    if (pid == 0 || !ProcessHasEnded(pid)) break;
    if (StandsAt(path, fd.get())) unlink(path.c_str());
  }
  return absl::AlreadyExistsError(
      absl::StrCat("directory ", directory, " is used by another ", program, holder));
}

}  // namespace weft
