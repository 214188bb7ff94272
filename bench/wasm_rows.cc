// SPDX-License-Identifier: Apache-2.0
#include "bench/wasm_rows.h"

#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "bench/message.h"
#include "bench/node.h"
#include "bench/pair_row.h"
#include "dataplane/base/check.h"
#include "dataplane/base/clock.h"
#include "dataplane/host/engine.h"
#include "dataplane/host/engine_ext.h"
#include "dataplane/host/function.h"
#include "dataplane/host/host.h"
#include "dataplane/host/instance.h"
#include "dataplane/host/module.h"
#include "dataplane/host/probe.h"

namespace weft::bench {
namespace {

// A row of one process: the other side of the pair has nothing to do. The engine is made in the caller's
// process, after the fork, since it starts threads.
class OneProcessRow : public PairRow {
 public:
  using PairRow::PairRow;

 protected:
  absl::Status Prepare() override { return absl::OkStatus(); }
  Worker::Reply Answer() override { return {}; }
};

Worker::Reply ReplyOf(const Samples& samples, uint64_t errors) {
  return {.messages = samples.count(),
          .samples = samples.count(),
          .elapsed_ns = samples.elapsed_ns(),
          .errors = errors};
}

wasm_trap_t* NoOp(void*, wasmtime_caller_t*, wasmtime_val_raw_t*, size_t) { return nullptr; }

// An instance of bench_noop.wasm and its export `run`.
class NoopGuest {
 public:
  NoopGuest() {
    absl::StatusOr<std::unique_ptr<host::Engine>> engine = host::Engine::Create({});
    WEFT_CHECK(engine.ok());
    engine_ = *std::move(engine);
    std::ifstream file(GuestPath("bench_noop"), std::ios::binary);
    const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    wasmtime_module_t* module = nullptr;
    WEFT_CHECK(wasmtime_module_new(engine_->get(), reinterpret_cast<const uint8_t*>(bytes.data()),
                                   bytes.size(), &module) == nullptr);
    wasmtime_linker_t* linker = wasmtime_linker_new(engine_->get());
    wasm_functype_t* type = wasm_functype_new_0_0();
    WEFT_CHECK(wasmtime_linker_define_func_unchecked(linker, "bench", 5, "noop", 4, type, NoOp, nullptr,
                                                     nullptr) == nullptr);
    wasm_functype_delete(type);
    store_ = wasmtime_store_new(engine_->get(), nullptr, nullptr);
    context_ = wasmtime_store_context(store_);
    wasmtime_context_set_epoch_deadline(context_, 1'000'000);
    wasm_trap_t* trap = nullptr;
    wasmtime_instance_t instance;
    WEFT_CHECK(wasmtime_linker_instantiate(linker, context_, module, &instance, &trap) == nullptr &&
               trap == nullptr);
    wasmtime_extern_t item;
    WEFT_CHECK(wasmtime_instance_export_get(context_, &instance, "run", 3, &item));
    WEFT_CHECK(item.kind == WASMTIME_EXTERN_FUNC);
    run_ = item.of.func;
    wasmtime_linker_delete(linker);
    wasmtime_module_delete(module);
  }
  ~NoopGuest() { wasmtime_store_delete(store_); }
  NoopGuest(const NoopGuest&) = delete;
  NoopGuest& operator=(const NoopGuest&) = delete;

  bool Call() {
    wasm_trap_t* trap = nullptr;
    wasmtime_val_raw_t none;
    return wasmtime_func_call_unchecked(context_, &run_, &none, 0, &trap) == nullptr && trap == nullptr;
  }

 private:
  std::unique_ptr<host::Engine> engine_;
  wasmtime_store_t* store_ = nullptr;
  wasmtime_context_t* context_ = nullptr;
  wasmtime_func_t run_ = {};
};

class WasmCallRow final : public OneProcessRow {
 public:
  WasmCallRow() : OneProcessRow({.name = "limit/wasm_call"}) {}

 private:
  Worker::Reply Call(uint32_t* out, uint64_t duration_ns) override {
    if (guest_ == nullptr) guest_ = std::make_unique<NoopGuest>();
    Samples samples(out, duration_ns);
    uint64_t begin_ns = 0, end_ns = 0, errors = 0;
    do {
      begin_ns = NowNs();
      errors += guest_->Call() ? 0 : 1;
      end_ns = NowNs();
    } while (samples.Add(begin_ns, end_ns));
    return ReplyOf(samples, errors);
  }

