// SPDX-License-Identifier: Apache-2.0
// The functions that a guest may import: module `weft` (imports.cc) and WASI preview 1 without files or
// network (wasi.cc). Used while a module is linked; the functions themselves run on the guest thread.
#ifndef WEFT_DATAPLANE_HOST_IMPORTS_H_
#define WEFT_DATAPLANE_HOST_IMPORTS_H_

#include "absl/strings/string_view.h"
#include "dataplane/host/engine.h"
#include "dataplane/host/instance.h"

namespace weft::host {

// What importing a function says about a module.
struct ImportTraits {
  bool calls = false;     // It reaches other functions and waits for them.
  bool suspends = false;  // It can suspend the guest, which needs a fiber.
  bool sleeps = false;    // It can do so even in weft_alloc.
};

ImportTraits TraitsOf(absl::string_view module, absl::string_view name);

// A linker that knows every function the host offers. The caller deletes it.
wasmtime_linker_t* NewLinker(Engine& engine);

// For the files that define functions. `running` is the engine's, and the data of every function.
// "iI:i" is (i32, i64) -> i32. The caller owns the result.
wasm_functype_t* FunctionType(absl::string_view signature);
void DefinePlain(wasmtime_linker_t* linker, absl::string_view module, absl::string_view name,
                 absl::string_view signature, wasmtime_func_unchecked_callback_t function,
                 Instance** running);
void DefineSuspending(wasmtime_linker_t* linker, absl::string_view module, absl::string_view name,
                      absl::string_view signature, wasmtime_func_async_callback_t function,
                      Instance** running);
void DefineWasi(wasmtime_linker_t* linker, Instance** running);

inline Instance& InstanceOf(void* running) { return **static_cast<Instance**>(running); }

}  // namespace weft::host

#endif  // WEFT_DATAPLANE_HOST_IMPORTS_H_
