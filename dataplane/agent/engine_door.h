// SPDX-License-Identifier: Apache-2.0
// The way by which the node engine of this process attaches: a socket pair of which the registry gets one
// end. What comes in here is the engine because no other process can use this door; no peer can claim to be
// it.
#ifndef WEFT_DATAPLANE_AGENT_ENGINE_DOOR_H_
#define WEFT_DATAPLANE_AGENT_ENGINE_DOOR_H_

#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/base/fd.h"

namespace weft::agent {

class EngineDoor {
 public:
  EngineDoor() : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

  // A new connection to the registry. Any thread.
  absl::StatusOr<UniqueFd> Connect() {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) {
      return absl::ErrnoToStatus(errno, "make a socket pair");
    }
    UniqueFd mine(ends[0]);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      waiting_.emplace_back(ends[1]);
    }
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(event_.get(), &one, sizeof(one));
    return mine;
  }

  // For the registry thread: readable when somebody stands before the door.
  int fd() const { return event_.get(); }
  std::vector<UniqueFd> Take() {
    uint64_t count;
    [[maybe_unused]] const ssize_t bytes = read(event_.get(), &count, sizeof(count));
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(waiting_, {});
  }

 private:
  UniqueFd event_;
  std::mutex mutex_;
  std::vector<UniqueFd> waiting_;
};

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_ENGINE_DOOR_H_