  std::unique_ptr<NoopGuest> guest_;
};

// A mesh of nobody: the guest of limit/instance_reset calls no one.
class Nobody final : public host::CallsOut, public host::CallsIn, public host::GuestLog {
 public:
  void Release(host::Callee&) override {}
  absl::StatusOr<host::Callee*> Resolve(host::Function&, absl::string_view) override {
    return absl::NotFoundError("nobody is here");
  }
  host::Function* EnterLocal(host::Callee&, host::CallContext&, bool, host::Status*) override {
    return nullptr;
  }
  void LeaveLocal(host::Function&) override {}
  void Start(host::OutCall&) override {}
  void PollBriefly(host::OutCall&) override {}
  host::Status Send(host::Callee&, absl::Span<const std::byte>, const host::CallContext&) override {
    return host::kNotFound;
  }
  void Cancel(host::OutCall&) override {}
  void Expire(host::OutCall&) override {}
  bool Reply(host::InCall&, host::Status, absl::Span<const std::byte>) override { return true; }
  void Line(absl::string_view, uint32_t, absl::string_view) override {}
};

// The 4 KiB pages of its memory that the bench guest changes while it handles one request.
std::size_t DirtyPagesOfOneCall() {
  constexpr uint32_t kPageBytes = 4096, kWasmPageBytes = 64 << 10;
  absl::StatusOr<std::unique_ptr<host::Engine>> engine = host::Engine::Create({.instances_max = 8});
  WEFT_CHECK(engine.ok());
  Nobody nobody;
  host::Host host(**engine, host::HostOptions{}, nobody, nobody, nobody);
  auto module = host::Module::LoadFile(**engine, GuestPath("bench_callee"), std::nullopt, nullptr);
  WEFT_CHECK(module.ok());
  absl::StatusOr<host::Function*> function = host.Add("bench/callee", *module, {});
  WEFT_CHECK(function.ok());
  host::Instance instance(**function);
  WEFT_CHECK(instance.Reset().ok());
  uint32_t bytes = 0;
  while (instance.At(0, bytes + kWasmPageBytes) != nullptr) bytes += kWasmPageBytes;
  const std::vector<std::byte> before(instance.At(0, bytes), instance.At(0, bytes) + bytes);

  host::CallContext context;
  instance.BeginCall(&context, nullptr);
  const uint32_t pointer = instance.Room(kBenchAnswerBytes);
  WEFT_CHECK(instance.At(pointer, kBenchAnswerBytes) != nullptr);
  bench_fill(instance.At(pointer, kBenchAnswerBytes), kBenchAnswerBytes, 1);
  WEFT_CHECK(instance.HandlePlain(pointer, kBenchAnswerBytes) == host::kOk);
  instance.EndCall();
  std::size_t pages = 0;
  for (uint32_t at = 0; at < bytes; at += kPageBytes)
    pages += std::memcmp(instance.At(at, kPageBytes), before.data() + at, kPageBytes) != 0;
  return pages;
}

class InstanceResetRow final : public OneProcessRow {
 public:
  InstanceResetRow() : OneProcessRow({.name = "limit/instance_reset"}) {}

 private:
  Worker::Reply Call(uint32_t* out, uint64_t duration_ns) override {
    if (probe_ == nullptr) {
      const std::size_t pages = DirtyPagesOfOneCall();
      absl::StatusOr<std::unique_ptr<host::ResetProbe>> probe = host::ResetProbe::Create(pages);
      WEFT_CHECK(pages != 0 && probe.ok());
      probe_ = *std::move(probe);
    }
    Samples samples(out, duration_ns);
    uint64_t begin_ns = 0, end_ns = 0;
    do {
      begin_ns = NowNs();
      probe_->Run(1);
      end_ns = NowNs();
    } while (samples.Add(begin_ns, end_ns));
    return ReplyOf(samples, 0);
  }

  std::unique_ptr<host::ResetProbe> probe_;
};

}  // namespace

std::unique_ptr<Row> NewWasmCallRow() { return std::make_unique<WasmCallRow>(); }
std::unique_ptr<Row> NewInstanceResetRow() { return std::make_unique<InstanceResetRow>(); }

}  // namespace weft::bench
