// SPDX-License-Identifier: Apache-2.0
// The etcd source against a real etcd that goes back in time, forgets, floods, or dies in the middle of a
// list.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/control/source/etcd_loop.h"
#include "tests/support/etcd.h"

namespace weft::control {
namespace {

using testing::HasSubstr;

class EtcdFaultTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::Etcd::Installed()) GTEST_SKIP() << "no etcd on this machine";
    etcd_.emplace();
  }
  void Begin() {
    EtcdOptions options;
    options.endpoints = {etcd_->url()};
    loop_ = std::make_unique<EtcdLoop>(options);
  }
  bool RunUntilLost() {
    return loop_->RunUntil([&] { return !loop_->source().Health().synced; });
  }
  // As many nodes as a transaction takes; their zones are `zone`.
  void PutHundred(int first, const std::string& zone) {
    std::vector<EtcdOp> ops;
    for (int i = first; i < first + 100; ++i) {
      ops.push_back({false, absl::StrCat("/weft/nodes/n", i), absl::StrCat(R"({"zone":")", zone, "\"}"), 0});
    }
    ASSERT_TRUE(etcd_->Ask("/v3/kv/txn", EtcdTxnJson({}, ops)).ok());
  }

  std::optional<test::Etcd> etcd_;
  std::unique_ptr<EtcdLoop> loop_;
};

// As one that is restored from a copy of its disk: the same cluster, at an earlier revision.
TEST_F(EtcdFaultTest, AStoreThatGoesBackInTimeTakesNothingBackAndIsFollowedFromThere) {
  etcd_->Put("/weft/nodes/n1", "{}");
  Begin();
  ASSERT_TRUE(loop_->RunUntilNodes({"n1"}));
  etcd_->Kill();
  etcd_->Keep();
  etcd_->Start();
  for (int i = 0; i < 5; ++i) etcd_->Put("/weft/nodes/n2", "{}");
  ASSERT_TRUE(loop_->RunUntilNodes({"n1", "n2"})) << loop_->notes();
  etcd_->Kill();
  ASSERT_TRUE(RunUntilLost());
  etcd_->Return();
  etcd_->Start();
  ASSERT_TRUE(loop_->RunUntilNodes({"n1", "n2"})) << loop_->notes();
  EXPECT_THAT(loop_->notes(), HasSubstr("went back in time"));
  // Below the revision that was seen before.
  etcd_->Put("/weft/nodes/n3", "{}");
  ASSERT_TRUE(loop_->RunUntilNodes({"n1", "n2", "n3"})) << loop_->notes();
  etcd_->Delete("/weft/nodes/n1");
  EXPECT_TRUE(loop_->RunUntilNodes({"n2", "n3"})) << loop_->notes();
}

TEST_F(EtcdFaultTest, AStoreThatIsFoundEmptyTakesNothingBack) {
  etcd_->Put("/weft/nodes/n1", "{}");
  etcd_->Put("/weft/nodes/n2", "{}");
  Begin();
  ASSERT_TRUE(loop_->RunUntilNodes({"n1", "n2"}));
  etcd_->Kill();
  ASSERT_TRUE(RunUntilLost());
  // Nobody looks while this happens, and no event tells of it later.
  etcd_->Start();
  etcd_->Delete("/weft/nodes/n1");
  etcd_->Delete("/weft/nodes/n2");
  etcd_->Compact();
  ASSERT_TRUE(loop_->RunUntil([&] { return absl::StrContains(loop_->notes(), "is empty"); }))
      << loop_->notes();
  EXPECT_TRUE(loop_->RunUntilNodes({"n1", "n2"}));
  EXPECT_EQ(loop_->fewest(), 2u);
}

TEST_F(EtcdFaultTest, TenThousandEventsASecondAreAllTaken) {
  constexpr int kKeys = 1'000;
  constexpr int kRounds = 10;
  Begin();
  ASSERT_TRUE(loop_->RunUntil([&] { return loop_->source().Health().synced; }));
  const uint64_t begin_ns = NowNs();
  uint64_t written_ns = 0;
  std::thread writer([&] {
    for (int round = 0; round < kRounds; ++round) {
      for (int first = 0; first < kKeys; first += 100) PutHundred(first, absl::StrCat("z", round));
    }
    written_ns = NowNs();
  });
  const bool taken =
      loop_->RunUntil([&] { return loop_->source().Health().events == kKeys * kRounds; }, 30 * kNsPerSecond);
  const uint64_t taken_ns = NowNs();
  writer.join();
  EXPECT_TRUE(taken) << loop_->source().Health().events;
  EXPECT_EQ(loop_->nodes().size(), kKeys);
  EXPECT_EQ(loop_->zones(), std::set<std::string>{absl::StrCat("z", kRounds - 1)});
  EXPECT_EQ(loop_->source().Health().errors, 0u);
  const auto ms = [&](uint64_t at_ns) { return static_cast<double>(at_ns - begin_ns) / 1e6; };
  std::printf("%d events written in %.0f ms, all taken after %.0f ms\n", kKeys * kRounds, ms(written_ns),
              ms(taken_ns));
}

// Nothing of a list that did not come to its end is ever said.
TEST_F(EtcdFaultTest, ARestartInTheMiddleOfASyncIsBegunAgain) {
  constexpr int kKeys = 10'000;  // Five pages
  for (int first = 0; first < kKeys; first += 100) PutHundred(first, "z");
  int in_the_middle = 0;
  for (const uint64_t after_ms : {1, 6, 14}) {
    Begin();
    loop_->RunFor(after_ms * kNsPerMs);
    in_the_middle += loop_->source().Health().synced ? 0 : 1;
    etcd_->Kill();
    loop_->RunFor(20 * kNsPerMs);
    etcd_->Start();
    ASSERT_TRUE(loop_->RunUntil([&] { return loop_->source().Health().synced && !loop_->nodes().empty(); }));
    EXPECT_EQ(loop_->nodes().size(), kKeys);
    EXPECT_EQ(loop_->fewest(), kKeys);
  }
  EXPECT_GE(in_the_middle, 1);
}

}  // namespace
}  // namespace weft::control
