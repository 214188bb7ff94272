// SPDX-License-Identifier: Apache-2.0
#include "control/source/http_client.h"

#include <curl/curl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/clock.h"

namespace weft::control {
namespace {

// The silent death of the peer of a watch is noticed after 5 + 3 × 2 s.
constexpr long kKeepAliveIdleS = 5;
constexpr long kKeepAliveIntervalS = 2;
constexpr int kKeepAliveProbes = 3;

int OnSocketMade(void* /*self*/, curl_socket_t fd, curlsocktype /*purpose*/) {
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &kKeepAliveProbes, sizeof(kKeepAliveProbes));
  return CURL_SOCKOPT_OK;
}

int CurlEvents(short revents) {
  int events = 0;
  if ((revents & (POLLIN | POLLHUP)) != 0) events |= CURL_CSELECT_IN;
  if ((revents & POLLOUT) != 0) events |= CURL_CSELECT_OUT;
  if ((revents & (POLLERR | POLLNVAL)) != 0) events |= CURL_CSELECT_ERR;
  return events;
}

}  // namespace

struct HttpClient::Transfer {
  RequestId id = 0;
  HttpRequest request;
  HttpHandlers handlers;
  CURL* easy = nullptr;
  curl_slist* headers = nullptr;
  char error[CURL_ERROR_SIZE] = {};
  bool cancelled = false;

  ~Transfer() {
    curl_slist_free_all(headers);
    curl_easy_cleanup(easy);
  }

  static std::size_t OnData(char* data, std::size_t size, std::size_t count, void* self) {
    auto* transfer = static_cast<Transfer*>(self);
    if (transfer->cancelled) return 0;
    long code = 0;
    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &code);
    const bool go_on = transfer->handlers.on_data(absl::string_view(data, size * count), code);
    return go_on && !transfer->cancelled ? size * count : 0;
  }

  // Gets each line of the head; an empty one ends it.
  static std::size_t OnHead(char* data, std::size_t size, std::size_t count, void* self) {
    auto* transfer = static_cast<Transfer*>(self);
    if (transfer->cancelled) return 0;
    if (absl::string_view(data, size * count) == "\r\n" && transfer->handlers.on_open) {
      long code = 0;
      curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &code);
      transfer->handlers.on_open(code);
    }
    return transfer->cancelled ? 0 : size * count;
  }

  void Prepare() {
    curl_easy_setopt(easy, CURLOPT_URL, request.url.c_str());
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    // A transfer a connection: several in one (HTTP/2) are framed once more at either end, which makes the
    // sync of a large mesh longer, and one was seen to stand still until its time was over (DECISIONS 114).
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
    curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, kKeepAliveIdleS);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, kKeepAliveIntervalS);
    curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, &OnSocketMade);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(request.timeout_ms));
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(request.connect_timeout_ms));
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, error);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, this);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &Transfer::OnData);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, this);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, &Transfer::OnHead);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, this);
    PrepareTls();
    if (request.fresh) curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    for (const std::string& header : request.headers) headers = curl_slist_append(headers, header.c_str());
    if (!request.body.empty()) {
      headers = curl_slist_append(headers, ("Content-Type: " + request.content_type).c_str());
      headers =
          curl_slist_append(headers, "Expect:");  // Or a body above 1 KiB waits for a 100 for up to 1 s.
      curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request.body.c_str());
      curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
    }
    if (!request.method.empty()) curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request.method.c_str());
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
  }

  void SetBlob(CURLoption option, std::string* content) {
    curl_blob blob{content->data(), content->size(), CURL_BLOB_NOCOPY};
    curl_easy_setopt(easy, option, &blob);
  }

  void PrepareTls() {
    TlsFiles& tls = request.tls;
    if (!tls.ca_pem.empty()) {
      SetBlob(CURLOPT_CAINFO_BLOB, &tls.ca_pem);
    } else if (!tls.ca.empty()) {
      curl_easy_setopt(easy, CURLOPT_CAINFO, tls.ca.c_str());
    }
    curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L);  // Else a new CA is noticed after a day.
    if (!tls.certificate_pem.empty()) {
      SetBlob(CURLOPT_SSLCERT_BLOB, &tls.certificate_pem);
    } else if (!tls.certificate.empty()) {
      curl_easy_setopt(easy, CURLOPT_SSLCERT, tls.certificate.c_str());
    }
    if (!tls.key_pem.empty()) {
      SetBlob(CURLOPT_SSLKEY_BLOB, &tls.key_pem);
    } else if (!tls.key.empty()) {
      curl_easy_setopt(easy, CURLOPT_SSLKEY, tls.key.c_str());
    }
  }
};

struct HttpClient::Library {
  CURLM* multi = nullptr;

  ~Library() { curl_multi_cleanup(multi); }

