// SPDX-License-Identifier: Apache-2.0
// What a mesh is made of Kubernetes' objects, without a server: JSON in, mesh out; then the same JSON
// mutated.
#include "control/source/kubernetes/kube_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "control/model/merge.h"
#include "dataplane/base/random.h"
#include "tests/control/source/kube_state_fixture.h"

namespace weft::control {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

TEST_F(KubeStateTest, PodsOfWeftAreHostsAndOthersNeedTheGateway) {
  PutBasics();
  Put(KubeKind::kService, ServiceJson("web"));
  EXPECT_EQ(PutSlice(SliceJson("f-1", "f", kWeftPort, PodJson("u1", "10.1.0.1"))), "");
  EXPECT_EQ(PutSlice(SliceJson("web-1", "web", kHttpPort, PodJson("u2", "10.1.0.2", "{}", "n2"))), "");
  EXPECT_THAT(Endpoints(), ElementsAre("v/f n1 u1", "v/web n2 u2 10.1.0.2:8080"));
  const SourceMesh mesh = Mesh();
  ASSERT_EQ(mesh.nodes.size(), 2u);
  EXPECT_EQ(mesh.nodes[0].value.address(), "10.0.0.1:4810");
  EXPECT_EQ(mesh.nodes[0].value.zone(), "z1");
  EXPECT_EQ(mesh.functions.size(), 2u);
  // A Service that goes takes its endpoints along; without it they wait.
  Put(KubeKind::kService, ServiceJson("f"), "DELETED");
  EXPECT_THAT(Endpoints(), ElementsAre("v/web n2 u2 10.1.0.2:8080"));
}

TEST_F(KubeStateTest, ConditionsDecideBetweenReadyDrainingAndGone) {
  PutBasics();
  const struct {
    const char* conditions;
    const char* becomes;
  } kCases[] = {
      {"{}", ""},
      {"null", ""},
      {R"({"ready":null,"serving":null,"terminating":null})", ""},
      {R"({"ready":true})", ""},
      {R"({"ready":false})", "gone"},
      {R"({"ready":false,"serving":true,"terminating":false})", "gone"},
      {R"({"ready":false,"serving":true,"terminating":true})", " draining"},
      {R"({"ready":true,"terminating":true})", " draining"},
      {R"({"ready":false,"serving":false,"terminating":true})", "gone"},
      {R"({"ready":true,"whoKnows":"what"})", ""},
  };
  for (const auto& each : kCases) {
    EXPECT_EQ(PutSlice(SliceJson("f-1", "f", kWeftPort, PodJson("u1", "10.1.0.1", each.conditions))), "");
    if (each.becomes == std::string("gone")) {
      EXPECT_THAT(Endpoints(), IsEmpty()) << each.conditions;
    } else {
      EXPECT_THAT(Endpoints(), ElementsAre(absl::StrCat("v/f n1 u1", each.becomes))) << each.conditions;
    }
  }
}

TEST_F(KubeStateTest, SeveralSlicesOfAServiceAreOneAndAPodCountsOnce) {
  PutBasics();
  PutSlice(SliceJson("f-1", "f", kWeftPort, PodJson("u1", "10.1.0.1")));
  PutSlice(SliceJson(
      "f-2", "f", kWeftPort,
      PodJson("u2", "10.1.0.2") + "," + PodJson("u1", "10.1.0.1", R"({"ready":false,"terminating":true})")));
  PutSlice(SliceJson("f-6", "f", kWeftPort,
                     PodJson("u1", "fd00::1") + "," + PodJson("u2", "fd00::2", "{}", "n2"), "IPv6"));
  // u1 moves between slices: the ready one counts. u2 has two addresses and is one.
  EXPECT_THAT(Endpoints(), ElementsAre("v/f n1 u1", "v/f n1 u2"));
  PutSlice(SliceJson("f-1", "f", kWeftPort, ""));
  EXPECT_THAT(Endpoints(), ElementsAre("v/f n1 u1", "v/f n1 u2"));  // By the IPv6 slice
  Put(KubeKind::kSlice, SliceJson("f-6", "f", kWeftPort, "", "IPv6"), "DELETED");
  EXPECT_THAT(Endpoints(), ElementsAre("v/f n1 u1 draining", "v/f n1 u2"));
}

TEST_F(KubeStateTest, OfTwoFamiliesTheServicesFirstIsCalled) {
  PutBasics();
  for (const char* families : {R"(["IPv4","IPv6"])", R"(["IPv6","IPv4"])"}) {
    Put(KubeKind::kService, ServiceJson("f", absl::StrCat(R"({"ipFamilies":)", families, "}")));
    const std::string bare4 = R"({"addresses":["10.9.0.1"],"nodeName":"n2"})";
    const std::string bare6 = R"({"addresses":["fd00::9"],"nodeName":"n2"})";
    PutSlice(SliceJson("f-4", "f", kHttpPort, PodJson("u1", "10.1.0.1") + "," + bare4));
    PutSlice(SliceJson("f-6", "f", kHttpPort, PodJson("u1", "fd00::1") + "," + bare6, "IPv6"));
    if (families[2] == 'I' && families[5] == '4') {
      EXPECT_THAT(Endpoints(), ElementsAre("v/f n1 u1 10.1.0.1:8080", "v/f n2 ip-0a090001 10.9.0.1:8080"));
    } else {
      EXPECT_THAT(Endpoints(), ElementsAre("v/f n1 u1 [fd00::1]:8080",
                                           "v/f n2 ip-fd000000000000000000000000000009 [fd00::9]:8080"));
    }
  }
}

TEST_F(KubeStateTest, WhoNamesNoNodeIsFoundByItsAddress) {
  PutBasics();
  const auto bare = [](const char* ip) { return absl::StrCat(R"({"addresses":[")", ip, "\"]}"); };
  PutSlice(SliceJson("f-1", "f", kHttpPort,
                     absl::StrCat(bare("10.244.2.9"), ",", bare("10.0.0.1"), ",", bare("192.0.2.1"))));
  EXPECT_THAT(Endpoints(),
              UnorderedElementsAre("v/f n2 ip-0af40209 10.244.2.9:8080", "v/f n1 ip-0a000001 10.0.0.1:8080",
                                   "v/f outside ip-c0000201 192.0.2.1:8080"));
  EXPECT_EQ(Mesh().nodes.size(), 3u);
}

