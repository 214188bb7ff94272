// SPDX-License-Identifier: Apache-2.0
// W3C trace context (https://www.w3.org/TR/trace-context/): what a call carries so that the spans of one
// request through many functions can be joined. weft carries it and never looks inside. Any thread.
#ifndef WEFT_DATAPLANE_CALL_TRACE_CONTEXT_H_
#define WEFT_DATAPLANE_CALL_TRACE_CONTEXT_H_

#include <array>
#include <cstddef>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "dataplane/call/wire.h"

namespace weft {

// The fields of `traceparent` in order: version, trace id, parent id, flags.
class TraceContext {
 public:
  TraceContext() = default;
  // Reads a traceparent header, as in "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".
  // INVALID_ARGUMENT for another shape, upper case, version ff, or a trace or parent id of zeros.
  static absl::StatusOr<TraceContext> FromTraceparent(absl::string_view text);
  // As it travels. Any bytes are taken: they are another process's.
  static TraceContext FromWire(std::span<const std::byte, kTraceBytes> bytes);

  std::string ToTraceparent() const;
  std::span<const std::byte, kTraceBytes> wire() const { return bytes_; }
  friend bool operator==(const TraceContext&, const TraceContext&) = default;

 private:
  std::array<std::byte, kTraceBytes> bytes_{};
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_CALL_TRACE_CONTEXT_H_
