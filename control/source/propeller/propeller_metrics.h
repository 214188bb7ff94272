// SPDX-License-Identifier: Apache-2.0
// When what the functions of a worker's tasks take is to be asked of the agent, and what the manager is told
// of the answer. Pure: tasks, answers and time come in. One thread.
#ifndef WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_METRICS_H_
#define WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_METRICS_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "control/source/propeller/propeller_commands.h"
#include "dataplane/api/admin.pb.h"

namespace weft::control {

// A task that serves calls and is to be measured.
struct PropellerMeasured {
  std::string task;
  std::string function;
  uint64_t interval_ns = 0;
};

class PropellerMetrics {
 public:
  // These, and no others. One that is new is due at once, as Propeller's own worker has it.
  void Follow(const std::vector<PropellerMeasured>& tasks, uint64_t now_ns);
  uint64_t wake_ns() const;  // CLOCK_MONOTONIC; 0: never
  // Functions of the tasks that are due, to be asked of the agent.
  std::vector<std::string> TakeDue(uint64_t now_ns);
  // Rows of functions as the agent tells them. Returns what each task that was due took since it was told of
  // last; one that the answer says nothing of is asked for again when its time comes.
  std::vector<std::pair<std::string, PropellerUsage>> Take(const std::vector<api::Item>& functions,
                                                           uint64_t now_ns);

 private:
  struct Task {
    std::string function;
    uint64_t interval_ns = 0;
    uint64_t begun_ns = 0;
    uint64_t due_ns = 0;
    bool asked = false;
    uint64_t told_ns = 0;  // 0: not yet
    uint64_t handler_ns = 0;
  };

  std::map<std::string, Task> tasks_;  // By id
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_METRICS_H_
