// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/bpffs.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "dataplane/base/status.h"

namespace weft::control {
namespace {

std::string OwnerOfProcess() { return absl::StrCat(geteuid(), ":", getegid()); }

}  // namespace

absl::Status CheckBpffs(const std::string& directory) {
  struct statfs file_system;
  const bool there = statfs(directory.c_str(), &file_system) == 0;
  if (!there && errno != ENOENT) return absl::ErrnoToStatus(errno, absl::StrCat("look at ", directory));
  if (!there || file_system.f_type != BPF_FS_MAGIC) {
    return absl::FailedPreconditionError(absl::StrCat(
        directory, " is not a BPF file system; as root, run: mkdir -p ", directory,
        " && mount -t bpf -o mode=0700 bpf ", directory, " && chown ", OwnerOfProcess(), " ", directory));
  }
  struct stat owner;
  if (stat(directory.c_str(), &owner) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("look at ", directory));
  if (owner.st_uid != geteuid() && geteuid() != 0) {
    return absl::FailedPreconditionError(absl::StrCat(directory, " belongs to user ", owner.st_uid,
                                                      "; as root, run: chown ", OwnerOfProcess(), " ",
                                                      directory));
  }
  return absl::OkStatus();
}

std::string PinName(const std::string& name) { return absl::StrReplaceAll(name, {{".", ":"}}); }

absl::Status MakeDirectory(const std::string& path) {
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    return absl::ErrnoToStatus(errno, absl::StrCat("make directory ", path));
  return absl::OkStatus();
}

absl::Status Pin(int fd, const std::string& path) {
  if (const int error = bpf_obj_pin(fd, path.c_str()); error != 0)
    return absl::ErrnoToStatus(-error, absl::StrCat("pin ", path));
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> GetPinned(const std::string& path) {
  const int fd = bpf_obj_get(path.c_str());
  if (fd < 0) return absl::ErrnoToStatus(-fd, absl::StrCat("open the pin ", path));
  return UniqueFd(fd);
}

absl::Status Unpin(const std::string& path) {
  if (unlink(path.c_str()) != 0 && errno != ENOENT)
    return absl::ErrnoToStatus(errno, absl::StrCat("remove the pin ", path));
  return absl::OkStatus();
}

absl::Status RemovePins(const std::string& directory) {
  std::vector<std::string> names;
  {
    const std::unique_ptr<DIR, int (*)(DIR*)> entries(opendir(directory.c_str()), closedir);
    if (entries == nullptr) {
      if (errno == ENOENT) return absl::OkStatus();
      return absl::ErrnoToStatus(errno, absl::StrCat("read ", directory));
    }
    while (const dirent* const entry = readdir(entries.get())) {
      if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
    }
  }
  for (const std::string& name : names) WEFT_RETURN_IF_ERROR(Unpin(absl::StrCat(directory, "/", name)));
  if (rmdir(directory.c_str()) != 0 && errno != ENOENT)
    return absl::ErrnoToStatus(errno, absl::StrCat("remove directory ", directory));
  return absl::OkStatus();
}

absl::Status RenamePins(const std::string& from, const std::string& to) {
  if (rename(from.c_str(), to.c_str()) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("rename ", from, " to ", to));
  return absl::OkStatus();
}

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

}  // namespace weft::control
