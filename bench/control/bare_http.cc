// SPDX-License-Identifier: Apache-2.0
#include <curl/curl.h>
#include <signal.h>
#include <simdjson.h>

#include <cstdio>
#include <cstdlib>

#include "bench/control/bare_source.h"

namespace weft::bench {
namespace {

volatile sig_atomic_t over = 0;

}  // namespace

BareHttp::BareHttp(const BareServer& server) : server_(server), curl_(curl_easy_init()) {
  curl_slist* headers = curl_slist_append(nullptr, "Content-Type: application/json");
  if (!server_.token.empty()) {
    headers = curl_slist_append(headers, ("Authorization: Bearer " + server_.token).c_str());
  }
  headers_ = headers;
  curl_easy_setopt(curl_, CURLOPT_HTTPHEADER, headers);
  if (!server_.ca.empty()) curl_easy_setopt(curl_, CURLOPT_CAINFO, server_.ca.c_str());
  curl_easy_setopt(curl_, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl_, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));  // As weft-control
  curl_easy_setopt(curl_, CURLOPT_FAILONERROR, 1L);
  curl_easy_setopt(curl_, CURLOPT_WRITEFUNCTION, &BareHttp::TakePiece);
  curl_easy_setopt(curl_, CURLOPT_WRITEDATA, this);
}

BareHttp::~BareHttp() {
  curl_slist_free_all(static_cast<curl_slist*>(headers_));
  curl_easy_cleanup(curl_);
}

std::size_t BareHttp::TakePiece(char* data, std::size_t size, std::size_t count, void* self) {
  auto* const http = static_cast<BareHttp*>(self);
  std::string& answer = http->answer_;
  answer.append(data, size * count);
  if (!http->take_) return size * count;
  std::size_t begin = 0;
  for (std::size_t end; (end = answer.find('\n', begin)) != std::string::npos; begin = end + 1) {
    std::string line = answer.substr(begin, end - begin);
    line.reserve(line.size() + simdjson::SIMDJSON_PADDING);
    http->take_(line);
  }
  answer.erase(0, begin);
  return size * count;
}

int BareHttp::IsOver(void* /*self*/, int64_t, int64_t, int64_t, int64_t) { return over; }

void BareHttp::Perform(const std::string& path, const std::string& body) {
  answer_.clear();
  curl_easy_setopt(curl_, CURLOPT_URL, (server_.url + path).c_str());
  if (body.empty()) {
    curl_easy_setopt(curl_, CURLOPT_HTTPGET, 1L);
  } else {
    curl_easy_setopt(curl_, CURLOPT_POST, 1L);
    curl_easy_setopt(curl_, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
    curl_easy_setopt(curl_, CURLOPT_POSTFIELDS, body.c_str());
  }
  const CURLcode code = curl_easy_perform(curl_);
  if (code == CURLE_OK || over != 0) return;
  std::fprintf(stderr, "weft-bench-watch: %s%s: %s\n", server_.url.c_str(), path.c_str(),
               curl_easy_strerror(code));
  std::exit(1);
}

std::string& BareHttp::Get(const std::string& path, const std::string& body) {
  take_ = nullptr;
  Perform(path, body);
  answer_.reserve(answer_.size() + simdjson::SIMDJSON_PADDING);
  return answer_;
}

void BareHttp::Stream(const std::string& path, const std::string& body,
                      std::function<void(std::string&)> take) {
  take_ = std::move(take);
  curl_easy_setopt(curl_, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl_, CURLOPT_XFERINFOFUNCTION, &BareHttp::IsOver);
  Perform(path, body);
}

BareEvents::BareEvents() {
  struct sigaction action = {};
  action.sa_handler = [](int) { over = 1; };
  sigaction(SIGTERM, &action, nullptr);
}

void BareEvents::Ready() {
  std::printf("ready\n");
  std::fflush(stdout);
}

int BareEvents::Print() const {
  for (const auto& [number, arrival_ns] : events_) {
    std::printf("%llu %llu\n", static_cast<unsigned long long>(number),
                static_cast<unsigned long long>(arrival_ns));
  }
  std::printf("end\n");
  return std::fflush(stdout) == 0 ? 0 : 1;
}

bool BareIsOver() { return over != 0; }

int BarePrintList(uint64_t ns, uint64_t objects, uint64_t bytes) {
  std::printf("%.6f %llu %llu\n", static_cast<double>(ns) / 1e9, static_cast<unsigned long long>(objects),
              static_cast<unsigned long long>(bytes));
  return 0;
}

}  // namespace weft::bench
