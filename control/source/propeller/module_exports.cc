// SPDX-License-Identifier: Apache-2.0
#include "control/source/propeller/module_exports.h"

#include <cstdint>
#include <optional>

namespace weft::control {
namespace {

constexpr absl::string_view kCoreModule("\0asm\1\0\0\0", 8);
constexpr uint8_t kExportSection = 7;
constexpr absl::string_view kHandler = "weft_handle";

// Reads from the front of `bytes`; nothing where they end too early.
std::optional<uint8_t> TakeByte(absl::string_view* bytes) {
  if (bytes->empty()) return std::nullopt;
  const auto byte = static_cast<uint8_t>(bytes->front());
  bytes->remove_prefix(1);
  return byte;
}

// LEB128
std::optional<uint32_t> TakeNumber(absl::string_view* bytes) {
  uint64_t number = 0;
  for (int shift = 0; shift < 35; shift += 7) {
    const std::optional<uint8_t> byte = TakeByte(bytes);
    if (!byte.has_value()) return std::nullopt;
    number |= uint64_t{*byte & 0x7fu} << shift;
    if ((*byte & 0x80u) == 0) {
      if (number > UINT32_MAX) return std::nullopt;
      return static_cast<uint32_t>(number);
    }
  }
  return std::nullopt;
}

std::optional<absl::string_view> TakeBytes(absl::string_view* bytes) {
  const std::optional<uint32_t> size = TakeNumber(bytes);
  if (!size.has_value() || *size > bytes->size()) return std::nullopt;
  const absl::string_view taken = bytes->substr(0, *size);
  bytes->remove_prefix(*size);
  return taken;
}

// True, too, where the section cannot be read.
bool NamesHandler(absl::string_view section) {
  const std::optional<uint32_t> count = TakeNumber(&section);
  if (!count.has_value()) return true;
  for (uint32_t i = 0; i < *count; ++i) {
    const std::optional<absl::string_view> name = TakeBytes(&section);
    if (!name.has_value() || *name == kHandler) return true;
    if (!TakeByte(&section).has_value() || !TakeNumber(&section).has_value()) return true;  // Kind and index
  }
  return false;
}

}  // namespace

bool ServesCalls(absl::string_view module) {
  if (module.substr(0, kCoreModule.size()) != kCoreModule) return true;
  module.remove_prefix(kCoreModule.size());
  while (!module.empty()) {
    const std::optional<uint8_t> id = TakeByte(&module);
    const std::optional<absl::string_view> section = TakeBytes(&module);
    if (!id.has_value() || !section.has_value()) return true;
    if (*id == kExportSection) return NamesHandler(*section);
  }
  return false;
}

}  // namespace weft::control
