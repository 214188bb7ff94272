// SPDX-License-Identifier: Apache-2.0
#include "dataplane/call/trace_context.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace weft {
namespace {

// Where the fields begin in the bytes and in the text, and how many bytes they have.
struct Field {
  std::size_t byte;
  std::size_t text;
  std::size_t bytes;
};
constexpr Field kFields[] = {{0, 0, 1}, {1, 3, 16}, {17, 36, 8}, {25, 53, 1}};
constexpr std::size_t kTextBytes = 55;

bool IsLowerHex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

}  // namespace

absl::StatusOr<TraceContext> TraceContext::FromTraceparent(absl::string_view text) {
  const auto error = [&] {
    return absl::InvalidArgumentError(absl::StrCat("traceparent \"", absl::CHexEscape(text.substr(0, 80)),
                                                   "\": not of the form 00-<32 hex>-<16 hex>-<2 hex>"));
  };
  if (text.size() != kTextBytes || text[2] != '-' || text[35] != '-' || text[52] != '-') return error();
  TraceContext context;
  for (const Field& field : kFields) {
    const absl::string_view hex = text.substr(field.text, 2 * field.bytes);
    if (!std::all_of(hex.begin(), hex.end(), IsLowerHex)) return error();
    const std::string bytes = absl::HexStringToBytes(hex);
    std::memcpy(context.bytes_.data() + field.byte, bytes.data(), field.bytes);
  }
  const auto is_zero = [&](const Field& field) {
    const auto first = context.bytes_.begin() + static_cast<std::ptrdiff_t>(field.byte);
    return std::all_of(first, first + static_cast<std::ptrdiff_t>(field.bytes),
                       [](std::byte b) { return b == std::byte{0}; });
  };
  if (context.bytes_[0] == std::byte{0xff} || is_zero(kFields[1]) || is_zero(kFields[2])) return error();
  return context;
}

TraceContext TraceContext::FromWire(std::span<const std::byte, kTraceBytes> bytes) {
  TraceContext context;
  std::copy(bytes.begin(), bytes.end(), context.bytes_.begin());
  return context;
}

std::string TraceContext::ToTraceparent() const {
  std::string text;
  for (const Field& field : kFields) {
    if (!text.empty()) text += '-';
    absl::StrAppend(&text, absl::BytesToHexString(absl::string_view(
                               reinterpret_cast<const char*>(bytes_.data() + field.byte), field.bytes)));
  }
  return text;
}

}  // namespace weft
