// SPDX-License-Identifier: Apache-2.0
// The objects that stand in etcd (docs/sources.md), read and written for an operator: what is written is
// compared with what was read, so that nobody's change is lost. Blocks. One thread.
#ifndef WEFT_TOOLS_WEFTCTL_POLICY_STORE_H_
#define WEFT_TOOLS_WEFTCTL_POLICY_STORE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "control/source/etcd/etcd_connection.h"
#include "control/source/http_client.h"
#include "control/source/mesh_object.h"

namespace weft::ctl {

struct StoredObject {
  std::string key;  // Below the prefix: "functions/vision/scale"
  std::string value;
  int64_t revision = 0;                       // Of its last change
  bool live = false;                          // A node says it of itself, under its lease.
  std::optional<control::MeshObject> object;  // None: it cannot be read.
  std::string problem;                        // Why not
};

struct PolicyWrite {
  std::string key;
  std::string value;
  bool remove = false;
  int64_t revision_before = 0;  // That must still be its revision; 0: it must not be there.
};

class PolicyStore {
 public:
  // Writes of one transaction: etcd takes 128 by default.
  static constexpr std::size_t kWritesMax = 100;

  // Of the `etcd` section of a weft-control.yaml. Asks nothing yet. NOT_FOUND, PERMISSION_DENIED and
  // FAILED_PRECONDITION, where there is no such file or section, say what is needed.
  static absl::StatusOr<std::unique_ptr<PolicyStore>> Open(const std::string& config_path);

  // All below the prefix, by key. UNAVAILABLE where no member answers.
  absl::StatusOr<std::vector<StoredObject>> List();

  // All of them or none, by kWritesMax. ABORTED names what was changed since it was read; any other error
  // says what is known to be written. Returns the store's revision after it.
  absl::StatusOr<int64_t> Commit(const std::vector<PolicyWrite>& writes);

  std::string Prefixed(const std::string& key) const { return options_.prefix + key; }

 private:
  PolicyStore(control::EtcdOptions options, std::unique_ptr<control::HttpClient> http)
      : options_(std::move(options)), http_(std::move(http)), connection_(&options_, http_.get()) {}

  absl::StatusOr<std::string> Ask(const std::string& path, const std::string& body);
  absl::StatusOr<int64_t> CommitSome(const std::vector<PolicyWrite>& writes);
  absl::Status WhatChanged(const std::vector<PolicyWrite>& writes);

  control::EtcdOptions options_;
  std::unique_ptr<control::HttpClient> http_;
  control::EtcdConnection connection_;
};

}  // namespace weft::ctl

#endif  // WEFT_TOOLS_WEFTCTL_POLICY_STORE_H_
