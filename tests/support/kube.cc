// SPDX-License-Identifier: Apache-2.0
#include "tests/support/kube.h"

#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "control/source/kubernetes/kube_json.h"
#include "dataplane/base/check.h"
#include "dataplane/base/clock.h"

namespace weft::test {
namespace {

// What tools/setup built.
constexpr char kProgram[] = WEFT_SOURCE_DIR "/build/programs/kube-apiserver";

}  // namespace

bool Kube::Installed() { return Etcd::Installed() && access(kProgram, X_OK) == 0; }

Kube::Kube() : server_(authority_.Issue("server")), url_(absl::StrCat("https://127.0.0.1:", FreePort())) {
  absl::StatusOr<std::unique_ptr<control::HttpClient>> http = control::HttpClient::Create();
  WEFT_CHECK(http.ok());
  http_ = *std::move(http);
  const Ran ran = Run({"/usr/bin/openssl", "genrsa", "-out", directory_ / "accounts.key", "2048"});
  WEFT_CHECK(ran.exit_code == 0);
  Start();
}

void Kube::Start() {
  WriteFile(directory_ / "tokens", absl::StrCat(token_, ",admin,1,\"system:masters\"\n"));
  ProcessOptions options;
  options.arguments = {kProgram,
                       absl::StrCat("--etcd-servers=", etcd_.url()),
                       absl::StrCat("--cert-dir=", directory_ / "certificates"),
                       absl::StrCat("--tls-cert-file=", server_.certificate),
                       absl::StrCat("--tls-private-key-file=", server_.key),
                       absl::StrCat("--client-ca-file=", server_.ca),
                       absl::StrCat("--token-auth-file=", directory_ / "tokens"),
                       "--service-account-issuer=https://kubernetes.default.svc",
                       absl::StrCat("--service-account-key-file=", directory_ / "accounts.key"),
                       absl::StrCat("--service-account-signing-key-file=", directory_ / "accounts.key"),
                       "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/108",
                       "--authorization-mode=RBAC",
                       "--disable-admission-plugins=ServiceAccount",
                       "--endpoint-reconciler-type=none",
                       "--bind-address=127.0.0.1",
                       absl::StrCat("--secure-port=", url_.substr(url_.rfind(':') + 1))};
  options.log = directory_ / "log";
  process_ = std::make_unique<Process>(options);
  const bool up =
      Eventually([this] { return !process_->Running() || Ask("GET", "/readyz").ok(); }, absl::Seconds(60));
  if (!up || !process_->Running()) std::fprintf(stderr, "%s\n", process_->Output().c_str());
  WEFT_CHECK(up && process_->Running());
}

control::KubeOptions Kube::Options() const {
  control::KubeOptions options;
  options.server = url_;
  options.tls.ca = server_.ca;
  options.token = token_;
  return options;
}

absl::StatusOr<std::string> Kube::Ask(const std::string& method, const std::string& path,
                                      const std::string& body) {
  control::HttpRequest request;
  request.url = url_ + path;
  request.method = method;
  request.body = body;
  if (!body.empty() && body.front() != '{') request.content_type = "application/yaml";
  request.tls.ca = server_.ca;
  request.headers.push_back(absl::StrCat("Authorization: Bearer ", token_));
  std::string answer;
  absl::Status status;
  long code = 0;
  bool done = false;
  http_->Start(std::move(request), {.on_data =
                                        [&answer](absl::string_view piece, long /*code*/) {
                                          absl::StrAppend(&answer, piece);
                                          return true;
                                        },
                                    .on_done =
                                        [&](const absl::Status& ended, long http_status) {
                                          status = ended;
                                          code = http_status;
                                          done = true;
                                        }});
  while (!done) {
    http_->OnTime(NowNs());
    std::vector<pollfd> entries;
    http_->AddPollEntries(&entries);
    poll(entries.data(), entries.size(), 1);
    http_->OnEvents(entries);
  }
  if (!status.ok()) return status;
  if (code / 100 == 2) return answer;
  return absl::FailedPreconditionError(
      absl::StrCat(method, " ", path, ": ", code, ": ", control::KubeMessageOf(answer)));
}

void Kube::Create(const std::string& path, const std::string& body) {
  const absl::StatusOr<std::string> answer = Ask("POST", path, body);
  if (!answer.ok()) std::fprintf(stderr, "%s\n", answer.status().ToString().c_str());
  WEFT_CHECK(answer.ok());
}

void Kube::Replace(const std::string& path, const std::string& body) {
  const absl::StatusOr<std::string> answer = Ask("PUT", path, body);
  if (!answer.ok()) std::fprintf(stderr, "%s\n", answer.status().ToString().c_str());
  WEFT_CHECK(answer.ok());
}

void Kube::Delete(const std::string& path) {
  const absl::StatusOr<std::string> answer = Ask("DELETE", path);
  if (!answer.ok()) std::fprintf(stderr, "%s\n", answer.status().ToString().c_str());
  WEFT_CHECK(answer.ok());
}

void Kube::InstallGatewayApi() {
  const struct {
    const char* kind;
    const char* plural;
    const char* singular;
    const char* version;
  } kinds[] = {{"HTTPRoute", "httproutes", "httproute", "v1"},
               {"GRPCRoute", "grpcroutes", "grpcroute", "v1"},
               {"ReferenceGrant", "referencegrants", "referencegrant", "v1beta1"}};
  constexpr char kLoose[] = R"({"type":"object","x-kubernetes-preserve-unknown-fields":true})";
  for (const auto& each : kinds) {
    Create(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        absl::StrCat(
            // A group below k8s.io is made by whom the API's owners let.
            R"({"metadata":{"annotations":{"api-approved.kubernetes.io":"unapproved, for tests"},"name":")",
            each.plural, R"(.gateway.networking.k8s.io"},"spec":{"group":"gateway.networking.k8s.io",)",
            R"("scope":"Namespaced","names":{"kind":")", each.kind, R"(","plural":")", each.plural,
            R"(","singular":")", each.singular, R"("},"versions":[{"name":")", each.version,
            R"(","served":true,"storage":true,"subresources":{"status":{}},"schema":{"openAPIV3Schema":)",
            R"({"type":"object","properties":{"spec":)", kLoose, R"(,"status":)", kLoose, "}}}}]}}"));
  }
  for (const auto& each : kinds) {
    const std::string list = absl::StrCat("/apis/gateway.networking.k8s.io/", each.version, "/", each.plural);
    WEFT_CHECK(Eventually([&] { return Ask("GET", list).ok(); }, absl::Seconds(30)));
  }
}

}  // namespace weft::test
