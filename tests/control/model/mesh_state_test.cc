// SPDX-License-Identifier: Apache-2.0
// The property that control lives by: whatever two states, the parts of their difference turn one into the
// other.
#include "control/model/mesh_state.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "dataplane/base/random.h"
#include "dataplane/base/unix_socket.h"
#include "tests/control/model/typed_mesh.h"

namespace weft::control {
namespace {

// A state whose items come from small pools, so that two of them share some, differ in some and miss some.
TypedMesh RandomState(Random* random, int items_max) {
  TypedMesh state;
  for (uint64_t i = random->Below(items_max); i > 0; --i) {
    api::Node node;
    node.set_name(absl::StrCat("n", random->Below(20)));
    node.set_zone(absl::StrCat("z", random->Below(2)));
    state.nodes[node.name()] = node;
  }
  for (uint64_t i = random->Below(items_max); i > 0; --i) {
    api::Function function;
    function.set_name(absl::StrCat("ns/f", random->Below(items_max)));
    function.mutable_policy()->set_retries(static_cast<uint32_t>(random->Below(2)));
    function.set_state(random->Below(2) == 0 ? api::INSTANCE_KEEP : api::INSTANCE_FRESH);
    state.functions[function.name()] = function;
  }
  for (uint64_t i = random->Below(items_max); i > 0; --i) {
    api::Endpoint endpoint;
    endpoint.set_function(absl::StrCat("ns/f", random->Below(items_max)));
    endpoint.set_node("n1");
    endpoint.set_host(absl::StrCat("h", random->Below(5)));
    endpoint.set_module(std::string(random->Below(300), 'm'));
    endpoint.set_weight(static_cast<uint32_t>(random->Below(3)));
    state.Add(endpoint);
  }
  for (uint64_t i = random->Below(items_max); i > 0; --i) {
    state.allow.emplace(absl::StrCat("a", random->Below(items_max), "/*"), "b/*");
  }
  return state;
}

// What every series of parts must obey, whatever it says.
void CheckParts(const std::vector<api::Program>& parts, uint64_t generation, bool snapshot) {
  bool deletes = false;
  for (const api::Program& part : parts) {
    EXPECT_EQ(part.generation(), generation);
    EXPECT_EQ(part.snapshot(), snapshot);
    EXPECT_EQ(part.last(), &part == &parts.back());
    api::AdminRequest request;
    *request.mutable_program() = part;
    EXPECT_LE(request.ByteSizeLong(), kControlMessageBytesMax);
    EXPECT_FALSE(deletes && part.upsert().ByteSizeLong() > 0) << "an addition after a deletion";
    deletes |= part.delete_endpoints_size() + part.delete_functions_size() + part.delete_nodes_size() +
                   part.delete_allow_size() >
               0;
  }
}

TEST(MeshStateTest, AppliedDifferenceGivesTheOtherState) {
  Random random(7);
  std::size_t several_parts = 0;
  for (int round = 0; round < 300; ++round) {
    const int items_max = round % 20 == 0 ? 2000 : 30;
    const TypedMesh from = RandomState(&random, items_max);
    const TypedMesh to = random.Below(10) == 0 ? TypedMesh{} : RandomState(&random, items_max);
    std::vector<api::Program> delta;
    MakeDelta(ChangesOf(CompactOf(from), CompactOf(to)), 5,
              [&delta](api::Program part) { delta.push_back(std::move(part)); });
    CheckParts(delta, 5, false);
    several_parts += delta.size() > 1 ? 1 : 0;
    TypedMesh state = from;
    ApplyProgram(delta, &state);
    ASSERT_TRUE(state == to) << "round " << round;
    EXPECT_EQ(delta.empty(), from == to);
  }
  EXPECT_GT(several_parts, 5u);
}

TEST(MeshStateTest, AppliedSnapshotGivesTheStateFromAnyOther) {
  Random random(8);
  for (int round = 0; round < 200; ++round) {
    const TypedMesh to = round == 0 ? TypedMesh{} : RandomState(&random, round % 20 == 0 ? 2000 : 30);
    std::vector<api::Program> parts;
    MakeSnapshot(CompactOf(to), 9, [&parts](api::Program part) { parts.push_back(std::move(part)); });
    ASSERT_FALSE(parts.empty());
    CheckParts(parts, 9, true);
    TypedMesh state = RandomState(&random, 50);
    ApplyProgram(parts, &state);
    ASSERT_TRUE(state == to);
  }
}

TEST(MeshStateTest, NoPartIsMadeWhereNothingChanged) {
  int parts = 0;
  MakeDelta({}, 5, [&parts](const api::Program& /*part*/) { ++parts; });
  EXPECT_EQ(parts, 0);
}

TEST(MeshStateTest, AKeyHasOneEntryAndEachKindItsCount) {
  MeshState state;
  api::Endpoint endpoint;
  endpoint.set_function("v/f");
  endpoint.set_node("n");
  endpoint.set_host("h");
  for (const uint32_t weight : {1u, 2u}) {
    endpoint.set_weight(weight);
    state.Put(MakeEntry(endpoint));
  }
  EXPECT_EQ(state.size(), 1u);
  EXPECT_EQ(state.count(EntryKind::kEndpoint), 1u);
  EXPECT_EQ(MessageOf<api::Endpoint>(*state.Find(EndpointKey("v/f", "n", "h"))).weight(), 2u);
  state.Erase(EndpointKey("v/f", "n", "other"));
  state.Erase(NodeKey("n"));
  EXPECT_EQ(state.size(), 1u);
  state.Erase(EndpointKey("v/f", "n", "h"));
  EXPECT_TRUE(state.empty());
  EXPECT_EQ(state.count(EntryKind::kEndpoint), 0u);
}

}  // namespace
}  // namespace weft::control
