// SPDX-License-Identifier: Apache-2.0
// SHA-256 of module files, remembered by inode, size and times, so that a mesh file that is edited ten times
// a second does not have its modules read each time. One thread.
#ifndef WEFT_CONTROL_SOURCE_MODULE_HASH_H_
#define WEFT_CONTROL_SOURCE_MODULE_HASH_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "dataplane/base/function_id.h"

namespace weft::control {

// Larger modules are refused; the Wasm hosts' own limit is below.
inline constexpr std::size_t kModuleBytesMax = 64 * 1024 * 1024;

class ModuleHasher {
 public:
  // Blocks while it reads. Errors name the path.
  absl::StatusOr<Sha256> HashOf(const std::string& path);

 private:
  // Device, inode, size, modification and change time in ns. The change time cannot be set by utimensat.
  using Identity = std::tuple<uint64_t, uint64_t, uint64_t, int64_t, int64_t>;
  struct Known {
    Identity identity;
    Sha256 hash;
  };
  // Paths beyond this are forgotten and hashed anew.
  static constexpr std::size_t kKnownMax = 4096;

  absl::flat_hash_map<std::string, Known> known_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_MODULE_HASH_H_
