// SPDX-License-Identifier: Apache-2.0
#include "control/daemon/record.h"

#include <utility>

namespace weft::control {

void Record::Add(uint64_t revision, std::string cause, uint64_t event_ns) {
  if (changes_.size() >= kChangesMax) changes_.pop_front();
  Change& change = changes_.emplace_back();
  change.revision = revision;
  change.cause = std::move(cause);
  change.event_ns = event_ns;
}

void Record::SetGeneration(uint64_t revision, uint64_t generation) {
  // What waits stands at the end.
  for (auto change = changes_.rbegin(); change != changes_.rend() && change->programmed_ns == 0; ++change) {
    if (change->revision <= revision) change->generation = generation;
  }
}

const Change* Record::SetProgrammed(uint64_t revision, uint64_t at_ns, uint64_t now_ns,
                                    std::vector<std::string> cut_off, std::vector<std::string> failed) {
  Change* newest = nullptr;
  for (auto change = changes_.rbegin(); change != changes_.rend() && change->programmed_ns == 0; ++change) {
    if (change->revision > revision) continue;
    change->programmed_ns = at_ns >= change->event_ns ? at_ns : now_ns;
    if (change->timed()) times_.Record(change->programmed_ns - change->event_ns);
    if (newest == nullptr) newest = &*change;
  }
  if (newest == nullptr) return nullptr;
  newest->cut_off = std::move(cut_off);
  newest->failed = std::move(failed);
  return newest;
}

}  // namespace weft::control
