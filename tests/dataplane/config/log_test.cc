// SPDX-License-Identifier: Apache-2.0
#include "dataplane/config/log.h"

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>
#include <string>

namespace weft {
namespace {

std::string Logged(const std::string& format, const std::string& message) {
  testing::internal::CaptureStderr();
  StartLog("test", format, "info");
  spdlog::info("{}", message);
  return testing::internal::GetCapturedStderr();
}

TEST(LogTest, JsonIsOneLineWithoutControlCharacters) {
  const std::string message = "\xc3\xa9 \"\\\" \n\x1b[ \xc2\x9b \x7f \xc2\xa0";
  const std::string line = Logged("json", message);
  EXPECT_NE(line.find("\\u000a\\u001b[ \\u009b \\u007f \xc2\xa0\"}\n"), std::string::npos) << line;
  const nlohmann::json parsed = nlohmann::json::parse(line, nullptr, false);
  ASSERT_TRUE(parsed.is_object()) << line;
  EXPECT_EQ(parsed["message"], message);
}

TEST(LogTest, JsonStaysJsonWhereANameIsNoText) {
  const nlohmann::json parsed = nlohmann::json::parse(Logged("json", "caf\xe9.yaml"), nullptr, false);
  ASSERT_TRUE(parsed.is_object());
  EXPECT_EQ(parsed["message"], "caf?.yaml");
}

TEST(LogTest, TextIsOneLineWithoutControlCharacters) {
  const std::string line = Logged("text", "a\nb\x1b[ \xc2\x9b \x7f \xc3\xa9");
  EXPECT_NE(line.find(" info a\\nb\\x1b[ \\xc2\\x9b \\x7f \xc3\xa9\n"), std::string::npos) << line;
}

}  // namespace
}  // namespace weft
