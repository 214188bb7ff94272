// SPDX-License-Identifier: Apache-2.0
#include "control/source/kubernetes/kube_config.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "dataplane/base/status.h"
#include "dataplane/config/yaml.h"

namespace weft::control {
namespace {

// A kubeconfig is written by many programs and holds much that is not for weft: unknown keys are let pass.
const YamlNode* Find(const YamlNode* map, absl::string_view key) {
  if (map == nullptr || map->kind != YamlNode::Kind::kMap) return nullptr;
  for (const YamlNode::Entry& entry : map->entries) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

std::string ScalarOf(const YamlNode* map, absl::string_view key) {
  const YamlNode* value = Find(map, key);
  return value == nullptr ? "" : value->text;
}

class Reader {
 public:
  Reader(const std::string& path, const YamlNode& root)
      : path_(path), directory_(std::filesystem::path(path).parent_path()), root_(root) {}

  absl::StatusOr<KubeOptions> Read(std::string context) {
    if (context.empty()) context = ScalarOf(&root_, "current-context");
    if (context.empty()) return Error("names no current-context");
    WEFT_ASSIGN_OR_RETURN(const YamlNode* chosen, Named("contexts", "context", context));
    WEFT_ASSIGN_OR_RETURN(const YamlNode* cluster, Named("clusters", "cluster", ScalarOf(chosen, "cluster")));
    WEFT_ASSIGN_OR_RETURN(const YamlNode* user, Named("users", "user", ScalarOf(chosen, "user")));
    for (const char* key : {"insecure-skip-tls-verify", "proxy-url", "tls-server-name"}) {
      const std::string text = ScalarOf(cluster, key);
      if (!text.empty() && text != "false") return Error(absl::StrCat("`", key, "` is not supported"));
    }
    for (const char* key : {"username", "auth-provider", "as"}) {
      if (Find(user, key) != nullptr) return Error(absl::StrCat("`", key, "` is not supported"));
    }
    KubeOptions options;
    options.server = std::string(absl::StripSuffix(ScalarOf(cluster, "server"), "/"));
    if (!absl::StartsWith(options.server, "https://") && !absl::StartsWith(options.server, "http://")) {
      return Error(absl::StrCat("`server` \"", options.server, "\" is no https:// URL"));
    }
    WEFT_RETURN_IF_ERROR(ReadPair(cluster, "certificate-authority", &options.tls.ca, &options.tls.ca_pem));
    WEFT_RETURN_IF_ERROR(
        ReadPair(user, "client-certificate", &options.tls.certificate, &options.tls.certificate_pem));
    WEFT_RETURN_IF_ERROR(ReadPair(user, "client-key", &options.tls.key, &options.tls.key_pem));
    options.token_file = PathOf(ScalarOf(user, "tokenFile"));
    if (options.token_file.empty()) options.token = ScalarOf(user, "token");
    if (const YamlNode* exec = Find(user, "exec"); exec != nullptr) {
      WEFT_RETURN_IF_ERROR(ReadExec(exec, &options.exec));
    }
    return options;
  }

 private:
  absl::Status Error(absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": ", what));
  }

  std::string PathOf(const std::string& text) const {
    return text.empty() || text.front() == '/' ? text : (directory_ / text).string();
  }

  // The `inner` of the element of the list `list` whose name is `name`.
  absl::StatusOr<const YamlNode*> Named(absl::string_view list, absl::string_view inner,
                                        const std::string& name) const {
    const YamlNode* all = Find(&root_, list);
    if (all != nullptr) {
      for (const YamlNode& each : all->values) {
        if (const YamlNode* found = Find(&each, inner); found != nullptr && ScalarOf(&each, "name") == name) {
          return found;
        }
      }
    }
    return Error(absl::StrCat("`", list, "` holds no \"", name, "\""));
  }

  // A file under `key`, or its content in base64 under `key`-data, which goes first.
  absl::Status ReadPair(const YamlNode* map, const std::string& key, std::string* file,
                        std::string* content) const {
    const std::string data = ScalarOf(map, key + "-data");
    if (data.empty()) {
      *file = PathOf(ScalarOf(map, key));
      return absl::OkStatus();
    }
    if (!absl::Base64Unescape(data, content)) return Error(absl::StrCat("`", key, "-data` is no base64"));
    return absl::OkStatus();
  }

  absl::Status ReadExec(const YamlNode* from, KubeExec* exec) const {
    exec->api_version = ScalarOf(from, "apiVersion");
    if (exec->api_version != "client.authentication.k8s.io/v1" &&
        exec->api_version != "client.authentication.k8s.io/v1beta1") {
      return Error(absl::StrCat("`exec.apiVersion` \"", exec->api_version, "\" is not supported"));
    }
    if (ScalarOf(from, "provideClusterInfo") == "true")
      return Error("`exec.provideClusterInfo` is not supported");
    if (ScalarOf(from, "interactiveMode") == "Always")
      return Error("`exec.interactiveMode` Always: nobody is asked");
    std::string command = ScalarOf(from, "command");
    if (command.empty()) return Error("`exec.command` is missing");
    // A path is of the file's folder, a name is looked up.
    if (absl::StrContains(command, "/")) command = PathOf(command);
    exec->command.push_back(std::move(command));
    if (const YamlNode* arguments = Find(from, "args"); arguments != nullptr) {
      for (const YamlNode& each : arguments->values) exec->command.push_back(each.text);
    }
    if (const YamlNode* variables = Find(from, "env"); variables != nullptr) {
      for (const YamlNode& each : variables->values) {
        exec->environment.push_back(absl::StrCat(ScalarOf(&each, "name"), "=", ScalarOf(&each, "value")));
      }
    }
    return absl::OkStatus();
  }

  const std::string& path_;
  std::filesystem::path directory_;
  const YamlNode& root_;
};

}  // namespace

absl::StatusOr<KubeOptions> LoadKubeconfig(const std::string& path, const std::string& context) {
  WEFT_ASSIGN_OR_RETURN(YamlDocument document, LoadYaml(path));
  WEFT_RETURN_IF_ERROR(document.errors().ToStatus());
  return Reader(path, document.root()).Read(context);
}

absl::StatusOr<KubeOptions> KubeOptionsOfPod(const std::string& directory) {
  const char* host = std::getenv("KUBERNETES_SERVICE_HOST");
  const char* port = std::getenv("KUBERNETES_SERVICE_PORT");
  if (host == nullptr || port == nullptr) {
    return absl::NotFoundError(
        "this is no pod of Kubernetes (KUBERNETES_SERVICE_HOST is not set): name a `kubeconfig`");
  }
  KubeOptions options;
  const bool ipv6 = absl::StrContains(host, ":");
  options.server = absl::StrCat("https://", ipv6 ? "[" : "", host, ipv6 ? "]" : "", ":", port);
  options.tls.ca = directory + "/ca.crt";
  options.token_file = directory + "/token";
  for (const std::string& file : {options.tls.ca, options.token_file}) {
    if (access(file.c_str(), R_OK) != 0) return absl::ErrnoToStatus(errno, file);
  }
  return options;
}

}  // namespace weft::control
