// SPDX-License-Identifier: Apache-2.0
#include "bench/native_rows.h"

#include <string>
#include <utility>

#include "bench/native_pair.h"
#include "dataplane/base/status.h"

namespace weft::bench {
namespace {

// Rows that take turns on one pair: started by whoever is set up first, ended with the last.
struct SharedPair {
  int idle_channels = 0;
  int users = 0;
  absl::Status status;
  std::unique_ptr<NativePair> pair;
};

class NativeRow final : public Row {
 public:
  NativeRow(RowSpec spec, NativePair::Kind kind, std::shared_ptr<SharedPair> shared)
      : Row(std::move(spec)), kind_(kind), shared_(std::move(shared)) {}
  ~NativeRow() override { Teardown(); }

  absl::Status Setup() override {
    if (shared_->users == 0) {
      absl::StatusOr<std::unique_ptr<NativePair>> pair = NativePair::Start(shared_->idle_channels);
      shared_->status = pair.status();
      if (pair.ok()) shared_->pair = *std::move(pair);
    }
    WEFT_RETURN_IF_ERROR(shared_->status);
    ++shared_->users;
    in_use_ = true;
    return absl::OkStatus();
  }
  absl::StatusOr<Block> RunBlock(uint64_t duration_ns) override {
    if (!in_use_) return absl::FailedPreconditionError("not set up");
    return shared_->pair->RunBlock(kind_, spec().bytes, duration_ns);
  }
  void Teardown() override {
    if (!in_use_) return;
    in_use_ = false;
    if (--shared_->users == 0) shared_->pair.reset();
  }

 private:
  NativePair::Kind kind_;
  std::shared_ptr<SharedPair> shared_;
  bool in_use_ = false;
};

constexpr char kLargeNote[] =
    "64 B back; the server looks at the bytes in a call of its own, outside the interval";

}  // namespace

void AddNativeRows(std::vector<std::unique_ptr<Row>>* rows) {
  auto shared = std::make_shared<SharedPair>();
  using Kind = NativePair::Kind;
  auto add = [&](RowSpec spec, Kind kind) {
    rows->push_back(std::make_unique<NativeRow>(std::move(spec), kind, shared));
  };
  add({.name = "weft/host_to_host", .bytes = 64, .against = {"limit/shm_spin", "kernel/unix_socket"}},
      Kind::kRoundTrip);
  for (const uint64_t bytes : {uint64_t{1} << 10, uint64_t{4} << 10, uint64_t{64} << 10}) {
    add({.name = "weft/host_to_host", .bytes = bytes, .against = {"limit/shm_spin"}, .note = "64 B back"},
        Kind::kRoundTrip);
  }
  add({.name = "weft/host_to_host", .bytes = 1 << 20, .against = {"limit/two_memcpy"}, .note = kLargeNote},
      Kind::kRoundTrip);
  add({.name = "weft/host_to_host_batched", .bytes = 64, .is_rate = true, .against = {"limit/spsc_batched"}},
      Kind::kBatched);
  add({.name = "weft/host_to_host_sleeping", .bytes = 64, .against = {"limit/eventfd_one_side"}},
      Kind::kSleeping);
}

void AddThousandChannelsRow(std::vector<std::unique_ptr<Row>>* rows) {
  auto shared = std::make_shared<SharedPair>();
  shared->idle_channels = 999;
  rows->push_back(std::make_unique<NativeRow>(
      RowSpec{.name = "weft/thousand_channels", .bytes = 64, .against = {"weft/host_to_host"}},
      NativePair::Kind::kRoundTrip, shared));
}

}  // namespace weft::bench
