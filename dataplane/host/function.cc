// SPDX-License-Identifier: Apache-2.0
// Instances of one function, the queue for them, and the names that it calls.
#include "dataplane/host/function.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "dataplane/base/check.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/status.h"
#include "dataplane/host/host.h"

namespace weft::host {

Function::Function(Host& host, std::string name, std::shared_ptr<const Module> module,
                   const FunctionOptions& options)
    : host_(host),
      name_(std::move(name)),
      module_(std::move(module)),
      options_(options),
      path_(module_->leaf() ? Path::kTrial : Path::kFiber) {
  const size_t instances = options_.keep ? 1 : options_.instances_max;
  all_.reserve(instances);
  clean_.reserve(instances);
  used_.reserve(instances);
}

Function::~Function() { WEFT_CHECK(!has_calls()); }

absl::StatusOr<std::unique_ptr<Function>> Function::Create(Host& host, std::string name,
                                                           std::shared_ptr<const Module> module,
                                                           const FunctionOptions& options) {
  WEFT_RETURN_IF_ERROR(CheckFunctionName(name));
  if (options.instances_max == 0 || options.memory_bytes_max > module->engine().options().memory_bytes_max) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": limits outside those of the engine"));
  }
  std::unique_ptr<Function> function(new Function(host, std::move(name), std::move(module), options));
  Instance* first = function->NewInstance();
  if (absl::Status status = first->Reset(); !status.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat(function->name_, " does not start: ", status.message()));
  }
  function->clean_.push_back(first);
  return function;
}

Instance* Function::NewInstance() {
  all_.push_back(std::make_unique<Instance>(*this));
  return all_.back().get();
}

Instance* Function::Take() {
  Instance* instance;
  if (!clean_.empty()) [[likely]] {
    instance = clean_.back();
    clean_.pop_back();
    ++active_;
    return instance;
  }
  if (!used_.empty()) {
    instance = used_.back();
    used_.pop_back();
  } else if (all_.size() < all_.capacity()) {
    instance = NewInstance();
  } else {
    start_fault_.clear();
    return nullptr;
  }
  ++counters_.resets;
  ++counters_.resets_on_path;
  if (absl::Status status = instance->Reset(); !status.ok()) {
    // Its memory may be short for a moment, or its start-up fail now and then; the next call tries again.
    used_.push_back(instance);
    const bool no_stack = absl::IsResourceExhausted(status);
    start_status_ = no_stack ? kResourceExhausted : kInternal;
    // Want of a stack ends with one of this function's own calls, if there is one.
    start_fault_ = no_stack && active_ != 0 ? std::string() : std::string(status.message());
    return nullptr;
  }
  ++active_;
  return instance;
}

void Function::GiveBack(Instance* instance) {
  --active_;
  if (options_.keep && !instance->faulted()) {
    clean_.push_back(instance);
  } else {
    used_.push_back(instance);
  }
}

bool Function::IdleWork() {
  if (draining_) return false;
  const size_t target = options_.keep ? 1 : std::min<size_t>(options_.clean_target, options_.instances_max);
  if (clean_.size() < target) {
    Instance* instance = nullptr;
    if (!used_.empty()) {
      instance = used_.back();
      used_.pop_back();
    } else if (all_.size() < std::min(target, all_.capacity())) {
      instance = NewInstance();
    } else {
      return false;
    }
    ++counters_.resets;
    if (!instance->Reset().ok()) {
      // The call that needs it reports why.
      used_.push_back(instance);
      return false;
    }
    clean_.push_back(instance);
    return true;
  }
  // More than enough are clean: what is left from a burst gives its memory back.
  for (Instance* instance : used_) {
    if (instance->live()) {
      instance->Drop();
      return true;
    }
  }
  return false;
}

uint64_t Function::MemoryBytes(uint64_t* instances) const {
  uint64_t bytes = 0;
  for (const std::unique_ptr<Instance>& instance : all_) {
    if (!instance->live()) continue;
    ++*instances;
    bytes += instance->MemoryBytes();
  }
  return bytes;
}

