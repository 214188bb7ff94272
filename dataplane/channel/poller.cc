// SPDX-License-Identifier: Apache-2.0
#include "dataplane/channel/poller.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/status.h"

namespace weft {
namespace {

constexpr int kEventsMax = 64;

}  // namespace

// One doorbell and the channels that it wakes for.
struct PollerBell {
  Doorbell* doorbell = nullptr;
  std::vector<Channel*> channels;
  uint32_t spurious_left = Poller::kSpuriousBurst;
  uint64_t refilled_ns = 0;
  bool closed = false;
};

struct Poller::FdSource {
  FdCallback callback;
};

// epoll's data: the descriptor, and whether it is a doorbell's. Looked up again for each event, since a
// callback may have removed what a later event of the same turn names.
namespace {
constexpr uint64_t kBellTag = uint64_t{1} << 32;
}

absl::StatusOr<std::unique_ptr<Poller>> Poller::Create(const PollerOptions& options) {
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) return absl::ErrnoToStatus(errno, "create a poller");
  const uint64_t poll_time_ns =
      options.poll_time_ns == kCalibratedPollTime ? CalibratedPollTimeNs() : options.poll_time_ns;
  return std::unique_ptr<Poller>(new Poller(std::move(epoll), poll_time_ns));
}

Poller::Poller(UniqueFd epoll, uint64_t poll_time_ns)
    : ticks_per_ns_(TicksPerSecond() / 1e9), epoll_(std::move(epoll)) {
  auto ticks = [this](uint64_t ns) { return static_cast<uint64_t>(static_cast<double>(ns) * ticks_per_ns_); };
  off_cpu_ticks_ = ticks(kOffCpuNs);
  housekeeping_ticks_ = ticks(kHousekeepingNs);
  park_ticks_ = ticks(kParkNs);
  long_message_ticks_ = ticks(kLongMessageNs * kPollBudget);
  polled_ticks_ = worked_ticks_ = housekept_ticks_ = Ticks();
  set_poll_time_ns(poll_time_ns);
}

Poller::~Poller() {
  for (auto& [fd, bell] : bells_) {
    for (Channel* channel : bell->channels) channel->hook = PollerHook{};
  }
}

void Poller::set_poll_time_ns(uint64_t poll_time_ns) {
  poll_time_ns_ = poll_time_ns;
  poll_ticks_ = static_cast<uint64_t>(static_cast<double>(poll_time_ns) * ticks_per_ns_);
}

absl::Status Poller::AddDoorbell(Doorbell* doorbell) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kBellTag | static_cast<uint32_t>(doorbell->fd());
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, doorbell->fd(), &event) != 0) {
    return absl::ErrnoToStatus(errno, "poll a doorbell");
  }
  auto bell = std::make_unique<PollerBell>();
  bell->doorbell = doorbell;
  bell->refilled_ns = NowNs();
  bells_[doorbell->fd()] = std::move(bell);
  return absl::OkStatus();
}

void Poller::RemoveDoorbell(Doorbell* doorbell) {
  auto found = bells_.find(doorbell->fd());
  if (found == bells_.end()) return;
  WEFT_CHECK(found->second->channels.empty());
  if (!found->second->closed) epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, doorbell->fd(), nullptr);
  if (due_bell_ == doorbell->fd()) due_bell_ = -1;
  bells_.erase(found);
}

absl::Status Poller::AddChannel(Channel* channel) {
  auto found = channel->doorbell() == nullptr ? bells_.end() : bells_.find(channel->doorbell()->fd());
  if (found == bells_.end())
    return absl::FailedPreconditionError("poll a channel: its doorbell is not polled");
  if (channel->state() != ChannelState::kOpen || channel->hook.bell != nullptr) {
    return absl::FailedPreconditionError("poll a channel: it is not open, or polled already");
  }
  PollerBell& bell = *found->second;
  bell.channels.push_back(channel);
  channel->hook.bell = &bell;
  channel->hook.poller = this;
  channel->hook.unpark = [](void* poller, void* parked) {
    static_cast<Poller*>(poller)->Activate(*static_cast<Channel*>(parked));
  };
  if (bell.closed) {
    channel->MarkPeerDead();
    attention_ = true;
  }
  Activate(*channel);
  return absl::OkStatus();
}

void Poller::RemoveChannel(Channel* channel) {
  PollerBell* const bell = channel->hook.bell;
  if (bell == nullptr) return;
  if (channel->hook.active_index >= 0) Deactivate(*channel);
  std::erase(parked_receiving_, channel);
  std::erase(bell->channels, channel);
  channel->hook = PollerHook{};
}

absl::Status Poller::AddFd(int fd, uint32_t events, FdCallback callback) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = static_cast<uint32_t>(fd);
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("poll descriptor ", fd));
  }
  fds_[fd] = std::make_shared<FdSource>(FdSource{std::move(callback)});
  return absl::OkStatus();
}

