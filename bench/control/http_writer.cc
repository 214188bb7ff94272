// SPDX-License-Identifier: Apache-2.0
#include "bench/control/http_writer.h"

#include <curl/curl.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace weft::bench {
namespace {

constexpr long kTimeoutMs = 10'000;

std::size_t Append(char* data, std::size_t size, std::size_t count, void* answer) {
  static_cast<std::string*>(answer)->append(data, size * count);
  return size * count;
}

}  // namespace

HttpWriter::HttpWriter(Options options) : options_(std::move(options)), curl_(curl_easy_init()) {
  curl_slist* headers =
      curl_slist_append(nullptr, absl::StrCat("Content-Type: ", options_.content_type).c_str());
  if (!options_.token.empty()) {
    headers = curl_slist_append(headers, absl::StrCat("Authorization: Bearer ", options_.token).c_str());
  }
  headers_ = headers;
  curl_easy_setopt(curl_, CURLOPT_HTTPHEADER, headers);
  if (!options_.ca.empty()) curl_easy_setopt(curl_, CURLOPT_CAINFO, options_.ca.c_str());
  curl_easy_setopt(curl_, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl_, CURLOPT_TIMEOUT_MS, kTimeoutMs);
  curl_easy_setopt(curl_, CURLOPT_WRITEFUNCTION, &Append);
}

HttpWriter::~HttpWriter() {
  curl_slist_free_all(static_cast<curl_slist*>(headers_));
  curl_easy_cleanup(curl_);
}

absl::StatusOr<std::string> HttpWriter::Ask(const std::string& method, const std::string& path,
                                            const std::string& body) {
  std::string answer;
  curl_easy_setopt(curl_, CURLOPT_URL, absl::StrCat(options_.server, path).c_str());
  curl_easy_setopt(curl_, CURLOPT_CUSTOMREQUEST, method.c_str());
  curl_easy_setopt(curl_, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
  curl_easy_setopt(curl_, CURLOPT_POSTFIELDS, body.c_str());
  curl_easy_setopt(curl_, CURLOPT_WRITEDATA, &answer);
  const CURLcode ended = curl_easy_perform(curl_);
  if (ended != CURLE_OK) {
    return absl::UnavailableError(
        absl::StrCat(method, " ", options_.server, path, ": ", curl_easy_strerror(ended)));
  }
  long code = 0;
  curl_easy_getinfo(curl_, CURLINFO_RESPONSE_CODE, &code);
  if (code / 100 == 2) return answer;
  return absl::InternalError(
      absl::StrCat(method, " ", options_.server, path, ": ", code, ": ", answer.substr(0, 300)));
}

}  // namespace weft::bench
