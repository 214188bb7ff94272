// SPDX-License-Identifier: Apache-2.0
// What weft-control tells of itself, row by row.
#include <algorithm>
#include <cstddef>
#include <deque>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "control/daemon/controller.h"
#include "control/daemon/items.h"
#include "control/model/who_said.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/text.h"

namespace weft::control {
namespace {

// Rows of a reply; each is some 200 bytes, 900 at the most: a whole reply fits the default buffer of a
// socket, 200 KiB, so that a client which reads late has it all.
constexpr std::size_t kSourceRowsMax = 100;
constexpr std::size_t kChangesShown = 64;
constexpr std::size_t kChangeRowsMax = 160;  // Of a reply of changes alone
constexpr std::size_t kSayingsMax = 50;      // Of each kind
constexpr std::size_t kErrorBytesMax = 200;
constexpr std::size_t kNameBytesMax = 256;

double Us(uint64_t ns) { return static_cast<double>(ns) / 1e3; }

// The end of a long path: its beginning is what files have in common.
std::string EndOf(const std::string& path) {
  if (path.size() <= kNameBytesMax) return path;
  return absl::StrCat("...", path.substr(path.size() - kNameBytesMax));
}

const char* StateName(AgentLink::State state) {
  switch (state) {
    case AgentLink::State::kDisconnected:
      return "disconnected";
    case AgentLink::State::kGreeting:
      return "connecting";
    case AgentLink::State::kReady:
      return "connected";
    case AgentLink::State::kRefused:
      return "refused";
  }
  return "";
}

}  // namespace

api::QueryReply Controller::Status() const {
  api::QueryReply reply;
  reply.set_generation(link_->acknowledged());
  const Histogram& times = record_.times();
  ItemBuilder(reply.add_items())
      .Text("component", "weft-control")
      .Text("version", WEFT_VERSION)
      .Text("source", DescribeSources())
      .Text("agent", StateName(link_->state()))
      .Text("node", link_->node())
      .Number("generation", link_->generation())
      .Number("programmed", link_->acknowledged())
      .Number("changes", times.count())
      .Number("refusals", refusals_)
      .Real("event_to_programmed_p50_us", Us(times.Quantile(0.5)))
      .Real("event_to_programmed_p99_us", Us(times.Quantile(0.99)))
      .Real("event_to_programmed_max_us", Us(times.max()))
      .Text("problem", std::string(Utf8Prefix(last_problem_, kErrorBytesMax)))
      .Text("state_problem", std::string(Utf8Prefix(writer_->last_error().message(), kErrorBytesMax)));
  AddSourceRows(&reply);
  const std::deque<Change>& changes = record_.changes();
  const std::size_t shown = std::min(changes.size(), kChangesShown);
  for (auto it = changes.end() - static_cast<std::ptrdiff_t>(shown); it != changes.end(); ++it) {
    const Change& change = *it;
    ItemBuilder(reply.add_items())
        .Number("change", change.generation)
        .Text("cause", std::string(Utf8Prefix(change.cause, kNameBytesMax)))
        .Text("state", change.programmed_ns != 0 ? "programmed"
                       : change.generation != 0  ? "sent"
                                                 : "waiting")
        .Real("event_to_programmed_us", change.timed() ? Us(change.programmed_ns - change.event_ns) : 0)
        .Number("programmed_at_ns", change.programmed_ns)  // CLOCK_MONOTONIC; 0: not yet.
        .Text("cut_off", std::string(Utf8Prefix(absl::StrJoin(change.cut_off, ","), kErrorBytesMax)))
        .Text("failed", std::string(Utf8Prefix(absl::StrJoin(change.failed, "; "), kErrorBytesMax)));
  }
  return reply;
}

api::QueryReply Controller::Changes(uint64_t after) const {
  api::QueryReply reply;
  reply.set_generation(link_->acknowledged());
  const std::deque<Change>& changes = record_.changes();
  auto it =
      std::upper_bound(changes.begin(), changes.end(), after,
                       [](uint64_t revision, const Change& change) { return revision < change.revision; });
  for (std::size_t rows = 0; it != changes.end() && rows < kChangeRowsMax; ++it, ++rows) {
    // One that is under way is told of when it has been programmed, or another behind it has.
    if (it->programmed_ns == 0) break;
    ItemBuilder(reply.add_items())
        .Number("change", it->revision)
        .Number("generation", it->generation)
        .Text("cause", std::string(Utf8Prefix(it->cause, kNameBytesMax)))
        .Number("event_at_ns", it->event_ns)            // CLOCK_MONOTONIC; 0: no event (start, reconnect)
        .Number("programmed_at_ns", it->programmed_ns)  // CLOCK_MONOTONIC
        .Real("event_to_programmed_us", it->timed() ? Us(it->programmed_ns - it->event_ns) : 0);
  }
  return reply;
}

api::QueryReply Controller::SaidOf(const std::string& caller, const std::string& callee) const {
  api::QueryReply reply;
  reply.set_generation(link_->acknowledged());
  for (const Saying& saying : WhoSaid(model_.claims(), caller, callee, kSayingsMax)) {
    ItemBuilder(reply.add_items())
        .Text("thing", saying.thing)
        .Text("said_by", std::string(Utf8Prefix(saying.said_by, kErrorBytesMax)))
        .Text("also_by", std::string(Utf8Prefix(saying.also_by, kErrorBytesMax)));
  }
  return reply;
}

std::string Controller::DescribeSources() const {
  std::vector<std::string> all;
  for (const Watched& each : sources_) all.push_back(each.source->Describe());
  return absl::StrJoin(all, ", ");
}

void Controller::AddSourceRows(api::QueryReply* reply) const {
  for (const SourceStatus& source : model_.Sources(kSourceRowsMax)) {
    ItemBuilder(reply->add_items())
        .Text("file", EndOf(source.origin))
        .Text("state", source.current    ? "current"
                       : source.accepted ? "last good"
                                         : "refused")
        .Text("error",
              source.errors.empty() ? "" : std::string(Utf8Prefix(source.errors.front(), kErrorBytesMax)));
  }
  const uint64_t now_ns = NowNs();
  for (const Watched& each : sources_) {
    const SourceHealth health = each.source->Health();
    ItemBuilder(reply->add_items())
        .Text("watch", each.source->Describe())
        .Text("state", health.synced ? "synced" : "not synced")
        .Number("revision", health.revision)
        .Number("events", health.events)
        .Real("last_event_s",
              health.last_event_ns == 0 ? -1 : static_cast<double>(now_ns - health.last_event_ns) / 1e9)
        .Real("lag_s", health.lost_ns == 0 ? 0 : static_cast<double>(now_ns - health.lost_ns) / 1e9)
        .Number("generation", each.generation)
        .Real("first_s",
              static_cast<double>(each.first_ns) / 1e9)  // From the start to its first word; 0: none.
        .Real("first_programmed_s", static_cast<double>(each.first_programmed_ns) / 1e9)
        .Number("refused", health.refused)
        .Number("errors", health.errors)
        .Text("error", std::string(Utf8Prefix(health.problem, kErrorBytesMax)));
  }
  if (presence_ != nullptr) {
    ItemBuilder(reply->add_items())
        .Text("presence", link_->node())
        .Text("state", presence_->published() ? "published" : "not published")
        .Text("error", std::string(Utf8Prefix(presence_->problem(), kErrorBytesMax)));
  }
}

std::string Controller::Summary() const {
  return absl::StrCat("generation ", link_->acknowledged(), ", ", model_.state().count(EntryKind::kEndpoint),
                      " endpoints, agent ", StateName(link_->state()));
}

}  // namespace weft::control
