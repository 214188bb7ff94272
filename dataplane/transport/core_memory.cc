// SPDX-License-Identifier: Apache-2.0
// Who may hold how much of a tenant's memory, and who gives some of it back where it is short.
#include <algorithm>
#include <utility>

#include "dataplane/transport/core.h"

namespace weft::transport {
namespace {
// Answers that one look for memory looks at.
constexpr uint32_t kAnswersPerLook = 32;  // Half of a peer's ring of notices.
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

// Answers that their peers do not take make room where memory is short: a peer could else hold all that the
// functions have which it may call. Each has a second, and one more for each kAnswerBytesPerSecond that its
// peer has acknowledged. Those looked at that stay go behind the others.
void Core::ReclaimAnswers(uint64_t now_ns) {
  const uint32_t last = answers_owed_.back();
  for (uint32_t looked = 0, out = kNone; looked < kAnswersPerLook && out != last; ++looked) {
    out = answers_owed_.front();
    const OutMessage& message = out_[out];
    const uint64_t acked_bytes = uint64_t{message.acked_segments} * message.segment_bytes;
    const uint64_t patience_ns = config_.unfinished_ns + acked_bytes * kNsPerSecond / kAnswerBytesPerSecond;
    if ((pool_was_short_ || short_tenants_[message.tenant] != 0) &&
        now_ns - std::min(now_ns, message.started_ns) > patience_ns) {
      ++counters_.answers_given_up;
      // It has been executed: the caller hears so.
      RejectServed(message.peer, SlotOf(message.id), absl::StatusCode::kUnavailable);
      continue;
    }
    answers_owed_.Remove(out_.data(), out);
    answers_owed_.PushBack(out_.data(), out);
  }
  std::fill(short_tenants_.begin(), short_tenants_.end(), 0);
  memory_was_short_ = pool_was_short_ = false;
  reclaim_from_ns_ = now_ns + kNsPerMs;
}

}  // namespace weft::transport
