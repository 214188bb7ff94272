// SPDX-License-Identifier: Apache-2.0
// The process's Wasm engine: its configuration (pooled instances, fibers, epochs, limits of memory and
// stack), and its ticker. Made once by weft-host or a test. Compiling may run on any thread; instances live
// on the guest thread.
#ifndef WEFT_DATAPLANE_HOST_ENGINE_H_
#define WEFT_DATAPLANE_HOST_ENGINE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "dataplane/base/attributes.h"
#include "dataplane/host/engine_ext.h"
#include "dataplane/host/ticker.h"

namespace weft::host {

class Instance;

struct EngineOptions {
  // The most instances alive at once, and so the most calls under way. Each reserves 4 GiB of address space,
  // of which 47 bits hold 32,768, and no memory.
  uint32_t instances_max = 6144;
  // Stacks for guests that may have to wait, so the most calls that wait at once; cut to instances_max. Each
  // is two mappings, which the kernel takes apart before it closes a dead process's sockets: 1 us a stack
  // until the callers hear of it.
  uint32_t fibers_max = 2048;
  // The largest linear memory of any instance; a function's own limit may be lower.
  uint64_t memory_bytes_max = 256 << 20;
  // Guest frames of one call. A C guest keeps its arrays in linear memory, so 512 KiB are deep recursion.
  size_t wasm_stack_bytes = 512 << 10;
  // The same of any leaf that a guest of this engine may call directly, on its own fiber.
  size_t leaf_stack_bytes = 512 << 10;
  // Memory that a reset instance keeps resident instead of giving it back to the kernel and faulting it in
  // again: with 64 KiB a fresh call takes 3 us, with none 8 us.
  size_t resident_bytes = 64 << 10;
};

class Engine {
 public:
  static absl::StatusOr<std::unique_ptr<Engine>> Create(const EngineOptions& options);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  wasm_engine_t* get() const { return engine_; }
  const EngineOptions& options() const { return options_; }
  Ticker& ticker() { return *ticker_; }

  // One stack for an instance's fibers; false where fibers_max are taken. The store of an instance keeps its
  // stack from the first fiber to its end, and has one fiber at a time. Guest thread only.
  WEFT_HOT bool TakeStack() {
    if (stacks_taken_ == options_.fibers_max) return false;
    ++stacks_taken_;
    return true;
  }
  void ReturnStack() { --stacks_taken_; }

  // The engine for functions whose guests may use `bytes` of stack, since Wasmtime sets that for a whole
  // engine: this one, or one like it that it owns, made when a limit is asked for the first time. Shares the
  // ticker; calls between guests of two of them are like any others. INVALID_ARGUMENT for a limit above this
  // engine's or below kStackBytesMin; RESOURCE_EXHAUSTED for the fifth different one. Guest thread only;
  // blocks for the time of making an engine.
  absl::StatusOr<Engine*> WithStack(size_t bytes);
  static constexpr size_t kStackBytesMin = 16 << 10;
  static constexpr size_t kOtherStacksMax = 4;
  // The instance whose guest runs now, for the functions that it imports: asking the engine takes two calls.
  // Guest thread only; the linker hands its address to every import.
  Instance** running() { return &running_; }
  // Names everything that compiled code depends on besides the module: the engine's version and
  // configuration.
  const std::string& fingerprint() const { return fingerprint_; }

 private:
  Engine(wasm_engine_t* engine, const EngineOptions& options);
  static absl::StatusOr<wasm_engine_t*> Make(const EngineOptions& options);

  wasm_engine_t* const engine_;
  const EngineOptions options_;
  const std::string fingerprint_;
  std::unique_ptr<Ticker> own_ticker_;  // Null where another engine owns this one.
  Ticker* ticker_ = nullptr;
  std::vector<std::unique_ptr<Engine>> others_;
  Instance* running_ = nullptr;
  uint32_t stacks_taken_ = 0;
};

// Takes the message out of an engine's error or trap and frees it. Control path only: it allocates.
std::string TakeMessage(wasmtime_error_t* error);
std::string TakeMessage(wasm_trap_t* trap);
std::string TakeMessage(weft_fault* fault);

}  // namespace weft::host

#endif  // WEFT_DATAPLANE_HOST_ENGINE_H_
