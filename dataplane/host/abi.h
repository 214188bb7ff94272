// SPDX-License-Identifier: Apache-2.0
// Numbers of the guest ABI that the host and sdk/c/weft_guest.h share; docs/guest-abi.md describes them and a
// test compares the two headers.
#ifndef WEFT_DATAPLANE_HOST_ABI_H_
#define WEFT_DATAPLANE_HOST_ABI_H_

#include <cstdint>

namespace weft::host {

// Status of a call: the gRPC codes, numerically those of absl::StatusCode, and two that only guests see.
enum Status : uint32_t {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kOutOfRange = 11,
  kInternal = 13,
  kUnavailable = 14,
  kLastStatus = 16,
  kPending = 256,  // Not finished; the low half of the outcome is the handle.
  kShort = 257,  // Finished well, but the answer did not fit; the low half is the handle, or the size needed.
};

// What call, start, wait and result return: the status above, the answer's size or a handle below.
constexpr uint64_t Outcome(uint32_t status, uint32_t value) { return uint64_t{status} << 32 | value; }

// Bounds that the ABI promises.
inline constexpr uint32_t kOutCallsOfInstanceMax = 64;
inline constexpr uint32_t kLogLinesOfCallMax = 16;
inline constexpr uint32_t kLogLineBytesMax = 1024;
inline constexpr uint32_t kMessageBytesMax = 16 << 20;
inline constexpr uint32_t kErrorBytesMax = 256;
// Calls within one process nest on fibers of their own, so this bounds memory, not a stack.
inline constexpr uint32_t kDepthMax = 64;

}  // namespace weft::host

#endif  // WEFT_DATAPLANE_HOST_ABI_H_
