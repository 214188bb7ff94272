// SPDX-License-Identifier: Apache-2.0
#include "dataplane/engine/node_table.h"

#include <gtest/gtest.h>

#include "dataplane/base/function_id.h"

namespace weft::engine {
namespace {

api::NodeTable PartOf(const std::string& node, const std::string& caller, bool more) {
  api::NodeTable part;
  api::NodeTable::Node& entry = *part.add_nodes();
  entry.set_name(node);
  entry.add_callers(caller);
  part.set_more(more);
  return part;
}

TEST(NodeTableTest, IsInForceWithItsLastPart) {
  NodeTable table;
  EXPECT_FALSE(table.Take(PartOf("n1", "web/front", true)));
  EXPECT_TRUE(table.nodes().empty());
  EXPECT_TRUE(table.Take(PartOf("n2", "web/back", false)));
  EXPECT_EQ(table.nodes().size(), 2u);
}

// The agent that began it is gone; another one tells its own from the start.
TEST(NodeTableTest, PartsOfATableWhoseRestNeverComesAreForgotten) {
  NodeTable table;
  EXPECT_FALSE(table.Take(PartOf("n1", "web/revoked", true)));
  table.Restart();
  EXPECT_TRUE(table.Take(PartOf("n1", "web/front", false)));
  const auto& callers = table.nodes().at("n1").callers;
  EXPECT_TRUE(callers.contains(FunctionIdOf("web/front").value));
  EXPECT_FALSE(callers.contains(FunctionIdOf("web/revoked").value));
}

}  // namespace
}  // namespace weft::engine
