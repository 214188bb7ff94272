// SPDX-License-Identifier: Apache-2.0
// What is held back is large at times, and so is what happens meanwhile: an event costs what it says, as long
// as it has nothing to do with what is wrong. Work is counted in entries that were tried.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "control/model/model.h"
#include "tests/control/model/mesh_builder.h"

namespace weft::control {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr int kHeld = 2'000;
constexpr int kEvents = 500;

// A source whose objects come and go: a node, and functions f0 and so on with an endpoint each.
SourceMesh Cluster(int functions, bool endpoints = true) {
  MeshBuilder builder("k");
  builder.Node("n1");
  for (int i = 0; i < functions; ++i) {
    builder.Function(absl::StrCat("v/f", i));
    if (endpoints) builder.Endpoint(absl::StrCat("v/f", i), "n1", "h");
  }
  SourceMesh mesh = builder.Build();
  mesh.open = true;
  return mesh;
}

SourceOffer OfferSaying(SourceMesh mesh) {
  mesh.open = true;
  SourceOffer offer = OfferOf(mesh);
  offer.whole = false;
  offer.allow_shrink = true;
  return offer;
}
SourceOffer OfferUnsaying(SourceMesh mesh) {
  SourceOffer offer = OfferSaying(std::move(mesh));
  std::swap(offer.said, offer.unsaid);
  return offer;
}

class HeldBackTest : public testing::Test {
 protected:
  // Events of the cluster that have nothing to do with what is wrong, each seen as held back.
  void Stir() {
    for (int i = 0; i < kEvents; ++i) {
      const std::string function = absl::StrCat("v/more", i % 10);
      const SourceMesh one = MeshBuilder("k").Function(function).Build();
      model_.Offer(i % 20 < 10 ? OfferSaying(one) : OfferUnsaying(one));
      EXPECT_FALSE(model_.Evaluate().changed());
      EXPECT_FALSE(Of("k").current);
    }
  }
  // A file changes again and again, which has nothing to do with what is wrong with the cluster.
  void ExpectOthersPayForThemselves() {
    uint64_t before = 0;
    for (int i = 0; i <= kEvents; ++i) {
      if (i == 1) before = model_.entries_tried();  // Once they are tried together.
      model_.Offer(MeshBuilder("b").Function(absl::StrCat("w/b", i)).Build());
      EXPECT_TRUE(model_.Evaluate().changed());
    }
    // Each takes one back and says one.
    EXPECT_LE(model_.entries_tried() - before, uint64_t{2 * kEvents});
    EXPECT_FALSE(Of("k").current);
  }
  SourceStatus Of(const std::string& origin) {
    for (SourceStatus& status : model_.Sources()) {
      if (status.origin == origin) return status;
    }
    return {};
  }
  bool Has(const std::string& function) { return model_.state().Contains(FunctionKey(function)); }

