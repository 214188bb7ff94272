// SPDX-License-Identifier: Apache-2.0
// A small file system of its own at a path, for tests of a full disk, mounted in the test's own mount
// namespace. Needs root.
#ifndef WEFT_TESTS_SUPPORT_TMPFS_MOUNT_H_
#define WEFT_TESTS_SUPPORT_TMPFS_MOUNT_H_

#include <cstddef>
#include <string>

namespace weft::test {

class TmpfsMount {
 public:
  // Makes the directory `path` where it is missing.
  TmpfsMount(std::string path, std::size_t bytes);
  ~TmpfsMount();
  TmpfsMount(const TmpfsMount&) = delete;
  TmpfsMount& operator=(const TmpfsMount&) = delete;

  // Leaves no room for anything, until Free().
  void Fill();
  void Free();

 private:
  std::string path_;
};

}  // namespace weft::test

#endif  // WEFT_TESTS_SUPPORT_TMPFS_MOUNT_H_
