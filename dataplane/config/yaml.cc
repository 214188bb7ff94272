// SPDX-License-Identifier: Apache-2.0
// Parsing: yaml-cpp's events become our own small tree, which keeps a position for every key and value and
// costs a fraction of yaml-cpp's own nodes. Aliases are refused here, so a small file cannot expand.
#include "dataplane/config/yaml.h"

#include <fcntl.h>
#include <unistd.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <cerrno>
#include <sstream>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/status.h"

namespace weft {
namespace {

YamlPosition PositionFrom(const YAML::Mark& mark) {
  return mark.is_null() ? YamlPosition{} : YamlPosition{mark.line + 1, mark.column + 1};
}

// Thrown by the builder to end the parse; caught in YamlDocument::Parse.
struct StopParsing {};

// Builds the tree bottom up: a frame for each open list or mapping.
class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(YamlErrors* errors, YamlNode* root) : errors_(errors), root_(root) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnAnchor(const YAML::Mark& mark, const std::string&) override { Refuse(mark, "anchors"); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { Refuse(mark, "aliases"); }

  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    YamlNode node;
    node.position = PositionFrom(mark);
    Take(std::move(node));
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                const std::string& value) override {
    // yaml-cpp marks a plain scalar with "?" and one in quotes, or a block, with "!".
    YamlNode node;
    node.kind = tag == "?" ? YamlNode::Kind::kPlain : YamlNode::Kind::kQuoted;
    node.position = PositionFrom(mark);
    node.text = value;
    if (tag != "?" && tag != "!") Refuse(mark, "tags");
    Take(std::move(node));
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    Open(mark, tag, YamlNode::Kind::kList);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    Open(mark, tag, YamlNode::Kind::kMap);
  }
  void OnMapEnd() override { Close(); }

 private:
  struct Frame {
    YamlNode node;
    bool have_key = false;
    bool drop_value = false;                      // The key was refused; its value goes nowhere.
    YamlNode::Entry entry;                        // Its key is read, its value is not.
    absl::flat_hash_map<std::string, int> lines;  // Of each key, to name the first of two.
  };

  void Refuse(const YAML::Mark& mark, absl::string_view what) {
    errors_->Add(PositionFrom(mark), Path(), absl::StrCat("YAML ", what, " are not supported here"));
    throw StopParsing();
  }

  void Open(const YAML::Mark& mark, const std::string& tag, YamlNode::Kind kind) {
    if (tag != "?" && !tag.empty()) Refuse(mark, "tags");
    if (frames_.size() >= static_cast<std::size_t>(kYamlDepthMax)) {
      errors_->Add(PositionFrom(mark), "", absl::StrCat("nested deeper than ", kYamlDepthMax, " levels"));
      throw StopParsing();
    }
    Frame frame;
    frame.node.kind = kind;
    frame.node.position = PositionFrom(mark);
    frames_.push_back(std::move(frame));
  }

  void Close() {
    YamlNode node = std::move(frames_.back().node);
    frames_.pop_back();
    Take(std::move(node));
  }

  void Take(YamlNode node) {
    if (frames_.empty()) {
      *root_ = std::move(node);
      return;
    }
    Frame& frame = frames_.back();
    if (frame.node.kind == YamlNode::Kind::kList) {
      frame.node.values.push_back(std::move(node));
    } else if (!frame.have_key) {
      TakeKey(&frame, std::move(node));
    } else {
      frame.have_key = false;
      // yaml-cpp places an absent value at the token after it, often a line further down.
      if (node.kind == YamlNode::Kind::kNull) node.position = frame.entry.position;
      if (!std::exchange(frame.drop_value, false)) {
        frame.entry.value = std::move(node);
        frame.node.entries.push_back(std::exchange(frame.entry, {}));
      }
    }
  }

  void TakeKey(Frame* frame, YamlNode node) {
    if (node.kind != YamlNode::Kind::kPlain && node.kind != YamlNode::Kind::kQuoted) {
      errors_->Add(node.position, Path(), "a key must be a plain word");
      frame->drop_value = true;
    } else if (auto [it, fresh] = frame->lines.emplace(node.text, node.position.line); !fresh) {
      frame->entry.key = node.text;
      frame->have_key = true;  // For Path()
      errors_->Add(node.position, Path(), absl::StrCat("duplicate key, first at line ", it->second));
      frame->drop_value = true;
    }
    frame->have_key = true;
    frame->entry.key = std::move(node.text);
    frame->entry.position = node.position;
  }

