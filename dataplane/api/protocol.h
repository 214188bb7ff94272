// SPDX-License-Identifier: Apache-2.0
// Version of the conversation between hosts and their agent (host.proto). Both sides name it in Hello.
#ifndef WEFT_DATAPLANE_API_PROTOCOL_H_
#define WEFT_DATAPLANE_API_PROTOCOL_H_

#include <cstdint>

namespace weft {

inline constexpr uint32_t kAgentProtocol = 1;

}  // namespace weft

#endif  // WEFT_DATAPLANE_API_PROTOCOL_H_
