// SPDX-License-Identifier: Apache-2.0
#include "dataplane/agent/store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/status.h"

namespace weft::agent {
namespace {

absl::Status WriteAll(int fd, absl::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return absl::ErrnoToStatus(errno, absl::StrCat("write ", path));
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Store> Store::Create(const std::string& directory) {
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, absl::StrCat("make state directory ", directory));
  }
  if (access(directory.c_str(), W_OK | X_OK) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("write to state directory ", directory));
  }
  return Store(absl::StrCat(directory, "/routes.pb"));
}

absl::StatusOr<Model> Store::Load() const {
  const UniqueFd fd(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) {
    if (errno == ENOENT) return Model();
    return absl::ErrnoToStatus(errno, absl::StrCat("open ", path_));
  }
  std::string bytes;
  char buffer[16 * 1024];
  for (;;) {
    const ssize_t got = read(fd.get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::ErrnoToStatus(errno, absl::StrCat("read ", path_));
    if (got == 0) break;
    bytes.append(buffer, static_cast<std::size_t>(got));
  }
  api::Program snapshot;
  if (!snapshot.ParseFromString(bytes) || !snapshot.snapshot() || !snapshot.last()) {
    return absl::InvalidArgumentError(absl::StrCat(path_, " is damaged"));
  }
  Model model;
  WEFT_RETURN_IF_ERROR(model.Apply(snapshot));
  model.set_generation(snapshot.generation());
  return model;
}

absl::Status Store::SetAside() const {
  const std::string aside = path_ + ".damaged";
  if (rename(path_.c_str(), aside.c_str()) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("rename ", path_, " to ", aside));
}

absl::Status Store::Save(const Model& model) const {
  const std::string temporary = path_ + ".new";
  const std::string bytes = model.ToSnapshot().SerializeAsString();
  const UniqueFd fd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("open ", temporary));
  WEFT_RETURN_IF_ERROR(WriteAll(fd.get(), bytes, temporary));
  if (rename(temporary.c_str(), path_.c_str()) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("rename to ", path_));
  return absl::OkStatus();
}

}  // namespace weft::agent
