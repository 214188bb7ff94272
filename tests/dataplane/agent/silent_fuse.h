// SPDX-License-Identifier: Apache-2.0
// A FUSE mount with one file that opens and then never answers again: closing it hangs for as long as this
// object lives. Needs root and /dev/fuse.
#ifndef WEFT_TESTS_DATAPLANE_AGENT_SILENT_FUSE_H_
#define WEFT_TESTS_DATAPLANE_AGENT_SILENT_FUSE_H_

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "dataplane/base/fd.h"

namespace weft::agent::test {

class SilentFuse {
 public:
  // Mounts at `directory`, which exists. nullptr where this is not permitted here.
  static std::unique_ptr<SilentFuse> Mount(const std::string& directory);
  // Ends the mount: whoever hangs in it gets an error.
  ~SilentFuse();

  // A new descriptor of the file.
  UniqueFd Open();
  // How many closes hang now or have hung.
  int flushes() const { return flushes_.load(std::memory_order_acquire); }

 private:
  SilentFuse(std::string directory, UniqueFd device);
  void Serve();
  template <typename Body>
  void Answer(uint64_t unique, const Body& body);

  std::string directory_;
  UniqueFd device_;
  std::atomic<int> flushes_ = 0;
  std::thread thread_;
};

}  // namespace weft::agent::test

#endif  // WEFT_TESTS_DATAPLANE_AGENT_SILENT_FUSE_H_
