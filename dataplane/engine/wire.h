// SPDX-License-Identifier: Apache-2.0
// What node engines put in front of the messages that they send each other. The callee, the time left and the
// status travel in the transport's own frames; what follows the head is as on a channel: the trace context
// where its flag is set, then the body.
#ifndef WEFT_DATAPLANE_ENGINE_WIRE_H_
#define WEFT_DATAPLANE_ENGINE_WIRE_H_

#include <bit>
#include <cstdint>

namespace weft::engine {

static_assert(std::endian::native == std::endian::little, "heads travel as they lie in memory");

// Of a request or one-way message.
struct RequestHead {
  uint64_t caller;  // Wire id of the calling function or namespace.
  uint8_t flags;    // kFlagTrace of dataplane/call/wire.h; other bits are zero.
  uint8_t zero[7];
};
static_assert(sizeof(RequestHead) == 16);

// Of a response, in front of its body or the text of its error. One without any bytes has no flag and no
// text.
struct ResponseHead {
  uint8_t flags;  // kFlagNotExecuted of dataplane/call/wire.h; other bits are zero.
  uint8_t zero[3];
};
static_assert(sizeof(ResponseHead) == 4);

}  // namespace weft::engine

#endif  // WEFT_DATAPLANE_ENGINE_WIRE_H_
