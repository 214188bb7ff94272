// SPDX-License-Identifier: Apache-2.0
// Why the agent refused a message, a connection or a session: each reason has a name, which the peer is told,
// the log says and weftctl status counts.
#ifndef WEFT_DATAPLANE_AGENT_REFUSAL_H_
#define WEFT_DATAPLANE_AGENT_REFUSAL_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace weft::agent {

enum class Refusal : uint8_t {
  kNotAdmitted,         // No tenant of weftd.yaml has this uid.
  kTooManyConnections,  // The user's limit of connections
  kHelloLate,           // Connected and said nothing.
  kHelloMissing,        // Something else came first.
  kHelloTwice,
  kProtocol,    // Another version of the conversation.
  kGarbage,     // Not a message.
  kOversized,   // A packet longer than any message
  kSurplusFds,  // Descriptors that nothing asked for
  kMissingFd,
  kBadName,
  kHostNotAllowed,
  kHostTaken,
  kFunctionNotAllowed,  // Registration of a function that the tenant may not serve.
  kCallAsNotAllowed,
  kUnknownFunction,  // A report of what the host does not hold.
  kForgedCaller,     // A subscription as a caller that the host is not.
  kHostLimit,
  kFunctionLimit,
  kChannelLimit,
  kSubscriptionLimit,
  kBadMemory,  // A side memory that is not what a channel needs.
  kUnknownChannel,
  kBadSerial,   // Applied for what was never sent.
  kNeverReads,  // Its queue is full.
  kSilent,      // Did not answer a round in time.
  kNotControl,  // Programming by another user than control_user
  kStaleGeneration,
  kBadProgram,
  kUnknownHost,
  kTooManyBlockedFds,  // Closing the descriptors that it sent does not end.
  kEngineNotAllowed,   // A host that would run the node engine inside, where its tenant may not.
  kForeignKey,         // An engine inside a host that named a key id which is not its to give.
};
inline constexpr std::size_t kRefusals = static_cast<std::size_t>(Refusal::kForeignKey) + 1;

// "not_admitted"
absl::string_view RefusalName(Refusal refusal);

// A status of the reason's code, whose message is "name: detail", and that RefusalOf() knows again.
absl::Status Refuse(Refusal refusal, absl::string_view detail);
// kGarbage where `status` was not made by Refuse().
Refusal RefusalOf(const absl::Status& status);

// How often each was given. Owner thread only.
class RefusalCounters {
 public:
  void Count(Refusal refusal) { ++counts_[static_cast<std::size_t>(refusal)]; }
  uint64_t count(Refusal refusal) const { return counts_[static_cast<std::size_t>(refusal)]; }

 private:
  std::array<uint64_t, kRefusals> counts_{};
};

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_REFUSAL_H_
