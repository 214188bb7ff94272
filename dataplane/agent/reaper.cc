// SPDX-License-Identifier: Apache-2.0
#include "dataplane/agent/reaper.h"

#include <pthread.h>
#include <unistd.h>

#include <cstddef>
#include <deque>
#include <map>
#include <mutex>

#include "dataplane/base/check.h"
#include "dataplane/base/clock.h"

namespace weft::agent {
namespace {

constexpr uint64_t kStuckNs = 100 * kNsPerMs;
// Four messages full of descriptors.
constexpr std::size_t kWaitingMax = 1024;
// The thread calls close() and little else.
constexpr std::size_t kStackBytes = 64 * 1024;

}  // namespace

struct Reaper::Shared {
  struct Lane {
    std::deque<int> fds;
    bool running = false;
    uint64_t closing_since_ns = 0;  // Of the one that is being closed now.
  };

  mutable std::mutex mutex;
  std::map<uid_t, Lane> lanes;  // One with nothing to do is removed.

  // Serves a lane until it is empty.
  static void Serve(const std::shared_ptr<Shared>& shared, uid_t owner) {
    std::unique_lock<std::mutex> lock(shared->mutex);
    for (;;) {
      Lane& lane = shared->lanes[owner];
      if (lane.fds.empty()) break;
      const int fd = lane.fds.front();
      lane.closing_since_ns = NowNs();
      lock.unlock();
      close(fd);
      lock.lock();
      lane.fds.pop_front();
    }
    shared->lanes.erase(owner);
  }

  struct Start {
    std::shared_ptr<Shared> shared;
    uid_t owner;
  };
  static void* Run(void* argument) {
    const std::unique_ptr<Start> start(static_cast<Start*>(argument));
    Serve(start->shared, start->owner);
    return nullptr;
  }
  static bool StartThread(std::shared_ptr<Shared> shared, uid_t owner) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, kStackBytes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    auto start = std::make_unique<Start>(Start{std::move(shared), owner});
    pthread_t thread;
    const bool started = pthread_create(&thread, &attributes, Run, start.get()) == 0;
    if (started) (void)start.release();  // The thread owns it now.
    pthread_attr_destroy(&attributes);
    return started;
  }
};

Reaper::Reaper() : shared_(std::make_shared<Shared>()) {}
Reaper::~Reaper() = default;

void Reaper::Close(uid_t owner, UniqueFd fd) {
  if (!fd.valid()) return;
  const std::lock_guard<std::mutex> lock(shared_->mutex);
  Shared::Lane& lane = shared_->lanes[owner];
  lane.fds.push_back(fd.Release());
  // Without a thread now, the next descriptor of this user tries again.
  if (!lane.running) lane.running = Shared::StartThread(shared_, owner);
}

bool Reaper::Overloaded(uid_t owner) const {
  const std::lock_guard<std::mutex> lock(shared_->mutex);
  const auto lane = shared_->lanes.find(owner);
  return lane != shared_->lanes.end() && lane->second.fds.size() > kWaitingMax &&
         NowNs() - lane->second.closing_since_ns > kStuckNs;
}

uint64_t Reaper::waiting() const {
  const std::lock_guard<std::mutex> lock(shared_->mutex);
  uint64_t count = 0;
  for (const auto& [owner, lane] : shared_->lanes) count += lane.fds.size();
  return count;
}

}  // namespace weft::agent
