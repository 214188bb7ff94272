// SPDX-License-Identifier: Apache-2.0
// Rows between two nodes: network namespaces joined by a veth pair of each row's own.
#ifndef WEFT_BENCH_REMOTE_ROWS_H_
#define WEFT_BENCH_REMOTE_ROWS_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "bench/row.h"
#include "dataplane/transport/frame.h"

namespace weft::bench {

// UDP payload that carries an encrypted call of 64 B: clear header, DATA frame, tag.
inline constexpr std::size_t kEncryptedCallBytes = transport::kDataOverheadBytes + 64;

// Of all rows of messages of 1 MB, the kernel's too: the largest that native XDP on veth takes.
inline constexpr int kBulkMtu = 3498;

// limit/af_xdp_raw, limit/af_xdp_raw_generic: frames of the length of an encrypted 64 B call, echoed in place
// between bare AF_XDP sockets that both poll, behind the minimal XDP program.
void AddAfXdpRawRows(std::vector<std::unique_ptr<Row>>* rows);
// limit/af_xdp_bulk: messages of 1 MB over bare AF_XDP sockets.
std::unique_ptr<Row> NewAfXdpBulkRow();
// limit/udp_spin, limit/udp_blocking, kernel/tcp: 64 B over connected sockets.
void AddRemoteSocketRows(std::vector<std::unique_ptr<Row>>* rows);
// kernel/tcp_bulk, kernel/tcp_bulk_offload: messages of 1 MB, at most four not yet answered.
void AddTcpBulkRows(std::vector<std::unique_ptr<Row>>* rows);
// weft/engine_af_xdp, weft/engine_io_uring: an encrypted call of 64 B, engine to engine, both polling.
// weft/rate_af_xdp_coalesced: as many as fit at once. weft/bulk, weft/bulk_io_uring: as kernel/tcp_bulk.
void AddEngineRows(std::vector<std::unique_ptr<Row>>* rows);
// limit/flood_foreign, weft/flood: weft/engine_af_xdp with 20 forged datagrams sent before each call, to a
// port that is not weft's or to weft's; counts tell how many were forged and dropped.
void AddFloodRows(std::vector<std::unique_ptr<Row>>* rows);
// weft/guest_to_guest_inside, _inside_udp and _shared: a call of 64 B from guest to guest of two nodes as
// they ship, with the engine inside both hosts or in both weftd.
void AddRemoteGuestRows(std::vector<std::unique_ptr<Row>>* rows);
// weft/core_in_memory: two transport cores on one processor core, sealed, one message a datagram.
std::unique_ptr<Row> NewCoreInMemoryRow();

}  // namespace weft::bench

#endif  // WEFT_BENCH_REMOTE_ROWS_H_
