// SPDX-License-Identifier: Apache-2.0
// Compiled modules on disk, so that a host that starts again need not compile again. A compiled module is
// native code that will run in this process: the directory and every file must belong to this user and be
// writable by nobody else, which is checked on the open descriptors before anything is loaded.
//
// Files are named by the SHA-256 of the module and the engine's fingerprint. Each begins with a SHA-256 over
// that name and the code, so that a file that the disk damaged, or that was renamed, is compiled anew instead
// of executed. It is no defence against this user, who may write any file here. Any thread; calls block on
// disk.
#ifndef WEFT_DATAPLANE_HOST_MODULE_CACHE_H_
#define WEFT_DATAPLANE_HOST_MODULE_CACHE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/function_id.h"

namespace weft::host {

class ModuleCache {
 public:
  // Compiled modules kept; the least recently used goes first.
  static constexpr int kFilesMax = 64;

  // Opens `directory`, made with mode 0700 where it is missing (its parent must exist). PERMISSION_DENIED
  // where it belongs to another user, is writable or readable by others, or is a symbolic link.
  static absl::StatusOr<std::unique_ptr<ModuleCache>> Open(const std::string& directory);

  // The user's own directory: $WEFT_CACHE_DIR, $XDG_CACHE_HOME/weft, ~/.cache/weft, else
  // /tmp/weft-cache-<uid>.
  static std::string DefaultDirectory();

  // The compiled module; NOT_FOUND where there is none, PERMISSION_DENIED where the file there is not to be
  // trusted. DATA_LOSS where it is not, to the last bit, what Store() wrote for this module and fingerprint:
  // such a file is removed. What was checked is what is returned, whoever writes to the file meanwhile.
  absl::StatusOr<std::vector<char>> Find(const Sha256& hash, const std::string& fingerprint) const;
  // Stores `code` for the next Find(). Written aside, synchronised and renamed, so that a crash leaves no
  // torn file.
  absl::Status Store(const Sha256& hash, const std::string& fingerprint, absl::Span<const char> code) const;
  // Forgets a file that the engine would not load.
  void Remove(const Sha256& hash, const std::string& fingerprint) const;

  const std::string& directory() const { return directory_; }

 private:
  ModuleCache(std::string directory, UniqueFd fd) : directory_(std::move(directory)), fd_(std::move(fd)) {}
  absl::StatusOr<std::vector<char>> ReadChecked(const std::string& name) const;
  void Trim() const;

  const std::string directory_;
  const UniqueFd fd_;
};

}  // namespace weft::host

#endif  // WEFT_DATAPLANE_HOST_MODULE_CACHE_H_
