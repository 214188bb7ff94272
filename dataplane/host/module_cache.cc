// SPDX-License-Identifier: Apache-2.0
// The compiled-module cache: trust checks on open descriptors, atomic replacement, a bound on the files kept.
#include "dataplane/host/module_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "dataplane/base/status.h"

namespace weft::host {
namespace {

constexpr char kSuffix[] = ".cwasm";

std::string FileName(const Sha256& hash, const std::string& fingerprint) {
  const absl::string_view bytes(reinterpret_cast<const char*>(hash.data()), hash.size());
  return absl::StrCat(absl::BytesToHexString(bytes), "-", fingerprint, kSuffix);
}

absl::Status CheckOwned(int fd, const std::string& what, mode_t type, mode_t forbidden) {
  struct stat info;
  if (fstat(fd, &info) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("fstat ", what));
  if ((info.st_mode & S_IFMT) != type) {
    return absl::PermissionDeniedError(absl::StrCat(what, " is not of the expected file type"));
  }
  if (info.st_uid != geteuid()) {
    return absl::PermissionDeniedError(
        absl::StrCat(what, " belongs to user ", info.st_uid, ", not to ", geteuid(), ": not trusted"));
  }
  if ((info.st_mode & forbidden) != 0) {
    return absl::PermissionDeniedError(absl::StrCat(what, " has mode ", absl::Hex(info.st_mode & 0777),
                                                    " (hex), open to others: not trusted"));
  }
  return absl::OkStatus();
}

absl::Status WriteAll(int fd, absl::Span<const char> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return absl::ErrnoToStatus(errno, "write to the module cache");
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  if (fsync(fd) != 0) return absl::ErrnoToStatus(errno, "fsync in the module cache");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModuleCache>> ModuleCache::Open(const std::string& directory) {
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, absl::StrCat("mkdir ", directory));
  }
  UniqueFd fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) {
    const int error = errno;
    if (error == ELOOP || error == ENOTDIR) {
      return absl::PermissionDeniedError(absl::StrCat(directory, " is no directory of its own: not trusted"));
    }
    return absl::ErrnoToStatus(error, absl::StrCat("open ", directory));
  }
  WEFT_RETURN_IF_ERROR(CheckOwned(fd.get(), directory, S_IFDIR, 0077));
  return std::unique_ptr<ModuleCache>(new ModuleCache(directory, std::move(fd)));
}

std::string ModuleCache::DefaultDirectory() {
  if (const char* set = getenv("WEFT_CACHE_DIR"); set != nullptr && *set != '\0') return set;
  if (const char* xdg = getenv("XDG_CACHE_HOME"); xdg != nullptr && *xdg == '/')
    return absl::StrCat(xdg, "/weft");
  // The parent must exist; a system user often has no home.
  if (const char* home = getenv("HOME"); home != nullptr && *home == '/') {
    const std::string parent = absl::StrCat(home, "/.cache");
    if (access(parent.c_str(), W_OK) == 0) return absl::StrCat(parent, "/weft");
  }
  return absl::StrCat("/tmp/weft-cache-", geteuid());
}

absl::StatusOr<UniqueFd> ModuleCache::Find(const Sha256& hash, const std::string& fingerprint) const {
  const std::string name = FileName(hash, fingerprint);
  UniqueFd fd(openat(fd_.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) {
    if (errno == ENOENT) return absl::NotFoundError(absl::StrCat(name, " is not cached"));
    if (errno == ELOOP)
      return absl::PermissionDeniedError(absl::StrCat(name, " is a symbolic link: not trusted"));
    return absl::ErrnoToStatus(errno, absl::StrCat("open ", directory_, "/", name));
  }
  WEFT_RETURN_IF_ERROR(CheckOwned(fd.get(), absl::StrCat(directory_, "/", name), S_IFREG, 0022));
  futimens(fd.get(), nullptr);  // What was used last is trimmed last. Failure only makes a worse choice.
  return fd;
}

absl::Status ModuleCache::Store(const Sha256& hash, const std::string& fingerprint,
                                absl::Span<const char> code) const {
  Trim();
  const std::string name = FileName(hash, fingerprint);
  const std::string aside = absl::StrCat(name, ".", getpid(), ".new");
  UniqueFd fd(openat(fd_.get(), aside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("create ", directory_, "/", aside));
  absl::Status written = WriteAll(fd.get(), code);
  if (written.ok() && renameat(fd_.get(), aside.c_str(), fd_.get(), name.c_str()) != 0) {
    written = absl::ErrnoToStatus(errno, absl::StrCat("rename to ", directory_, "/", name));
  }
  if (!written.ok()) unlinkat(fd_.get(), aside.c_str(), 0);
  return written;
}

void ModuleCache::Remove(const Sha256& hash, const std::string& fingerprint) const {
  unlinkat(fd_.get(), FileName(hash, fingerprint).c_str(), 0);
}

void ModuleCache::Trim() const {
  // A descriptor of its own: fdopendir takes it over, and its position must not be shared.
  const int scan_fd = openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* scan = scan_fd < 0 ? nullptr : fdopendir(scan_fd);
  if (scan == nullptr) return;
  std::vector<std::pair<int64_t, std::string>> files;
  while (const dirent* entry = readdir(scan)) {
    struct stat info;
    if (!absl::EndsWith(entry->d_name, kSuffix)) continue;
    if (fstatat(fd_.get(), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) continue;
    files.emplace_back(info.st_mtim.tv_sec, entry->d_name);
  }
  closedir(scan);
  if (files.size() < kFilesMax) return;
  std::sort(files.begin(), files.end());
  for (size_t i = 0; i + kFilesMax <= files.size(); ++i) unlinkat(fd_.get(), files[i].second.c_str(), 0);
}

}  // namespace weft::host
