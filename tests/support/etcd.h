// SPDX-License-Identifier: Apache-2.0
// A real etcd of one member, or a member of a cluster, on a free port and a directory of the test's own, and
// a plain client of its JSON gateway to write with.
#ifndef WEFT_TESTS_SUPPORT_ETCD_H_
#define WEFT_TESTS_SUPPORT_ETCD_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "control/source/etcd/etcd_json.h"
#include "control/source/http_client.h"
#include "tests/support/network.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"

namespace weft::test {

struct EtcdSettings {
  const NetworkNamespace* network =
      nullptr;  // Where `address` is; null: the test's own. Outlives the member.
  std::string address = "127.0.0.1";
  std::vector<std::string> arguments;  // Further ones
  // Not empty: TLS, with these files of the server; clients then show a certificate of the same CA.
  control::TlsFiles server;
  control::TlsFiles client;  // Of Ask() and all that stands on it
  // Of a member of a cluster: its name, where its peers reach it, and all of them, as in a=URL,b=URL.
  std::string name = "t";
  std::string peer_url;
  std::string members;
};

class Etcd {
 public:
  // False where this machine has no etcd: the test says so and skips.
  static bool Installed();

  // Starts it and waits until it answers, unless it is one of a cluster, which answers together.
  explicit Etcd(EtcdSettings settings = {});

  const std::string& url() const { return url_; }
  void Start();
  void WaitUntilUp();
  void Kill() { process_->Kill(); }
  void Signal(int signal) { process_->Signal(signal); }
  // Forgets all that it held: another cluster at the same address. Only while it does not run.
  void Forget();
  // Copies all that it holds, and puts the copy back. Only while it does not run.
  void Keep();
  void Return();

  void Put(const std::string& key, const std::string& value);
  void Delete(const std::string& key);
  // The value; empty: there is none.
  std::string Get(const std::string& key);
  // Drops all history up to now.
  void Compact();
  // POSTs `body` to `path`; the body of the answer. Blocks.
  absl::StatusOr<std::string> Ask(const std::string& path, const std::string& body);
  // Ask() is this user from now on.
  void LoginAs(const std::string& user, const std::string& password);
  // Turns authentication on: user root with password "root", which Ask() is from then on, and user weft with
  // password "weft", who may read and write below /weft/ and nothing else.
  void EnableUsers();

 private:
  std::unique_ptr<InNamespace> Inside() const;

  EtcdSettings settings_;
  TemporaryDirectory directory_;
  std::string url_;
  std::string user_;
  std::string password_;
  int starts_ = 0;
  std::unique_ptr<Process> process_;
  std::unique_ptr<control::HttpClient> http_;
};

// Three members that elect a leader among them.
class EtcdCluster {
 public:
  EtcdCluster();

  std::vector<std::string> urls() const;
  Etcd& member(std::size_t index) { return *members_[index]; }
  std::size_t size() const { return members_.size(); }
  // The member that leads now, as the others see it.
  std::size_t Leader();

 private:
  std::vector<std::unique_ptr<Etcd>> members_;
};

// A port of the loopback that was free a moment ago.
int FreePort();

}  // namespace weft::test

#endif  // WEFT_TESTS_SUPPORT_ETCD_H_
