// SPDX-License-Identifier: Apache-2.0
#include "dataplane/api/query_packets.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "dataplane/base/text.h"
#include "dataplane/base/unix_socket.h"

namespace weft::api {
namespace {

Item RowOf(const std::vector<std::string>& texts) {
  Item row;
  for (const std::string& text : texts) row.add_fields()->set_text(text);
  return row;
}

QueryReply ReplyOf(const std::vector<Item>& rows) {
  QueryReply reply;
  reply.set_generation(7);
  for (const Item& row : rows) *reply.add_items() = row;
  return reply;
}

TEST(QueryPacketsTest, AnAnswerWithoutRowsIsOnePacket) {
  const std::vector<QueryReply> parts = PacketsOf(ReplyOf({}), Utf8Prefix);
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0].generation(), 7u);
  EXPECT_FALSE(parts[0].more());
}

TEST(QueryPacketsTest, RowsComeInOrderInPartsThatEachFitAPacket) {
  std::vector<Item> rows;
  for (int i = 0; i < 300; ++i) {
    rows.push_back(RowOf({std::string(400, 'e')}));
    rows.back().add_fields()->set_number(i);
  }
  const std::vector<QueryReply> parts = PacketsOf(ReplyOf(rows), Utf8Prefix);
  EXPECT_GE(parts.size(), 3u);
  EXPECT_LE(parts.size(), 4u) << "packed no tighter than need be";
  int row = 0;
  for (const QueryReply& part : parts) {
    EXPECT_LE(part.ByteSizeLong(), kControlMessageBytesMax);
    EXPECT_EQ(part.generation(), 7u);
    EXPECT_EQ(part.more(), &part != &parts.back());
    for (const Item& item : part.items()) EXPECT_EQ(item.fields(1).number(), row++);
  }
  EXPECT_EQ(row, 300);
}

TEST(QueryPacketsTest, ARowThatFitsIsLeftAsItIs) {
  const Item row = RowOf({std::string(40'000, 'a'), "b"});
  const std::vector<QueryReply> parts = PacketsOf(ReplyOf({row}), Utf8Prefix);
  EXPECT_EQ(parts[0].items(0).fields(0).text(), row.fields(0).text());
}

TEST(QueryPacketsTest, LongTextsOfALongRowAreCutAndTheOthersNot) {
  const std::string middle(1'000, 'm');
  const std::vector<QueryReply> parts =
      PacketsOf(ReplyOf({RowOf({std::string(70'000, 'a'), middle, std::string(70'000, 'b')})}), Utf8Prefix);
  ASSERT_EQ(parts.size(), 1u);
  const Item& row = parts[0].items(0);
  EXPECT_EQ(row.fields(0).text(), std::string(kCutTextBytesMax, 'a') + " ... (cut)");
  EXPECT_EQ(row.fields(1).text(), middle);
  EXPECT_EQ(row.fields(2).text(), std::string(kCutTextBytesMax, 'b') + " ... (cut)");
}

TEST(QueryPacketsTest, ARowOfManyLongTextsFitsAPacketToo) {
  for (const std::size_t texts : {3u, 10u, 30u, 300u}) {
    const std::vector<QueryReply> parts =
        PacketsOf(ReplyOf({RowOf(std::vector<std::string>(texts, std::string(20'000, 'x')))}), Utf8Prefix);
    ASSERT_EQ(parts.size(), 1u);
    EXPECT_LT(parts[0].ByteSizeLong(), kControlMessageBytesMax) << texts;
    EXPECT_GT(parts[0].ByteSizeLong(), kReplyBytesMax / 4) << texts << ": cut more than need be";
    const std::string& text = parts[0].items(0).fields(0).text();
    EXPECT_TRUE(absl::EndsWith(text, "x ... (cut)")) << "and says so once";
  }
}

TEST(QueryPacketsTest, NoTextIsCutWithinACharacter) {
  std::string text = "a";
  while (text.size() < 70'000) text += "\u00e9";  // Two bytes each: one lies across the place of the cut.
  const std::vector<QueryReply> parts = PacketsOf(ReplyOf({RowOf({text})}), Utf8Prefix);
  EXPECT_EQ(parts[0].items(0).fields(0).text(), text.substr(0, kCutTextBytesMax - 1) + " ... (cut)");
}

}  // namespace
}  // namespace weft::api
