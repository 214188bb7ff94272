// SPDX-License-Identifier: Apache-2.0
// Receives for one thread: polls the channels with recent traffic, parks the others, and when nothing has
// come for about the cost of a wake, sleeps in one epoll over the doorbells and whatever else the thread
// waits for (its agent's socket, timers). Asleep it uses no CPU at all: nothing here wakes periodically.
// Owner thread only.
#ifndef WEFT_DATAPLANE_CHANNEL_POLLER_H_
#define WEFT_DATAPLANE_CHANNEL_POLLER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/base/attributes.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/core_sharing.h"
#include "dataplane/base/fd.h"
#include "dataplane/channel/channel.h"
#include "dataplane/channel/doorbell.h"

namespace weft {

inline constexpr uint64_t kNoDeadline = ~uint64_t{0};
inline constexpr uint64_t kCalibratedPollTime = ~uint64_t{0};

struct PollerOptions {
  // How long Wait polls without work before it sleeps. 0: sleeps at once.
  uint64_t poll_time_ns = kCalibratedPollTime;
};

struct PollerCounters {
  uint64_t sleeps = 0;  // Times the thread blocked.
  uint64_t yields = 0;
  uint64_t rings_received = 0;
  uint64_t rings_spurious = 0;  // Rings with nothing behind them.
  uint64_t parked = 0;          // Times a channel was put aside.
  uint64_t off_cpu = 0;         // Times the thread found that it had not run for kOffCpuNs.
  uint64_t copies_waited = 0;   // Times it polled on since a peer was copying what it had sent.
};

// What a wake of another thread costs on this machine, in ns, between 5 and 50 us. The first caller measures
// it, which takes some milliseconds. Thread-safe.
uint64_t CalibratedPollTimeNs();

// A handler, given to PollOnce and Wait, is duck-typed:
//   auto& SinkFor(Channel&): the sink of that channel's messages; see BasicConsumer.
//   void OnClosed(Channel&): the channel was poisoned or its peer died; its state says which. The poller has
//     already let go of it, so the handler may destroy it here.
// Both may add and remove channels, doorbells and descriptors. Only OnClosed may destroy the channel that it
// is called for.
class Poller {
 public:
  // Gets the events of epoll(7) that are there.
  using FdCallback = std::function<void(uint32_t events)>;

  static absl::StatusOr<std::unique_ptr<Poller>> Create(const PollerOptions& options);
  ~Poller();
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  // `doorbell` is borrowed until removed. Remove its channels first.
  absl::Status AddDoorbell(Doorbell* doorbell);
  void RemoveDoorbell(Doorbell* doorbell);
  // `channel` is open, and the doorbell that it was connected with was added. Borrowed until removed or
  // closed.
  absl::Status AddChannel(Channel* channel);
  void RemoveChannel(Channel* channel);
  // Calls back for `fd`, level-triggered, within kHousekeepingNs while the thread polls, at once while it
  // sleeps.
  absl::Status AddFd(int fd, uint32_t events, FdCallback callback);
  absl::Status ModifyFd(int fd, uint32_t events);
  void RemoveFd(int fd);

  // Polls every active channel once; returns the cells taken. Never blocks.
  template <class Handler>
  WEFT_HOT int PollOnce(Handler& handler) {
    return Look(handler);
  }

  // Polls for poll_time_ns since the last message or NoteWork, or since a peer was last found copying a large
  // message of this thread, then sleeps, until a message was taken, a
  // descriptor or doorbell had an event, a channel closed, a peer made room that was lacking, or
  // CLOCK_MONOTONIC reached `deadline_ns`. Returns the cells taken.
  template <class Handler>
  WEFT_HOT int Wait(Handler& handler, uint64_t deadline_ns);

  // The thread did something else that peers may answer: Wait polls from now on for poll_time_ns.
  void NoteWork() { worked_ticks_ = Ticks(); }

  // How a thread that looks for something else too, by a loop of its own around PollOnce, shares its core, as
  // Wait does. False: another thread computes there, so Wait sleeps at once.
  bool MayPoll() const { return sharing_.MayPoll(); }
  // After the `empty_polls`-th poll in a row that found nothing. Returns for how long others had the core, in
  // ns, which is no time without work.
  uint64_t ShareCore(uint32_t empty_polls) {
    return sharing_.yields_each_poll() || empty_polls % kYieldEvery == 0 ? Yield() : 0;
  }

  // Another poller may sleep on this, and has Look called when it is readable: for a thread that has two.
  int epoll_fd() const { return epoll_.get(); }
  // Serves descriptors and doorbells that have events now.
  void Look() { Housekeep(Ticks()); }

