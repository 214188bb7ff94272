// SPDX-License-Identifier: Apache-2.0
// What a source is about to say is prepared beside the mesh: nothing of it is seen before it is said, and
// then the mesh is the one that it would have been without.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "control/model/model.h"
#include "dataplane/base/random.h"
#include "tests/control/model/mesh_builder.h"
#include "tests/control/model/typed_mesh.h"

namespace weft::control {
namespace {

using testing::IsEmpty;
using testing::SizeIs;

SourceMesh Open(MeshBuilder builder) {
  SourceMesh mesh = builder.Build();
  mesh.open = true;
  return mesh;
}
SourceMesh One() { return Open(MeshBuilder("k").Node("n1").Function("v/f").Endpoint("v/f", "n1", "h")); }
SourceOffer Difference(SourceOffer offer) {
  offer.whole = false;
  return offer;
}

class PrepareTest : public testing::Test {
 protected:
  void ExpectNothing() {
    EXPECT_FALSE(model_.Evaluate().changed());
    EXPECT_TRUE(model_.state().empty());
    EXPECT_THAT(model_.claims().origins(), IsEmpty());
    EXPECT_THAT(model_.Sources(), IsEmpty());
    EXPECT_THAT(model_.Accepted(), IsEmpty());
  }
  bool Has(const std::string& host) { return model_.state().Contains(EndpointKey("v/f", "n1", host)); }