  static int OnSocket(CURL* /*easy*/, curl_socket_t fd, int what, void* self, void* /*of_socket*/) {
    auto* client = static_cast<HttpClient*>(self);
    if (what == CURL_POLL_REMOVE) {
      client->sockets_.erase(fd);
      return 0;
    }
    short events = 0;
    if ((what & CURL_POLL_IN) != 0) events |= POLLIN;
    if ((what & CURL_POLL_OUT) != 0) events |= POLLOUT;
    client->sockets_[fd] = events;
    return 0;
  }

  static int OnTimer(CURLM* /*multi*/, long timeout_ms, void* self) {
    static_cast<HttpClient*>(self)->wake_ns_ =
        timeout_ms < 0 ? 0 : NowNs() + static_cast<uint64_t>(timeout_ms) * kNsPerMs + 1;
    return 0;
  }
};

HttpClient::HttpClient() : library_(std::make_unique<Library>()) {}

absl::StatusOr<std::unique_ptr<HttpClient>> HttpClient::Create() {
  static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (started != CURLE_OK) return absl::InternalError("libcurl does not start");
  auto client = std::unique_ptr<HttpClient>(new HttpClient());
  CURLM* multi = client->library_->multi = curl_multi_init();
  if (multi == nullptr) return absl::ResourceExhaustedError("libcurl makes no multi handle");
  curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, &Library::OnSocket);
  curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, client.get());
  curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, &Library::OnTimer);
  curl_multi_setopt(multi, CURLMOPT_TIMERDATA, client.get());
  return client;
}

HttpClient::~HttpClient() {
  for (auto& [id, transfer] : transfers_) curl_multi_remove_handle(library_->multi, transfer->easy);
  transfers_.clear();
}

HttpClient::RequestId HttpClient::Start(HttpRequest request, HttpHandlers handlers) {
  auto transfer = std::make_unique<Transfer>();
  transfer->id = ++last_id_;
  transfer->request = std::move(request);
  transfer->handlers = std::move(handlers);
  transfer->easy = curl_easy_init();
  transfer->Prepare();
  transfers_.emplace(last_id_, std::move(transfer));
  starting_.push_back(last_id_);
  if (!inside_) AddStarted();
  return last_id_;
}

// libcurl takes no new transfer from within its callbacks.
void HttpClient::AddStarted() {
  for (const RequestId id : std::exchange(starting_, {})) {
    const auto it = transfers_.find(id);
    if (it != transfers_.end()) curl_multi_add_handle(library_->multi, it->second->easy);
  }
}

void HttpClient::Cancel(RequestId id) {
  // Not removed here: libcurl may be calling us from within this very transfer.
  if (const auto it = transfers_.find(id); it != transfers_.end()) {
    it->second->cancelled = true;
    cancelled_.push_back(std::move(it->second));
    transfers_.erase(it);
    if (wake_ns_ == 0) wake_ns_ = 1;
  }
}

void HttpClient::AddPollEntries(std::vector<pollfd>* entries) const {
  for (const auto& [fd, events] : sockets_) entries->push_back({fd, events, 0});
}

void HttpClient::OnEvents(const std::vector<pollfd>& entries) {
  int running = 0;
  inside_ = true;
  for (const pollfd& entry : entries) {
    // A socket that an earlier event of this round closed may be another's by now.
    if (entry.revents == 0 || !sockets_.contains(entry.fd)) continue;
    curl_multi_socket_action(library_->multi, entry.fd, CurlEvents(entry.revents), &running);
  }
  inside_ = false;
  Collect();
  // What libcurl then wants at once, such as to hand out what it has read, belongs to these events.
  OnTime(NowNs());
}

void HttpClient::OnTime(uint64_t now_ns) {
  if (wake_ns_ == 0 || now_ns < wake_ns_) return;
  wake_ns_ = 0;
  int running = 0;
  inside_ = true;
  curl_multi_socket_action(library_->multi, CURL_SOCKET_TIMEOUT, 0, &running);
  inside_ = false;
  Collect();
}

void HttpClient::Collect() {
  int left = 0;
  while (const CURLMsg* message = curl_multi_info_read(library_->multi, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    const CURLcode result = message->data.result;
    Transfer* transfer = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
    const auto it = transfers_.find(transfer->id);
    if (it == transfers_.end()) continue;  // Cancelled; below.
    const std::unique_ptr<Transfer> done = std::move(it->second);
    transfers_.erase(it);
    curl_multi_remove_handle(library_->multi, done->easy);
    if (result == CURLE_WRITE_ERROR) continue;  // Its owner ended it.
    long code = 0;
    curl_easy_getinfo(done->easy, CURLINFO_RESPONSE_CODE, &code);
    absl::Status status;
    if (result != CURLE_OK) {
      const char* why =
          done->error[0] != 0 ? static_cast<const char*>(done->error) : curl_easy_strerror(result);
      status = absl::UnavailableError(absl::StrCat(done->request.url, ": ", why));
    }
    done->handlers.on_done(status, code);
  }
  for (const std::unique_ptr<Transfer>& transfer : std::exchange(cancelled_, {})) {
    curl_multi_remove_handle(library_->multi, transfer->easy);
  }
  AddStarted();
}

}  // namespace weft::control
