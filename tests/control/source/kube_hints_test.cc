// SPDX-License-Identifier: Apache-2.0
// What becomes of the hints of EndpointSlices, good and malformed, without a server.
#include "control/source/kubernetes/kube_hints.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/control/source/kube_state_fixture.h"

namespace weft::control {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class KubeHintsTest : public KubeStateTest {
 protected:
  // "HOST[ ZONE…][ on NODE…]"
  std::vector<std::string> Hints() {
    std::vector<std::string> all;
    for (const auto& said : Mesh().endpoints) {
      api::Hints hints;
      EXPECT_TRUE(hints.ParseFromString(said.value.hints()));
      std::string& text = all.emplace_back(said.value.host());
      for (const std::string& zone : hints.zones()) absl::StrAppend(&text, " ", zone);
      for (const std::string& node : hints.nodes()) absl::StrAppend(&text, " on ", node);
    }
    return all;
  }
};

TEST_F(KubeHintsTest, HintsAreOfTheirEndpoint) {
  PutBasics();
  const std::string z1 = R"({"forZones":[{"name":"z1"}]})";
  const std::string slice = absl::StrJoin(
      {HintedJson("u1", z1), HintedJson("u2", R"({"forZones":[{"name":"z1"},{"name":"z2"}]})"),
       HintedJson("u3", R"({"forNodes":[{"name":"n2"}],"forZones":[{"name":"z1"}]})"),
       HintedJson("u4", "null"), HintedJson("u5", R"({"forPlanets":[{"name":"m"}]})"),
       HintedJson("u6", R"({"forZones":null})"), HintedJson("u7", z1), PodJson("u8", "10.1.0.8", "{}", "n2")},
      ",");
  EXPECT_EQ(PutSlice(SliceJson("f-1", "f", kWeftPort, slice)), "");
  EXPECT_THAT(Hints(), ElementsAre("u1 z1", "u2 z1 z2", "u3 z1 on n2", "u4", "u5", "u6", "u7 z1", "u8"));
  // Another hint is a change, one that goes as well.
  EXPECT_EQ(
      PutSlice(SliceJson("f-1", "f", kWeftPort,
                         HintedJson("u1", R"({"forZones":[{"name":"z2"}]})") + "," + HintedJson("u7", "{}"))),
      "");
  EXPECT_THAT(Hints(), ElementsAre("u1 z2", "u7"));
}

TEST_F(KubeHintsTest, AHintThatIsNoneIsNamedAndStopsNoOther) {
  PutBasics();
  const struct {
    const char* hints;
    const char* problem;
    const char* becomes;
  } kCases[] = {
      {"7", "endpoints[0]: hints: is no object", "u1"},
      {R"({"forZones":"z1"})", "endpoints[0]: hints.forZones: is no list", "u1"},
      {R"({"forZones":[7,{"name":"z2"}]})", "hints.forZones: zone \"\": must be", "u1 z2"},
      {R"({"forZones":[{"name":"z2"},{"name":"Z 3"}]})", "hints.forZones: zone \"Z 3\"", "u1 z2"},
      {R"({"forZones":[{"name":["z1"]}],"forNodes":[{"name":"n2"}]})", "hints.forZones: zone \"\"",
       "u1 on n2"},
      {R"({"forZones":[{"name":"z1"}],"forNodes":{"name":"n2"}})", "hints.forNodes: is no list", "u1 z1"},
  };
  for (const auto& each : kCases) {
    const std::string good = HintedJson("u2", R"({"forZones":[{"name":"z1"}]})");
    EXPECT_THAT(PutSlice(SliceJson("f-1", "f", kWeftPort, HintedJson("u1", each.hints) + "," + good)),
                HasSubstr(each.problem));
    EXPECT_THAT(Hints(), ElementsAre(each.becomes, "u2 z1")) << each.hints;
  }
}

TEST_F(KubeHintsTest, EqualHintsAreHeldOnce) {
  std::vector<std::string> pods;
  for (int i = 10; i < 60; ++i) {
    pods.push_back(
        HintedJson(absl::StrCat("u", i), absl::StrCat(R"({"forZones":[{"name":"z)", i % 3, "\"}]}")));
  }
  const auto event = ParseKubeEvent(
      KubeKind::kSlice, absl::StrCat(R"({"type":"ADDED","object":)",
                                     SliceJson("f-1", "f", kWeftPort, absl::StrJoin(pods, ",")), "}"));
  ASSERT_TRUE(event.ok()) << event.status();
  const auto& slice = std::get<KubeSlice>(*event->item.object);
  EXPECT_EQ(slice.endpoints.size(), 50u);
  EXPECT_EQ(slice.hints.size(), 3u);
}

TEST_F(KubeHintsTest, AHintForEachEndpointIsItsOwn) {
  PutBasics();
  std::vector<std::string> pods, wanted;
  for (int i = 10; i < 60; ++i) {
    const std::string uid = absl::StrCat("u", i);
    pods.push_back(HintedJson(uid, absl::StrCat(R"({"forNodes":[{"name":"n)", i / 2, "\"}]}")));
    wanted.push_back(absl::StrCat(uid, " on n", i / 2));
  }
  EXPECT_EQ(PutSlice(SliceJson("f-1", "f", kWeftPort, absl::StrJoin(pods, ","))), "");
  EXPECT_EQ(Hints(), wanted);
}

}  // namespace
}  // namespace weft::control
