// SPDX-License-Identifier: Apache-2.0
// Loading of guest modules: hash, compilation or cache, exports, imports, linking.
#include "dataplane/host/module.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/status.h"
#include "dataplane/host/imports.h"

namespace weft::host {
namespace {

absl::string_view NameOf(const wasm_name_t* name) { return {name->data, name->size}; }

// The first line says what is wrong; the rest is the engine's own chain of causes, which helps as well.
std::string OneLine(std::string text) {
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  return text;
}

bool HasType(const wasm_externtype_t* type, std::initializer_list<wasm_valkind_t> params, bool one_result) {
  const wasm_functype_t* function = wasm_externtype_as_functype_const(type);
  if (function == nullptr) return false;
  const wasm_valtype_vec_t* have = wasm_functype_params(function);
  const wasm_valtype_vec_t* results = wasm_functype_results(function);
  if (have->size != params.size() || results->size != (one_result ? 1 : 0)) return false;
  if (one_result && wasm_valtype_kind(results->data[0]) != WASM_I32) return false;
  size_t i = 0;
  for (wasm_valkind_t kind : params) {
    if (wasm_valtype_kind(have->data[i++]) != kind) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Module>> Module::Load(Engine& engine, absl::Span<const char> bytes,
                                                           absl::string_view what,
                                                           const std::optional<Sha256>& expected,
                                                           const ModuleCache* cache, ModuleUse use) {
  const Sha256 hash = Sha256Of(absl::string_view(bytes.data(), bytes.size()));
  if (expected.has_value() && *expected != hash) {
    return absl::DataLossError(absl::StrCat(what, " does not have the SHA-256 that was announced for it"));
  }
  std::shared_ptr<Module> module(new Module(engine, hash, use));
  WEFT_RETURN_IF_ERROR(module->Compile(bytes, what, cache));
  WEFT_RETURN_IF_ERROR(module->CheckExports(what));
  module->ScanImports();
  WEFT_RETURN_IF_ERROR(module->Link(what));
  return module;
}

absl::StatusOr<std::shared_ptr<const Module>> Module::LoadFile(Engine& engine, const std::string& path,
                                                               const std::optional<Sha256>& expected,
                                                               const ModuleCache* cache) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("open ", path));
  return LoadFd(engine, fd.get(), path, expected, cache);
}

absl::StatusOr<std::shared_ptr<const Module>> Module::LoadFd(Engine& engine, int fd, absl::string_view what,
                                                             const std::optional<Sha256>& expected,
                                                             const ModuleCache* cache, ModuleUse use) {
  struct stat info;
  if (fstat(fd, &info) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("fstat ", what));
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(what, " is not a regular file"));
  if (static_cast<uint64_t>(info.st_size) > kModuleBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(what, " is larger than ", kModuleBytesMax >> 20, " MiB"));
  }
  // A copy of our own: what is hashed must be what is compiled, whoever else may write the file.
  std::vector<char> bytes(static_cast<size_t>(info.st_size));
  size_t have = 0;
  while (have < bytes.size()) {
    const ssize_t got = pread(fd, bytes.data() + have, bytes.size() - have, static_cast<off_t>(have));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::ErrnoToStatus(errno, absl::StrCat("read ", what));
    if (got == 0) break;  // It shrank meanwhile; the hash or the compiler notices.
    have += static_cast<size_t>(got);
  }
  return Load(engine, absl::MakeConstSpan(bytes.data(), have), what, expected, cache, use);
}

Module::~Module() {
  if (pre_ != nullptr) wasmtime_instance_pre_delete(pre_);
  if (module_ != nullptr) wasmtime_module_delete(module_);
}

bool Module::CompileFromCache(const ModuleCache& cache) {
  absl::StatusOr<std::vector<char>> code = cache.Find(hash_, engine_.fingerprint());
  if (!code.ok()) return false;
  wasmtime_error_t* error = wasmtime_module_deserialize(
      engine_.get(), reinterpret_cast<const uint8_t*>(code->data()), code->size(), &module_);
  if (error == nullptr) return from_cache_ = true;
  wasmtime_error_delete(error);
  cache.Remove(hash_, engine_.fingerprint());
  return false;
}

