// SPDX-License-Identifier: Apache-2.0
#include "dataplane/call/trace_context.h"

#include <gtest/gtest.h>

namespace weft {
namespace {

// The example of the specification.
constexpr char kExample[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(TraceContextTest, RefusesWhatIsNotATraceparent) {
  for (const std::string& text :
       {std::string(), std::string("00"), std::string(kExample) + "0", std::string(kExample).substr(1),
        std::string("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"),
        std::string("00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01"),
        std::string("00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        std::string("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        std::string("00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
        std::string("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"), std::string(55, '-')}) {
    EXPECT_EQ(TraceContext::FromTraceparent(text).status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
}

TEST(TraceContextTest, SurvivesTheWire) {
  absl::StatusOr<TraceContext> context = TraceContext::FromTraceparent(kExample);
  ASSERT_TRUE(context.ok()) << context.status();
  EXPECT_EQ(context->wire()[1], std::byte{0x4b});
  EXPECT_EQ(context->wire()[25], std::byte{1});
  const TraceContext copy = TraceContext::FromWire(context->wire());
  EXPECT_EQ(copy, *context);
  EXPECT_EQ(copy.ToTraceparent(), kExample);
}

}  // namespace
}  // namespace weft
