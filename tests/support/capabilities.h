// SPDX-License-Identifier: Apache-2.0
// Gives the calling thread only some of root's capabilities for a while: BPF programs are verified and
// compiled otherwise for who has CAP_BPF alone than for root, so tests and benchmarks load them as
// weft-control does.
#ifndef WEFT_TESTS_SUPPORT_CAPABILITIES_H_
#define WEFT_TESTS_SUPPORT_CAPABILITIES_H_

#include <cstdint>
#include <initializer_list>

namespace weft::test {

class OnlyCapabilities {
 public:
  // CAP_ numbers of linux/capability.h. Root's permitted set stays, so that the end of the scope gives all
  // back.
  explicit OnlyCapabilities(std::initializer_list<int> capabilities);
  ~OnlyCapabilities();
  OnlyCapabilities(const OnlyCapabilities&) = delete;
  OnlyCapabilities& operator=(const OnlyCapabilities&) = delete;

 private:
  uint64_t before_;
};

}  // namespace weft::test

#endif  // WEFT_TESTS_SUPPORT_CAPABILITIES_H_
