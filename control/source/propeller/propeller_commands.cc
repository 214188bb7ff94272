// SPDX-License-Identifier: Apache-2.0
#include "control/source/propeller/propeller_commands.h"

#include <simdjson.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "control/source/propeller/propeller_json.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"

namespace weft::control {
namespace {

using nlohmann::json;
using simdjson::dom::element;

constexpr char kStart[] = "control/manager/start";
constexpr char kStop[] = "control/manager/stop";
constexpr char kInvoke[] = "control/manager/invoke";
constexpr char kChunk[] = "registry/server";
// Ids are UUIDs, and names of images some hundred bytes: longer ones would be repeated in every answer.
constexpr std::size_t kIdBytesMax = 256;
constexpr std::size_t kImageBytesMax = 1024;
constexpr char kNamespace[] = "default";  // Kubernetes' one, which weft does not know here.

// Empty where the field is absent, null or of another type.
std::string TextIfAny(const element& from, const char* key) {
  std::string_view text;
  return from[key].get(text) == simdjson::SUCCESS ? std::string(text) : std::string();
}

bool IsEmpty(const element& value) {
  simdjson::dom::array list;
  simdjson::dom::object map;
  std::string_view text;
  if (value.is_null()) return true;
  if (value.get(list) == simdjson::SUCCESS) return list.size() == 0;
  if (value.get(map) == simdjson::SUCCESS) return map.size() == 0;
  return value.get(text) == simdjson::SUCCESS && text.empty();
}

// Base64 in `key`; false where it is something else.
bool BytesOf(const element& from, const char* key, std::string* bytes) {
  std::string_view text;
  return from[key].get(text) == simdjson::SUCCESS &&
         absl::Base64Unescape(absl::string_view(text.data(), text.size()), bytes);
}

// A text, or an integer as one.
bool InputOf(const element& value, std::string* input) {
  std::string_view text;
  int64_t number = 0;
  uint64_t large = 0;
  if (value.get(text) == simdjson::SUCCESS) {
    *input = std::string(text);
  } else if (value.get(number) == simdjson::SUCCESS) {
    *input = absl::StrCat(number);
  } else if (value.get(large) == simdjson::SUCCESS) {
    *input = absl::StrCat(large);
  } else {
    return false;
  }
  return true;
}

// What is wrong with them; empty: nothing. Never a value: they may be secrets.
std::string ReadArguments(const element& root, PropellerCommand* command) {
  simdjson::dom::array list;
  simdjson::dom::object map;
  std::string_view text;
  element value;
  if (root["cli_args"].get(value) == simdjson::SUCCESS && !IsEmpty(value)) {
    if (value.get(list) != simdjson::SUCCESS) return "cli_args: is no list";
    for (const element& each : list) {
      if (each.get(text) != simdjson::SUCCESS) return "cli_args: holds what is no text";
      command->args.emplace_back(text);
    }
  }
  if (root["env"].get(value) == simdjson::SUCCESS && !IsEmpty(value)) {
    if (value.get(map) != simdjson::SUCCESS) return "env: is no map";
    for (const auto& [name, each] : map) {
      if (each.get(text) != simdjson::SUCCESS) return "env: holds what is no text";
      if (name.find('=') != std::string_view::npos) return "env: a name holds a `=`";
      command->env.push_back(absl::StrCat(std::string(name), "=", std::string(text)));
    }
  }
  if (root["inputs"].get(value) == simdjson::SUCCESS && !IsEmpty(value)) {
    if (value.get(list) != simdjson::SUCCESS) return "inputs: is no list";
    for (const element& each : list) {
      if (!InputOf(each, &command->inputs.emplace_back()))
        return "inputs: holds what is neither text nor integer";
    }
  }
  return "";
}

// Its own worker takes the number for seconds; the manager's type is one of nanoseconds. Nobody means more
// than thirty years.
void ReadInterval(const element& root, PropellerCommand* command) {
  constexpr uint64_t kLongNs = 24 * 3600 * kNsPerSecond;
  uint64_t interval = 0;
  if (root["monitoring_profile"]["interval"].get(interval) != simdjson::SUCCESS || interval == 0) {
    // What it takes without one.
    if (BoolOf(root, "daemon")) command->interval_ns = 120 * kNsPerSecond;
  } else if (interval < kNsPerSecond) {
    command->interval_ns = std::min(interval, kLongNs / kNsPerSecond) * kNsPerSecond;
  } else {
    command->interval_ns = std::clamp(interval, kNsPerSecond, kLongNs);
  }
}

void ReadStart(const element& root, PropellerCommand* command) {
  command->broadcast = BoolOf(root, "broadcast");
  command->latent = BoolOf(root, "latent");
  // By default it is, as Propeller's own worker has it.
  element profile;
  command->monitored = root["monitoring_profile"].get(profile) != simdjson::SUCCESS || IsEmpty(profile) ||
                       (BoolOf(profile, "enabled") && BoolOf(profile, "export_to_mqtt"));
  ReadInterval(root, command);
  command->image = TextIfAny(root, "image_url");
  element file;
  const bool has_file = root["file"].get(file) == simdjson::SUCCESS && !IsEmpty(file);
  if (BoolOf(root, "encrypted")) {
    command->refusal = "it is encrypted, which weft cannot run";
    return;
  }
  // What would be ignored is refused.
  for (const char* key : {"parent_results", "hal_storage_path"}) {
    element value;
    if (root[key].get(value) != simdjson::SUCCESS || IsEmpty(value)) continue;
    command->refusal = absl::StrCat(key, ": weft hands none of it to a module");
    return;
  }
  command->refusal = ReadArguments(root, command);
  if (!command->refusal.empty()) return;
  if (has_file) {
    command->image.clear();
    if (!BytesOf(root, "file", &command->module)) command->refusal = "file: is no base64";
  } else if (command->image.size() > kImageBytesMax) {
    command->image.clear();
    command->refusal = absl::StrCat("image_url: has more than ", kImageBytesMax, " bytes");
  } else if (command->image.empty()) {
    command->refusal = "it names no module: neither `file` nor `image_url`";
  }
}

absl::Status ReadChunk(const element& root, PropellerCommand* command) {
  WEFT_ASSIGN_OR_RETURN(command->image, NeededText(root, "app_name"));
  if (root["chunk_idx"].get(command->chunk_index) != simdjson::SUCCESS ||
      root["total_chunks"].get(command->chunks) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError("chunk_idx or total_chunks: is no number");
  }
  if (!BytesOf(root, "data", &command->module)) return absl::InvalidArgumentError("data: is no base64");
  return absl::OkStatus();
}

double SecondsOf(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

// Bad UTF-8, of which our own texts have none, is replaced rather than thrown at.
std::string Dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

}  // namespace

std::vector<std::string> PropellerCommandTopics() { return {kStart, kStop, kInvoke, kChunk}; }

absl::StatusOr<PropellerCommand> ParsePropellerCommand(absl::string_view topic, absl::string_view payload) {
  using Kind = PropellerCommand::Kind;
  PropellerCommand command;
  if (topic == kStart) command.kind = Kind::kStart;
  if (topic == kStop) command.kind = Kind::kStop;
  if (topic == kInvoke) command.kind = Kind::kInvoke;
  if (topic == kChunk) command.kind = Kind::kChunk;
  if (command.kind == Kind::kOther) return command;
  simdjson::dom::parser parser;  // Not kept: modules are large, and rare.
  element root;
  if (parser.parse(payload.data(), payload.size()).get(root) != simdjson::SUCCESS || !root.is_object()) {
    return absl::InvalidArgumentError("is no JSON object");
  }
  if (command.kind == Kind::kChunk) {
    WEFT_RETURN_IF_ERROR(ReadChunk(root, &command));
    return command;
  }
  WEFT_ASSIGN_OR_RETURN(command.task, NeededText(root, "id"));
  if (command.task.size() > kIdBytesMax) return absl::InvalidArgumentError("id: is too long");
  command.proplet = TextIfAny(root, "proplet_id");
  if (command.kind == Kind::kStart) {
    WEFT_ASSIGN_OR_RETURN(command.name, NeededText(root, "name"));
    ReadStart(root, &command);
  } else if (command.kind == Kind::kInvoke) {
    command.broadcast = BoolOf(root, "broadcast");
    command.invocation = TextIfAny(root, "invocation_id");
    if (command.invocation.size() > kIdBytesMax)
      return absl::InvalidArgumentError("invocation_id: is too long");
    command.refusal = ReadArguments(root, &command);
  }
  return command;
}

std::string CreateText(const std::string& proplet) {
  utsname machine{};
  uname(&machine);
  const auto pages = static_cast<uint64_t>(std::max(0L, sysconf(_SC_PHYS_PAGES)));
  const auto page_bytes = static_cast<uint64_t>(std::max(0L, sysconf(_SC_PAGESIZE)));
  return Dump({{"proplet_id", proplet},
               {"namespace", kNamespace},
               {"metadata",
                {{"description", "functions carried by weft"},
                 {"tags", json::array({"weft"})},
                 {"environment", "binary"},
                 {"os", "linux"},
                 {"hostname", machine.nodename},
                 {"cpu_arch", machine.machine},
                 {"total_memory_bytes", pages * page_bytes},
                 {"proplet_version", WEFT_VERSION},
                 {"wasm_runtime", "weft"}}}});
}

std::string AliveText(const std::string& proplet, bool alive) {
  return Dump({{"proplet_id", proplet}, {"status", alive ? "alive" : "offline"}, {"namespace", kNamespace}});
}

std::string MetricsText(const std::string& proplet) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  uint64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
  const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(since_epoch).count();
  return Dump(
      {{"proplet_id", proplet},
       {"namespace", kNamespace},
       {"timestamp", {{"secs_since_epoch", ns / 1'000'000'000}, {"nanos_since_epoch", ns % 1'000'000'000}}},
       {"cpu_metrics",
        {{"user_seconds", SecondsOf(usage.ru_utime)}, {"system_seconds", SecondsOf(usage.ru_stime)}}},
       {"memory_metrics", {{"rss_bytes", resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE))}}}});
}

