// SPDX-License-Identifier: Apache-2.0
#include "control/daemon/steer_service.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "bpf/abi/drop_reason.h"
#include "control/daemon/items.h"
#include "dataplane/base/status.h"
#include "dataplane/port/next_hop.h"

namespace weft::control {
namespace {

const char* NameOf(Steer::Origin origin) {
  switch (origin) {
    case Steer::Origin::kAttached:
      return "attached";
    case Steer::Origin::kReused:
      return "found attached and left alone";
    case Steer::Origin::kReplaced:
      return "replaced in place";
  }
  return "?";
}

const char* NameOf(XdpMode mode) {
  switch (mode) {
    case XdpMode::kNone:
      return "none";
    case XdpMode::kNative:
      return "native";
    case XdpMode::kGeneric:
      return "generic";
  }
  return "?";
}

// What could be better about its mode; empty where nothing could.
std::string ModeProblem(const Steer& steer) {
  const XdpMode best = BestModeFor(steer.interface());
  if (steer.mode() == best) return "";
  if (steer.why_generic().empty() && port::IsVeth(steer.interface())) {
    return absl::StrCat("not the better one for so many queues of a veth: weft-control --steer-detach ",
                        steer.interface(), " and a start mend it");
  }
  return steer.why_generic().empty()
             ? "slower than native, which the driver refused when it was attached"
             : absl::StrCat("slower than native, which the driver refuses: ", steer.why_generic());
}

void Log(const Steer& steer) {
  spdlog::info("steer on {}: {}, {} mode, port {}", steer.interface(), NameOf(steer.origin()),
               NameOf(steer.mode()), steer.config().port);
  const std::string problem = ModeProblem(steer);
  if (!problem.empty())
    spdlog::warn("steer on {}: {} mode, {}", steer.interface(), NameOf(steer.mode()), problem);
}

}  // namespace

absl::StatusOr<SteerService> SteerService::Create(const std::vector<std::string>& interfaces,
                                                  const std::string& bpf_dir, const SteerConfig& config) {
  SteerService service;
  for (const std::string& interface : interfaces) {
    WEFT_ASSIGN_OR_RETURN(std::unique_ptr<Steer> steer,
                          Steer::Create({.bpf_dir = bpf_dir, .interface = interface, .config = config}));
    Log(*steer);
    service.steers_.push_back(std::move(steer));
  }
  return service;
}

absl::StatusOr<SteerGrant> SteerService::Grant(const api::GetSteer& request) {
  for (const std::unique_ptr<Steer>& steer : steers_) {
    if (steer->interface() != request.interface()) continue;
    if (steer->config().port != request.port()) {
      return absl::FailedPreconditionError(absl::StrCat("steer on ", steer->interface(), " takes port ",
                                                        steer->config().port, ", not ", request.port()));
    }
    const int index = steer->interface_index();
    WEFT_RETURN_IF_ERROR(steer->Ensure());
    if (steer->interface_index() != index) Log(*steer);
    WEFT_ASSIGN_OR_RETURN(const uint32_t cpus, PossibleCpus());
    SteerGrant grant;
    grant.reply.set_interface(steer->interface());
    grant.reply.set_interface_index(static_cast<uint32_t>(steer->interface_index()));
    grant.reply.set_native(steer->mode() == XdpMode::kNative);
    grant.reply.set_cpus(cpus);
    const SteerMaps maps = steer->maps();
    WEFT_ASSIGN_OR_RETURN(const uint32_t keys_id, IdOfMap(maps.keys));
    WEFT_ASSIGN_OR_RETURN(const uint32_t xsks_id, IdOfMap(maps.xsks));
    grant.reply.set_keys_id(keys_id);
    grant.reply.set_xsks_id(xsks_id);
    grant.fds = {maps.xsks, maps.keys, maps.drops};
    return grant;
  }
  return absl::NotFoundError(absl::StrCat("weft-control does not steer interface ", request.interface(),
                                          "; it is not among its --steer"));
}

void SteerService::AddStatus(api::QueryReply* reply) {
  for (const std::unique_ptr<Steer>& steer : steers_) {
    ItemBuilder row(reply->add_items());
    row.Text("steer", steer->interface())
        .Text("mode", NameOf(steer->mode()))
        .Number("port", steer->config().port);
    if (const std::string problem = ModeProblem(*steer); !problem.empty()) row.Text("mode_problem", problem);
    port::SteerCounters sum = steer->table().ReadUnknown();
    const std::vector<uint32_t> ids = steer->table().Ids();
    for (const uint32_t id : ids) {
      const absl::StatusOr<port::SteerCounters> key = steer->table().Read(id);
      if (!key.ok()) continue;  // The agent has just forgotten it.
      sum.taken += key->taken;
      for (std::size_t i = 0; i < sum.drops.size(); ++i) sum.drops[i] += key->drops[i];
    }
    row.Number("keys", ids.size())
        .Text("unknown_keys", steer->table().complete() ? "dropped" : "left to the kernel")
        .Number("taken", sum.taken);
#define WEFT_ADD_REASON(name, number, text) \
  if (sum.drops[number] != 0) row.Number("dropped_" text, sum.drops[number]);
    WEFT_DROP_REASONS(WEFT_ADD_REASON)
#undef WEFT_ADD_REASON
  }
}

}  // namespace weft::control