absl::Status Poller::ModifyFd(int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = static_cast<uint32_t>(fd);
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("poll descriptor ", fd));
  }
  return absl::OkStatus();
}

void Poller::RemoveFd(int fd) {
  auto found = fds_.find(fd);
  if (found == fds_.end()) return;
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  fds_.erase(found);
}

bool Poller::MayDrainLater(const PollerBell& bell) {
  bool ready = false;
  for (Channel* channel : bell.channels) {
    // Room that came is told by draining.
    if (channel->hook.active_index < 0 || channel->closing() || channel->producer().wants_space())
      return false;
    ready |= channel->Ready();
  }
  return ready && !bell.closed;
}

void Poller::DrainDueBell() {
  if (auto found = bells_.find(due_bell_); found != bells_.end()) DrainBell(*found->second);
  due_bell_ = -1;
}

int Poller::ServeEvents(uint64_t timeout_ns, bool woken) {
  int served = 0;
  for (;;) {
    epoll_event events[kEventsMax];
    timespec timeout{static_cast<time_t>(timeout_ns / kNsPerSecond),
                     static_cast<long>(timeout_ns % kNsPerSecond)};
    const int count = epoll_pwait2(epoll_.get(), events, kEventsMax,
                                   timeout_ns == kNoDeadline ? nullptr : &timeout, nullptr);
    if (count <= 0) return served;
    served += count;
    // Descriptors first: the agent's word comes before the peers'.
    for (int i = 0; i < count; ++i) {
      if ((events[i].data.u64 & kBellTag) != 0) continue;
      auto found = fds_.find(static_cast<int>(events[i].data.u64));
      if (found == fds_.end()) continue;
      const std::shared_ptr<FdSource> held = found->second;  // It may remove itself.
      held->callback(events[i].events);
    }
    for (int i = 0; i < count; ++i) {
      if ((events[i].data.u64 & kBellTag) == 0) continue;
      const int fd = static_cast<int>(events[i].data.u64 & ~kBellTag);
      auto found = bells_.find(fd);
      if (found == bells_.end()) continue;
      if (woken && count == 1 && events[0].events == EPOLLIN && MayDrainLater(*found->second)) {
        due_bell_ = fd;
      } else {
        DrainBell(*found->second);
      }
    }
    if (count < kEventsMax) return served;
    timeout_ns = 0;
  }
}

void Poller::Housekeep(uint64_t now_ticks) {
  // Before the look at the descriptors: a stop between that and the next drain must be noticed.
  polled_ticks_ = Ticks();
  events_seen_ += ServeEvents(0);
  housekept_ticks_ = Ticks();
  if (rescan_) {
    rescan_ = false;
    for (auto& [fd, bell] : bells_) {
      for (Channel* channel : bell->channels) {
        if (channel->hook.active_index < 0 && (channel->Ready() || channel->closing())) Activate(*channel);
      }
    }
  }
  ParkIdle(now_ticks);
  attention_ |= !parked_receiving_.empty();
  for (int i = 0; i < active_count_; ++i) {
    Channel& channel = *active_[i];
    if (channel.closing() || channel.consumer().receiving() != 0) attention_ = true;
  }
}

void Poller::DrainBell(PollerBell& bell) {
  if (bell.doorbell->fd() == due_bell_) due_bell_ = -1;
  if (bell.closed) return;
  const Doorbell::Drained drained = bell.doorbell->Drain();
  counters_.rings_received += static_cast<uint64_t>(drained.rings);
  bool progress = false;
  for (Channel* channel : bell.channels) {
    if (channel->producer().wants_space()) channel->producer().RefreshHead();
    const uint32_t heads = channel->consumer().head() + channel->producer().peer_head();
    progress |= heads != channel->hook.progress || channel->Ready();
    channel->hook.progress = heads;
    if (channel->closing()) attention_ = true;
    if (channel->hook.active_index < 0 && (channel->Ready() || channel->closing())) Activate(*channel);
  }
  if (drained.misuse) return CloseBell(bell, false, PoisonReason::kDoorbellMisuse);
  if (drained.hung_up || bell.doorbell->hung_up()) return CloseBell(bell, true, PoisonReason::kNone);
  if (progress || drained.rings == 0) return;
  counters_.rings_spurious += static_cast<uint64_t>(drained.rings);
  const uint64_t now_ns = NowNs();
  const uint64_t refill = (now_ns - bell.refilled_ns) / kSpuriousRefillNs;
  bell.refilled_ns += refill * kSpuriousRefillNs;
  bell.spurious_left = static_cast<uint32_t>(std::min<uint64_t>(bell.spurious_left + refill, kSpuriousBurst));
  if (bell.spurious_left < static_cast<uint32_t>(drained.rings)) {
    return CloseBell(bell, false, PoisonReason::kSpuriousRings);
  }
  bell.spurious_left -= static_cast<uint32_t>(drained.rings);
}

