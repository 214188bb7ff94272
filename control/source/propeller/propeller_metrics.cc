// SPDX-License-Identifier: Apache-2.0
#include "control/source/propeller/propeller_metrics.h"

#include <algorithm>
#include <set>

namespace weft::control {
namespace {

const api::Item::Field* FieldOf(const api::Item& item, const char* name) {
  const auto found = std::find_if(item.fields().begin(), item.fields().end(),
                                  [&](const api::Item::Field& field) { return field.name() == name; });
  return found == item.fields().end() ? nullptr : &*found;
}

std::string TextOf(const api::Item& item, const char* name) {
  const api::Item::Field* const field = FieldOf(item, name);
  return field == nullptr ? std::string() : field->text();
}

uint64_t NumberOf(const api::Item& item, const char* name) {
  const api::Item::Field* const field = FieldOf(item, name);
  return field == nullptr ? 0 : static_cast<uint64_t>(field->number());
}

}  // namespace

void PropellerMetrics::Follow(const std::vector<PropellerMeasured>& tasks, uint64_t now_ns) {
  std::set<std::string> named;
  for (const PropellerMeasured& each : tasks) {
    named.insert(each.task);
    const auto [task, fresh] = tasks_.try_emplace(each.task);
    if (fresh) {
      task->second.begun_ns = task->second.due_ns = now_ns;
      task->second.function = each.function;
    }
    task->second.interval_ns = each.interval_ns;
  }
  std::erase_if(tasks_, [&](const auto& task) { return !named.contains(task.first); });
}

uint64_t PropellerMetrics::wake_ns() const {
  uint64_t wake_ns = 0;
  for (const auto& [id, task] : tasks_) {
    if (wake_ns == 0 || task.due_ns < wake_ns) wake_ns = task.due_ns;
  }
  return wake_ns;
}

std::vector<std::string> PropellerMetrics::TakeDue(uint64_t now_ns) {
  std::set<std::string> functions;
  for (auto& [id, task] : tasks_) {
    if (now_ns < task.due_ns) continue;
    task.due_ns = now_ns + task.interval_ns;
    task.asked = true;
    functions.insert(task.function);
  }
  return {functions.begin(), functions.end()};
}

std::vector<std::pair<std::string, PropellerUsage>> PropellerMetrics::Take(
    const std::vector<api::Item>& functions, uint64_t now_ns) {
  std::map<std::string, const api::Item*> rows;
  for (const api::Item& item : functions) {
    // Without those who did not answer its sums would seem to fall.
    if (TextOf(item, "counters") == "current") rows[TextOf(item, "function")] = &item;
  }
  std::vector<std::pair<std::string, PropellerUsage>> told;
  for (auto& [id, task] : tasks_) {
    const auto row = rows.find(task.function);
    if (!task.asked || row == rows.end()) continue;
    task.asked = false;
    const api::Item& item = *row->second;
    const uint64_t handler_ns = NumberOf(item, "handler_ns");
    PropellerUsage usage;
    if (task.told_ns != 0 && now_ns > task.told_ns) {
      usage.elapsed_ns = now_ns - task.told_ns;
      // It counts anew where its host or its module is another one.
      usage.cpu_ns = handler_ns < task.handler_ns ? handler_ns : handler_ns - task.handler_ns;
    }
    usage.memory_bytes = NumberOf(item, "memory_bytes");
    usage.uptime_ns = now_ns - task.begun_ns;
    usage.counts = {{"calls", NumberOf(item, "calls")},
                    {"failures", NumberOf(item, "failures")},
                    {"bytes_in", NumberOf(item, "bytes_in")},
                    {"bytes_out", NumberOf(item, "bytes_out")}};
    task.told_ns = now_ns;
    task.handler_ns = handler_ns;
    told.emplace_back(id, std::move(usage));
  }
  return told;
}

}  // namespace weft::control
