// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/frame_headers.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace weft::port {
namespace {

constexpr uint8_t kSourceMac[6] = {2, 0, 0, 0, 0, 1};
constexpr uint8_t kPeerMac[6] = {2, 0, 0, 0, 0, 2};

struct Frame {
  std::vector<uint8_t> memory;
  std::size_t begin = 0;
  uint8_t* data() { return memory.data() + begin; }
  std::size_t bytes() const { return memory.size() - begin; }
};

Frame Build(bool ipv4, std::size_t payload_bytes) {
  const Address source = *Address::Parse(ipv4 ? "10.77.0.1:4810" : "[fd77::1]:4810");
  const Address peer = *Address::Parse(ipv4 ? "10.77.0.2:4811" : "[fd77::2]:4811");
  const HeaderTemplate headers = MakeHeaders(kSourceMac, kPeerMac, source, peer);
  Frame frame;
  frame.memory.resize(kHeadersRoomBytes + payload_bytes);
  for (std::size_t i = 0; i < payload_bytes; ++i)
    frame.memory[kHeadersRoomBytes + i] = static_cast<uint8_t>(i * 37 + 1);
  WriteHeaders(headers, frame.memory.data() + kHeadersRoomBytes, payload_bytes);
  frame.begin = kHeadersRoomBytes - headers.size;
  return frame;
}

// As RFC 1071 has it, word by word: 0xffff where a checksum within is right.
uint16_t Sum(const uint8_t* at, std::size_t bytes, uint32_t sum = 0) {
  for (std::size_t i = 0; i < bytes; ++i) sum += i % 2 == 0 ? at[i] << 8 : at[i];
  while ((sum >> 16) != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

TEST(FrameHeaders, FramesThatAreNoDatagramForThePortAreRefused) {
  struct Case {
    const char* name;
    bool ipv4;
    std::size_t offset;
    uint8_t value;
  };
  const Case cases[] = {
      {"other ethertype", true, 12, 0x86},
      {"IP options", true, 14, 0x46},
      {"IPv4 version", true, 14, 0x55},
      {"more fragments", true, 20, 0x20},
      {"fragment offset", true, 21, 1},
      {"TCP", true, 23, 6},
      {"length above the frame", true, 17, 255},
      {"length below the header", true, 17, 19},
      {"other port", true, 37, 1},
      {"UDP longer than IP", true, 39, 255},
      {"UDP shorter than itself", true, 39, 7},
      {"IPv6 version", false, 14, 0x45},
      {"hop-by-hop options", false, 20, 0},
      {"IPv6 length above the frame", false, 18, 1},
      {"other port over IPv6", false, 57, 1},
  };
  for (const Case& c : cases) {
    Frame frame = Build(c.ipv4, 64);
    ASSERT_NE(frame.data()[c.offset], c.value) << c.name;
    frame.data()[c.offset] = c.value;
    EXPECT_EQ(ParseFrame(frame.data(), frame.bytes(), 4811).offset, 0u) << c.name;
  }
}

TEST(FrameHeaders, EveryTruncationIsRefused) {
  for (const bool ipv4 : {true, false}) {
    Frame frame = Build(ipv4, 64);
    for (std::size_t bytes = 0; bytes < frame.bytes(); ++bytes) {
      const std::vector<uint8_t> cut(frame.data(),
                                     frame.data() + bytes);  // So that a sanitizer sees a read beyond.
      EXPECT_EQ(ParseFrame(cut.data(), cut.size(), 4811).offset, 0u) << bytes;
    }
  }
}

TEST(FrameHeaders, WhatIsWrittenIsParsedWithItsSource) {
  for (const bool ipv4 : {true, false}) {
    for (const std::size_t bytes : {0u, 1u, 36u, 1400u}) {
      Frame frame = Build(ipv4, bytes);
      const ParsedFrame parsed = ParseFrame(frame.data(), frame.bytes(), 4811);
      EXPECT_EQ(parsed.offset, ipv4 ? kHeaders4Bytes : kHeaders6Bytes);
      EXPECT_EQ(parsed.bytes, bytes);
      EXPECT_EQ(SourceOfFrame(frame.data(), parsed).ToString(), ipv4 ? "10.77.0.1:4810" : "[fd77::1]:4810");
    }
  }
}

TEST(FrameHeaders, PaddingBehindAShortDatagramIsNotPartOfIt) {
  Frame frame = Build(true, 4);
  frame.memory.resize(frame.memory.size() + 14);
  const ParsedFrame parsed = ParseFrame(frame.data(), frame.bytes(), 4811);
  EXPECT_EQ(parsed.offset, kHeaders4Bytes);
  EXPECT_EQ(parsed.bytes, 4u);
}

TEST(FrameHeaders, VlanTagIsSkipped) {
  Frame frame = Build(true, 64);
  std::vector<uint8_t> tagged(frame.data(), frame.data() + frame.bytes());
  const uint8_t tag[4] = {0x81, 0x00, 0x00, 0x05};
  tagged.insert(tagged.begin() + 12, tag, tag + 4);
  const ParsedFrame parsed = ParseFrame(tagged.data(), tagged.size(), 4811);
  EXPECT_EQ(parsed.offset, kHeaders4Bytes + 4);
  EXPECT_EQ(SourceOfFrame(tagged.data(), parsed).ToString(), "10.77.0.1:4810");
}

TEST(FrameHeaders, ChecksumsAreRightForEveryLength) {
  for (std::size_t bytes = 0; bytes < 200; ++bytes) {
    Frame frame4 = Build(true, bytes);
    EXPECT_EQ(Sum(frame4.data() + kEthernetBytes, 20), 0xffff) << bytes;
    EXPECT_EQ(Sum(frame4.data() + kEthernetBytes + 26, 2), 0) << "no UDP checksum over IPv4";
    Frame frame6 = Build(false, bytes);
    const uint8_t* const ip = frame6.data() + kEthernetBytes;
    // Pseudo header: addresses, length, next header 17.
    const uint32_t pseudo = Sum(ip + 8, 32) + static_cast<uint32_t>(bytes + 8) + 17;
    EXPECT_EQ(Sum(ip + 40, bytes + 8, pseudo), 0xffff) << bytes;
    EXPECT_NE(Sum(ip + 46, 2), 0) << "there must be a UDP checksum over IPv6";
  }
}

}  // namespace
}  // namespace weft::port
