// SPDX-License-Identifier: Apache-2.0
#include "control/source/mesh_yaml.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/text.h"
#include "dataplane/config/yaml.h"

namespace weft::control {
namespace {

constexpr uint64_t kHourNs = 3'600 * kNsPerSecond;
constexpr std::size_t kPathBytesMax = 4096;
// Items of one list; 100,000 endpoints are about 16 MiB of YAML, the limit of the reader.
constexpr std::size_t kItemsMax = 100'000;
// A node goes to the agent in one message of 64 KiB at most: these take 16 KiB of it.
constexpr std::size_t kCallAsMax = 256;
constexpr std::size_t kZonesMax = 8;  // As Kubernetes has it

Where WhereIs(const YamlMap& map) {
  const YamlPosition position = map.PositionOf("");
  return {position.line, position.column};
}

class Loader {
 public:
  Loader(const std::string& path, ModuleHasher* hasher, SourceMesh* mesh)
      : path_(path), hasher_(hasher), mesh_(mesh) {}

  // One entry whose names are known already.
  void ReadFields(YamlMap& map, api::Node* node) { ReadNodeFields(map, node); }
  void ReadFields(YamlMap& map, api::Function* function) { ReadFunctionFields(map, function); }
  void ReadFields(YamlMap& map, api::Endpoint* endpoint) { ReadEndpointFields(map, endpoint); }
  static void ReadFields(YamlMap& /*map*/, api::Allow* /*allow*/) {}

  void ReadRoot(YamlMap& root) {
    root.Require({"version"});
    root.Uint("version", 1, 1);
    mesh_->allow_shrink = root.Bool("allowShrink");
    root.Maps("nodes", [this](YamlMap& map) { ReadNode(map); });
    root.Maps("functions", [this](YamlMap& map) { ReadFunction(map); });
    root.Maps("endpoints", [this](YamlMap& map) { ReadEndpoint(map); });
    root.Maps("allow", [this](YamlMap& map) { ReadAllow(map); });
    for (const auto& [key, count] :
         {std::pair{"nodes", mesh_->nodes.size()}, std::pair{"functions", mesh_->functions.size()},
          std::pair{"endpoints", mesh_->endpoints.size()}, std::pair{"allow", mesh_->allow.size()}}) {
      if (count > kItemsMax) root.Error(key, absl::StrCat(count, " entries; at most ", kItemsMax, " a file"));
    }
  }

 private:
  // The text under `key` where it is there and `check` likes it. Else the item is left out.
  template <typename Check>
  bool Name(YamlMap& map, absl::string_view key, Check&& check, std::string* name) {
    *name = map.NonEmptyString(key);
    if (!name->empty() && map.Check(key, check(*name))) return true;
    mesh_->incomplete = true;
    return false;
  }

  static absl::Status CheckNode(absl::string_view name) { return CheckLabel(name, "node"); }
  static absl::Status CheckHost(absl::string_view name) { return CheckLabel(name, "host"); }

  void ReadNode(YamlMap& map) {
    Said<api::Node> said{{}, WhereIs(map)};
    map.Require({"name"});
    std::string name;
    const bool good = Name(map, "name", CheckNode, &name);
    said.value.set_name(name);
    ReadNodeFields(map, &said.value);
    if (good) mesh_->nodes.push_back(std::move(said));
  }

  static void ReadNodeFields(YamlMap& map, api::Node* node) {
    node->set_address(map.String("address"));
    if (!node->address().empty()) map.Check("address", CheckNodeAddress(node->address()));
    node->set_zone(map.String("zone"));
    if (!node->zone().empty()) map.Check("zone", CheckLabel(node->zone(), "zone"));
    const std::vector<std::string> call_as = map.Strings("call_as");
    if (call_as.size() > kCallAsMax) {
      map.Error("call_as", absl::StrCat(call_as.size(), " namespaces; at most ", kCallAsMax, " a node"));
      return;
    }
    for (const std::string& ns : call_as) {
      if (map.Check("call_as", CheckLabel(ns, "namespace"))) node->add_call_as(ns);
    }
  }

