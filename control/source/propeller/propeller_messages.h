// SPDX-License-Identifier: Apache-2.0
// What Propeller's manager and proplets say over MQTT, and the manager over HTTP, as far as weft needs it:
// from text. Fields that carry secrets (env, file) are not read. Pure; any thread.
#ifndef WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_MESSAGES_H_
#define WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_MESSAGES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "control/source/propeller/propeller_commands.h"

namespace weft::control {

struct PropellerMessage {
  enum class Kind : uint8_t {
    kStart,    // The manager wants a task to run.
    kStop,     // … and to end, on whichever proplet.
    kResult,   // What became of a task: also the only place where a server's port is told.
    kCreate,   // A proplet's process has begun.
    kAlive,    // It still lives.
    kOffline,  // It says of itself, or its broker does, that it is gone.
    kWorker,   // A node of weft that takes part as a proplet says what it runs.
    kOther,    // Nothing that concerns weft.
  };
  Kind kind = Kind::kOther;
  std::string task;     // Id
  std::string name;     // Of the task
  std::string proplet;  // Id; empty: not said
  std::string ip;       // Of the proplet; empty: not said, or none
  bool encrypted = false;
  uint32_t port = 0;  // Of the server that was started; 0: none
  bool failed = false;
  std::string node;  // Of a worker
  std::string host;
  std::vector<PropellerPlacement> placements;
};

// `topic` is what follows the base topic. INVALID_ARGUMENT says what is wrong.
absl::StatusOr<PropellerMessage> ParsePropellerMessage(absl::string_view topic, absl::string_view payload);

// A page of the manager's lists.
struct PropellerPage {
  struct Task {
    std::string id;
    std::string name;
    std::string proplet;
    bool encrypted = false;
    bool failed = false;
    uint32_t port = 0;
  };
  struct Proplet {
    std::string id;
    std::string ip;
  };
  uint64_t total = 0;
  uint64_t entries = 0;  // Of this page, those that cannot be read included
  std::vector<Task> tasks;
  std::vector<Proplet> proplets;
  std::vector<std::string> problems;  // Of entries that cannot be read
};
absl::StatusOr<PropellerPage> ParsePropellerPage(absl::string_view text);

// 8222 of "started at port 8222"; 0 of anything else.
uint32_t PortInResult(absl::string_view result);

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_MESSAGES_H_
