// SPDX-License-Identifier: Apache-2.0
#include "tools/weftctl/output.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "dataplane/base/text.h"
#include "tools/weftctl/admin_client.h"

namespace weft::ctl {
namespace {

// Columns that a terminal shows: bytes that do not continue a UTF-8 character.
std::size_t Width(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

void Pad(std::string* out, const std::string& text, std::size_t width) {
  absl::StrAppend(out, text);
  for (std::size_t at = Width(text); at < width; ++at) out->push_back(' ');
}

std::string FirstName(const api::Item& item) { return item.fields_size() == 0 ? "" : item.fields(0).name(); }

// Names of all fields of the rows, in the order in which they first appear.
std::vector<std::string> ColumnsOf(const std::vector<const api::Item*>& rows, bool wide) {
  std::vector<std::string> columns;
  for (const api::Item* row : rows) {
    for (const api::Item::Field& field : row->fields()) {
      if (std::find(columns.begin(), columns.end(), field.name()) == columns.end())
        columns.push_back(field.name());
      if (!wide && field.name() == "counters") break;
    }
  }
  return columns;
}

std::string Table(const std::vector<const api::Item*>& rows, bool wide) {
  const std::vector<std::string> columns = ColumnsOf(rows, wide);
  std::vector<std::vector<std::string>> lines(1);
  for (const std::string& column : columns) lines[0].push_back(absl::AsciiStrToUpper(Printable(column)));
  for (const api::Item* row : rows) {
    std::vector<std::string>& line = lines.emplace_back();
    for (const std::string& column : columns) {
      std::string value = Printable(TextOf(*row, column));
      line.push_back(value.empty() ? "-" : std::move(value));
    }
  }
  std::vector<std::size_t> widths(columns.size());
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], Width(line[i]));
  }
  std::string out;
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) {
      const bool last = i + 1 == line.size();
      Pad(&out, line[i], last ? 0 : widths[i] + 2);
    }
    out.push_back('\n');
  }
  return out;
}

// Name and value, line by line.
std::string Block(const api::Item& item) {
  std::size_t width = 0;
  for (const api::Item::Field& field : item.fields()) width = std::max(width, Width(field.name()));
  std::string out;
  for (const api::Item::Field& field : item.fields()) {
    const std::string value = Printable(ShownValue(field));
    if (&field == &item.fields(0)) {
      absl::StrAppend(&out, value, "\n");
    } else if (!value.empty()) {
      out += "  ";
      Pad(&out, Printable(field.name()), width + 2);
      absl::StrAppend(&out, value, "\n");
    }
  }
  return out;
}

std::string Render(const std::vector<api::Item>& items, bool wide, bool blocks) {
  std::string out;
  for (std::size_t begin = 0; begin < items.size();) {
    std::vector<const api::Item*> rows;
    const std::string name = FirstName(items[begin]);
    while (begin < items.size() && FirstName(items[begin]) == name) rows.push_back(&items[begin++]);
    if (!out.empty()) out.push_back('\n');
    if (blocks && name == "component") {
      for (const api::Item* row : rows) absl::StrAppend(&out, row == rows.front() ? "" : "\n", Block(*row));
    } else {
      absl::StrAppend(&out, Table(rows, wide));
    }
  }
  return out;
}

}  // namespace

std::string Printable(absl::string_view text, bool lines) {
  std::string printable;
  while (!text.empty()) {
    const std::size_t control = ControlBytes(text);
    printable.push_back(control == 0 || (lines && text[0] == '\n') ? text[0] : '?');
    text.remove_prefix(std::max<std::size_t>(control, 1));
  }
  return printable;
}

std::string ToTables(const std::vector<api::Item>& items, bool wide) { return Render(items, wide, false); }

std::string ToReport(const std::vector<api::Item>& items) { return Render(items, true, true); }

std::string ToJson(const std::string& kind, uint64_t generation, const std::vector<api::Item>& items) {
  nlohmann::ordered_json document;
  document["kind"] = kind;
  document["generation"] = generation;
  document["items"] = nlohmann::ordered_json::array();
  for (const api::Item& item : items) {
    nlohmann::ordered_json object = nlohmann::ordered_json::object();
    for (const api::Item::Field& field : item.fields()) {
      nlohmann::ordered_json& value = object[field.name()];
      switch (field.value_case()) {
        case api::Item::Field::kText:
          value = field.text();
          break;
        case api::Item::Field::kNumber:
          value = field.number();
          break;
        case api::Item::Field::kReal:
          value = field.real();
          break;
        case api::Item::Field::kFlag:
          value = field.flag();
          break;
        case api::Item::Field::VALUE_NOT_SET:
          break;  // null
      }
    }
    document["items"].push_back(std::move(object));
  }
  return ControlsEscaped(document.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace)) +
         "\n";
}

Row& Row::Text(const std::string& name, const std::string& value) {
  api::Item::Field* field = item_.add_fields();
  field->set_name(name);
  field->set_text(value);
  return *this;
}

Row& Row::Number(const std::string& name, int64_t value) {
  api::Item::Field* field = item_.add_fields();
  field->set_name(name);
  field->set_number(value);
  return *this;
}

Row& Row::Real(const std::string& name, double value) {
  api::Item::Field* field = item_.add_fields();
  field->set_name(name);
  field->set_real(value);
  return *this;
}

}  // namespace weft::ctl