  void ReadFunction(YamlMap& map) {
    Said<api::Function> said{{}, WhereIs(map)};
    map.Require({"name"});
    std::string name;
    const bool good = Name(map, "name", CheckFunctionName, &name);
    said.value.set_name(name);
    ReadFunctionFields(map, &said.value);
    if (good) mesh_->functions.push_back(std::move(said));
  }

  static void ReadFunctionFields(YamlMap& map, api::Function* function) {
    api::Policy* policy = function->mutable_policy();
    policy->set_idempotent(map.Bool("idempotent"));
    policy->set_timeout_ns(map.DurationNs("timeout", kNsPerUs, kHourNs));
    const auto retries = static_cast<uint32_t>(map.Uint("retries", 0, 10));
    if (map.Has("retries")) policy->set_retries(retries);  // 0 is not the default.
    ReadExtraTries(map, policy);
    policy->set_any_locality(map.Enum("locality", {"nearest", "any"}) == 1);
    const bool keep = map.Enum("state", {"keep", "fresh"}, 1) == 0;
    function->set_state(keep ? api::INSTANCE_KEEP : api::INSTANCE_FRESH);
    map.Map("limits", [&](YamlMap& limits) { ReadLimits(limits, function); });
  }

  // What callers may do beyond one try after the other.
  static void ReadExtraTries(YamlMap& map, api::Policy* policy) {
    policy->set_retry_budget_percent(static_cast<uint32_t>(map.Uint("retry_budget", 1, 100)));
    if (map.Has("hedge") && !policy->idempotent()) {
      map.Error("hedge", "a hedge runs a call twice: declare `idempotent: true`, or remove the key");
    }
    map.Map("hedge", [policy](YamlMap& hedge) {
      hedge.Require({"percentile"});
      policy->set_hedge_percentile(static_cast<uint32_t>(hedge.Uint("percentile", 50, 99)));
      policy->set_hedge_budget_percent(static_cast<uint32_t>(hedge.Uint("budget", 1, 50)));
    });
    map.Map("outlier", [policy](YamlMap& outlier) {
      outlier.Require({"failures"});
      policy->set_outlier_failures(static_cast<uint32_t>(outlier.Uint("failures", 1, 100)));
      policy->set_outlier_eject_ns(outlier.DurationNs("eject", 100 * kNsPerMs, kHourNs));
    });
  }

