// SPDX-License-Identifier: Apache-2.0
// What the tests of hostile peers of the agent share: a server with two bystanders, and a second tenant.
#ifndef WEFT_TESTS_DATAPLANE_AGENT_SERVER_FAULT_H_
#define WEFT_TESTS_DATAPLANE_AGENT_SERVER_FAULT_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "tests/dataplane/agent/server_fixture.h"

#define SKIP_UNLESS_ROOT() \
  if (geteuid() != 0) GTEST_SKIP() << "needs root: other users and mounts"

namespace weft::agent::test {

inline constexpr uid_t kStranger = 64099;

class ServerFaultTest : public ServerTest {
 protected:
  // Starts with a second tenant, of which a test can be a member where it is root.
  void StartWithStranger() {
    Tenant tenant;
    tenant.name = "evil";
    tenant.uid = kStranger;
    tenant.hosts = {"x", "y"};
    tenant.serve = {"evil/*"};
    tenant.call_as = "evil";
    config_.tenants.push_back(tenant);
    Start();
    ConnectBystanders();
  }
  void ExpectRefusal(Peer& peer, const std::string& name) {
    EXPECT_TRUE(peer.PumpUntilClosed());
    EXPECT_THAT(peer.refusal(), testing::HasSubstr(name));
    EXPECT_GE(Refused(name), 1u);
    ExpectBystandersWell();
  }
};

}  // namespace weft::agent::test

#endif  // WEFT_TESTS_DATAPLANE_AGENT_SERVER_FAULT_H_
