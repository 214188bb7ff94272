// SPDX-License-Identifier: Apache-2.0
// The agent's own part of a change: weftd holds a whole mesh and is told of one endpoint at a time, by its
// admin socket, without weft-control.
#ifndef WEFT_BENCH_CONTROL_AGENT_ROWS_H_
#define WEFT_BENCH_CONTROL_AGENT_ROWS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "dataplane/base/histogram.h"

namespace weft::bench {

// From a generation of one endpoint sent to its acknowledgement.
struct AgentRun {
  Histogram bare;  // No host is attached.
  Histogram
      callers;  // With kAgentCallers, each of which may call kAgentCalled functions that change among others.
  double snapshot_s = 0;  // Of the whole mesh
};
inline constexpr int kAgentCallers = 3;
inline constexpr int kAgentCalled = 8;

// `functions` functions with their endpoints; `samples` changes each. Starts a weftd of its own.
absl::StatusOr<AgentRun> RunAgent(int functions, int samples);

}  // namespace weft::bench

#endif  // WEFT_BENCH_CONTROL_AGENT_ROWS_H_
