// SPDX-License-Identifier: Apache-2.0
// The retry decision over all status codes.
#include "dataplane/route/retry.h"

#include <gtest/gtest.h>

namespace weft {
namespace {

TEST(RetryTest, RefusedCallsAreTriedAsOftenAsThePolicySays) {
  const Policy policy{.retries = 2};
  FailedTry failed{.code = absl::StatusCode::kUnavailable, .not_executed = true, .tries = 1};
  EXPECT_TRUE(MayRetry(failed, policy));
  failed.tries = 2;
  EXPECT_TRUE(MayRetry(failed, policy));
  failed.tries = 3;
  EXPECT_FALSE(MayRetry(failed, policy));
}

TEST(RetryTest, OnlyIdempotentFunctionsRunTwice) {
  const FailedTry failed{.code = absl::StatusCode::kUnavailable, .not_executed = false, .tries = 1};
  EXPECT_FALSE(MayRetry(failed, Policy{.retries = 5, .idempotent = false}));
  EXPECT_TRUE(MayRetry(failed, Policy{.retries = 5, .idempotent = true}));
}

TEST(RetryTest, OnlyWantOfRoomAndAbsenceAreRetried) {
  for (int code = 0; code <= 16; ++code) {
    const auto status = static_cast<absl::StatusCode>(code);
    const bool helps =
        status == absl::StatusCode::kUnavailable || status == absl::StatusCode::kResourceExhausted;
    EXPECT_EQ(MayRetry({.code = status, .not_executed = true}, Policy{.idempotent = true}), helps) << code;
  }
}

TEST(RetryTest, NoRetriesMeansNone) {
  EXPECT_FALSE(
      MayRetry({.code = absl::StatusCode::kUnavailable, .not_executed = true}, Policy{.retries = 0}));
}

}  // namespace
}  // namespace weft
