// SPDX-License-Identifier: Apache-2.0
#include "dataplane/agent/steer_watch.h"

#include <chrono>
#include <utility>

#include "dataplane/base/clock.h"

namespace weft::agent {
namespace {

// A look at a socket that is not there costs some microseconds. Until weft-control's maps are known its
// program may drop what comes under new keys.
constexpr auto kWhileAway = std::chrono::milliseconds(100);
constexpr auto kElse = std::chrono::seconds(1);

}  // namespace

SteerWatch::SteerWatch(std::string run_dir, std::string interface, uint16_t port, uint64_t patience_ns,
                       std::function<void(SteerAnswer)> tell)
    : run_dir_(std::move(run_dir)),
      interface_(std::move(interface)),
      port_(port),
      patience_ns_(patience_ns),
      tell_(std::move(tell)),
      thread_([this] { Run(); }) {}

SteerWatch::~SteerWatch() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  stopping_.notify_all();
  thread_.join();
}

void SteerWatch::Run() {
  const uint64_t give_up_ns = NowNs() + patience_ns_;
  bool told = false;
  for (;;) {
    absl::StatusOr<SteerMaps> maps = AskForSteering(run_dir_, interface_, port_);
    const bool away = absl::IsUnavailable(maps.status());
    if (maps.ok()) {
      tell_(std::make_shared<const SteerMaps>(*std::move(maps)));
      told = true;
    } else if (told || !away || NowNs() >= give_up_ns) {
      tell_(maps.status());
      told = true;
    }
    std::unique_lock<std::mutex> lock(mutex_);
    const auto pause = away ? std::chrono::duration_cast<std::chrono::nanoseconds>(kWhileAway) : kElse;
    if (stopping_.wait_for(lock, pause, [this] { return stop_; })) return;
  }
}

}  // namespace weft::agent
