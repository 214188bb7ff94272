// SPDX-License-Identifier: Apache-2.0
// What routes of the Gateway API make of the mesh and of their conditions.
#include "control/source/kubernetes/kube_routes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "control/model/merge.h"
#include "dataplane/base/random.h"
#include "tests/control/source/kube_routes_fixture.h"

namespace weft::control {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;
using testing::UnorderedElementsAre;

TEST_F(KubeRoutesTest, WeightsSplitTheCallsOfAServiceOverTheEndpointsOfOthers) {
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("f1 100"));
  EXPECT_EQ(PutRoute({.rules = absl::StrCat("{", Backends("b=90,c=10"), "}")}), "");
  // 45 for each of the two against 10
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("b1 1000", "b2 1000", "c1 222"));
  EXPECT_TRUE(AnyLocality("v/f"));
  EXPECT_THAT(EndpointsOf("v/b"), ElementsAre("b1 100", "b2 100"));  // A backend is still what it was.
  EXPECT_FALSE(AnyLocality("v/b"));
  EXPECT_THAT(Conditions(), ElementsAre("Accepted True Accepted", "ResolvedRefs True ResolvedRefs"));
  // Its own Service may be one of them, and no weight is 1.
  PutRoute({.rules = absl::StrCat("{", Backends("f,c"), "}")});
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("c1 1000", "f1 1000"));
  // 0 is none; with one left, the nearest are called again.
  PutRoute({.rules = absl::StrCat("{", Backends("b=5,c=0"), "}")});
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("b1 1000", "b2 1000"));
  EXPECT_FALSE(AnyLocality("v/f"));
  // GRPCRoutes do the same; the policy of the function is kept.
  Put(KubeKind::kPolicy, R"({"metadata":{"namespace":"v","name":"f"},"spec":{"idempotent":true}})");
  Put(KubeKind::kHttpRoute, RouteJson({}), "DELETED");
  PutRoute({.rules = absl::StrCat("{", Backends("b=1,c=1"), "}")}, KubeKind::kGrpcRoute);
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("b1 500", "b2 500", "c1 1000"));
  EXPECT_TRUE(AnyLocality("v/f"));
  EXPECT_TRUE(PolicyOf("v/f").idempotent());
  Put(KubeKind::kGrpcRoute, RouteJson({}), "DELETED");
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("f1 100"));
}

TEST_F(KubeRoutesTest, PodsThatComeDrainAndStandBehindSeveralKeepTheShares) {
  PutRoute({.rules = absl::StrCat("{", Backends("b=90,c=10"), "}")});
  PutPods("b", {"b1", "b2", "b3"});
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("b1 1000", "b2 1000", "b3 1000", "c1 333"));
  PutPods("b", {"b1", "b2-", "b3"});
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("b1 1000", "b2 1", "b3 1000", "c1 222"));
  PutPods("b", {"b1-", "b2-"});
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("b1 1000", "b2 1000", "c1 222"));
  PutPods("c", {"b1"});
  PutPods("b", {"b1", "b2"});
  // 45 and 10 against 45: the one with most gets the most that there is.
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("b1 1000", "b2 818"));
  // The part that fails keeps its share, too.
  PutRoute({.rules = absl::StrCat("{", Backends("b=40,c=40,missing=20"), "}")});
  PutPods("b", {"b1"});
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("b1 1000", StartsWith("250: ")));
}

