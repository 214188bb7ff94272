// SPDX-License-Identifier: Apache-2.0
#include "control/config/control_config.h"

#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
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

void ReadLogin(YamlMap& map, std::string* user, std::string* password_out) {
  *user = map.NonEmptyString("user");
  const std::string file = map.NonEmptyString("password_file");
  if (user->empty() != file.empty()) map.Error("user", "`user` and `password_file` go together");
  if (file.empty()) return;
  const absl::StatusOr<std::string> password = ReadSmallFile(file, kPasswordBytesMax);
  if (!map.Check("password_file", password.status())) return;
  *password_out = std::string(absl::StripTrailingAsciiWhitespace(*password));
}

EtcdPresenceOptions ReadPresence(YamlMap& map) {
  EtcdPresenceOptions presence;
  map.Require({"address"});
  presence.address = map.NonEmptyString("address");
  if (!presence.address.empty()) map.Check("address", CheckNodeAddress(presence.address));
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
  ReadLogin(map, &etcd.user, &etcd.password);
  map.Map("publish", [config](YamlMap& publish) { config->presence = ReadPresence(publish); });
  if (config->presence.has_value()) config->presence->etcd = etcd;
  config->etcd = std::move(etcd);
}

// "mqtt://10.0.0.1:1883", or mqtts:// by TLS.
absl::Status ReadBroker(absl::string_view url, MqttOptions* mqtt) {
  absl::Status bad =
      absl::InvalidArgumentError(absl::StrCat("\"", url, "\" is no mqtt://HOST:PORT or mqtts://HOST:PORT"));
  mqtt->tls = absl::ConsumePrefix(&url, "mqtts://");
  if (!mqtt->tls && !absl::ConsumePrefix(&url, "mqtt://")) return bad;
  if (!CheckAddress(url).ok()) return bad;
  const std::size_t colon = url.rfind(':');
  uint32_t port = 0;
  if (!absl::SimpleAtoi(url.substr(colon + 1), &port)) return bad;
  mqtt->port = static_cast<uint16_t>(port);
  url = url.substr(0, colon);
  if (absl::ConsumePrefix(&url, "[")) absl::ConsumeSuffix(&url, "]");
  mqtt->host = std::string(url);
  return absl::OkStatus();
}

void ReadPropeller(YamlMap& map, ControlConfig* config) {
  PropellerOptions propeller;
  map.Require({"broker", "manager", "topic"});
  const std::string broker = map.NonEmptyString("broker");
  if (!broker.empty()) map.Check("broker", ReadBroker(broker, &propeller.mqtt));
  propeller.manager = map.NonEmptyString("manager");
  if (!propeller.manager.empty()) map.Check("manager", CheckUrl(propeller.manager));
  propeller.base_topic = map.NonEmptyString("topic");
  if (propeller.base_topic.find_first_of("+#") != std::string::npos ||
      absl::EndsWith(propeller.base_topic, "/")) {
    map.Error("topic", "must be the topic that all others stand below, as in m/TENANT/c/CHANNEL");
  }
  propeller.ns = map.String("namespace", propeller.ns);
  map.Check("namespace", CheckLabel(propeller.ns, "namespace"));
  // Scalar: 5 looks like a number.
  const std::string version = map.Scalar("mqtt", "3.1.1");
  if (version != "3.1.1" && version != "5") map.Error("mqtt", "must be 3.1.1 or 5");
  propeller.mqtt.version = version == "5" ? 5 : 4;
  propeller.mqtt.qos = static_cast<int>(map.Uint("qos", 0, 2, 2));
  propeller.worker = map.Bool("worker");
  propeller.host = map.NonEmptyString("host");
  propeller.proplet = map.NonEmptyString("proplet");
  const std::pair<const char*, const std::string&> names[] = {{"host", propeller.host},
                                                              {"proplet", propeller.proplet}};
  for (const auto& [key, name] : names) {
    if (!map.Has(key)) continue;
    if (!name.empty()) map.Check(key, CheckLabel(name, key));
    if (!propeller.worker) map.Error(key, "goes with `worker: true`");
  }
  if (propeller.worker && !map.Has("host")) map.Error("worker", "needs `host`, which its tasks run on");
  map.Map("tls", [&propeller](YamlMap& tls) { propeller.mqtt.files = ReadTls(tls); });
  ReadLogin(map, &propeller.mqtt.user, &propeller.mqtt.password);
  config->propeller = std::move(propeller);
}

// Without a `kubeconfig`: as a pod.
void ReadKubernetes(YamlMap& map, ControlConfig* config) {
  const std::string file = map.NonEmptyString("kubeconfig");
  const std::string context = map.NonEmptyString("context");
  if (file.empty() && !context.empty()) map.Error("context", "`context` is of a `kubeconfig`");
  absl::StatusOr<KubeOptions> kube = file.empty() ? KubeOptionsOfPod() : LoadKubeconfig(file, context);
  const uint64_t port = map.Uint("port", 1, 65'535, KubeOptions().port);
  if (!map.Check("kubeconfig", kube.status())) return;
  kube->port = static_cast<uint16_t>(port);
  config->kubernetes = *std::move(kube);
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
    root.Map("propeller", [&config](YamlMap& map) { ReadPropeller(map, &config); });
    root.Map("kubernetes", [&config](YamlMap& map) { ReadKubernetes(map, &config); });
    if (config.files.empty() && !config.etcd.has_value() && !config.propeller.has_value() &&
        !config.kubernetes.has_value() && root.errors().empty()) {
      root.Error("", "names no source: `files`, `etcd`, `propeller` or `kubernetes`");
    }
  }));
  return config;
}

absl::StatusOr<ControlConfig> LoadControlConfig(const std::string& path) {
  WEFT_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path));
  return ParseControlConfig(text, path);
}

}  // namespace weft::control
