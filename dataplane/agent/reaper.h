// SPDX-License-Identifier: Apache-2.0
// Closes descriptors that strangers sent, and sockets that may still hold such. Closing one can block: a TCP
// socket that lingers for its l_linger seconds, a file of a FUSE mount for as long as its server likes. So
// each user has a lane, served by a thread of its own that lives only while there is something to close: a
// descriptor that never closes holds up nobody but others of the same user.
#ifndef WEFT_DATAPLANE_AGENT_REAPER_H_
#define WEFT_DATAPLANE_AGENT_REAPER_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>

#include "dataplane/base/fd.h"

namespace weft::agent {

class Reaper {
 public:
  Reaper();
  // Does not wait for lanes that are stuck.
  ~Reaper();
  Reaper(const Reaper&) = delete;
  Reaper& operator=(const Reaper&) = delete;

  // Closes `fd` some time. Never blocks; allocates.
  void Close(uid_t owner, UniqueFd fd);

  // Whether `owner` has more descriptors waiting than a well-behaved user ever has, behind one that has been
  // closing for kStuckNs: then nothing more should be taken from that user.
  bool Overloaded(uid_t owner) const;

  // Descriptors that wait or are being closed, of all users.
  uint64_t waiting() const;

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;  // Outlives the reaper in the threads of stuck lanes.
};

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_REAPER_H_
