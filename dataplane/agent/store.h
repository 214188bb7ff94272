// SPDX-License-Identifier: Apache-2.0
// The last acknowledged generation on disk: routes.pb in the state directory, one Program message. Written
// whole under another name and renamed, so that a reader sees the old one or the new one. Blocks on the disk;
// called by weftd's loop thread, and only when a generation was acknowledged.
#ifndef WEFT_DATAPLANE_AGENT_STORE_H_
#define WEFT_DATAPLANE_AGENT_STORE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/agent/model.h"

namespace weft::agent {

class Store {
 public:
  // Keeps `directory`/routes.pb. Makes the directory, mode 0700, where it is missing.
  static absl::StatusOr<Store> Create(const std::string& directory);

  // The model on disk; an empty one where there is no file. INVALID_ARGUMENT where it is damaged.
  absl::StatusOr<Model> Load() const;

  // Renames a damaged file to routes.pb.damaged, so that nothing is lost and the next start finds none.
  absl::Status SetAside() const;

  // Not synced, since all hosts would wait for the disk: after a crash of the kernel the file may be an older
  // one, or damaged, which Load finds, and control programs what is missing.
  absl::Status Save(const Model& model) const;

  const std::string& path() const { return path_; }

 private:
  explicit Store(std::string path) : path_(std::move(path)) {}

  std::string path_;
};

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_STORE_H_
