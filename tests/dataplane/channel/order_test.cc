// SPDX-License-Identifier: Apache-2.0
// Memory order of the ring. Under ThreadSanitizer the shipping orders show no race, and one release store
// weakened to relaxed makes it report one: without the second test the first would prove nothing.
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/dataplane/channel/two_threads.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WEFT_TSAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define WEFT_TSAN 1
#endif

namespace weft {
namespace {

TEST(OrderTest, TwoThreadsOverOneMappingLoseAndMixNothing) {
  EXPECT_EQ(RunTwoThreads<SharedAccess>(WEFT_SANITIZED ? 100'000 : 1'000'000), 0u);
}

#ifdef WEFT_TSAN
struct WeakenedAccess : SharedAccess {
  static constexpr std::memory_order kPublishOrder = std::memory_order_relaxed;
};

TEST(OrderDeathTest, ThreadSanitizerFindsAWeakenedPublication) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  // 66 is the exit status that ThreadSanitizer substitutes once it has reported something.
  EXPECT_EXIT(
      {
        RunTwoThreads<WeakenedAccess>(20'000);
        std::exit(0);
      },
      testing::ExitedWithCode(66), "data race");
}
#endif

}  // namespace
}  // namespace weft
