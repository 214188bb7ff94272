// SPDX-License-Identifier: Apache-2.0
// Modules that an orchestrator sent, as files that the agent can open: named by their SHA-256, for the owner
// and the agent alone, bounded in all. Control path: blocks for the disk. One thread.
#ifndef WEFT_CONTROL_SOURCE_PROPELLER_MODULE_STORE_H_
#define WEFT_CONTROL_SOURCE_PROPELLER_MODULE_STORE_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace weft::control {

class ModuleStore {
 public:
  // Of all modules together
  static constexpr uint64_t kBytesMax = uint64_t{256} << 20;

  // Makes `directory` where it is missing, below one that exists. `reader`, the agent's user, is let through
  // both.
  static absl::StatusOr<ModuleStore> Create(std::string directory, uid_t reader,
                                            uint64_t bytes_max = kBytesMax);

  // The module's SHA-256 in hexadecimal digits, its name here. What is there already is not written again.
  // RESOURCE_EXHAUSTED where it does not fit.
  absl::StatusOr<std::string> Put(absl::string_view module);
  // OK where it is there, and is what its name says.
  absl::Status Check(const std::string& sha256) const;
  std::string PathOf(const std::string& sha256) const;
  void Remove(const std::string& sha256);
  // Removes whatever is not named here: modules of former runs, halves of writes.
  void KeepOnly(const std::set<std::string>& sha256s);
  uint64_t bytes() const;

 private:
  ModuleStore(std::string directory, uid_t reader, uint64_t bytes_max)
      : directory_(std::move(directory)), reader_(reader), bytes_max_(bytes_max) {}

  std::string directory_;
  uid_t reader_;
  uint64_t bytes_max_;
};

// The 32 bytes of 64 hexadecimal digits; empty where they are none.
std::string BytesOfHex(absl::string_view sha256);

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_PROPELLER_MODULE_STORE_H_
