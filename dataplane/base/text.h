// SPDX-License-Identifier: Apache-2.0
// Cutting text that goes on in a protobuf string, which refuses what is not UTF-8. Any thread.
#ifndef WEFT_DATAPLANE_BASE_TEXT_H_
#define WEFT_DATAPLANE_BASE_TEXT_H_

#include <cstddef>

#include "absl/strings/string_view.h"

namespace weft {

// The longest beginning of `text` of at most `bytes_max` bytes that does not end within a character: a
// tenant's text cut by bytes would be refused by whoever reads it next.
inline absl::string_view Utf8Prefix(absl::string_view text, std::size_t bytes_max) {
  if (text.size() <= bytes_max) return text;
  while (bytes_max > 0 && (static_cast<unsigned char>(text[bytes_max]) & 0xC0) == 0x80) --bytes_max;
  return text.substr(0, bytes_max);
}

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_TEXT_H_
