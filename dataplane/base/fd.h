// SPDX-License-Identifier: Apache-2.0
// Owner of one file descriptor: move-only, closes on destruction.
#ifndef WEFT_DATAPLANE_BASE_FD_H_
#define WEFT_DATAPLANE_BASE_FD_H_

#include <utility>

namespace weft {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.Release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) Reset(other.Release());
    return *this;
  }
  ~UniqueFd() { Reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  // Gives the descriptor up to the caller, who closes it.
  [[nodiscard]] int Release() { return std::exchange(fd_, -1); }
  // Closes what is held and takes `fd`. Closing a socket or a file of a foreign file system can block.
  void Reset(int fd = -1);

 private:
  int fd_ = -1;
};

// Another descriptor of the same file, closed on exec. Invalid, with errno set, where it cannot be had.
UniqueFd DuplicateFd(int fd);

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_FD_H_
