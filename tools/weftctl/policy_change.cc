// SPDX-License-Identifier: Apache-2.0
#include "tools/weftctl/policy_change.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "control/model/merge.h"
#include "control/source/etcd/etcd_keys.h"
#include "control/source/file_source.h"
#include "control/source/mesh_yaml.h"
#include "control/source/module_hash.h"
#include "dataplane/base/status.h"
#include "dataplane/base/text.h"
#include "dataplane/config/yaml.h"

namespace weft::ctl {
namespace {

// Collects the objects of mesh files, and all errors.
class Loader {
 public:
  void Take(const std::string& text, const std::string& path) {
    const control::LoadedMesh loaded = control::LoadMesh(text, path, &hasher_);
    errors_.insert(errors_.end(), loaded.errors.begin(), loaded.errors.end());
    if (loaded.mesh.allow_shrink) {
      errors_.push_back(absl::StrCat(path, ": allowShrink: means nothing in etcd, where deletions are told"));
    }
    TakeAll(loaded.mesh.nodes, path);
    TakeAll(loaded.mesh.functions, path);
    TakeAll(loaded.mesh.endpoints, path);
    TakeAll(loaded.mesh.allow, path);
  }
  void Error(const absl::Status& status) { errors_.emplace_back(status.message()); }
  absl::StatusOr<Objects> Finish() {
    if (errors_.empty()) return std::move(objects_);
    return absl::InvalidArgumentError(absl::StrJoin(errors_, "\n"));
  }

 private:
  template <typename T>
  void TakeAll(const std::vector<control::Said<T>>& all, const std::string& path) {
    for (const control::Said<T>& said : all) {
      control::MeshObject object = said.value;
      MakeAbsolute(&object);
      const std::string key = control::EtcdKeyOf(object, false);
      const std::string place = absl::StrCat(path, ":", said.where.line);
      if (const auto* endpoint = std::get_if<api::Endpoint>(&object);
          endpoint != nullptr && Utf8Of(endpoint->module()) != endpoint->module()) {
        errors_.push_back(absl::StrCat(place, ": the path of its module is no UTF-8"));
        continue;
      }
      const auto [it, fresh] = places_.emplace(key, place);
      if (!fresh) errors_.push_back(absl::StrCat(place, ": ", key, " stands at ", it->second, " already"));
      objects_.insert_or_assign(key, std::move(object));
    }
  }
  // The hosts that load a module know nothing of the folder that the mesh file lay in.
  static void MakeAbsolute(control::MeshObject* object) {
    auto* endpoint = std::get_if<api::Endpoint>(object);
    if (endpoint == nullptr || endpoint->module().empty()) return;
    endpoint->set_module(std::filesystem::absolute(endpoint->module()).lexically_normal());
  }

  control::ModuleHasher hasher_;
  Objects objects_;
  std::map<std::string, std::string> places_;
  std::vector<std::string> errors_;
};

control::Merged MergeOf(const std::map<std::string, std::pair<control::MeshObject, bool>>& objects) {
  control::SourceMesh mesh;
  mesh.origin = "etcd";
  mesh.open = true;
  for (const auto& [key, object] : objects) control::AddObject(object.first, object.second, &mesh);
  return control::Merge({&mesh});
}

std::set<std::string> MessagesOf(const control::Merged& merged) {
  std::set<std::string> messages;
  for (const control::MeshError& error : merged.errors) messages.insert(error.message);
  return messages;
}

}  // namespace

absl::StatusOr<Objects> ParseObjects(const std::string& text, const std::string& path) {
  Loader loader;
  loader.Take(text, path);
  return loader.Finish();
}

absl::StatusOr<Objects> LoadObjects(const std::string& path) {
  if (path == "-") {
    const std::string text((std::istreambuf_iterator<char>(std::cin)), std::istreambuf_iterator<char>());
    return ParseObjects(text, "standard input");
  }
  std::vector<std::string> files = {path};
  struct stat info;
  if (stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
    WEFT_ASSIGN_OR_RETURN(files, control::MeshFilesOf(path));
    if (files.empty()) return absl::NotFoundError(absl::StrCat(path, " holds no *.yaml or *.yml file"));
    for (std::string& file : files) file = absl::StrCat(path, absl::EndsWith(path, "/") ? "" : "/", file);
  }
  Loader loader;
  for (const std::string& file : files) {
    const absl::StatusOr<std::string> text = ReadSmallFile(file);
    if (text.ok()) {
      loader.Take(*text, file);
    } else {
      loader.Error(text.status());
    }
  }
  return loader.Finish();
}

const StoredObject* Find(const std::vector<StoredObject>& stored, const std::string& key) {
  const auto it = std::lower_bound(stored.begin(), stored.end(), key,
                                   [](const StoredObject& a, const std::string& b) { return a.key < b; });
  return it != stored.end() && it->key == key ? &*it : nullptr;
}

std::vector<PolicyWrite> WritesOf(const Objects& objects, const std::vector<StoredObject>& stored) {
  std::vector<PolicyWrite> writes;
  for (const auto& [key, object] : objects) {
    const StoredObject* before = Find(stored, key);
    std::string value = control::ObjectJson(object);
    // Not the text, which another may have written in another order.
    if (before != nullptr && before->object.has_value() && control::ObjectJson(*before->object) == value)
      continue;
    writes.push_back({key, std::move(value), false, before == nullptr ? 0 : before->revision});
  }
  return writes;
}

absl::Status CheckWrites(const std::vector<StoredObject>& stored, const Objects& objects,
                         const std::vector<PolicyWrite>& writes) {
  std::map<std::string, std::pair<control::MeshObject, bool>> mesh;
  for (const StoredObject& each : stored) {
    if (each.object.has_value()) mesh.insert_or_assign(each.key, std::pair(*each.object, each.live));
  }
  const std::set<std::string> before = MessagesOf(MergeOf(mesh));
  for (const PolicyWrite& write : writes) {
    mesh.erase(write.key);
    if (!write.remove) mesh.insert_or_assign(write.key, std::pair(objects.at(write.key), false));
  }
  std::vector<std::string> news;
  for (const std::string& message : MessagesOf(MergeOf(mesh))) {
    if (!before.contains(message)) news.push_back(message);
  }
  if (news.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrJoin(news, "\n"));
}

std::vector<std::string> RemarksOn(const Objects& objects, const std::vector<StoredObject>& stored) {
  std::vector<std::string> remarks;
  for (const auto& [key, object] : objects) {
    const auto* endpoint = std::get_if<api::Endpoint>(&object);
    if (endpoint == nullptr) continue;
    api::Node node;
    node.set_name(endpoint->node());
    const bool named = objects.contains(control::EtcdKeyOf(node, false)) ||
                       Find(stored, control::EtcdKeyOf(node, false)) != nullptr ||
                       Find(stored, control::EtcdKeyOf(node, true)) != nullptr;
    if (!named)
      remarks.push_back(absl::StrCat(key, " waits for node ", node.name(), ", which is not in etcd"));
  }
  return remarks;
}

}  // namespace weft::ctl
