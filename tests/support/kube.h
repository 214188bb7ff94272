// SPDX-License-Identifier: Apache-2.0
// A real Kubernetes API server on a real etcd, with free ports and a directory of the test's own, and a plain
// client to write with. There are no kubelets and no controllers: what a test does not write is not there.
#ifndef WEFT_TESTS_SUPPORT_KUBE_H_
#define WEFT_TESTS_SUPPORT_KUBE_H_

#include <signal.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "control/source/http_client.h"
#include "control/source/kubernetes/kube_config.h"
#include "tests/support/etcd.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tls_files.h"

namespace weft::test {

class Kube {
 public:
  // False where this machine has none: the test says so and skips.
  static bool Installed();

  // Starts both and waits until they answer.
  Kube();

  void Start();
  void Kill() { process_->Kill(); }
  // Stands still: it neither answers nor closes anything.
  void Pause() { process_->Signal(SIGSTOP); }
  void Resume() { process_->Signal(SIGCONT); }
  Etcd& etcd() { return etcd_; }
  const std::string& url() const { return url_; }
  const TlsAuthority& authority() const { return authority_; }
  // Who may do everything. Each start knows this token and no other.
  const std::string& token() const { return token_; }
  // Of the next start.
  void SetToken(const std::string& token) { token_ = token; }
  // How to reach it, as whoever holds the token.
  control::KubeOptions Options() const;

  // Sends `body`, JSON or YAML, to `path`; the body of the answer. Blocks. An answer that is no success is an
  // error with its HTTP status and message.
  absl::StatusOr<std::string> Ask(const std::string& method, const std::string& path,
                                  const std::string& body = "");
  // They fail the check where the server refuses.
  void Create(const std::string& path, const std::string& body);
  void Replace(const std::string& path, const std::string& body);
  void Delete(const std::string& path);
  // Makes the kinds of the Gateway API that bind to Services, with loose schemas of our own, and waits until
  // they are there.
  void InstallGatewayApi();

 private:
  Etcd etcd_;
  TlsAuthority authority_;
  TemporaryDirectory directory_;
  control::TlsFiles server_;
  std::string url_;
  std::string token_ = "first";
  std::unique_ptr<control::HttpClient> http_;
  std::unique_ptr<Process> process_;
};

}  // namespace weft::test

#endif  // WEFT_TESTS_SUPPORT_KUBE_H_
