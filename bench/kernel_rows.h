// SPDX-License-Identifier: Apache-2.0
// What two processes reach through the kernel's own sockets, with the same payload, filled and checked alike:
// the rows that show what weft saves.
#ifndef WEFT_BENCH_KERNEL_ROWS_H_
#define WEFT_BENCH_KERNEL_ROWS_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "bench/row.h"
#include "dataplane/base/fd.h"

namespace weft::bench {

// kernel/unix_socket: SOCK_SEQPACKET, both sides block.
std::unique_ptr<Row> NewUnixSocketRow();

// kernel/tcp_loopback: TCP_NODELAY, both sides block.
std::unique_ptr<Row> NewTcpLoopbackRow();

// kernel/tcp_loopback_spin: the same, both sides poll with MSG_DONTWAIT.
std::unique_ptr<Row> NewTcpLoopbackSpinRow();

// A connected pair of sockets, one of each process.
struct SocketPair {
  UniqueFd caller;
  UniqueFd callee;
};
// 64 B there and back over the pair that `connect` makes; `release` is called once it is no longer used.
// `spin`: both poll with MSG_DONTWAIT.
std::unique_ptr<Row> NewSocketRow(std::string name, std::function<absl::StatusOr<SocketPair>()> connect,
                                  std::function<void()> release, bool spin);

}  // namespace weft::bench

#endif  // WEFT_BENCH_KERNEL_ROWS_H_
