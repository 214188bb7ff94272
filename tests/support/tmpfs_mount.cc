// SPDX-License-Identifier: Apache-2.0
#include "tests/support/tmpfs_mount.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/check.h"
#include "dataplane/base/fd.h"

namespace weft::test {
namespace {

constexpr char kFiller[] = "/filler";

}  // namespace

TmpfsMount::TmpfsMount(std::string path, std::size_t bytes) : path_(std::move(path)) {
  static const bool own_namespace =
      unshare(CLONE_NEWNS) == 0 && mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  WEFT_CHECK(own_namespace);
  WEFT_CHECK(mkdir(path_.c_str(), 0750) == 0 || errno == EEXIST);
  WEFT_CHECK(mount("weft-test", path_.c_str(), "tmpfs", 0, absl::StrCat("mode=0750,size=", bytes).c_str()) ==
             0);
}

TmpfsMount::~TmpfsMount() { umount2(path_.c_str(), MNT_DETACH); }

void TmpfsMount::Fill() {
  const UniqueFd fd(open((path_ + kFiller).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  WEFT_CHECK(fd.valid());
  const char page[4096] = {1};
  while (write(fd.get(), page, sizeof(page)) > 0) {
  }
}

void TmpfsMount::Free() { unlink((path_ + kFiller).c_str()); }

}  // namespace weft::test
