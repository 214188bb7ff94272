// SPDX-License-Identifier: Apache-2.0
// What strangers' text is looked through for before it goes on in a protobuf string, which refuses what is
// not UTF-8, or to a terminal. Any thread.
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

// Bytes of the control character that `text` begins with; 0 where it begins with none. Those that UTF-8 takes
// two bytes for count: a terminal may take U+009B for the beginning of a sequence, as it does ESC and [.
inline std::size_t ControlBytes(absl::string_view text) {
  if (text.empty()) return 0;
  const auto first = static_cast<unsigned char>(text[0]);
  if (first < 0x20 || first == 0x7f) return 1;
  const bool c1 = first == 0xc2 && text.size() > 1 && static_cast<unsigned char>(text[1]) >= 0x80 &&
                  static_cast<unsigned char>(text[1]) < 0xa0;
  return c1 ? 2 : 0;
}

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_TEXT_H_
