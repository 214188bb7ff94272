// SPDX-License-Identifier: Apache-2.0
// The callee of the guest rows, in a host without a mesh: what it checks it really looks at.
#include <cstring>
#include <string>

#include "bench/message.h"
#include "tests/dataplane/host/fixture.h"

namespace weft::host {
namespace {

constexpr uint32_t kDataLoss = 15;  // As in sdk/c/weft_guest.h.
constexpr uint32_t kLarge = 1 << 20;
static_assert(kLarge > kBenchCheckedBytesMax);

std::string Message(uint32_t bytes, uint64_t id) {
  std::string message(bytes, '\0');
  bench_fill(message.data(), bytes, id);
  return message;
}

class BenchCalleeTest : public HostTest {
 protected:
  // Sends a large request, then the call that has it checked. The status of that.
  uint32_t SendAndVerify(Function& callee, const std::string& large, uint64_t number) {
    EXPECT_EQ(Call(callee, large).status, kOk);
    const Answer answer = Call(callee, Message(kBenchAnswerBytes, number | BENCH_ID_VERIFY));
    if (answer.status == kOk) {
      EXPECT_TRUE(bench_check(answer.bytes.data(), static_cast<uint32_t>(answer.bytes.size()), number) != 0);
    }
    return answer.status;
  }
};

TEST_F(BenchCalleeTest, SmallRequestWithAWrongByteIsDataLoss) {
  Function& callee = Serve("bench/keep", "bench_callee", {.keep = true});
  EXPECT_EQ(Call(callee, Message(64, 7)).status, kOk);
  for (const size_t at : {size_t{8}, size_t{40}, size_t{63}}) {
    std::string wrong = Message(64, 7);
    wrong[at] = static_cast<char>(wrong[at] ^ 1);
    EXPECT_EQ(static_cast<uint32_t>(Call(callee, wrong).status), kDataLoss) << at;
  }
}

// The host puts the verifying request into the room of the large one.
TEST_F(BenchCalleeTest, LargeRequestIsKeptAndVerifiedByTheNextCall) {
  Function& callee = Serve("bench/keep", "bench_callee", {.keep = true});
  for (uint64_t number = 1; number <= 20; ++number) {
    EXPECT_EQ(SendAndVerify(callee, Message(kLarge, number), number), kOk) << number;
  }
  // Interspersed small requests do no harm either, and after promotion nothing changes.
  Promote(callee, Message(64, 3));
  EXPECT_EQ(SendAndVerify(callee, Message(kLarge, 21), 21), kOk);
}

TEST_F(BenchCalleeTest, LargeRequestWithAnyWrongByteIsDataLoss) {
  Function& callee = Serve("bench/keep", "bench_callee", {.keep = true});
  uint64_t number = 100;
  for (const size_t at : {size_t{8}, size_t{63}, size_t{64}, size_t{kLarge / 2}, size_t{kLarge - 1}}) {
    std::string wrong = Message(kLarge, ++number);
    wrong[at] = static_cast<char>(wrong[at] ^ 1);
    EXPECT_EQ(SendAndVerify(callee, wrong, number), kDataLoss) << at;
    ++number;
    EXPECT_EQ(SendAndVerify(callee, Message(kLarge, number), number), kOk);
  }
  // A request that was never sent cannot be verified, nor one twice.
  EXPECT_EQ(static_cast<uint32_t>(Call(callee, Message(64, number | BENCH_ID_VERIFY)).status), kDataLoss);
}

}  // namespace
}  // namespace weft::host
