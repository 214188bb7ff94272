// SPDX-License-Identifier: Apache-2.0
// An answer to a query in parts that each fit a packet, as weftd and weft-control give it. Any thread.
#ifndef WEFT_DATAPLANE_API_QUERY_PACKETS_H_
#define WEFT_DATAPLANE_API_QUERY_PACKETS_H_

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "dataplane/api/admin.pb.h"

namespace weft::api {

// Rows are packed into packets up to about this size.
inline constexpr std::size_t kReplyBytesMax = 48 * 1024;
// Of a row that would be longer, texts are cut to this, of which two fit, or to half of it, and so on.
inline constexpr std::size_t kCutTextBytesMax = 16 * 1024;
inline constexpr std::size_t kCutTextBytesMin = 64;

// The longest beginning of `text` of at most `bytes_max` bytes that is still a text: Utf8Prefix.
using TextPrefix = absl::string_view (*)(absl::string_view text, std::size_t bytes_max);

// Cuts the longest texts of a row that would not fit a packet, each at its end and no more than need be.
inline void CutToFit(Item* row, TextPrefix prefix) {
  constexpr char kCut[] = " ... (cut)";
  for (std::size_t bytes_max = kCutTextBytesMax;
       row->ByteSizeLong() >= kReplyBytesMax && bytes_max >= kCutTextBytesMin; bytes_max /= 2) {
    for (Item::Field& field : *row->mutable_fields()) {
      if (field.text().size() < bytes_max + sizeof(kCut)) continue;
      field.set_text(absl::StrCat(prefix(field.text(), bytes_max), kCut));
    }
  }
}

// One part at least; each but the last says that there are more.
inline std::vector<QueryReply> PacketsOf(QueryReply reply, TextPrefix prefix) {
  std::vector<QueryReply> parts;
  std::size_t bytes = 0;  // Of the last part's rows.
  const auto begin_part = [&] {
    if (!parts.empty()) parts.back().set_more(true);
    parts.emplace_back().set_generation(reply.generation());
    bytes = 0;
  };
  begin_part();
  for (Item& row : *reply.mutable_items()) {
    CutToFit(&row, prefix);
    const std::size_t row_bytes = row.ByteSizeLong();
    if (bytes != 0 && bytes + row_bytes >= kReplyBytesMax) begin_part();
    bytes += row_bytes;
    *parts.back().add_items() = std::move(row);
  }
  return parts;
}

}  // namespace weft::api

#endif  // WEFT_DATAPLANE_API_QUERY_PACKETS_H_
