// SPDX-License-Identifier: Apache-2.0
// A directory that lives as long as its object, for sockets and state of a test.
#ifndef WEFT_TESTS_SUPPORT_TEMPORARY_DIRECTORY_H_
#define WEFT_TESTS_SUPPORT_TEMPORARY_DIRECTORY_H_

#include <string>

namespace weft::test {

class TemporaryDirectory {
 public:
  // Makes /tmp/weft-test-XXXXXX with mode 0755: the hosts of a test run under other users.
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// Replaces `path` by `content` in one step, as an editor does: written beside it, then renamed.
void WriteFile(const std::string& path, const std::string& content);
std::string ReadFile(const std::string& path);

}  // namespace weft::test

#endif  // WEFT_TESTS_SUPPORT_TEMPORARY_DIRECTORY_H_
