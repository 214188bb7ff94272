// SPDX-License-Identifier: Apache-2.0
// Huge pages that a test adds to the machine's and takes back with its end. Tests that run beside each other
// may each have theirs. Needs root.
#ifndef WEFT_TESTS_SUPPORT_HUGE_PAGES_H_
#define WEFT_TESTS_SUPPORT_HUGE_PAGES_H_

namespace weft::test {

class HugePages {
 public:
  // Adds `count` pages of the default size; where memory is too scattered, fewer.
  explicit HugePages(int count);
  ~HugePages();
  HugePages(const HugePages&) = delete;
  HugePages& operator=(const HugePages&) = delete;

  // How many there came to be.
  int count() const { return count_; }

 private:
  int count_;
};

}  // namespace weft::test

#endif  // WEFT_TESTS_SUPPORT_HUGE_PAGES_H_
