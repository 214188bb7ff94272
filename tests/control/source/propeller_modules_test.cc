// SPDX-License-Identifier: Apache-2.0
// Modules of a Propeller worker: in parts, and on disk.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "control/source/propeller/chunked_modules.h"
#include "control/source/propeller/module_store.h"
#include "dataplane/base/random.h"
#include "tests/support/temporary_directory.h"

namespace weft::control {
namespace {

using testing::HasSubstr;

TEST(ChunkedModulesTest, AnyOrderAndRepetitionGivesTheModule) {
  Random random(7);
  for (int round = 0; round < 300; ++round) {
    std::string module;
    const std::size_t size = 1 + random.Below(200);
    for (std::size_t i = 0; i < size; ++i) module += static_cast<char>(random.Below(256));
    const std::size_t total = 1 + random.Below(size);
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < total; ++i) order.insert(order.end(), 1 + random.Below(2), i);
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.Below(i)]);
    const auto part = [&](std::size_t i) {
      return module.substr(i * size / total, (i + 1) * size / total - i * size / total);
    };
    ChunkedModules modules(size);
    EXPECT_TRUE(modules.Want("i"));
    EXPECT_EQ(*modules.Take("other", 0, 1, "x"), "");
    // A part of a former transfer, which what follows contradicts.
    if (round % 3 == 0) {
      EXPECT_EQ(*modules.Take("i", 0, total + 1, ""), "");
    }
    std::string got;
    for (std::size_t at = 0; at < order.size() && got.empty(); ++at) {
      const absl::StatusOr<std::string> taken = modules.Take("i", order[at], total, part(order[at]));
      ASSERT_TRUE(taken.ok()) << taken.status();
      got = *taken;
    }
    EXPECT_EQ(got, module);
    EXPECT_FALSE(modules.Wanted("i"));
  }
}

TEST(ChunkedModulesTest, WhatIsAskedForAndSendsNothingIsNamed) {
  ChunkedModules chunks;
  EXPECT_TRUE(chunks.Want("a"));
  EXPECT_TRUE(chunks.Want("b"));
  EXPECT_EQ(chunks.Take("a", 1, 2, "part").value(), "");
  EXPECT_EQ(chunks.Silent(), std::vector<std::string>{"b"});
  chunks.BeginAnew();
  EXPECT_EQ(chunks.Silent(), (std::vector<std::string>{"a", "b"}));
}

TEST(ChunkedModulesTest, WhatIsTooLargeOrNonsenseEndsTheTransfer) {
  ChunkedModules modules(10);
  for (const auto& [index, total] : {std::pair<uint64_t, uint64_t>{0, 0}, {2, 2}, {0, 65'537}}) {
    modules.Want("i");
    EXPECT_FALSE(modules.Take("i", index, total, "x").ok());
    EXPECT_FALSE(modules.Wanted("i"));
  }
  modules.Want("a");
  modules.Want("b");
  EXPECT_TRUE(modules.Take("a", 0, 2, "123456").ok());
  EXPECT_FALSE(modules.Take("b", 0, 2, "123456").ok());  // All together
  EXPECT_TRUE(modules.Want("b"));
  modules.BeginAnew();
  EXPECT_TRUE(modules.Take("b", 0, 2, "1234567890").ok());
  EXPECT_FALSE(modules.Take("b", 1, 2, "1").ok());
  modules.Want("c");
  EXPECT_FALSE(modules.Take("c", 0, 1, "").ok());
}

TEST(ModuleStoreTest, ModulesAreNamedByTheirHashBoundedAndSwept) {
  const test::TemporaryDirectory directory;
  auto store = ModuleStore::Create(directory / "modules", geteuid(), 10);
  ASSERT_TRUE(store.ok()) << store.status();
  const absl::StatusOr<std::string> sha = store->Put("12345");
  ASSERT_TRUE(sha.ok()) << sha.status();
  EXPECT_EQ(*sha, "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5");
  EXPECT_EQ(test::ReadFile(store->PathOf(*sha)), "12345");
  struct stat about;
  ASSERT_EQ(stat(store->PathOf(*sha).c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0600u);
  EXPECT_EQ(*store->Put("12345"), *sha);
  EXPECT_EQ(store->Put("123456").status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(store->Put("").ok());
  test::WriteFile(store->PathOf(*sha), "54321");
  EXPECT_EQ(store->Check(*sha).code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(store->Put("12345").ok());  // Mended
  EXPECT_TRUE(store->Check(*sha).ok());
  test::WriteFile(directory / "modules/x.wasm.new", "1");
  store->KeepOnly({*sha});
  EXPECT_EQ(store->bytes(), 5u);
  store->KeepOnly({});
  EXPECT_EQ(store->bytes(), 0u);
  EXPECT_FALSE(ModuleStore::Create("/nowhere/at/all", geteuid()).ok());
  EXPECT_EQ(BytesOfHex(*sha).size(), 32u);
  EXPECT_EQ(BytesOfHex("zz"), "");
}

// Whatever comes, nothing breaks, and what is held stays bounded.
}  // namespace
}  // namespace weft::control
