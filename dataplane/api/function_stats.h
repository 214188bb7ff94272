// SPDX-License-Identifier: Apache-2.0
// What the calls of one function come to, added up: of its instances by a host, of its hosts by the agent.
// Any thread.
#ifndef WEFT_DATAPLANE_API_FUNCTION_STATS_H_
#define WEFT_DATAPLANE_API_FUNCTION_STATS_H_

#include "dataplane/api/host.pb.h"

namespace weft::api {

// Adds all that `one` counts to `sum`, whose name stays.
inline void AddFunctionStats(const FunctionStats& one, FunctionStats* sum) {
  sum->set_calls(sum->calls() + one.calls());
  sum->set_failures(sum->failures() + one.failures());
  sum->set_bytes_in(sum->bytes_in() + one.bytes_in());
  sum->set_bytes_out(sum->bytes_out() + one.bytes_out());
  sum->set_handler_ns(sum->handler_ns() + one.handler_ns());
  sum->set_memory_bytes(sum->memory_bytes() + one.memory_bytes());
  sum->set_instances(sum->instances() + one.instances());
}

}  // namespace weft::api

#endif  // WEFT_DATAPLANE_API_FUNCTION_STATS_H_
