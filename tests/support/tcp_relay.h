// SPDX-License-Identifier: Apache-2.0
// A port of the loopback that hands its connections on to another, until it is cut: a network that fails
// between two programs that both go on. A thread of its own carries the bytes.
#ifndef WEFT_TESTS_SUPPORT_TCP_RELAY_H_
#define WEFT_TESTS_SUPPORT_TCP_RELAY_H_

#include <poll.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "dataplane/base/fd.h"

namespace weft::test {

class TcpRelay {
 public:
  explicit TcpRelay(uint16_t to);
  ~TcpRelay();
  TcpRelay(const TcpRelay&) = delete;
  TcpRelay& operator=(const TcpRelay&) = delete;

  uint16_t port() const { return port_; }
  // Ends all connections, and each new one at once. Mend() has them carried again.
  void Cut() { cut_ = true; }
  void Mend() { cut_ = false; }

 private:
  struct Pair {
    UniqueFd near, far;
  };
  void Run();
  void Accept();

  const uint16_t to_;
  uint16_t port_ = 0;
  UniqueFd listener_;
  std::vector<Pair> pairs_;  // On the thread alone
  std::atomic<bool> cut_ = false;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace weft::test

#endif  // WEFT_TESTS_SUPPORT_TCP_RELAY_H_
