// SPDX-License-Identifier: Apache-2.0
// The loader's thread.
#include "dataplane/host/loader.h"

#include <errno.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>

namespace weft::host {

absl::StatusOr<std::unique_ptr<Loader>> Loader::Create(const ModuleCache* cache) {
  UniqueFd done_fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!done_fd.valid()) return absl::ErrnoToStatus(errno, "make an eventfd");
  return std::unique_ptr<Loader>(new Loader(cache, std::move(done_fd)));
}

Loader::Loader(const ModuleCache* cache, UniqueFd done_fd)
    : cache_(cache), done_fd_(std::move(done_fd)), thread_([this] { Run(); }) {
  pthread_setname_np(thread_.native_handle(), "weft-loader");
}

Loader::~Loader() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void Loader::Add(Job job) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  changed_.notify_one();
}

std::vector<Loader::Done> Loader::TakeDone() {
  uint64_t ignored;
  [[maybe_unused]] const ssize_t bytes = read(done_fd_.get(), &ignored, sizeof ignored);
  const std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(done_, {});
}

void Loader::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
    if (stop_) return;
    Done done;
    done.job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    done.module =
        Module::LoadFd(*done.job.engine, done.job.module_fd.get(), "the module", done.job.hash, cache_);
    lock.lock();
    done_.push_back(std::move(done));
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(done_fd_.get(), &one, sizeof one);
  }
}

}  // namespace weft::host
