// SPDX-License-Identifier: Apache-2.0
#include "control/source/kubernetes/kube_access.h"

#include <time.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "dataplane/config/yaml.h"

namespace weft::control {
namespace {

constexpr std::size_t kTokenBytesMax = 64 << 10;
// Between two runs of the program, whatever the server says of what it prints.
constexpr uint64_t kPauseNs = kNsPerSecond;
// A credential is renewed so long before it expires.
constexpr uint64_t kMarginS = 10;

}  // namespace

absl::StatusOr<HttpRequest> KubeAccess::RequestOf(absl::string_view path) {
  HttpRequest request;
  request.url = absl::StrCat(options_.server, path);
  request.tls = options_.tls;
  request.fresh = std::exchange(fresh_, false);
  std::string token = options_.token;
  if (!options_.token_file.empty()) {
    WEFT_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(options_.token_file, kTokenBytesMax));
    token = std::string(absl::StripAsciiWhitespace(text));
  }
  if (has_credential_) {
    if (!credential_.token.empty()) token = credential_.token;
    if (!credential_.certificate_pem.empty()) {
      request.tls.certificate_pem = credential_.certificate_pem;
      request.tls.key_pem = credential_.key_pem;
    }
  }
  // It must not end the header.
  if (token.find_first_of("\r\n") != std::string::npos) {
    return absl::InvalidArgumentError("the token is of several lines");
  }
  if (!token.empty()) request.headers.push_back(absl::StrCat("Authorization: Bearer ", token));
  return request;
}

void KubeAccess::Refused() {
  has_credential_ = false;
  fresh_ = true;
}

uint64_t KubeAccess::wake_ns() const {
  if (options_.exec.command.empty()) return 0;
  if (child_.busy()) return child_.wake_ns();
  return has_credential_ ? expires_ns_ : run_at_ns_;
}

void KubeAccess::OnTime(uint64_t now_ns) {
  now_ns_ = now_ns;
  child_.OnTime(now_ns);
  if (options_.exec.command.empty() || child_.busy()) return;
  if (has_credential_ && expires_ns_ != 0 && now_ns >= expires_ns_) has_credential_ = false;
  if (has_credential_ || now_ns < run_at_ns_) return;
  run_at_ns_ = now_ns + kPauseNs;
  std::vector<std::string> environment = options_.exec.environment;
  environment.push_back(absl::StrCat(R"(KUBERNETES_EXEC_INFO={"apiVersion":")", options_.exec.api_version,
                                     R"(","kind":"ExecCredential","spec":{"interactive":false}})"));
  child_.Start(options_.exec.command, environment, now_ns,
               [this](const absl::StatusOr<std::string>& output) { Take(output); });
}

void KubeAccess::Take(const absl::StatusOr<std::string>& output) {
  absl::StatusOr<KubeCredential> credential =
      output.ok() ? ParseKubeCredential(*output) : absl::StatusOr<KubeCredential>(output.status());
  if (!credential.ok()) {
    problem_ =
        absl::StrCat("no credential by ", options_.exec.command[0], ": ", credential.status().message());
    return;
  }
  problem_.clear();
  credential_ = *std::move(credential);
  has_credential_ = true;
  expires_ns_ = 0;
  if (credential_.expires_unix_s == 0) return;
  const auto unix_s = static_cast<uint64_t>(time(nullptr));
  const uint64_t left_s =
      credential_.expires_unix_s > unix_s + kMarginS ? credential_.expires_unix_s - unix_s - kMarginS : 0;
  // Not sooner than it may be run again: a clock may be wrong, or the credential of a few seconds.
  expires_ns_ = std::max(NowNs() + std::min(left_s, uint64_t{1} << 30) * kNsPerSecond, run_at_ns_);
}

}  // namespace weft::control