absl::Status Module::Compile(absl::Span<const char> bytes, absl::string_view what, const ModuleCache* cache) {
  // Text and components have magics of their own, and the engine's message about them helps nobody.
  if (bytes.size() < 8 || absl::string_view(bytes.data(), 4) != absl::string_view("\0asm", 4)) {
    return absl::InvalidArgumentError(absl::StrCat(what, " is not a WebAssembly module"));
  }
  if (bytes[4] != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " is not a core WebAssembly module of version 1 (is it a component?)"));
  }
  if (cache != nullptr && CompileFromCache(*cache)) return absl::OkStatus();
  wasmtime_error_t* error = wasmtime_module_new(engine_.get(), reinterpret_cast<const uint8_t*>(bytes.data()),
                                                bytes.size(), &module_);
  if (error != nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": ", OneLine(TakeMessage(error))));
  }
  if (cache != nullptr) {
    wasm_byte_vec_t code;
    error = wasmtime_module_serialize(module_, &code);
    if (error != nullptr) {
      wasmtime_error_delete(error);
    } else {
      // A cache that cannot be written costs the next start some time, nothing else.
      (void)cache->Store(hash_, engine_.fingerprint(), absl::MakeConstSpan(code.data, code.size));
      wasm_byte_vec_delete(&code);
    }
  }
  malloc_trim(0);  // The compiler's arenas are of no further use, and a host is to stay small.
  return absl::OkStatus();
}

absl::Status Module::CheckExports(absl::string_view what) {
  wasm_exporttype_vec_t exports;
  wasmtime_module_exports(module_, &exports);
  bool memory = false, alloc = false, handle = false;
  for (size_t i = 0; i < exports.size; ++i) {
    const absl::string_view name = NameOf(wasm_exporttype_name(exports.data[i]));
    const wasm_externtype_t* type = wasm_exporttype_type(exports.data[i]);
    if (name == "memory") memory = wasm_externtype_kind(type) == WASM_EXTERN_MEMORY;
    if (name == "weft_alloc") alloc = HasType(type, {WASM_I32}, true);
    if (name == "weft_handle") handle = HasType(type, {WASM_I32, WASM_I32, WASM_I32}, true);
    if (name == "_initialize") has_initialize_ = HasType(type, {}, false);
  }
  wasm_exporttype_vec_delete(&exports);
  has_memory_ = memory;
  // Which function it has is asked when it is to run; one that only reckons needs no memory.
  if (use_ == ModuleUse::kRunOnce) return absl::OkStatus();
  // The handler first: a module without one was made for something else.
  if (!handle) {
    return absl::FailedPreconditionError(
        absl::StrCat(what, " has no handler: it exports no `weft_handle(i32, i32, i32) -> i32`"));
  }
  if (!memory) return absl::FailedPreconditionError(absl::StrCat(what, " exports no memory named `memory`"));
  if (!alloc)
    return absl::FailedPreconditionError(absl::StrCat(what, " exports no `weft_alloc(i32) -> i32`"));
  return absl::OkStatus();
}

void Module::ScanImports() {
  wasm_importtype_vec_t imports;
  wasmtime_module_imports(module_, &imports);
  for (size_t i = 0; i < imports.size; ++i) {
    const ImportTraits traits = TraitsOf(NameOf(wasm_importtype_module(imports.data[i])),
                                         NameOf(wasm_importtype_name(imports.data[i])));
    leaf_ &= !traits.suspends && !traits.calls;
    suspends_ |= traits.suspends;
    alloc_suspends_ |= traits.sleeps;
  }
  wasm_importtype_vec_delete(&imports);
}

absl::Status Module::Link(absl::string_view what) {
  wasmtime_linker_t* linker = NewLinker(engine_);
  wasmtime_error_t* error = wasmtime_linker_instantiate_pre(linker, module_, &pre_);
  wasmtime_linker_delete(linker);
  if (error == nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(what, ": ", OneLine(TakeMessage(error))));
}

}  // namespace weft::host
