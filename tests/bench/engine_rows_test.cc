// SPDX-License-Identifier: Apache-2.0
// Rows between engines measure on where the machine has kept a side off its core for seconds, and fail where
// one is gone for good.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "bench/remote_rows.h"
#include "bench/worker.h"
#include "dataplane/base/clock.h"
#include "tests/support/process.h"

namespace weft::bench {
namespace {

constexpr uint64_t kBlockNs = 300 * kNsPerMs;
constexpr absl::Duration kIntoTheBlock = absl::Milliseconds(100);

std::unique_ptr<Row> RowNamed(const std::string& name) {
  std::vector<std::unique_ptr<Row>> rows;
  AddEngineRows(&rows);
  for (std::unique_ptr<Row>& row : rows) {
    if (row->spec().name == name) return std::move(row);
  }
  return nullptr;
}

// The child of this process that has the name; -1 where there is none.
pid_t ChildNamed(const std::string& name) {
  std::ifstream children(absl::StrCat("/proc/self/task/", getpid(), "/children"));
  for (pid_t pid; children >> pid;) {
    std::string its;
    std::ifstream(absl::StrCat("/proc/", pid, "/comm")) >> its;
    if (its == name) return pid;
  }
  return -1;
}

class StalledEngineRowTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root, for network namespaces";
    row_ = RowNamed("weft/bulk");
    ASSERT_NE(row_, nullptr);
    const absl::Status status = row_->Setup();
    ASSERT_TRUE(status.ok()) << status;
    // It gives itself its name.
    ASSERT_TRUE(test::Eventually([&] { return (side_ = ChildNamed(GetParam())) > 0; }));
  }

  std::unique_ptr<Row> row_;
  pid_t side_ = -1;
};

TEST_P(StalledEngineRowTest, ASideThatIsOffItsCoreForSecondsEndsItsBlock) {
  std::thread stall([&] {
    absl::SleepFor(kIntoTheBlock);
    EXPECT_EQ(kill(side_, SIGSTOP), 0);
    absl::SleepFor(absl::Seconds(3));
    EXPECT_EQ(kill(side_, SIGCONT), 0);
  });
  for (int i = 0; i < 3; ++i) {
    const absl::StatusOr<Block> block = row_->RunBlock(kBlockNs);
    EXPECT_TRUE(block.ok()) << block.status();
  }
  stall.join();
}

TEST_P(StalledEngineRowTest, ASideThatDiesFailsTheBlock) {
  std::thread end([&] {
    absl::SleepFor(kIntoTheBlock);
    EXPECT_EQ(kill(side_, SIGKILL), 0);
  });
  EXPECT_FALSE(row_->RunBlock(kBlockNs).ok());
  end.join();
}

INSTANTIATE_TEST_SUITE_P(Sides, StalledEngineRowTest, testing::Values("bench-caller", "bench-callee"),
                         [](const auto& side) {
                           return std::string(side.param) == "bench-caller" ? "Caller" : "Callee";
                         });

}  // namespace
}  // namespace weft::bench
