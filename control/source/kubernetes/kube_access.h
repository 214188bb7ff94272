// SPDX-License-Identifier: Apache-2.0
// Who weft-control is at a Kubernetes API server: makes its requests, reads the token file anew for each of
// them, and runs the program that prints credentials where there is one, again when they expire or the server
// refuses them. One thread.
#ifndef WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_ACCESS_H_
#define WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_ACCESS_H_

#include <poll.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "control/source/http_client.h"
#include "control/source/kubernetes/child_output.h"
#include "control/source/kubernetes/kube_config.h"
#include "control/source/kubernetes/kube_json.h"

namespace weft::control {

class KubeAccess {
 public:
  explicit KubeAccess(KubeOptions options) : options_(std::move(options)) {}

  // Whether RequestOf() can be asked now; else once the program has ended.
  bool ready() const { return options_.exec.command.empty() || has_credential_; }
  // A GET of `path`, with its query. Reads the token file, which may fail.
  absl::StatusOr<HttpRequest> RequestOf(absl::string_view path);
  // The server does not know who we are: the next request says it anew.
  void Refused();

  void AddPollEntries(std::vector<pollfd>* entries) const { child_.AddPollEntries(entries); }
  void OnEvents(const std::vector<pollfd>& entries) { child_.OnEvents(entries); }
  uint64_t wake_ns() const;  // CLOCK_MONOTONIC; 0: never
  void OnTime(uint64_t now_ns);

  const std::string& server() const { return options_.server; }
  // Why there is no credential; empty: there is one, or the program runs for the first time.
  const std::string& problem() const { return problem_; }

 private:
  void Take(const absl::StatusOr<std::string>& output);

  KubeOptions options_;
  ChildOutput child_;
  bool has_credential_ = false;
  KubeCredential credential_;
  uint64_t expires_ns_ = 0;  // 0: never
  uint64_t run_at_ns_ = 1;   // Not before; at once
  uint64_t now_ns_ = 0;
  bool fresh_ = false;
  std::string problem_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_ACCESS_H_