TEST_F(KubeStateTest, WhatIsWrongIsNamedAndStopsNoOther) {
  PutBasics();
  EXPECT_THAT(PutSlice(SliceJson("f-1", "f", kWeftPort, "", "FQDN")), HasSubstr("addressType \"FQDN\""));
  EXPECT_THAT(PutSlice(SliceJson("f-2", "f", kWeftPort,
                                 R"({"addresses":[]},7,{"addresses":["10.1.0.300"]},)" +
                                     PodJson("u1", "10.1.0.1", R"({"ready":"yes"})") + "," +
                                     PodJson("u2", "10.1.0.2"))),
              HasSubstr("endpoints[0]: \"\" is no address"));
  EXPECT_THAT(PutSlice(SliceJson("f-3", "f", kWeftPort, R"({"addresses":["10.1.0.7"]})")),
              HasSubstr("no weft-host"));
  EXPECT_THAT(PutSlice(SliceJson("f-4", "f", R"([{"port":53,"protocol":"UDP"}])", PodJson("u4", "10.1.0.4"))),
              HasSubstr("no TCP port"));
  EXPECT_THAT(Put(KubeKind::kNode, NodeJson("N9", "10.0.0.9")), HasSubstr("N9"));
  EXPECT_THAT(Put(KubeKind::kNode, NodeJson("n3", "ten")), HasSubstr("\"ten\" is no address"));
  EXPECT_THAT(Put(KubeKind::kService, R"({"metadata":{}})"), HasSubstr("names no object"));
  EXPECT_THAT(Put(KubeKind::kService, "7"), HasSubstr("no event"));
  EXPECT_THAT(Endpoints(), ElementsAre("v/f n1 u2"));
  EXPECT_EQ(state_.refused().size(), 7u);
  EXPECT_THAT(state_.refused().at("endpointslices v/f-1"), HasSubstr("endpointslices v/f-1: addressType"));
  // What it was before stays, and what is mended is refused no more.
  EXPECT_EQ(PutSlice(SliceJson("f-1", "f", kWeftPort, PodJson("u9", "10.1.0.9"))), "");
  EXPECT_NE(PutSlice(SliceJson("f-1", "f", kWeftPort, "", "Morse")), "");
  EXPECT_THAT(Endpoints(), ElementsAre("v/f n1 u2", "v/f n1 u9"));
  Put(KubeKind::kSlice, SliceJson("f-1", "f", kWeftPort, ""), "DELETED");
  EXPECT_THAT(Endpoints(), ElementsAre("v/f n1 u2"));
  EXPECT_EQ(state_.refused().size(), 6u);
}

