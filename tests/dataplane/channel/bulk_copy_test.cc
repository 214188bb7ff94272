// SPDX-License-Identifier: Apache-2.0
// Every way of copying a chunk copies exactly the bytes it was given, whatever the addresses and the length.
#include "dataplane/channel/bulk_copy.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

namespace weft {
namespace {

constexpr std::size_t kMargin = 128;

using Copy = std::function<void(std::byte* to, const std::byte* from, std::size_t bytes)>;

// Copies `bytes` from an address `from_offset` beyond a page to one `to_offset` beyond another, and looks at
// them and at what lies on both sides.
void ExpectExact(const Copy& copy, std::size_t to_offset, std::size_t from_offset, std::size_t bytes) {
  constexpr std::size_t kPage = 4096;
  std::vector<std::byte> from_room(bytes + 3 * kPage), to_room(bytes + 3 * kPage, std::byte{0xee});
  auto paged = [](std::vector<std::byte>& room) {
    return room.data() + kPage - reinterpret_cast<std::uintptr_t>(room.data()) % kPage + kMargin;
  };
  std::byte* const from = paged(from_room) + from_offset;
  std::byte* const to = paged(to_room) + to_offset;
  for (std::size_t i = 0; i < bytes; ++i) from[i] = static_cast<std::byte>(i * 7 + i / 251);
  copy(to, from, bytes);
  ASSERT_EQ(std::memcmp(to, from, bytes), 0) << bytes << " to +" << to_offset << " from +" << from_offset;
  for (std::size_t i = 1; i <= kMargin; ++i) {
    ASSERT_EQ(to[-static_cast<std::ptrdiff_t>(i)], std::byte{0xee});
    ASSERT_EQ(to[bytes + i - 1], std::byte{0xee});
  }
}

void ExpectExactEverywhere(const Copy& copy) {
  for (const std::size_t bytes :
       {0, 1, 63, 64, 65, 127, 1000, 4095, 4096, 4097, 32 * 1024, 65536, 65536 + 33}) {
    for (const std::size_t to_offset : {0, 1, 8, 15, 16, 26, 63, 64}) {
      for (const std::size_t from_offset : {0, 1, 16, 40}) ExpectExact(copy, to_offset, from_offset, bytes);
    }
  }
}

TEST(BulkCopyTest, CopyBulkIsExact) { ExpectExactEverywhere(CopyBulk); }

#if defined(__x86_64__)
TEST(BulkCopyTest, StreamingIsExact) { ExpectExactEverywhere(CopyStreaming); }
TEST(BulkCopyTest, VectorsAreExact) { ExpectExactEverywhere(CopyInVectors); }
#endif

// Through several trials, each of which uses both ways.
TEST(BulkCopyTest, WriterIsExactInEveryTurn) {
  BulkWriter writer;
  const Copy copy = [&](std::byte* to, const std::byte* from, std::size_t bytes) {
    writer.Copy(to, from, bytes);
  };
  for (int i = 0; i < 600; ++i) ExpectExact(copy, static_cast<std::size_t>(i) % 128, 24, 32 * 1024 + 5);
  ExpectExactEverywhere(copy);
}

}  // namespace
}  // namespace weft
