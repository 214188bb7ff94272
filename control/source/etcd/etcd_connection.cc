// SPDX-License-Identifier: Apache-2.0
#include "control/source/etcd/etcd_connection.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "control/source/etcd/etcd_json.h"

namespace weft::control {
namespace {

// A page of 2,000 entries is some 1 MiB, an event a few KiB; what is larger is none of ours.
constexpr std::size_t kReplyBytesMax = std::size_t{64} << 20;

// The body of a failure is JSON where etcd itself refused.
absl::Status RefusalOf(const std::string& member, long code, const std::string& body) {
  const absl::Status said = ParseEtcdTxn(body).status();
  if (!said.ok() && said.code() != absl::StatusCode::kInternal) {
    return absl::Status(said.code(), absl::StrCat(member, ": ", said.message()));
  }
  return absl::UnavailableError(absl::StrCat(member, ": HTTP status ", code));
}

// Run out, lost in a restart, or signed before users or roles changed.
bool TokenExpired(const absl::Status& status) {
  return absl::IsUnauthenticated(status) || absl::StrContains(status.message(), "invalid auth token") ||
         absl::StrContains(status.message(), "revision of auth store is old");
}

}  // namespace

void EtcdConnection::Call(const std::string& path, std::string body, Done done) {
  Begin({path, std::move(body), nullptr, std::move(done)});
}

void EtcdConnection::Stream(const std::string& path, std::string body,
                            std::function<void(absl::string_view line)> line, Done done) {
  Begin({path, std::move(body), std::move(line), std::move(done)});
}

void EtcdConnection::Cancel() {
  if (request_ != 0) http_->Cancel(std::exchange(request_, 0));
}

void EtcdConnection::Begin(Asked asked) {
  Cancel();
  asked_ = std::move(asked);
  if (!options_->user.empty() && token_.empty()) return Login();
  Send();
}

HttpRequest EtcdConnection::RequestFor(const std::string& path, const std::string& body) const {
  HttpRequest request;
  request.url = absl::StrCat(member(), path);
  request.body = body;
  request.tls = options_->tls;
  request.timeout_ms = timeout_ms_;
  request.connect_timeout_ms = std::min(request.connect_timeout_ms, timeout_ms_);
  if (!token_.empty()) request.headers.push_back(absl::StrCat("Authorization: ", token_));
  return request;
}

void EtcdConnection::Login() {
  buffer_.clear();
  HttpRequest request =
      RequestFor("/v3/auth/authenticate", EtcdLoginJson(options_->user, options_->password));
  request_ =
      http_->Start(std::move(request),
                   {.on_data = [this](absl::string_view piece, long code) { return OnData(piece, code); },
                    .on_done =
                        [this](const absl::Status& status, long code) {
                          request_ = 0;
                          if (!status.ok()) return Finish(status);
                          if (code != 200) return Finish(RefusalOf(member(), code, buffer_));
                          absl::StatusOr<std::string> token = ParseEtcdToken(buffer_);
                          if (!token.ok()) return Finish(token.status());
                          token_ = *std::move(token);
                          Send();
                        }});
}

void EtcdConnection::Send() {
  buffer_.clear();
  HttpRequest request = RequestFor(asked_.path, asked_.body);
  if (asked_.line != nullptr) request.timeout_ms = 0;
  request_ =
      http_->Start(std::move(request),
                   {.on_data = [this](absl::string_view piece, long code) { return OnData(piece, code); },
                    .on_done = [this](const absl::Status& status, long code) { OnEnd(status, code); }});
}

bool EtcdConnection::OnData(absl::string_view piece, long code) {
  if (buffer_.size() + piece.size() > kReplyBytesMax) {
    request_ = 0;
    Finish(absl::ResourceExhaustedError(
        absl::StrCat(member(), ": an answer of more than ", kReplyBytesMax, " bytes")));
    return false;
  }
  absl::StrAppend(&buffer_, piece);
  if (asked_.line == nullptr || code != 200) return true;
  // The line that is told may end the stream, or begin another one: then the rest is nobody's.
  const std::function<void(absl::string_view)> tell = asked_.line;
  const HttpClient::RequestId request = request_;
  std::size_t begin = 0;
  for (std::size_t end; (end = buffer_.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const std::string line = buffer_.substr(begin, end - begin);
    if (!line.empty()) tell(line);
    if (request_ != request) return false;
  }
  buffer_.erase(0, begin);
  return true;
}

void EtcdConnection::OnEnd(const absl::Status& status, long code) {
  request_ = 0;
  if (!status.ok()) return Finish(status);
  if (code == 200) {
    if (asked_.line != nullptr)
      return Finish(absl::UnavailableError(absl::StrCat(member(), ": the watch ended")));
    return Finish(std::move(buffer_));
  }
  const absl::Status refusal = RefusalOf(member(), code, buffer_);
  if (!options_->user.empty() && TokenExpired(refusal) && !asked_.again) {
    asked_.again = true;
    token_.clear();
    return Login();
  }
  Finish(refusal);
}

void EtcdConnection::Finish(absl::StatusOr<std::string> reply) {
  // Moved out first: it may begin the next call.
  const Done done = std::move(asked_.done);
  done(std::move(reply));
}

}  // namespace weft::control
