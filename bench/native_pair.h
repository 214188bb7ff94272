// SPDX-License-Identifier: Apache-2.0
// What the native rows share: a node, a server process, a caller process that runs one block of any kind on
// command, and, where asked, processes that hold further channels to the server open.
#ifndef WEFT_BENCH_NATIVE_PAIR_H_
#define WEFT_BENCH_NATIVE_PAIR_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/node.h"
#include "bench/row.h"
#include "bench/worker.h"
#include "dataplane/base/mapping.h"

namespace weft::bench {

class NativePair {
 public:
  enum class Kind : uint64_t {
    kRoundTrip,  // One call after the other.
    kSleeping,   // One call a millisecond: the server sleeps in between.
    kBatched,    // One-way messages in bursts of 32.
  };

  // `idle_channels` further channels are opened to the server and stay idle.
  static absl::StatusOr<std::unique_ptr<NativePair>> Start(int idle_channels);

  absl::StatusOr<Block> RunBlock(Kind kind, uint64_t bytes, uint64_t duration_ns);

 private:
  explicit NativePair(int idle_channels) : idle_channels_(idle_channels) {}
  absl::Status StartProcesses();
  absl::Status OpenIdleChannels();

  int idle_channels_;
  Mapping samples_;
  std::unique_ptr<Node> node_;
  Worker server_;
  Worker caller_;
  std::vector<Worker> idlers_;
};

}  // namespace weft::bench

#endif  // WEFT_BENCH_NATIVE_PAIR_H_
