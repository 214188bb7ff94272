// SPDX-License-Identifier: Apache-2.0
// An epoll that watches a packet socket only while its owner sleeps. A socket in an epoll has the kernel run
// through both wait queues for each packet that it receives or has sent: 0.3 us of each AF_XDP send, on the
// sender's core, for an owner that polls and never waits. Owner's thread only.
#ifndef WEFT_DATAPLANE_PORT_SLEEP_WATCH_H_
#define WEFT_DATAPLANE_PORT_SLEEP_WATCH_H_

#include <sys/epoll.h>

#include <cerrno>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/base/fd.h"

namespace weft::port {

class SleepWatch {
 public:
  // Watches nothing yet.
  static absl::StatusOr<SleepWatch> Create() {
    UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
    if (!epoll.valid()) return absl::ErrnoToStatus(errno, "create an epoll");
    return SleepWatch(std::move(epoll));
  }

  // Readable when one of what is watched is.
  int fd() const { return epoll_.get(); }

  // `fd` stays watched until it is closed.
  absl::Status Keep(int fd) {
    return Add(fd) ? absl::OkStatus() : absl::ErrnoToStatus(errno, "watch a socket");
  }

  // From now until Disarm(). What came before counts: readable at once. False where the kernel cannot watch
  // one more now; then there is no sleeping. `second`: one more socket, or -1.
  bool Arm(int socket, int second = -1) {
    if (armed_[0] < 0 && Add(socket)) armed_[0] = socket;
    if (second >= 0 && armed_[1] < 0 && Add(second)) armed_[1] = second;
    return armed_[0] >= 0 && armed_[1] == second;
  }
  void Disarm() {
    for (int& armed : armed_) {
      if (armed >= 0) epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, std::exchange(armed, -1), nullptr);
    }
  }

 private:
  explicit SleepWatch(UniqueFd epoll) : epoll_(std::move(epoll)) {}

  bool Add(int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    return epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
  }

  UniqueFd epoll_;
  int armed_[2] = {-1, -1};
};

}  // namespace weft::port

#endif  // WEFT_DATAPLANE_PORT_SLEEP_WATCH_H_
