// SPDX-License-Identifier: Apache-2.0
// The hosts that serve one function for one caller, and the choice among them for each call: two draws by
// weight, of which the one with less outstanding for its weight wins ("power of two choices", Mitzenmacher
// 2001, over a weighted population). A tie goes to the first draw, which is from an even sequence, so that an
// idle set splits even some hundred calls by weight. Only the nearest targets are drawn among; farther ones
// serve where none of those is left, or for a retry or hedge. Pure: randomness and load come in. Owner thread
// only.
#ifndef WEFT_DATAPLANE_ROUTE_TARGET_SET_H_
#define WEFT_DATAPLANE_ROUTE_TARGET_SET_H_

#include <cstdint>
#include <span>
#include <vector>

#include "dataplane/base/attributes.h"
#include "dataplane/base/random.h"

namespace weft {

inline constexpr uint32_t kWeightDefault = 100;
// That of a thousand endpoints of one node, which are one target.
inline constexpr uint32_t kWeightMax = 1'000'000;

inline constexpr uint32_t kNoPath = ~uint32_t{0};

struct Target {
  uint32_t link = 0;          // Which channel: an index that the call layer gave.
  uint32_t path = kNoPath;    // What tells it from others, also over the same channel: likewise an index.
  uint32_t weight = 1;        // 1 to kWeightMax
  uint16_t caller_index = 0;  // How this caller is called on that path.
  uint16_t distance = 0;      // A Distance; the lowest of a set are near.
};

// How far a target is from the caller.
enum Distance : uint16_t { kSameProcess = 0, kSameNode = 1, kSameZone = 2, kElsewhere = 3 };

class TargetSet {
 public:
  static constexpr uint32_t kNoLink = ~uint32_t{0};

  TargetSet() = default;
  // Weights outside 1 to kWeightMax are brought to the nearer end. Allocates.
  explicit TargetSet(std::vector<Target> targets);

  bool empty() const { return targets_.empty(); }
  std::span<const Target> targets() const { return targets_; }
  // Takes the targets over `link` away, as when its peer died. Allocates.
  void RemoveLink(uint32_t link);

  // Those that calls are drawn among.
  std::span<const Target> near() const { return std::span(targets_).first(slots_.size()); }

  // The target for the next call, or nullptr of an empty set. `outstanding(path)` is the number of calls
  // under way there. The target of `avoid` is chosen only where there is no other, which is for retries.
  // Never allocates. The result lives until the set changes.
  template <typename Outstanding>
  WEFT_HOT const Target* Choose(Random& random, Outstanding&& outstanding, uint32_t avoid = kNoPath) const {
    if (slots_.size() <= 1) {
      if (targets_.size() <= 1) return targets_.empty() ? nullptr : &targets_.front();
      return targets_.front().path != avoid ? &targets_.front() : AnyBut(avoid, random);
    }
    const Random::Pair bits = random.NextPair();
    const Target& a = Draw(bits.even);
    const Target& b = Draw(bits.free);
    // outstanding(a) / weight(a) against the same of b, without a division; 2^32 × 10^6 fits.
    const uint64_t load_a = static_cast<uint64_t>(outstanding(a.path)) * b.weight;
    const uint64_t load_b = static_cast<uint64_t>(outstanding(b.path)) * a.weight;
    const Target& chosen = load_b < load_a ? b : a;
    if (chosen.path != avoid) [[likely]]
      return &chosen;
    const Target& other = &chosen == &a ? b : a;
    return other.path != avoid ? &other : AnyBut(avoid, random);
  }
  // The nearest but that of `avoid`, any of those that are equally far; the nearest where there is no other.
  // Of a set that is not empty.
  const Target* AnyBut(uint32_t avoid, Random& random) const;

 private:
  // Vose's alias table: slot i is drawn uniformly and stands for target i, or, with the rest of the
  // probability, for target `alias`.
  struct Slot {
    uint32_t keep_below = ~uint32_t{0};  // Of 2^32
    uint32_t alias = 0;
  };

  // One 32-bit number gives the slot (high part of the product) and the coin (low part).
  const Target& Draw(uint32_t bits) const {
    const uint64_t product = uint64_t{bits} * slots_.size();
    const auto index = static_cast<uint32_t>(product >> 32);
    const Slot& slot = slots_[index];
    return targets_[static_cast<uint32_t>(product) <= slot.keep_below ? index : slot.alias];
  }
  void BuildSlots();

  std::vector<Target> targets_;  // The near ones first.
  std::vector<Slot> slots_;      // Of the near ones.
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_ROUTE_TARGET_SET_H_
