// SPDX-License-Identifier: Apache-2.0
// One talk with an etcd cluster over its JSON gateway: which member is asked, who we are there, and how a
// failure is told. The source and the presence of the node have two each. One thread.
#ifndef WEFT_CONTROL_SOURCE_ETCD_ETCD_CONNECTION_H_
#define WEFT_CONTROL_SOURCE_ETCD_ETCD_CONNECTION_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "control/source/http_client.h"

namespace weft::control {

struct EtcdOptions {
  std::vector<std::string> endpoints;  // URLs, as in http://10.0.0.1:2379; at least one.
  std::string prefix = "/weft/";
  TlsFiles tls;
  std::string user;  // Empty: none
  std::string password;
};

class EtcdConnection {
 public:
  using Done = std::function<void(absl::StatusOr<std::string> reply)>;

  // Both outlive the connection.
  EtcdConnection(const EtcdOptions* options, HttpClient* http) : options_(options), http_(http) {}
  EtcdConnection(const EtcdConnection&) = delete;
  EtcdConnection& operator=(const EtcdConnection&) = delete;
  ~EtcdConnection() { Cancel(); }

  // One request at a time: a second cancels the first. `done` gets the body; UNAVAILABLE names the member and
  // why it does not answer, and anything else is etcd's own error. Logs in first where that is needed, and
  // again where the token has expired.
  void Call(const std::string& path, std::string body, Done done);
  // The same, but open-ended: `line` gets each line of the answer, `done` the reason of the end.
  void Stream(const std::string& path, std::string body, std::function<void(absl::string_view line)> line,
              Done done);
  void Cancel();
  bool busy() const { return request_ != 0; }
  // Of each request from now on, streams aside; at first that of HttpRequest.
  void SetTimeout(uint64_t timeout_ms) { timeout_ms_ = timeout_ms; }

  // The next call goes to the next member.
  void Rotate() { member_ = (member_ + 1) % options_->endpoints.size(); }
  // The next call goes where the next one of `other` goes.
  void Follow(const EtcdConnection& other) { member_ = other.member_; }
  // The next call logs in anew, where there is a user: for a stream, which etcd refuses in its own words.
  void ForgetToken() { token_.clear(); }
  const std::string& member() const { return options_->endpoints[member_]; }

 private:
  struct Asked {
    std::string path;
    std::string body;
    std::function<void(absl::string_view)> line;  // Null: a plain call.
    Done done;
    bool again = false;  // It was sent with a token that had expired.
  };

  void Begin(Asked asked);
  void Login();
  void Send();
  bool OnData(absl::string_view piece, long code);
  void OnEnd(const absl::Status& status, long code);
  void Finish(absl::StatusOr<std::string> reply);
  HttpRequest RequestFor(const std::string& path, const std::string& body) const;

  const EtcdOptions* options_;
  HttpClient* http_;
  uint64_t timeout_ms_ = HttpRequest().timeout_ms;
  std::size_t member_ = 0;
  std::string token_;
  HttpClient::RequestId request_ = 0;
  Asked asked_;
  std::string buffer_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_ETCD_ETCD_CONNECTION_H_
