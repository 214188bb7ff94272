// SPDX-License-Identifier: Apache-2.0
// Strict reader of YAML files: the mesh files of weft-control and weftd.yaml. What a program does not read is
// an error, and so is what it cannot read: unknown and duplicate keys, wrong types, anchors, tags, a second
// document. Every error names file, line, column and key path, and reading goes on after it, so that one run
// reports them all. yaml-cpp's exceptions end here. One thread at a time.
#ifndef WEFT_DATAPLANE_CONFIG_YAML_H_
#define WEFT_DATAPLANE_CONFIG_YAML_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace weft {

// Larger files are refused unread: about 100,000 endpoints.
inline constexpr std::size_t kYamlBytesMax = 16 * 1024 * 1024;
// Deepest nesting. A mesh file needs four levels.
inline constexpr int kYamlDepthMax = 16;
// Errors that one document reports; further ones are counted only.
inline constexpr std::size_t kYamlErrorsMax = 20;

struct YamlPosition {
  int line = 0;  // From 1; 0 is no position.
  int column = 0;
};

// One value of a document. Scalars keep their text; what it means is decided by the getter that reads it.
struct YamlNode {
  enum class Kind : uint8_t { kNull, kPlain, kQuoted, kList, kMap };
  struct Entry;

  Kind kind = Kind::kNull;
  YamlPosition position;
  std::string text;              // kPlain and kQuoted
  std::vector<YamlNode> values;  // kList
  std::vector<Entry> entries;    // kMap, in the order of the file; keys are unique.
};

struct YamlNode::Entry {
  std::string key;
  YamlPosition position;  // Of the key
  YamlNode value;
};

// "mesh.yaml:14:11: endpoints[3].weight: must be 1 to 1000, not 0", in the order found.
class YamlErrors {
 public:
  explicit YamlErrors(std::string file) : file_(std::move(file)) {}

  // `key` is the path of the key, may be empty; a position without line names the file alone.
  void Add(YamlPosition position, absl::string_view key, absl::string_view message);

  bool empty() const { return lines_.empty(); }
  // At most kYamlErrorsMax, then one line that counts the rest.
  std::vector<std::string> Lines() const;
  // OK where there is none, else INVALID_ARGUMENT with all lines.
  absl::Status ToStatus() const;
  const std::string& file() const { return file_; }

 private:
  std::string file_;
  std::vector<std::string> lines_;
  std::size_t dropped_ = 0;
};

// One mapping being read, key by key. Each getter marks its key as known; the destructor reports every key
// that no getter asked for. A getter of an absent key returns the fallback without an error (see Require);
// one of a wrong value reports it and returns the fallback. Borrows node and errors.
class YamlMap {
 public:
  // `path` is the key path of the mapping itself, "" for the root.
  YamlMap(const YamlNode& node, std::string path, YamlErrors* errors);
  YamlMap(const YamlMap&) = delete;
  YamlMap& operator=(const YamlMap&) = delete;
  ~YamlMap();

  // True where the key stands there with a value, even a wrong one. Does not mark it as known.
  bool Has(absl::string_view key) const;
  // Reports each key that is absent.
  void Require(std::initializer_list<absl::string_view> keys);

  // Text, in quotes or plain; a plain number, true or false is a wrong type.
  std::string String(absl::string_view key, absl::string_view fallback = "");
  // The same, and an empty text is an error.
  std::string NonEmptyString(absl::string_view key);
  // Any scalar as it was written, as in `user: 1000` or `user: weft`.
  std::string Scalar(absl::string_view key, absl::string_view fallback = "");
  bool Bool(absl::string_view key, bool fallback = false);
  uint64_t Uint(absl::string_view key, uint64_t min, uint64_t max, uint64_t fallback = 0);
  // In ns: a number and one of ns, us, ms, s, m, h, as in "250ms" or "1.5s". `min_ns` and `max_ns` are
  // allowed.
  uint64_t DurationNs(absl::string_view key, uint64_t min_ns, uint64_t max_ns, uint64_t fallback_ns = 0);
  // In bytes: a whole number alone or with one of KiB, MiB, GiB.
  uint64_t Bytes(absl::string_view key, uint64_t min, uint64_t max, uint64_t fallback = 0);
  // Index into `names` of the word that stands there.
  std::size_t Enum(absl::string_view key, std::initializer_list<absl::string_view> names,
                   std::size_t fallback = 0);
  // A list of texts; a wrong element is reported and left out.
  std::vector<std::string> Strings(absl::string_view key);

  // Calls read(map) for the mapping under `key`, where there is one.
  void Map(absl::string_view key, const std::function<void(YamlMap&)>& read);
  // Calls read(map) for each element of the list under `key`; an element that is no mapping is reported.
  void Maps(absl::string_view key, const std::function<void(YamlMap&)>& read);

  // Reports `message` where `key` stands there at all: for what another version may support.
  void Unsupported(absl::string_view key, absl::string_view message);
  // Reports `message` at the value of `key`, or at the mapping where the key is absent.
  void Error(absl::string_view key, absl::string_view message);
  // Reports `status` in the same way unless it is OK. Returns status.ok().
  bool Check(absl::string_view key, const absl::Status& status);
  // "endpoints[3].weight"
  std::string PathOf(absl::string_view key) const;
  // Of the value of `key`; of the mapping where the key is absent or empty.
  YamlPosition PositionOf(absl::string_view key) const;
  YamlErrors& errors() { return *errors_; }

 private:
  const YamlNode* Find(absl::string_view key);
  const YamlNode* FindScalar(absl::string_view key, absl::string_view expected);
  void WrongType(const std::string& path, const YamlNode& node, absl::string_view expected);
  void ReportUnknown();

  const YamlNode* node_;
  std::string path_;
  YamlErrors* errors_;
  std::vector<bool> known_;  // By entry
  std::vector<absl::string_view>
      vocabulary_;  // Keys that were asked for; the getters' arguments outlive the map.
};

// A parsed file: its tree, and the errors found while parsing and reading.
class YamlDocument {
 public:
  // Never fails outright: where the text is no YAML, errors() says so and root() is an empty mapping. `file`
  // is the name that errors carry.
  static YamlDocument Parse(absl::string_view text, std::string file);

  YamlDocument(YamlDocument&&) = default;
  YamlDocument& operator=(YamlDocument&&) = default;

  // Calls read(map) for the root mapping unless parsing failed, then reports unknown keys. Returns
  // errors().ToStatus().
  absl::Status Read(const std::function<void(YamlMap&)>& read);

  const YamlNode& root() const { return root_; }
  YamlErrors& errors() { return errors_; }

 private:
  explicit YamlDocument(std::string file) : errors_(std::move(file)) {}

  YamlNode root_;
  YamlErrors errors_;
};

// Reads `path` whole and parses it. The errors name the path as given. Fails where the file cannot be read or
// is larger than kYamlBytesMax. Blocks.
absl::StatusOr<YamlDocument> LoadYaml(const std::string& path);

// The whole of a file, with the same errors and limit.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, std::size_t bytes_max = kYamlBytesMax);

// "250ms" → ns; "64KiB" → bytes. INVALID_ARGUMENT says what is wrong and how to write it.
absl::StatusOr<uint64_t> ParseDurationNs(absl::string_view text);
absl::StatusOr<uint64_t> ParseBytes(absl::string_view text);
// The shortest text that parses back to the same value: 1'500'000'000 → "1500ms", 65'536 → "64KiB".
std::string FormatDurationNs(uint64_t ns);
std::string FormatBytes(uint64_t bytes);

}  // namespace weft

#endif  // WEFT_DATAPLANE_CONFIG_YAML_H_
