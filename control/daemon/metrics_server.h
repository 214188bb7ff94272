// SPDX-License-Identifier: Apache-2.0
// Serves GET /metrics in Prometheus' text format on a loopback address, from within the daemon's loop: what
// is told is read where it lives, without a lock. A client that is slow or sends nonsense is closed. One
// thread.
#ifndef WEFT_CONTROL_DAEMON_METRICS_SERVER_H_
#define WEFT_CONTROL_DAEMON_METRICS_SERVER_H_

#include <poll.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/fd.h"

namespace weft::control {

class MetricsServer {
 public:
  static constexpr std::size_t kClientsMax = 8;  // The oldest gives way.
  static constexpr std::size_t kRequestBytesMax = 8192;
  static constexpr uint64_t kClientNsMax = 2 * kNsPerSecond;  // From accept to the end of the answer

  // Listens on `address`, as in 127.0.0.1:9464 or [::1]:9464. INVALID_ARGUMENT where that is no loopback
  // address: what is told of a mesh is for its own machine.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Create(const std::string& address,
                                                               std::function<std::string()> metrics);

  void AddPollEntries(std::vector<pollfd>* entries) const;
  void OnEvents(const std::vector<pollfd>& entries, uint64_t now_ns);
  uint64_t wake_ns() const;  // CLOCK_MONOTONIC; 0: never
  void OnTime(uint64_t now_ns);
  uint16_t port() const { return port_; }

 private:
  struct Client {
    UniqueFd fd;
    uint64_t until_ns = 0;
    std::string request;
    std::string answer;  // Empty: still reading
    std::size_t sent = 0;
  };

  MetricsServer(UniqueFd listener, uint16_t port, std::function<std::string()> metrics)
      : listener_(std::move(listener)), port_(port), metrics_(std::move(metrics)) {}

  void Accept(uint64_t now_ns);
  // False: the connection is of no more use.
  bool Serve(Client* client);
  bool Read(Client* client);
  std::string AnswerTo(const std::string& request) const;

  UniqueFd listener_;
  uint16_t port_;
  std::function<std::string()> metrics_;
  std::list<Client> clients_;  // Oldest first
};

// Whether `address` is HOST:PORT of this machine alone.
absl::Status CheckLoopback(const std::string& address);

}  // namespace weft::control

#endif  // WEFT_CONTROL_DAEMON_METRICS_SERVER_H_
