// SPDX-License-Identifier: Apache-2.0
// Reads the objects of a store whose keys name them. Objects by the ten thousand have few different texts
// ("{}", one weight), and parsing YAML takes some 30 us: a text that was read before is not parsed again. One
// thread.
#ifndef WEFT_CONTROL_SOURCE_OBJECT_READER_H_
#define WEFT_CONTROL_SOURCE_OBJECT_READER_H_

#include <array>
#include <cstddef>
#include <string>
#include <variant>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "control/source/mesh_object.h"

namespace weft::control {

class ObjectReader {
 public:
  // As LoadObject() (mesh_yaml.h).
  absl::Status Read(absl::string_view text, const std::string& origin, MeshObject* object);

 private:
  // Texts beyond these are forgotten all at once, and longer ones never kept.
  static constexpr std::size_t kTextsMax = 256;
  static constexpr std::size_t kTextBytesMax = 1024;

  // By kind and text: the object without its names.
  std::array<absl::flat_hash_map<std::string, MeshObject>, std::variant_size_v<MeshObject>> read_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_OBJECT_READER_H_
