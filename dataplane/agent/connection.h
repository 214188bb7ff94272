// SPDX-License-Identifier: Apache-2.0
// One accepted socket of the agent: who is at the other end, and what waits to be sent to it. Registry thread
// only.
#ifndef WEFT_DATAPLANE_AGENT_CONNECTION_H_
#define WEFT_DATAPLANE_AGENT_CONNECTION_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "dataplane/agent/engine.h"
#include "dataplane/agent/engine_state.h"
#include "dataplane/api/host.pb.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/unix_socket.h"

namespace weft::agent {

// What may wait for one peer to read. What a turn has to say comes all at once, as each of 16,384 routes when
// a node has gone: so above this a host is not cut off before it had the time of an answer to read, and again
// whenever it has read so much.
inline constexpr std::size_t kQueuedMessagesMax = 1024;
inline constexpr std::size_t kQueuedBytesMax = 1024 * 1024;
inline constexpr uint64_t kCrowdedNs = kAnswerNs;
// At so many times as much everybody is. Who is trusted has no other bound: the engine of this process, which
// is told of the whole mesh and reads when it has carried its calls, and who may open the admin socket, who
// gets all rows of an answer at once.
inline constexpr std::size_t kQueueTimesMax = 64;

struct Connection {
  enum class Role { kNew, kHost, kAdmin };

  SessionId id = 0;
  UniqueFd socket;
  UniqueFd process;  // A pidfd
  PeerCredentials peer;
  bool on_admin_socket = false;
  bool is_engine = false;   // A node engine of this very process, or inside of a host:
  SessionId inside_of = 0;  // of this one; 0: this process.
  std::string inside_host;  // Its name.
  uint16_t worker = 0;      // Of an engine: by which the link to other nodes knows it.
  SessionId inside = 0;     // The connection of the engine inside of this host.
  Role role = Role::kNew;
  const Tenant* tenant = nullptr;
  api::Hello hello;  // Parts that came, while more are to come.
  std::size_t hello_bytes = 0;
  bool runs_once = false;    // Of a host: it runs modules once.
  bool programs = false;     // It has programmed: acknowledgements and registrations go here.
  bool wants_write = false;  // As epoll was told.

  struct Outgoing {
    std::string bytes;
    std::vector<UniqueFd> fds;
  };
  std::deque<Outgoing> queue;
  std::size_t queued_bytes = 0;
  uint64_t crowded_since_ns = 0;  // Not 0: more waits than may for longer than kCrowdedNs.
  std::size_t read_messages = 0;  // Since then.
  std::size_t read_bytes = 0;

  // Whether more waits than so many times the bound.
  bool Above(std::size_t times) const {
    return queue.size() > times * kQueuedMessagesMax || queued_bytes > times * kQueuedBytesMax;
  }
  // From then on more waits than may.
  void SetCrowded(uint64_t since_ns);
  // Says what waits.
  absl::Status NeverReads() const;

  // Sends, or queues where the socket's buffer is full. RESOURCE_EXHAUSTED where the queue is full too,
  // another error where the peer is gone; the descriptors are then in `queue` still, for the reaper.
  absl::Status Send(std::string bytes, std::vector<UniqueFd> fds);
  // Sends what is queued, as far as it goes now.
  absl::Status Flush();
};

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_CONNECTION_H_
