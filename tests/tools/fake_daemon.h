// SPDX-License-Identifier: Apache-2.0
// A daemon's admin socket that answers what a test wrote down, on a thread of its own: for golden outputs of
// weftctl, and for answers that no good daemon gives.
#ifndef WEFT_TESTS_TOOLS_FAKE_DAEMON_H_
#define WEFT_TESTS_TOOLS_FAKE_DAEMON_H_

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "dataplane/api/admin.pb.h"
#include "dataplane/base/fd.h"

namespace weft::ctl {

class FakeDaemon {
 public:
  // The packets to answer a request with; none: the connection is closed.
  using Script = std::function<std::vector<std::string>(const api::AdminRequest&)>;

  FakeDaemon(const std::string& path, Script script);
  ~FakeDaemon();
  FakeDaemon(const FakeDaemon&) = delete;
  FakeDaemon& operator=(const FakeDaemon&) = delete;

 private:
  void Run();

  Script script_;
  UniqueFd listener_;
  UniqueFd stop_;
  std::thread thread_;
};

}  // namespace weft::ctl

#endif  // WEFT_TESTS_TOOLS_FAKE_DAEMON_H_
