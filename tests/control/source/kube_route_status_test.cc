// SPDX-License-Identifier: Apache-2.0
// What is written back to a route of the Gateway API, beside what other controllers said of it.
#include "control/source/kubernetes/kube_route_status.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace weft::control {
namespace {

class RouteStatusTest : public testing::Test {
 protected:
  static KubeRoute Route(const std::string& parents) {
    KubeRoute route;
    route.generation = 3;
    route.version.assign(1, '9');
    route.status_parents = parents;
    return route;
  }
  static nlohmann::json ParentsOf(const std::optional<std::string>& patch) {
    EXPECT_TRUE(patch.has_value());
    if (!patch.has_value()) return {};
    const nlohmann::json json = nlohmann::json::parse(*patch);
    EXPECT_EQ(json["metadata"]["resourceVersion"], "9");
    return json["status"]["parents"];
  }
  const std::vector<KubeParentStatus> wanted_ = {
      {R"({"group":"","kind":"Service","name":"f"})", {{"Accepted", true, "Accepted", ""}}}};
  const std::string other_ = R"({"controllerName":"example.org/other","parentRef":{"name":"gateway"}})";
};

TEST_F(RouteStatusTest, SaysItOnceAndLeavesOthersInTheirPlace) {
  const nlohmann::json said =
      ParentsOf(RouteStatusPatch(Route(absl::StrCat("[", other_, "]")), wanted_, "2026-11-26T00:00:00Z"));
  ASSERT_EQ(said.size(), 2u);
  EXPECT_EQ(said[0], nlohmann::json::parse(other_));
  EXPECT_EQ(said[1]["controllerName"], "mesh.weft/control");
  EXPECT_EQ(said[1]["parentRef"]["name"], "f");
  EXPECT_EQ(said[1]["conditions"][0]["observedGeneration"], 3);
  EXPECT_EQ(RouteStatusPatch(Route(said.dump()), wanted_, "2026-11-27T00:00:00Z"), std::nullopt);
  // Wherever it stands
  const nlohmann::json turned = {said[1], said[0]};
  EXPECT_EQ(RouteStatusPatch(Route(turned.dump()), wanted_, "2026-11-27T00:00:00Z"), std::nullopt);
  // What turns has a new time, what does not keeps the old one, and what others add stays.
  nlohmann::json held = said;
  held[1]["conditions"].push_back({{"type", "Theirs"}, {"status", "True"}});
  std::vector<KubeParentStatus> wanted = wanted_;
  wanted[0].conditions = {{"Accepted", true, "Accepted", "news"}, {"ResolvedRefs", true, "ResolvedRefs", ""}};
  const nlohmann::json now = ParentsOf(RouteStatusPatch(Route(held.dump()), wanted, "2026-11-27T00:00:00Z"));
  ASSERT_EQ(now[1]["conditions"].size(), 3u);
  EXPECT_EQ(now[1]["conditions"][0]["lastTransitionTime"], "2026-11-26T00:00:00Z");
  EXPECT_EQ(now[1]["conditions"][0]["message"], "news");
  EXPECT_EQ(now[1]["conditions"][1]["lastTransitionTime"], "2026-11-27T00:00:00Z");
  EXPECT_EQ(now[1]["conditions"][2]["type"], "Theirs");
  // A parent that the route names no more goes, and nothing else.
  EXPECT_EQ(ParentsOf(RouteStatusPatch(Route(said.dump()), {}, "")), nlohmann::json::array({said[0]}));
  EXPECT_EQ(RouteStatusPatch(Route(absl::StrCat("[", other_, "]")), {}, ""), std::nullopt);
  EXPECT_EQ(RouteStatusPatch(Route(""), {}, ""), std::nullopt);
  for (const char* odd : {"[7]", R"([{"controllerName":7}])", R"([{"controllerName":"mesh.weft/control"}])",
                          R"([{"controllerName":"mesh.weft/control","conditions":7,"parentRef":{}}])", "7"}) {
    EXPECT_NE(RouteStatusPatch(Route(odd), wanted_, ""), std::nullopt) << odd;
  }
}

}  // namespace
}  // namespace weft::control
