// SPDX-License-Identifier: Apache-2.0
#include "dataplane/channel/poison.h"

namespace weft {

absl::string_view PoisonReasonText(PoisonReason reason) {
  switch (reason) {
    case PoisonReason::kNone:
      return "not poisoned";
    case PoisonReason::kBadLap:
      return "bad lap";
    case PoisonReason::kBadLength:
      return "bad length";
    case PoisonReason::kBadOffset:
      return "bad offset";
    case PoisonReason::kBadTail:
      return "bad tail";
    case PoisonReason::kBadHead:
      return "bad head";
    case PoisonReason::kBadKind:
      return "bad kind";
    case PoisonReason::kBadChunk:
      return "bad chunk";
    case PoisonReason::kTooManyPartials:
      return "too many partial messages";
    case PoisonReason::kBadFlag:
      return "bad flag";
    case PoisonReason::kSpuriousRings:
      return "spurious rings";
    case PoisonReason::kDoorbellMisuse:
      return "doorbell misuse";
  }
  return "unknown reason";
}

}  // namespace weft
