// SPDX-License-Identifier: Apache-2.0
#include "control/source/kubernetes/kube_hints.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "control/source/kubernetes/kube_element.h"
#include "dataplane/api/mesh.pb.h"
#include "dataplane/base/function_id.h"

namespace weft::control {
namespace {

using simdjson::dom::element;

// Hints for zones are few in a slice. Those for nodes may be others for each endpoint: of these only the last
// are looked at.
constexpr std::size_t kLookedAt = 16;

// [{"name": "z1"}, …]. A name that is none hints nothing.
absl::Status ReadNames(const element& from, const char* key, absl::string_view what,
                       google::protobuf::RepeatedPtrField<std::string>* names) {
  element value;
  if (from[key].get(value) != simdjson::SUCCESS || value.is_null()) return absl::OkStatus();
  simdjson::dom::array list;
  if (value.get(list) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(absl::StrCat("hints.", key, ": is no list"));
  }
  absl::Status first;
  for (const element each : list) {
    std::string name = TextOf(each["name"]);
    if (const absl::Status status = CheckLabel(name, what); status.ok()) {
      names->Add(std::move(name));
    } else if (first.ok()) {
      first = absl::InvalidArgumentError(absl::StrCat("hints.", key, ": ", status.message()));
    }
  }
  return first;
}

}  // namespace

absl::Status ReadKubeHints(const element& endpoint, std::vector<std::string>* all, uint32_t* hints) {
  element value;
  if (endpoint["hints"].get(value) != simdjson::SUCCESS || value.is_null()) return absl::OkStatus();
  if (!value.is_object()) return absl::InvalidArgumentError("hints: is no object");
  api::Hints read;
  absl::Status status = ReadNames(value, "forZones", "zone", read.mutable_zones());
  status.Update(ReadNames(value, "forNodes", "node", read.mutable_nodes()));
  std::string bytes = read.SerializeAsString();
  if (bytes.empty()) return status;
  const auto begin = all->end() - static_cast<std::ptrdiff_t>(std::min(all->size(), kLookedAt));
  const auto known = std::find(begin, all->end(), bytes);
  *hints = static_cast<uint32_t>(known - all->begin()) + 1;
  if (known == all->end()) all->push_back(std::move(bytes));
  return status;
}

}  // namespace weft::control
