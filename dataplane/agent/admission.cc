// SPDX-License-Identifier: Apache-2.0
#include "dataplane/agent/admission.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "dataplane/agent/engine_state.h"
#include "dataplane/agent/refusal.h"
#include "dataplane/api/protocol.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/pod_uid.h"
#include "dataplane/base/status.h"

namespace weft::agent {

const Tenant* FindTenant(const AgentConfig& config, uid_t uid) {
  for (const Tenant& tenant : config.tenants) {
    if (tenant.uid == uid) return &tenant;
  }
  return nullptr;
}

absl::Status CheckMayServe(const Tenant& tenant, bool is_client, const std::string& function) {
  if (const absl::Status name = CheckFunctionName(function); !name.ok()) {
    return Refuse(Refusal::kBadName, name.message());
  }
  if (is_client)
    return Refuse(Refusal::kFunctionNotAllowed,
                  absl::StrCat("a client without a host name serves ", function));
  const std::string all = absl::StrCat(NamespaceOf(function), "/*");
  for (const std::string& pattern : tenant.serve) {
    if (pattern == function || pattern == all) return absl::OkStatus();
  }
  return Refuse(Refusal::kFunctionNotAllowed,
                absl::StrCat("tenant ", tenant.name, " may not serve ", function));
}

absl::Status CheckHello(const Tenant& tenant, const api::Hello& hello, bool on_admin_socket) {
  if (hello.protocol() != kAgentProtocol) {
    return Refuse(Refusal::kProtocol, absl::StrCat("this agent speaks version ", kAgentProtocol,
                                                   " of the protocol, not ", hello.protocol()));
  }
  if (!hello.host().empty()) {
    if (const absl::Status name = CheckLabel(hello.host(), "host"); !name.ok()) {
      return Refuse(Refusal::kBadName, name.message());
    }
    const bool named =
        std::find(tenant.hosts.begin(), tenant.hosts.end(), hello.host()) != tenant.hosts.end();
    if (!named && !(tenant.pods && IsPodUid(hello.host()))) {
      return Refuse(Refusal::kHostNotAllowed,
                    absl::StrCat("tenant ", tenant.name, " has no host ", hello.host()));
    }
  }
  if (hello.inside_engine() && (hello.host().empty() || !tenant.engine_inside)) {
    return Refuse(Refusal::kEngineNotAllowed,
                  absl::StrCat("tenant ", tenant.name,
                               " may not run the node engine inside a host: its entry under `admit` does not "
                               "say `engine: inside`"));
  }
  for (const auto* names : {&hello.serves(), &hello.loaded()}) {
    for (const std::string& function : *names) {
      WEFT_RETURN_IF_ERROR(CheckMayServe(tenant, hello.host().empty(), function));
    }
  }
  if (!hello.call_as().empty()) {
    if (const absl::Status name = CheckLabel(hello.call_as(), "namespace"); !name.ok()) {
      return Refuse(Refusal::kBadName, name.message());
    }
    if (!on_admin_socket && hello.call_as() != tenant.call_as) {
      return Refuse(Refusal::kCallAsNotAllowed,
                    absl::StrCat("tenant ", tenant.name, " may not call as ", hello.call_as()));
    }
  }
  for (const api::HeldChannel& channel : hello.channels()) {
    if (channel.id().size() != kChannelIdBytes)
      return Refuse(Refusal::kUnknownChannel, "a channel id is 16 bytes long");
  }
  return absl::OkStatus();
}

}  // namespace weft::agent
