// SPDX-License-Identifier: Apache-2.0
// DPDK's environment (EAL), of which a process has one: started with the first device, never ended. Its log
// goes nowhere but into the errors of who asks for it. Any thread.
#ifndef WEFT_DATAPLANE_PORT_DPDK_EAL_H_
#define WEFT_DATAPLANE_PORT_DPDK_EAL_H_

#include <string>

#include "absl/status/status.h"
#include "dataplane/port/port_status.h"

namespace weft::port {

// Starts EAL, or says again how that went. UNAVAILABLE names the cause and what EAL logged. The calling
// thread keeps its cores, on which EAL's own few threads are put too; they sleep.
absl::Status StartEal(PortStatus* status);

// What DPDK has logged since the last call, the last few lines at most, in one line.
std::string TakeEalLog();

}  // namespace weft::port

#endif  // WEFT_DATAPLANE_PORT_DPDK_EAL_H_
