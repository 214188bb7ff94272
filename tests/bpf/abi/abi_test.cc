// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "bpf/abi/drop_reason.h"
#include "bpf/abi/packet.h"
#include "bpf/abi/steer.h"

extern "C" unsigned long WeftHeaderBytesInC(void);
extern "C" unsigned long WeftSteerKeyBytesInC(void);
extern "C" unsigned long WeftSteerTableBytesInC(void);
extern "C" int WeftDropReasonCountInC(void);

namespace {

TEST(AbiTest, CAndCppAgreeOnSizes) {
  EXPECT_EQ(WeftHeaderBytesInC(), sizeof(weft_packet_header));
  EXPECT_EQ(WeftSteerKeyBytesInC(), sizeof(weft_steer_key));
  EXPECT_EQ(WeftSteerTableBytesInC(), sizeof(weft_steer_table));
  EXPECT_EQ(WeftDropReasonCountInC(), WEFT_DROP_REASON_COUNT);
}

TEST(AbiTest, DropReasonsAreDenseAndNamedOnce) {
  std::set<std::string> names;
  int next = 0;
#define WEFT_CHECK_REASON(name, number, text) \
  EXPECT_EQ(number, next++);                  \
  EXPECT_TRUE(names.insert(text).second) << text;
  WEFT_DROP_REASONS(WEFT_CHECK_REASON)
#undef WEFT_CHECK_REASON
  EXPECT_EQ(next, WEFT_DROP_REASON_COUNT);
}

}  // namespace
