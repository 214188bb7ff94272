// SPDX-License-Identifier: Apache-2.0
// Jobs from the threads that have them to one thread that does them, and what comes of each back to a loop
// that waits on descriptors. For slow work: a lock and an eventfd.
#ifndef WEFT_DATAPLANE_BASE_JOB_QUEUE_H_
#define WEFT_DATAPLANE_BASE_JOB_QUEUE_H_

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/base/fd.h"

namespace weft {

template <typename Job, typename Done>
class JobQueue {
 public:
  // The descriptor of a queue, which is made before it.
  static absl::StatusOr<UniqueFd> MakeFd() {
    UniqueFd fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!fd.valid()) return absl::ErrnoToStatus(errno, "make an eventfd");
    return fd;
  }
  explicit JobQueue(UniqueFd done_fd) : done_fd_(std::move(done_fd)) {}
  JobQueue(const JobQueue&) = delete;
  JobQueue& operator=(const JobQueue&) = delete;

  // ---- Any thread.
  // False, `job` untouched, where `waiting_max` wait already.
  bool TryAdd(Job&& job, std::size_t waiting_max = SIZE_MAX) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (jobs_.size() >= waiting_max) return false;
      jobs_.push_back(std::move(job));
    }
    changed_.notify_one();
    return true;
  }
  // No further job is taken; those that wait are forgotten with the queue.
  void Stop() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    changed_.notify_one();
  }

  // ---- The loop.
  // Readable while TakeDone() has something.
  int done_fd() const { return done_fd_.get(); }
  std::vector<Done> TakeDone() {
    uint64_t ignored;
    [[maybe_unused]] const ssize_t bytes = read(done_fd_.get(), &ignored, sizeof ignored);
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(done_, {});
  }

  // ---- The thread that does the jobs.
  // The oldest, once there is one; nothing after Stop().
  std::optional<Job> Take() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
    return TakeFirst();
  }
  // The oldest, if there is one now. `*stopped`: after Stop().
  std::optional<Job> TryTake(bool* stopped) {
    const std::lock_guard<std::mutex> lock(mutex_);
    *stopped = stop_;
    return TakeFirst();
  }
  void Finish(Done done) {
    const std::lock_guard<std::mutex> lock(mutex_);
    done_.push_back(std::move(done));
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(done_fd_.get(), &one, sizeof one);
  }

 private:
  std::optional<Job> TakeFirst() {
    if (stop_ || jobs_.empty()) return std::nullopt;
    std::optional<Job> job(std::move(jobs_.front()));
    jobs_.pop_front();
    return job;
  }

  const UniqueFd done_fd_;  // An eventfd
  std::mutex mutex_;        // Guards the rest.
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  std::vector<Done> done_;
  bool stop_ = false;
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_JOB_QUEUE_H_
