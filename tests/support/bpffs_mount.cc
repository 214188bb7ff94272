// SPDX-License-Identifier: Apache-2.0
#include "tests/support/bpffs_mount.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "dataplane/base/check.h"

namespace weft::test {

BpffsMount::BpffsMount(std::string path, uid_t uid) : path_(std::move(path)) {
  static const bool own_namespace =
      unshare(CLONE_NEWNS) == 0 && mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  WEFT_CHECK(own_namespace);
  WEFT_CHECK(mkdir(path_.c_str(), 0700) == 0 || errno == EEXIST);
  WEFT_CHECK(mount("bpf", path_.c_str(), "bpf", 0, "mode=0700") == 0);
  WEFT_CHECK(chown(path_.c_str(), uid, uid) == 0);
}

BpffsMount::~BpffsMount() { umount2(path_.c_str(), MNT_DETACH); }

}  // namespace weft::test