  // Ticks() as of the last message found: good enough to date it, and free.
  uint64_t polled_ticks() const { return polled_ticks_; }
  uint64_t poll_time_ns() const { return poll_time_ns_; }
  void set_poll_time_ns(uint64_t poll_time_ns);
  const PollerCounters& counters() const { return counters_; }
  int active_channels() const { return active_count_; }

  static constexpr int kActiveMax = 64;
  // Descriptors and doorbells are looked at this often while the thread is busy or polling.
  static constexpr uint64_t kHousekeepingNs = 100 * kNsPerUs;
  // A channel without traffic for this long is parked, unless it is among the last kActiveKept: polling those
  // costs less than finding out.
  static constexpr uint64_t kParkNs = kNsPerMs;
  static constexpr int kActiveKept = 4;
  // While messages in parts are under way, a sleep ends after this long to see whether one has fallen behind.
  static constexpr uint64_t kStallCheckNs = kStreamStallNs / 4;
  // After this long without a poll, descriptors are served before any channel is drained, so that what the
  // agent has revoked meanwhile takes effect first.
  static constexpr uint64_t kOffCpuNs = 50 * kNsPerMs;
  // Cells taken from one channel before the next one's turn; one at a time where messages take long, so that
  // kOffCpuNs and kHousekeepingNs hold between them.
  static constexpr int kPollBudget = 64;
  static constexpr uint64_t kLongMessageNs = 5 * kNsPerUs;
  // Empty polls between two yields: some us, so that none falls into an ordinary round trip.
  static constexpr uint32_t kYieldEvery = 64;
  static constexpr uint32_t kClockEvery = 16;
  static constexpr uint32_t kRoomEvery = 16;
  static constexpr uint32_t kLooksBetween = 32;
  // Rings with nothing behind them that a peer may send at once, and how many more a second. An honest peer
  // rings only after a publication; a few of those are found by polling before their ring arrives.
  static constexpr uint32_t kSpuriousBurst = 256;
  static constexpr uint64_t kSpuriousRefillNs = 5 * kNsPerMs;

 private:
  struct FdSource;

  explicit Poller(UniqueFd epoll, uint64_t poll_time_ns);

  // Serves descriptors and doorbells that have events, parks idle channels; `timeout_ns` as for epoll_pwait2,
  // 0 polls, kNoDeadline waits without end. Returns how many sources had events. `woken`: a message waits to
  // be taken by whoever slept, so a doorbell may be drained later.
  int ServeEvents(uint64_t timeout_ns, bool woken = false);
  void Housekeep(uint64_t now_ticks);
  void DrainBell(PollerBell& bell);
  // What rang is found by polling alone, and the message is there already.
  static bool MayDrainLater(const PollerBell& bell);
  void DrainDueBell();
  void CloseBell(PollerBell& bell, bool hung_up, PoisonReason reason);
  // Puts a channel among the active, in the place of the one that had no traffic for longest where there is
  // no room.
  void Activate(Channel& channel);
  void Deactivate(Channel& channel);
  void Park(Channel& channel);
  void ParkIdle(uint64_t now_ticks);
  // An active peer made room that was lacking.
  bool RoomCame();
  // An active peer copies what was sent to it. Its answer is due when it has done so, later than that of a
  // short message, but sooner than after two wakes. Each true takes something newly sent or read, so a peer
  // cannot keep the thread from sleeping.
  bool CopiesGoOn();
  uint64_t Yield();
  // Blocks until an event or `deadline_ns`, unless something came in before the peers knew.
  void Sleep(uint64_t deadline_ns);
  // The part of PollOnce that is not for every poll: closed channels, messages in parts that fell behind.
  template <class Handler>
  void Attend(Handler& handler);
  template <class Handler>
  int PollChannel(Channel& channel, uint64_t now_ticks, Handler& handler);
  // PollOnce, inlined.
  template <class Handler>
  int Look(Handler& handler);

