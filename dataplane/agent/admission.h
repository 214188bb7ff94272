// SPDX-License-Identifier: Apache-2.0
// Who may attach as what: the rules of weftd.yaml applied to the uid of a peer and to the names that it
// claims. Pure.
#ifndef WEFT_DATAPLANE_AGENT_ADMISSION_H_
#define WEFT_DATAPLANE_AGENT_ADMISSION_H_

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "dataplane/api/host.pb.h"
#include "dataplane/config/agent_config.h"

namespace weft::agent {

// The tenant that processes of `uid` belong to; nullptr: none.
const Tenant* FindTenant(const AgentConfig& config, uid_t uid);

// OK where a host of `tenant` may serve `function`; a client never may.
absl::Status CheckMayServe(const Tenant& tenant, bool is_client, const std::string& function);

// Checks the names in a Hello for their form and against the tenant: the host's name, the functions, the
// namespace to call as, which only a session of the admin socket may choose.
absl::Status CheckHello(const Tenant& tenant, const api::Hello& hello, bool on_admin_socket);

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_ADMISSION_H_