void Poller::CloseBell(PollerBell& bell, bool hung_up, PoisonReason reason) {
  bell.closed = true;
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, bell.doorbell->fd(), nullptr);
  attention_ = true;
  for (Channel* channel : bell.channels) {
    if (hung_up) {
      channel->MarkPeerDead();
    } else {
      channel->Poison(reason);
    }
    if (channel->hook.active_index < 0) Activate(*channel);
  }
}

void Poller::Activate(Channel& channel) {
  if (channel.hook.active_index >= 0) return;
  if (active_count_ == kActiveMax) {
    Channel* oldest = active_[0];
    for (int i = 1; i < active_count_; ++i) {
      if (active_[i]->hook.traffic_ticks < oldest->hook.traffic_ticks) oldest = active_[i];
    }
    Park(*oldest);
  }
  if (channel.asleep()) channel.EndSleep();
  std::erase(parked_receiving_, &channel);
  channel.hook.active_index = active_count_;
  channel.hook.traffic_ticks = Ticks();
  active_[active_count_++] = &channel;
}

void Poller::Deactivate(Channel& channel) {
  const int index = channel.hook.active_index;
  --active_count_;
  active_[index] = active_[active_count_];
  active_[index]->hook.active_index = index;
  active_[active_count_] = nullptr;
  channel.hook.active_index = -1;
}

void Poller::Park(Channel& channel) {
  Deactivate(channel);
  ++counters_.parked;
  if (channel.consumer().receiving() != 0) parked_receiving_.push_back(&channel);
  // Where something came in meanwhile, nobody will ring for it.
  if (!channel.BeginSleep()) rescan_ = true;
}

void Poller::ParkIdle(uint64_t now_ticks) {
  for (int i = active_count_ - 1; i >= 0 && active_count_ > kActiveKept; --i) {
    Channel& channel = *active_[i];
    if (channel.hook.traffic_ticks + park_ticks_ > now_ticks) continue;
    if (channel.Ready() || channel.closing() || channel.consumer().receiving() != 0) continue;
    Park(channel);
  }
}

bool Poller::RoomCame() {
  bool came = false;
  for (int i = 0; i < active_count_; ++i) {
    BasicProducer<SharedAccess>& producer = active_[i]->producer();
    came |= producer.wants_space() && producer.RefreshHead();
  }
  return came;
}

bool Poller::CopiesGoOn() {
  bool read = false;
  for (int i = 0; i < active_count_; ++i) read |= active_[i]->producer().CopyGoesOn();
  counters_.copies_waited += read ? 1 : 0;
  return read;
}

uint64_t Poller::Yield() {
  ++counters_.yields;
  const uint64_t took_ns = sharing_.Yield();
  if (took_ns == 0) return 0;
  // What others took of this core does not count as time without work, or two pollers of one core would put
  // each other to sleep.
  worked_ticks_ += static_cast<uint64_t>(static_cast<double>(took_ns) * ticks_per_ns_);
  // A yield may take milliseconds: the agent must not wait for kClockEvery of them.
  const uint64_t back_ticks = Ticks();
  if (back_ticks - housekept_ticks_ > housekeeping_ticks_) Housekeep(back_ticks);
  return took_ns;
}

void Poller::Sleep(uint64_t deadline_ns) {
  const uint64_t began_ticks = Ticks();
  if (rescan_) Housekeep(Ticks());
  if (attention_ || rescan_) return;
  bool quiet = true;
  bool receiving = !parked_receiving_.empty();
  for (int i = 0; i < active_count_ && quiet; ++i) {
    quiet = active_[i]->BeginSleep();
    receiving |= active_[i]->consumer().receiving() != 0;
    attention_ |= active_[i]->closing();
  }
  if (quiet) {
    uint64_t timeout_ns = kNoDeadline;
    if (deadline_ns != kNoDeadline) {
      const uint64_t now_ns = NowNs();
      timeout_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
    }
    if (receiving) timeout_ns = std::min(timeout_ns, kStallCheckNs);
    ++counters_.sleeps;
    events_seen_ += ServeEvents(timeout_ns, /*woken=*/true);
    attention_ |= receiving;
  }
  for (int i = 0; i < active_count_; ++i) {
    if (active_[i]->asleep()) active_[i]->EndSleep();
  }
  if (!quiet) {
    // A message, or room for one of ours: the latter is the caller's to use.
    ++events_seen_;
    return;
  }
  const uint64_t woken_ticks = Ticks();
  if (woken_ticks - began_ticks > off_cpu_ticks_) {
    // Anew: what came while the last look at the descriptors was on its way, which may have taken long, must
    // be seen before a channel is drained.
    Housekeep(woken_ticks);
  } else {
    polled_ticks_ = housekept_ticks_ = woken_ticks;
  }
  worked_ticks_ = polled_ticks_;
}

}  // namespace weft
