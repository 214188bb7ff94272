// SPDX-License-Identifier: Apache-2.0
// Controller: what comes of what the agent says. On the thread of its loop.
#include <malloc.h>
#include <spdlog/spdlog.h>

#include <string>
#include <utility>
#include <vector>

#include "control/daemon/controller.h"
#include "dataplane/base/clock.h"

namespace weft::control {
namespace {

// An acknowledgement lies in the socket no longer than this, unless this thread did not run for so long.
constexpr uint64_t kUnreadNsMax = kNsPerSecond;

// When the agent had it in force, by its word: its clock is this machine's. Elsewhere, and where it does not
// say, when its word was read.
uint64_t TimeOf(const api::Programmed& programmed, uint64_t now_ns) {
  const uint64_t at_ns = programmed.at_ns();
  return at_ns <= now_ns && now_ns - at_ns < kUnreadNsMax ? at_ns : now_ns;
}

double Ms(uint64_t ns) { return static_cast<double>(ns) / 1e6; }

}  // namespace

void Controller::OnConnected() {
  last_problem_.clear();
  spdlog::info("connected to the agent of node {}", link_->node().empty() ? "?" : link_->node());
  for (const Watched& each : sources_) each.source->OnAgent(link_->node());
}

void Controller::OnDisconnected(const absl::Status& why) {
  for (const Watched& each : sources_) each.source->OnAgentLost();
  // Once for each kind of trouble, not once for each try.
  const std::string problem(why.message());
  if (problem == last_problem_) return;
  last_problem_ = problem;
  spdlog::warn("no agent: {}; trying again", problem);
}

void Controller::OnSent(uint64_t generation, uint64_t revision, bool snapshot) {
  record_.SetGeneration(revision, generation);
  for (Watched& each : sources_) {
    if (each.revision != 0 && each.revision <= revision && each.generation == 0) each.generation = generation;
  }
  spdlog::debug("generation {} sent{}", generation, snapshot ? " as a snapshot" : "");
}

void Controller::OnProgrammed(uint64_t revision, const api::Programmed& programmed) {
  const uint64_t now_ns = NowNs();
  last_problem_.clear();
  const std::vector<std::string> cut_off(programmed.cut_off().begin(), programmed.cut_off().end());
  const std::vector<std::string> failed(programmed.failed().begin(), programmed.failed().end());
  const Change* change = record_.SetProgrammed(revision, TimeOf(programmed, now_ns), now_ns, cut_off, failed);
  if (change != nullptr && change->timed()) {
    spdlog::info("generation {} ({}) programmed {:.3f} ms after its event", programmed.generation(),
                 change->cause, Ms(change->programmed_ns - change->event_ns));
  } else {
    spdlog::info("generation {} programmed", programmed.generation());
  }
  for (const std::string& host : cut_off) {
    spdlog::warn("generation {}: host {} did not answer in time and was cut off", programmed.generation(),
                 host);
  }
  for (const std::string& placement : failed) {
    spdlog::error("generation {}: {}", programmed.generation(), placement);
  }
  for (Watched& each : sources_) {
    if (each.first_programmed_ns == 0 && each.revision != 0 && each.revision <= revision) {
      each.first_programmed_ns = now_ns - start_ns_;
    }
    each.source->OnProgrammed(model_.state(), failed, each.revision <= revision);
  }
  SaveSoon();
  if (std::exchange(trim_, false)) malloc_trim(0);
}

void Controller::OnRegistrations(const std::vector<api::Registrations::Host>& hosts) {
  if (presence_ == nullptr) return;
  std::vector<api::Endpoint> endpoints;
  for (const api::Registrations::Host& host : hosts) {
    for (const std::string& function : host.serves()) {
      api::Endpoint& endpoint = endpoints.emplace_back();
      endpoint.set_function(function);
      endpoint.set_node(link_->node());
      endpoint.set_host(host.name());
    }
  }
  presence_->Say(link_->node(), endpoints);
}

void Controller::OnRefused(const std::string& reason) {
  for (const Watched& each : sources_) each.source->OnAgentLost();
  ++refusals_;
  if (reason == last_problem_) return;
  last_problem_ = reason;
  spdlog::error("{}", reason);
}

}  // namespace weft::control
