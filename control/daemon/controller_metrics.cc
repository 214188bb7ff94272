// SPDX-License-Identifier: Apache-2.0
// What weft-control tells a Prometheus server. Labels are names of sources, which its own configuration sets,
// and fixed words: nothing that a stranger says makes a new series.
#include <cstddef>
#include <ctime>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "control/daemon/controller.h"
#include "dataplane/base/clock.h"

namespace weft::control {
namespace {

std::string Quoted(const std::string& value) {
  return absl::StrCat("\"", absl::StrReplaceAll(value, {{"\\", "\\\\"}, {"\"", "\\\""}, {"\n", "\\n"}}),
                      "\"");
}

double Seconds(uint64_t ns) { return static_cast<double>(ns) / 1e9; }

class Page {
 public:
  void Begin(const char* name, const char* type, const char* help) {
    name_ = name;
    absl::StrAppend(&text_, "# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n");
  }
  template <typename Number>
  void Add(const std::string& labels, Number value, const char* suffix = "") {
    absl::StrAppend(&text_, name_, suffix, labels.empty() ? "" : absl::StrCat("{", labels, "}"), " ", value,
                    "\n");
  }
  template <typename Number>
  void One(const char* name, const char* type, const char* help, Number value) {
    Begin(name, type, help);
    Add("", value);
  }
  std::string Take() { return std::move(text_); }

 private:
  std::string name_;
  std::string text_;
};

struct SourceRow {
  std::string labels;
  SourceHealth health;
  uint64_t generation = 0;
  uint64_t first_ns = 0;
};

void AddSources(const std::vector<SourceRow>& rows, Page* page) {
  const auto add = [&](const char* name, const char* type, const char* help, auto&& value_of) {
    page->Begin(name, type, help);
    for (const SourceRow& row : rows) page->Add(row.labels, value_of(row));
  };
  const uint64_t now_ns = NowNs();
  add("weft_source_synced", "gauge", "Whether the source has said all and its watch stands.",
      [](const SourceRow& row) { return row.health.synced ? 1 : 0; });
  add("weft_source_lag_seconds", "gauge", "Since when the source is lost; 0 where it is not.",
      [now_ns](const SourceRow& row) {
        return row.health.lost_ns == 0 ? 0 : Seconds(now_ns - row.health.lost_ns);
      });
  add("weft_source_last_event_timestamp_seconds", "gauge", "Time of the last change; 0: none yet.",
      [now_ns](const SourceRow& row) {
        if (row.health.last_event_ns == 0) return int64_t{0};
        return static_cast<int64_t>(time(nullptr)) -
               static_cast<int64_t>((now_ns - row.health.last_event_ns) / kNsPerSecond);
      });
  add("weft_source_events_total", "counter", "Changes taken.",
      [](const SourceRow& row) { return row.health.events; });
  add("weft_source_errors_total", "counter", "Losses of the source, and objects that could not be read.",
      [](const SourceRow& row) { return row.health.errors; });
  add("weft_source_refused_objects", "gauge", "Objects that it holds now and that cannot be read.",
      [](const SourceRow& row) { return row.health.refused; });
  add("weft_source_revision", "gauge", "Revision by the source's own count; 0 where it has none.",
      [](const SourceRow& row) { return row.health.revision; });
  add("weft_source_generation", "gauge", "Generation that took its last change to the agent.",
      [](const SourceRow& row) { return row.generation; });
  add("weft_source_first_word_seconds", "gauge",
      "From the start until what the source said first was in the model; 0: not yet.",
      [](const SourceRow& row) { return Seconds(row.first_ns); });
}

}  // namespace

std::string Controller::Metrics() const {
  Page page;
  page.Begin("weft_build_info", "gauge", "Version of weft-control.");
  page.Add(absl::StrCat("version=", Quoted(WEFT_VERSION)), 1);
  page.One("weft_control_agent_connected", "gauge", "Whether the agent takes generations.",
           link_->state() == AgentLink::State::kReady ? 1 : 0);
  page.One("weft_control_generation", "gauge", "Last generation that was sent.", link_->generation());
  page.One("weft_control_programmed_generation", "gauge", "Last generation that every host applied.",
           link_->acknowledged());
  page.One("weft_control_refusals_total", "counter", "Generations that the agent refused.", refusals_);
  const MeshState& state = model_.state();
  page.Begin("weft_control_entries", "gauge", "Entries of the mesh.");
  page.Add("kind=\"node\"", state.count(EntryKind::kNode));
  page.Add("kind=\"function\"", state.count(EntryKind::kFunction));
  page.Add("kind=\"endpoint\"", state.count(EntryKind::kEndpoint));
  page.Add("kind=\"rule\"", state.count(EntryKind::kAllow));
  const Histogram& times = record_.times();
  page.Begin("weft_control_event_to_programmed_seconds", "summary",
             "From the arrival of a change to its acknowledgement, since the start.");
  for (const double quantile : {0.5, 0.9, 0.99}) {
    page.Add(absl::StrCat("quantile=\"", quantile, "\""), Seconds(times.Quantile(quantile)));
  }
  page.Add("", Seconds(static_cast<uint64_t>(times.Mean() * static_cast<double>(times.count()))), "_sum");
  page.Add("", times.count(), "_count");
  std::vector<SourceRow> rows;
  for (const Watched& each : sources_) {
    rows.push_back({absl::StrCat("source=", Quoted(each.source->Name())), each.source->Health(),
                    each.generation, each.first_ns});
  }
  AddSources(rows, &page);
  if (presence_ != nullptr) {
    page.One("weft_presence_published", "gauge", "Whether all that this node serves stands in etcd.",
             presence_->published() ? 1 : 0);
  }
  return page.Take();
}

}  // namespace weft::control
