// SPDX-License-Identifier: Apache-2.0
// Typed reading of a parsed mapping, and the words for what is wrong with a value.
#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "dataplane/config/yaml.h"

namespace weft {
namespace {

// What a plain scalar is by YAML 1.2's core schema.
enum class PlainType { kString, kBool, kNumber };

PlainType PlainTypeOf(absl::string_view text) {
  if (text == "true" || text == "false") return PlainType::kBool;
  double number;
  // Names such as "infinity" or "nan" stay strings: only what holds a digit is a number.
  const bool digit = std::any_of(text.begin(), text.end(), [](char c) { return absl::ascii_isdigit(c); });
  if (digit && absl::SimpleAtod(text, &number)) return PlainType::kNumber;
  return PlainType::kString;
}

std::string Describe(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "nothing";
    case YamlNode::Kind::kList:
      return "a list";
    case YamlNode::Kind::kMap:
      return "a mapping";
    case YamlNode::Kind::kQuoted:
      return absl::StrCat("the text \"", node.text.substr(0, 40), "\"");
    case YamlNode::Kind::kPlain:
      break;
  }
  return node.text.substr(0, 40);
}

bool IsScalar(const YamlNode& node) {
  return node.kind == YamlNode::Kind::kPlain || node.kind == YamlNode::Kind::kQuoted;
}

// Number of single-letter edits from `a` to `b`; both are short keys.
std::size_t EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({replaced, row[j] + 1, row[j - 1] + 1}));
    }
  }
  return row[b.size()];
}

}  // namespace

YamlMap::YamlMap(const YamlNode& node, std::string path, YamlErrors* errors)
    : node_(&node), path_(std::move(path)), errors_(errors), known_(node.entries.size()) {}

YamlMap::~YamlMap() { ReportUnknown(); }

void YamlMap::ReportUnknown() {
  for (std::size_t i = 0; i < known_.size(); ++i) {
    if (known_[i]) continue;
    const YamlNode::Entry& entry = node_->entries[i];
    std::string message = "unknown key";
    // A key may be as long as the file; only what could be a slip of the fingers is compared.
    std::size_t best = 3;
    absl::string_view meant;
    for (absl::string_view word : vocabulary_) {
      if (entry.key.size() > word.size() + 2) continue;
      const std::size_t distance = EditDistance(entry.key, word);
      if (distance < std::min(best, word.size())) {
        best = distance;
        meant = word;
      }
    }
    if (!meant.empty()) absl::StrAppend(&message, "; did you mean \"", meant, "\"?");
    errors_->Add(entry.position, PathOf(entry.key.substr(0, 80)), message);
  }
}

bool YamlMap::Has(absl::string_view key) const {
  return std::any_of(node_->entries.begin(), node_->entries.end(),
                     [&](const YamlNode::Entry& entry) { return entry.key == key; });
}

void YamlMap::Require(std::initializer_list<absl::string_view> keys) {
  for (absl::string_view key : keys) {
    if (!Has(key)) errors_->Add(node_->position, PathOf(key), "missing");
  }
}

std::string YamlMap::PathOf(absl::string_view key) const {
  if (key.empty()) return path_;
  return path_.empty() ? std::string(key) : absl::StrCat(path_, ".", key);
}

YamlPosition YamlMap::PositionOf(absl::string_view key) const {
  for (const YamlNode::Entry& entry : node_->entries) {
    if (entry.key == key) return entry.value.position.line > 0 ? entry.value.position : entry.position;
  }
  return node_->position;
}

void YamlMap::Error(absl::string_view key, absl::string_view message) {
  errors_->Add(PositionOf(key), PathOf(key), message);
}

void YamlMap::Unsupported(absl::string_view key, absl::string_view message) {
  if (Find(key) != nullptr) Error(key, message);
}

bool YamlMap::Check(absl::string_view key, const absl::Status& status) {
  if (!status.ok()) Error(key, status.message());
  return status.ok();
}

void YamlMap::WrongType(const std::string& path, const YamlNode& node, absl::string_view expected) {
  errors_->Add(node.position, path, absl::StrCat("must be ", expected, ", not ", Describe(node)));
}

const YamlNode* YamlMap::Find(absl::string_view key) {
  vocabulary_.push_back(key);
  for (std::size_t i = 0; i < node_->entries.size(); ++i) {
    if (node_->entries[i].key != key) continue;
    known_[i] = true;
    return &node_->entries[i].value;
  }
  return nullptr;
}

const YamlNode* YamlMap::FindScalar(absl::string_view key, absl::string_view expected) {
  const YamlNode* node = Find(key);
  if (node == nullptr) return nullptr;
  if (IsScalar(*node)) return node;
  WrongType(PathOf(key), *node, expected);
  return nullptr;
}

std::string YamlMap::Scalar(absl::string_view key, absl::string_view fallback) {
  const YamlNode* node = FindScalar(key, "a word or number");
  return node == nullptr ? std::string(fallback) : node->text;
}

std::string YamlMap::String(absl::string_view key, absl::string_view fallback) {
  const YamlNode* node = FindScalar(key, "a text");
  if (node == nullptr) return std::string(fallback);
  if (node->kind == YamlNode::Kind::kPlain && PlainTypeOf(node->text) != PlainType::kString) {
    WrongType(PathOf(key), *node, "a text (in quotes where it looks like a number or a truth value)");
    return std::string(fallback);
  }
  return node->text;
}

