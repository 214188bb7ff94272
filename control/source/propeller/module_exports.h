// SPDX-License-Identifier: Apache-2.0
// What a WebAssembly module exports, as far as it decides how a task is started. Pure; any thread.
#ifndef WEFT_CONTROL_SOURCE_PROPELLER_MODULE_EXPORTS_H_
#define WEFT_CONTROL_SOURCE_PROPELLER_MODULE_EXPORTS_H_

#include "absl/strings/string_view.h"

namespace weft::control {

// False for a core module that exports no `weft_handle`: it is made to be run once. True for all else, also
// for what is no module, which the host refuses with the better words.
bool ServesCalls(absl::string_view module);

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_PROPELLER_MODULE_EXPORTS_H_
