// SPDX-License-Identifier: Apache-2.0
// The vocabulary of outgoing calls: what is asked for, under which name it can be cancelled, and how it ends.
#ifndef WEFT_DATAPLANE_CALL_CALL_H_
#define WEFT_DATAPLANE_CALL_CALL_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "dataplane/base/function_id.h"
#include "dataplane/channel/message.h"
#include "dataplane/route/adaptive_route.h"
#include "dataplane/route/policy.h"
#include "dataplane/route/target_set.h"

namespace weft {

// Target::link of calls that stay inside this host; the embedding code runs them.
inline constexpr uint32_t kLocalLink = TargetSet::kNoLink - 1;
// Target::path of the same.
inline constexpr uint32_t kLocalPath = 0;

// Where calls of one callee by one caller go. Owned by CallCore, never freed before it: a resolved function
// is a pointer to one.
struct RouteEntry {
  FunctionId callee_id;
  std::unique_ptr<AdaptiveRoute> adaptive;  // Where the policy asks for it; then calls are watched.
  // Of 2^32 calls so many fail with `code` and `reason`, though there are targets.
  uint32_t refused_share = 0;
  // Calls that drew no such failure and then found no room: as many as come again draw no more.
  uint32_t spared_calls = 0;
  TargetSet targets;
  Policy policy;
  absl::StatusCode code = absl::StatusCode::kUnavailable;  // Why there is no target, or not for all.
  std::string reason = "no route yet";
  bool known = false;  // The agent has said something.
  uint64_t generation = 0;
  std::string caller;
  std::string callee;
};

struct CallOutcome {
  absl::StatusCode code = absl::StatusCode::kOk;
  // The call surely ran nowhere.
  bool not_executed = false;
  std::byte* response = nullptr;  // Where the response was put: the buffer given, or what `reserve` gave.
  uint32_t response_bytes = 0;
  absl::string_view text{};  // Of an error; until the callback returns.
};

// Runs once for each call that was started, on the owner thread, inside the loop: it may start calls, but
// must not poll or wait.
using CallDone = void (*)(void* context, const CallOutcome& outcome);
// Gives room for a response of `bytes`, or nullptr: then the call fails with RESOURCE_EXHAUSTED. It must
// stay until the call is done.
using CallReserve = std::byte* (*)(void* context, uint32_t bytes);

struct CallSpec {
  Payload
      request;  // Prefix: a trace context of kTraceBytes, or empty. Stays as it is until the call is done.
  std::span<std::byte> response;  // Stays until the call is done.
  CallReserve reserve = nullptr;  // Asked for a response that is longer than `response`, where given.
  CallDone done = nullptr;
  void* context = nullptr;
  uint64_t deadline_ns = 0;  // CLOCK_MONOTONIC; 0: the policy's timeout from now on.
  // Nobody watches the deadline in person: the call fires by itself. Without it, the waiter must call Expire.
  bool timed = true;
};

// Names a call that was started, for good: after its end it names nothing.
struct CallHandle {
  uint32_t slot = ~uint32_t{0};
  uint32_t generation = 0;
};

enum class StartState : uint8_t {
  kStarted,  // Sent, or on its way in parts; `done` will be called.
  kLocal,    // The chosen target is this host: run it here. Nothing was kept.
  kNoRoom,   // The ring, or the table of calls, is full now. Nothing was kept.
  kFailed,   // start_error() says why. Nothing was kept, `done` is not called.
};

// Both parts of `payload`, one after the other, to `to`, which has room for them.
inline void CopyPayload(const Payload& payload, std::byte* to) {
  // An empty span may have no address, which memcpy does not take.
  if (!payload.prefix.empty()) std::memcpy(to, payload.prefix.data(), payload.prefix.size());
  if (!payload.body.empty())
    std::memcpy(to + payload.prefix.size(), payload.body.data(), payload.body.size());
}

struct OutgoingCall {
  enum class State : uint8_t {
    kSent,
    kSending,
    kWaiting,
    // Of a route with `adaptive`, from here on:
    kWatched,  // Sent.
    kHedged,   // Sent twice: this is one of a pair of calls, of which the first answer counts.
    kParked,   // Its own try has failed; the other one of the pair goes on.
  };
  static constexpr uint32_t kNoTwin = ~uint32_t{0};

  uint32_t request_id = 0;
  uint32_t slot = 0;
  uint32_t generation = 0;
  uint32_t link = 0;
  State state = State::kSent;
  uint8_t tries = 0;
  uint32_t path = 0;
  RouteEntry* route = nullptr;
  uint64_t deadline_ns = 0;
  std::byte* receiving = nullptr;  // A response comes in parts, to here.
  CallSpec spec;
  // Set from kWatched on.
  uint64_t begun_ns = 0;    // This try.
  uint32_t twin = kNoTwin;  // Slot of the other of a pair.
  bool is_hedge = false;    // The second of a pair; callers know the first.
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_CALL_CALL_H_
