// SPDX-License-Identifier: Apache-2.0
#include "dataplane/call/outgoing_table.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "dataplane/base/random.h"
#include "dataplane/call/wire.h"

namespace weft {
namespace {

struct Entry {
  uint32_t request_id = 0;
  uint32_t slot = 0;
  uint32_t generation = 0;
};

TEST(OutgoingTableTest, FullTableAddsNothing) {
  OutgoingTable<Entry> table(3);
  std::vector<Entry*> calls;
  for (int i = 0; i < 3; ++i) calls.push_back(table.Add());
  EXPECT_EQ(table.Add(), nullptr);
  table.Remove(*calls[1]);
  EXPECT_NE(table.Add(), nullptr);
  EXPECT_EQ(table.Add(), nullptr);
}

TEST(OutgoingTableTest, UnknownAndEndedIdsAreNotFound) {
  OutgoingTable<Entry> table(8);
  Entry* call = table.Add();
  const uint32_t id = call->request_id;
  EXPECT_EQ(table.Find(id + 1), nullptr);
  EXPECT_EQ(table.Find(0), nullptr);
  // The same place of the index, another lap.
  EXPECT_EQ(table.Find(id + 64), nullptr);
  EXPECT_EQ(table.Find(id), call);
  table.Remove(*call);
  EXPECT_EQ(table.Find(id), nullptr);
}

TEST(OutgoingTableTest, HandleOfAnEndedCallNamesNothing) {
  OutgoingTable<Entry> table(1);
  Entry* call = table.Add();
  const uint32_t generation = call->generation;
  EXPECT_EQ(table.At(call->slot, generation), call);
  table.Remove(*call);
  EXPECT_EQ(table.At(0, generation), nullptr);
  table.Add();
  EXPECT_EQ(table.At(0, generation), nullptr);
  EXPECT_EQ(table.At(77, 0), nullptr);
}

// Against a plain model, through the wrap of the ids, with calls of every lifetime: ids rise strictly, each
// is found until it is removed, and none is given twice while it lives.
TEST(OutgoingTableTest, BehavesLikeAMapUnderRandomUse) {
  for (const uint32_t capacity : {1u, 2u, 50u, 64u, 1000u}) {
    OutgoingTable<Entry> table(capacity);
    table.set_next_id(0xffffff00);
    Random random(capacity);
    std::vector<uint32_t> live;
    uint32_t last_id = 0xfffffeff;
    for (int i = 0; i < 50'000; ++i) {
      const bool fill = i / 2'000 % 2 == 0;
      const uint64_t dice = random.Below(10);
      if (dice == 9 && !live.empty()) {
        Entry* call = table.Find(live[random.Below(live.size())]);
        const uint32_t before = call->request_id;
        table.Renew(*call);
        ASSERT_TRUE(IdAfter(call->request_id, last_id));
        last_id = call->request_id;
        ASSERT_EQ(table.Find(before), nullptr);
        *std::find(live.begin(), live.end(), before) = call->request_id;
      } else if (dice < (fill ? 7u : 3u)) {
        Entry* call = table.Add();
        ASSERT_EQ(call == nullptr, live.size() == capacity);
        if (call == nullptr) continue;
        ASSERT_TRUE(IdAfter(call->request_id, last_id));
        last_id = call->request_id;
        live.push_back(call->request_id);
      } else if (!live.empty()) {
        const std::size_t pick = random.Below(live.size());
        Entry* call = table.Find(live[pick]);
        ASSERT_NE(call, nullptr);
        table.Remove(*call);
        ASSERT_EQ(table.Find(live[pick]), nullptr);
        live[pick] = live.back();
        live.pop_back();
      }
      ASSERT_EQ(table.size(), live.size());
    }
    std::set<const Entry*> slots;
    for (const uint32_t id : live) {
      ASSERT_NE(table.Find(id), nullptr);
      EXPECT_EQ(table.Find(id)->request_id, id);
      EXPECT_TRUE(slots.insert(table.Find(id)).second);
    }
    std::size_t visited = 0;
    table.ForEach([&](Entry&) { ++visited; });
    EXPECT_EQ(visited, live.size());
  }
}

}  // namespace
}  // namespace weft
