// SPDX-License-Identifier: Apache-2.0
// The packet path allocates nothing once the peers are there: an allocator that aborts watches calls, large
// messages, loss and its repair.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <new>
#include <vector>

#include "tests/dataplane/transport/core_fixture.h"

namespace {
bool forbidden = false;
}

// Out of line: inlined, they look to the compiler like a mismatched pair.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (forbidden) {
    forbidden = false;
    std::fprintf(stderr, "allocation of %zu bytes on the packet path\n", bytes);
    std::abort();
  }
  if (void* const memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace weft::transport {
namespace {

class AllocTest : public TwoCores {};

TEST_F(AllocTest, CallsAndLargeMessagesUnderLossAllocateNothing) {
  Start(SmallConfig());
  const std::vector<uint8_t> payload(150'000, 7);
  Random random(1);
  int ended = 0, began = 0;
  const auto carry = [&](port::MemoryPort& from, port::MemoryPort& to) {
    for (const auto* datagram = from.Sent(); datagram != nullptr; datagram = from.Sent()) {
      if (random.Below(50) != 0) to.Deliver(datagram->data, datagram->bytes);
      from.PopSent();
    }
  };
  forbidden = true;
  for (int round = 0; round < 20'000; ++round) {
    SendOptions options;
    options.peer = to_b_;
    options.function = kEcho;
    options.one_way = random.Below(3) == 0;
    options.response_bytes_max = 200;
    const std::size_t bytes = random.Below(100) == 0 ? random.Below(payload.size()) : random.Below(200);
    began += a_->TrySend(options, {}, Bytes(payload.data(), bytes), now_ns_, nullptr) == SendResult::kOk;
    now_ns_ += 10'000;
    Pump(*a_, port_a_, now_ns_);
    carry(port_a_, port_b_);
    Pump(*b_, port_b_, now_ns_);
    Event event;
    while (b_->NextEvent(&event)) {
      if (event.kind == EventKind::kRequest) {
        (void)b_->TryRespond(event.handle, absl::StatusCode::kOk, Bytes(event.payload, event.payload_bytes),
                             {}, now_ns_);
      }
      b_->Release(event);
    }
    carry(port_b_, port_a_);
    while (a_->NextEvent(&event)) {
      ++ended;
      a_->Release(event);
    }
  }
  forbidden = false;
  EXPECT_GT(ended, 2'000);
  EXPECT_GT(a_->counters().segments_resent, 10u);
}

}  // namespace
}  // namespace weft::transport
