// SPDX-License-Identifier: Apache-2.0
#include "bench/guest_pair.h"

#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/pair_row.h"
#include "dataplane/base/status.h"

namespace weft::bench {
namespace {

constexpr char kCallerHost[] = "bench-caller";
constexpr char kCalleeHost[] = "bench-callee";

}  // namespace

absl::StatusOr<std::unique_ptr<GuestPair>> GuestPair::Start(int poll_us) {
  std::unique_ptr<GuestPair> pair(new GuestPair);
  const std::vector<NodeTenant> tenants = {
      {.uid = kCallerUid, .hosts = {kCallerHost}, .serve = {"bench/*"}, .call_as = "bench"},
      {.uid = kCalleeUid, .hosts = {kCalleeHost}, .serve = {"bench/*"}, .call_as = "bench"},
      {.uid = kInvokerUid, .hosts = {}, .serve = {}, .call_as = "bench"},
  };
  WEFT_ASSIGN_OR_RETURN(pair->node_, Node::Start(tenants, /*mesh_yaml=*/""));
  std::vector<std::string> common = {"--no-cache"};
  if (poll_us >= 0) common.insert(common.end(), {"--poll-us", absl::StrCat(poll_us)});
  auto with = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), common.begin(), common.end());
    return arguments;
  };
  const std::string callee = GuestPath("bench_callee");
  WEFT_RETURN_IF_ERROR(pair->node_->StartHost(
      {.name = kCallerHost,
       .uid = kCallerUid,
       .core = kCallerCore,
       .serve = {},
       .arguments = with({"--keep", absl::StrCat(kBenchCaller, "=", GuestPath("bench_caller")), "--keep",
                          absl::StrCat("bench/local=", callee)})}));
  WEFT_RETURN_IF_ERROR(
      pair->node_->StartHost({.name = kCalleeHost,
                              .uid = kCalleeUid,
                              .core = kCalleeCore,
                              .serve = {absl::StrCat("bench/fresh=", callee)},
                              .arguments = with({"--keep", absl::StrCat("bench/keep=", callee)})}));
  const absl::Status status =
      pair->invoker_.Start(pair->node_->run_dir(), {Callee::kKeep, Callee::kFresh, Callee::kLocal});
  if (status.ok()) return pair;
  return absl::Status(status.code(),
                      absl::StrCat(status.message(), "; hosts said: ", pair->node_->LogOf(kCallerHost),
                                   pair->node_->LogOf(kCalleeHost)));
}

absl::StatusOr<Block> GuestPair::RunBlock(const Order& order, uint64_t duration_ns) {
  return invoker_.RunBlock(order, duration_ns, {node_->pid(kCallerHost), node_->pid(kCalleeHost)});
}

absl::StatusOr<uint64_t> GuestPair::CalleeCounter(const std::string& name) const {
  const std::string command =
      absl::StrCat(SiblingProgram("weftctl"), " --run-dir ", node_->run_dir(), " -o json get hosts 2>&1");
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return absl::InternalError("run weftctl");
  std::string output;
  std::array<char, 4096> part;
  while (const std::size_t bytes = fread(part.data(), 1, part.size(), pipe))
    output.append(part.data(), bytes);
  pclose(pipe);
  const nlohmann::json report = nlohmann::json::parse(output, nullptr, /*allow_exceptions=*/false);
  if (report.is_object() && report.contains("items")) {
    for (const nlohmann::json& item : report["items"]) {
      if (item.value("host", "") != kCalleeHost) continue;
      const nlohmann::json value = item.value(name, nlohmann::json());
      if (value.is_number()) return value.get<uint64_t>();
    }
  }
  return absl::NotFoundError(
      absl::StrCat("weftctl tells no counter ", name, " of ", kCalleeHost, ": ", output.substr(0, 300)));
}

}  // namespace weft::bench
