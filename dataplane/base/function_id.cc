// SPDX-License-Identifier: Apache-2.0
#include "dataplane/base/function_id.h"

#include <openssl/evp.h>

#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "dataplane/base/check.h"
#include "dataplane/base/status.h"

namespace weft {

Sha256 Sha256Of(absl::string_view bytes) {
  Sha256 digest;
  WEFT_CHECK(EVP_Digest(bytes.data(), bytes.size(), digest.data(), nullptr, EVP_sha256(), nullptr) == 1);
  return digest;
}

FunctionId FunctionIdOf(absl::string_view name) {
  const Sha256 digest = Sha256Of(name);
  uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value = value << 8 | digest[i];
  return FunctionId{value};
}

absl::Status CheckLabel(absl::string_view label, absl::string_view what) {
  auto alnum = [](char c) { return absl::ascii_islower(c) || absl::ascii_isdigit(c); };
  bool good =
      !label.empty() && label.size() <= kNamePartBytesMax && alnum(label.front()) && alnum(label.back());
  for (char c : label) good = good && (alnum(c) || c == '-' || c == '_' || c == '.');
  if (good) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, " \"", label, "\": must be 1 to ", kNamePartBytesMax,
                   " of a-z, 0-9, '-', '_', '.', and begin and end with a letter or digit"));
}

absl::Status CheckFunctionName(absl::string_view name) {
  const std::vector<absl::string_view> parts = absl::StrSplit(name, '/');
  if (parts.size() != 2) {
    return absl::InvalidArgumentError(absl::StrCat("function \"", name, "\": must be NAMESPACE/NAME"));
  }
  WEFT_RETURN_IF_ERROR(CheckLabel(parts[0], absl::StrCat("namespace of function \"", name, "\"")));
  return CheckLabel(parts[1], absl::StrCat("name of function \"", name, "\""));
}

absl::string_view NamespaceOf(absl::string_view name) { return name.substr(0, name.find('/')); }

}  // namespace weft
