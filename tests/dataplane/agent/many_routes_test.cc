// SPDX-License-Identifier: Apache-2.0
// A process with as many routes as it may have, by libweft, when all of them change at once.
#include <gtest/gtest.h>

#include <cstddef>
#include <string>

#include "absl/base/config.h"
#include "absl/strings/str_cat.h"
#include "dataplane/client/weft/client.h"
#include "tests/dataplane/agent/server_fixture.h"

namespace weft::agent::test {
namespace {

#if defined(ABSL_HAVE_ADDRESS_SANITIZER) || defined(ABSL_HAVE_THREAD_SANITIZER)
// Each takes twenty times as long, and the time that a host has for it does not.
constexpr std::size_t kRoutesOfOneHost = 1'024;
#else
constexpr std::size_t kRoutesOfOneHost = kSubscriptionsMax;
#endif

TEST_F(ServerTest, AHostKeepsItsSessionWhenAllItsRoutesChangeAtOnce) {
  Start();
  MeshOptions options;
  options.run_dir = run_dir();
  options.host = "a";
  absl::StatusOr<std::unique_ptr<Mesh>> mesh = Mesh::Create(options);
  ASSERT_TRUE(mesh.ok()) << mesh.status();
  ASSERT_TRUE((*mesh)->Attach().ok());
  Client client(**mesh);
  std::string last;
  for (std::size_t i = 0; i < kRoutesOfOneHost; ++i) {
    last = absl::StrCat("vision/function-of-some-name-", i);
    ASSERT_TRUE(client.ResolveLazily(last).ok());
  }
  AdminPeer admin(admin_sock());
  ASSERT_TRUE(absl::IsPermissionDenied(client.Resolve(last, "", absl::Seconds(60)).status()));
  for (uint64_t generation = 1; generation <= 4; ++generation) {
    // Each time otherwise: denied, or not found.
    api::Mesh changed;
    if (generation % 2 == 1) {
      changed.add_allow()->set_from("web/*");
      changed.mutable_allow(0)->set_to("vision/*");
    }
    const std::optional<api::Programmed> programmed = admin.Program(generation, changed);
    ASSERT_TRUE(programmed.has_value());
    EXPECT_EQ(programmed->cut_off_size(), 0) << generation;
  }
  EXPECT_EQ(Refused("silent"), 0u);
  EXPECT_EQ(Refused("never_reads"), 0u);
}

}  // namespace
}  // namespace weft::agent::test