  static void ReadLimits(YamlMap& map, api::Function* function) {
    constexpr uint64_t kKiB = 1024;
    api::Policy* policy = function->mutable_policy();
    policy->set_concurrent_calls_max(static_cast<uint32_t>(map.Uint("concurrent_calls", 1, 1'000'000)));
    policy->set_calls_per_second_max(static_cast<uint32_t>(map.Uint("calls_per_second", 1, 1'000'000'000)));
    api::GuestLimits* guest = function->mutable_guest_limits();
    guest->set_memory_bytes_max(map.Bytes("memory", 64 * kKiB, 256 * kKiB * kKiB));
    guest->set_stack_bytes_max(map.Bytes("stack", 16 * kKiB, 512 * kKiB));
    guest->set_run_ns_max(map.DurationNs("run_time", kNsPerMs, kHourNs));
  }

  void ReadEndpoint(YamlMap& map) {
    Said<api::Endpoint> said{{}, WhereIs(map)};
    map.Require({"function", "node", "host"});
    std::string function, node, host;
    bool good = Name(map, "function", CheckFunctionName, &function);
    good &= Name(map, "node", CheckNode, &node);
    good &= Name(map, "host", CheckHost, &host);
    said.value.set_function(function);
    said.value.set_node(node);
    said.value.set_host(host);
    ReadEndpointFields(map, &said.value);
    if (good) mesh_->endpoints.push_back(std::move(said));
  }

  void ReadEndpointFields(YamlMap& map, api::Endpoint* endpoint) {
    endpoint->set_weight(static_cast<uint32_t>(map.Uint("weight", 1, kEndpointWeightMax, kWeightDefault)));
    const bool draining = map.Enum("state", {"ready", "draining"}) == 1;
    endpoint->set_state(draining ? api::ENDPOINT_DRAINING : api::ENDPOINT_READY);
    ReadZones(map, endpoint);
    ReadModule(map, endpoint);
  }

  static void ReadZones(YamlMap& map, api::Endpoint* endpoint) {
    const std::vector<std::string> zones = map.Strings("zones");
    if (zones.size() > kZonesMax) {
      map.Error("zones", absl::StrCat(zones.size(), " zones; at most ", kZonesMax, " an endpoint"));
      return;
    }
    api::Hints hints;
    for (const std::string& zone : zones) {
      if (map.Check("zones", CheckLabel(zone, "zone"))) hints.add_zones(zone);
    }
    endpoint->set_hints(hints.SerializeAsString());
  }

  void ReadModule(YamlMap& map, api::Endpoint* endpoint) {
    std::string module = map.NonEmptyString("module");
    // Scalar: sixty-four digits without a letter look like a number.
    const std::string hex = map.Scalar("sha256");
    if (module.empty()) {
      if (map.Has("sha256") && !map.Has("module")) map.Error("sha256", "stands there without a `module`");
      return;
    }
    if (module.size() > kPathBytesMax) {
      map.Error("module", absl::StrCat("longer than ", kPathBytesMax, " bytes"));
      return;
    }
    if (hasher_ == nullptr && (module.front() != '/' || !map.Has("sha256"))) {
      map.Error("module", "needs an absolute path and a `sha256`: the file is on another machine");
      return;
    }
    if (module.front() != '/') module = absl::StrCat(path_.substr(0, path_.rfind('/') + 1), module);
    if (Utf8Of(module) != module) {
      map.Error("module", "its path is no UTF-8");
      return;
    }
    endpoint->set_module(module);
    if (map.Has("sha256")) {
      const std::string bytes = hex.size() == 64 && IsHex(hex) ? absl::HexStringToBytes(hex) : "";
      if (bytes.size() != 32) map.Error("sha256", "must be 64 hexadecimal digits");
      endpoint->set_sha256(bytes);
      return;
    }
    const absl::StatusOr<Sha256> hash = hasher_->HashOf(module);
    if (hash.ok()) {
      endpoint->set_sha256(std::string(hash->begin(), hash->end()));
    } else {
      map.Error("module",
                absl::StrCat("there is no sha256, and it cannot be computed: ", hash.status().message()));
    }
  }

  static bool IsHex(absl::string_view text) {
    return text.find_first_not_of("0123456789abcdefABCDEF") == absl::string_view::npos;
  }

  void ReadAllow(YamlMap& map) {
    Said<api::Allow> said{{}, WhereIs(map)};
    map.Require({"from", "to"});
    std::string from, to;
    bool good = Name(map, "from", CheckPattern, &from);
    good &= Name(map, "to", CheckPattern, &to);
    said.value.set_from(from);
    said.value.set_to(to);
    if (good) mesh_->allow.push_back(std::move(said));
  }

  const std::string& path_;
  ModuleHasher* hasher_;  // Null: no file can be read here.
  SourceMesh* mesh_;
};

}  // namespace

LoadedMesh LoadMesh(absl::string_view text, const std::string& path, ModuleHasher* hasher) {
  LoadedMesh loaded;
  loaded.mesh.origin = path;
  YamlDocument document = YamlDocument::Parse(text, path);
  if (document.errors().empty() && !text.empty() && text.back() != '\n') {
    // Cut anywhere within a line, a file may still be good YAML and mean something else: `weight: 10` of 100.
    const auto lines = static_cast<int>(std::count(text.begin(), text.end(), '\n'));
    document.errors().Add({lines + 1, static_cast<int>(text.size() - text.rfind('\n'))}, "",
                          "the last line has no end: half-written? (every line must end with a newline)");
    loaded.mesh.incomplete = true;
  }
  if (document.errors().empty() || loaded.mesh.incomplete) {
    Loader loader(path, hasher, &loaded.mesh);
    YamlMap root(document.root(), "", &document.errors());
    loader.ReadRoot(root);
  }
  loaded.errors = document.errors().Lines();
  return loaded;
}

absl::Status LoadObject(absl::string_view text, const std::string& origin, MeshObject* object) {
  YamlDocument document = YamlDocument::Parse(text, origin);
  SourceMesh unused;
  Loader loader(origin, nullptr, &unused);
  return document.Read(
      [&](YamlMap& map) { std::visit([&](auto& value) { loader.ReadFields(map, &value); }, *object); });
}

}  // namespace weft::control
