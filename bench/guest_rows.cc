// SPDX-License-Identifier: Apache-2.0
#include "bench/guest_rows.h"

#include <string>
#include <utility>

#include "bench/guest_open.h"
#include "bench/guest_pair.h"
#include "bench/shared_fixture.h"
#include "dataplane/base/status.h"

namespace weft::bench {
namespace {

using Callee = GuestPair::Callee;
using SharedGuests = SharedFixture<GuestPair>;

constexpr uint64_t kPacedPeriodNs = 100'000;
constexpr int kPacedPollUs = 200;

class GuestRow final : public Row {
 public:
  // With `count_resets` the row tells how many of its calls had to wait for a clean instance.
  GuestRow(RowSpec spec, GuestPair::Order order, std::shared_ptr<SharedGuests> guests, bool count_resets)
      : Row(std::move(spec)), order_(order), user_(std::move(guests)), count_resets_(count_resets) {
    order_.bytes = this->spec().bytes;
  }

  absl::Status Setup() override { return user_.Start(); }
  absl::StatusOr<Block> RunBlock(uint64_t duration_ns) override {
    if (user_.get() == nullptr) return absl::FailedPreconditionError("not set up");
    if (!count_resets_) return user_.get()->RunBlock(order_, duration_ns);
    WEFT_ASSIGN_OR_RETURN(const Counters before, Count());
    WEFT_ASSIGN_OR_RETURN(Block block, user_.get()->RunBlock(order_, duration_ns));
    WEFT_ASSIGN_OR_RETURN(const Counters after, Count());
    block.counts["resets_on_path"] = static_cast<double>(after.resets_on_path - before.resets_on_path);
    block.counts["calls"] = static_cast<double>(after.calls - before.calls);
    return block;
  }
  void Teardown() override { user_.End(); }

 private:
  struct Counters {
    uint64_t resets_on_path = 0;
    uint64_t calls = 0;
  };
  absl::StatusOr<Counters> Count() {
    Counters counters;
    WEFT_ASSIGN_OR_RETURN(counters.resets_on_path, user_.get()->CalleeCounter("resets_on_path"));
    WEFT_ASSIGN_OR_RETURN(counters.calls, user_.get()->CalleeCounter("guest_calls"));
    return counters;
  }

  GuestPair::Order order_;
  FixtureUser<GuestPair> user_;
  bool count_resets_;
};

constexpr char kLargeNote[] =
    "64 B back; outside the interval the callee looks at the bytes in a call of its own, and small calls "
    "wake both sides";

}  // namespace

void AddGuestRows(std::vector<std::unique_ptr<Row>>* rows) {
  auto guests = std::make_shared<SharedGuests>([] { return GuestPair::Start(/*poll_us=*/-1); });
  auto paced = std::make_shared<SharedGuests>([] { return GuestPair::Start(kPacedPollUs); });
  auto add = [&](RowSpec spec, GuestPair::Order order, const std::shared_ptr<SharedGuests>& shared) {
    const bool count_resets = order.callee == Callee::kFresh;
    rows->push_back(std::make_unique<GuestRow>(std::move(spec), order, shared, count_resets));
  };
  add({.name = "weft/guest_to_guest", .bytes = 64, .against = {"limit/shm_spin", "kernel/unix_socket"}}, {},
      guests);
  for (const uint64_t bytes : {uint64_t{1} << 10, uint64_t{4} << 10, uint64_t{64} << 10}) {
    add({.name = "weft/guest_to_guest", .bytes = bytes, .against = {"limit/shm_spin"}, .note = "64 B back"},
        {}, guests);
  }
  add({.name = "weft/guest_to_guest", .bytes = 1 << 20, .against = {"limit/two_memcpy"}, .note = kLargeNote},
      {}, guests);
  add({.name = "weft/guest_to_guest_same_process", .bytes = 64, .against = {"limit/wasm_call"}},
      {.callee = Callee::kLocal}, guests);
  add({.name = "weft/guest_to_guest_paced",
       .bytes = 64,
       .against = {"limit/shm_spin"},
       .note = "guest_to_guest at one call per 100 us, both sides polling for 200 us"},
      {.period_ns = kPacedPeriodNs}, paced);
  add({.name = "weft/guest_to_guest_fresh",
       .bytes = 64,
       .against = {"weft/guest_to_guest_paced"},
       .note = "one call per 100 us, both sides polling for 200 us"},
      {.callee = Callee::kFresh, .period_ns = kPacedPeriodNs}, paced);
  rows->push_back(NewGuestOpenRow());
}

}  // namespace weft::bench
