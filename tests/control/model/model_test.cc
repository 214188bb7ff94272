// SPDX-License-Identifier: Apache-2.0
#include "control/model/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/control/model/mesh_builder.h"

namespace weft::control {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

MeshBuilder Base(const std::string& origin) { return MeshBuilder(origin).Node("n1").Function("v/f"); }

class ModelTest : public testing::Test {
 protected:
  void Accept(const SourceMesh& mesh) {
    model_.Offer(mesh);
    ASSERT_THAT(model_.Evaluate().errors, IsEmpty());
  }
  bool Has(const std::string& host) { return model_.state().Contains(EndpointKey("v/f", "n1", host)); }

  Model model_;
};

TEST_F(ModelTest, AnUnreadableSourceKeepsItsLastGoodState) {
  Accept(Base("a").Endpoint("v/f", "n1", "h").Build());
  model_.OfferUnreadable("a", {"a:1:1: not YAML"});
  EXPECT_FALSE(model_.Evaluate().changed());
  EXPECT_TRUE(Has("h"));
  const std::vector<SourceStatus> sources = model_.Sources();
  ASSERT_EQ(sources.size(), 1u);
  EXPECT_TRUE(sources[0].accepted);
  EXPECT_FALSE(sources[0].current);
  EXPECT_THAT(sources[0].errors, ElementsAre("a:1:1: not YAML"));
}

TEST_F(ModelTest, ASourceThatSaysNothingDeletesNothing) {
  Accept(Base("a").Endpoint("v/f", "n1", "h").Build());
  model_.Offer(MeshBuilder("a").Build());
  const Model::Outcome outcome = model_.Evaluate();
  EXPECT_FALSE(outcome.changed());
  ASSERT_EQ(outcome.errors.size(), 1u);
  EXPECT_THAT(outcome.errors[0],
              HasSubstr("a: names no endpoint any more and would take away all of its 1 endpoints"));
  EXPECT_TRUE(Has("h"));
}

TEST_F(ModelTest, WhatAListMayNotTakeAwayTheNextEventDoesNotEither) {
  Accept(Base("k").Endpoint("v/f", "n1", "h").Build());
  model_.Offer(MeshBuilder("k").Build());
  EXPECT_FALSE(model_.Evaluate().changed());
  SourceOffer event = OfferOf(MeshBuilder("k").Node("n2").Build());
  event.whole = false;
  event.allow_shrink = true;  // As an event that deletes means it.
  model_.Offer(event);
  EXPECT_FALSE(model_.Evaluate().changed());
  EXPECT_TRUE(Has("h"));
  // Once there is an endpoint again, it is no accident.
  event.said = OfferOf(Base("k").Endpoint("v/f", "n1", "other").Build()).said;
  model_.Offer(event);
  EXPECT_TRUE(model_.Evaluate().changed());
  EXPECT_FALSE(Has("h"));
  EXPECT_TRUE(Has("other"));
}

TEST_F(ModelTest, WhatComesAndGoesWhileASourceIsHeldBackIsForgotten) {
  Accept(Base("k").Build());
  Accept(MeshBuilder("other").Node("n2").Build());
  SourceOffer come = OfferOf(MeshBuilder("k").Node("n2").Endpoint("v/f", "n1", "h").Build());
  come.whole = false;
  model_.Offer(come);
  EXPECT_FALSE(model_.Evaluate().errors.empty());
  SourceOffer go;
  go.origin = "k";
  go.whole = false;
  go.unsaid = come.said;
  model_.Offer(go);
  // Not: "would take away all of its 1 endpoints"
  EXPECT_THAT(model_.Evaluate().errors, IsEmpty());
  EXPECT_TRUE(model_.Sources().front().current);
}

TEST_F(ModelTest, ASourceCutBeforeItsEndpointsDeletesNothing) {
  Accept(Base("a").Endpoint("v/f", "n1", "h").Build());
  model_.Offer(Base("a").Build());
  EXPECT_FALSE(model_.Evaluate().changed());
  EXPECT_TRUE(Has("h"));
}

TEST_F(ModelTest, AFileThatTurnsEmptyAmongOthersDeletesNothing) {
  Accept(Base("a").Endpoint("v/f", "n1", "h1").Build());
  Accept(MeshBuilder("b").Endpoint("v/f", "n1", "h2").Build());
  model_.Offer(MeshBuilder("b").Build());
  const Model::Outcome outcome = model_.Evaluate();
  EXPECT_FALSE(outcome.changed());
  EXPECT_THAT(outcome.errors, ElementsAre(HasSubstr("b: names no endpoint any more")));
  EXPECT_TRUE(Has("h2"));
}

TEST_F(ModelTest, AllowShrinkDeletesWhatIsMeantToGo) {
  Accept(Base("a").Endpoint("v/f", "n1", "h").Build());
  Accept(MeshBuilder("a").AllowShrink().Build());
  EXPECT_TRUE(model_.state().empty());
}

TEST_F(ModelTest, OneOfSeveralEndpointsGoesWithoutQuestion) {
  Accept(Base("a").Endpoint("v/f", "n1", "h1").Endpoint("v/f", "n1", "h2").Build());
  Accept(Base("a").Endpoint("v/f", "n1", "h2").Build());
  EXPECT_FALSE(Has("h1"));
  EXPECT_TRUE(Has("h2"));
}

TEST_F(ModelTest, AFileAmongOthersMayGoTheLastMayNot) {
  Accept(Base("a").Endpoint("v/f", "n1", "h1").Build());
  Accept(MeshBuilder("b").Endpoint("v/f", "n1", "h2").Build());
  model_.Withdraw("b");
  EXPECT_TRUE(model_.Evaluate().changed());
  EXPECT_FALSE(Has("h2"));
  model_.Withdraw("a");
  const Model::Outcome outcome = model_.Evaluate();
  EXPECT_FALSE(outcome.changed());
  EXPECT_THAT(outcome.errors,
              ElementsAre(HasSubstr("a: is gone and would take away all of its 1 endpoints")));
  EXPECT_TRUE(Has("h1"));
}

TEST_F(ModelTest, AFlagLetsTheLastFileGo) {
  Model model(true);
  model.Offer(Base("a").Endpoint("v/f", "n1", "h1").Build());
  model.Evaluate();
  model.Withdraw("a");
  EXPECT_TRUE(model.Evaluate().changed());
  EXPECT_TRUE(model.state().empty());
}

TEST_F(ModelTest, AFileThatOthersReferToMayNotGo) {
  Accept(Base("a").Build());
  Accept(MeshBuilder("b").Endpoint("v/f", "n1", "h").Build());
  model_.Withdraw("a");
  const Model::Outcome outcome = model_.Evaluate();
  EXPECT_FALSE(outcome.changed());
  EXPECT_THAT(outcome.errors, testing::Contains(HasSubstr("unknown function \"v/f\"")));
}

TEST_F(ModelTest, AnEndpointMovesFromOneFileToAnotherInTwoEdits) {
  Accept(Base("a").Endpoint("v/f", "n1", "h1").Endpoint("v/f", "n1", "h2").Build());
  model_.Offer(MeshBuilder("b").Endpoint("v/f", "n1", "h2").Build());
  EXPECT_THAT(model_.Evaluate().errors, ElementsAre(HasSubstr("duplicate endpoint")));
  // The edit of the other file brings the first one in, too.
  model_.Offer(Base("a").Endpoint("v/f", "n1", "h1").Build());
  const Model::Outcome outcome = model_.Evaluate();
  EXPECT_THAT(outcome.errors, IsEmpty());
  EXPECT_TRUE(Has("h1") && Has("h2"));
  for (const SourceStatus& source : model_.Sources()) EXPECT_TRUE(source.current) << source.origin;
}

TEST_F(ModelTest, OneBadFileHoldsUpNoOther) {
  Accept(Base("a").Endpoint("v/f", "n1", "h1").Build());
  model_.Offer(MeshBuilder("bad").Endpoint("v/unknown", "n1", "h").Build());
  model_.Offer(MeshBuilder("good").Endpoint("v/g", "n1", "h").Build());  // Needs `more`.
  model_.Offer(MeshBuilder("more").Function("v/g").Build());
  const Model::Outcome outcome = model_.Evaluate();
  EXPECT_TRUE(outcome.changed());
  EXPECT_THAT(outcome.errors,
              ElementsAre(HasSubstr("bad:1:1: endpoints[0]: unknown function \"v/unknown\"")));
  EXPECT_TRUE(model_.state().Contains(EndpointKey("v/g", "n1", "h")));
}

TEST_F(ModelTest, ARestoredStateStandsUntilItsSourceSpeaks) {
  EXPECT_TRUE(model_.Restore(
      {OfferOf(MeshBuilder("b").Endpoint("v/f", "n1", "h").Build()), OfferOf(Base("a").Build())}));
  EXPECT_TRUE(Has("h"));
  model_.OfferUnreadable("b", {"unreadable"});
  EXPECT_FALSE(model_.Evaluate().changed());
  Accept(MeshBuilder("b").Endpoint("v/f", "n1", "h2").Build());
  EXPECT_FALSE(Has("h"));
  EXPECT_TRUE(Has("h2"));
}

TEST_F(ModelTest, ARestoredStateThatContradictsItselfIsNotTaken) {
  EXPECT_FALSE(model_.Restore({OfferOf(MeshBuilder("b").Endpoint("v/f", "n1", "h").Build())}));
  EXPECT_TRUE(model_.state().empty());
}

TEST_F(ModelTest, TheSameContentIsNoChange) {
  Accept(Base("a").Endpoint("v/f", "n1", "h").Build());
  model_.Offer(Base("a").Endpoint("v/f", "n1", "h").Build());
  EXPECT_FALSE(model_.Evaluate().changed());
}

}  // namespace
}  // namespace weft::control
