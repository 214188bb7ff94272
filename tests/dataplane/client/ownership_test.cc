// SPDX-License-Identifier: Apache-2.0
// The handing over between the user's thread and the keeper: never both, and what one wrote the other sees.
#include "dataplane/client/ownership.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace weft {
namespace {

TEST(OwnershipTest, KeeperWaitsWhileAUserIsInside) {
  ASSERT_TRUE(Ownership::Prepare().ok());
  Ownership ownership;
  ownership.Enter();
  EXPECT_FALSE(ownership.TryKeep());
  ownership.Leave();
  EXPECT_TRUE(ownership.TryKeep());
  ownership.EndKeep();
}

TEST(OwnershipTest, NeverBothAtOnce) {
  ASSERT_TRUE(Ownership::Prepare().ok());
  Ownership ownership;
  // Not atomic: two owners at once would lose counts, and the thread sanitizer would say so.
  uint64_t guarded = 0;
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> kept{0};
  std::thread keeper([&] {
    while (!stop.load(std::memory_order_relaxed)) {
      if (!ownership.TryKeep()) continue;
      for (int i = 0; i < 100; ++i) ++guarded;
      kept.fetch_add(100, std::memory_order_relaxed);
      ownership.EndKeep();
    }
  });
  uint64_t used = 0;
  // Until the keeper had its share; on a machine that never lets it run, not for ever.
  while (kept.load(std::memory_order_relaxed) < 100'000 && used < 500'000'000) {
    ownership.Enter();
    for (int i = 0; i < 10; ++i) ++guarded;
    used += 10;
    ownership.Leave();
  }
  stop.store(true, std::memory_order_relaxed);
  keeper.join();
  EXPECT_EQ(guarded, kept.load() + used);
  EXPECT_GT(kept.load(), 0u);
}

}  // namespace
}  // namespace weft
