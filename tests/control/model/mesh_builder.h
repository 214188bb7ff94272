// SPDX-License-Identifier: Apache-2.0
// Says what a mesh file would say, item by item; the n-th item stands at line n.
#ifndef WEFT_TESTS_CONTROL_MODEL_MESH_BUILDER_H_
#define WEFT_TESTS_CONTROL_MODEL_MESH_BUILDER_H_

#include <string>
#include <utility>

#include "control/model/merge.h"

namespace weft::control {

class MeshBuilder {
 public:
  explicit MeshBuilder(std::string origin) { mesh_.origin = std::move(origin); }

  MeshBuilder& Node(const std::string& name) {
    mesh_.nodes.push_back({{}, Where{++line_, 1}});
    mesh_.nodes.back().value.set_name(name);
    return *this;
  }
  MeshBuilder& Function(const std::string& name) {
    mesh_.functions.push_back({{}, Where{++line_, 1}});
    mesh_.functions.back().value.set_name(name);
    return *this;
  }
  MeshBuilder& Endpoint(const std::string& function, const std::string& node, const std::string& host) {
    mesh_.endpoints.push_back({{}, Where{++line_, 1}});
    mesh_.endpoints.back().value.set_function(function);
    mesh_.endpoints.back().value.set_node(node);
    mesh_.endpoints.back().value.set_host(host);
    return *this;
  }
  MeshBuilder& Allow(const std::string& from, const std::string& to) {
    mesh_.allow.push_back({{}, Where{++line_, 1}});
    mesh_.allow.back().value.set_from(from);
    mesh_.allow.back().value.set_to(to);
    return *this;
  }
  MeshBuilder& AllowShrink() {
    mesh_.allow_shrink = true;
    return *this;
  }
  SourceMesh Build() { return mesh_; }

 private:
  SourceMesh mesh_;
  int line_ = 0;
};

}  // namespace weft::control

#endif  // WEFT_TESTS_CONTROL_MODEL_MESH_BUILDER_H_
