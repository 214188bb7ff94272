// SPDX-License-Identifier: Apache-2.0
// NodeLink: what weft-control says of the interface, its XDP program and that one's maps.
#include <algorithm>
#include <array>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "dataplane/agent/node_link.h"
#include "dataplane/port/steer_table.h"
#include "spdlog/spdlog.h"

namespace weft::agent {
namespace {

engine::Steering SteeringOf(const SteerMaps& maps, const std::string& interface) {
  return {.interface = interface,
          .interface_index = maps.interface_index,
          .xsks_fd = maps.xsks.get(),
          .keys_fd = maps.keys.get(),
          .drops_fd = maps.drops.get(),
          .cpus = maps.cpus};
}

}  // namespace

void NodeLink::OnSteering(const SteerAnswer& answer) {
  const std::string why(answer.status().message());
  if (!started()) {
    if (const absl::Status begun = StartEngines(true, why); !begun.ok()) {
      const std::string problem(begun.message());
      if (problem != starting_problem_) spdlog::error("no call leaves this node: {}", problem);
      starting_problem_ = problem;
      return;
    }
    for (Steered& steered : steered_) steered.problem = steered.refused = why;
    if (!answer.ok()) return LogPorts();
  }
  if (answer.ok()) GiveKeys(**answer);
  for (uint16_t worker = 0; worker < workers_; ++worker) {
    if (engines_[worker]->interface_lost()) {
      const absl::Status moved = engines_[worker]->Unsteer(absl::StrCat(config_.interface, " was deleted"));
      if (!moved.ok()) spdlog::error("back on the kernel's UDP socket: {}", std::string(moved.message()));
      steered_[worker].by.reset();
      LogPort(worker);
    }
    // weft-control that is gone, or says no, takes nothing away: what it has attached stays.
    answer.ok() ? Steer(worker, **answer) : StayUnsteered(worker, why);
  }
  if (answer.ok()) SteerInside(*answer);
}

// The table is complete only with the keys of all workers: until then the program leaves packets of keys that
// it does not know to the kernel's sockets.
void NodeLink::GiveKeys(const SteerMaps& maps) {
  if (keys_in_ == maps.keys_id) return;
  absl::Status given;
  for (const std::unique_ptr<engine::EngineThread>& engine : engines_)
    given.Update(engine->GiveKeys(SteeringOf(maps, config_.interface)));
  if (given.ok()) {
    absl::StatusOr<port::SteerTable> table =
        port::SteerTable::Map(maps.keys.get(), maps.drops.get(), maps.cpus);
    if (table.ok()) {
      // Whoever had them was another weftd's; those of this one are entered anew, or have been.
      for (uint32_t slot = 1; slot <= WEFT_STEER_INSIDE_MAX; ++slot) {
        if (std::none_of(inside_xdp_.begin(), inside_xdp_.end(), [&](const auto& entry) {
              return entry.second.slot == slot && entry.second.entered_in[0] == maps.keys_id;
            }))
          table->ClearInside(slot);
      }
      table->SetComplete();
    }
    given.Update(table.status());
  }
  if (given.ok()) keys_in_ = maps.keys_id;
  const std::string problem(given.message());
  if (!given.ok() && problem != keys_problem_) spdlog::error("interface {}: {}", config_.interface, problem);
  keys_problem_ = problem;
}

// The reason that the status shows is the one of now: what a starting weft-control mends is not what one that
// steers another interface asks of the operator.
void NodeLink::StayUnsteered(uint16_t worker, const std::string& why) {
  Steered& steered = steered_[worker];
  if (steered.refused.empty() || steered.refused == why) return;
  steered.refused = why;
  engines_[worker]->SetWhyNotSteered(why);
  LogPort(worker);
}

void NodeLink::Steer(uint16_t worker, const SteerMaps& maps) {
  Steered& steered = steered_[worker];
  steered.refused.clear();
  const std::array<uint32_t, 3> by = {maps.interface_index, maps.keys_id, maps.xsks_id};
  if (steered.by == by) return;
  const absl::Status status = engines_[worker]->Steer(SteeringOf(maps, config_.interface));
  // An interface that is down, or another socket on its queue, are tried again a second later.
  if (!absl::IsUnavailable(status)) steered.by = by;
  const std::string problem(status.message());
  if (!status.ok() && problem == steered.problem) return;
  if (!status.ok()) spdlog::error("interface {}: {}", config_.interface, problem);
  steered.problem = problem;
  LogPort(worker);
}

}  // namespace weft::agent
