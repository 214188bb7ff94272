// SPDX-License-Identifier: Apache-2.0
// Modules that a registry sends in numbered parts, which everybody on the channel hears: puts together those
// that are wanted. Parts come in any order and several times, since others ask too; parts that contradict
// what is there belong to another transfer, and begin it anew. Bounded in all. Pure; one thread.
#ifndef WEFT_CONTROL_SOURCE_PROPELLER_CHUNKED_MODULES_H_
#define WEFT_CONTROL_SOURCE_PROPELLER_CHUNKED_MODULES_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "control/source/module_hash.h"

namespace weft::control {

class ChunkedModules {
 public:
  static constexpr uint64_t kChunksMax = 65'536;

  explicit ChunkedModules(std::size_t bytes_max = kModuleBytesMax) : bytes_max_(bytes_max) {}

  // Returns whether it was not wanted before, and is thus to be asked for.
  bool Want(const std::string& image) { return wanted_.try_emplace(image).second; }
  void Forget(const std::string& image);
  bool Wanted(const std::string& image) const { return wanted_.contains(image); }
  // Those of which no part has come yet.
  std::vector<std::string> Silent() const;
  // Parts were missed: all begin anew.
  void BeginAnew();

  // The whole module once it is there, empty before; then the image is wanted no more. An error: it will not
  // come. Parts of what is not wanted are dropped.
  absl::StatusOr<std::string> Take(const std::string& image, uint64_t index, uint64_t total,
                                   std::string bytes);

 private:
  struct Transfer {
    uint64_t total = 0;  // 0: nothing came yet
    std::map<uint64_t, std::string> parts;
    std::size_t bytes = 0;
  };
  void Clear(Transfer* transfer);

  std::size_t bytes_max_;
  std::size_t bytes_ = 0;  // Of all transfers
  std::map<std::string, Transfer> wanted_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_PROPELLER_CHUNKED_MODULES_H_
