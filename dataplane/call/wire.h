// SPDX-License-Identifier: Apache-2.0
// What the call layer puts into the fields of a channel's message header that the channel only carries. Both
// ends of a call include this.
//
//   request, one-way  function_id, deadline_ns, request_id, caller_index as the agent gave it; payload: trace
//                     context where kFlagTrace is set, then the body
//   response          request_id of the request; caller_index is the status code; payload: the body, or the
//                     text of an error; kFlagNotExecuted where the request was refused before it ran
//   cancel            request_id of the request that nobody waits for any more; no payload
//
// Request ids rise strictly within a channel, over the end of 32 bits: the receiver takes none that lies up
// to kIdsBehind behind the newest, nor one of which a part has come, which is what makes a call on a channel
// run at most once. They may skip numbers, any number of them, since they count the caller's calls on all its
// channels.
#ifndef WEFT_DATAPLANE_CALL_WIRE_H_
#define WEFT_DATAPLANE_CALL_WIRE_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"

namespace weft {

inline constexpr uint8_t kFlagTrace = 1 << 0;
inline constexpr uint8_t kFlagNotExecuted = 1 << 1;

// A W3C trace context in binary: version 1, trace id 16, parent id 8, flags 1 (traceparent's fields in
// order).
inline constexpr uint32_t kTraceBytes = 26;

// Longer texts of errors are cut by their sender; a longer one that arrives is dropped, its code is kept.
inline constexpr uint32_t kErrorTextBytesMax = 1024;

// True where `id` comes after `before` in a sequence that wraps.
inline constexpr bool IdAfter(uint32_t id, uint32_t before) { return static_cast<int32_t>(id - before) > 0; }

// A narrow window, so that a channel that was idle for half of all ids and more takes what comes then. An
// honest caller never goes back, so it need not be wide; no channel holds as many messages.
inline constexpr uint32_t kIdsBehind = 1 << 16;
// True where `id` may have been taken before `newest` was.
inline constexpr bool IdMayBeOld(uint32_t id, uint32_t newest) { return newest - id < kIdsBehind; }

// A status code as the peer wrote it.
inline absl::StatusCode CodeFromWire(uint16_t value) {
  return value <= static_cast<uint16_t>(absl::StatusCode::kUnauthenticated)
             ? static_cast<absl::StatusCode>(value)
             : absl::StatusCode::kUnknown;
}

}  // namespace weft

#endif  // WEFT_DATAPLANE_CALL_WIRE_H_
