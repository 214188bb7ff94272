// SPDX-License-Identifier: Apache-2.0
// Why a channel was closed because of what its peer wrote or did. The first reason found stays; the channel
// is not used again.
#ifndef WEFT_DATAPLANE_CHANNEL_POISON_H_
#define WEFT_DATAPLANE_CHANNEL_POISON_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace weft {

enum class PoisonReason : uint8_t {
  kNone = 0,
  kBadLap,           // A cell's lap word is neither the one due nor the one of the lap before.
  kBadLength,        // A message or chunk is longer than a cell, a chunk or the message limit allows.
  kBadOffset,        // A chunk lies outside the arena.
  kBadTail,          // The tail is more than a ring ahead, behind, or ahead of what the cells show.
  kBadHead,          // The peer claims to have read what was not published, or gives read cells back.
  kBadKind,          // No such kind of message.
  kBadChunk,         // A chunk that does not continue its message.
  kTooManyPartials,  // More messages in parts at a time than the channel allows.
  kBadFlag,          // Reserved bits of the wait flags are set.
  kSpuriousRings,    // The peer rings without publishing.
  kDoorbellMisuse,   // The peer sent file descriptors or data through the doorbell.
};
inline constexpr int kPoisonReasons = 12;

// The name of a reason, as in "bad lap"; static storage.
absl::string_view PoisonReasonText(PoisonReason reason);

}  // namespace weft

#endif  // WEFT_DATAPLANE_CHANNEL_POISON_H_