TEST_F(KubeRoutesTest, ABackendThatIsNotToBeHadSaysWhy) {
  const std::string refs =
      R"("backendRefs":[{"name":"b","port":4811},{"name":"gone"},{"name":"b","port":1},{"name":"b","port":9090},)"
      R"({"name":"x","group":"g.example","kind":"Bucket"},{"name":"b","namespace":"w"},{"name":"empty"}])";
  PutService("empty");
  PutRoute({.rules = absl::StrCat("{", refs, "}")});
  EXPECT_THAT(
      EndpointsOf("v/f"),
      UnorderedElementsAre(
          "b1 500", "b2 500", "1000: httproutes v/r: rules[0].backendRefs[1]: there is no Service v/gone",
          "1000: httproutes v/r: rules[0].backendRefs[2]: Service v/b has no TCP port 1",
          "1000: httproutes v/r: rules[0].backendRefs[3]: port 9090 of Service v/b is not the one that "
          "functions are called at",
          "1000: httproutes v/r: rules[0].backendRefs[4]: a g.example/Bucket is no Service of the core group",
          "1000: httproutes v/r: rules[0].backendRefs[5]: no ReferenceGrant of namespace w lets a route of v "
          "refer to Service b",
          "1000: httproutes v/r: Service v/empty has no endpoint"));
  ASSERT_EQ(Conditions().size(), 2u);
  EXPECT_THAT(Conditions()[1], StartsWith("ResolvedRefs False BackendNotFound: rules[0].backendRefs[1]: "));
  // Its share is that of its weight, beside what pods have.
  PutRoute({.rules = absl::StrCat("{", Backends("b=90,gone=10"), "}")});
  EXPECT_THAT(EndpointsOf("v/f"),
              UnorderedElementsAre("222: httproutes v/r: rules[0].backendRefs[1]: there is no Service v/gone",
                                   "b1 1000", "b2 1000"));
  EXPECT_TRUE(AnyLocality("v/f"));
  PutRoute({.rules = absl::StrCat("{", Backends("b=1,gone=0"), "}")});
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("b1 1000", "b2 1000"));
  // None at all
  PutRoute({.rules = R"({"backendRefs":[{"name":"b","namespace":"w"}]})"});
  EXPECT_THAT(Conditions()[1], StartsWith("ResolvedRefs False RefNotPermitted"));
  PutRoute({.rules = R"({"backendRefs":[{"name":"b","kind":"Bucket"}]})"});
  EXPECT_THAT(Conditions()[1], StartsWith("ResolvedRefs False InvalidKind"));
  PutRoute({.rules = R"({"backendRefs":[{"name":"b","port":9090}]})"});
  EXPECT_THAT(Conditions()[1], StartsWith("ResolvedRefs False UnsupportedProtocol"));
  for (const std::string& rule : {std::string("{}"), absl::StrCat("{", Backends("b=0"), "}")}) {
    PutRoute({.rules = rule});
    EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("100: httproutes v/r: names no backend with a weight"));
  }
}

TEST_F(KubeRoutesTest, AnotherNamespaceIsReferredToByItsGrantOnly) {
  PutService("b", "w");
  PutPods("b", {"w1"}, "w");
  PutRoute({.rules = R"({"backendRefs":[{"name":"b","namespace":"w","port":4811}]})"});
  const auto grant = [this](const std::string& from, const std::string& to, const std::string& ns = "w") {
    return Put(KubeKind::kGrant,
               absl::StrCat(R"({"metadata":{"namespace":")", ns, R"(","name":"g"},"spec":{"from":[)", from,
                            R"(],"to":[)", to, "]}}"));
  };
  const std::string from = R"({"group":"gateway.networking.k8s.io","kind":"HTTPRoute","namespace":"v"})";
  const std::string all = R"({"group":"","kind":"Service"})";
  for (const auto& [who, what] : std::vector<std::pair<std::string, std::string>>{
           {absl::StrReplaceAll(from, {{"HTTPRoute", "GRPCRoute"}}), all},
           {absl::StrReplaceAll(from, {{R"("v")", R"("u")"}}), all},
           {absl::StrReplaceAll(from, {{"gateway.networking.k8s.io", ""}}), all},
           {from, R"({"group":"","kind":"Secret"})"},
           {from, R"({"group":"","kind":"Service","name":"other"})"}}) {
    EXPECT_EQ(grant(who, what), "");
    EXPECT_THAT(EndpointsOf("v/f"), ElementsAre(HasSubstr("no ReferenceGrant"))) << who << what;
  }
  EXPECT_EQ(grant(from, R"({"group":"","kind":"Service","name":"b"})"), "");
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("w1 1000"));
  EXPECT_EQ(grant(from, all), "");
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("w1 1000"));
  EXPECT_NE(grant("7", all), "");  // What it was stays.
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("w1 1000"));
  Put(KubeKind::kGrant, R"({"metadata":{"namespace":"w","name":"g"},"spec":{}})", "DELETED");
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre(HasSubstr("no ReferenceGrant")));
}

