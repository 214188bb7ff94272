// SPDX-License-Identifier: Apache-2.0
// Asks weft-control, on a thread of its own, what steers the interface: often while nobody answers, else once
// a second. weft-control may come later than weftd, make its maps anew (another size, a detach),
// or find the interface again that was gone; nobody tells weftd of any of these.
#ifndef WEFT_DATAPLANE_AGENT_STEER_WATCH_H_
#define WEFT_DATAPLANE_AGENT_STEER_WATCH_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "dataplane/agent/steer_client.h"

namespace weft::agent {

using SteerAnswer = absl::StatusOr<std::shared_ptr<const SteerMaps>>;

class SteerWatch {
 public:
  // `tell` is called on the watch's thread with every answer; for the first `patience_ns` not with one that
  // says that weft-control is not there.
  SteerWatch(std::string run_dir, std::string interface, uint16_t port, uint64_t patience_ns,
             std::function<void(SteerAnswer)> tell);
  // Waits for an answer that is under way, at most a second.
  ~SteerWatch();
  SteerWatch(const SteerWatch&) = delete;
  SteerWatch& operator=(const SteerWatch&) = delete;

 private:
  void Run();

  const std::string run_dir_;
  const std::string interface_;
  const uint16_t port_;
  const uint64_t patience_ns_;
  const std::function<void(SteerAnswer)> tell_;
  std::mutex mutex_;
  std::condition_variable stopping_;
  bool stop_ = false;  // Under mutex_.
  std::thread thread_;
};

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_STEER_WATCH_H_
