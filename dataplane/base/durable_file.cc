// SPDX-License-Identifier: Apache-2.0
#include "dataplane/base/durable_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/status.h"

namespace weft {
namespace {

absl::Status WriteAll(int fd, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return absl::ErrnoToStatus(errno, "write");
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return absl::OkStatus();
}

using Fill = std::function<absl::Status(const AppendBytes& append)>;

absl::Status WriteSynced(const std::string& path, mode_t mode, const Fill& fill) {
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("open ", path));
  const absl::Status status = fill([&fd](absl::string_view bytes) { return WriteAll(fd.get(), bytes); });
  if (!status.ok()) return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
  if (fdatasync(fd.get()) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("sync ", path));
  return absl::OkStatus();
}

}  // namespace

absl::Status ReplaceFile(const std::string& path, absl::string_view bytes, mode_t mode) {
  return ReplaceFile(path, mode, [bytes](const AppendBytes& append) { return append(bytes); });
}

absl::Status ReplaceFile(const std::string& path, mode_t mode, const Fill& fill) {
  const std::string temporary = path + ".new";
  absl::Status status = WriteSynced(temporary, mode, fill);
  if (status.ok() && rename(temporary.c_str(), path.c_str()) != 0) {
    status = absl::ErrnoToStatus(errno, absl::StrCat("rename to ", path));
  }
  if (!status.ok()) {
    unlink(temporary.c_str());
    return status;
  }
  // The new name itself, too.
  const std::size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  UniqueFd fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || fsync(fd.get()) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("sync ", directory));
  return absl::OkStatus();
}

}  // namespace weft