  Model model_;
};

TEST_F(HeldBackTest, WhatClashesCostsEachEventItsOwnSize) {
  model_.Offer(MeshBuilder("a").Function("v/f7").Build());
  model_.Evaluate();
  model_.Offer(Cluster(kHeld));
  EXPECT_THAT(model_.Evaluate().errors, ElementsAre(HasSubstr("duplicate function")));
  const uint64_t before = model_.entries_tried();
  Stir();
  EXPECT_LE(model_.entries_tried() - before, uint64_t{kEvents});
  // What it says of the clash itself is looked at, and what it said meanwhile is in force with the rest.
  model_.Offer(OfferSaying(MeshBuilder("k").Function("v/last").Build()));
  EXPECT_FALSE(model_.Evaluate().changed());
  model_.Offer(OfferUnsaying(MeshBuilder("k").Function("v/f7").Build()));
  EXPECT_THAT(model_.Evaluate().errors, IsEmpty());
  EXPECT_TRUE(Of("k").current && Has("v/f8") && Has("v/last") && !Has("v/more0"));
}

TEST_F(HeldBackTest, AnotherSourceEndsIt) {
  model_.Offer(MeshBuilder("a").Function("v/f7").Build());
  model_.Offer(MeshBuilder("b").Function("w/x").Build());
  model_.Evaluate();
  model_.Offer(Cluster(kHeld));
  model_.Evaluate();
  uint64_t before = 0;
  for (int i = 0; i <= kEvents; ++i) {
    if (i == 1) before = model_.entries_tried();  // Once they are tried together.
    model_.Offer(MeshBuilder("b").Function(absl::StrCat("w/x", i)).Build());
    EXPECT_TRUE(model_.Evaluate().changed());
  }
  // Each takes one back and says one.
  EXPECT_LE(model_.entries_tried() - before, uint64_t{2 * kEvents});
  EXPECT_FALSE(Of("k").current);
  model_.Offer(MeshBuilder("a").Function("v/f").Build());
  EXPECT_THAT(model_.Evaluate().errors, IsEmpty());
  EXPECT_TRUE(Of("k").current);
}

TEST_F(HeldBackTest, WhatWouldTakeAwayAllCostsEachEventItsOwnSize) {
  model_.Offer(Cluster(kHeld));
  model_.Evaluate();
  model_.Offer(Cluster(1, /*endpoints=*/false));  // An older snapshot, say
  EXPECT_THAT(model_.Evaluate().errors, ElementsAre(HasSubstr("names no endpoint any more")));
  const uint64_t before = model_.entries_tried();
  Stir();
  EXPECT_LE(model_.entries_tried() - before, uint64_t{kEvents});
  // One endpoint, and it is a mesh again.
  model_.Offer(OfferSaying(MeshBuilder("k").Endpoint("v/f0", "n1", "h").Build()));
  EXPECT_THAT(model_.Evaluate().errors, IsEmpty());
  EXPECT_EQ(model_.state().count(EntryKind::kEndpoint), 1u);
  EXPECT_EQ(model_.state().count(EntryKind::kFunction), 1u);
}

TEST_F(HeldBackTest, WhatWouldTakeAwayAllCostsAnotherSourceItsOwnSize) {
  model_.Offer(Cluster(kHeld));
  model_.Evaluate();
  model_.Offer(Cluster(1, /*endpoints=*/false));
  model_.Evaluate();
  ExpectOthersPayForThemselves();
  // The two agree together: what the cluster names no more, another does.
  model_.Offer(MeshBuilder("p").Endpoint("v/f0", "n1", "h").Build());
  EXPECT_THAT(model_.Evaluate().errors, IsEmpty());
  EXPECT_TRUE(Of("k").current && Of("p").current);
  EXPECT_EQ(model_.state().count(EntryKind::kEndpoint), 1u);
}

TEST_F(HeldBackTest, WhatContradictsItselfCostsAnotherSourceItsOwnSize) {
  SourceMesh cluster = Cluster(kHeld);
  cluster.functions.push_back(cluster.functions.front());
  model_.Offer(cluster);
  EXPECT_THAT(model_.Evaluate().errors, ElementsAre(HasSubstr("duplicate function")));
  ExpectOthersPayForThemselves();
  model_.Offer(Cluster(kHeld));
  EXPECT_THAT(model_.Evaluate().errors, IsEmpty());
  EXPECT_TRUE(Of("k").current);
}

// Of two reasons one is mended: what is told is what is left.
TEST_F(HeldBackTest, TheReasonThatIsLeftIsTold) {
  model_.Offer(Cluster(kHeld));
  model_.Offer(MeshBuilder("a").Function("w/x").Build());
  model_.Evaluate();
  SourceMesh cluster = MeshBuilder("k").Node("n1").Function("w/x").Build();
  cluster.open = true;
  model_.Offer(cluster);
  EXPECT_THAT(model_.Evaluate().errors,
              ElementsAre(HasSubstr("duplicate function"), HasSubstr("names no endpoint any more")));
  model_.Offer(MeshBuilder("a").Function("w/y").Build());
  EXPECT_THAT(model_.Evaluate().errors, ElementsAre(HasSubstr("names no endpoint any more")));
  EXPECT_THAT(Of("k").errors, ElementsAre(HasSubstr("names no endpoint any more")));
  const uint64_t before = model_.entries_tried();
  Stir();
  EXPECT_LE(model_.entries_tried() - before, uint64_t{kEvents});
}

TEST_F(HeldBackTest, WhatAnotherSaysIsNotTakenAway) {
  model_.Offer(Cluster(3));
  model_.Evaluate();
  model_.Offer(Cluster(3, /*endpoints=*/false));
  EXPECT_FALSE(model_.Evaluate().errors.empty());
  // The same endpoint, implied: it stays whatever the cluster says.
  SourceMesh other = MeshBuilder("p").Endpoint("v/f0", "n1", "h").Build();
  other.open = true;
  other.endpoints[0].implied = true;
  model_.Offer(other);
  EXPECT_THAT(model_.Evaluate().errors, IsEmpty());
  EXPECT_TRUE(Of("k").current);
  EXPECT_EQ(model_.state().count(EntryKind::kEndpoint), 1u);
}

TEST_F(HeldBackTest, WhatAnotherSaysIsNotTakenAwayWhoeverElseIsHeldBack) {
  model_.Offer(Cluster(3));
  model_.Offer(MeshBuilder("y").Function("q/q").Build());
  model_.Evaluate();
  model_.Offer(Cluster(3, /*endpoints=*/false));
  model_.Offer(MeshBuilder("x").Function("q/q").Build());
  EXPECT_FALSE(model_.Evaluate().errors.empty());
  SourceMesh other = MeshBuilder("p").Endpoint("v/f0", "n1", "h").Build();
  other.open = true;
  other.endpoints[0].implied = true;
  model_.Offer(other);
  EXPECT_THAT(model_.Evaluate().errors, ElementsAre(HasSubstr("duplicate function")));
  EXPECT_TRUE(Of("k").current && Of("p").current && !Of("x").current);
  EXPECT_EQ(model_.state().count(EntryKind::kEndpoint), 1u);
}

TEST_F(HeldBackTest, TwoThatAgreeOnlyTogetherAreTakenTogether) {
  model_.Offer(MeshBuilder("a").Node("n1").Function("v/f").Endpoint("v/f", "n1", "h").Build());
  model_.Offer(MeshBuilder("b").Function("w/x").Build());
  model_.Evaluate();
  model_.Offer(MeshBuilder("b").Function("w/x").Function("v/f").Build());
  EXPECT_FALSE(model_.Evaluate().errors.empty());
  model_.Offer(MeshBuilder("c").Function("w/x").Build());
  EXPECT_FALSE(model_.Evaluate().errors.empty());
  // Without b the endpoint would have no function, and b says it only instead of a and c.
  model_.Offer(MeshBuilder("a").Node("n1").Endpoint("v/f", "n1", "h").Build());
  model_.Offer(MeshBuilder("c").Function("w/y").Build());
  EXPECT_THAT(model_.Evaluate().errors, IsEmpty());
  EXPECT_TRUE(Has("v/f") && Has("w/x") && Has("w/y"));
}

// What ends it for all of them may be an event of one that is held back itself.
TEST_F(HeldBackTest, AnEventOfOneMayMakeThemAgreeTogether) {
  model_.Offer(MeshBuilder("a").Node("n1").Function("v/f").Endpoint("v/f", "n1", "h").Build());
  model_.Offer(MeshBuilder("c").Function("z/z").Build());
  SourceMesh cluster = MeshBuilder("k").Function("w/x").Build();
  cluster.open = true;
  model_.Offer(cluster);
  EXPECT_THAT(model_.Evaluate().errors, IsEmpty());
  model_.Offer(OfferSaying(MeshBuilder("k").Function("z/z").Build()));
  model_.Offer(MeshBuilder("b").Function("w/x").Function("v/f").Build());
  model_.Offer(MeshBuilder("a").Node("n1").Endpoint("v/f", "n1", "h").Build());
  EXPECT_FALSE(model_.Evaluate().errors.empty());
  EXPECT_FALSE(Of("a").current || Of("b").current || Of("k").current);
  model_.Offer(OfferUnsaying(MeshBuilder("k").Function("z/z").Function("w/x").Build()));
  EXPECT_THAT(model_.Evaluate().errors, IsEmpty());
  EXPECT_TRUE(Of("a").current && Of("b").current && Of("k").current);
}

}  // namespace
}  // namespace weft::control
