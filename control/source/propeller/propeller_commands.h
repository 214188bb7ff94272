// SPDX-License-Identifier: Apache-2.0
// What a Propeller worker is told over MQTT, and what it says there: from and to text. Pure; any thread.
#ifndef WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_COMMANDS_H_
#define WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_COMMANDS_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "dataplane/base/clock.h"

namespace weft::control {

struct PropellerCommand {
  enum class Kind : uint8_t {
    kStart,
    kStop,
    kInvoke,
    kChunk,  // Of a module, by the registry
    kOther,
  };
  Kind kind = Kind::kOther;
  std::string task;     // Id
  std::string name;     // Of the task
  std::string proplet;  // Whom it is for; empty: not said
  bool broadcast = false;
  std::string image;       // Name of the module at the registry; empty: it came along, or there is none.
  std::string module;      // kStart: the module itself. kChunk: a part of it.
  std::string refusal;     // kStart, kInvoke: what of it weft cannot do; empty: nothing.
  std::string invocation;  // Id
  bool latent = false;     // kStart: it is run by invocations.
  bool monitored = false;  // kStart: what it takes is to be told,
  uint64_t interval_ns = 10 * kNsPerSecond;  // and of one that serves calls, how often.
  // For a module that is run once: its command line, NAME=value, and what its function takes, integers. Of an
  // invocation of a function of weft its inputs are the request.
  std::vector<std::string> args;
  std::vector<std::string> env;
  std::vector<std::string> inputs;
  uint64_t chunk_index = 0;
  uint64_t chunks = 0;

  bool HasArguments() const { return !args.empty() || !env.empty() || !inputs.empty(); }
  bool IsFor(const std::string& id) const { return proplet.empty() ? broadcast : proplet == id; }
};

// What a module took that was run once, or a function since that was told last.
struct PropellerUsage {
  uint64_t cpu_ns = 0;
  uint64_t elapsed_ns = 0;  // 0: it is not known.
  uint64_t memory_bytes = 0;
  uint64_t uptime_ns = 0;
  std::vector<std::pair<std::string, uint64_t>> counts;  // Further ones, in weft's own words
};

// Topics below the base topic that a worker subscribes to.
std::vector<std::string> PropellerCommandTopics();

// `topic` is what follows the base topic. INVALID_ARGUMENT says what is wrong. A start that can be read as
// far as its id and name is none of these errors: `refusal` says what is wrong with it.
absl::StatusOr<PropellerCommand> ParsePropellerCommand(absl::string_view topic, absl::string_view payload);

// Below the base topic, before the worker's id: what it says to other nodes of weft, and the broker keeps.
inline constexpr char kWorkerTopic[] = "weft/";

// What a worker runs, as the other weft nodes of the channel are told.
struct PropellerPlacement {
  std::string task;
  std::string name;
  bool ready = false;  // False: it is coming or going; call it only where nothing else is left.
};

std::string CreateText(const std::string& proplet);
std::string AliveText(const std::string& proplet, bool alive);
// What this process, which is the proplet, takes of the machine.
std::string MetricsText(const std::string& proplet);
// `error` empty: it runs, or has ended well, with these results.
std::string ResultText(const std::string& proplet, const std::string& task, const std::string& results,
                       const std::string& error);
std::string InvokeResultText(const std::string& proplet, const std::string& task,
                             const std::string& invocation, const std::string& results,
                             const std::string& error);
std::string TaskMetricsText(const std::string& proplet, const std::string& task, const PropellerUsage& usage);
std::string RegistryText(const std::string& image);
std::string WorkerText(const std::string& node, const std::string& host,
                       const std::vector<PropellerPlacement>& placements);

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_PROPELLER_PROPELLER_COMMANDS_H_
