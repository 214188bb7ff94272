// SPDX-License-Identifier: Apache-2.0
// What two processes reach through the kernel's own sockets, with the same payload, filled and checked alike:
// the rows that show what weft saves.
#ifndef WEFT_BENCH_KERNEL_ROWS_H_
#define WEFT_BENCH_KERNEL_ROWS_H_

#include <memory>

#include "bench/row.h"

namespace weft::bench {

// kernel/unix_socket: SOCK_SEQPACKET, both sides block.
std::unique_ptr<Row> NewUnixSocketRow();

// kernel/tcp_loopback: TCP_NODELAY, both sides block.
std::unique_ptr<Row> NewTcpLoopbackRow();

// kernel/tcp_loopback_spin: the same, both sides poll with MSG_DONTWAIT.
std::unique_ptr<Row> NewTcpLoopbackSpinRow();

}  // namespace weft::bench

#endif  // WEFT_BENCH_KERNEL_ROWS_H_
