// SPDX-License-Identifier: Apache-2.0
// How a program of weft is told to end: SIGTERM and SIGINT as a readable descriptor for its loop.
#ifndef WEFT_DATAPLANE_BASE_STOP_SIGNALS_H_
#define WEFT_DATAPLANE_BASE_STOP_SIGNALS_H_

#include "dataplane/base/fd.h"

namespace weft {

// Blocks both signals in this thread and ignores SIGPIPE. Called before any thread is started, so that all
// inherit the mask. Invalid where the process is out of descriptors.
UniqueFd StopSignals();

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_STOP_SIGNALS_H_
