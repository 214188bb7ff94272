// SPDX-License-Identifier: Apache-2.0
// Owner of one shared mapping of a file descriptor: move-only, unmaps on destruction.
#ifndef WEFT_DATAPLANE_BASE_MAPPING_H_
#define WEFT_DATAPLANE_BASE_MAPPING_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"

namespace weft {

class Mapping {
 public:
  enum class Access { kRead, kReadWrite };

  Mapping() = default;
  // Maps `bytes` of `fd` from `offset` on, shared. The descriptor may be closed afterwards. Fails with mmap's
  // errno.
  static absl::StatusOr<Mapping> Create(int fd, std::size_t bytes, Access access, uint64_t offset = 0);
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping();

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  Mapping(std::byte* data, std::size_t bytes) : data_(data), bytes_(bytes) {}
  void Unmap();

  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_MAPPING_H_
