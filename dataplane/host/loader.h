// SPDX-License-Identifier: Apache-2.0
// Compiles modules on a thread of its own, so that a host goes on serving meanwhile. Used by weft-host for
// the modules that the agent hands over.
#ifndef WEFT_DATAPLANE_HOST_LOADER_H_
#define WEFT_DATAPLANE_HOST_LOADER_H_

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/job_queue.h"
#include "dataplane/host/function.h"
#include "dataplane/host/module.h"

namespace weft::host {

class Loader {
 public:
  struct Job {
    std::string function;
    Engine* engine = nullptr;  // Outlives the loader.
    UniqueFd module_fd;
    Sha256 hash = {};
    FunctionOptions options;
  };
  struct Done {
    Job job;
    absl::StatusOr<std::shared_ptr<const Module>> module = nullptr;
  };

  // `cache` outlives the loader; it may be null.
  static absl::StatusOr<std::unique_ptr<Loader>> Create(const ModuleCache* cache);
  // Waits for the module that is being compiled.
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  // Queues a module. The agent bounds how many there are. Any thread.
  void Add(Job job) { queue_.TryAdd(std::move(job)); }
  // Readable while TakeDone() has something.
  int done_fd() const { return queue_.done_fd(); }
  std::vector<Done> TakeDone() { return queue_.TakeDone(); }

 private:
  Loader(const ModuleCache* cache, UniqueFd done_fd);
  void Run();

  const ModuleCache* const cache_;
  JobQueue<Job, Done> queue_;
  std::thread thread_;
};

}  // namespace weft::host

#endif  // WEFT_DATAPLANE_HOST_LOADER_H_
