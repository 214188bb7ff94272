// SPDX-License-Identifier: Apache-2.0
#include "tools/weftctl/output.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace weft::ctl {
namespace {

TEST(OutputTest, ColumnsAreAlignedAndAbsentValuesShown) {
  EXPECT_EQ(ToTables({Row().Text("host", "a").Number("calls", 12).Take(),
                      Row().Text("host", "a-long-one").Text("state", "drained").Take()},
                     false),
            "HOST        CALLS  STATE\n"
            "a           12     -\n"
            "a-long-one  -      drained\n");
}

TEST(OutputTest, CountersAreForWideTables) {
  const std::vector<api::Item> rows = {
      Row().Text("host", "a").Text("counters", "current").Number("sent", 3).Take()};
  EXPECT_EQ(ToTables(rows, false), "HOST  COUNTERS\na     current\n");
  EXPECT_EQ(ToTables(rows, true), "HOST  COUNTERS  SENT\na     current   3\n");
}

TEST(OutputTest, RowsOfAnotherKindAreATableOfTheirOwn) {
  EXPECT_EQ(ToTables({Row().Text("a", "1").Take(), Row().Text("b", "2").Take()}, false), "A\n1\n\nB\n2\n");
}

TEST(OutputTest, WideCharactersAreAlignedAndControlCharactersHarmless) {
  EXPECT_EQ(ToTables({Row().Text("n", "\xc3\xa9").Text("x", "1").Take(),
                      Row().Text("n", "\x1b[2J").Text("x", "2").Take()},
                     false),
            "N     X\n"
            "\xc3\xa9     1\n"
            "?[2J  2\n");
  // ESC and [ as one character.
  EXPECT_EQ(ToTables({Row()
                          .Text("n",
                                "\xc2\x9b"
                                "2J\xc2\xa0\x7f\n")
                          .Take()},
                     false),
            "N\n?2J\xc2\xa0??\n");
  EXPECT_EQ(Printable("a\n\x1b\xc2", /*lines=*/true), "a\n?\xc2");
}

TEST(OutputTest, AReportListsComponents) {
  EXPECT_EQ(ToReport({Row().Text("component", "weftd").Text("node", "n1").Text("problem", "").Take(),
                      Row().Text("file", "m.yaml").Text("state", "current").Take()}),
            "weftd\n  node       n1\n\nFILE    STATE\nm.yaml  current\n");
}

TEST(OutputTest, JsonKeepsOrderAndTypes) {
  EXPECT_EQ(ToJson("hosts", 7, {Row().Text("host", "a").Number("n", -3).Real("r", 0.5).Take()}),
            "{\n  \"kind\": \"hosts\",\n  \"generation\": 7,\n  \"items\": [\n    {\n      \"host\": \"a\",\n"
            "      \"n\": -3,\n      \"r\": 0.5\n    }\n  ]\n}\n");
  EXPECT_EQ(ToJson("x", 0, {}), "{\n  \"kind\": \"x\",\n  \"generation\": 0,\n  \"items\": []\n}\n");
}

TEST(OutputTest, JsonStaysJsonWhateverANameHolds) {
  const std::string text = ToJson("x", 0, {Row().Text("n", "\xff\"\n").Take()});
  EXPECT_TRUE(nlohmann::json::accept(text)) << text;
}

TEST(OutputTest, JsonEscapesWhatATerminalWouldTakeForACommand) {
  const std::string text = ToJson("x", 0, {Row().Text("n\x7f", "\xc3\xa9\xc2\x9b\x1b").Take()});
  EXPECT_NE(text.find("\"n\\u007f\": \"\xc3\xa9\\u009b\\u001b\""), std::string::npos) << text;
  EXPECT_EQ(nlohmann::json::parse(text)["items"][0]["n\x7f"], "\xc3\xa9\xc2\x9b\x1b");
}

}  // namespace
}  // namespace weft::ctl
