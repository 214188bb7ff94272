// SPDX-License-Identifier: Apache-2.0
#include "dataplane/client/keeper.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>

#include "dataplane/base/check.h"
#include "dataplane/base/clock.h"

namespace weft {
namespace {

// A user's thread that is inside looks at the agent's socket far more often than this.
constexpr int kUserTurnMs = 5;

}  // namespace

Keeper::Keeper(Session& session, Ownership& ownership, std::function<void()> serve)
    : session_(session), ownership_(ownership), serve_(std::move(serve)), stop_fd_(eventfd(0, EFD_CLOEXEC)) {
  WEFT_CHECK(stop_fd_.valid());
  // Signals are the user's threads' business.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { Run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Keeper::~Keeper() {
  stop_.store(true, std::memory_order_relaxed);  // The eventfd carries the order.
  const uint64_t one = 1;
  WEFT_CHECK(write(stop_fd_.get(), &one, sizeof(one)) == sizeof(one));
  thread_.join();
}

void Keeper::Run() {
  pthread_setname_np(pthread_self(), "weft-keeper");
  bool user_inside = false;
  while (!stop_.load(std::memory_order_relaxed)) {
    const uint64_t now_ns = NowNs();
    const uint64_t next_ns = session_.next_ns();
    int timeout_ms = -1;
    if (user_inside) {
      timeout_ms = kUserTurnMs;
    } else if (next_ns != ~uint64_t{0}) {
      timeout_ms = next_ns <= now_ns ? 0 : static_cast<int>((next_ns - now_ns) / kNsPerMs + 1);
    }
    // Without the agent's socket while a user is inside, who reads it: it would be readable at once.
    pollfd entries[] = {{stop_fd_.get(), POLLIN, 0},
                        {session_.wake_fd(), POLLIN, 0},
                        {user_inside ? -1 : session_.wait_fd(), POLLIN, 0}};
    const int ready = poll(entries, 3, timeout_ms);
    if (entries[1].revents != 0) {
      uint64_t ignored;
      [[maybe_unused]] const ssize_t bytes = read(session_.wake_fd(), &ignored, sizeof(ignored));
    }
    const bool was_inside = std::exchange(user_inside, false);
    const bool due = ready == 0 && !was_inside;
    if (entries[2].revents == 0 && !due) continue;
    if (!ownership_.TryKeep()) {
      user_inside = true;
      continue;
    }
    serve_();
    ownership_.EndKeep();
  }
}

}  // namespace weft
