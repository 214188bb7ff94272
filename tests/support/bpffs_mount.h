// SPDX-License-Identifier: Apache-2.0
// A BPF file system of a test's own, mounted in a mount namespace of the test's process (and of what it
// starts): what is pinned there goes with the process, whatever becomes of it.
#ifndef WEFT_TESTS_SUPPORT_BPFFS_MOUNT_H_
#define WEFT_TESTS_SUPPORT_BPFFS_MOUNT_H_

#include <sys/types.h>

#include <string>

namespace weft::test {

class BpffsMount {
 public:
  // Makes `path` and mounts one there, as root; it belongs to `uid`. Only before the process has a second
  // thread.
  explicit BpffsMount(std::string path, uid_t uid = 0);
  ~BpffsMount();
  BpffsMount(const BpffsMount&) = delete;
  BpffsMount& operator=(const BpffsMount&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace weft::test

#endif  // WEFT_TESTS_SUPPORT_BPFFS_MOUNT_H_