  // Key path of what comes next.
  std::string Path() const {
    std::string path;
    for (const Frame& frame : frames_) {
      if (frame.node.kind == YamlNode::Kind::kList) {
        absl::StrAppend(&path, "[", frame.node.values.size(), "]");
      } else if (frame.have_key) {
        absl::StrAppend(&path, path.empty() ? "" : ".", frame.entry.key);
      }
    }
    return path;
  }

  YamlErrors* errors_;
  YamlNode* root_;
  std::vector<Frame> frames_;
};

// A name that is wrong may be as long as the file; a line of the log must not be.
constexpr std::size_t kKeyBytesMax = 200;
constexpr std::size_t kMessageBytesMax = 500;

std::string Cut(absl::string_view text, std::size_t bytes_max) {
  if (text.size() <= bytes_max) return std::string(text);
  return absl::StrCat(text.substr(0, bytes_max), "...");
}

// Position of the first byte that no text file holds; line 0 where there is none.
YamlPosition FindControlByte(absl::string_view text) {
  YamlPosition position{1, 1};
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == 0x7f || (byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r')) return position;
    ++position.column;
    if (byte == '\n') position = {position.line + 1, 1};
  }
  return {};
}

}  // namespace

void YamlErrors::Add(YamlPosition position, absl::string_view key, absl::string_view message) {
  if (lines_.size() >= kYamlErrorsMax) {
    ++dropped_;
    return;
  }
  std::string line = file_;
  if (position.line > 0) absl::StrAppend(&line, ":", position.line, ":", position.column);
  absl::StrAppend(&line, ": ", Cut(key, kKeyBytesMax), key.empty() ? "" : ": ",
                  Cut(message, kMessageBytesMax));
  lines_.push_back(std::move(line));
}

std::vector<std::string> YamlErrors::Lines() const {
  std::vector<std::string> lines = lines_;
  if (dropped_ > 0) lines.push_back(absl::StrCat(file_, ": ", dropped_, " further errors"));
  return lines;
}

absl::Status YamlErrors::ToStatus() const {
  if (empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(Lines(), "\n"));
}

YamlDocument YamlDocument::Parse(absl::string_view text, std::string file) {
  YamlDocument document(std::move(file));
  document.root_.kind = YamlNode::Kind::kMap;
  document.root_.position = {1, 1};
  if (const YamlPosition position = FindControlByte(text); position.line > 0) {
    document.errors_.Add(position, "", "a control character: not a text file");
    return document;
  }
  YamlNode root;
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    TreeBuilder builder(&document.errors_, &root);
    if (!parser.HandleNextDocument(builder) || root.kind == YamlNode::Kind::kNull) {
      document.errors_.Add({}, "", "the file is empty");
    } else if (root.kind != YamlNode::Kind::kMap) {
      document.errors_.Add(root.position, "", "must be a mapping of keys to values");
    } else {
      YamlNode second;
      TreeBuilder rest(&document.errors_, &second);
      if (parser.HandleNextDocument(rest)) {
        document.errors_.Add(second.position, "", "a second document: one a file is allowed");
      }
    }
  } catch (const StopParsing&) {
    root = YamlNode();  // What stopped it is among the errors.
  } catch (const YAML::Exception& e) {
    document.errors_.Add(PositionFrom(e.mark), "", absl::StrCat("not YAML: ", e.msg));
  } catch (const std::exception& e) {
    document.errors_.Add({}, "", absl::StrCat("not YAML: ", e.what()));
  }
  if (document.errors_.empty()) document.root_ = std::move(root);
  return document;
}

absl::Status YamlDocument::Read(const std::function<void(YamlMap&)>& read) {
  if (errors_.empty()) {
    YamlMap map(root_, "", &errors_);
    read(map);
  }
  return errors_.ToStatus();
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, std::size_t bytes_max) {
  // Never blocks on a FIFO that somebody put in the place of a file: it reads as empty.
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("open ", path));
  std::string text;
  char chunk[16 * 1024];
  for (;;) {
    const ssize_t count = read(fd.get(), chunk, sizeof(chunk));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return absl::ErrnoToStatus(errno, absl::StrCat("read ", path));
    if (count == 0) return text;
    text.append(chunk, static_cast<std::size_t>(count));
    if (text.size() > bytes_max) {
      return absl::OutOfRangeError(absl::StrCat("read ", path, ": larger than ", FormatBytes(bytes_max)));
    }
  }
}

absl::StatusOr<YamlDocument> LoadYaml(const std::string& path) {
  WEFT_ASSIGN_OR_RETURN(std::string text, ReadSmallFile(path));
  return YamlDocument::Parse(text, path);
}

}  // namespace weft
