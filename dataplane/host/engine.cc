// SPDX-License-Identifier: Apache-2.0
// Configuration of the Wasm engine, with the reason of each setting.
#include "dataplane/host/engine.h"

#include <sys/mman.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/status.h"

namespace weft::host {
namespace {

// Host functions run on the fiber of the guest that calls them, and a leaf called directly runs there too,
// with a guest stack of its own: both guests' stacks, and room for the host's frames.
constexpr size_t kHostStackBytes = 512 << 10;
// Of an engine with a stack limit of its own, which serves few functions; 8 TiB of address space.
constexpr uint32_t kOtherInstancesMax = 2048;
constexpr uint32_t kOtherFibersMax = 512;

size_t FiberStackBytes(const EngineOptions& options) {
  return options.wasm_stack_bytes + options.leaf_stack_bytes + kHostStackBytes;
}

void SetPooling(wasm_config_t* config, const EngineOptions& options) {
  wasmtime_pooling_allocation_config_t* pool = wasmtime_pooling_allocation_config_new();
  wasmtime_pooling_allocation_config_total_core_instances_set(pool, options.instances_max);
  wasmtime_pooling_allocation_config_total_memories_set(pool, options.instances_max);
  wasmtime_pooling_allocation_config_total_tables_set(pool, options.instances_max);
  wasmtime_pooling_allocation_config_total_stacks_set(pool, options.fibers_max);
  wasmtime_pooling_allocation_config_max_memory_size_set(pool, options.memory_bytes_max);
  wasmtime_pooling_allocation_config_max_memories_per_module_set(pool, 1);
  wasmtime_pooling_allocation_config_max_tables_per_module_set(pool, 1);
  // Go's linker makes one table entry a function; its runtime alone has some thousands.
  wasmtime_pooling_allocation_config_table_elements_set(pool, 65536);
  wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(pool, options.resident_bytes);
  wasmtime_pooling_allocation_config_table_keep_resident_set(pool, 4096);
  wasmtime_pooling_allocation_config_async_stack_keep_resident_set(pool, 8192);
  wasmtime_pooling_allocation_strategy_set(config, pool);
  wasmtime_pooling_allocation_config_delete(pool);
}

wasm_config_t* NewConfig(const EngineOptions& options) {
  wasm_config_t* config = wasm_config_new();
  wasmtime_config_epoch_interruption_set(config, true);
  wasmtime_config_max_wasm_stack_set(config, options.wasm_stack_bytes);
  wasmtime_config_async_stack_size_set(config, FiberStackBytes(options));
  // Guests address 32 bits: with 4 GiB reserved and a guard behind, no access needs a check. 64-bit memories
  // would need one at each, and let a module declare any size.
  wasmtime_config_memory_reservation_set(config, uint64_t{4} << 30);
  wasmtime_config_memory_may_move_set(config, false);
  wasmtime_config_wasm_memory64_set(config, false);
  wasmtime_config_wasm_multi_memory_set(config, false);
  // No unwinder but the engine's own walks guest frames.
  wasmtime_config_native_unwind_info_set(config, false);
  SetPooling(config, options);
  return config;
}

// The engine's constructor aborts where it cannot reserve its pool, so ask first.
absl::Status CheckAddressSpace(const EngineOptions& options) {
  // Each instance: 4 GiB and the guard of 32 MiB behind it. Each fiber: its stack.
  const size_t bytes = options.instances_max * ((size_t{4} << 30) + (size_t{32} << 20)) +
                       options.fibers_max * FiberStackBytes(options);
  void* probe = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (probe == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the Wasm engine cannot reserve ", bytes >> 30, " GiB of address space for ",
                     options.instances_max, " instances; is it limited for this process (ulimit -v)?"));
  }
  munmap(probe, bytes);
  return absl::OkStatus();
}

template <typename Message>
std::string TakeBytes(Message&& get) {
  wasm_name_t name;
  get(&name);
  size_t size = name.size;
  while (size > 0 && name.data[size - 1] == '\0') --size;
  std::string text(name.data, size);
  wasm_byte_vec_delete(&name);
  return text;
}

}  // namespace

absl::StatusOr<wasm_engine_t*> Engine::Make(const EngineOptions& options) {
  if (options.instances_max == 0 || options.instances_max > 16384 || options.fibers_max == 0) {
    return absl::InvalidArgumentError("instances_max must be from 1 to 16384, fibers_max at least 1");
  }
  WEFT_RETURN_IF_ERROR(CheckAddressSpace(options));
  weft_engine_quiet_panics();
  return wasm_engine_new_with_config(NewConfig(options));
}

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options) {
  EngineOptions own = options;
  own.leaf_stack_bytes = own.wasm_stack_bytes;
  own.fibers_max = std::min(own.fibers_max, own.instances_max);
  WEFT_ASSIGN_OR_RETURN(wasm_engine_t * made, Make(own));
  std::unique_ptr<Engine> engine(new Engine(made, own));
  engine->own_ticker_ = std::make_unique<Ticker>(made);
  engine->ticker_ = engine->own_ticker_.get();
  return engine;
}

absl::StatusOr<Engine*> Engine::WithStack(size_t bytes) {
  if (bytes == options_.wasm_stack_bytes) return this;
  if (bytes > options_.wasm_stack_bytes || bytes < kStackBytesMin) {
    return absl::InvalidArgumentError(absl::StrCat("a stack limit of ", bytes,
                                                   " bytes is outside this host's ", kStackBytesMin, " to ",
                                                   options_.wasm_stack_bytes));
  }
  for (const std::unique_ptr<Engine>& other : others_) {
    if (other->options_.wasm_stack_bytes == bytes) return other.get();
  }
  if (others_.size() == kOtherStacksMax) {
    return absl::ResourceExhaustedError(absl::StrCat("a stack limit of ", bytes,
                                                     " bytes is one too many: a host has ", kOtherStacksMax,
                                                     " different ones beside ", options_.wasm_stack_bytes));
  }
  EngineOptions options = options_;
  options.wasm_stack_bytes = bytes;
  options.instances_max = std::min(options.instances_max, kOtherInstancesMax);
  options.fibers_max = std::min(options.fibers_max, kOtherFibersMax);
  WEFT_ASSIGN_OR_RETURN(wasm_engine_t * made, Make(options));
  std::unique_ptr<Engine> engine(new Engine(made, options));
  engine->ticker_ = ticker_;
  ticker_->Add(made);
  others_.push_back(std::move(engine));
  return others_.back().get();
}

Engine::Engine(wasm_engine_t* engine, const EngineOptions& options)
    : engine_(engine),
      options_(options),
      fingerprint_(absl::StrCat("wasmtime-", WASMTIME_VERSION, "-stack-", options.wasm_stack_bytes)) {}

Engine::~Engine() {
  own_ticker_.reset();
  others_.clear();
  wasm_engine_delete(engine_);
}

std::string TakeMessage(wasmtime_error_t* error) {
  std::string text = TakeBytes([&](wasm_name_t* name) { wasmtime_error_message(error, name); });
  wasmtime_error_delete(error);
  return text;
}

std::string TakeMessage(wasm_trap_t* trap) {
  std::string text = TakeBytes([&](wasm_name_t* name) { wasm_trap_message(trap, name); });
  wasm_trap_delete(trap);
  return text;
}

std::string TakeMessage(weft_fault* fault) {
  size_t size = 0;
  const uint8_t* bytes = weft_fault_message(fault, &size);
  std::string text(reinterpret_cast<const char*>(bytes), size);
  weft_fault_delete(fault);
  return text;
}

}  // namespace weft::host
