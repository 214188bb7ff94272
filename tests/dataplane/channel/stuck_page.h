// SPDX-License-Identifier: Apache-2.0
// A FUSE mount of the test's own with one file whose contents never arrive: opening and mapping it works, and
// a page of it that the kernel touches blocks for as long as this object lives. Needs root and /dev/fuse.
#ifndef WEFT_TESTS_DATAPLANE_CHANNEL_STUCK_PAGE_H_
#define WEFT_TESTS_DATAPLANE_CHANNEL_STUCK_PAGE_H_

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "dataplane/base/fd.h"

namespace weft {

class StuckPage {
 public:
  // nullptr where this process may not mount.
  static std::unique_ptr<StuckPage> Mount();
  // Unmounts and ends every wait for the page.
  ~StuckPage();

  // In a forked child, first: it must not hold the mount's other end, or the wait would outlive this object.
  void CloseInChild() { fuse_.Reset(); }

  std::string path() const { return directory_ + "/page"; }
  // Reads that arrived, none of which was answered.
  int reads() const { return reads_.load(std::memory_order_acquire); }

 private:
  StuckPage(std::string directory, int fuse_fd);
  void Serve();

  std::string directory_;
  UniqueFd fuse_;
  std::atomic<bool> stop_{false};
  std::atomic<int> reads_{0};
  std::thread server_;
};

}  // namespace weft

#endif  // WEFT_TESTS_DATAPLANE_CHANNEL_STUCK_PAGE_H_