std::string ResultText(const std::string& proplet, const std::string& task, const std::string& results,
                       const std::string& error) {
  return Dump({{"task_id", task},
               {"proplet_id", proplet},
               {"results", results},
               {"error", error.empty() ? json(nullptr) : json(error)}});
}

std::string InvokeResultText(const std::string& proplet, const std::string& task,
                             const std::string& invocation, const std::string& results,
                             const std::string& error) {
  return Dump({{"task_id", task},
               {"invocation_id", invocation},
               {"proplet_id", proplet},
               {"results", results},
               {"error", error.empty() ? json(nullptr) : json(error)}});
}

// Without what is not measured: the manager takes what is missing for none.
std::string TaskMetricsText(const std::string& proplet, const std::string& task,
                            const PropellerUsage& usage) {
  const double cpu_percent =
      usage.elapsed_ns == 0 ? 0
                            : 100 * static_cast<double>(usage.cpu_ns) / static_cast<double>(usage.elapsed_ns);
  json metrics = {{"cpu_percent", cpu_percent},
                  {"memory_bytes", usage.memory_bytes},
                  {"uptime_seconds", usage.uptime_ns / kNsPerSecond},
                  {"thread_count", 1}};
  for (const auto& [name, count] : usage.counts) metrics[name] = count;
  return Dump({{"task_id", task},
               {"proplet_id", proplet},
               {"metrics", std::move(metrics)},
               {"aggregated", nullptr},
               {"timestamp", absl::FormatTime(absl::RFC3339_full, absl::Now(), absl::UTCTimeZone())}});
}

std::string RegistryText(const std::string& image) {
  json request;
  request["app_name"] = image;
  return Dump(request);
}

std::string WorkerText(const std::string& node, const std::string& host,
                       const std::vector<PropellerPlacement>& placements) {
  json tasks = json::array();
  for (const PropellerPlacement& each : placements) {
    tasks.push_back({{"id", each.task}, {"name", each.name}, {"ready", each.ready}});
  }
  return Dump({{"node", node}, {"host", host}, {"tasks", std::move(tasks)}});
}

}  // namespace weft::control