TEST_F(KubeStateTest, ANameElsewhereIsNoFunction) {
  PutBasics();
  Put(KubeKind::kService, ServiceJson("f", R"({"type":"ExternalName","externalName":"example.org"})"));
  PutSlice(SliceJson("f-1", "f", kWeftPort, PodJson("u1", "10.1.0.1")));
  EXPECT_THAT(Endpoints(), IsEmpty());
  EXPECT_THAT(Mesh().functions, IsEmpty());
  Put(KubeKind::kService, ServiceJson("f", R"({"type":"SomethingNew"})"));
  EXPECT_EQ(Endpoints().size(), 1u);
}

TEST_F(KubeStateTest, APolicyIsOfTheFunctionOfItsName) {
  PutBasics();
  const auto policy = [](const std::string& spec, const std::string& status = "{}") {
    return absl::StrCat(R"({"metadata":{"namespace":"v","name":"f","generation":3},"spec":)", spec,
                        R"(,"status":)", status, "}");
  };
  EXPECT_EQ(Put(KubeKind::kPolicy, policy(R"({"idempotent":true,"limits":{"memory":"1MiB"}})")), "");
  const auto function = [this] {
    const SourceMesh mesh = Mesh();
    EXPECT_EQ(mesh.functions.size(), 1u);
    return mesh.functions.at(0).value;
  };
  EXPECT_TRUE(function().policy().idempotent());
  EXPECT_EQ(function().guest_limits().memory_bytes_max(), 1u << 20);
  EXPECT_THAT(Put(KubeKind::kPolicy, policy(R"({"hedge":{"percentile":99}})")), HasSubstr("idempotent"));
  EXPECT_THAT(Put(KubeKind::kPolicy, policy("7")), HasSubstr("spec"));
  EXPECT_TRUE(function().policy().idempotent());  // What it was stays.
  const auto verdict = [&](const std::string& spec, const std::string& status) {
    return *ParseKubeEvent(KubeKind::kPolicy,
                           absl::StrCat(R"({"type":"ADDED","object":)", policy(spec, status), "}"))
                ->item.verdict;
  };
  const std::string told =
      R"({"conditions":[{"type":"Other"},{"type":"Accepted","status":"True","message":"","observedGeneration":3}]})";
  EXPECT_TRUE(verdict("{}", told).told);
  EXPECT_FALSE(verdict("{}", "{}").told);
  EXPECT_FALSE(verdict("{}", absl::StrReplaceAll(told, {{"3}", "2}"}})).told);
  EXPECT_FALSE(verdict(R"({"timeout":"soon"})", told).told);
  Put(KubeKind::kPolicy, policy("{}"), "DELETED");
  EXPECT_FALSE(function().policy().idempotent());
}

// After a restart the model holds what an earlier run was told.
TEST_F(KubeStateTest, TheFirstWordMayNotTakeAwayWhatWasSaidBefore) {
  const SourceOffer first = state_.TakeOffer("k");
  EXPECT_TRUE(first.whole);
  EXPECT_FALSE(first.allow_shrink);
  Put(KubeKind::kNode, R"({"metadata":{"name":"n1"}})");
  const SourceOffer second = state_.TakeOffer("k");
  EXPECT_FALSE(second.whole);
  EXPECT_TRUE(second.allow_shrink);
}

// By the pages that have come, so that tables need not grow with each.
TEST_F(KubeStateTest, WhatAListComesToIsExpected) {
  const auto page = ParseKubePage(
      KubeKind::kSlice,
      R"({"metadata":{"resourceVersion":"7","continue":"a","remainingItemCount":8},"items":[]})");
  ASSERT_TRUE(page.ok());
  EXPECT_EQ(page->more, 8u);
  PutBasics();
  EXPECT_EQ(state_.Prepare("k", 0).expected, 0u);  // No slice has come.
  PutSlice(SliceJson("f-1", "f", kWeftPort, PodJson("u1", "10.1.0.1") + "," + PodJson("u2", "10.1.0.2")));
  PutSlice(SliceJson("f-2", "f", kWeftPort, ""));
  state_.Expect(KubeKind::kSlice, page->more);
  state_.Expect(KubeKind::kService, 5);
  // Two nodes, one Service of six, two slices of ten with an endpoint each on average
  EXPECT_EQ(state_.Prepare("k", 0).expected, 2u + 6u + 10u);
}

