// SPDX-License-Identifier: Apache-2.0
#include "control/source/object_reader.h"

#include "control/source/mesh_yaml.h"
#include "dataplane/base/status.h"

namespace weft::control {
namespace {

// Gives `to` the names of `from`.
void Name(const api::Node& from, api::Node* to) { to->set_name(from.name()); }
void Name(const api::Function& from, api::Function* to) { to->set_name(from.name()); }
void Name(const api::Endpoint& from, api::Endpoint* to) {
  to->set_function(from.function());
  to->set_node(from.node());
  to->set_host(from.host());
}
void Name(const api::Allow& from, api::Allow* to) { *to = from; }

}  // namespace

absl::Status ObjectReader::Read(absl::string_view text, const std::string& origin, MeshObject* object) {
  auto& read = read_[object->index()];
  if (const auto known = read.find(text); known != read.end()) {
    std::visit(
        [&known](auto& value) {
          auto fields = std::get<std::decay_t<decltype(value)>>(known->second);
          Name(value, &fields);
          value = std::move(fields);
        },
        *object);
    return absl::OkStatus();
  }
  WEFT_RETURN_IF_ERROR(LoadObject(text, origin, object));
  if (text.size() > kTextBytesMax) return absl::OkStatus();
  if (read.size() >= kTextsMax) read.clear();
  read.emplace(text, *object);
  return absl::OkStatus();
}

}  // namespace weft::control
