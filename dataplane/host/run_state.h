// SPDX-License-Identifier: Apache-2.0
// What a module that is run once is given, and what it leaves: for the WASI functions, which serve handlers
// without it. On the run's own thread.
#ifndef WEFT_DATAPLANE_HOST_RUN_STATE_H_
#define WEFT_DATAPLANE_HOST_RUN_STATE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace weft::host {

struct RunState {
  std::vector<std::string> args;  // The first one is the program's name.
  std::vector<std::string> env;   // NAME=value
  std::size_t output_bytes_max = 0;
  uint64_t end_ns = 0;                      // CLOCK_MONOTONIC: when its time is over.
  const std::atomic<bool>* stop = nullptr;  // The host ends. Any thread sets it.

  std::string output;                 // What it wrote to standard output
  std::optional<uint32_t> exit_code;  // Of proc_exit
  bool late = false;                  // It slept until its time was over.
  bool output_full = false;           // It wrote more than it may, and was ended.

  bool stopped() const { return stop->load(std::memory_order_relaxed); }
};

}  // namespace weft::host

#endif  // WEFT_DATAPLANE_HOST_RUN_STATE_H_
