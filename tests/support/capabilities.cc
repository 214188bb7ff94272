// SPDX-License-Identifier: Apache-2.0
#include "tests/support/capabilities.h"

#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dataplane/base/check.h"

namespace weft::test {
namespace {

// Sets the calling thread's effective set and returns what it was.
uint64_t SetEffective(uint64_t wanted) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  WEFT_CHECK(syscall(SYS_capget, &header, data) == 0);
  const uint64_t before = data[0].effective | uint64_t{data[1].effective} << 32;
  data[0].effective = static_cast<uint32_t>(wanted);
  data[1].effective = static_cast<uint32_t>(wanted >> 32);
  WEFT_CHECK(syscall(SYS_capset, &header, data) == 0);
  return before;
}

uint64_t SetOf(std::initializer_list<int> capabilities) {
  uint64_t set = 0;
  for (const int capability : capabilities) set |= uint64_t{1} << capability;
  return set;
}

}  // namespace

OnlyCapabilities::OnlyCapabilities(std::initializer_list<int> capabilities)
    : before_(SetEffective(SetOf(capabilities))) {}

OnlyCapabilities::~OnlyCapabilities() { SetEffective(before_); }

}  // namespace weft::test