void Function::CountTrial(uint64_t ns) {
  if (path_ != Path::kTrial) return;
  trial_left_ = ns <= kTrialCallNsMax ? trial_left_ - 1 : kTrialCalls;
  if (trial_left_ == 0) path_ = Path::kPlain;
}

void Function::Demote() {
  if (path_ != Path::kPlain) return;
  path_ = Path::kFiber;
  ++counters_.demotions;
}

bool Function::Charge(uint32_t bytes) {
  if (queue_count_ >= options_.queued_max || queue_bytes_ + bytes > options_.queued_bytes_max) return false;
  ++queue_count_;
  queue_bytes_ += bytes;
  return true;
}

void Function::Uncharge(uint32_t bytes) {
  --queue_count_;
  queue_bytes_ -= bytes;
}

void Function::Enqueue(InCall* call) {
  call->next = nullptr;
  (queue_tail_ == nullptr ? queue_head_ : queue_tail_->next) = call;
  queue_tail_ = call;
  ++counters_.queued;
}

void Function::Requeue(InCall* call) {
  call->next = queue_head_;
  queue_head_ = call;
  if (queue_tail_ == nullptr) queue_tail_ = call;
}

void Function::RemoveQueued(InCall* call) {
  InCall* before = nullptr;
  for (InCall* at = queue_head_; at != call; at = at->next) before = at;
  (before == nullptr ? queue_head_ : before->next) = call->next;
  if (queue_tail_ == call) queue_tail_ = before;
  call->next = nullptr;
}

Callee* Function::Resolve(uint32_t guest_pointer, absl::string_view name, CallsOut& out, Status* status) {
  CachedName& cached = cached_names_[(guest_pointer >> 2) % kCachedNames];
  if (cached.pointer == guest_pointer && cached.bytes == name.size() && cached.callee != nullptr &&
      std::memcmp(cached.name.data(), name.data(), name.size()) == 0) [[likely]] {
    return cached.callee;
  }
  auto known = callees_.find(name);
  if (known == callees_.end()) {
    if (!CheckFunctionName(name).ok()) {
      *status = kInvalidArgument;
      return nullptr;
    }
    if (callees_.size() >= kCalleesMax && !ForgetCallees(out)) {
      *status = kResourceExhausted;
      return nullptr;
    }
    absl::StatusOr<Callee*> callee = out.Resolve(*this, name);
    if (!callee.ok()) {
      *status = static_cast<Status>(callee.status().code());
      return nullptr;
    }
    known = callees_.emplace(std::string(name), KnownCallee{*callee}).first;
  } else {
    known->second.used = true;
  }
  if (name.size() <= kCachedNameBytesMax) {
    cached.pointer = guest_pointer;
    cached.bytes = static_cast<uint32_t>(name.size());
    cached.callee = known->second.callee;
    std::memcpy(cached.name.data(), name.data(), name.size());
  }
  return known->second.callee;
}

// Those that were not looked up since the last time go, and where all were, all that no call is under way to:
// what is wanted again costs a question to the agent. Names in the cache by address are in use, as nothing
// is noted of those that are found there.
bool Function::ForgetCallees(CallsOut& out) {
  absl::flat_hash_set<const Callee*> in_use = host_.CalleesUnderWay(*this);
  absl::flat_hash_set<const Callee*> kept = in_use;
  for (const CachedName& cached : cached_names_) kept.insert(cached.callee);
  for (auto& [name, known] : callees_) {
    if (std::exchange(known.used, false)) kept.insert(known.callee);
  }
  if (kept.size() >= callees_.size()) {
    kept = std::move(in_use);
    cached_names_ = {};
  }
  absl::erase_if(callees_, [&](const auto& entry) {
    if (kept.contains(entry.second.callee)) return false;
    out.Release(*entry.second.callee);
    return true;
  });
  return callees_.size() < kCalleesMax;
}

void Function::ReleaseCallees(CallsOut& out) {
  cached_names_ = {};
  for (const auto& [name, known] : callees_) out.Release(*known.callee);
  callees_.clear();
}

}  // namespace weft::host
