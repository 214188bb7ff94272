// SPDX-License-Identifier: Apache-2.0
// Runs a program and takes what it prints, driven by the poll loop of weft-control: nothing blocks, and a
// program that hangs is ended. Its standard error is weft-control's. One thread.
#ifndef WEFT_CONTROL_SOURCE_KUBERNETES_CHILD_OUTPUT_H_
#define WEFT_CONTROL_SOURCE_KUBERNETES_CHILD_OUTPUT_H_

#include <poll.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/fd.h"

namespace weft::control {

class ChildOutput {
 public:
  static constexpr uint64_t kWaitNs = 30 * kNsPerSecond;
  static constexpr std::size_t kBytesMax = std::size_t{1} << 20;
  using Done = std::function<void(absl::StatusOr<std::string> output)>;

  ChildOutput() = default;
  ChildOutput(const ChildOutput&) = delete;
  ChildOutput& operator=(const ChildOutput&) = delete;
  ~ChildOutput() { End(); }

  // `command[0]` is a path, or a name to be looked up; `environment` is added to the own one. `done` gets
  // what it printed, or why it failed: from within here, OnEvents() or OnTime(). One at a time.
  void Start(const std::vector<std::string>& command, const std::vector<std::string>& environment,
             uint64_t now_ns, Done done);
  bool busy() const { return pid_ > 0; }

  void AddPollEntries(std::vector<pollfd>* entries) const;
  void OnEvents(const std::vector<pollfd>& entries);
  uint64_t wake_ns() const { return busy() ? until_ns_ : 0; }  // CLOCK_MONOTONIC; 0: never
  void OnTime(uint64_t now_ns);

 private:
  void Read();
  int End();  // Kills it where it still runs; its wait status.
  void Finish(absl::StatusOr<std::string> output);

  std::string name_;
  pid_t pid_ = -1;
  UniqueFd ended_;  // A pidfd
  UniqueFd output_;
  std::string text_;
  uint64_t until_ns_ = 0;
  Done done_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_KUBERNETES_CHILD_OUTPUT_H_
