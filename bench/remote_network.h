// SPDX-License-Identifier: Apache-2.0
// Two nodes for rows that cross a network: namespaces joined by a veth pair, made for one row and gone with
// it. What stands on the interfaces is the row's choice: nothing, the minimal XDP program, or the one that
// ships, both on socket buffers, as weft-control attaches it to a veth, or the minimal one in the driver.
// Coordinator's thread.
#ifndef WEFT_BENCH_REMOTE_NETWORK_H_
#define WEFT_BENCH_REMOTE_NETWORK_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/port/address.h"
#include "tests/support/network.h"
#include "tests/support/steer_on_veth.h"

struct steer_minimal_bpf;

namespace weft::bench {

inline constexpr int kNear = 0;
inline constexpr int kFar = 1;

class RemoteNetwork {
 public:
  enum class Xdp { kNone, kRedirect, kRedirectNative, kSteer };
  struct Options {
    Xdp xdp = Xdp::kNone;
    bool offloads = true;  // False: no segmentation and no coalescing on either interface.
    int mtu = 1500;
  };

  // PERMISSION_DENIED without root.
  static absl::StatusOr<std::unique_ptr<RemoteNetwork>> Create(const Options& options);
  ~RemoteNetwork();

  const test::NetworkNamespace& of(int side) const { return side == kNear ? pair_.near() : pair_.far(); }
  static port::Address AddressOf(int side);
  // The XSKMAP on that side.
  int xsks_fd(int side) const;
  // Has the program that ships let packets of this key through.
  absl::Status Allow(int side, uint32_t key_id);
  // What that program has dropped on that side without a key to charge.
  uint64_t UnknownDrops(int side) const;

 private:
  explicit RemoteNetwork(int mtu) : pair_({.mtu = mtu}) {}
  absl::Status Attach(int side, Xdp xdp);
  absl::Status TurnOffloadsOff(int side);

  test::VethPair pair_;
  std::unique_ptr<test::SteerOnVeth> steer_[2];
  steer_minimal_bpf* minimal_[2] = {};
  UniqueFd link_[2];
};

}  // namespace weft::bench

#endif  // WEFT_BENCH_REMOTE_NETWORK_H_
