// SPDX-License-Identifier: Apache-2.0
// The property that control lives by: whatever two states, the parts of their difference turn one into the
// other.
#include "control/model/mesh_state.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "dataplane/base/random.h"
#include "dataplane/base/unix_socket.h"

namespace weft::control {
namespace {

// A state whose items come from small pools, so that two of them share some, differ in some and miss some.
MeshState RandomState(Random* random, int items_max) {
  MeshState state;
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
    state.endpoints[KeyOf(endpoint)] = endpoint;
  }
  for (uint64_t i = random->Below(items_max); i > 0; --i) {
    state.allow.insert({absl::StrCat("a", random->Below(items_max), "/*"), "b/*"});
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
    const MeshState from = RandomState(&random, items_max);
    const MeshState to = random.Below(10) == 0 ? MeshState{} : RandomState(&random, items_max);
    const std::vector<api::Program> delta = MakeDelta(from, to, 5);
    CheckParts(delta, 5, false);
    several_parts += delta.size() > 1 ? 1 : 0;
    MeshState state = from;
    ApplyProgram(delta, &state);
    ASSERT_TRUE(state == to) << "round " << round;
    EXPECT_EQ(delta.empty(), from == to);
  }
  EXPECT_GT(several_parts, 5u);
}

TEST(MeshStateTest, AppliedSnapshotGivesTheStateFromAnyOther) {
  Random random(8);
  for (int round = 0; round < 200; ++round) {
    const MeshState to = round == 0 ? MeshState{} : RandomState(&random, round % 20 == 0 ? 2000 : 30);
    const std::vector<api::Program> parts = MakeSnapshot(to, 9);
    ASSERT_FALSE(parts.empty());
    CheckParts(parts, 9, true);
    MeshState state = RandomState(&random, 50);
    ApplyProgram(parts, &state);
    ASSERT_TRUE(state == to);
  }
}

TEST(MeshStateTest, AChangedFieldMakesStatesDiffer) {
  MeshState a;
  a.endpoints[{"f", "n", "h"}].set_weight(1);
  MeshState b = a;
  EXPECT_TRUE(a == b);
  b.endpoints[{"f", "n", "h"}].set_weight(2);
  EXPECT_FALSE(a == b);
  b = a;
  b.endpoints[{"f", "n", "h"}].set_state(api::ENDPOINT_DRAINING);
  EXPECT_FALSE(a == b);
}

}  // namespace
}  // namespace weft::control
