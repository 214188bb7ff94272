// SPDX-License-Identifier: Apache-2.0
// Who may send next to this worker. Announced messages wait here for grants, which go to the shortest
// remaining first (Homa, SIGCOMM 2018), a fixed part of them to the oldest. Two sums are bounded: what is
// granted and has not arrived, in all and per sender. A sender that holds grants that it cannot use, since
// its own link is busy, says so, and its share falls, so that the receiver's link does not idle on its
// account (SIRD, NSDI 2025). One that lets what it was granted come in slowly would hold it from all others:
// it is late, see config.h, and late senders share half of the places, with one grant each. Internal to the
// transport; owner worker only.
#ifndef WEFT_DATAPLANE_TRANSPORT_GRANT_SCHEDULER_H_
#define WEFT_DATAPLANE_TRANSPORT_GRANT_SCHEDULER_H_

#include <array>
#include <cstdint>
#include <vector>

#include "dataplane/transport/config.h"
#include "dataplane/transport/index_list.h"
#include "dataplane/transport/message.h"

namespace weft::transport {

class GrantScheduler {
 public:
  // `messages` is the pool that indices name; it outlives this object.
  GrantScheduler(const Config& config, uint32_t segment_bytes, InMessage* messages);

  // An announced message now waits for grants.
  void Add(uint32_t message);
  // New bytes of a scheduled message, up to offset `end`, have arrived; `congested`: with the sender's mark.
  void OnArrival(uint32_t message, uint32_t end, bool congested);
  // A message that came unasked, of which `bytes` are still on their way: they take the place of grants, but
  // for what no message may send unasked.
  void Expect(uint32_t message, uint32_t bytes);
  // Of those, `bytes` have come.
  void OnExpected(uint32_t message, uint32_t bytes);
  // `bytes` of any message have arrived without a grant: the link has carried them in place of granted ones.
  void OnUnasked(uint32_t bytes, uint64_t now_ns);
  // When a grant is due that only waits for the link; ~0: none.
  // Also while those that wait have not all been looked at.
  uint64_t NextNs(uint64_t now_ns) const {
    if (by_age_.empty()) return ~uint64_t{0};
    if (link_free_ns_ > now_ns) return link_free_ns_;
    return next_look_ == kNone ? ~uint64_t{0} : now_ns;
  }
  // The message is complete or given up.
  void Remove(uint32_t message);
  // How long an answer of the peer may take to be here: probe_ns until it is told.
  void SetPatience(uint32_t peer, uint64_t ns) { senders_[peer].patience_ns = ns; }
  // Takes back the grants of messages that have made no progress for twice their peer's patience, or whose
  // senders are late with them: they stop counting until data arrives, and are then the youngest. Nothing
  // more is expected of those that came unasked.
  void WriteOffStalled(uint64_t now_ns);
  // Its sender is late where what the message was granted has not come in time.
  void Judge(uint32_t message, uint64_t now_ns);
  // A message that arrived before `before_ns` and still cannot get its memory, or kNone. Looks at the oldest
  // few.
  template <typename Reserve>
  uint32_t WithoutMemorySince(uint64_t before_ns, Reserve&& reserve) {
    uint32_t index = by_age_.front();
    for (uint32_t seen = 0; index != kNone && seen < kScanMax; ++seen) {
      if (messages_[index].arrived_ns >= before_ns) return kNone;
      if (messages_[index].granted_bytes == 0 && !reserve(index)) return index;
      index = by_age_.Next(messages_, index);
    }
    return kNone;
  }
  bool AnyWaiting() const { return !by_age_.empty(); }
  uint32_t outstanding_bytes() const { return outstanding_bytes_; }

  // Next message to grant to, with its granted_bytes raised; kNone: none now. `reserve(message)` gives the
  // message its buffer before its first grant, and says whether there was memory.
  template <typename Reserve>
  uint32_t Next(uint64_t now_ns, Reserve&& reserve) {
    if (by_age_.empty() || link_free_ns_ > now_ns) return kNone;
    if (turns_to_oldest_ == 0) {
      const uint32_t oldest = Oldest(reserve);
      if (oldest != kNone) {
        // Its turn is kept for it until there is room: shorter ones would take each bit of it.
        if (!HasRoomInAll(messages_[oldest])) return kNone;
        turns_to_oldest_ = config_.oldest_share_one_in;
        Grant(oldest, now_ns);
        return oldest;
      }
    }
    const uint32_t shortest = Shortest(reserve);
    if (shortest == kNone) return kNone;
    if (turns_to_oldest_ > 0) --turns_to_oldest_;
    Grant(shortest, now_ns);
    return shortest;
  }

 private:
  // Looked at per grant, and as many of the rest, by turns.
  static constexpr uint32_t kScanMax = 16;
  static constexpr uint32_t kActiveMax = 64;
  // A grant is at least this part of what may be granted: a sender sends what it is granted at once, and the
  // receiver answers what came by the next grant, so small ones would lead to small sends for ever.
  static constexpr uint32_t kQuantaMax = 8;

