// SPDX-License-Identifier: Apache-2.0
// The way from the link to other nodes to the registry. The node engines of this process attach by it: a
// socket pair of which the registry gets one end. What comes in here is an engine because no other process
// can use this door; no peer can claim to be it. And what the link has to say to engines inside hosts goes
// out by the registry, which holds their connections.
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
#include "dataplane/api/host.pb.h"
#include "dataplane/base/fd.h"
#include "dataplane/identity/key_exchange.h"

namespace weft::agent {

// To the engine that is worker `worker` of this node.
struct InsideMail {
  uint16_t worker = 0;
  api::PeerKeys keys = {};
  absl::Status end = {};  // Not OK: instead, the worker is to go, and its host is cut off for that reason.
  // With descriptors, instead of keys: an AF_XDP socket for its host.
  api::XdpSocket xdp = {};
  std::vector<UniqueFd> xdp_fds = {};
};

// What another node says of drains, its own and this one's; or that it has gone.
struct DrainMail {
  std::string peer;
  bool gone = false;
  bool deaf = false;  // Of an earlier version: it says nothing and hears nothing of them.
  identity::Drains drains;
};

class EngineDoor {
 public:
  EngineDoor() : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

  struct Caller {
    uint16_t worker = 0;
    UniqueFd socket;
  };

  // A new connection to the registry, of the engine that is worker `worker`. Any thread.
  absl::StatusOr<UniqueFd> Connect(uint16_t worker = 0) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) {
      return absl::ErrnoToStatus(errno, "make a socket pair");
    }
    UniqueFd mine(ends[0]);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      waiting_.push_back({worker, UniqueFd(ends[1])});
    }
    Ring();
    return mine;
  }
  // Any thread; in order.
  void Post(InsideMail mail) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      mail_.push_back(std::move(mail));
    }
    Ring();
  }
  void PostDrains(DrainMail mail) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      drains_.push_back(std::move(mail));
    }
    Ring();
  }

  // For the registry thread: readable when somebody stands before the door.
  int fd() const { return event_.get(); }
  std::vector<Caller> Take() {
    uint64_t count;
    [[maybe_unused]] const ssize_t bytes = read(event_.get(), &count, sizeof(count));
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(waiting_, {});
  }
  std::vector<InsideMail> TakeMail() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(mail_, {});
  }
  std::vector<DrainMail> TakeDrains() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(drains_, {});
  }

 private:
  void Ring() {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(event_.get(), &one, sizeof(one));
  }

  UniqueFd event_;
  std::mutex mutex_;
  std::vector<Caller> waiting_;
  std::vector<InsideMail> mail_;
  std::vector<DrainMail> drains_;
};

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_ENGINE_DOOR_H_
