// SPDX-License-Identifier: Apache-2.0
#include "bench/native_rows.h"

#include <string>
#include <utility>

#include "bench/native_pair.h"
#include "bench/shared_fixture.h"

namespace weft::bench {
namespace {

using SharedPair = SharedFixture<NativePair>;

class NativeRow final : public Row {
 public:
  NativeRow(RowSpec spec, NativePair::Kind kind, std::shared_ptr<SharedPair> pair)
      : Row(std::move(spec)), kind_(kind), user_(std::move(pair)) {}

  absl::Status Setup() override { return user_.Start(); }
  absl::StatusOr<Block> RunBlock(uint64_t duration_ns) override {
    if (user_.get() == nullptr) return absl::FailedPreconditionError("not set up");
    return user_.get()->RunBlock(kind_, spec().bytes, duration_ns);
  }
  void Teardown() override { user_.End(); }

 private:
  NativePair::Kind kind_;
  FixtureUser<NativePair> user_;
};

constexpr char kLargeNote[] =
    "64 B back; the server looks at the bytes after its answer, outside the interval";

}  // namespace

void AddNativeRows(std::vector<std::unique_ptr<Row>>* rows) {
  auto shared = std::make_shared<SharedPair>([] { return NativePair::Start(/*idle_channels=*/0); });
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
  auto shared = std::make_shared<SharedPair>([] { return NativePair::Start(/*idle_channels=*/999); });
  rows->push_back(std::make_unique<NativeRow>(
      RowSpec{.name = "weft/thousand_channels", .bytes = 64, .against = {"weft/host_to_host"}},
      NativePair::Kind::kRoundTrip, shared));
}

}  // namespace weft::bench
