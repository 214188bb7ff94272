// SPDX-License-Identifier: Apache-2.0
// The one loop of a host: polls channels, lets the call layer move on, serves the agent. A template over what
// takes the requests that come in (see LinkSink for the concept Local), so that their bytes go straight to
// where they are needed. libweft's Mesh drives one, weft-host another. Owner thread only.
#ifndef WEFT_DATAPLANE_CLIENT_HOST_LOOP_H_
#define WEFT_DATAPLANE_CLIENT_HOST_LOOP_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "dataplane/base/attributes.h"
#include "dataplane/base/clock.h"
#include "dataplane/call/link_sink.h"
#include "dataplane/client/session.h"

namespace weft {

template <class Local>
class HostLoop {
 public:
  // Both outlive the loop.
  HostLoop(Session& session, Local& local)
      : session_(session), core_(session.core()), poller_(session.poller()), local_(local) {}
  HostLoop(const HostLoop&) = delete;
  HostLoop& operator=(const HostLoop&) = delete;

  // Takes what has come in, on every active channel once; runs no function and no callback but Local's and
  // CallDone. Publishes what was sent. Returns the messages taken. Never blocks.
  WEFT_HOT int PollOnce() {
    const int taken = poller_.PollOnce(*this);
    AfterPoll();
    return taken;
  }

  // The same, polling and then sleeping until something came in, the agent spoke, a deadline of a call fired,
  // or CLOCK_MONOTONIC reached `deadline_ns` (kNoDeadline: never).
  WEFT_HOT_INLINE int Wait(uint64_t deadline_ns) {
    if (core_.HasUnpublished()) {
      core_.Publish();
      NoteWork();
    }
    uint64_t wake_ns = std::min(deadline_ns, session_.next_ns());
    if (core_.Busy()) wake_ns = std::min(wake_ns, core_.NextNs(NowNs()));
    const int taken = core_.HasJobs() ? WaitForRoom(wake_ns) : poller_.Wait(*this, wake_ns);
    AfterPoll();
    return taken;
  }

  // Looks for messages on one link for about a microsecond, without the poller and its clock, until `done` is
  // true. For a caller that serves nothing: what the agent says meanwhile cannot concern a reply. PollOnce or
  // Wait must have their turn in between.
  WEFT_HOT_INLINE void PollLinkFor(Link& link, const bool& done) {
    Channel& channel = *link.channel;
    for (uint32_t looks = 0; looks < kDirectLooks; ++looks) {
      if (!channel.Ready()) continue;
      channel.Poll(SinkFor(channel), 1);
      if (done) return;
      if (channel.closing()) return;
    }
  }

  // Something was done that the poller does not see: a message sent, a handler run. Its time to poll begins
  // anew, so that a thread does not fall asleep, at the cost of two wakes, while the answer is on its way.
  void NoteWork() { poller_.NoteWork(); }

  // Serves the agent alone: takes messages only from channels that it has closed. For the keeper.
  void ServeAgent() {
    session_.ServeSocket();
    SlowTurn(weft::NowNs());
    core_.Publish();
  }

  // CLOCK_MONOTONIC, for the price of reading the counter.
  uint64_t NowNs() { return clock_.NowNs(); }
  // When the messages of this poll were found; free. What Local::NowNs returns.
  uint64_t MessageNs() { return clock_.NsAt(poller_.polled_ticks()); }

  // --- The poller's handler.
  LinkSink<Local>& SinkFor(Channel& channel) {
    Link& link = *static_cast<Link*>(channel.user_data);
    if (link.sink == nullptr) [[unlikely]]
      link.sink = sinks_.emplace_back(std::make_unique<LinkSink<Local>>(core_, local_, link)).get();
    return *static_cast<LinkSink<Local>*>(link.sink);
  }
  void OnClosed(Channel& channel) { session_.OnChannelClosed(channel); }

 private:
  // The parts of a turn that are not for every message, at least this often.
  static constexpr uint32_t kSlowEvery = 64;
  static constexpr uint32_t kDirectLooks = 512;

  WEFT_HOT_INLINE void AfterPoll() {
    if (++turns_ % kSlowEvery == 0 || session_.HasClosing() || core_.Busy()) [[unlikely]] {
      SlowTurn(NowNs());
    }
    core_.Publish();
  }

  // Wait while messages wait for room: the poller tells of room only when it sleeps, so the time before is
  // spent here.
  [[gnu::noinline]] int WaitForRoom(uint64_t wake_ns) {
    uint64_t start_ns = NowNs();
    for (uint32_t turn = 1;; ++turn) {
      const int taken = poller_.PollOnce(*this);
      const bool moved = core_.PumpJobs(NowNs());
      if (moved) NoteWork();
      if (taken != 0 || moved || !core_.HasJobs()) return taken;
      const uint64_t now_ns = NowNs();
      if (now_ns >= wake_ns) return 0;
      if (now_ns - start_ns >= poller_.poll_time_ns() || !poller_.MayPoll())
        return poller_.Wait(*this, wake_ns);
      start_ns += poller_.ShareCore(turn);
    }
  }

  [[gnu::noinline]] void SlowTurn(uint64_t now_ns) {
    if (session_.HasClosing()) {
      session_.CloseClosing([this](Link& link) {
        // Read once more, for the replies that it still holds.
        LinkSink<Local>& sink = SinkFor(*link.channel);
        link.channel->TakePublished(sink);
        link.channel->consumer().AbortPartials(sink);
        core_.Publish();
      });
    }
    session_.Tick(now_ns);
    if (core_.Busy()) core_.Advance(now_ns);
  }

  Session& session_;
  CallCore& core_;
  Poller& poller_;
  Local& local_;
  TickClock clock_;
  uint32_t turns_ = 0;
  std::vector<std::unique_ptr<LinkSink<Local>>> sinks_;  // One per slot of a link, for good.
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_CLIENT_HOST_LOOP_H_
