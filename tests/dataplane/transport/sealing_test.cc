// SPDX-License-Identifier: Apache-2.0
#include "dataplane/transport/sealing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "bpf/abi/packet.h"
#include "dataplane/base/random.h"

namespace weft::transport {
namespace {

using Bytes = std::vector<uint8_t>;

SealSecret SecretOf(uint64_t seed) {
  Random random(seed);
  SealSecret secret;
  for (auto& byte : secret.key) byte = static_cast<uint8_t>(random.Next());
  for (auto& byte : secret.iv) byte = static_cast<uint8_t>(random.Next());
  return secret;
}

// Both back ends where the build has both; the tests below run once for each.
class SealingTest : public testing::TestWithParam<SealBackend> {
 protected:
  void SetUp() override {
    if (!SealBackendAvailable(GetParam())) GTEST_SKIP() << "this build or processor has no such back end";
  }
};

TEST_P(SealingTest, WrongTagOrHeaderOrCounterOrTextOrKeyDoesNotOpen) {
  SealKey sender, receiver, stranger;
  sender.Install(SecretOf(1), GetParam());
  receiver.Install(SecretOf(1), GetParam());
  stranger.Install(SecretOf(2), GetParam());
  Bytes header(WEFT_PACKET_HEADER_BYTES, 7);
  Bytes text(100 + WEFT_PACKET_TAG_BYTES, 42);
  sender.Seal(9, header.data(), text.data(), 100);
  Bytes plain(100);
  for (size_t bit = 0; bit < text.size() * 8; ++bit) {
    Bytes forged = text;
    forged[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
    EXPECT_FALSE(receiver.Open(9, header.data(), forged.data(), 100, plain.data())) << bit;
  }
  for (size_t bit = 0; bit < header.size() * 8; ++bit) {
    Bytes forged = header;
    forged[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
    EXPECT_FALSE(receiver.Open(9, forged.data(), text.data(), 100, plain.data())) << bit;
  }
  EXPECT_FALSE(receiver.Open(10, header.data(), text.data(), 100, plain.data()));
  EXPECT_FALSE(stranger.Open(9, header.data(), text.data(), 100, plain.data()));
  EXPECT_TRUE(receiver.Open(9, header.data(), text.data(), 100, plain.data()));
  EXPECT_EQ(plain, Bytes(100, 42));
}

TEST_P(SealingTest, AgreesWithOpenSslAtEverySizeOfAPacket) {
  SealKey here, reference;
  here.Install(SecretOf(3), GetParam());
  reference.Install(SecretOf(3), SealBackend::kOpenSsl);
  Random random(4);
  for (size_t bytes : {0, 1, 4, 15, 16, 17, 63, 64, 65, 255, 1400, 1440, 8900}) {
    Bytes header(WEFT_PACKET_HEADER_BYTES), text(bytes + WEFT_PACKET_TAG_BYTES);
    for (auto& byte : header) byte = static_cast<uint8_t>(random.Next());
    for (size_t i = 0; i < bytes; ++i) text[i] = static_cast<uint8_t>(random.Next());
    Bytes copy = text, plain(bytes);
    const uint64_t counter = random.Next();
    here.Seal(counter, header.data(), text.data(), bytes);
    Bytes expected = copy;
    reference.Seal(counter, header.data(), expected.data(), bytes);
    EXPECT_EQ(text, expected) << bytes;
    EXPECT_TRUE(here.Open(counter, header.data(), expected.data(), bytes, plain.data())) << bytes;
    EXPECT_TRUE(std::equal(plain.begin(), plain.end(), copy.begin())) << bytes;
  }
}

// The first packet of a key with an all-zero IV and counter 0 is the plain construction of SP 800-38D, so the
// result can be compared with one made by another implementation (Python's `cryptography` package): key
// 00..0f, nonce zero, associated data 00..0f, text "weft".
TEST_P(SealingTest, MatchesAnIndependentImplementation) {
  SealSecret secret;
  for (size_t i = 0; i < secret.key.size(); ++i) secret.key[i] = static_cast<uint8_t>(i);
  SealKey key;
  key.Install(secret, GetParam());
  Bytes header(WEFT_PACKET_HEADER_BYTES);
  for (size_t i = 0; i < header.size(); ++i) header[i] = static_cast<uint8_t>(i);
  Bytes text(4 + WEFT_PACKET_TAG_BYTES);
  std::memcpy(text.data(), "weft", 4);
  key.Seal(0, header.data(), text.data(), 4);
  const Bytes expected = {0x3e, 0xb3, 0xe1, 0x27, 0xb2, 0x99, 0xaa, 0xf6, 0x8f, 0x2f,
                          0x60, 0xd9, 0x51, 0xfc, 0x81, 0xcb, 0x67, 0x4f, 0x92, 0xed};
  EXPECT_EQ(text, expected);
}

TEST_P(SealingTest, CounterIsPartOfTheNonce) {
  SealKey key;
  key.Install(SecretOf(5), GetParam());
  Bytes header(WEFT_PACKET_HEADER_BYTES, 1), a(64 + WEFT_PACKET_TAG_BYTES), b = a;
  key.Seal(1, header.data(), a.data(), 64);
  key.Seal(1ull << 40, header.data(), b.data(), 64);
  EXPECT_FALSE(std::equal(a.begin(), a.begin() + 64, b.begin()));
}

INSTANTIATE_TEST_SUITE_P(Backends, SealingTest, testing::Values(SealBackend::kIpsecMb, SealBackend::kOpenSsl),
                         [](const auto& test) {
                           return test.param == SealBackend::kIpsecMb ? "IpsecMb" : "OpenSsl";
                         });

}  // namespace
}  // namespace weft::transport
