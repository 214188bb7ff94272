// SPDX-License-Identifier: Apache-2.0
#include "control/source/kubernetes/kube_status.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/text.h"

namespace weft::control {
namespace {

constexpr uint64_t kDelayNsMax = 2 * kNsPerSecond;
constexpr uint64_t kRetryNs = 10 * kNsPerSecond;
constexpr std::size_t kBodyBytesMax = std::size_t{1} << 20;

std::string BodyOf(const KubeVerdict& verdict) {
  const nlohmann::json condition = {
      {"type", "Accepted"},
      {"status", verdict.good ? "True" : "False"},
      {"reason", verdict.good ? "Valid" : "Invalid"},
      {"message", verdict.message},
      {"observedGeneration", verdict.generation},
      {"lastTransitionTime", absl::FormatTime("%Y-%m-%d%ET%H:%M:%SZ", absl::Now(), absl::UTCTimeZone())}};
  const nlohmann::json json = {{"status", {{"conditions", nlohmann::json::array({condition})}}}};
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

KubeStatusWriter::~KubeStatusWriter() {
  if (request_ != 0) http_->Cancel(request_);
}

void KubeStatusWriter::Take(const std::string& key, const KubeVerdict& verdict, uint64_t now_ns) {
  if (verdict.told) return Forget(KubeKind::kPolicy, key);
  Take(KubeKind::kPolicy, key, BodyOf(verdict), now_ns);
}

void KubeStatusWriter::Take(KubeKind kind, const std::string& key, std::string body, uint64_t now_ns) {
  Due& due = due_[{kind, key}];
  due.body = std::move(body);
  if (due.at_ns == 0) due.at_ns = now_ns + 1 + random_.Below(kDelayNsMax);
}

uint64_t KubeStatusWriter::wake_ns() const {
  if (request_ != 0 || !access_->ready()) return 0;
  uint64_t wake_ns = 0;
  for (const auto& [key, due] : due_) wake_ns = wake_ns == 0 ? due.at_ns : std::min(wake_ns, due.at_ns);
  return wake_ns;
}

void KubeStatusWriter::OnTime(uint64_t now_ns) {
  now_ns_ = now_ns;
  if (request_ != 0 || !access_->ready()) return;
  for (auto& [key, due] : due_) {
    if (due.at_ns > now_ns) continue;
    due.at_ns = now_ns + kRetryNs;  // Unless it is written.
    return Write(key, due.body);
  }
}

void KubeStatusWriter::Write(const Key& key, const std::string& body) {
  const std::pair<std::string, std::string> names = absl::StrSplit(key.second, absl::MaxSplits('/', 1));
  const absl::string_view all = KubeKindPath(key.first);
  const std::size_t plural = all.rfind('/');
  absl::StatusOr<HttpRequest> request = access_->RequestOf(absl::StrCat(
      all.substr(0, plural), "/namespaces/", names.first, all.substr(plural), "/", names.second, "/status"));
  if (!request.ok()) return;  // The watches tell it.
  request->method = "PATCH";
  request->content_type = "application/merge-patch+json";
  request->body = body;
  writing_ = key;
  sent_ = body;
  body_.clear();
  request_ =
      http_->Start(*std::move(request),
                   {.on_open = nullptr,
                    .on_data =
                        [this](absl::string_view piece, long /*code*/) {
                          if (body_.size() < kBodyBytesMax) absl::StrAppend(&body_, piece);
                          return true;
                        },
                    .on_done = [this](const absl::Status& status, long code) { Written(status, code); }});
}

void KubeStatusWriter::Written(const absl::Status& status, long code) {
  request_ = 0;
  const auto due = due_.find(writing_);
  const bool written = status.ok() && code / 100 == 2;
  if (written) problem_.clear();
  if (written || code == 404) {  // It is gone.
    // Unless something else is to be said meanwhile.
    if (due != due_.end() && due->second.body == sent_) due_.erase(due);
    return;
  }
  if (code == 409) {  // Somebody was faster. What the watch tells of that is looked at first.
    if (due != due_.end()) due->second.at_ns = now_ns_ + kDelayNsMax + random_.Below(kDelayNsMax);
    return;
  }
  problem_ = status.ok() ? absl::StrCat("the status of ", KubeKindName(writing_.first), " ", writing_.second,
                                        ": HTTP status ", code, ": ", Utf8Prefix(KubeMessageOf(body_), 200))
                         : std::string(status.message());
}

}  // namespace weft::control
