// SPDX-License-Identifier: Apache-2.0
#include "control/model/merge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/control/model/mesh_builder.h"

namespace weft::control {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> ErrorsOf(const std::vector<SourceMesh>& meshes,
                                  const FunctionIdSource& id_of = FunctionIdOf) {
  std::vector<const SourceMesh*> sources;
  for (const SourceMesh& mesh : meshes) sources.push_back(&mesh);
  std::vector<std::string> lines;
  for (const MeshError& error : Merge(sources, id_of).errors) lines.push_back(error.ToString());
  return lines;
}

TEST(MergeTest, SourcesThatAgreeMakeOneMesh) {
  const SourceMesh a = MeshBuilder("a").Node("n1").Function("v/f").Build();
  const SourceMesh b = MeshBuilder("b").Endpoint("v/f", "n1", "h1").Allow("x/*", "v/f").Build();
  const SourceMesh* sources[] = {&a, &b};
  const Merged merged = Merge(sources);
  EXPECT_THAT(merged.errors, IsEmpty());
  EXPECT_EQ(merged.state.count(EntryKind::kNode), 1u);
  EXPECT_EQ(merged.state.count(EntryKind::kFunction), 1u);
  EXPECT_EQ(merged.state.count(EntryKind::kEndpoint), 1u);
  EXPECT_EQ(merged.state.count(EntryKind::kAllow), 1u);
}

TEST(MergeTest, DuplicatesAcrossSourcesNameBothPlaces) {
  EXPECT_THAT(
      ErrorsOf(
          {MeshBuilder("a").Node("n1").Function("v/f").Endpoint("v/f", "n1", "h").Allow("x/*", "v/*").Build(),
           MeshBuilder("b")
               .Node("n1")
               .Function("v/f")
               .Endpoint("v/f", "n1", "h")
               .Allow("x/*", "v/*")
               .Build()}),
      ElementsAre(
          "b:1:1: nodes[0]: duplicate node \"n1\", first at a:1",
          "b:2:1: functions[0]: duplicate function \"v/f\", first at a:2",
          "b:3:1: endpoints[0]: duplicate endpoint of \"v/f\" on host \"h\" of node \"n1\", first at a:3",
          "b:4:1: allow[0]: duplicate rule from \"x/*\" to \"v/*\", first at a:4"));
}

TEST(MergeTest, UnknownNodeAndFunctionAreNamed) {
  EXPECT_THAT(ErrorsOf({MeshBuilder("a").Endpoint("v/f", "n1", "h").Build()}),
              ElementsAre("a:1:1: endpoints[0]: unknown function \"v/f\": no `functions` entry names it",
                          "a:1:1: endpoints[0]: unknown node \"n1\": no `nodes` entry names it"));
}

TEST(MergeTest, ReferencesToWhatCouldNotBeReadAreNoFurtherErrors) {
  SourceMesh mesh = MeshBuilder("a").Endpoint("v/f", "n1", "h").Build();
  mesh.incomplete = true;
  EXPECT_THAT(ErrorsOf({mesh}), IsEmpty());
}

TEST(MergeTest, CollidingWireIdsAreRefused) {
  const auto same_id = [](absl::string_view name) { return FunctionId{name == "v/other" ? 2u : 1u}; };
  EXPECT_THAT(
      ErrorsOf({MeshBuilder("a").Function("v/f").Function("v/other").Function("v/g").Build()}, same_id),
      ElementsAre(
          "a:3:1: functions[2]: function \"v/g\" has the wire id of function \"v/f\": rename one of them"));
  const auto zero = [](absl::string_view) { return FunctionId{0}; };
  EXPECT_THAT(
      ErrorsOf({MeshBuilder("a").Function("v/f").Build()}, zero),
      ElementsAre(
          "a:1:1: functions[0]: function \"v/f\" has the wire id of no function: rename one of them"));
}

TEST(MergeTest, EndpointsOnTwoNodesAreTaken) {
  const SourceMesh mesh = MeshBuilder("a")
                              .Node("n1")
                              .Node("n2")
                              .Function("v/f")
                              .Endpoint("v/f", "n1", "h")
                              .Endpoint("v/f", "n2", "h")
                              .Build();
  const SourceMesh* const sources[] = {&mesh};
  const Merged merged = Merge(sources);
  EXPECT_TRUE(merged.errors.empty());
  EXPECT_EQ(merged.state.count(EntryKind::kEndpoint), 2u);
}

TEST(MergeTest, ErrorsAreBounded) {
  MeshBuilder builder("a");
  for (int i = 0; i < 100; ++i) builder.Node("n1");
  EXPECT_EQ(ErrorsOf({builder.Build()}).size(), kMergeErrorsMax);
}

}  // namespace
}  // namespace weft::control