  Model model_;
};

TEST_F(PrepareTest, NothingOfItIsSeenBeforeItIsSaid) {
  const SourceOffer first = OfferOf(One());
  model_.Prepare(first);
  ExpectNothing();
  const SourceOffer more = OfferOf(Open(MeshBuilder("k").Endpoint("v/f", "n1", "i")));
  model_.Prepare(Difference(more));
  ExpectNothing();
  SourceOffer all = first;
  all.said.push_back(more.said[0]);
  model_.Offer(all);
  const Model::Outcome outcome = model_.Evaluate();
  EXPECT_THAT(outcome.changes, SizeIs(4));
  EXPECT_THAT(outcome.errors, IsEmpty());
  EXPECT_EQ(model_.entries_tried(), 0u) << "it was made already";
  EXPECT_TRUE(Has("h") && Has("i"));
  ASSERT_THAT(model_.Sources(), SizeIs(1));
  EXPECT_TRUE(model_.Sources()[0].accepted && model_.Sources()[0].current);
  // What comes after is a difference to it.
  SourceOffer event;
  event.origin = "k";
  event.open = true;
  event.whole = false;
  event.unsaid.push_back(more.said[0]);
  model_.Offer(event);
  EXPECT_THAT(model_.Evaluate().changes, SizeIs(1));
  EXPECT_TRUE(Has("h") && !Has("i"));
}

TEST_F(PrepareTest, WhatIsSaidOtherwiseIsNotWhatWasPrepared) {
  const SourceOffer first = OfferOf(One());
  model_.Prepare(first);
  const SourceOffer other = OfferOf(Open(MeshBuilder("k").Node("n1").Endpoint("v/f", "n1", "i")));
  model_.Offer(other);
  EXPECT_TRUE(model_.Evaluate().changed());
  EXPECT_TRUE(Has("i") && !Has("h"));
  // It is forgotten, even if it is said now.
  model_.Prepare(Difference(other));
  model_.Offer(first);
  EXPECT_TRUE(model_.Evaluate().changed());
  EXPECT_TRUE(Has("h") && !Has("i"));
}

TEST_F(PrepareTest, AsMuchAsWasPreparedIsNotWhatWasPrepared) {
  model_.Prepare(OfferOf(One()));
  model_.Offer(Open(MeshBuilder("k").Node("n1").Function("v/f").Endpoint("v/f", "n1", "i")));
  EXPECT_THAT(model_.Evaluate().errors, IsEmpty());
  EXPECT_TRUE(Has("i") && !Has("h"));
}

TEST_F(PrepareTest, WhatIsSaidTwiceIsNotWhatWasPrepared) {
  SourceOffer offer = OfferOf(One());
  model_.Prepare(offer);
  offer.said[0] = offer.said[1];
  model_.Offer(offer);
  EXPECT_THAT(model_.Evaluate().errors, SizeIs(1));
  EXPECT_TRUE(model_.state().empty());
}

TEST_F(PrepareTest, AListThatBreaksOffAgainAndAgainLeavesOneMesh) {
  SourceOffer all = OfferOf(One());
  model_.Prepare(all);
  for (int i = 1; i <= 5'000; ++i) {
    SourceMesh again = Open(MeshBuilder("k").Endpoint("v/f", "n1", "h"));
    again.endpoints[0].value.set_weight(static_cast<uint32_t>(i));
    all.said[2] = OfferOf(again).said[0];
    SourceOffer difference = all;
    difference.whole = false;
    difference.said = {all.said[2]};
    model_.Prepare(difference);
  }
  model_.Offer(all);
  EXPECT_LT(model_.Evaluate().changes.size(), 1'500u);
  const EntryPtr endpoint = model_.state().Find(EndpointKey("v/f", "n1", "h"));
  ASSERT_NE(endpoint, nullptr);
  EXPECT_EQ(MessageOf<api::Endpoint>(*endpoint).weight(), 5'000u);
}

TEST_F(PrepareTest, BesideAnotherSourceItIsMergedAsEver) {
  for (const bool before : {false, true}) {
    Model model;
    SourceMesh file = MeshBuilder("a").Node("n1").Function("v/f").Endpoint("v/f", "n1", "x").Build();
    SourceMesh mesh = One();
    for (Said<api::Node>& node : mesh.nodes) node.implied = true;
    for (Said<api::Function>& function : mesh.functions) function.implied = true;
    const SourceOffer offer = OfferOf(mesh);
    if (!before) model.Prepare(offer);
    model.Offer(file);
    EXPECT_THAT(model.Evaluate().errors, IsEmpty());
    if (before) model.Prepare(offer);
    model.Offer(offer);
    const Model::Outcome outcome = model.Evaluate();
    EXPECT_THAT(outcome.errors, IsEmpty());
    EXPECT_THAT(outcome.changes, SizeIs(1));
    const SourceMesh* const all[] = {&file, &mesh};
    EXPECT_TRUE(Same(model.state(), Merge(all).state));
  }
}

TEST_F(PrepareTest, WhatIsWrongIsToldWhenItIsSaid) {
  SourceMesh mesh = One();
  mesh.open = false;
  mesh.endpoints[0].value.set_node("n9");
  const SourceOffer offer = OfferOf(mesh);
  model_.Prepare(offer);
  ExpectNothing();
  model_.Offer(offer);
  EXPECT_THAT(model_.Evaluate().errors, SizeIs(1));
  EXPECT_TRUE(model_.state().empty());
}

// What has changed so far is not moved for each bit of a list.
TEST(ClaimsTest, ChangesOfManyTriesAreMovedSeldom) {
  Claims claims;
  std::vector<EntryChange> changes;
  std::size_t moves = 0;
  for (int i = 0; i < 1'000; ++i) {
    claims.Begin();
    Claims::Origin* const origin = claims.Try("k", true, false);
    const EntryPtr entry = OfferOf(MeshBuilder("k").Node(absl::StrCat("n", i)).Build()).said[0];
    claims.Put(origin, entry, entry);
    ASSERT_THAT(claims.Check(), IsEmpty());
    const std::size_t room = changes.capacity();
    claims.Commit(&changes);
    moves += changes.capacity() != room ? 1 : 0;
  }
  EXPECT_THAT(changes, SizeIs(1'000));
  EXPECT_LE(moves, 11u);
}

// Prepared bit by bit, taken back in part, said at last: as if said at once.
TEST_F(PrepareTest, WhateverIsPreparedTheMeshIsTheOneSaidAtOnce) {
  Random random(5);
  for (int round = 0; round < 300; ++round) {
    std::map<std::string, EntryPtr> held;
    Model bit_by_bit;
    bool whole = true;
    for (uint64_t steps = 1 + random.Below(8); steps > 0; --steps) {
      SourceOffer offer;
      offer.origin = "k";
      offer.open = true;
      offer.whole = std::exchange(whole, false);
      offer.expected = random.Below(3) * 20;  // Whether it is right or not
      std::map<std::string, EntryPtr> changed;
      for (uint64_t i = random.Below(12); i > 0; --i) {
        const std::string a = absl::StrCat(random.Below(4)), b = absl::StrCat(random.Below(4));
        const bool endpoint = random.Below(3) != 0;
        MeshBuilder one("k");
        if (endpoint) one.Endpoint("v/f" + a, "n" + b, "h" + a);
        if (!endpoint && random.Below(2) == 0) one.Node("n" + b);
        if (!endpoint && one.Build().nodes.empty()) one.Function("v/f" + a);
        const EntryPtr entry = OfferOf(one.Build()).said.front();
        const EntryKey key = entry->key();
        const std::string name =
            absl::StrCat(static_cast<int>(key.kind), key.names[0], key.names[1], key.names[2]);
        if (changed.contains(name)) continue;
        const bool goes = held.contains(name) && random.Below(2) == 0;
        (goes ? offer.unsaid : offer.said).push_back(goes ? held[name] : entry);
        changed[name] = entry;
        if (goes) held.erase(name);
        if (!goes) held[name] = entry;
      }
      bit_by_bit.Prepare(offer);
    }
    SourceOffer all;
    all.origin = "k";
    all.open = true;
    for (const auto& [name, entry] : held) all.said.push_back(entry);
    Model at_once;
    at_once.Offer(all);
    EXPECT_THAT(at_once.Evaluate().errors, IsEmpty());
    bit_by_bit.Offer(all);
    const Model::Outcome outcome = bit_by_bit.Evaluate();
    ASSERT_TRUE(Same(bit_by_bit.state(), at_once.state())) << "round " << round;
    MeshState followed;  // By the changes alone
    for (const EntryChange& change : outcome.changes) {
      if (change.after != nullptr) followed.Put(change.after);
      if (change.after == nullptr) followed.Erase(change.before->key());
    }
    ASSERT_TRUE(Same(followed, at_once.state())) << "round " << round;
  }
}

}  // namespace
}  // namespace weft::control
