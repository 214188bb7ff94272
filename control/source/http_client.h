// SPDX-License-Identifier: Apache-2.0
// HTTP for the orchestrator sources: requests over libcurl's multi interface, driven by the poll loop of
// weft-control. An answer arrives in pieces, so that a watch can stay open for days. Nothing blocks. One
// thread.
#ifndef WEFT_CONTROL_SOURCE_HTTP_CLIENT_H_
#define WEFT_CONTROL_SOURCE_HTTP_CLIENT_H_

#include <poll.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace weft::control {

// Empty paths: libcurl's defaults; with a certificate the client proves who it is. Each may be given as its
// content instead, which goes first.
struct TlsFiles {
  std::string ca;
  std::string certificate;
  std::string key;
  std::string ca_pem = {};
  std::string certificate_pem = {};
  std::string key_pem = {};
};

struct HttpRequest {
  std::string url;
  std::string body;         // Not empty: POST, but for `method`. Else GET.
  std::string method = {};  // Another than these
  std::string content_type = "application/json";
  std::vector<std::string> headers;  // "Authorization: …"
  TlsFiles tls;
  bool fresh = false;           // By a connection of its own: who the client is was said when one opened.
  uint64_t timeout_ms = 5'000;  // Of the whole request; 0: none, and a peer that says nothing is told by TCP.
  uint64_t connect_timeout_ms = 2'000;
};

// What one request tells its owner, from within OnEvents() and OnTime(). A handler may start and cancel
// requests.
struct HttpHandlers {
  // The answer begins, with this HTTP status. May be null.
  std::function<void(long code)> on_open = nullptr;
  // A piece of the body, and the HTTP status. False ends the request: on_done is not called.
  std::function<bool(absl::string_view piece, long code)> on_data;
  // The end. UNAVAILABLE names the URL and why no answer came; else `code` is the HTTP status.
  std::function<void(const absl::Status& status, long code)> on_done;
};

class HttpClient {
 public:
  using RequestId = uint64_t;

  static absl::StatusOr<std::unique_ptr<HttpClient>> Create();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;
  ~HttpClient();

  RequestId Start(HttpRequest request, HttpHandlers handlers);
  // No handler of it is called any more. Ids that have ended are let pass.
  void Cancel(RequestId id);

  void AddPollEntries(std::vector<pollfd>* entries) const;
  void OnEvents(const std::vector<pollfd>& entries);
  uint64_t wake_ns() const { return wake_ns_; }  // CLOCK_MONOTONIC; 0: never
  void OnTime(uint64_t now_ns);

 private:
  struct Library;   // libcurl's handles and callbacks, known to the .cc file alone.
  struct Transfer;  // One request under way.

  HttpClient();
  void Collect();
  void AddStarted();

  std::unique_ptr<Library> library_;
  std::map<RequestId, std::unique_ptr<Transfer>> transfers_;
  std::map<int, short> sockets_;  // What libcurl waits for
  std::vector<RequestId> starting_;
  bool inside_ = false;                               // libcurl is calling us.
  std::vector<std::unique_ptr<Transfer>> cancelled_;  // Freed outside libcurl's callbacks.
  uint64_t wake_ns_ = 0;
  RequestId last_id_ = 0;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_HTTP_CLIENT_H_
