// SPDX-License-Identifier: Apache-2.0
#include "control/model/who_said.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "control/model/model.h"
#include "tests/control/model/mesh_builder.h"

namespace weft::control {
namespace {

std::string TextOf(const std::vector<Saying>& sayings) {
  return absl::StrJoin(sayings, "\n", [](std::string* out, const Saying& saying) {
    absl::StrAppend(out, saying.thing, " = ", saying.said_by, saying.also_by.empty() ? "" : " / ",
                    saying.also_by);
  });
}

// The source that stands back comes first.
Model Sources() {
  SourceMesh live = MeshBuilder("etcd:/weft/").Node("n1").Endpoint("v/f", "n2", "h1").Build();
  for (auto& node : live.nodes) node = {node.value, {}, true};
  for (auto& endpoint : live.endpoints) endpoint = {endpoint.value, {}, true};
  SourceMesh file = MeshBuilder("m.yaml")
                        .Node("n1")
                        .Node("n2")
                        .Node("n3")
                        .Function("v/f")
                        .Function("v/g")
                        .Endpoint("v/f", "n1", "h1")
                        .Endpoint("v/g", "n3", "h1")
                        .Allow("a/*", "v/f")
                        .Allow("a/b", "v/*")
                        .Allow("a/c", "v/f")
                        .Build();
  Model model;
  live.open = true;
  model.Offer(live);
  model.Offer(file);
  model.Evaluate();
  return model;
}

TEST(WhoSaidTest, NothingIsSaidOfWhatNobodyNames) {
  EXPECT_EQ(TextOf(WhoSaid(Sources().claims(), "x/y", "w/f", 10)), "");
}

TEST(WhoSaidTest, EachThingHasItsSourceAndWhoStandsBack) {
  EXPECT_EQ(TextOf(WhoSaid(Sources().claims(), "a/b", "v/f", 10)),
            "function v/f = m.yaml:4\n"
            "endpoint n1/h1 = m.yaml:6\n"
            "endpoint n2/h1 = etcd:/weft/ (by the node itself)\n"
            "node n1 = m.yaml:1 / etcd:/weft/ (by the node itself)\n"
            "node n2 = m.yaml:2\n"
            "rule a/* to v/f = m.yaml:8\n"
            "rule a/b to v/* = m.yaml:9");
}

TEST(WhoSaidTest, ANamespaceCallsByItsRulesAlone) {
  EXPECT_EQ(TextOf(WhoSaid(Sources().claims(), "a", "v/g", 10)),
            "function v/g = m.yaml:5\nendpoint n3/h1 = m.yaml:7\nnode n3 = m.yaml:3");
}

TEST(WhoSaidTest, MoreThanTheLimitIsLeftOut) {
  EXPECT_EQ(WhoSaid(Sources().claims(), "a/b", "v/f", 1).size(), 4u);
}

}  // namespace
}  // namespace weft::control
