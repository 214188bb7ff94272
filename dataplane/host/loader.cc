// SPDX-License-Identifier: Apache-2.0
// The loader's thread.
#include "dataplane/host/loader.h"

#include <pthread.h>

#include <optional>
#include <utility>

#include "dataplane/base/status.h"

namespace weft::host {

absl::StatusOr<std::unique_ptr<Loader>> Loader::Create(const ModuleCache* cache) {
  WEFT_ASSIGN_OR_RETURN(UniqueFd done_fd, (JobQueue<Job, Done>::MakeFd()));
  return std::unique_ptr<Loader>(new Loader(cache, std::move(done_fd)));
}

Loader::Loader(const ModuleCache* cache, UniqueFd done_fd)
    : cache_(cache), queue_(std::move(done_fd)), thread_([this] { Run(); }) {
  pthread_setname_np(thread_.native_handle(), "weft-loader");
}

Loader::~Loader() {
  queue_.Stop();
  thread_.join();
}

void Loader::Run() {
  while (std::optional<Job> job = queue_.Take()) {
    Done done;
    done.module = Module::LoadFd(*job->engine, job->module_fd.get(), "the module", job->hash, cache_);
    done.job = *std::move(job);
    queue_.Finish(std::move(done));
  }
}

}  // namespace weft::host
