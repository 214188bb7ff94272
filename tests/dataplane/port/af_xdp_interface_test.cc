// SPDX-License-Identifier: Apache-2.0
// The AF_XDP port when routes, neighbours and interfaces change under it.
#include <gtest/gtest.h>
#include <poll.h>

#include <string>
#include <utility>
#include <vector>

#include "dataplane/port/next_hop.h"
#include "tests/dataplane/port/af_xdp_port_fixture.h"

namespace weft::port {
namespace {

TEST_F(AfXdpPortTest, PathThatLeadsOverAnotherInterfaceIsRefused) {
  auto far = OpenFar("0.0.0.0:4810").value();
  EXPECT_EQ(far->AddPath(*Address::Parse("127.0.0.1:4810")).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(AfXdpPortTest, PathWithoutARouteWorksOnceThereIsOne) {
  auto near = OpenNearUdp("0.0.0.0:4810");
  auto far = OpenFar("10.77.0.2:4810").value();
  const uint64_t path = far->AddPath(*Address::Parse("10.78.0.1:4810")).value();
  Send(*far, path, 1, 64);
  EXPECT_EQ(far->counters().lost_unreachable, 1u);
  network_->near().Run({"/sbin/ip", "address", "add", "10.78.0.1/24", "dev", "weft0"});
  network_->far().Run({"/sbin/ip", "route", "add", "10.78.0.0/24", "via", "10.77.0.1"});
  for (const uint64_t begin_ns = NowNs(); NowNs() - begin_ns < kGiveUpNs;) {
    Send(*far, path, 2, 64);
    ReceivedDatagram one;
    if (near->Receive(&one, 1) == 0) continue;
    EXPECT_TRUE(IsDatagram(one, 2, 64));
    near->Release(&one, 1);
    return;
  }
  FAIL() << "the route was not found";
}

TEST_F(AfXdpPortTest, NeighbourThatMovesIsFollowed) {
  auto near = OpenNearUdp("10.77.0.1:4810");
  auto far = OpenFar("10.77.0.2:4810").value();
  const uint64_t path = far->AddPath(near->local()).value();
  Send(*far, path, 1, 64);
  ASSERT_TRUE(Takes(*near, 1, 64));
  network_->near().Run({"/sbin/ip", "link", "set", "weft0", "address", "02:00:00:00:00:99"});
  network_->far().Run(
      {"/sbin/ip", "neigh", "replace", "10.77.0.1", "lladdr", "02:00:00:00:00:99", "dev", "weft0"});
  for (const uint64_t begin_ns = NowNs(); NowNs() - begin_ns < kGiveUpNs;) {
    Send(*far, path, 2, 64);
    ReceivedDatagram one;
    (void)far->Receive(&one, 1);  // Where changes are looked for.
    if (near->Receive(&one, 1) == 0) continue;
    EXPECT_TRUE(IsDatagram(one, 2, 64));
    near->Release(&one, 1);
    return;
  }
  FAIL() << "the new address was not used";
}

// While it is down the kernel takes nothing: the port neither spins nor loses what waits in its ring.
TEST_F(AfXdpPortTest, AnInterfaceThatIsDownLetsTheWorkerSleepAndSendsWhenItIsUp) {
  auto near = OpenNearUdp("10.77.0.1:4810");
  auto far = OpenFar("10.77.0.2:4810").value();
  const uint64_t path = far->AddPath(near->local()).value();
  Send(*far, path, 1, 64);
  ASSERT_TRUE(Takes(*near, 1, 64));
  network_->far().Run({"/sbin/ip", "link", "set", "weft0", "down"});
  Send(*far, path, 2, 64);  // The way is known to it still.
  EXPECT_TRUE(far->PrepareSleep());
  EXPECT_TRUE(far->PrepareSleep()) << "with what waits in its ring";
  EXPECT_FALSE(far->gone());
  network_->far().Run({"/sbin/ip", "link", "set", "weft0", "up"});
  pollfd sleep{far->sleep_fd(), POLLIN, 0};
  EXPECT_EQ(poll(&sleep, 1, 5'000), 1) << "the return of the interface wakes it";
  far->Flush();
  EXPECT_TRUE(Takes(*near, 2, 64));
}

TEST_F(AfXdpPortTest, AnInterfaceThatIsDeletedIsGoneForGood) {
  auto near = OpenNearUdp("10.77.0.1:4810");
  auto far = OpenFar("10.77.0.2:4810").value();
  const uint64_t path = far->AddPath(near->local()).value();
  Send(*far, path, 1, 64);
  network_->Unplug();
  Send(*far, path, 2, 64);
  EXPECT_TRUE(far->PrepareSleep());
  EXPECT_TRUE(far->gone());
  network_->Plug();
  (void)far->PrepareSleep();
  EXPECT_TRUE(far->gone()) << "one of the same name is another";
}

TEST_F(AfXdpPortTest, WhatChangesOnOtherInterfacesIsNoChange) {
  const test::InNamespace inside(network_->near());
  auto hops = NextHops::Create(test::VethPair::kInterface).value();
  const auto run = [this](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "/sbin/ip");
    network_->near().Run(std::move(arguments));
  };
  run({"link", "add", "other", "type", "veth", "peer", "name", "another"});
  run({"link", "set", "other", "up"});
  (void)hops->TakeChanges();  // With the interface came routes, which may be anybody's.
  run({"neigh", "replace", "10.99.0.1", "lladdr", "02:00:00:00:00:77", "dev", "other"});
  EXPECT_FALSE(hops->TakeChanges());
  run({"neigh", "replace", "10.77.0.9", "lladdr", "02:00:00:00:00:78", "dev", "weft0"});
  EXPECT_TRUE(hops->TakeChanges());
  EXPECT_FALSE(hops->gone());
}

}  // namespace
}  // namespace weft::port
