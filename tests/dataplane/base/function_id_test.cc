// SPDX-License-Identifier: Apache-2.0
#include "dataplane/base/function_id.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace weft {
namespace {

TEST(FunctionNameTest, RefusesWhatIsNoNameAndQuotesIt) {
  const std::string long_part(64, 'a');
  for (const std::string& name :
       {std::string(), std::string("vision"), std::string("vision/"), std::string("/scale"),
        std::string("a/b/c"), std::string("Vision/scale"), std::string("vision/sc ale"),
        std::string("vision/-scale"), std::string("vision/scale-"), "vision/" + long_part}) {
    const absl::Status status = CheckFunctionName(name);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("\"" + name + "\""));
  }
}

TEST(FunctionNameTest, TakesLabelsOfFullLength) {
  EXPECT_TRUE(CheckFunctionName("vision/scale").ok());
  EXPECT_TRUE(CheckFunctionName(std::string(63, 'a') + "/a.b_c-9").ok());
}

TEST(FunctionIdTest, IsTheBeginningOfSha256) {
  // printf abc/def | sha256sum
  EXPECT_EQ(FunctionIdOf("abc/def").value, 0x3c56f20931870aabu);
}

TEST(FunctionIdTest, NamespaceIsThePartBeforeTheSlash) {
  EXPECT_EQ(NamespaceOf("vision/scale"), "vision");
  EXPECT_EQ(NamespaceOf("vision"), "vision");
}

}  // namespace
}  // namespace weft
