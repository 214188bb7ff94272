// SPDX-License-Identifier: Apache-2.0
// Suite `control`: how long a whole mesh takes from an orchestrator to the agent, and how long one change
// does, with the programs as they ship: weft-control and weftd, and the real orchestrator. Beside each stands
// a program of libcurl and simdjson alone.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "bench/control/agent_rows.h"
#include "bench/control/change_run.h"
#include "bench/control/change_source.h"
#include "bench/machine.h"
#include "bench/node.h"
#include "bench/report.h"
#include "bench/runner.h"
#include "bench/suites.h"
#include "bench/worker.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "tests/support/process.h"
#include "tools/weftctl/admin_client.h"

namespace weft::bench {
namespace {

using nlohmann::json;

constexpr int kFullFunctions = 10'000;
constexpr int kQuickFunctions = 1'000;
// A machine of which a bare watcher leaves less than this share has no room for what is to be measured.
constexpr double kIdleMin = 0.25;
constexpr double kRates[] = {1'000, 300, 100, 30};
constexpr uint64_t kSyncNsMax = 120 * kNsPerSecond;
constexpr uint64_t kLookNs = 20 * kNsPerMs;

struct Plan {
  bool quick = false;
  int functions = 0;
  int sync_pairs = 9;
  uint64_t bare_ns = 4 * kNsPerSecond;
  uint64_t change_ns = 60 * kNsPerSecond;
  uint64_t rest_ns = 30 * kNsPerSecond;
};

Plan PlanOf(const SuiteOptions& options) {
  Plan plan;
  if (options.quick) plan = {true, kQuickFunctions, 2, kNsPerSecond, 4 * kNsPerSecond, 3 * kNsPerSecond};
  plan.functions = options.functions > 0 ? options.functions : plan.quick ? kQuickFunctions : kFullFunctions;
  if (options.seconds > 0) {
    plan.change_ns = static_cast<uint64_t>(options.seconds * 1e9);
    plan.bare_ns = std::min(plan.bare_ns, plan.change_ns);
    plan.rest_ns = std::min(plan.rest_ns, plan.change_ns);
  }
  return plan;
}

void Say(const std::string& what) { std::fprintf(stderr, "%s\n", what.c_str()); }

json NewRow(const std::string& name, const Plan& plan) {
  json row = RowWithoutFigures(name);
  row["functions"] = plan.functions;
  row["endpoints"] = plan.functions * kEndpointsPerFunction;
  if (plan.functions < kFullFunctions || plan.quick) {
    row["note"] = absl::StrCat(plan.functions, " functions", plan.quick ? ", and a short run" : "",
                               ": no claim about ", kFullFunctions);
  }
  return row;
}

void Put(const Histogram& times, json* row) {
  (*row)["p50_ns"] = times.Quantile(0.5);
  (*row)["p99_ns"] = times.Quantile(0.99);
  (*row)["p999_ns"] = times.count() >= 1'000 ? json(times.Quantile(0.999)) : json();
  (*row)["max_ns"] = times.max();
  (*row)["samples"] = times.count();
}

// How weft-control stands.
struct Sync {
  double first_s = 0;       // Until the source's first word was in the model; 0: not yet.
  double programmed_s = 0;  // Until the agent had acknowledged it, from the same start; 0: not yet.
  uint64_t events = 0;      // Of the source so far
};

double RealOf(const api::Item& item, const std::string& name) {
  for (const api::Item::Field& field : item.fields()) {
    if (field.name() == name) return field.real();
  }
  return 0;
}

uint64_t CountOf(const api::Item& item, const std::string& name) {
  for (const api::Item::Field& field : item.fields()) {
    if (field.name() == name) return static_cast<uint64_t>(field.number());
  }
  return 0;
}

absl::StatusOr<Sync> AskSync(const std::string& control_socket) {
  WEFT_ASSIGN_OR_RETURN(ctl::AdminClient client, ctl::AdminClient::Connect(control_socket));
  WEFT_ASSIGN_OR_RETURN(const ctl::Answer answer, client.Query(api::Query::STATUS, absl::Seconds(30)));
  Sync sync;
  for (const api::Item& item : answer.items) {
    if (item.fields_size() == 0 || item.fields(0).name() != "watch") continue;
    sync.first_s = RealOf(item, "first_s");
    sync.programmed_s = RealOf(item, "first_programmed_s");
    sync.events = CountOf(item, "events");
  }
  return sync;
}

absl::StatusOr<Sync> WaitForSync(const Node& node) {
  for (const uint64_t until_ns = NowNs() + kSyncNsMax; NowNs() < until_ns;) {
    absl::SleepFor(absl::Nanoseconds(kLookNs));
    const absl::StatusOr<Sync> sync = AskSync(node.control_socket());
    if (sync.ok() && sync->first_s > 0 && sync->programmed_s > 0) return sync;
  }
  return absl::DeadlineExceededError(absl::StrCat("weft-control has not programmed the mesh within ",
                                                  kSyncNsMax / kNsPerSecond,
                                                  " s: ", node.LogOf("weft-control")));
}

struct Listed {
  double seconds = 0;
  uint64_t objects = 0;
  uint64_t bytes = 0;
};

absl::StatusOr<Listed> ListBare(const ChangeSource& source) {
  std::vector<std::string> arguments = {SiblingProgram("weft-bench-watch"),
                                        absl::StrCat(source.name(), "-list")};
  const std::vector<std::string> more = source.WatchArguments();
  arguments.insert(arguments.end(), more.begin(), more.end());
  const test::Ran ran = test::Run(arguments, 0, absl::Seconds(120));
  Listed listed;
  std::istringstream words(ran.output);
  if (ran.exit_code != 0 || !(words >> listed.seconds >> listed.objects >> listed.bytes)) {
    return absl::InternalError(absl::StrCat(arguments[1], ": ", ran.error, ran.output));
  }
  return listed;
}

// Lists by turns, first barely, then as weft-control; the last one of that goes on running.
absl::StatusOr<json> SyncRow(ChangeSource& source, Node& node, const Plan& plan) {
  std::vector<double> seconds, programmed, limits, ratios;
  json row = NewRow(absl::StrCat("control/", source.name(), "_sync"), plan);
  for (int i = 0; i < plan.sync_pairs; ++i) {
    Say(absl::StrCat(source.name(), ": whole mesh, ", i + 1, " of ", plan.sync_pairs));
    WEFT_ASSIGN_OR_RETURN(const Listed bare, ListBare(source));
    WEFT_RETURN_IF_ERROR(node.StartControl(source.Settings()));
    WEFT_ASSIGN_OR_RETURN(const Sync sync, WaitForSync(node));
    seconds.push_back(sync.first_s);
    programmed.push_back(sync.programmed_s);
    limits.push_back(bare.seconds);
    ratios.push_back(sync.first_s / bare.seconds);
    row["samples"] = i + 1;
    row["objects"] = bare.objects;
    row["bytes_read"] = bare.bytes;
  }
  row["seconds"] = Median(seconds);
  row["programmed_seconds"] = Median(programmed);
  row["limit_seconds"] = Median(limits);
  row["ratios"][absl::StrCat("limit/", source.name(), "_sync")] = Median(ratios);
  row["ratio_min"] = *std::min_element(ratios.begin(), ratios.end());
  row["ratio_max"] = *std::max_element(ratios.begin(), ratios.end());
  return row;
}

json MemoryRow(const Node& node, const Plan& plan) {
  json row = NewRow("control/memory", plan);
  std::ifstream file(absl::StrCat("/proc/", node.pid("weft-control"), "/status"));
  for (std::string word; file >> word;) {
    uint64_t kibibytes = 0;
    if (word == "VmRSS:" && file >> kibibytes) row["rss_bytes"] = kibibytes * 1024;
    if (word == "VmHWM:" && file >> kibibytes) row["rss_bytes_max"] = kibibytes * 1024;
  }
  if (!row.contains("rss_bytes")) row["error"] = "weft-control has ended";
  return row;
}

json RestRow(const Node& node, const Plan& plan) {
  Say(absl::StrCat("watching weft-control at rest for ", plan.rest_ns / kNsPerSecond, " s"));
  json row = NewRow("control/rest", plan);
  absl::SleepFor(absl::Seconds(2));  // Until the last good state is on disk.
  const uint64_t begun_ns = NowNs();
  const uint64_t before_ns = ProcessCpuNsOf(node.pid("weft-control"));
  absl::SleepFor(absl::Nanoseconds(plan.rest_ns));
  const uint64_t watched_ns = NowNs() - begun_ns;
  const uint64_t used_ns = ProcessCpuNsOf(node.pid("weft-control")) - before_ns;
  row["cpu_fraction"] = static_cast<double>(used_ns) / static_cast<double>(watched_ns);
  row["watched_s"] = static_cast<double>(watched_ns) / 1e9;
  return row;
}

// Finds the rate, then makes the changes: rows control/…_change, and limit/wake of the same time.
absl::Status ChangeRows(ChangeSource& source, Node& node, const Plan& plan, json* rows) {
  uint64_t event = 0;
  double rate = 0;
  BareRun bare;
  node.Stop("weft-control");  // It is no part of what the bare watcher is measured in.
  for (const double each : kRates) {
    rate = each;
    Say(absl::StrCat(source.name(), ": a bare watcher at ", rate, " events/s"));
    WEFT_ASSIGN_OR_RETURN(bare, RunBareWatcher(source, event, rate, plan.bare_ns));
    event += EventCount(rate, plan.bare_ns);
    if (bare.idle_fraction >= kIdleMin) break;
  }
  WEFT_RETURN_IF_ERROR(node.StartControl(source.Settings()));
  WEFT_RETURN_IF_ERROR(source.Tell([&node] {
    const absl::StatusOr<Sync> sync = AskSync(node.control_socket());
    return sync.ok() ? sync->events : 0;
  }));
  WEFT_RETURN_IF_ERROR(WaitForSync(node).status());
  absl::SleepFor(absl::Seconds(2));
  WEFT_ASSIGN_OR_RETURN(const Sync counted, AskSync(node.control_socket()));
  Say(absl::StrFormat("%s: %.0f events/s for %.0f s", source.name(), rate,
                      static_cast<double>(plan.change_ns) / 1e9));
  const auto cpu_ns = [&node] {
    return ProcessCpuNsOf(node.pid("weft-control")) + ProcessCpuNsOf(node.pid("weftd"));
  };
  const uint64_t cpu_before_ns = cpu_ns();
  WEFT_ASSIGN_OR_RETURN(const ChangeRun run, RunChanges(source, node.control_socket(), counted.events, event,
                                                        rate, plan.change_ns));
  json row = NewRow(absl::StrCat("control/", source.name(), "_change"), plan);
  Put(run.ours, &row);
  row["rate_per_s"] = rate;
  row["messages_per_s"] = static_cast<double>(run.events) * 1e9 / static_cast<double>(plan.change_ns);
  row["cpu_ns_per_message"] = static_cast<double>(cpu_ns() - cpu_before_ns) / static_cast<double>(run.events);
  row["source_p50_ns"] = bare.delay.Quantile(0.5);
  row["source_p99_ns"] = bare.delay.Quantile(0.99);
  row["total_p50_ns"] = run.total.Quantile(0.5);
  row["total_p99_ns"] = run.total.Quantile(0.99);
  row["wake_p99_ns"] = run.wake.Quantile(0.99);
  row["events"] = run.events;
  row["generations"] = run.changes;
  row["idle_fraction_bare"] = bare.idle_fraction;
  row["idle_fraction"] = run.idle_fraction;
  if (run.missed != 0 || bare.missed != 0) {
    row["error"] = absl::StrCat(run.missed, " events were not programmed within 5 s, ", bare.missed,
                                " not seen by the bare watcher");
  }
  rows->push_back(std::move(row));
  json wake = NewRow("limit/wake", plan);
  Put(run.wake, &wake);
  wake["beside"] = absl::StrCat("control/", source.name(), "_change");
  rows->push_back(std::move(wake));
  return absl::OkStatus();
}

absl::Status RunSource(ChangeSource& source, const Plan& plan,
                       const std::function<bool(const std::string&)>& wanted, json* rows) {
  uint64_t said_ns = 0;
  WEFT_RETURN_IF_ERROR(source.Fill(plan.functions, [&said_ns](const std::string& line) {
    if (NowNs() - said_ns < kNsPerSecond) return;
    said_ns = NowNs();
    Say(line);
  }));
  WEFT_ASSIGN_OR_RETURN(
      const std::unique_ptr<Node> node,
      Node::Start({{.uid = kCalleeUid, .hosts = {"h"}, .serve = {"app/*"}, .call_as = "app"}}, ""));
  const std::string own = absl::StrCat("control/", source.name());
  const bool of_etcd = source.name() == "etcd" && (wanted("control/memory") || wanted("control/rest"));
  if (source.HasList() && (wanted(own + "_sync") || of_etcd)) {
    WEFT_ASSIGN_OR_RETURN(json row, SyncRow(source, *node, plan));
    if (wanted(own + "_sync")) rows->push_back(std::move(row));
    if (source.name() == "etcd" && wanted("control/memory")) rows->push_back(MemoryRow(*node, plan));
    if (source.name() == "etcd" && wanted("control/rest")) rows->push_back(RestRow(*node, plan));
  }
  if (wanted(own + "_change")) WEFT_RETURN_IF_ERROR(ChangeRows(source, *node, plan, rows));
  return absl::OkStatus();
}

// Rows layer/agent_change and layer/agent_change_callers.
absl::Status AgentRows(const Plan& plan, json* rows) {
  Say("weftd alone with the whole mesh");
  WEFT_ASSIGN_OR_RETURN(const AgentRun run, RunAgent(plan.functions, plan.quick ? 300 : 2'000));
  for (const auto& [name, times] :
       {std::pair{"layer/agent_change", &run.bare}, std::pair{"layer/agent_change_callers", &run.callers}}) {
    json row = NewRow(name, plan);
    Put(*times, &row);
    row["snapshot_seconds"] = run.snapshot_s;
    rows->push_back(std::move(row));
  }
  return absl::OkStatus();
}

void Print(const json& rows) {
  const auto ms = [](const json& row, const char* key) {
    return row.contains(key) && row[key].is_number() ? absl::StrFormat("%.3f", row[key].get<double>() / 1e6)
                                                     : "-";
  };
  std::cout << absl::StrFormat("%-24s %10s %10s  %s\n", "row", "p50 ms", "p99 ms", "");
  for (const json& row : rows) {
    std::string rest;
    if (row.contains("seconds")) {
      rest = absl::StrFormat("%.3f s in the model, %.3f s programmed, limit %.3f s",
                             row["seconds"].get<double>(), row["programmed_seconds"].get<double>(),
                             row["limit_seconds"].get<double>());
      for (const auto& [name, ratio] : row["ratios"].items()) {
        absl::StrAppendFormat(&rest, ", %.3g x %s", ratio.get<double>(), name);
      }
    }
    if (row.contains("rate_per_s")) {
      rest = absl::StrCat(row["rate_per_s"].get<double>(), "/s; source ", ms(row, "source_p50_ns"), " and ",
                          ms(row, "source_p99_ns"), " ms; in all ", ms(row, "total_p50_ns"), " and ",
                          ms(row, "total_p99_ns"), " ms; wake p99 ", ms(row, "wake_p99_ns"), " ms");
    }
    if (row.contains("rss_bytes")) rest = absl::StrFormat("%.1f MB", row["rss_bytes"].get<double>() / 1e6);
    if (row.contains("cpu_fraction"))
      rest = absl::StrFormat("%.4f %% of a core", 100 * row["cpu_fraction"].get<double>());
    if (row.contains("error")) rest = absl::StrCat("FAILED: ", row["error"].get<std::string>());
    std::cout << absl::StrFormat("%-24s %10s %10s  %s\n", row["name"].get<std::string>(), ms(row, "p50_ns"),
                                 ms(row, "p99_ns"), rest);
  }
}

// The sources, each with how it is made.
using MakeSource = absl::StatusOr<std::unique_ptr<ChangeSource>> (*)();
constexpr std::pair<const char*, MakeSource> kSources[] = {{"etcd", NewEtcdChangeSource},
                                                           {"kubernetes", NewKubeChangeSource},
                                                           {"mqtt", NewMqttChangeSource},
                                                           {"file", NewFileChangeSource}};

}  // namespace

absl::Status RunControl(const SuiteOptions& options) {
  WEFT_RETURN_IF_ERROR(CheckWritable(options.json_path));
  const Plan plan = PlanOf(options);
  std::regex filter;
  try {
    filter = options.filter;
  } catch (const std::regex_error& error) {
    return absl::InvalidArgumentError(absl::StrCat("--filter ", options.filter, ": ", error.what()));
  }
  const auto wanted = [&](const std::string& row) {
    return options.filter.empty() || std::regex_search(row, filter);
  };
  RaiseDescriptorLimit();
  json report = {{"machine", MachineFacts()}, {"rows", json::array()}};
  absl::Status failed;
  bool any = wanted("layer/agent_change");
  if (any) failed = AgentRows(plan, &report["rows"]);
  for (const auto& [name, make] : kSources) {
    const std::string own = absl::StrCat("control/", name);
    const bool chosen = wanted(own + "_sync") || wanted(own + "_change") ||
                        (name == std::string("etcd") && (wanted("control/memory") || wanted("control/rest")));
    if (!chosen) continue;
    any = true;
    absl::StatusOr<std::unique_ptr<ChangeSource>> source = make();
    absl::Status ran = source.status();
    if (ran.ok()) ran = RunSource(**source, plan, wanted, &report["rows"]);
    if (ran.ok()) continue;
    json row = NewRow(own + "_change", plan);
    row["error"] = ran.ToString();
    report["rows"].push_back(std::move(row));
    if (failed.ok()) failed = absl::Status(ran.code(), absl::StrCat(name, ": ", ran.message()));
  }
  if (!any)
    return absl::InvalidArgumentError(
        absl::StrCat("filter \"", options.filter, "\": no row has such a name"));
  if (options.json_path != "-") Print(report["rows"]);
  if (!options.json_path.empty()) WEFT_RETURN_IF_ERROR(WriteText(options.json_path, report.dump(1)));
  for (const json& row : report["rows"]) {
    if (failed.ok() && row.contains("error")) {
      failed = absl::InternalError(
          absl::StrCat(row["name"].get<std::string>(), ": ", row["error"].get<std::string>()));
    }
  }
  return failed;
}

}  // namespace weft::bench
