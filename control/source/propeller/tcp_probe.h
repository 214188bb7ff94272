// SPDX-License-Identifier: Apache-2.0
// Asks whether something listens at an address, by connecting and nothing more: a request would run a task.
// Driven by the poll loop of weft-control; nothing blocks. One thread.
#ifndef WEFT_CONTROL_SOURCE_PROPELLER_TCP_PROBE_H_
#define WEFT_CONTROL_SOURCE_PROPELLER_TCP_PROBE_H_

#include <poll.h>

#include <cstdint>
#include <functional>
#include <list>
#include <string>
#include <vector>

#include "dataplane/base/clock.h"
#include "dataplane/base/fd.h"

namespace weft::control {

class TcpProbe {
 public:
  static constexpr uint64_t kWaitNs = kNsPerSecond;

  // `done` is told from within OnEvents() or OnTime(). `ip` is a numeric address.
  void Start(const std::string& ip, uint32_t port, uint64_t now_ns, std::function<void(bool listens)> done);
  std::size_t busy() const { return asked_.size(); }

  void AddPollEntries(std::vector<pollfd>* entries) const;
  void OnEvents(const std::vector<pollfd>& entries);
  uint64_t wake_ns() const { return asked_.empty() ? 0 : asked_.front().until_ns; }
  void OnTime(uint64_t now_ns);

 private:
  struct Asked {
    UniqueFd fd;  // Invalid: it could not even be asked.
    uint64_t until_ns = 0;
    std::function<void(bool)> done;
  };

  std::list<Asked> asked_;  // Oldest first
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_PROPELLER_TCP_PROBE_H_
