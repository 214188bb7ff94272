// SPDX-License-Identifier: Apache-2.0
// What the agent keeps on disk is what it saved, whole or by records, whatever became of the end of the log;
// and the map that makes both cheap does what a map does.
#include "dataplane/agent/store.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <set>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "dataplane/agent/cow_map.h"
#include "dataplane/base/random.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"

namespace weft::agent {
namespace {

using weft::test::ReadFile;
using weft::test::TemporaryDirectory;
using weft::test::WriteFile;

api::Program EndpointOn(const std::string& host, uint32_t weight) {
  api::Program part;
  api::Endpoint& endpoint = *part.mutable_upsert()->add_endpoints();
  endpoint.set_function("a/f");
  endpoint.set_node("n1");
  endpoint.set_host(host);
  endpoint.set_weight(weight);
  return part;
}

class StoreTest : public testing::Test {
 protected:
  void Open() {
    store_.reset();
    absl::StatusOr<std::unique_ptr<Store>> store = Store::Create(directory_ / "state");
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    absl::StatusOr<Model> loaded = store_->Load();
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    model_ = *std::move(loaded);
  }
  // The next generation.
  void Save(const api::Program& part) {
    Model next = model_;
    ASSERT_TRUE(next.Apply(part).ok());
    next.set_generation(model_.generation() + 1);
    model_ = next;
    const absl::Status saved = store_->Save(std::make_shared<const Model>(model_));
    EXPECT_TRUE(saved.ok()) << saved;
  }
  std::string log() const { return directory_ / "state/routes.log"; }
  std::string snapshot() const { return directory_ / "state/routes.pb"; }
  std::size_t LogBytes() const { return ReadFile(log()).size(); }
  uint32_t WeightOf(const std::string& host) const {
    const auto found = model_.endpoints().find({"a/f", "n1", host});
    return found == model_.endpoints().end() ? 0 : found->second.weight();
  }
  // So many as no record holds.
  static api::Program Many() {
    api::Program part;
    for (std::size_t i = 0; i <= Store::kRecordEntriesMax; ++i) {
      *part.mutable_upsert()->add_endpoints() = EndpointOn(absl::StrCat("m", i), 1).upsert().endpoints(0);
    }
    return part;
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Store> store_;
  Model model_;
};

TEST_F(StoreTest, WhatWasAcknowledgedIsThereWithoutAnEnd) {
  Open();
  Save(EndpointOn("h1", 10));
  api::Program hinted = EndpointOn("h2", 20);
  hinted.mutable_upsert()->mutable_endpoints(0)->set_hints("hints");
  Save(hinted);
  api::Program gone;
  gone.add_delete_endpoints()->CopyFrom(EndpointOn("h1", 0).upsert().endpoints(0));
  gone.mutable_upsert()->add_allow()->set_from("a/*");
  gone.mutable_upsert()->mutable_allow(0)->set_to("b/*");
  gone.mutable_upsert()->add_nodes()->set_name("n2");
  gone.mutable_upsert()->add_functions()->set_name("a/f");
  Save(gone);
  // What stands there while this one still runs, as after a kill.
  const TemporaryDirectory copy;
  for (const char* name : {"routes.pb", "routes.log"}) {
    std::error_code none;
    std::filesystem::copy_file(directory_ / absl::StrCat("state/", name), copy / name, none);
  }
  const auto other = Store::Create(copy.path());
  ASSERT_TRUE(other.ok());
  absl::StatusOr<Model> loaded = (*other)->Load();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->generation(), 3u);
  EXPECT_EQ(loaded->endpoints().size(), 1u);
  EXPECT_EQ(loaded->endpoints().begin()->first.host, "h2");
  EXPECT_EQ(loaded->endpoints().begin()->second.hints(), "hints");
  EXPECT_TRUE(loaded->Allows("a/x", "b/y"));
  EXPECT_TRUE(loaded->nodes().contains("n2"));
  EXPECT_TRUE(loaded->functions().contains("a/f"));
}

TEST_F(StoreTest, AGenerationOfManyIsWrittenWholeAndTheLogBeginsAnew) {
  Open();
  Save(EndpointOn("h1", 10));
  EXPECT_GT(LogBytes(), 0u);
  Save(Many());
  Open();  // Waits for the snapshot.
  EXPECT_EQ(model_.generation(), 2u);
  EXPECT_EQ(model_.endpoints().size(), Store::kRecordEntriesMax + 2);
  Save(EndpointOn("h1", 11));
  Save(Many());
  ASSERT_TRUE(weft::test::Eventually([&] {
    api::Program on_disk;
    return on_disk.ParseFromString(ReadFile(snapshot())) && on_disk.generation() == model_.generation();
  }));
  ASSERT_NE(ReadFile(log()).find("h1"), std::string::npos);
  // The writer says so a moment after the file has its name.
  ASSERT_TRUE(weft::test::Eventually([&] {
    usleep(10'000);
    Save(EndpointOn("h2", static_cast<uint32_t>(model_.generation())));
    return ReadFile(log()).find("h1") == std::string::npos;
  })) << "the log is never cut";
  const uint32_t weight = WeightOf("h2");
  Open();
  EXPECT_EQ(WeightOf("h1"), 11u);
  EXPECT_EQ(WeightOf("h2"), weight);
}

TEST_F(StoreTest, ATornOrRottenRecordEndsTheLog) {
  Open();
  for (uint32_t i = 1; i <= 3; ++i) Save(EndpointOn("h1", i));
  store_.reset();
  const std::string good = ReadFile(log());
  WriteFile(log(), good.substr(0, good.size() - 1));
  Open();
  EXPECT_EQ(WeightOf("h1"), 2u);
  Save(EndpointOn("h1", 9));  // Behind what was cut off.
  Open();
  EXPECT_EQ(WeightOf("h1"), 9u);
  store_.reset();
  std::string rotten = good;
  rotten[rotten.size() / 2] = static_cast<char>(rotten[rotten.size() / 2] ^ 1);
  WriteFile(log(), rotten);
  Open();
  EXPECT_EQ(WeightOf("h1"), 1u);
  EXPECT_EQ(model_.generation(), 1u);
}

TEST_F(StoreTest, ASnapshotThatCannotBeWrittenIsToldAtOnceAndTriedAgain) {
  Open();
  mkdir((snapshot() + ".new").c_str(), 0700);
  Save(Many());
  pollfd failed{store_->error_fd(), POLLIN, 0};
  ASSERT_EQ(poll(&failed, 1, 10'000), 1);
  EXPECT_EQ(store_->TakeError().message().find("open "), 0u);
  EXPECT_EQ(poll(&failed, 1, 0), 0);
  rmdir((snapshot() + ".new").c_str());
  Save(EndpointOn("h1", 7));
  Open();
  EXPECT_EQ(model_.generation(), 2u);
  EXPECT_EQ(model_.endpoints().size(), Store::kRecordEntriesMax + 2);
}

TEST_F(StoreTest, WhatTheLastSnapshotFailedForIsToldAtTheEnd) {
  Open();
  mkdir((snapshot() + ".new").c_str(), 0700);
  Save(Many());
  EXPECT_EQ(store_->Finish().message().find("open "), 0u);
}

TEST_F(StoreTest, ADamagedSnapshotIsSetAsideWithItsLog) {
  Open();
  Save(Many());
  store_.reset();
  WriteFile(snapshot(), "garbage");
  const auto store = Store::Create(directory_ / "state");
  ASSERT_TRUE(store.ok());
  EXPECT_TRUE(absl::IsInvalidArgument((*store)->Load().status()));
  ASSERT_TRUE((*store)->SetAside().ok());
  const absl::StatusOr<Model> loaded = (*store)->Load();
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(loaded->endpoints().size(), 0u);
  EXPECT_EQ(ReadFile(snapshot() + ".damaged"), "garbage");
}

TEST(ModelTest, WhatGoesMakesRoomForWhatIsNewInAPartBefore) {
  api::Program all;
  for (std::size_t i = 0; i < kModelEntriesMax; ++i) {
    all.mutable_upsert()->add_functions()->set_name(absl::StrCat("a/f", i));
  }
  all.set_last(true);
  Model full;
  ASSERT_TRUE(full.Apply(all).ok());
  api::Program come;
  come.mutable_upsert()->add_functions()->set_name("a/new");
  api::Program go;
  go.add_delete_functions("a/f0");
  go.set_last(true);
  Model moved = full;
  EXPECT_TRUE(moved.Apply(come).ok());
  EXPECT_TRUE(moved.Apply(go).ok());
  EXPECT_EQ(moved.functions().size(), kModelEntriesMax);
  come.set_last(true);
  EXPECT_TRUE(absl::IsResourceExhausted(full.Apply(come)));
}

TEST(ModelTest, ARuleMoreCopiesNotTheOthers) {
  Model before;
  for (int part = 0; part < 3; ++part) {
    api::Program rules;
    for (int i = 0; i < 500; ++i) {
      api::Allow& rule = *rules.mutable_upsert()->add_allow();
      rule.set_from(absl::StrCat("a", part, "/f", i));
      rule.set_to("b/*");
    }
    ASSERT_TRUE(before.Apply(rules).ok());
  }
  Model after = before;
  api::Program one;
  for (const char* const from : {"z/*", "a0/f1"}) {  // The second is known.
    one.mutable_upsert()->add_allow()->set_from(from);
    one.mutable_upsert()->mutable_allow()->rbegin()->set_to("b/*");
  }
  one.add_delete_allow()->set_from("a2/f7");
  one.mutable_delete_allow(0)->set_to("b/*");
  ASSERT_TRUE(after.Apply(one).ok());
  EXPECT_EQ(before.allow().size(), 1'500u);
  EXPECT_EQ(after.allow().size(), 1'500u);
  EXPECT_EQ(&*before.allow().begin(), &*after.allow().begin());
  EXPECT_TRUE(after.Allows("z/g", "b/f"));
  EXPECT_FALSE(after.Allows("a2/f7", "b/f"));
  EXPECT_TRUE(before.Allows("a2/f7", "b/f"));
  const std::optional<api::Program> delta = after.DeltaFrom(before, 2);
  ASSERT_TRUE(delta.has_value());
  EXPECT_EQ(delta->upsert().allow_size(), 1);
  EXPECT_EQ(delta->delete_allow_size(), 1);
}

// The same things done to a CowMap and to a std::map; copies keep what they had, and a difference tells
// exactly what changed.
TEST(CowMapTest, DoesWhatAMapDoesAndTellsWhatChanged) {
  Random random(7);
  CowMap<int, int> map;
  std::map<int, int> model;
  for (int round = 0; round < 300; ++round) {
    const CowMap<int, int> before = map;
    const std::map<int, int> model_before = model;
    std::set<int> touched;
    const uint64_t steps = round % 3 == 0 ? 1'000 : 3;
    for (uint64_t i = 0; i < steps; ++i) {
      const auto key = static_cast<int>(random.Below(3'000));
      touched.insert(key);
      if (random.Below(3) == 0) {
        map.Erase(key);
        model.erase(key);
      } else {
        map.Put(key, round);
        model[key] = round;
      }
    }
    ASSERT_EQ(map.size(), model.size());
    ASSERT_TRUE(std::equal(map.begin(), map.end(), model.begin(), model.end()));
    ASSERT_TRUE(std::equal(before.begin(), before.end(), model_before.begin(), model_before.end()));
    const auto key = static_cast<int>(random.Below(3'000));
    const auto at = model.lower_bound(key);
    ASSERT_EQ(map.lower_bound(key) == map.end(), at == model.end());
    if (at != model.end()) {
      ASSERT_EQ(map.lower_bound(key)->first, at->first);
    }
    std::map<int, int> applied = model_before;
    std::size_t visits = 0;
    CowMap<int, int>::EachDifference(before, map, [&](int changed, const int* old, const int* now) {
      ++visits;
      ASSERT_TRUE(touched.contains(changed));
      ASSERT_EQ(old != nullptr, model_before.contains(changed));
      if (now != nullptr) {
        applied[changed] = *now;
      } else {
        applied.erase(changed);
      }
    });
    ASSERT_EQ(applied, model);
    ASSERT_LE(visits, touched.size());
  }
}

}  // namespace
}  // namespace weft::agent
