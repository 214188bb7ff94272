// SPDX-License-Identifier: Apache-2.0
// What strangers' text is looked through for before it goes on in a protobuf string, which refuses what is
// not UTF-8, or to a terminal. Any thread.
#ifndef WEFT_DATAPLANE_BASE_TEXT_H_
#define WEFT_DATAPLANE_BASE_TEXT_H_

#include <cstddef>
#include <string>

#include "absl/strings/str_cat.h"
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

// Bytes of the character that `text` begins with; 0 where it begins with none that UTF-8 has.
inline std::size_t CharacterBytes(absl::string_view text) {
  if (text.empty()) return 0;
  const auto at = [text](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = at(0);
  if (first < 0x80) return 1;
  const std::size_t bytes = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  if (bytes == 0 || bytes > text.size()) return 0;
  for (std::size_t i = 1; i < bytes; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
  }
  // Neither longer than it need be, nor half of a pair of UTF-16, nor beyond the last one.
  const bool wrong = (first == 0xe0 && at(1) < 0xa0) || (first == 0xed && at(1) >= 0xa0) ||
                     (first == 0xf0 && at(1) < 0x90) || (first == 0xf4 && at(1) >= 0x90);
  return wrong ? 0 : bytes;
}

// `text` with `?` for each byte that is no UTF-8, as a file's name may have.
inline std::string Utf8Of(absl::string_view text) {
  std::string good;
  good.reserve(text.size());
  while (!text.empty()) {
    const std::size_t bytes = CharacterBytes(text);
    absl::StrAppend(&good, bytes == 0 ? "?" : text.substr(0, bytes));
    text.remove_prefix(bytes == 0 ? 1 : bytes);
  }
  return good;
}

// `json` with each control character that JSON leaves as it is, U+007F to U+009F, written as `\u009b`: they
// are in its strings only.
inline std::string ControlsEscaped(absl::string_view json) {
  std::string escaped;
  escaped.reserve(json.size());
  while (!json.empty()) {
    const std::size_t control = static_cast<unsigned char>(json[0]) < 0x20 ? 0 : ControlBytes(json);
    if (control == 0) {
      escaped.push_back(json[0]);
    } else {
      // The second of two bytes is the character's number.
      const auto character = static_cast<unsigned char>(json[control - 1]);
      absl::StrAppend(&escaped, "\\u", absl::Hex(character, absl::kZeroPad4));
    }
    json.remove_prefix(control == 0 ? 1 : control);
  }
  return escaped;
}

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_TEXT_H_