  struct Sender {
    uint32_t credit_bytes = 0;
    uint32_t limit_bytes = 0;
    uint32_t active = 0;
    uint32_t arrived_bytes = 0;    // Since the limit was last adjusted: in all,
    uint32_t congested_bytes = 0;  // and with the sender's mark.
    uint32_t late_bytes = 0;       // That are to come until it is not late any more; 0: it is not.
    uint64_t patience_ns = 0;      // See SetPatience.
  };

  uint32_t ExtraFor(const InMessage& message) const;
  uint32_t QuantumOf(const InMessage& message) const;
  bool HasRoomInAll(const InMessage& message) const;
  bool HasRoom(const InMessage& message) const;
  static bool Wants(const InMessage& message) {
    return !message.stalled && message.granted_bytes < message.bytes;
  }
  bool LateMayActivate(const InMessage& message) const;
  bool MayActivate(const InMessage& message) const;
  bool IsDue(const InMessage& message, uint64_t now_ns) const {
    return message.frontier_bytes < message.due_bytes &&
           now_ns >= message.due_from_ns + config_.late_ns + 2 * senders_[message.peer].patience_ns;
  }
  bool IsStalled(const InMessage& message, uint64_t now_ns) const;
  void Grant(uint32_t message, uint64_t now_ns);
  void Deactivate(uint32_t message);
  void TakeBack(InMessage* message, uint32_t bytes);
  void Adjust(Sender* sender);
  void TakeLink(uint32_t bytes, uint64_t now_ns);
  void RemoveWaiting(uint32_t message);

  template <typename Reserve>
  bool Eligible(uint32_t index, Reserve&& reserve) {
    const InMessage& message = messages_[index];
    if (!Wants(message) || !HasRoom(message)) return false;
    if (!message.active && !MayActivate(message)) return false;
    return message.granted_bytes > 0 || reserve(index);
  }

  // The message that has waited longest, beside the bounds that are per sender: else a sender with a steady
  // supply of short ones would never be asked for its long one.
  template <typename Reserve>
  uint32_t Oldest(Reserve&& reserve) {
    uint32_t index = by_age_.front();
    for (uint32_t seen = 0; index != kNone && seen < kScanMax; ++seen) {
      const InMessage& message = messages_[index];
      const bool may_be_active =
          message.active || (active_count_ <= config_.granted_messages_max && LateMayActivate(message));
      if (Wants(message) && may_be_active && (message.granted_bytes > 0 || reserve(index))) return index;
      index = by_age_.Next(messages_, index);
    }
    return kNone;
  }

  template <typename Reserve>
  uint32_t Shortest(Reserve&& reserve) {
    uint32_t best = kNone;
    for (uint32_t i = 0; i < active_count_; ++i) {
      const uint32_t index = active_[i];
      if (!Eligible(index, reserve)) continue;
      if (best == kNone || Remaining(index) < Remaining(best)) best = index;
    }
    uint32_t index = waiting_.front();
    for (uint32_t seen = 0; index != kNone && seen < 2 * kScanMax; ++seen) {
      // The shortest may all be of a sender that has its share, or of a tenant without memory. Whoever is
      // behind them is not to wait for these: a few more are looked at each time.
      if (seen == kScanMax && next_look_ != kNone) index = next_look_;
      if (best != kNone && Remaining(best) <= Remaining(index)) {
        index = kNone;
        break;
      }
      if (Eligible(index, reserve)) return index;
      index = waiting_.Next(messages_, index);
    }
    next_look_ = index;
    return best;
  }

  uint32_t Remaining(uint32_t index) const {
    return messages_[index].bytes - messages_[index].received_bytes;
  }

  const Config& config_;
  const uint32_t segment_bytes_;
  const uint32_t quantum_bytes_;
  InMessage* const messages_;
  std::vector<Sender> senders_;
  ClassQueue<InMessage, &InMessage::grant, &InMessage::grant_class> waiting_;
  uint32_t next_look_ = kNone;  // Of `waiting_`: where the next look beyond the first few begins.
  IndexList<InMessage, &InMessage::age> by_age_;
  IndexList<InMessage, &InMessage::grant> expected_;  // Those that came unasked, the last to progress last.
  std::array<uint32_t, kActiveMax> active_{};
  uint32_t active_count_ = 0;
  uint32_t outstanding_bytes_ = 0;
  uint64_t link_free_ns_ = 0;    // When what was granted and what came unasked will have passed the link.
  uint32_t expected_bytes_ = 0;  // Of messages that came unasked.
  uint32_t turns_to_oldest_;
};

}  // namespace weft::transport

#endif  // WEFT_DATAPLANE_TRANSPORT_GRANT_SCHEDULER_H_
