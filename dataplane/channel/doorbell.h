// SPDX-License-Identifier: Apache-2.0
// Wakes a sleeping peer process. A doorbell is one end of a SOCK_SEQPACKET socketpair; one pair serves all
// channels of two processes, both ways. Neither call can block, whatever the peer does with its end: each end
// has locks of its own, which is what an eventfd, a futex word or a pipe lacks. Owner thread only.
#ifndef WEFT_DATAPLANE_CHANNEL_DOORBELL_H_
#define WEFT_DATAPLANE_CHANNEL_DOORBELL_H_

#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "dataplane/base/fd.h"

namespace weft {

struct DoorbellPair {
  UniqueFd first;
  UniqueFd second;
  // The kernel refuses descriptors sent through the pair (SO_PASSRIGHTS, Linux 6.16). Without it a peer that
  // sends some is noticed (MSG_CTRUNC), but closing what it sent can block: the maker should say so at start.
  bool refuses_descriptors = false;
};

// Made by the agent, which keeps neither end. Both are non-blocking and close-on-exec.
absl::StatusOr<DoorbellPair> MakeDoorbellPair();

class Doorbell {
 public:
  // Takes one end of a pair. Fails where the descriptor is not a Unix seqpacket socket.
  static absl::StatusOr<Doorbell> Create(UniqueFd end);

  // Wakes the peer's thread. A full socket counts as rung, since the peer has rings that it did not read.
  void Ring();

  struct Drained {
    int rings = 0;         // At most kDrainMax a call.
    bool hung_up = false;  // The peer closed or shut down its end: no ring will come or arrive any more.
    bool misuse = false;   // Descriptors, or a packet that is not a ring.
  };
  static constexpr int kDrainMax = 32;
  // Takes the rings that wait, at most kDrainMax.
  Drained Drain();

  int fd() const { return fd_.get(); }
  uint64_t rings_sent() const { return rings_sent_; }
  uint64_t rings_received() const { return rings_received_; }
  // A ring could not be sent because the peer's end is gone.
  bool hung_up() const { return hung_up_; }

 private:
  explicit Doorbell(UniqueFd end) : fd_(std::move(end)) {}

  UniqueFd fd_;
  uint64_t rings_sent_ = 0;
  uint64_t rings_received_ = 0;
  bool hung_up_ = false;
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_CHANNEL_DOORBELL_H_
