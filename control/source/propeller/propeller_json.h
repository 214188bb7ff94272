// SPDX-License-Identifier: Apache-2.0
// Fields of the JSON that Propeller sends, for the files that read it. Any thread.
#ifndef WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_JSON_H_
#define WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_JSON_H_

#include <simdjson.h>

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "dataplane/base/status.h"

namespace weft::control {

// Empty where the field is absent or null; INVALID_ARGUMENT where it is of another type.
inline absl::StatusOr<std::string> TextOf(const simdjson::dom::element& from, const char* key) {
  simdjson::dom::element value;
  if (from[key].get(value) != simdjson::SUCCESS || value.is_null()) return std::string();
  std::string_view text;
  if (value.get(text) != simdjson::SUCCESS)
    return absl::InvalidArgumentError(absl::StrCat(key, ": is no text"));
  return std::string(text);
}

// INVALID_ARGUMENT where it is absent or empty, too.
inline absl::StatusOr<std::string> NeededText(const simdjson::dom::element& from, const char* key) {
  WEFT_ASSIGN_OR_RETURN(std::string text, TextOf(from, key));
  if (text.empty()) return absl::InvalidArgumentError(absl::StrCat(key, ": is missing"));
  return text;
}

// False where the field is absent or of another type.
inline bool BoolOf(const simdjson::dom::element& from, const char* key) {
  bool value = false;
  return from[key].get(value) == simdjson::SUCCESS && value;
}

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_JSON_H_
