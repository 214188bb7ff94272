// SPDX-License-Identifier: Apache-2.0
#include "control/source/control_config.h"

#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "control/source/mesh_object.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/status.h"
#include "dataplane/config/yaml.h"

namespace weft::control {
namespace {

constexpr std::size_t kMembersMax = 16;
constexpr std::size_t kPasswordBytesMax = 4096;

absl::Status CheckUrl(absl::string_view url) {
  const bool good = absl::StartsWith(url, "http://") || absl::StartsWith(url, "https://");
  if (good && !absl::EndsWith(url, "/") && url.find_first_of(" \t\r\n?#") == absl::string_view::npos) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", url, "\" is no http:// or https:// URL of a member, without a path"));
}

TlsFiles ReadTls(YamlMap& map) {
  TlsFiles tls;
  tls.ca = map.NonEmptyString("ca");
  tls.certificate = map.NonEmptyString("certificate");
  tls.key = map.NonEmptyString("key");
  if (tls.certificate.empty() != tls.key.empty()) map.Error("", "`certificate` and `key` go together");
  return tls;
}

void ReadLogin(YamlMap& map, EtcdOptions* etcd) {
  etcd->user = map.NonEmptyString("user");
  const std::string file = map.NonEmptyString("password_file");
  if (etcd->user.empty() != file.empty()) map.Error("user", "`user` and `password_file` go together");
  if (file.empty()) return;
  const absl::StatusOr<std::string> password = ReadSmallFile(file, kPasswordBytesMax);
  if (!map.Check("password_file", password.status())) return;
  etcd->password = std::string(absl::StripTrailingAsciiWhitespace(*password));
}

EtcdPresenceOptions ReadPresence(YamlMap& map) {
  EtcdPresenceOptions presence;
  map.Require({"address"});
  presence.address = map.NonEmptyString("address");
  if (!presence.address.empty()) map.Check("address", CheckAddress(presence.address));
  presence.zone = map.String("zone");
  if (!presence.zone.empty()) map.Check("zone", CheckLabel(presence.zone, "zone"));
  presence.call_as = map.Strings("call_as");
  for (const std::string& ns : presence.call_as) map.Check("call_as", CheckLabel(ns, "namespace"));
  presence.lease_s =
      map.DurationNs("lease", 2 * kNsPerSecond, 3'600 * kNsPerSecond, 5 * kNsPerSecond) / kNsPerSecond;
  return presence;
}

void ReadEtcd(YamlMap& map, ControlConfig* config) {
  EtcdOptions etcd;
  map.Require({"endpoints"});
  etcd.endpoints = map.Strings("endpoints");
  if (map.Has("endpoints") && etcd.endpoints.empty()) map.Error("endpoints", "names no member");
  if (etcd.endpoints.size() > kMembersMax)
    map.Error("endpoints", absl::StrCat("more than ", kMembersMax, " members"));
  for (const std::string& url : etcd.endpoints) map.Check("endpoints", CheckUrl(url));
  etcd.prefix = map.String("prefix", etcd.prefix);
  if (!absl::StartsWith(etcd.prefix, "/") || !absl::EndsWith(etcd.prefix, "/") || etcd.prefix.size() < 3) {
    map.Error("prefix", "must begin and end with a slash, as in /weft/");
  }
  map.Map("tls", [&etcd](YamlMap& tls) { etcd.tls = ReadTls(tls); });
  ReadLogin(map, &etcd);
  map.Map("publish", [config](YamlMap& publish) { config->presence = ReadPresence(publish); });
  if (config->presence.has_value()) config->presence->etcd = etcd;
  config->etcd = std::move(etcd);
}

}  // namespace

absl::StatusOr<ControlConfig> ParseControlConfig(absl::string_view text, const std::string& path) {
  ControlConfig config;
  YamlDocument document = YamlDocument::Parse(text, path);
  WEFT_RETURN_IF_ERROR(document.Read([&config](YamlMap& root) {
    root.Require({"version"});
    root.Uint("version", 1, 1);
    config.files = root.String("files");
    config.metrics = root.String("metrics");
    root.Map("etcd", [&config](YamlMap& map) { ReadEtcd(map, &config); });
    if (config.files.empty() && !config.etcd.has_value() && root.errors().empty()) {
      root.Error("", "names no source: `files` or `etcd`");
    }
  }));
  return config;
}

absl::StatusOr<ControlConfig> LoadControlConfig(const std::string& path) {
  WEFT_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path));
  return ParseControlConfig(text, path);
}

}  // namespace weft::control
