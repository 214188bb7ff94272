// SPDX-License-Identifier: Apache-2.0
#include "dataplane/base/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "dataplane/base/random.h"

namespace weft {
namespace {

TEST(HistogramTest, EmptyReportsZero) {
  Histogram histogram;
  EXPECT_EQ(histogram.Quantile(0.5), 0u);
  EXPECT_EQ(histogram.min(), 0u);
  EXPECT_EQ(histogram.max(), 0u);
}

TEST(HistogramTest, QuantilesAreWithinAThousandthOfTheSortedSamples) {
  Random random(7);
  Histogram histogram;
  std::vector<uint64_t> samples;
  for (int i = 0; i < 100'000; ++i) {
    const uint64_t value = random.Next() >> (24 + random.Below(36));  // 4 to 40 bits: every magnitude.
    samples.push_back(value);
    histogram.Record(value);
  }
  std::sort(samples.begin(), samples.end());
  for (double fraction : {0.0001, 0.01, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0}) {
    const auto rank =
        static_cast<size_t>(std::max(1.0, std::ceil(fraction * static_cast<double>(samples.size()))));
    const uint64_t exact = samples[rank - 1];
    const uint64_t told = histogram.Quantile(fraction);
    EXPECT_GE(told, exact) << fraction;
    EXPECT_LE(static_cast<double>(told), static_cast<double>(exact) * (1 + 1.0 / 1024) + 1) << fraction;
  }
  EXPECT_EQ(histogram.max(), samples.back());
  EXPECT_EQ(histogram.min(), samples.front());
}

TEST(HistogramTest, ValueAboveTheRangeCountsAndMaxTellsTheTruth) {
  Histogram histogram;
  histogram.Record(uint64_t{1} << 50);
  EXPECT_EQ(histogram.count(), 1u);
  EXPECT_EQ(histogram.max(), uint64_t{1} << 50);
}

TEST(HistogramTest, MergeEqualsRecordingTogether) {
  Histogram a, b, both;
  for (uint64_t i = 1; i < 5000; i += 3) {
    (i % 2 == 0 ? a : b).Record(i * i);
    both.Record(i * i);
  }
  a.Merge(b);
  EXPECT_EQ(a.count(), both.count());
  EXPECT_EQ(a.Quantile(0.9), both.Quantile(0.9));
  EXPECT_EQ(a.min(), both.min());
}

}  // namespace
}  // namespace weft
