// SPDX-License-Identifier: Apache-2.0
// A process may have ended and hold its descriptors still.
#ifndef WEFT_DATAPLANE_BASE_PROCESS_ENDED_H_
#define WEFT_DATAPLANE_BASE_PROCESS_ENDED_H_

#include <sys/types.h>

namespace weft {

// Whether process `pid` has ended but for its exit status, or for a thread that the kernel cannot end, as one
// that closes a file of a FUSE mount that never answers: its descriptors live on. False where there is no
// such process. Reads /proc; any thread.
bool ProcessHasEnded(pid_t pid);

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_PROCESS_ENDED_H_
