// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/neighbour_frames.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace weft::port {
namespace {

using Kind = NeighbourMessage::Kind;

constexpr uint8_t kMacA[6] = {2, 0, 0, 0, 0, 1};
constexpr uint8_t kMacB[6] = {2, 0, 0, 0, 0, 2};

struct Family {
  Address a;
  Address b;
};

std::vector<Family> Families() {
  return {{*Address::Parse("10.77.0.1:0"), *Address::Parse("10.77.0.2:0")},
          {*Address::Parse("[fd77::1]:0"), *Address::Parse("[fd77::2]:0")}};
}

TEST(NeighbourFrames, QuestionNamesSubjectAndSender) {
  for (const auto& [a, b] : Families()) {
    uint8_t frame[kNeighbourFrameBytesMax];
    const std::size_t bytes = WriteQuestion(frame, kMacA, a, b);
    ASSERT_LE(bytes, sizeof(frame));
    EXPECT_EQ(frame[0] & 1, 1) << "it goes to a group";
    const NeighbourMessage message = ParseNeighbour(frame, bytes);
    EXPECT_EQ(message.kind, Kind::kQuestion);
    EXPECT_EQ(message.subject, b);
    EXPECT_EQ(message.sender, a);
    ASSERT_TRUE(message.has_mac);
    EXPECT_EQ(std::memcmp(message.mac, kMacA, 6), 0);
  }
}

TEST(NeighbourFrames, AnswerGoesToTheAskerAndTellsOfTheSubject) {
  for (const auto& [a, b] : Families()) {
    uint8_t frame[kNeighbourFrameBytesMax];
    const std::size_t bytes = WriteAnswer(frame, kMacB, b, a, kMacA);
    EXPECT_EQ(std::memcmp(frame, kMacA, 6), 0);
    const NeighbourMessage message = ParseNeighbour(frame, bytes);
    EXPECT_EQ(message.kind, Kind::kAnswer);
    EXPECT_EQ(message.subject, b);
    ASSERT_TRUE(message.has_mac);
    EXPECT_EQ(std::memcmp(message.mac, kMacB, 6), 0);
  }
}

TEST(NeighbourFrames, AnnouncementTellsEverybodyOfItsSender) {
  for (const auto& [a, b] : Families()) {
    uint8_t frame[kNeighbourFrameBytesMax];
    const NeighbourMessage message = ParseNeighbour(frame, WriteAnnouncement(frame, kMacA, a));
    EXPECT_NE(message.kind, Kind::kNone);
    EXPECT_EQ(message.subject, a);
    EXPECT_EQ(message.sender, a);
    EXPECT_EQ(std::memcmp(message.mac, kMacA, 6), 0);
  }
}

TEST(NeighbourFrames, WhatIsCutOrChangedIsNoMessage) {
  for (const auto& [a, b] : Families()) {
    uint8_t frame[kNeighbourFrameBytesMax];
    const std::size_t bytes = WriteQuestion(frame, kMacA, a, b);
    for (std::size_t cut = 0; cut < bytes; ++cut) {
      const std::vector<uint8_t> shorter(frame, frame + cut);
      EXPECT_EQ(ParseNeighbour(shorter.data(), cut).kind, Kind::kNone) << cut;
    }
    frame[12] ^= 0x40;  // Another EtherType.
    EXPECT_EQ(ParseNeighbour(frame, bytes).kind, Kind::kNone);
  }
}

TEST(NeighbourFrames, Icmpv6FromBeyondTheLinkOrWithAWrongChecksumIsNoMessage) {
  const Family ip6 = Families()[1];
  uint8_t frame[kNeighbourFrameBytesMax];
  const std::size_t bytes = WriteQuestion(frame, kMacA, ip6.a, ip6.b);
  frame[14 + 7] = 64;
  EXPECT_EQ(ParseNeighbour(frame, bytes).kind, Kind::kNone);
  for (std::size_t i = 14 + 8; i < bytes; ++i) {
    WriteQuestion(frame, kMacA, ip6.a, ip6.b);
    frame[i] ^= 1;
    EXPECT_EQ(ParseNeighbour(frame, bytes).kind, Kind::kNone) << i;
  }
}

TEST(NeighbourFrames, AnOptionOfNoLengthEndsTheSearch) {
  // A checksum that fits a frame whose option says that it is 0 long: the sum of the rest stays the same.
  const Family ip6 = Families()[1];
  uint8_t frame[kNeighbourFrameBytesMax];
  const std::size_t bytes = WriteQuestion(frame, kMacA, ip6.a, ip6.b);
  uint8_t* const option = frame + 14 + 40 + 24;
  option[1] = 0;
  option[3] = static_cast<uint8_t>(option[3] + 1);
  EXPECT_EQ(ParseNeighbour(frame, bytes).kind, Kind::kNone);
}

}  // namespace
}  // namespace weft::port
