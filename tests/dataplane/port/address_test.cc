// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/address.h"

#include <gtest/gtest.h>
#include <netinet/in.h>

namespace weft::port {
namespace {

TEST(Address, TextThatIsNoAddressIsRefusedWithTheCause) {
  for (const char* text : {"", "10.0.0.1", "10.0.0.1:", "10.0.0.1:70000", "10.0.0:1", "fd77::1:4810",
                           "[fd77::1:4810", "[10.0.0.1]:1", "[fe80::1%no-such-interface]:1", "host:1"}) {
    EXPECT_EQ(Address::Parse(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(Address, TextComesBackAsItWas) {
  for (const char* text : {"10.0.0.1:4810", "0.0.0.0:0", "[fd77::1]:65535", "[::]:4810"}) {
    EXPECT_EQ(Address::Parse(text)->ToString(), text);
  }
}

TEST(Address, SocketsOfBothFamiliesTakeAnIpv4Address) {
  const Address address = *Address::Parse("10.0.0.1:4810");
  for (const sa_family_t family : {AF_INET, AF_INET6}) {
    sockaddr_storage name;
    ASSERT_GT(address.ToSockaddr(family, &name), 0u);
    EXPECT_EQ(Address::FromSockaddr(reinterpret_cast<const sockaddr*>(&name)), address);
  }
}

TEST(Address, AnIpv4SocketTakesNoIpv6Address) {
  sockaddr_storage name;
  EXPECT_EQ(Address::Parse("[fd77::1]:1")->ToSockaddr(AF_INET, &name), 0u);
}

TEST(Address, UnspecifiedIsTheSameInBothFamilies) {
  EXPECT_TRUE(Address::Parse("0.0.0.0:1")->is_any());
  EXPECT_TRUE(Address::Parse("[::]:1")->is_any());
  EXPECT_FALSE(Address::Parse("10.0.0.1:1")->is_any());
  EXPECT_FALSE(Address::Parse("[fd77::1]:1")->is_any());
}

}  // namespace
}  // namespace weft::port
