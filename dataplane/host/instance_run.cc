// SPDX-License-Identifier: Apache-2.0
// An instance of a module that is run once: which of its functions, with which parameters, and what it
// returned.
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/host/function.h"
#include "dataplane/host/host.h"
#include "dataplane/host/instance.h"
#include "dataplane/host/module.h"

namespace weft::host {
namespace {

// Tried in this order where the module does not export what was named.
constexpr absl::string_view kEntries[] = {"_start", "run", "main"};

bool IsNumber(wasm_valkind_t kind) {
  return kind == WASM_I32 || kind == WASM_I64 || kind == WASM_F32 || kind == WASM_F64;
}

bool AllNumbers(const wasm_valtype_vec_t& types) {
  for (size_t i = 0; i < types.size; ++i) {
    if (!IsNumber(wasm_valtype_kind(types.data[i]))) return false;
  }
  return true;
}

wasmtime_val_t ValueOf(wasm_valkind_t kind, int64_t number) {
  wasmtime_val_t value = {};
  switch (kind) {
    case WASM_I64:
      value.kind = WASMTIME_I64;
      value.of.i64 = number;
      break;
    case WASM_F32:
      value.kind = WASMTIME_F32;
      value.of.f32 = static_cast<float>(number);
      break;
    case WASM_F64:
      value.kind = WASMTIME_F64;
      value.of.f64 = static_cast<double>(number);
      break;
    default:
      value.kind = WASMTIME_I32;
      value.of.i32 = static_cast<int32_t>(number);  // Its low half, as an unsigned one has it too.
  }
  return value;
}

std::string TextOf(const wasmtime_val_t& value) {
  switch (value.kind) {
    case WASMTIME_I64:
      return absl::StrCat(value.of.i64);
    case WASMTIME_F32:
      return absl::StrCat(value.of.f32);
    case WASMTIME_F64:
      return absl::StrCat(value.of.f64);
    default:
      return absl::StrCat(value.of.i32);
  }
}

}  // namespace

absl::Status Instance::FindEntry(const std::string& entry, wasmtime_func_t* function, std::string* name) {
  const auto find = [&](absl::string_view what) {
    wasmtime_extern_t item;
    if (!wasmtime_instance_export_get(context_of_store_, &instance_, what.data(), what.size(), &item))
      return false;
    const bool is_function = item.kind == WASMTIME_EXTERN_FUNC;
    if (is_function) *function = item.of.func;
    wasmtime_extern_delete(&item);
    *name = std::string(what);
    return is_function;
  };
  if (find(entry)) return absl::OkStatus();
  for (const absl::string_view what : kEntries) {
    if (find(what)) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the module exports no function `", entry, "`, `_start`, `run` or `main`"));
}

absl::Status Instance::RunExport(const std::string& entry, const std::vector<int64_t>& inputs,
                                 std::string* value) {
  wasmtime_func_t function;
  std::string name;
  if (absl::Status found = FindEntry(entry, &function, &name); !found.ok()) return found;
  wasm_functype_t* type = wasmtime_func_type(context_of_store_, &function);
  const wasm_valtype_vec_t& params = *wasm_functype_params(type);
  std::vector<wasmtime_val_t> results(wasm_functype_results(type)->size);
  std::vector<wasmtime_val_t> args;
  absl::Status status;
  if (!AllNumbers(params) || !AllNumbers(*wasm_functype_results(type))) {
    status = absl::InvalidArgumentError(absl::StrCat("`", name, "` takes or returns what is no number"));
  } else if (params.size != inputs.size()) {
    status = absl::InvalidArgumentError(
        absl::StrCat("`", name, "` takes ", params.size, " inputs, and ", inputs.size(), " were given"));
  } else {
    for (size_t i = 0; i < params.size; ++i)
      args.push_back(ValueOf(wasm_valtype_kind(params.data[i]), inputs[i]));
  }
  wasm_functype_delete(type);
  if (!status.ok()) return status;
  wasm_trap_t* trap = nullptr;
  wasmtime_error_t* error = nullptr;
  phase_ = Phase::kRun;
  function_.host().EnterGuest();
  {
    const Running running(*this);
    status = RunToEnd(wasmtime_func_call_async(context_of_store_, &function, args.data(), args.size(),
                                               results.data(), results.size(), &trap, &error),
                      &trap, &error);
  }
  function_.host().LeaveGuest();
  phase_ = Phase::kIdle;
  // What the epoch's callback said, in place of the engine's text.
  if (!status.ok() && cause_ != nullptr) status = absl::DeadlineExceededError(cause_);
  cause_ = nullptr;
  if (status.ok() && !results.empty()) *value = TextOf(results[0]);
  return status;
}

}  // namespace weft::host