TEST_F(KubeRoutesTest, WhatIsNotForAllCallsIsDroppedAndNamed) {
  const std::string backends = Backends("b");
  const struct {
    std::string rule;
    std::string dropped;  // Empty: taken
  } kCases[] = {
      {absl::StrCat("{", backends, "}"), ""},
      {absl::StrCat(R"({"name":"main","matches":[],"filters":[],"timeouts":null,)", backends, "}"), ""},
      {absl::StrCat(R"({"matches":[{"path":{"type":"PathPrefix","value":"/"}}],)", backends, "}"), ""},
      {absl::StrCat(R"({"matches":[{"path":{"type":"Exact","value":"/a"}},{}],)", backends, "}"), ""},
      {absl::StrCat(R"({"matches":[{"path":{"type":"Exact","value":"/"}}],)", backends, "}"),
       "rules[0].matches[0].path"},
      {absl::StrCat(R"({"matches":[{"path":{"value":"/a"}}],)", backends, "}"), "rules[0].matches[0].path"},
      {absl::StrCat(R"({"matches":[{"headers":[{"name":"a","value":"b"}]}],)", backends, "}"),
       "rules[0].matches[0].headers"},
      {absl::StrCat(R"({"matches":[{"method":"GET"}],)", backends, "}"), "rules[0].matches[0].method"},
      {absl::StrCat(R"({"matches":[{"method":{"service":"s"}}],)", backends, "}"),
       "rules[0].matches[0].method"},
      {absl::StrCat(R"({"matches":[{"queryParams":[{"name":"a"}]}],)", backends, "}"),
       "rules[0].matches[0].queryParams"},
      {absl::StrCat(R"({"filters":[{"type":"URLRewrite"}],)", backends, "}"), "rules[0].filters"},
      {absl::StrCat(R"({"timeouts":{"request":"1s"},)", backends, "}"), ""},
      {absl::StrCat(R"({"timeouts":{"request":"0s"},)", backends, "}"), "rules[0].timeouts.request of 0s"},
      {absl::StrCat(R"({"timeouts":{"request":"2h"},)", backends, "}"), "rules[0].timeouts.request of 2h"},
      {absl::StrCat(R"({"timeouts":{"request":"1s","backendRequest":"1s"},)", backends, "}"),
       "rules[0].timeouts.backendRequest"},
      {absl::StrCat(R"({"somethingNew":7,)", backends, "}"), "rules[0].somethingNew"},
      {R"({"backendRefs":[{"name":"b","filters":[{"type":"RequestMirror"}]}]})",
       "rules[0].backendRefs[0].filters"},
  };
  for (const auto& each : kCases) {
    SCOPED_TRACE(each.rule);
    EXPECT_EQ(PutRoute({.rules = each.rule}), "");
    if (each.dropped.empty()) {
      EXPECT_THAT(Conditions(), ElementsAre("Accepted True Accepted", "ResolvedRefs True ResolvedRefs"));
      EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("b1 1000", "b2 1000"));
      continue;
    }
    EXPECT_THAT(Conditions(),
                ElementsAre(absl::StrCat("Accepted False UnsupportedValue: weft cannot do ", each.dropped),
                            "ResolvedRefs True ResolvedRefs"));
    EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("f1 100"));  // As without the route
  }
  // Beside a rule for all calls only the one goes; a second one for all is never reached.
  PutRoute(
      {.rules = absl::StrCat(R"({"matches":[{"method":"GET"}]},{)", backends, "},{", Backends("c"), "}")});
  EXPECT_THAT(Conditions(),
              ElementsAre("Accepted True Accepted: the first rule is for all calls: no later one counts",
                          "PartiallyInvalid True UnsupportedValue: Dropped Rule: weft cannot do "
                          "rules[0].matches[0].method",
                          "ResolvedRefs True ResolvedRefs"));
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("b1 1000", "b2 1000"));
  PutRoute({.rules = ""});
  EXPECT_THAT(Conditions().at(0), "Accepted False UnsupportedValue: it has no rule");
}

