// SPDX-License-Identifier: Apache-2.0
// A guest module: checked, compiled or taken from the cache, linked to the host's functions, ready to be
// instantiated. Made on any thread (compiling takes milliseconds to seconds), then shared read-only.
#ifndef WEFT_DATAPLANE_HOST_MODULE_H_
#define WEFT_DATAPLANE_HOST_MODULE_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "dataplane/base/function_id.h"
#include "dataplane/host/engine.h"
#include "dataplane/host/module_cache.h"

namespace weft::host {

// The largest module file that is looked at.
inline constexpr size_t kModuleBytesMax = 64 << 20;

// What a module is for: to serve calls by its handler, or to be run once, by whatever function is named then.
enum class ModuleUse : uint8_t { kServe, kRunOnce };

class Module {
 public:
  // Checks and compiles `bytes`. `what` names the module in messages (a path). With `expected`, a module of
  // another SHA-256 is refused before anything else is done with it. `cache` may be null. Errors:
  //   DATA_LOSS            the hash is another one
  //   INVALID_ARGUMENT     not a module, an invalid one, or one that declares more than the limits allow
  //   FAILED_PRECONDITION  it lacks what serving takes (memory, weft_alloc, weft_handle), or imports what the
  //   host does not offer
  static absl::StatusOr<std::shared_ptr<const Module>> Load(Engine& engine, absl::Span<const char> bytes,
                                                            absl::string_view what,
                                                            const std::optional<Sha256>& expected,
                                                            const ModuleCache* cache,
                                                            ModuleUse use = ModuleUse::kServe);
  // As Load(), of the file at `path` or of the open descriptor `fd`, which is read from its beginning.
  static absl::StatusOr<std::shared_ptr<const Module>> LoadFile(Engine& engine, const std::string& path,
                                                                const std::optional<Sha256>& expected,
                                                                const ModuleCache* cache);
  static absl::StatusOr<std::shared_ptr<const Module>> LoadFd(Engine& engine, int fd, absl::string_view what,
                                                              const std::optional<Sha256>& expected,
                                                              const ModuleCache* cache,
                                                              ModuleUse use = ModuleUse::kServe);
  ~Module();
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  Engine& engine() const { return engine_; }
  const Sha256& hash() const { return hash_; }
  const wasmtime_instance_pre_t* pre() const { return pre_; }
  // It imports no function that can suspend it or reach another function's guest: it may run on the plain
  // path, and be called directly from within another guest's call.
  bool leaf() const { return leaf_; }
  // It imports functions that only a fiber can serve, so that its stores refuse plain entry points.
  bool suspends() const { return suspends_; }
  // Even weft_alloc may suspend: the module links a runtime that sleeps (Go's).
  bool alloc_suspends() const { return alloc_suspends_; }
  bool has_initialize() const { return has_initialize_; }
  bool has_memory() const { return has_memory_; }  // Always, unless it is run once
  bool from_cache() const { return from_cache_; }
  ModuleUse use() const { return use_; }

 private:
  Module(Engine& engine, const Sha256& hash, ModuleUse use) : engine_(engine), hash_(hash), use_(use) {}
  absl::Status Compile(absl::Span<const char> bytes, absl::string_view what, const ModuleCache* cache);
  bool CompileFromCache(const ModuleCache& cache);
  absl::Status CheckExports(absl::string_view what);
  void ScanImports();
  absl::Status Link(absl::string_view what);

  Engine& engine_;
  const Sha256 hash_;
  const ModuleUse use_;
  wasmtime_module_t* module_ = nullptr;
  wasmtime_instance_pre_t* pre_ = nullptr;
  bool leaf_ = true;
  bool suspends_ = false;
  bool alloc_suspends_ = false;
  bool has_initialize_ = false;
  bool has_memory_ = false;
  bool from_cache_ = false;
};

}  // namespace weft::host

#endif  // WEFT_DATAPLANE_HOST_MODULE_H_
