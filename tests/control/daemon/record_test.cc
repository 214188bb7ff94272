// SPDX-License-Identifier: Apache-2.0
#include "control/daemon/record.h"

#include <gtest/gtest.h>

namespace weft::control {
namespace {

TEST(RecordTest, EachChangeCountsFromItsOwnEvent) {
  Record record;
  record.Add(1, "a", 1'000);
  record.Add(2, "b", 5'000);
  record.Add(3, "start", 0);
  record.SetGeneration(3, 9);
  const Change* newest = record.SetProgrammed(3, 11'000, 12'000, {"slow"}, {});
  ASSERT_NE(newest, nullptr);
  EXPECT_EQ(newest->cause, "start");
  EXPECT_EQ(newest->cut_off.size(), 1u);
  EXPECT_FALSE(newest->timed());
  EXPECT_EQ(record.times().count(), 2u);
  EXPECT_EQ(record.times().max(), 10'000u);
  EXPECT_EQ(record.changes().front().generation, 9u);
}

TEST(RecordTest, AnAcknowledgementTwiceCountsOnce) {
  Record record;
  record.Add(1, "a", 1'000);
  EXPECT_NE(record.SetProgrammed(1, 2'000, 2'500, {}, {}), nullptr);
  EXPECT_EQ(record.SetProgrammed(1, 3'000, 3'500, {}, {}), nullptr);
  EXPECT_EQ(record.times().count(), 1u);
  EXPECT_EQ(record.times().max(), 1'000u);
}

TEST(RecordTest, AnEventAfterWhatBringsItIntoForceCountsUntilThatIsKnown) {
  Record record;
  record.Add(1, "a", 1'000);
  record.Add(2, "b, taken back", 3'000);
  EXPECT_NE(record.SetProgrammed(2, 2'000, 3'500, {}, {}), nullptr);
  EXPECT_EQ(record.changes().front().programmed_ns, 2'000u);
  EXPECT_EQ(record.changes().back().programmed_ns, 3'500u);
  EXPECT_EQ(record.times().count(), 2u);
  EXPECT_EQ(record.times().max(), 1'000u);
}

TEST(RecordTest, OnlyTheLastChangesAreKept) {
  Record record;
  for (uint64_t revision = 1; revision <= 5000; ++revision) record.Add(revision, "a", revision);
  EXPECT_EQ(record.changes().size(), Record::kChangesMax);
  EXPECT_EQ(record.changes().back().revision, 5000u);
}

}  // namespace
}  // namespace weft::control