TEST_F(KubeStateTest, AListTakesWhatItDoesNotHold) {
  PutBasics();
  PutSlice(SliceJson("f-1", "f", kWeftPort, PodJson("u1", "10.1.0.1")));
  PutSlice(SliceJson("f-2", "f", kWeftPort, PodJson("u2", "10.1.0.2")));
  Mesh();
  state_.BeginList(KubeKind::kSlice);
  EXPECT_TRUE(state_.ListIsEmpty(KubeKind::kSlice));
  PutSlice(SliceJson("f-2", "f", kWeftPort, PodJson("u2", "10.1.0.2")));
  EXPECT_FALSE(state_.ListIsEmpty(KubeKind::kSlice));
  EXPECT_FALSE(state_.changed());  // The same as it was
  EXPECT_EQ(state_.EndList(KubeKind::kSlice, false), 0u);
  EXPECT_TRUE(state_.changed());
  EXPECT_THAT(Endpoints(), ElementsAre("v/f n1 u2"));
  state_.BeginList(KubeKind::kSlice);
  EXPECT_NE(PutSlice(SliceJson("f-2", "f", kWeftPort, "", "Morse")), "");  // Listed, though not to be read
  EXPECT_EQ(state_.EndList(KubeKind::kSlice, false), 0u);
  EXPECT_THAT(Endpoints(), ElementsAre("v/f n1 u2"));
}

TEST_F(KubeStateTest, WhatOneListIsNotBelievedToHaveLostStaysAtTheNextUntilItIsSaidOrErased) {
  PutBasics();
  const auto put = [&](const std::string& number) {
    PutSlice(SliceJson("f-" + number, "f", kWeftPort, PodJson("u" + number, "10.1.0." + number)));
  };
  const auto list = [&](const std::vector<std::string>& numbers, bool keep) {
    state_.BeginList(KubeKind::kSlice);
    for (const std::string& number : numbers) put(number);
    return state_.EndList(KubeKind::kSlice, keep);
  };
  EXPECT_EQ(list({"1", "2", "3"}, false), 0u);
  EXPECT_EQ(list({"3"}, true), 2u);
  EXPECT_EQ(list({"3", "4"}, false), 0u);
  EXPECT_THAT(Endpoints(), ElementsAre("v/f n1 u1", "v/f n1 u2", "v/f n1 u3", "v/f n1 u4"));
  Put(KubeKind::kSlice, SliceJson("f-1", "f", kWeftPort, ""), "DELETED");
  put("2");
  EXPECT_THAT(Endpoints(), ElementsAre("v/f n1 u2", "v/f n1 u3", "v/f n1 u4"));
  list({"3"}, false);
  EXPECT_THAT(Endpoints(), ElementsAre("v/f n1 u3"));
}

std::vector<std::string> Texts(const SourceMesh& mesh) {
  std::vector<std::string> texts;
  for (const EntryPtr& entry : OfferOf(mesh).said) {
    texts.push_back(absl::StrCat(static_cast<int>(entry->kind), " ", entry->bytes));
  }
  return texts;
}

using HeldItems = std::map<std::pair<KubeKind, std::string>, KubeItem>;

// Prepared bit by bit, what follows from `held` is `mesh` too, and the whole says so.
// What was prepared, entry by entry: the model takes it where these very entries are said.
void TakePrepared(const SourceOffer& offer, SaidSet* prepared) {
  for (const EntryPtr& entry : offer.unsaid) prepared->erase(entry);
  for (const EntryPtr& entry : offer.said) {
    prepared->erase(entry);
    prepared->insert(entry);
  }
}

void ExpectPreparedAlike(const HeldItems& held, const SourceMesh& mesh, Random* random) {
  KubeState ahead(4810);
  SaidMesh prepared;
  SaidSet entries;
  const auto take = [&](const SourceOffer& offer) {
    prepared.Take(offer);
    TakePrepared(offer, &entries);
  };
  for (const auto& [name, item] : held) {
    ahead.Put(name.first, item);
    if (random->Below(2) == 0) take(ahead.Prepare("k", random->Below(3)));
  }
  take(ahead.PrepareAll("k"));
  EXPECT_FALSE(ahead.unsaid());
  EXPECT_EQ(Texts(mesh), Texts(prepared.mesh()));
  const SourceOffer offer = ahead.TakeOffer("k");
  EXPECT_TRUE(offer.whole);
  EXPECT_EQ(offer.said.size(), entries.size());
  for (const EntryPtr& entry : offer.said) {
    const auto same = entries.find(entry);
    EXPECT_TRUE(same != entries.end() && *same == entry);
  }
  prepared.Take(offer);
  EXPECT_EQ(Texts(mesh), Texts(prepared.mesh()));
}

// Whatever comes, reading ends, no other object suffers, and the mesh that follows can be merged. What was
// told bit by bit is what would be told of these objects as a whole.
constexpr char kHints[] = R"({"forZones":[{"name":"z1"}],"forNodes":[{"name":"n2"}]})";