TEST_F(KubeRoutesTest, TheTimeoutOfARequestIsThatOfTheFunctionsCalls) {
  Put(KubeKind::kPolicy,
      R"({"metadata":{"namespace":"v","name":"f"},"spec":{"timeout":"2s","idempotent":true}})");
  const auto put = [this](const std::string& timeouts) {
    return PutRoute({.rules = absl::StrCat("{", timeouts, Backends("b"), "}")});
  };
  put("");
  EXPECT_EQ(PolicyOf("v/f").timeout_ns(), 2'000'000'000u);
  put(R"("timeouts":{"request":"1m250ms"},)");
  EXPECT_EQ(PolicyOf("v/f").timeout_ns(), 60'250'000'000u);
  EXPECT_TRUE(PolicyOf("v/f").idempotent());
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("b1 1000", "b2 1000"));
  for (const char* bad : {R"("soon")", R"("-1s")", "7"}) {
    EXPECT_THAT(put(absl::StrCat(R"("timeouts":{"request":)", bad, "},")), StartsWith("spec.rules[0]: "));
  }
  EXPECT_EQ(PolicyOf("v/f").timeout_ns(), 60'250'000'000u);
  // Of a rule that does not count nothing does.
  PutRoute(
      {.rules = absl::StrCat("{", Backends("b"), R"(},{"timeouts":{"request":"1s"},)", Backends("c"), "}")});
  EXPECT_EQ(PolicyOf("v/f").timeout_ns(), 2'000'000'000u);
}

TEST_F(KubeRoutesTest, AParentIsAServiceOfItsNamespaceAtTheFunctionsPort) {
  const std::string rules = absl::StrCat("{", Backends("c"), "}");
  Put(KubeKind::kService, R"({"metadata":{"namespace":"v","name":"away"},"spec":{"type":"ExternalName"}})");
  const struct {
    std::string parent;
    std::string condition;
  } kCases[] = {
      {R"({"group":"","kind":"Service","name":"f","port":4811})", "Accepted True Accepted"},
      {R"({"group":"","kind":"Service","name":"f","namespace":"v","sectionName":"w"})",
       "Accepted True Accepted"},
      {R"({"group":"","kind":"Service","name":"f","port":9090})",
       "Accepted False NoMatchingParent: port 9090 is not the one that functions are called at"},
      {R"({"group":"","kind":"Service","name":"f","sectionName":"metrics"})",
       "Accepted False NoMatchingParent: port 9090 is not the one that functions are called at"},
      {R"({"group":"","kind":"Service","name":"f","sectionName":"w","port":9090})",
       "Accepted False NoMatchingParent: the Service has no such TCP port"},
      {R"({"group":"","kind":"Service","name":"gone"})",
       "Accepted False NoMatchingParent: there is no Service v/gone"},
      {R"({"group":"","kind":"Service","name":"away"})",
       "Accepted False NoMatchingParent: there is no Service v/away"},
  };
  for (const auto& each : kCases) {
    PutRoute({.parents = each.parent, .rules = rules});
    ASSERT_FALSE(Conditions().empty()) << each.parent;
    EXPECT_EQ(Conditions()[0], each.condition) << each.parent;
    const bool taken = each.condition.find("Accepted True") == 0;
    EXPECT_THAT(EndpointsOf("v/f"), ElementsAre(taken ? "c1 1000" : "f1 100")) << each.parent;
  }
  // A consumer's route, for the callers of its own namespace alone
  PutRoute({.parents = "", .rules = rules});
  PutRoute(
      {.ns = "w", .parents = R"({"group":"","kind":"Service","name":"f","namespace":"v"})", .rules = rules});
  EXPECT_THAT(Conditions("w/r").at(0),
              StartsWith("Accepted False UnsupportedValue: Service v/f is of another "));
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("f1 100"));
  // Gateways are not ours.
  PutRoute({.parents = R"({"name":"f"},{"group":"x","kind":"Service","name":"f"})", .rules = rules});
  EXPECT_THAT(Conditions(), IsEmpty());
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("f1 100"));
}

TEST_F(KubeRoutesTest, OfSeveralRoutesTheOldestCountsThenTheFirstByName) {
  const auto put = [this](const std::string& name, const std::string& day, const std::string& backend,
                          KubeKind kind = KubeKind::kHttpRoute) {
    PutRoute({.name = name,
              .created = absl::StrCat("2026-11-", day, "T00:00:00Z"),
              .rules = absl::StrCat("{", Backends(backend), "}")},
             kind);
  };
  put("z", "01", "c");
  put("a", "02", "b");
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("c1 1000"));
  EXPECT_THAT(Conditions("v/z").at(0), "Accepted True Accepted");
  EXPECT_THAT(Conditions("v/a").at(0),
              "Accepted True Accepted: httproutes v/z, which comes first, says where all calls of v/f go");
  put("a", "01", "b");
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("b1 1000", "b2 1000"));
  // A route that cannot be taken does not stand before the others.
  PutRoute(
      {.name = "0", .created = "2020-01-01T00:00:00Z", .rules = R"({"filters":[{"type":"URLRewrite"}]})"});
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("b1 1000", "b2 1000"));
  // Of two kinds one counts.
  put("new", "09", "f", KubeKind::kGrpcRoute);
  EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("f1 1000"));
  EXPECT_THAT(Conditions("v/a").at(0),
              "Accepted False Conflicted: grpcroutes v/new says where calls of v/f go");
}

