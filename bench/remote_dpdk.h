// SPDX-License-Identifier: Apache-2.0
// The memif that rows over DPDK are measured on: two processes, joined by shared memory under a name of the
// run's own.
#ifndef WEFT_BENCH_REMOTE_DPDK_H_
#define WEFT_BENCH_REMOTE_DPDK_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "bench/row.h"
#include "dataplane/port/dpdk_port.h"

namespace weft::bench {

// The device of a side of `row`: the far one is the server. Called in the process of that side, a child of
// the coordinator.
std::string DpdkDeviceOf(int side, absl::string_view row);

// The port of a side of weft/engine_dpdk, once its neighbour has answered; its way there is `path`.
absl::StatusOr<std::unique_ptr<port::DpdkPort>> OpenDpdkPort(int side, uint64_t path);

// limit/dpdk_raw: frames of the length of an encrypted 64 B call, unencrypted, echoed in place between bare
// ethdevs on net_memif, both polling.
std::unique_ptr<Row> NewDpdkRawRow();

}  // namespace weft::bench

#endif  // WEFT_BENCH_REMOTE_DPDK_H_
