// SPDX-License-Identifier: Apache-2.0
// The node engine inside a host: carries the calls of this one process to other nodes and back, on the
// process's own thread. The agent gave it the connection by which it attaches, the socket that its packets
// pass and the keys that they are sealed with; so it speaks for this host and for no other. Owner thread
// only.
#ifndef WEFT_DATAPLANE_ENGINE_INSIDE_ENGINE_H_
#define WEFT_DATAPLANE_ENGINE_INSIDE_ENGINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "dataplane/api/host.pb.h"
#include "dataplane/base/attributes.h"
#include "dataplane/base/fd.h"
#include "dataplane/channel/poller.h"
#include "dataplane/engine/node_engine.h"
#include "dataplane/engine/steered_port.h"
#include "dataplane/engine/worker.h"
#include "dataplane/port/port_status.h"

namespace weft::engine {

class InsideEngine {
 public:
  // `agent`, `socket` and `twin`, which may be invalid, are those that came with `given`. The thread sleeps
  // in `poller`, which outlives the engine and wakes when it has something to do. Connects to the agent at
  // once.
  static absl::StatusOr<std::unique_ptr<InsideEngine>> Create(const api::InsideEngine& given, UniqueFd agent,
                                                              UniqueFd socket, UniqueFd twin, Poller* poller);
  // Takes leave of the peers.
  ~InsideEngine();
  InsideEngine(const InsideEngine&) = delete;
  InsideEngine& operator=(const InsideEngine&) = delete;

  // Sends and receives by this AF_XDP socket, which the agent has made; what comes to the UDP socket is taken
  // too. In place of any earlier one. Where none can be made of it, an earlier one stays in use; where it
  // cannot reach the peers, UDP alone does. Not from within a turn.
  absl::Status TakeXdp(const api::XdpSocket& given, std::vector<UniqueFd> fds);

  // Whether it has let go of its AF_XDP socket since it was asked last: its interface has been deleted.
  bool LostXdp() { return std::exchange(lost_xdp_, false); }

  // Takes what there is, from the process and from the wire, and sends what follows from it. Never blocks.
  // Returns how much it moved.
  WEFT_HOT int Turn() { return static_cast<int>(worker_.Turn()); }

  // Around a sleep in the poller, after a turn that moved nothing. False: do not sleep. `*wake_ns` becomes
  // the time by which the engine has to have its turn, where that is earlier.
  bool PrepareSleep(uint64_t* wake_ns);
  void EndSleep() { port_->EndSleep(); }

  port::PortStatus port_status() const { return port_->status(); }
  const NodeEngine& node_engine() const { return *engine_; }

 private:
  InsideEngine(std::unique_ptr<SteeredPort> port, std::unique_ptr<NodeEngine> engine, Poller* poller,
               std::size_t datagram_bytes_max);

  absl::Status ChangePort(std::unique_ptr<port::AfXdpPort> xdp);

  std::unique_ptr<SteeredPort> port_;
  std::unique_ptr<NodeEngine> engine_;
  Worker<SteeredPort> worker_;
  Poller* const poller_;
  const std::size_t datagram_bytes_max_;
  bool lost_xdp_ = false;
};

}  // namespace weft::engine

#endif  // WEFT_DATAPLANE_ENGINE_INSIDE_ENGINE_H_
