// SPDX-License-Identifier: Apache-2.0
// Tasks as they are saved, and taken up again by the next run of weft-control.
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "control/source/propeller/propeller_tasks.h"
#include "dataplane/base/function_id.h"

namespace weft::control {
namespace {

using nlohmann::json;

}  // namespace

std::string PropellerTasks::Save() const {
  json tasks = json::array();
  std::map<uint64_t, std::string> ids;
  for (const auto& [id, task] : tasks_) {
    if (task.phase != Phase::kDraining) ids[task.order] = id;
  }
  for (const auto& [order, id] : ids) {
    const Task& task = tasks_.at(id);
    tasks.push_back({{"id", id},
                     {"name", task.name},
                     {"image", task.image},
                     {"sha256", task.sha256},
                     {"arguments", task.arguments},
                     {"begun", HasBegun(task)},
                     {"latent", task.latent},
                     {"kept", task.phase == Phase::kLatent},
                     {"metrics_s", task.monitored ? task.interval_ns / kNsPerSecond : 0},
                     {"ready", task.phase == Phase::kReady}});
  }
  json saved;
  saved["tasks"] = std::move(tasks);
  return saved.dump(-1, ' ', false, json::error_handler_t::replace);
}

absl::Status PropellerTasks::Load(absl::string_view text,
                                  const std::function<absl::Status(const std::string&)>& check,
                                  uint64_t now_ns) {
  const json saved = json::parse(text.begin(), text.end(), nullptr, false);
  if (!saved.is_object() || !saved.contains("tasks") || !saved["tasks"].is_array()) {
    return absl::DataLossError("is no list of tasks");
  }
  const auto text_of = [](const json& from, const char* key) {
    const auto found = from.find(key);
    return found != from.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  const auto is = [](const json& from, const char* key) {
    const auto found = from.find(key);
    return found != from.end() && found->is_boolean() && found->get<bool>();
  };
  for (const json& each : saved["tasks"]) {
    if (!each.is_object() || tasks_.size() >= kTasksMax) return absl::DataLossError("is no list of tasks");
    const std::string id = text_of(each, "id");
    Task task;
    task.name = text_of(each, "name");
    task.image = text_of(each, "image");
    task.sha256 = text_of(each, "sha256");
    if (!CheckLabel(id, "task").ok() || !CheckFunctionName(FunctionOf(task)).ok() ||
        task.sha256.empty() == task.image.empty()) {
      return absl::DataLossError("holds what is no task");
    }
    task.order = ++orders_;
    task.since_ns = now_ns;
    if (is(each, "begun")) {
      Tell(id, "it was to be run once; what came of it was lost with a restart of weft-control");
      continue;
    }
    if (is(each, "arguments")) {
      Tell(id, "its arguments were lost with a restart of weft-control; it has not run");
      continue;
    }
    task.latent = is(each, "latent");
    const auto metrics_s = each.find("metrics_s");
    if (metrics_s != each.end() && metrics_s->is_number_unsigned()) {
      constexpr uint64_t kSecondsMax = 24 * 3600;
      task.interval_ns = std::min(metrics_s->get<uint64_t>(), kSecondsMax) * kNsPerSecond;
      task.monitored = task.interval_ns != 0;
    }
    task.placed = !task.sha256.empty() && is(each, "ready");
    if (!task.sha256.empty()) {
      task.phase = is(each, "kept") ? Phase::kLatent : task.placed ? Phase::kReady : Phase::kPlacing;
    }
    const absl::Status good = task.sha256.empty() ? absl::OkStatus() : check(task.sha256);
    if (good.ok()) {
      tasks_.insert_or_assign(id, std::move(task));
    } else {
      Tell(id, absl::StrCat("its module is lost: ", good.message()));
    }
  }
  changed_ = true;
  return absl::OkStatus();
}

}  // namespace weft::control
