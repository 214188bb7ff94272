// SPDX-License-Identifier: Apache-2.0
// Two nodes as they ship, for tests: weftd and weft-control in two network namespaces joined by a veth pair,
// with certificates of a CA of the test's own. n1 is the near node, n2 the far one, which serves app/echo.
#ifndef WEFT_TESTS_INTEGRATION_TWO_NODE_FIXTURE_H_
#define WEFT_TESTS_INTEGRATION_TWO_NODE_FIXTURE_H_

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/identity/authority.h"
#include "tests/integration/load_run.h"
#include "tests/support/network.h"
#include "tests/support/temporary_directory.h"

namespace weft::test {

inline constexpr char kFunctions[] = "functions:\n- {name: app/echo, timeout: 1s}\n";

class TwoNodeTest : public testing::Test {
 protected:
  void SetUp() override { Start(); }

  // Makes both nodes and starts their daemons. Skips the test where it cannot.
  void Start();
  // The same in parts, for tests that want other nodes or daemons: the wire and the CA; a node's files; its
  // daemons. Prepare is false where the test is to be skipped.
  bool Prepare();
  void StartNodes();  // As Start, after Prepare.
  std::unique_ptr<Mesh> MakeNode(const std::string& name, const NetworkNamespace& network,
                                 const std::string& address);
  // A new key and certificate of the node, in its files.
  void Issue(const std::string& name, const identity::Validity& validity);
  void WriteOwned(const std::string& path, const std::string& content);

  // app/echo on host a of n2, called as the namespace app from either node.
  static std::string CommonMesh(const std::string& near_more = "call_as: [app]",
                                const std::string& far_address = VethPair::kFarAddress);
  void SetMesh(const std::string& yaml);
  void WaitReachable();
  std::string Logs();
  // Calls until one reaches the server, which knows its requests by their pattern and says so.
  static bool Answers(Mesh& node);
  // Of one session in `weftctl get hosts`; -1 where it is not there or does not count that.
  static int64_t CounterOf(Mesh& node, const std::string& host, const std::string& counter);

  std::string steer_;                                 // The interface, where packets are to go by AF_XDP.
  std::string unnamed_;                               // The node whose settings do not name it all the same.
  bool engine_inside_ = false;                        // Admits hosts a and b to run the node engine inside.
  bool raw_packets_ = false;                          // And by AF_XDP, where steer_ is set.
  VethOptions veth_options_;                          // Of the wire.
  std::string capabilities_;                          // Of both weftd, where nothing is steered.
  std::map<std::string, std::string> more_settings_;  // Of weftd.yaml, by node.
  std::string control_;  // weft-control.yaml; empty: both watch SetMesh()'s file.
  std::vector<Tenant> tenants_ = LoadTenants();
  TemporaryDirectory files_;
  identity::Validity validity_;
  std::unique_ptr<VethPair> veth_;
  std::unique_ptr<identity::Authority> authority_;
  std::unique_ptr<Mesh> near_;
  std::unique_ptr<Mesh> far_;
};

class SteeredTwoNodeTest : public TwoNodeTest {
 protected:
  SteeredTwoNodeTest() { steer_ = VethPair::kInterface; }
};

}  // namespace weft::test

#endif  // WEFT_TESTS_INTEGRATION_TWO_NODE_FIXTURE_H_
