// SPDX-License-Identifier: Apache-2.0
// What calls functions for a Propeller worker, against a real agent.
#include "control/source/propeller/function_caller.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/mesh.h"

namespace weft::control {
namespace {

TEST(FunctionCallerTest, FunctionsThatComeAndGoForAsLongAsItLivesAreLetGoOf) {
  if (!test::Mesh::Privileged()) GTEST_SKIP() << "needs root: an agent of another user";
  test::Mesh node({{"peers", test::kFirstTenantUid, {"b"}, {"app/*"}, "app", ""}});
  node.StartAgent();
  auto caller = FunctionCaller::Create(node.run_dir(), "app");
  ASSERT_TRUE(caller.ok()) << caller.status();
  constexpr int kCalls = 17'000;  // More routes than the agent lets a process have.
  constexpr int kAtATime = 64;
  int added = 0;
  for (int ended = 0; ended < kCalls;) {
    for (; added < kCalls && added < ended + kAtATime; ++added) {
      const std::string id = absl::StrCat(added);
      (*caller)->Add({.id = id, .function = absl::StrCat("app/task", id), .payload = ""});
    }
    pollfd done{(*caller)->done_fd(), POLLIN, 0};
    ASSERT_EQ(poll(&done, 1, 10'000), 1) << ended;
    for (const FunctionCallEnded& call : (*caller)->TakeDone()) {
      ASSERT_EQ(call.status.code(), absl::StatusCode::kNotFound) << call.id << ": " << call.status;
      ++ended;
    }
  }
}

}  // namespace
}  // namespace weft::control
