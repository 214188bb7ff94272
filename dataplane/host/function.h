// SPDX-License-Identifier: Apache-2.0
// One function that this host serves: its module, its instances, the calls queued for them, and whether it
// runs on the plain path or on fibers. Guest thread only.
#ifndef WEFT_DATAPLANE_HOST_FUNCTION_H_
#define WEFT_DATAPLANE_HOST_FUNCTION_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/base/attributes.h"
#include "dataplane/host/instance.h"
#include "dataplane/host/module.h"
#include "dataplane/host/run_state.h"
#include "dataplane/host/seam.h"

namespace weft::host {

struct FunctionOptions {
  // False: a clean instance for each call. True: one instance whose memory lives on, one call at a time.
  bool keep = false;
  // Handed to weft_handle: tells apart the functions of one module.
  uint32_t number = 0;
  // Calls under way at once; a function that keeps its state has one instance whatever this says.
  uint32_t instances_max = 1024;
  // Clean instances made ready in idle moments.
  uint32_t clean_target = 8;
  // Calls waiting for an instance, and the bytes of their requests; beyond either a call is refused.
  uint32_t queued_max = 1024;
  uint64_t queued_bytes_max = 64 << 20;
  uint64_t memory_bytes_max = 64 << 20;
  // Time on the processor, of one call.
  uint32_t time_limit_ms = 1000;
  // The same on the plain path, where the thread and all its channels wait meanwhile: within the 100 ms that
  // the agent waits for an answer of this process.
  uint32_t plain_limit_ms = 80;
  // Not null: nothing is served, the module is run once. Outlives the function.
  RunState* run = nullptr;
};

// A leaf starts on a fiber, where a long call can be interrupted, and moves to the plain path once it has
// shown that it is short.
inline constexpr uint32_t kTrialCalls = 1000;
inline constexpr uint64_t kTrialCallNsMax = 100'000;

// Time in which a function's guests had the thread, without reading the clock at every turn: one turn in
// kEvery is timed, and stands for those since the one before it. A prime, so that turns that alternate are
// met alike.
class HandlerTime {
 public:
  static constexpr uint32_t kEvery = 31;
  // Counts a turn; true: it is to be timed.
  bool Due() { return ++turns_ >= due_; }
  void AddSample(uint64_t ns) {
    ns_ += ns * turns_;
    turns_ = 0;
    due_ = kEvery;
  }
  // Of a turn that is timed anyway, and that Due() has not counted.
  void Add(uint64_t ns) { ns_ += ns; }
  uint64_t ns() const { return ns_; }

 private:
  uint64_t ns_ = 0;
  uint32_t turns_ = 0;
  uint32_t due_ = 1;
};

struct FunctionCounters {
  uint64_t calls = 0;
  uint64_t failures = 0;  // Answered with another status than OK.
  uint64_t bytes_in = 0;
  uint64_t bytes_out = 0;
  HandlerTime time;
  uint64_t plain_calls = 0;
  uint64_t direct_calls = 0;  // By a guest of the same process, on the caller's stack. Part of plain_calls.
  uint64_t faults = 0;        // Traps and other calls that cost the instance.
  uint64_t time_limits = 0;
  uint64_t demotions = 0;
  uint64_t resets = 0;
  uint64_t resets_on_path = 0;  // A call had to wait for its instance to be made.
  uint64_t queued = 0;
  uint64_t refused = 0;
};

class Function {
 public:
  // Makes the first instance at once, so that a module whose start-up fails is never served.
  static absl::StatusOr<std::unique_ptr<Function>> Create(Host& host, std::string name,
                                                          std::shared_ptr<const Module> module,
                                                          const FunctionOptions& options);
  ~Function();
  Function(const Function&) = delete;
  Function& operator=(const Function&) = delete;

  Host& host() const { return host_; }
  const std::string& name() const { return name_; }
  const Module& module() const { return *module_; }
  const FunctionOptions& options() const { return options_; }
  const FunctionCounters& counters() const { return counters_; }
  FunctionCounters& counters() { return counters_; }
  void CountTimeLimit() { ++counters_.time_limits; }
  // A call has been answered, or given up.
  void CountAnswer(Status status, uint64_t bytes_in, uint64_t bytes_out) {
    counters_.bytes_in += bytes_in;
    counters_.bytes_out += bytes_out;
    if (status != kOk) [[unlikely]]
      ++counters_.failures;
  }
  // Calls that hold an instance or wait for one.
  uint32_t active() const { return active_; }
  // The same, and requests that are coming in or waiting in the host's own memory.
  bool has_calls() const { return active_ != 0 || queue_count_ != 0; }
  uint32_t clean_count() const { return static_cast<uint32_t>(clean_.size()); }
  // Linear memory of its instances, and how many of them have some. Looks at each.
  uint64_t MemoryBytes(uint64_t* instances) const;
  // Whoever joins the host to the mesh may hang something here.
  void* user = nullptr;
  bool draining() const { return draining_; }
  void Drain() { draining_ = true; }