TEST(KubeFuzzTest, MutatedObjectsMakeAMeshThatCanBeMerged) {
  const std::vector<std::pair<KubeKind, std::string>> whole = {
      {KubeKind::kNode, NodeJson("n1", "10.0.0.1")},
      {KubeKind::kPolicy,
       R"({"metadata":{"namespace":"v","name":"f","generation":3},"spec":{"timeout":"1s"}})"},
      {KubeKind::kHttpRoute,
       R"({"metadata":{"namespace":"v","name":"r","creationTimestamp":"2026-11-01T00:00:00Z"},"spec":{"parentRefs":)"
       R"([{"group":"","kind":"Service","name":"f"}],"rules":[{"matches":[{"path":{"value":"/"}}],"backendRefs":)"
       R"([{"name":"f","weight":9,"port":80},{"name":"g","namespace":"w"}]}]}})"},
      {KubeKind::kGrant,
       R"({"metadata":{"namespace":"w","name":"g"},"spec":{"from":[{"group":"gateway.networking.k8s.io","kind":)"
       R"("HTTPRoute","namespace":"v"}],"to":[{"group":"","kind":"Service"}]}})"},
      {KubeKind::kService, ServiceJson("f", R"({"ipFamilies":["IPv6"],"type":"ClusterIP"})")},
      {KubeKind::kSlice, SliceJson("f-1", "f", kWeftPort, HintedJson("u1", kHints))},
      {KubeKind::kSlice,
       SliceJson("f-2", "f", kHttpPort, PodJson("u2", "fd00::1", R"({"ready":true})"), "IPv6")}};
  constexpr const char* kJsonPieces[] = {"null", "{}",   "[]",      "\"",    ":", ",",    "true",
                                         "-1",   "1e99", "\"\"",    "65536", "0", "IPv6", "FQDN",
                                         "n1",   "/",    "\\u0000", "\xff",  "]", "}"};
  const char* rounds_text = std::getenv("WEFT_FUZZ_ROUNDS");
  const int rounds = rounds_text == nullptr ? 3'000 : std::atoi(rounds_text);
  Random random(7);
  KubeState state(4810);
  const KubeItem good{"good", KubeNode{"10.0.0.8", "z", {}}, ""};
  ASSERT_FALSE(state.Put(KubeKind::kNode, good));
  HeldItems held = {{{KubeKind::kNode, "good"}, good}};
  SaidMesh told;
  for (int round = 0; round < rounds; ++round) {
    auto [kind, json] = whole[random.Below(whole.size())];
    for (uint64_t i = random.Below(4); i > 0; --i) {
      const std::size_t at = random.Below(json.size());
      if (random.Below(2) == 0) {
        json.erase(at, 1 + random.Below(12));
      } else {
        json.insert(at, kJsonPieces[random.Below(std::size(kJsonPieces))]);
      }
      if (json.empty()) json.assign(1, ' ');
    }
    const auto event = ParseKubeEvent(kind, absl::StrCat(R"({"type":"ADDED","object":)", json, "}"));
    const auto page =
        ParseKubePage(kind, absl::StrCat(R"({"metadata":{"resourceVersion":"1"},"items":[)", json, "]}"));
    const auto put = [&state, &held, of = kind](const KubeItem& item) {
      state.Put(of, item);
      if (item.object.has_value()) held.insert_or_assign({of, item.key}, item);
    };
    if (event.ok()) put(event->item);
    if (page.ok()) {
      for (const KubeItem& item : page->items) put(item);
    }
    if (random.Below(4) == 0 && held.size() > 3) {
      const auto goes = std::next(held.begin(), static_cast<std::ptrdiff_t>(random.Below(held.size())));
      if (goes->first.second != "good") {
        state.Erase(goes->first.first, goes->first.second);
        held.erase(goes);
      }
    }
    if (round % 5 != 0) continue;
    told.Take(state.TakeOffer("k"));
    const SourceMesh* const all[] = {&told.mesh()};
    const Merged merged = Merge(all);
    ASSERT_THAT(merged.errors, IsEmpty()) << merged.errors.front().ToString() << "\n" << json;
    ASSERT_TRUE(merged.state.Contains(NodeKey("good")));
    KubeState fresh(4810);
    for (const auto& [name, item] : held) fresh.Put(name.first, item);
    SaidMesh at_once;
    at_once.Take(fresh.TakeOffer("k"));
    ASSERT_EQ(Texts(told.mesh()), Texts(at_once.mesh())) << "round " << round << "\n" << json;
    ExpectPreparedAlike(held, told.mesh(), &random);
  }
  EXPECT_FALSE(state.refused().empty());
}

}  // namespace
}  // namespace weft::control
