// SPDX-License-Identifier: Apache-2.0
// The compiled-module cache: trust checks on open descriptors, atomic replacement, a bound on the files kept.
#include "dataplane/host/module_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "dataplane/base/status.h"

namespace weft::host {
namespace {

constexpr char kSuffix[] = ".cwasm";
// Of a file that is being written. One that nobody wrote to for so long is of a process that ended meanwhile.
constexpr char kAsideSuffix[] = ".new";
constexpr int64_t kAsideSeconds = 3'600;
// What stands before the code in a file: 8 bytes that name the format, and the checksum.
constexpr absl::string_view kMagic = "weftcw1\n";
constexpr size_t kHeadBytes = 8 + sizeof(Sha256);
static_assert(kMagic.size() == 8);
// Compiled code is some ten times a module at most; nothing longer is read into memory.
constexpr int64_t kFileBytesMax = int64_t{1} << 30;

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
    return absl::PermissionDeniedError(
        absl::StrFormat("%s has mode %04o, open to others: not trusted", what, info.st_mode & 0777));
  }
  return absl::OkStatus();
}

absl::string_view TextOf(const Sha256& hash) {
  return {reinterpret_cast<const char*>(hash.data()), hash.size()};
}

// Of code stored under `name`: over both, so that neither can change alone.
Sha256 ChecksumOf(const std::string& name, absl::string_view code) {
  return Sha256Of(absl::StrCat(name, absl::string_view("\0", 1), TextOf(Sha256Of(code))));
}

absl::Status ReadAll(int fd, absl::Span<char> bytes, const std::string& what) {
  while (!bytes.empty()) {
    const ssize_t got = read(fd, bytes.data(), bytes.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::ErrnoToStatus(errno, absl::StrCat("read ", what));
    if (got == 0) return absl::DataLossError(absl::StrCat(what, " became shorter while it was read"));
    bytes.remove_prefix(static_cast<size_t>(got));
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

absl::StatusOr<std::vector<char>> ModuleCache::ReadChecked(const std::string& name) const {
  const std::string what = absl::StrCat(directory_, "/", name);
  UniqueFd fd(openat(fd_.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) {
    if (errno == ENOENT) return absl::NotFoundError(absl::StrCat(name, " is not cached"));
    if (errno == ELOOP)
      return absl::PermissionDeniedError(absl::StrCat(name, " is a symbolic link: not trusted"));
    return absl::ErrnoToStatus(errno, absl::StrCat("open ", what));
  }
  WEFT_RETURN_IF_ERROR(CheckOwned(fd.get(), what, S_IFREG, 0022));
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("fstat ", what));
  if (info.st_size <= static_cast<int64_t>(kHeadBytes) || info.st_size > kFileBytesMax) {
    return absl::DataLossError(absl::StrCat(what, " has a length that no compiled module has"));
  }
  std::array<char, kHeadBytes> head;
  WEFT_RETURN_IF_ERROR(ReadAll(fd.get(), absl::MakeSpan(head), what));
  std::vector<char> code(static_cast<size_t>(info.st_size) - kHeadBytes);
  WEFT_RETURN_IF_ERROR(ReadAll(fd.get(), absl::MakeSpan(code), what));
  const Sha256 checksum = ChecksumOf(name, {code.data(), code.size()});
  const std::string expected = absl::StrCat(kMagic, TextOf(checksum));
  if (absl::string_view(head.data(), head.size()) != expected) {
    return absl::DataLossError(absl::StrCat(what, " does not have the checksum that it says it has"));
  }
  futimens(fd.get(), nullptr);  // What was used last is trimmed last. Failure only makes a worse choice.
  return code;
}

absl::StatusOr<std::vector<char>> ModuleCache::Find(const Sha256& hash,
                                                    const std::string& fingerprint) const {
  absl::StatusOr<std::vector<char>> code = ReadChecked(FileName(hash, fingerprint));
  if (absl::IsDataLoss(code.status())) Remove(hash, fingerprint);
  return code;
}

absl::Status ModuleCache::Store(const Sha256& hash, const std::string& fingerprint,
                                absl::Span<const char> code) const {
  Trim();
  const std::string name = FileName(hash, fingerprint);
  const std::string aside = absl::StrCat(name, ".", gettid(), kAsideSuffix);
  UniqueFd fd(openat(fd_.get(), aside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("create ", directory_, "/", aside));
  const Sha256 checksum = ChecksumOf(name, {code.data(), code.size()});
  absl::Status written = WriteAll(fd.get(), absl::StrCat(kMagic, TextOf(checksum)));
  if (written.ok()) written = WriteAll(fd.get(), code);
  if (written.ok() && fsync(fd.get()) != 0) written = absl::ErrnoToStatus(errno, "fsync in the module cache");
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
    const bool aside = absl::EndsWith(entry->d_name, kAsideSuffix);
    if (!aside && !absl::EndsWith(entry->d_name, kSuffix)) continue;
    if (fstatat(fd_.get(), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (!aside) {
      files.emplace_back(info.st_mtim.tv_sec, entry->d_name);
    } else if (info.st_mtim.tv_sec < time(nullptr) - kAsideSeconds) {
      unlinkat(fd_.get(), entry->d_name, 0);
    }
  }
  closedir(scan);
  if (files.size() < kFilesMax) return;
  std::sort(files.begin(), files.end());
  for (size_t i = 0; i + kFilesMax <= files.size(); ++i) unlinkat(fd_.get(), files[i].second.c_str(), 0);
}

}  // namespace weft::host
