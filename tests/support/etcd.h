// SPDX-License-Identifier: Apache-2.0
// A real etcd of one member, on a free port and a directory of the test's own, and a plain client of its
// JSON gateway to write with.
#ifndef WEFT_TESTS_SUPPORT_ETCD_H_
#define WEFT_TESTS_SUPPORT_ETCD_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "control/source/etcd_json.h"
#include "control/source/http_client.h"
#include "tests/support/network.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"

namespace weft::test {

class Etcd {
 public:
  // False where this machine has no etcd: the test says so and skips.
  static bool Installed();

  // Starts it and waits until it answers. `network`: the namespace where `address` is; null: the test's own.
  // Outlives this.
  explicit Etcd(const NetworkNamespace* network = nullptr, const std::string& address = "127.0.0.1");

  const std::string& url() const { return url_; }
  void Start();
  void Kill() { process_->Kill(); }
  void Signal(int signal) { process_->Signal(signal); }
  // Forgets all that it held: another cluster at the same address. Only while it does not run.
  void Forget();

  void Put(const std::string& key, const std::string& value);
  void Delete(const std::string& key);
  // The value; empty: there is none.
  std::string Get(const std::string& key);
  // Drops all history up to now.
  void Compact();
  // POSTs `body` to `path`; the body of the answer. Blocks.
  absl::StatusOr<std::string> Ask(const std::string& path, const std::string& body);

 private:
  std::unique_ptr<InNamespace> Inside() const;

  const NetworkNamespace* network_;
  TemporaryDirectory directory_;
  std::string url_;
  std::string peer_url_;
  int starts_ = 0;
  std::unique_ptr<Process> process_;
  std::unique_ptr<control::HttpClient> http_;
};

}  // namespace weft::test

#endif  // WEFT_TESTS_SUPPORT_ETCD_H_
