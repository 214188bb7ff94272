// SPDX-License-Identifier: Apache-2.0
#include "tests/support/temporary_directory.h"

#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "dataplane/base/check.h"

namespace weft::test {

TemporaryDirectory::TemporaryDirectory() {
  char name[] = "/tmp/weft-test-XXXXXX";
  WEFT_CHECK(mkdtemp(name) != nullptr);
  WEFT_CHECK(chmod(name, 0755) == 0);
  path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void WriteFile(const std::string& path, const std::string& content) {
  const std::string temporary = path + ".new";
  std::ofstream(temporary) << content;
  WEFT_CHECK(rename(temporary.c_str(), path.c_str()) == 0);
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace weft::test
