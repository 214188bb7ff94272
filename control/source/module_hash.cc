// SPDX-License-Identifier: Apache-2.0
#include "control/source/module_hash.h"

#include <sys/stat.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "dataplane/base/status.h"
#include "dataplane/config/yaml.h"

namespace weft::control {
namespace {

int64_t Ns(const timespec& time) { return static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec; }

}  // namespace

absl::StatusOr<Sha256> ModuleHasher::HashOf(const std::string& path) {
  // The identity is taken before the content, so that a change in between is noticed at the next call.
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("open ", path));
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat("open ", path, ": not a regular file"));
  }
  const Identity identity{info.st_dev, info.st_ino, static_cast<uint64_t>(info.st_size), Ns(info.st_mtim),
                          Ns(info.st_ctim)};
  if (const auto it = known_.find(path); it != known_.end() && it->second.identity == identity) {
    return it->second.hash;
  }
  WEFT_ASSIGN_OR_RETURN(std::string bytes, ReadSmallFile(path, kModuleBytesMax));
  if (known_.size() >= kKnownMax) known_.clear();
  const Sha256 hash = Sha256Of(bytes);
  known_.insert_or_assign(path, Known{identity, hash});
  return hash;
}

}  // namespace weft::control
