// SPDX-License-Identifier: Apache-2.0
// Who may hold how much of a tenant's memory, and who gives some of it back where it is short.
#include <algorithm>
#include <utility>

#include "dataplane/transport/core.h"

namespace weft::transport {
namespace {
// Answers that one look for memory looks at.
constexpr uint32_t kAnswersPerLook = 64;
constexpr uint64_t kAnswerBytesPerSecond = 256 * 1024;
}  // namespace

// What a message of that size takes of its tenant's memory at most.
uint64_t Core::ChargeOf(uint32_t bytes, uint32_t segments) {
  const auto block = [](std::size_t size) { return uint64_t{kBlockUnitBytes} << BlockPool::OrderOf(size); };
  return block(bytes) + (segments > 64 ? block(segments / 8 + 8) : 0);
}

// Whether an unfinished message may take `charge` bytes of its tenant's memory: what such messages of its
// peer hold of it is no more than is left for those of all others.
bool Core::MayHold(const InMessage& message, uint64_t charge) const {
  const TenantUse& use = tenants_[message.tenant];
  return peers_[message.peer]->unfinished_bytes[message.tenant] + use.unfinished_bytes + charge <=
         use.limit_bytes;
}

void Core::CountHeld(InMessage& message, uint64_t charge) {
  message.unfinished_bytes = static_cast<uint32_t>(charge);
  peers_[message.peer]->unfinished_bytes[message.tenant] += charge;
  tenants_[message.tenant].unfinished_bytes += charge;
}

void Core::ReleaseHeld(InMessage& message) {
  const uint32_t charge = std::exchange(message.unfinished_bytes, 0);
  peers_[message.peer]->unfinished_bytes[message.tenant] -= charge;
  tenants_[message.tenant].unfinished_bytes -= charge;
}

// Answers that their peers do not ask for make room where memory is short: a peer could else hold all that
// the functions have which it may call. Each has a second, and one more for each kAnswerBytesPerSecond
// granted.
void Core::ReclaimAnswers(uint64_t now_ns) {
  memory_was_short_ = false;
  reclaim_from_ns_ = now_ns + kNsPerMs;
  uint32_t out = answers_owed_.front();
  for (uint32_t seen = 0; out != kNone && seen < kAnswersPerLook; ++seen) {
    const OutMessage& message = out_[out];
    const uint32_t next = answers_owed_.Next(out_.data(), out);
    const uint64_t patience_ns =
        config_.unfinished_ns + message.granted_bytes * kNsPerSecond / kAnswerBytesPerSecond;
    if (now_ns - std::min(now_ns, message.announced_ns) > patience_ns) {
      ++counters_.answers_given_up;
      // It has been executed: the caller hears so.
      RejectServed(message.peer, SlotOf(message.id), absl::StatusCode::kUnavailable);
    }
    out = next;
  }
}

}  // namespace weft::transport
