// SPDX-License-Identifier: Apache-2.0
// What weftctl prints: rows as aligned tables for people, or as JSON for programs. Pure.
#ifndef WEFT_TOOLS_WEFTCTL_OUTPUT_H_
#define WEFT_TOOLS_WEFTCTL_OUTPUT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "dataplane/api/admin.pb.h"

namespace weft::ctl {

enum class Format { kTable, kWide, kJson, kYaml };  // kYaml: of policy alone

// With `?` for each control character, which would speak to the terminal where a name is a stranger's;
// `lines`: but for the ends of lines.
std::string Printable(absl::string_view text, bool lines = false);

// Rows whose first field has the same name form one table, in the order of the rows. Columns are named by the
// fields, in capitals. kTable leaves out the counters of hosts, channels and functions: what comes after a
// field `counters`.
std::string ToTables(const std::vector<api::Item>& items, bool wide);

// The same, with each row of `component` as a list of names and values: for `weftctl status`.
std::string ToReport(const std::vector<api::Item>& items);

// {"kind": …, "generation": …, "items": […]}, values with their types. Bytes that are no UTF-8 are replaced,
// control characters escaped.
std::string ToJson(const std::string& kind, uint64_t generation, const std::vector<api::Item>& items);

// Builds a row.
class Row {
 public:
  Row& Text(const std::string& name, const std::string& value);
  Row& Number(const std::string& name, int64_t value);
  Row& Real(const std::string& name, double value);
  api::Item Take() { return std::move(item_); }

 private:
  api::Item item_;
};

}  // namespace weft::ctl

#endif  // WEFT_TOOLS_WEFTCTL_OUTPUT_H_
