// SPDX-License-Identifier: Apache-2.0
// Moves datagrams between a port and a core: what the engine's loop, the simulator and the benchmarks all
// run. A template over the port, so that no call in it is virtual. Owner worker only.
#ifndef WEFT_DATAPLANE_TRANSPORT_PUMP_H_
#define WEFT_DATAPLANE_TRANSPORT_PUMP_H_

#include <cstddef>
#include <cstdint>

#include "dataplane/base/attributes.h"
#include "dataplane/transport/core.h"

namespace weft::transport {

// 1,500 B frames at 10 Gb/s arrive every 1.2 us: a burst is 38 us.
inline constexpr std::size_t kPumpBurst = 32;

// A burst in. Returns how many datagrams came. `Port` is as dataplane/port/port.h says.
template <typename Port>
WEFT_HOT std::size_t PumpIn(Core& core, Port& port, uint64_t now_ns) {
  typename Port::Received burst[kPumpBurst];
  const std::size_t received = port.Receive(burst, kPumpBurst);
  for (std::size_t i = 0; i < received; ++i) core.HandleDatagram(burst[i].data, burst[i].bytes, now_ns);
  if (received > 0) port.Release(burst, received);
  return received;
}

// Timers, then a burst out. Returns how many datagrams went.
template <typename Port>
WEFT_HOT std::size_t PumpOut(Core& core, Port& port, uint64_t now_ns) {
  core.Tick(now_ns);
  if (!core.MayHaveDatagram() && port.BeginSend() != nullptr) return 0;
  std::size_t sent = 0;
  bool full = false;
  do {
    // Where the port has no room the core keeps what it has: nothing is built that could be lost here.
    uint8_t* const out = port.BeginSend();
    full = out == nullptr;
    if (full) break;
    uint64_t path;
    const std::size_t bytes = core.NextDatagram(out, now_ns, &path);
    if (bytes == 0) break;
    port.FinishSend(path, bytes);
    ++sent;
    // An answer alone leaves without another look for more.
  } while (sent < kPumpBurst && core.MayHaveDatagram());
  // A full port has to be pushed as well: as long as the core has something to send nobody else does it.
  if (sent > 0 || full) port.Flush();
  return sent;
}

// One turn: takes what has come, has `take` answer it, and sends. `take()` takes all events of the core and
// returns how many there were. 0: idle until core.NextTimerNs(now_ns), until the port has something or until
// the core is asked for something. What answers goes out within the turn: where receiving is a system call,
// an answer that waits for the next turn waits for one that finds nothing.
template <typename Port, typename Take>
WEFT_HOT std::size_t Turn(Core& core, Port& port, uint64_t now_ns, Take&& take) {
  std::size_t moved = PumpIn(core, port, now_ns);
  moved += static_cast<std::size_t>(take());
  return moved + PumpOut(core, port, now_ns);
}

}  // namespace weft::transport

#endif  // WEFT_DATAPLANE_TRANSPORT_PUMP_H_
