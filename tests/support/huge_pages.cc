// SPDX-License-Identifier: Apache-2.0
#include "tests/support/huge_pages.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "dataplane/base/check.h"
#include "dataplane/base/fd.h"

namespace weft::test {
namespace {

int Read(int fd) {
  char text[32] = {};
  return pread(fd, text, sizeof(text) - 1, 0) > 0 ? std::atoi(text) : 0;
}

// Returns by how many the machine has more (or fewer) now. The setting is a total, so one at a time.
int Add(int count) {
  const UniqueFd fd(open("/proc/sys/vm/nr_hugepages", O_RDWR | O_CLOEXEC));
  WEFT_CHECK(fd.valid() && flock(fd.get(), LOCK_EX) == 0);
  const int before = Read(fd.get());
  const std::string total = std::to_string(before + count);
  WEFT_CHECK(pwrite(fd.get(), total.data(), total.size(), 0) == static_cast<ssize_t>(total.size()));
  return Read(fd.get()) - before;
}

}  // namespace

HugePages::HugePages(int count) : count_(Add(count)) {}

HugePages::~HugePages() { Add(-count_); }

}  // namespace weft::test
