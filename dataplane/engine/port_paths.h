// SPDX-License-Identifier: Apache-2.0
// A port's paths as a NodeEngine asks for them: by addresses as they are written. A template over the port.
#ifndef WEFT_DATAPLANE_ENGINE_PORT_PATHS_H_
#define WEFT_DATAPLANE_ENGINE_PORT_PATHS_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/base/status.h"
#include "dataplane/engine/node_engine.h"
#include "dataplane/port/address.h"

namespace weft::engine {

// `port` outlives them. They are called on the engine's thread alone. INVALID_ARGUMENT: no address; else the
// port's own errors.
template <typename Port>
Paths PathsOf(Port* port) {
  return {.add = [port](const std::string& text, std::size_t bytes_least) -> absl::StatusOr<uint64_t> {
            WEFT_ASSIGN_OR_RETURN(const port::Address address, port::Address::Parse(text));
            return port->AddPath(address, bytes_least);
          },
          .set = [port](uint64_t path, const std::string& text, std::size_t bytes_least) -> absl::Status {
            WEFT_ASSIGN_OR_RETURN(const port::Address address, port::Address::Parse(text));
            return port->SetPath(path, address, bytes_least);
          },
          .remove = [port](uint64_t path) { port->RemovePath(path); }};
}

}  // namespace weft::engine

#endif  // WEFT_DATAPLANE_ENGINE_PORT_PATHS_H_
