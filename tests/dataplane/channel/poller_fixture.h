// SPDX-License-Identifier: Apache-2.0
// What tests of the poller have in common. One thread an end.
#ifndef WEFT_TESTS_DATAPLANE_CHANNEL_POLLER_FIXTURE_H_
#define WEFT_TESTS_DATAPLANE_CHANNEL_POLLER_FIXTURE_H_

#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "dataplane/channel/poller.h"
#include "tests/dataplane/channel/channel_pair.h"

namespace weft {

struct KeepingHandler {
  KeepingSink& SinkFor(Channel& channel) { return sinks[&channel]; }
  void OnClosed(Channel& channel) { closed.push_back(&channel); }
  std::map<Channel*, KeepingSink> sinks;
  std::vector<Channel*> closed;
};

inline std::unique_ptr<Poller> MakePoller(uint64_t poll_time_ns = kCalibratedPollTime) {
  PollerOptions options;
  options.poll_time_ns = poll_time_ns;
  return *Poller::Create(options);
}

inline void Send(Channel& channel, uint32_t id) {
  const std::string payload = Pattern(id, 64);
  while (!channel.TrySend(Request(id), BytesOf(payload), Lane::kRequest)) std::this_thread::yield();
  channel.Publish();
}

}  // namespace weft

#endif  // WEFT_TESTS_DATAPLANE_CHANNEL_POLLER_FIXTURE_H_
