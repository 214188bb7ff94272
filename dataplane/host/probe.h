// SPDX-License-Identifier: Apache-2.0
// The limits of the machine and the engine that benchmarks hold the host against: nothing of weft's data path
// is in them. Used by weft-bench (limit/wasm_call, limit/instance_reset) and by bench/micro/host_bench.cc.
// Any one thread.
#ifndef WEFT_DATAPLANE_HOST_PROBE_H_
#define WEFT_DATAPLANE_HOST_PROBE_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "dataplane/base/fd.h"
#include "dataplane/host/engine.h"

namespace weft::host {

// Host to guest, a no-op import, and back.
class WasmCallProbe {
 public:
  // `engine` outlives the probe.
  static absl::StatusOr<std::unique_ptr<WasmCallProbe>> Create(Engine& engine);
  ~WasmCallProbe();
  WasmCallProbe(const WasmCallProbe&) = delete;
  WasmCallProbe& operator=(const WasmCallProbe&) = delete;

  // Makes `count` round trips. Aborts where one fails, which none can.
  void Run(uint32_t count);

 private:
  WasmCallProbe() = default;

  wasmtime_module_t* module_ = nullptr;
  wasmtime_linker_t* linker_ = nullptr;
  wasmtime_store_t* store_ = nullptr;
  wasmtime_func_t run_ = {};
};

// What the kernel asks for giving a copy-on-write mapping its first content back: the pages that were written
// are dropped, and written anew.
class ResetProbe {
 public:
  // `pages`: of 4 KiB, as many as an instance writes during one call.
  static absl::StatusOr<std::unique_ptr<ResetProbe>> Create(size_t pages);
  ~ResetProbe();
  ResetProbe(const ResetProbe&) = delete;
  ResetProbe& operator=(const ResetProbe&) = delete;

  // Resets `count` times, and writes to each page in between.
  void Run(uint32_t count);

 private:
  ResetProbe(std::byte* pages, size_t bytes) : pages_(pages), bytes_(bytes) {}

  std::byte* const pages_;
  const size_t bytes_;
};

}  // namespace weft::host

#endif  // WEFT_DATAPLANE_HOST_PROBE_H_
