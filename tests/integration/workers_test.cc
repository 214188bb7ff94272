// SPDX-License-Identifier: Apache-2.0
// weftd with several engine workers, on two nodes as they ship: hosts are dealt out among them, nodes of
// different numbers speak to each other by UDP and by AF_XDP, packets on a wrong queue find their worker, and
// a restart with another number is followed.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <csignal>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "bpf/abi/packet.h"
#include "tests/integration/two_node_fixture.h"

namespace weft::test {
namespace {

using testing::HasSubstr;

class WorkersTest : public TwoNodeTest {
 protected:
  explicit WorkersTest(int near_workers = 2, int far_workers = 1) {
    more_settings_["n1"] = absl::StrCat("workers: ", near_workers, "\n");
    more_settings_["n2"] = absl::StrCat("workers: ", far_workers, "\n");
  }
  void SetUp() override {
    Start();
    if (IsSkipped()) return;
    SetMesh(BothWays());
  }

  // app/echo on host a of n2 and, of another function, app/back on host b of n1; two tenants call them.
  static std::string BothWays() {
    return absl::StrCat(
        "version: 1\nnodes:\n- {name: n1, address: \"10.77.0.1:4810\", call_as: [app, other]}\n"
        "- {name: n2, address: \"10.77.0.2:4810\", call_as: [app, other]}\n",
        kFunctions, "- {name: app/back, timeout: 1s}\nendpoints:\n",
        "- {function: app/echo, node: n2, host: a}\n- {function: app/back, node: n1, host: b}\n",
        "allow:\n- {from: other/*, to: app/echo}\n- {from: other/*, to: app/back}\n");
  }
  // Each of the node's workers reaches the other node.
  static bool AllReach(Mesh& node, const std::string& name, int workers) {
    return Eventually([&] {
      for (int i = 0; i < workers; ++i) {
        const std::string engine = absl::StrCat("engine:", name, i == 0 ? "" : absl::StrCat(":", i));
        if (CounterOf(node, engine, "nodes_reached") < 1) return false;
      }
      return true;
    });
  }
  // Two hosts of `node` call `function` at once; all their calls succeed.
  void CallByTwo(Mesh& node, LoadRun& run, const std::string& function) {
    const auto start = [&](const std::string& host, uid_t uid) {
      if (function == "app/echo") return run.StartClient(0.8, 400, {}, host, uid);
      Process client = node.Start(
          "weft-test-load", {"--function", function, "--seconds", "0.8", "--rate", "400", "--name", host},
          uid, absl::StrCat(host, ".", runs_++, ".log"));
      EXPECT_TRUE(client.WaitForOutput("calling", absl::Seconds(20))) << client.Output();
      return client;
    };
    Process one = start("caller", kUidCaller);
    Process two = start("stranger", kUidStranger);
    for (Process* const client : {&one, &two}) {
      const nlohmann::json result = run.Finish(*client);
      EXPECT_EQ(result["ok"], result["started"]) << result << Logs() << node.Ctl({"status"}).output;
      EXPECT_GT(result["ok"], 200) << result;
    }
  }
  Process StartBack() {
    Process back = near_->Start("weft-test-echo", {"--name", "b", "--serve", "app/back", "--tag", "2"}, kUidB,
                                "back.log");
    EXPECT_TRUE(back.WaitForOutput("serving", absl::Seconds(20))) << back.Output();
    return back;
  }
  // Starts weftd of n2 again, on settings of so many workers.
  void RestartFar(int workers) {
    far_->agent().Signal(SIGKILL);
    const std::string file = far_->path("weftd.yaml");
    WriteFile(file, absl::StrReplaceAll(ReadFile(file),
                                        {{more_settings_["n2"], absl::StrCat("workers: ", workers, "\n")}}));
    more_settings_["n2"] = absl::StrCat("workers: ", workers, "\n");
    far_->StartAgent();
  }
  int runs_ = 0;
};

TEST_F(WorkersTest, HostsAreDealtOutAndEachWorkerCarriesItsOwn) {
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  ASSERT_TRUE(AllReach(*near_, "n1", 2)) << Logs();
  CallByTwo(*near_, near_run, "app/echo");
  EXPECT_GT(CounterOf(*near_, "engine:n1", "engine_requests_out"), 200);
  EXPECT_GT(CounterOf(*near_, "engine:n1:1", "engine_requests_out"), 200);
  const std::string status = near_->Ctl({"status"}).output;
  EXPECT_THAT(status, HasSubstr("worker_0"));
  EXPECT_THAT(status, HasSubstr("worker_1"));
  // And what comes from a node of one worker.
  Process back = StartBack();
  CallByTwo(*far_, far_run, "app/back");
}

// The killed one's sockets may still be there when the next one binds its own.
TEST_F(WorkersTest, ARestartWithAnotherNumberIsFollowed) {
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  for (const int workers : {3, 2}) {
    RestartFar(workers);
    ASSERT_TRUE(AllReach(*near_, "n1", 2)) << workers << Logs();
    ASSERT_TRUE(AllReach(*far_, "n2", workers)) << workers << Logs();
    EXPECT_TRUE(Answers(*near_)) << workers << Logs();
    CallByTwo(*near_, near_run, "app/echo");
  }
}

class FloodedWorkersTest : public WorkersTest {
 protected:
  FloodedWorkersTest() : WorkersTest(2, 2) {}
  // Datagrams for the worker `hint` of n2, under key ids that nobody has given.
  void Flood(uint16_t hint, int count) const {
    const InNamespace inside(veth_->near());
    const UniqueFd out(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(4810);
    ASSERT_EQ(inet_pton(AF_INET, VethPair::kFarAddress, &to.sin_addr), 1);
    uint8_t datagram[64] = {};
    weft_packet_header header{};
    header.version_and_suite = WEFT_PACKET_VERSION_AND_SUITE;
    header.worker_hint = htons(hint);
    for (int i = 0; i < count; ++i) {
      header.key_id = htonl(0x7fff0000u + static_cast<uint32_t>(i));
      std::memcpy(datagram, &header, sizeof(header));
      (void)sendto(out.get(), datagram, sizeof(datagram), 0, reinterpret_cast<const sockaddr*>(&to),
                   sizeof(to));
    }
  }
};

TEST_F(FloodedWorkersTest, AFloodOfOneWorkerReachesNoOther) {
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  ASSERT_TRUE(AllReach(*near_, "n1", 2)) << Logs();
  std::thread flood([this] { Flood(1, 20'000); });
  CallByTwo(*near_, near_run, "app/echo");
  flood.join();
  EXPECT_GT(CounterOf(*far_, "engine:n2:1", "drop_unknown_key"), 1'000);
  EXPECT_EQ(CounterOf(*far_, "engine:n2", "drop_unknown_key"), 0);
}

class SteeredWorkersTest : public WorkersTest {
 protected:
  explicit SteeredWorkersTest(int near_workers = 2, int far_workers = 2)
      : WorkersTest(near_workers, far_workers) {
    steer_ = VethPair::kInterface;
    veth_options_.queues = 2;
  }
};

TEST_F(SteeredWorkersTest, EachHasAQueueOfItsOwn) {
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  for (Mesh* node : {near_.get(), far_.get()})
    EXPECT_TRUE(node->WaitForCtl({"status"}, "af_xdp weft0 queue 1")) << Logs();
  ASSERT_TRUE(AllReach(*near_, "n1", 2)) << Logs();
  CallByTwo(*near_, near_run, "app/echo");
  EXPECT_GT(CounterOf(*near_, "engine:n1:1", "engine_requests_out"), 200);
  EXPECT_GT(CounterOf(*far_, "engine:n2:1", "engine_requests_in"), 200);
}

// Each worker lets its own keys through again, and forgets none of another's.
TEST_F(SteeredWorkersTest, ATableMadeAnewKnowsTheKeysOfAll) {
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartServer("a", kUidA, 1);
  ASSERT_TRUE(AllReach(*near_, "n1", 2)) << Logs();
  EXPECT_TRUE(far_->WaitForCtl({"status"}, "af_xdp weft0 queue 1")) << Logs();
  const auto chosen = [&](int worker) {
    const std::vector<std::string> parts =
        absl::StrSplit(far_->agent().Output(), absl::StrCat("worker ", worker, ": packet port af_xdp"));
    return parts.size() - 1;
  };
  const std::size_t before[] = {chosen(0), chosen(1)};
  far_->control().Kill();
  far_->RunControl({"--steer-detach", VethPair::kInterface});
  far_->StartControl();
  ASSERT_TRUE(Eventually([&] { return chosen(0) > before[0] && chosen(1) > before[1]; })) << Logs();
  CallByTwo(*near_, near_run, "app/echo");
}

// n1's only worker sends on queue 0 what is for the second worker of n2.
class UnevenWorkersTest : public SteeredWorkersTest {
 protected:
  UnevenWorkersTest() : SteeredWorkersTest(1, 2) {}
};

TEST_F(UnevenWorkersTest, WhatComesInOnAnothersQueueCrossesToItsWorker) {
  LoadRun far_run(*far_);
  Process back = StartBack();
  for (Mesh* node : {near_.get(), far_.get()})
    EXPECT_TRUE(node->WaitForCtl({"status"}, "af_xdp weft0 queue 0")) << Logs();
  ASSERT_TRUE(AllReach(*far_, "n2", 2)) << Logs();
  CallByTwo(*far_, far_run, "app/back");
  EXPECT_GT(CounterOf(*far_, "engine:n2:1", "engine_requests_out"), 200);
  EXPECT_THAT(far_->Ctl({"status"}).output, HasSubstr("passed to other workers"));
}

class InsideWorkersTest : public WorkersTest {
 protected:
  InsideWorkersTest() : WorkersTest(2, 2) { engine_inside_ = true; }
};

TEST_F(InsideWorkersTest, AHostWithItsOwnEngineServesThoseOfEveryWorker) {
  LoadRun far_run(*far_);
  LoadRun near_run(*near_);
  Process server = far_run.StartGuestHost("a", kUidA, 3, {"--engine", "inside"});
  ASSERT_TRUE(Eventually([&] {
    return CounterOf(*near_, "engine:n1", "nodes_reached") +
               CounterOf(*near_, "engine:n1:1", "nodes_reached") ==
           3;
  })) << Logs();
  CallByTwo(*near_, near_run, "app/echo");
  EXPECT_GT(CounterOf(*far_, "engine:n2/a", "engine_requests_in"), 400);
}

}  // namespace
}  // namespace weft::test