std::string YamlMap::NonEmptyString(absl::string_view key) {
  std::string text = String(key, "x");  // Not empty where the type was wrong and is reported already.
  if (text.empty()) Error(key, "must not be empty");
  const YamlNode* node = Find(key);
  return node != nullptr && IsScalar(*node) && node->text == text ? text : "";
}

bool YamlMap::Bool(absl::string_view key, bool fallback) {
  const YamlNode* node = FindScalar(key, "true or false");
  if (node == nullptr) return fallback;
  if (node->kind == YamlNode::Kind::kPlain && node->text == "true") return true;
  if (node->kind == YamlNode::Kind::kPlain && node->text == "false") return false;
  WrongType(PathOf(key), *node, "true or false");
  return fallback;
}

uint64_t YamlMap::Uint(absl::string_view key, uint64_t min, uint64_t max, uint64_t fallback) {
  const std::string expected = max == std::numeric_limits<uint64_t>::max()
                                   ? absl::StrCat("a whole number of at least ", min)
                                   : absl::StrCat("a whole number from ", min, " to ", max);
  const YamlNode* node = FindScalar(key, expected);
  if (node == nullptr) return fallback;
  uint64_t value = 0;
  // Digits only: SimpleAtoi also takes spaces and a sign.
  const bool digits =
      std::all_of(node->text.begin(), node->text.end(), [](char c) { return absl::ascii_isdigit(c); });
  if (node->kind == YamlNode::Kind::kPlain && digits && absl::SimpleAtoi(node->text, &value) &&
      value >= min && value <= max) {
    return value;
  }
  WrongType(PathOf(key), *node, expected);
  return fallback;
}

uint64_t YamlMap::DurationNs(absl::string_view key, uint64_t min_ns, uint64_t max_ns, uint64_t fallback_ns) {
  const YamlNode* node = FindScalar(key, "a duration such as 250ms");
  if (node == nullptr) return fallback_ns;
  const absl::StatusOr<uint64_t> value = ParseDurationNs(node->text);
  if (!value.ok()) {
    errors_->Add(node->position, PathOf(key), value.status().message());
    return fallback_ns;
  }
  if (*value >= min_ns && *value <= max_ns) return *value;
  WrongType(PathOf(key), *node,
            absl::StrCat("a duration from ", FormatDurationNs(min_ns), " to ", FormatDurationNs(max_ns)));
  return fallback_ns;
}

uint64_t YamlMap::Bytes(absl::string_view key, uint64_t min, uint64_t max, uint64_t fallback) {
  const YamlNode* node = FindScalar(key, "a size such as 64KiB");
  if (node == nullptr) return fallback;
  const absl::StatusOr<uint64_t> value = ParseBytes(node->text);
  if (!value.ok()) {
    errors_->Add(node->position, PathOf(key), value.status().message());
    return fallback;
  }
  if (*value >= min && *value <= max) return *value;
  WrongType(PathOf(key), *node, absl::StrCat("a size from ", FormatBytes(min), " to ", FormatBytes(max)));
  return fallback;
}

std::size_t YamlMap::Enum(absl::string_view key, std::initializer_list<absl::string_view> names,
                          std::size_t fallback) {
  const std::string expected = absl::StrJoin(names, " or ");
  const YamlNode* node = FindScalar(key, expected);
  if (node == nullptr) return fallback;
  const auto found = std::find(names.begin(), names.end(), node->text);
  if (found != names.end()) return static_cast<std::size_t>(found - names.begin());
  WrongType(PathOf(key), *node, expected);
  return fallback;
}

std::vector<std::string> YamlMap::Strings(absl::string_view key) {
  std::vector<std::string> result;
  const YamlNode* node = Find(key);
  if (node == nullptr) return result;
  if (node->kind != YamlNode::Kind::kList) {
    WrongType(PathOf(key), *node, "a list of texts");
    return result;
  }
  for (std::size_t i = 0; i < node->values.size(); ++i) {
    const YamlNode& value = node->values[i];
    const bool text = value.kind == YamlNode::Kind::kQuoted ||
                      (value.kind == YamlNode::Kind::kPlain && PlainTypeOf(value.text) == PlainType::kString);
    if (text) {
      result.push_back(value.text);
    } else {
      WrongType(absl::StrCat(PathOf(key), "[", i, "]"), value, "a text");
    }
  }
  return result;
}

void YamlMap::Map(absl::string_view key, const std::function<void(YamlMap&)>& read) {
  const YamlNode* node = Find(key);
  if (node == nullptr) return;
  if (node->kind != YamlNode::Kind::kMap) {
    WrongType(PathOf(key), *node, "a mapping");
    return;
  }
  YamlMap map(*node, PathOf(key), errors_);
  read(map);
}

void YamlMap::Maps(absl::string_view key, const std::function<void(YamlMap&)>& read) {
  const YamlNode* node = Find(key);
  if (node == nullptr) return;
  if (node->kind != YamlNode::Kind::kList) {
    WrongType(PathOf(key), *node, "a list");
    return;
  }
  for (std::size_t i = 0; i < node->values.size(); ++i) {
    const std::string path = absl::StrCat(PathOf(key), "[", i, "]");
    if (node->values[i].kind != YamlNode::Kind::kMap) {
      WrongType(path, node->values[i], "a mapping");
      continue;
    }
    YamlMap map(node->values[i], path, errors_);
    read(map);
  }
}

}  // namespace weft
