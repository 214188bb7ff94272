// SPDX-License-Identifier: Apache-2.0
// The parsing and checks of the XDP program as plain functions, on packets in memory that ends where they
// end: the sanitizer builds see a read behind it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>

#include "absl/strings/str_cat.h"
#include "bpf/lib/compiler.h"
#include "bpf/lib/datagram.h"
#include "bpf/lib/frame.h"
#include "tests/bpf/steer_cases.h"

namespace weft::test {
namespace {

using Fate = SteerCase::Fate;

// A copy in a block of exactly its size.
class Exact {
 public:
  explicit Exact(const Packet& packet)
      : bytes_(new uint8_t[packet.size()]), end_(bytes_.get() + packet.size()) {
    std::copy_n(packet.data(), packet.size(), bytes_.get());
  }
  weft_cursor cursor() const { return {bytes_.get(), end_}; }

 private:
  std::unique_ptr<uint8_t[]> bytes_;
  const uint8_t* end_;
};

constexpr __be16 kPort = WEFT_BE16(WEFT_STEER_PORT_DEFAULT);

// What the program asks of a frame one after the other: whose it is and how long its payload.
int ParseFrame(weft_cursor* cursor, uint32_t* bytes, uint32_t* slot) {
  uint32_t ip_bytes = 0;
  if (weft_find_udp(cursor, &ip_bytes) != WEFT_TAKE) return WEFT_PASS;
  *slot = weft_slot_of(cursor, kPort);
  return *slot > WEFT_STEER_INSIDE_MAX ? WEFT_PASS : weft_parse_udp(cursor, ip_bytes, bytes);
}

bool IsPlain(const weft_cursor& cursor) { return weft_is_plain(&cursor, kPort) != 0; }

// What weft_is_plain says by fewer looks: an untagged IPv4 packet, and every check takes it.
bool IsTakenAsPlain(weft_cursor cursor) {
  if (cursor.end - cursor.at < 14 || cursor.at[12] != 0x08 || cursor.at[13] != 0x00) return false;
  uint32_t bytes = 0, slot = 0;
  return ParseFrame(&cursor, &bytes, &slot) == WEFT_TAKE && slot == 0 &&
         weft_check_length(bytes) == WEFT_TAKE && weft_holds_header(&cursor) &&
         weft_check_header(weft_header_at(&cursor)) == WEFT_TAKE;
}

void CheckOnHost(const SteerCase& test) {
  SCOPED_TRACE(test.name);
  const Exact packet(test.packet);
  weft_cursor cursor = packet.cursor();
  EXPECT_EQ(IsPlain(cursor), IsTakenAsPlain(cursor));
  uint32_t bytes = 0, slot = 0;
  int verdict = ParseFrame(&cursor, &bytes, &slot);
  if (test.fate == Fate::kPass) {
    // An engine inside a host that has no socket, as none has here, has its packets from the kernel.
    EXPECT_TRUE(verdict == WEFT_PASS || slot != 0);
    return;
  }
  weft_steer_key entry{};
  entry.key_id = kKnownKeyId;
  const bool known =
      weft_holds_header(&cursor) && weft_key_is(&entry, weft_key_id_of(weft_header_at(&cursor)));
  if (verdict == WEFT_TAKE) verdict = weft_check_length(bytes);
  if (verdict == WEFT_TAKE && !weft_holds_header(&cursor)) verdict = -WEFT_DROP_BAD_LENGTH;
  if (verdict == WEFT_TAKE) verdict = weft_check_header(weft_header_at(&cursor));
  if (verdict == WEFT_TAKE && !known) verdict = -WEFT_DROP_UNKNOWN_KEY;
  EXPECT_EQ(verdict, -static_cast<int>(test.reason));
  EXPECT_EQ(known, test.charged_to_key || test.fate == Fate::kTake);
  if (test.fate == Fate::kTake) {
    EXPECT_GE(bytes, static_cast<uint32_t>(WEFT_PACKET_BYTES_MIN));
  }
}

TEST(SteerChecksTest, EachPacketMeetsItsFate) {
  for (const SteerCase& test : SteerCases()) CheckOnHost(test);
}

TEST(SteerChecksTest, WhatIsPlainIsWhatEveryCheckTakes) {
  const Packet good = PacketBuilder(kKnownKeyId).SealedBytes(40).Build();
  std::mt19937 random(1);
  int plain = 0;
  for (std::size_t at = 12; at < 58; ++at) {
    for (int value = 0; value < 256; ++value) {
      Packet frame = good;
      frame[at] = static_cast<uint8_t>(value);
      // A second byte, now and then: what two wrong fields have in common must not cancel.
      if (random() % 2 == 0) frame[12 + random() % 46] ^= static_cast<uint8_t>(1u << random() % 8);
      const Exact packet(frame);
      SCOPED_TRACE(absl::StrCat("byte ", at, " is ", value));
      ASSERT_EQ(IsPlain(packet.cursor()), IsTakenAsPlain(packet.cursor()));
      plain += IsPlain(packet.cursor());
    }
  }
  EXPECT_GT(plain, 1000);
  const Exact packet(good);
  const weft_cursor cursor = packet.cursor();
  EXPECT_EQ(weft_plain_key_id(&cursor), kKnownKeyId);
}

TEST(SteerChecksTest, ADatagramOfEveryLengthIsPlainWhereItCanBe) {
  for (std::size_t sealed = 0; sealed < 9100; sealed += sealed < 64 || sealed > 8900 ? 1 : 97) {
    const Exact packet(PacketBuilder(kKnownKeyId).SealedBytes(sealed).Build());
    SCOPED_TRACE(sealed);
    EXPECT_EQ(IsPlain(packet.cursor()), IsTakenAsPlain(packet.cursor()));
  }
}

TEST(SteerChecksTest, APacketCutAnywhereIsNotReadBehindItsEnd) {
  for (const SteerCase& test : TruncatedCases()) CheckOnHost(test);
}

TEST(SteerChecksTest, AFrameShorterThanEthernetIsLeftToTheKernel) {
  for (std::size_t bytes = 0; bytes < 14; ++bytes) {
    const Exact packet{Packet(bytes)};
    weft_cursor cursor = packet.cursor();
    uint32_t payload = 0, slot = 0;
    EXPECT_EQ(ParseFrame(&cursor, &payload, &slot), WEFT_PASS);
  }
}

TEST(SteerChecksTest, TheLengthThatUdpSaysIsTold) {
  const Packet frame = PacketBuilder(1).SealedBytes(100).Padding(10).Build();
  const Exact packet(frame);
  weft_cursor cursor = packet.cursor();
  uint32_t payload = 0, slot = 0;
  ASSERT_EQ(ParseFrame(&cursor, &payload, &slot), WEFT_TAKE);
  EXPECT_EQ(payload, 116u);
  EXPECT_EQ(cursor.end - cursor.at, 126);
}

TEST(SteerChecksTest, ThePortsBehindWeftsAreThoseOfEnginesInsideHosts) {
  for (uint32_t port = WEFT_STEER_PORT_DEFAULT - 1; port <= WEFT_STEER_PORT_DEFAULT + 17; ++port) {
    const Exact packet(PacketBuilder(1).Port(static_cast<uint16_t>(port)).Build());
    weft_cursor cursor = packet.cursor();
    EXPECT_EQ(IsPlain(cursor), port == WEFT_STEER_PORT_DEFAULT);
    uint32_t payload = 0, slot = 0;
    const bool ours =
        port >= WEFT_STEER_PORT_DEFAULT && port <= WEFT_STEER_PORT_DEFAULT + WEFT_STEER_INSIDE_MAX;
    EXPECT_EQ(ParseFrame(&cursor, &payload, &slot), ours ? WEFT_TAKE : WEFT_PASS) << port;
    if (!ours) continue;
    EXPECT_EQ(slot, port - WEFT_STEER_PORT_DEFAULT);
  }
}

TEST(SteerChecksTest, IdZeroIsNoKey) {
  weft_steer_key entry{};
  EXPECT_FALSE(weft_key_is(&entry, 0));  // A free entry holds id 0.
  entry.key_id = 5;
  EXPECT_TRUE(weft_key_is(&entry, 5));
  EXPECT_FALSE(weft_key_is(&entry, 5 + 16));
}

TEST(SteerChecksTest, ByteOrderHelpersAgreeWithTheBytes) {
  const uint8_t bytes[4] = {0x12, 0x34, 0x56, 0x78};
  uint16_t half;
  uint32_t word;
  std::memcpy(&half, bytes, sizeof(half));
  std::memcpy(&word, bytes, sizeof(word));
  EXPECT_EQ(half, WEFT_BE16(0x1234));
  EXPECT_EQ(WEFT_FROM_BE16(half), 0x1234);
  EXPECT_EQ(WEFT_FROM_BE32(word), 0x12345678u);
}

}  // namespace
}  // namespace weft::test
