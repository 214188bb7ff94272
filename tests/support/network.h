// SPDX-License-Identifier: Apache-2.0
// Network namespaces of a test's own, joined by a veth pair. They have no name and end with the objects and,
// should the test be killed, with its process: nothing is left to clean up.
#ifndef WEFT_TESTS_SUPPORT_NETWORK_H_
#define WEFT_TESTS_SUPPORT_NETWORK_H_

#include <cstdint>
#include <string>

#include "dataplane/base/fd.h"
#include "tests/support/process.h"

namespace weft::test {

// A network namespace with its loopback up.
class NetworkNamespace {
 public:
  NetworkNamespace();

  int fd() const { return fd_.get(); }
  // A path under which other processes can open it, as long as this one lives.
  std::string path() const;
  // Runs a program in it to its end; fails the test where that says so.
  void Run(std::vector<std::string> arguments) const;

 private:
  UniqueFd fd_;
};

// Puts the calling thread, and what it starts, into a namespace until the end of the scope.
class InNamespace {
 public:
  explicit InNamespace(const NetworkNamespace& where);
  ~InNamespace();
  InNamespace(const InNamespace&) = delete;
  InNamespace& operator=(const InNamespace&) = delete;

 private:
  UniqueFd before_;
};

struct VethOptions {
  int queues = 1;  // Receive and transmit queues at either end.
  int mtu = 1500;  // Native XDP on veth takes at most 3,498.
};

// Two namespaces, each with an interface `weft0` of the pair: near has 10.77.0.1 and fd77::1, far 10.77.0.2
// and fd77::2, both up.
class VethPair {
 public:
  static constexpr char kInterface[] = "weft0";
  static constexpr char kNearAddress[] = "10.77.0.1";
  static constexpr char kFarAddress[] = "10.77.0.2";
  static constexpr char kNearAddress6[] = "fd77::1";
  static constexpr char kFarAddress6[] = "fd77::2";

  // Whether the user may make namespaces and interfaces.
  static bool Privileged();

  explicit VethPair(VethOptions options = {});

  // Makes the pair anew after it was deleted, with the same names and addresses: Unplug deletes it.
  void Plug();
  void Unplug() { near_.Run({"/sbin/ip", "link", "del", kInterface}); }

  const NetworkNamespace& near() const { return near_; }
  const NetworkNamespace& far() const { return far_; }
  // Index of `weft0` within its namespace.
  int near_index() const { return near_index_; }
  int far_index() const { return far_index_; }

 private:
  void Make();
  void Configure();

  const VethOptions options_;
  NetworkNamespace near_;
  NetworkNamespace far_;
  int near_index_ = 0;
  int far_index_ = 0;
};

}  // namespace weft::test

#endif  // WEFT_TESTS_SUPPORT_NETWORK_H_
