// SPDX-License-Identifier: Apache-2.0
// Runs modules that have no handler, each once and one after the other, on a thread of its own with an engine
// of its own: no call waits for one. Used by weft-host for what the agent hands over.
#ifndef WEFT_DATAPLANE_HOST_RUNNER_H_
#define WEFT_DATAPLANE_HOST_RUNNER_H_

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/api/run.pb.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/job_queue.h"
#include "dataplane/host/engine.h"
#include "dataplane/host/module_cache.h"

namespace weft::host {

class Runner {
 public:
  // What a run may take, asleep or not, where its function has no limit of its own.
  static constexpr uint64_t kRunNs = 60 * kNsPerSecond;

  // `engine`: the limits of stack and memory that no function's may exceed. `cache` outlives the runner; it
  // may be null.
  static absl::StatusOr<std::unique_ptr<Runner>> Create(const EngineOptions& engine,
                                                        const ModuleCache* cache);
  // Ends the run that is under way, within some ms unless it still compiles, and forgets the others.
  ~Runner();
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  // Queues a run; false, and it is forgotten, where kRunsMax wait already: the agent bounds how many there
  // are, but after its own restart, or control's, it knows nothing of the earlier ones. Any thread.
  bool TryAdd(api::RunOnce run, UniqueFd module);
  // Readable while TakeDone() has something.
  int done_fd() const { return queue_.done_fd(); }
  std::vector<api::RunEnded> TakeDone() { return queue_.TakeDone(); }

 private:
  struct Job {
    api::RunOnce run;
    UniqueFd module;
  };

  Runner(const EngineOptions& engine, const ModuleCache* cache, UniqueFd done_fd);
  void Loop();
  api::RunEnded Run(const Job& job) const;
  absl::Status Prepare(const api::RunOnce& run, EngineOptions* engine, uint64_t* memory_bytes,
                       uint64_t* run_ns) const;

  const EngineOptions engine_options_;
  const ModuleCache* const cache_;
  std::atomic<bool> stop_{false};  // Read by the guest's clock.
  JobQueue<Job, api::RunEnded> queue_;
  std::thread thread_;
};

}  // namespace weft::host

#endif  // WEFT_DATAPLANE_HOST_RUNNER_H_