TEST_F(KubeRoutesTest, WhatCannotBeReadLeavesWhatWasAndStopsNoOther) {
  PutRoute({.rules = absl::StrCat("{", Backends("c"), "}")});
  for (const char* bad :
       {R"({"backendRefs":[{"name":"b","weight":-1}]})", R"({"backendRefs":[{"name":"b","weight":1000001}]})",
        R"({"backendRefs":[{"name":"b","weight":"1"}]})", R"({"backendRefs":[{"name":"B_"}]})",
        R"({"backendRefs":{}})", R"({"backendRefs":[7]})", R"({"matches":7})", "7"}) {
    EXPECT_THAT(PutRoute({.rules = bad}), StartsWith("spec.rules[0]")) << bad;
    EXPECT_THAT(EndpointsOf("v/f"), ElementsAre("c1 1000")) << bad;
  }
  EXPECT_THAT(PutRoute({.parents = R"({"group":"","kind":"Service"})"}), StartsWith("spec.parentRefs[0]"));
  EXPECT_EQ(Put(KubeKind::kHttpRoute, R"({"metadata":{"namespace":"v","name":"r"}})"), "spec: is no object");
  EXPECT_EQ(state_.refused().size(), 1u);
  PutRoute({.name = "good",
            .parents = R"({"group":"","kind":"Service","name":"b"})",
            .rules = absl::StrCat("{", Backends("f"), "}")});
  EXPECT_THAT(EndpointsOf("v/b"), ElementsAre("f1 1000"));
}

TEST(ShareWeightsTest, SharesAreExactAsFarAsWholeNumbersGo) {
  using Backends = std::vector<std::pair<uint32_t, std::size_t>>;
  Random random(3);
  for (int round = 0; round < 2'000; ++round) {
    Backends backends(1 + random.Below(5));
    double weights = 0;
    for (auto& [weight, endpoints] : backends) {
      weight = 1 + static_cast<uint32_t>(random.Below(round % 2 == 0 ? 100 : 1'000'000));
      endpoints = 1 + random.Below(50);
      weights += weight;
    }
    const auto shares = ShareWeights(backends);
    double sum = 0;
    std::vector<double> sums;
    for (const std::vector<uint32_t>& share : shares) {
      sums.push_back(0);
      for (const uint32_t weight : share) {
        ASSERT_LE(weight, 1'000u);
        sums.back() += weight;
      }
      ASSERT_GT(sums.back(), 0);
      sum += sums.back();
    }
    // Each sum is off by one at most, and one endpoint has 1,000.
    for (std::size_t i = 0; i < sums.size(); ++i) {
      EXPECT_NEAR(sums[i] / sum, backends[i].first / weights, 0.005) << round;
    }
  }
  // A share of a thousandth, on one of its ten
  EXPECT_THAT(ShareWeights(Backends{{999, 1}, {1, 3}}),
              ElementsAre(ElementsAre(1'000), ElementsAre(1, 0, 0)));
  EXPECT_THAT(ShareWeights(Backends{{1, 0}, {1, 1}}), ElementsAre(IsEmpty(), ElementsAre(1'000)));
}

}  // namespace
}  // namespace weft::control