  Channel* active_[kActiveMax] = {};
  int active_count_ = 0;
  std::vector<Channel*> parked_receiving_;  // Parked with messages in parts under way.
  int poll_budget_ = kPollBudget;
  uint32_t empty_polls_ = 0;
  bool attention_ = false;  // Attend has something to do.
  bool rescan_ = false;     // A parked channel may have messages for which nobody will ring.
  CoreSharing sharing_;
  uint64_t polled_ticks_;  // When the channels were last known to be polled.
  uint64_t worked_ticks_;  // When there was last something to do, later by what slow yields took.
  uint64_t housekept_ticks_;
  int events_seen_ = 0;
  // Descriptor of a doorbell that woke this thread and is to be drained once the message behind it has been
  // answered: the system call would come before the answer. -1: none.
  int due_bell_ = -1;
  double ticks_per_ns_;
  uint64_t off_cpu_ticks_;
  uint64_t housekeeping_ticks_;
  uint64_t park_ticks_;
  uint64_t long_message_ticks_;
  uint64_t poll_ticks_ = 0;
  uint64_t poll_time_ns_ = 0;
  UniqueFd epoll_;
  PollerCounters counters_;
  absl::flat_hash_map<int, std::shared_ptr<FdSource>> fds_;
  absl::flat_hash_map<int, std::unique_ptr<PollerBell>> bells_;  // By the doorbell's descriptor.
};

template <class Handler>
WEFT_HOT_INLINE int Poller::PollChannel(Channel& channel, uint64_t now_ticks, Handler& handler) {
  const int taken = channel.Poll(handler.SinkFor(channel), poll_budget_);
  if (taken == 0) [[unlikely]] {
    attention_ = true;
  } else {
    channel.hook.traffic_ticks = now_ticks;
  }
  return taken;
}

template <class Handler>
WEFT_HOT_INLINE int Poller::Look(Handler& handler) {
  if (attention_) [[unlikely]]
    Attend(handler);
  int taken = 0;
  for (int i = 0; i < active_count_;) {
    Channel* const channel = active_[i];
    if (!channel->Ready()) {
      ++i;
      continue;
    }
    const uint64_t now = Ticks();
    if (now - polled_ticks_ > off_cpu_ticks_) [[unlikely]] {
      ++counters_.off_cpu;
      Housekeep(now);
      i = 0;
      if (attention_) Attend(handler);
      continue;
    }
    // What the messages before took tells how many to take at a time.
    poll_budget_ = now - polled_ticks_ > long_message_ticks_ ? 1 : kPollBudget;
    polled_ticks_ = now;
    taken += PollChannel(*channel, now, handler);
    if (i < active_count_ && active_[i] == channel) ++i;
  }
  if (taken != 0) {
    empty_polls_ = 0;
    worked_ticks_ = polled_ticks_;
    if (polled_ticks_ - housekept_ticks_ > housekeeping_ticks_) [[unlikely]]
      Housekeep(polled_ticks_);
  } else if (++empty_polls_ % kClockEvery == 0) {
    const uint64_t now = Ticks();
    // Not where it was long off the CPU: then the next message must find that out.
    if (now - polled_ticks_ <= off_cpu_ticks_) polled_ticks_ = now;
    if (now - housekept_ticks_ > housekeeping_ticks_) Housekeep(now);
  }
  return taken;
}

template <class Handler>
[[gnu::noinline]] void Poller::Attend(Handler& handler) {
  attention_ = false;
  const uint64_t now_ns = NowNs();
  for (int i = active_count_ - 1; i >= 0; --i) {
    if (i >= active_count_) continue;  // The handler removed several.
    Channel& channel = *active_[i];
    auto& sink = handler.SinkFor(channel);
    channel.ExpireStalled(now_ns, sink);
    if (!channel.closing()) continue;
    channel.Finish(sink);
    ++events_seen_;
    RemoveChannel(&channel);
    handler.OnClosed(channel);
  }
  for (std::size_t i = parked_receiving_.size(); i-- > 0;) {
    if (i >= parked_receiving_.size()) continue;
    Channel& channel = *parked_receiving_[i];
    channel.ExpireStalled(now_ns, handler.SinkFor(channel));
    if (channel.consumer().receiving() == 0) std::erase(parked_receiving_, &channel);
  }
}

template <class Handler>
WEFT_HOT_INLINE int Poller::Wait(Handler& handler, uint64_t deadline_ns) {
  events_seen_ = 0;
  if (due_bell_ >= 0) [[unlikely]]
    DrainDueBell();
  for (;;) {
    // The usual thread has one peer, for which a poll is one load: some of those between two full polls.
    if (active_count_ == 1 && !sharing_.yields_each_poll()) {
      for (uint32_t look = 0; look < kLooksBetween && !active_[0]->Ready(); ++look) {
      }
    }
    const int taken = Look(handler);
    if (taken != 0 || events_seen_ != 0) return taken;
    if (empty_polls_ % kRoomEvery == 0 && RoomCame()) return 0;
    if (!sharing_.yields_each_poll() && empty_polls_ % kClockEvery != 0 && poll_ticks_ != 0) continue;
    const uint64_t now = Ticks();
    if (now - worked_ticks_ < poll_ticks_ && sharing_.MayPoll()) {
      if (deadline_ns != kNoDeadline && NowNs() >= deadline_ns) return 0;
      ShareCore(empty_polls_);
      continue;
    }
    if (deadline_ns != kNoDeadline && NowNs() >= deadline_ns) return 0;
    if (CopiesGoOn()) {
      worked_ticks_ = now;
      continue;
    }
    Sleep(deadline_ns);
  }
}

}  // namespace weft

#endif  // WEFT_DATAPLANE_CHANNEL_POLLER_H_
