// SPDX-License-Identifier: Apache-2.0
// Suite `idle`: what a node costs that has served calls and now has nothing to do: CPU and resident memory of
// weftd, weft-control and one weft-host with one small function.
#include <time.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/machine.h"
#include "bench/message.h"
#include "bench/node.h"
#include "bench/report.h"
#include "bench/suites.h"
#include "bench/worker.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "dataplane/client/weft/client.h"

namespace weft::bench {
namespace {

using nlohmann::json;

constexpr char kHost[] = "bench-idle";
constexpr char kFunction[] = "bench/callee";
constexpr uid_t kCallingUid = 64993;
constexpr int kCalls = 2'000;
constexpr int kCallsTimeoutMs = 60'000;
// Until what a call leaves behind (clean instances, parked channels) is done.
constexpr uint64_t kSettleNs = 3 * kNsPerSecond;
constexpr uint64_t kQuickWatchNs = 10 * kNsPerSecond;
constexpr uint64_t kFullWatchNs = 60 * kNsPerSecond;

void SleepFor(uint64_t ns) {
  timespec left{static_cast<time_t>(ns / kNsPerSecond), static_cast<long>(ns % kNsPerSecond)};
  while (nanosleep(&left, &left) != 0) {
  }
}

// Makes some calls, so that the node is one that has worked; the caller ends after them.
absl::Status MakeCalls(const std::string& run_dir) {
  MeshOptions options;
  options.run_dir = run_dir;
  WEFT_ASSIGN_OR_RETURN(const std::unique_ptr<Mesh> mesh, Mesh::Create(options));
  WEFT_RETURN_IF_ERROR(mesh->Attach());
  Client client(*mesh);
  const uint64_t end_ns = NowNs() + 30 * kNsPerSecond;
  absl::StatusOr<Function> function = client.Resolve(kFunction);
  while (!function.ok() && NowNs() < end_ns) {
    client.Wait(absl::Milliseconds(20));
    function = client.Resolve(kFunction);
  }
  WEFT_RETURN_IF_ERROR(function.status());
  std::array<std::byte, kBenchAnswerBytes> request, answer;
  for (uint64_t id = 1; id <= kCalls; ++id) {
    bench_fill(request.data(), kBenchAnswerBytes, id);
    WEFT_RETURN_IF_ERROR(client.Call(*function, request, answer).status());
    if (bench_check(answer.data(), kBenchAnswerBytes, id) == 0) return absl::DataLossError("wrong answer");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Node>> StartNode() {
  const std::vector<NodeTenant> tenants = {
      {.uid = kCalleeUid, .hosts = {kHost}, .serve = {"bench/*"}, .call_as = "bench"},
      {.uid = kCallingUid, .hosts = {}, .serve = {}, .call_as = "bench"},
  };
  const std::string mesh =
      absl::StrCat("version: 1\nfunctions:\n  - name: ", kFunction, "\n    timeout: 1s\n");
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<Node> node, Node::Start(tenants, mesh));
  WEFT_RETURN_IF_ERROR(node->StartHost({.name = kHost,
                                        .uid = kCalleeUid,
                                        .core = -1,
                                        .serve = {absl::StrCat(kFunction, "=", GuestPath("bench_callee"))},
                                        .arguments = {"--no-cache"}}));
  const std::string run_dir = node->run_dir();
  WEFT_ASSIGN_OR_RETURN(Worker caller,
                        Worker::Start({-1, kCallingUid, "bench-caller"}, [=](const Worker::Command&) {
                          Worker::Reply reply;
                          const absl::Status status = MakeCalls(run_dir);
                          if (!status.ok()) {
                            absl::SNPrintF(reply.failure, sizeof(reply.failure), "%s", status.ToString());
                          }
                          return reply;
                        }));
  WEFT_RETURN_IF_ERROR(caller.Run({}));
  if (absl::Status called = caller.Finish(kCallsTimeoutMs).status(); !called.ok()) {
    return absl::Status(called.code(),
                        absl::StrCat(called.message(), "; the host said: ", node->LogOf(kHost)));
  }
  return node;
}

// Resident memory of a process in bytes; null where it is gone.
json ResidentBytes(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/status"));
  std::string word;
  while (file >> word) {
    if (word != "VmRSS:") continue;
    uint64_t kibibytes = 0;
    file >> kibibytes;
    return kibibytes * 1024;
  }
  return nullptr;
}

json IdleRow(const std::string& name, pid_t pid, uint64_t cpu_ns, uint64_t watched_ns) {
  json row = RowWithoutFigures(name);
  const json resident = ResidentBytes(pid);
  row["rss_bytes"] = resident;
  row["cpu_fraction"] = nullptr;
  if (resident.is_null()) {
    row["error"] = "the process has ended";
  } else {
    row["cpu_fraction"] = static_cast<double>(cpu_ns) / static_cast<double>(watched_ns);
  }
  row["watched_s"] = static_cast<double>(watched_ns) / 1e9;
  return row;
}

}  // namespace

absl::Status RunIdle(const SuiteOptions& options) {
  WEFT_RETURN_IF_ERROR(CheckWritable(options.json_path));
  json report = {{"machine", MachineFacts()}, {"rows", json::array()}};
  std::fprintf(stderr, "starting a node\n");
  WEFT_ASSIGN_OR_RETURN(const std::unique_ptr<Node> node, StartNode());
  SleepFor(kSettleNs);
  const uint64_t watch_ns = options.seconds > 0 ? static_cast<uint64_t>(options.seconds * 1e9)
                            : options.quick     ? kQuickWatchNs
                                                : kFullWatchNs;
  std::fprintf(stderr, "watching it for %.0f s\n", static_cast<double>(watch_ns) / 1e9);
  const std::array<std::pair<const char*, const char*>, 3> programs = {
      {{"idle/weftd", "weftd"}, {"idle/weft-control", "weft-control"}, {"idle/weft-host", kHost}}};
  std::array<uint64_t, 3> before_ns{};
  const uint64_t start_ns = NowNs();
  for (std::size_t i = 0; i < programs.size(); ++i)
    before_ns[i] = ProcessCpuNsOf(node->pid(programs[i].second));
  SleepFor(watch_ns);
  const uint64_t watched_ns = NowNs() - start_ns;
  bool ended = false;
  for (std::size_t i = 0; i < programs.size(); ++i) {
    const pid_t pid = node->pid(programs[i].second);
    report["rows"].push_back(IdleRow(programs[i].first, pid, ProcessCpuNsOf(pid) - before_ns[i], watched_ns));
    ended = ended || report["rows"].back().contains("error");
  }
  if (options.json_path != "-") {
    std::cout << absl::StrFormat("%-20s %12s %14s\n", "row", "CPU", "resident");
    for (const json& row : report["rows"]) {
      if (row.contains("error")) continue;
      std::cout << absl::StrFormat("%-20s %10.4f %% %10.1f MB\n", row["name"].get<std::string>(),
                                   100 * row["cpu_fraction"].get<double>(),
                                   row["rss_bytes"].get<double>() / 1e6);
    }
  }
  if (!options.json_path.empty()) WEFT_RETURN_IF_ERROR(WriteText(options.json_path, report.dump(1)));
  if (ended) return absl::InternalError("a program of the node ended while it was watched");
  return absl::OkStatus();
}

}  // namespace weft::bench
