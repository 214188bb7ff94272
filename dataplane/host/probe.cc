// SPDX-License-Identifier: Apache-2.0
// The two probes: straight against the engine's C interface and the kernel.
#include "dataplane/host/probe.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "absl/strings/string_view.h"
#include "dataplane/base/check.h"
#include "dataplane/host/imports.h"

namespace weft::host {
namespace {

constexpr size_t kPageBytes = 4096;

// (module
//   (import "m" "nop" (func))
//   (func (export "run") call 0))
constexpr uint8_t kProbeModule[] = {
    0,  'a', 's', 'm',  1,   0,    0,   0,                // magic, version 1
    1,  4,   1,   0x60, 0,   0,                           // type 0: () -> ()
    2,  9,   1,   1,    'm', 3,    'n', 'o',  'p', 0, 0,  // import function 0
    3,  2,   1,   0,                                      // function 1 of type 0
    7,  7,   1,   3,    'r', 'u',  'n', 0,    1,          // exported
    10, 6,   1,   4,    0,   0x10, 0,   0x0b,             // its body
};

}  // namespace

absl::StatusOr<std::unique_ptr<WasmCallProbe>> WasmCallProbe::Create(Engine& engine) {
  std::unique_ptr<WasmCallProbe> probe(new WasmCallProbe());
  wasmtime_error_t* error =
      wasmtime_module_new(engine.get(), kProbeModule, sizeof kProbeModule, &probe->module_);
  if (error != nullptr) return absl::InternalError(TakeMessage(error));
  probe->linker_ = wasmtime_linker_new(engine.get());
  DefinePlain(
      probe->linker_, "m", "nop", ":",
      [](void*, wasmtime_caller_t*, wasmtime_val_raw_t*, size_t) -> wasm_trap_t* { return nullptr; },
      nullptr);
  probe->store_ = wasmtime_store_new(engine.get(), nullptr, nullptr);
  wasmtime_context_t* context = wasmtime_store_context(probe->store_);
  wasmtime_context_set_epoch_deadline(context, uint64_t{1} << 60);  // The ticker must not end it.
  wasmtime_instance_t instance;
  wasm_trap_t* trap = nullptr;
  error = wasmtime_linker_instantiate(probe->linker_, context, probe->module_, &instance, &trap);
  if (error != nullptr) return absl::InternalError(TakeMessage(error));
  wasmtime_extern_t item;
  WEFT_CHECK(trap == nullptr && wasmtime_instance_export_get(context, &instance, "run", 3, &item));
  probe->run_ = item.of.func;
  return probe;
}

WasmCallProbe::~WasmCallProbe() {
  if (store_ != nullptr) wasmtime_store_delete(store_);
  if (linker_ != nullptr) wasmtime_linker_delete(linker_);
  if (module_ != nullptr) wasmtime_module_delete(module_);
}

void WasmCallProbe::Run(uint32_t count) {
  wasmtime_context_t* context = wasmtime_store_context(store_);
  for (uint32_t i = 0; i < count; ++i) {
    WEFT_CHECK(weft_call_plain(context, &run_, nullptr, 0) == nullptr);
  }
}

absl::StatusOr<std::unique_ptr<ResetProbe>> ResetProbe::Create(size_t pages) {
  const size_t bytes = pages * kPageBytes;
  UniqueFd image(memfd_create("weft-reset-probe", MFD_CLOEXEC));
  if (!image.valid() || ftruncate(image.get(), static_cast<off_t>(bytes)) != 0) {
    return absl::ErrnoToStatus(errno, "make a memfd");
  }
  void* mapping = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, image.get(), 0);
  if (mapping == MAP_FAILED) return absl::ErrnoToStatus(errno, "mmap a memfd");
  return std::unique_ptr<ResetProbe>(new ResetProbe(static_cast<std::byte*>(mapping), bytes));
}

ResetProbe::~ResetProbe() { munmap(pages_, bytes_); }

void ResetProbe::Run(uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    for (size_t at = 0; at < bytes_; at += kPageBytes) {
      *static_cast<volatile std::byte*>(pages_ + at) = std::byte{1};
    }
    WEFT_CHECK(madvise(pages_, bytes_, MADV_DONTNEED) == 0);
  }
}

}  // namespace weft::host