  // It may be called on the plain path now.
  bool plain() const { return path_ == Path::kPlain; }
  // Accounts one finished call of a leaf on trial: `ns` of time on the processor.
  void CountTrial(uint64_t ns);
  // A call on the plain path overran; the function stays on fibers from now on.
  void Demote();

  // An instance for one call, or null where all are taken. Prefers a clean one made beforehand, the latest
  // first since the caches still hold it. start_fault() says why where making one failed, and start_status()
  // what becomes of the call.
  WEFT_HOT Instance* Take();
  const std::string& start_fault() const { return start_fault_; }
  Status start_status() const { return start_status_; }
  // Takes an instance back. Its memory is kept or, off the critical path, replaced.
  WEFT_HOT void GiveBack(Instance* instance);
  // Makes one used instance clean or one more ready, where there is need. True where it did something. Takes
  // some microseconds, more where the guest's start-up takes longer.
  bool IdleWork();

  // Counts a request kept in the host's own memory against the limits of the queue; false where they are
  // reached.
  bool Charge(uint32_t bytes);
  void Uncharge(uint32_t bytes);
  // Calls waiting for an instance, oldest first.
  void Enqueue(InCall* call);
  // Back to the head of the queue.
  void Requeue(InCall* call);
  InCall* queued() const { return queue_head_; }
  // Takes `call` out of the queue, wherever it stands.
  void RemoveQueued(InCall* call);

  // Finds the callee behind a name that the guest wrote at `guest_pointer`: from the cache by that address if
  // the same name still stands there, else by the name. Null where `out` would not resolve it; then `*status`
  // says why.
  WEFT_HOT Callee* Resolve(uint32_t guest_pointer, absl::string_view name, CallsOut& out, Status* status);
  // Lets go of all callees; the last use of the function, which has no calls.
  void ReleaseCallees(CallsOut& out);

 private:
  enum class Path : uint8_t { kTrial, kPlain, kFiber };
  // Names that are kept of those that one function uses; a guest that invents names, or lives longer than
  // those that it calls, must not fill the host.
  static constexpr size_t kCalleesMax = 1024;
  static constexpr size_t kCachedNames = 16;
  static constexpr size_t kCachedNameBytesMax = 64;
  struct CachedName {
    uint32_t pointer = 0;
    uint32_t bytes = 0;
    Callee* callee = nullptr;
    std::array<char, kCachedNameBytesMax> name;
  };

  Function(Host& host, std::string name, std::shared_ptr<const Module> module,
           const FunctionOptions& options);
  Instance* NewInstance();
  // Makes room for further names; false where all are in use by calls under way.
  bool ForgetCallees(CallsOut& out);

  struct KnownCallee {
    Callee* callee = nullptr;
    bool used = false;  // Looked up again by its name since ForgetCallees() was here last.
  };

  Host& host_;
  const std::string name_;
  const std::shared_ptr<const Module> module_;
  const FunctionOptions options_;
  FunctionCounters counters_;
  Path path_;
  bool draining_ = false;
  uint32_t trial_left_ = kTrialCalls;
  uint32_t active_ = 0;
  Status start_status_ = kInternal;
  std::string start_fault_;  // Of the last Take() that returned null; empty where all instances were taken.
  // All instances are owned by all_; each is in use, clean or used.
  std::vector<std::unique_ptr<Instance>> all_;
  std::vector<Instance*> clean_;
  std::vector<Instance*> used_;
  InCall* queue_head_ = nullptr;
  InCall* queue_tail_ = nullptr;
  uint32_t queue_count_ = 0;
  uint64_t queue_bytes_ = 0;
  std::array<CachedName, kCachedNames> cached_names_ = {};
  absl::flat_hash_map<std::string, KnownCallee> callees_;
};

}  // namespace weft::host

#endif  // WEFT_DATAPLANE_HOST_FUNCTION_H_
