// SPDX-License-Identifier: Apache-2.0
// A neighbour in a process and under a user of its own that rewrites what it owns of open channels (laps,
// lengths, offsets, tails, heads, flags, anything) and abuses its doorbells. Each channel is opened again
// whenever it is closed, ten thousand times, until every named reason was seen. The thread that suffers this
// also serves an honest pair, which loses nothing and whose every checksum is right.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <deque>
#include <map>

#include "dataplane/base/random.h"
#include "dataplane/base/unix_socket.h"
#include "dataplane/channel/poller.h"
#include "tests/dataplane/channel/channel_pair.h"
#include "tests/dataplane/channel/guarded_side.h"
#include "tests/dataplane/channel/hostile_peer.h"

namespace weft {
namespace {

constexpr int kClosings = WEFT_SANITIZED ? 2'000 : 10'000;

uint64_t ChecksumOf(const std::byte* data, std::size_t bytes) {
  uint64_t sum = 0xcbf29ce484222325 ^ bytes;  // FNV-1a over words, then bytes.
  std::size_t i = 0;
  for (; i + 8 <= bytes; i += 8) {
    uint64_t word;
    std::memcpy(&word, data + i, 8);
    sum = (sum ^ word) * 0x100000001b3;
    sum ^= sum >> 29;
  }
  for (; i < bytes; ++i) sum = (sum ^ static_cast<uint64_t>(data[i])) * 0x100000001b3;
  return sum;
}

ChannelOptions SmallOptions() {
  ChannelOptions options;
  options.arena_bytes = options.peer_arena_bytes = kSmallArena;
  options.message_bytes_max = 64 * 1024;
  return options;
}

// --- The honest neighbour's process: answers each message with the checksum of its payload.

struct ChecksumHandler {
  ChecksumHandler& SinkFor(Channel&) { return *this; }
  void OnClosed(Channel&) { _exit(0); }
  std::byte* OnBegin(const MessageHeader& header, uint32_t bytes) {
    // One buffer a message under way; request ids are unique.
    auto& buffer = buffers[header.request_id];
    buffer.resize(bytes + 1);
    return buffer.data();
  }
  void OnMessage(const MessageHeader& header, std::byte* payload, uint32_t bytes) {
    answers.emplace_back(header.request_id, ChecksumOf(payload, bytes));
    buffers.erase(header.request_id);
  }
  void OnAbort(const MessageHeader& header, std::byte*) { _exit(4); }
  void OnNoBudget(const MessageHeader&, uint32_t) { _exit(5); }
  std::map<uint32_t, std::vector<std::byte>> buffers;
  std::deque<std::pair<uint32_t, uint64_t>> answers;
};

[[noreturn]] void RunHonest(Channel& channel, Doorbell& bell) {
  auto poller = *Poller::Create({});
  if (!poller->AddDoorbell(&bell).ok() || !poller->AddChannel(&channel).ok()) _exit(6);
  ChecksumHandler handler;
  for (;;) {
    poller->Wait(handler, handler.answers.empty() ? kNoDeadline : NowNs() + kNsPerMs);
    while (!handler.answers.empty()) {
      MessageHeader header;
      header.kind = MessageKind::kResponse;
      header.request_id = handler.answers.front().first;
      const auto sum = std::as_bytes(std::span(&handler.answers.front().second, 1));
      if (!channel.TrySend(header, sum, Lane::kReply)) break;
      handler.answers.pop_front();
    }
    channel.Publish();
  }
}

// --- The victim: this process.

class Victim {
 public:
  Victim() { payload_.resize(200'000); }

  void StartHonest() {
    auto pair = *MakeDoorbellPair();
    honest_bell_.emplace(*Doorbell::Create(std::move(pair.first)));
    Doorbell theirs = *Doorbell::Create(std::move(pair.second));
    honest_ = *Channel::Create({});
    auto other = *Channel::Create({});
    honest_pid_ = fork();
    if (honest_pid_ == 0) {
      BecomeNobody();
      honest_bell_.reset();
      control_.Reset();
      if (!other->Connect(Duplicate(honest_->memory_fd()), &theirs).ok()) _exit(7);
      RunHonest(*other, theirs);
    }
    ASSERT_TRUE(honest_->Connect(Duplicate(other->memory_fd()), &*honest_bell_).ok());
  }

  // Before anything exists that the hostile process must not inherit.
  void StartHostile() {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    control_.Reset(ends[0]);
    hostile_pid_ = fork();
    if (hostile_pid_ == 0) {
      BecomeNobody();
      control_.Reset();
      Attacker(ends[1]).Run();
    }
    close(ends[1]);
  }

  void OpenAll() {
    poller_ = *Poller::Create({});
    ASSERT_TRUE(poller_->AddDoorbell(&*honest_bell_).ok());
    ASSERT_TRUE(poller_->AddChannel(honest_.get()).ok());
    ASSERT_TRUE(poller_->AddFd(control_.get(), EPOLLIN, [this](uint32_t) { TakeReplies(); }).ok());
    for (int slot = 0; slot < kSlots; ++slot) Open(slot);
  }

  void Run(uint64_t give_up_ns) {
    while ((closings_ < kClosings || !EveryReasonSeen()) && NowNs() < give_up_ns &&
           !testing::Test::HasFatalFailure()) {
      poller_->Wait(*this, NowNs() + 200 * kNsPerUs);
      for (int slot : to_reopen_) Open(slot);
      to_reopen_.clear();
      for (Front& front : fronts_) {
        if (front.channel == nullptr || front.channel->state() != ChannelState::kOpen) continue;
        front.channel->TrySend(MessageHeader{}, std::span<const std::byte>(payload_.data(), 64),
                               Lane::kRequest);
        front.channel->Publish();
      }
      TalkToHonest();
    }
    // What is under way with the honest neighbour comes to its end.
    const uint64_t end_ns = NowNs() + 10 * kNsPerSecond;
    stop_sending_ = true;
    while ((!expected_.empty() || streaming_) && NowNs() < end_ns) {
      poller_->Wait(*this, NowNs() + kNsPerMs);
      for (int slot : to_reopen_) fronts_[slot] = Front{};
      to_reopen_.clear();
      TalkToHonest();
    }
  }

  void Check() {
    EXPECT_GE(closings_, kClosings);
    EXPECT_TRUE(expected_.empty()) << expected_.size() << " messages of the honest pair were lost";
    EXPECT_EQ(wrong_, 0u);
    EXPECT_GT(answered_, 1'000u);
    EXPECT_EQ(honest_->state(), ChannelState::kOpen);
    for (int i = 1; i < kPoisonReasons; ++i) {
      EXPECT_GT(reasons_[static_cast<std::size_t>(i)], 0u) << PoisonReasonText(static_cast<PoisonReason>(i));
    }
    EXPECT_GT(reasons_[0], 0u) << "hang-ups";
    EXPECT_EQ(waitpid(honest_pid_, nullptr, WNOHANG), 0) << "the honest neighbour lives";
    std::printf("closings %d, honest messages %lu;", closings_, static_cast<unsigned long>(answered_));
    for (int i = 0; i < kPoisonReasons; ++i) {
      const auto text = PoisonReasonText(static_cast<PoisonReason>(i));
      std::printf(" %.*s %lu,", static_cast<int>(text.size()), text.data(),
                  static_cast<unsigned long>(reasons_[static_cast<std::size_t>(i)]));
    }
    std::printf("\n");
  }

  ~Victim() {
    for (const pid_t pid : {hostile_pid_, honest_pid_}) {
      if (pid <= 0) continue;
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
  }

  // The handler's part.
  struct Sink {
    std::byte* OnBegin(const MessageHeader& header, uint32_t bytes) {
      return honest ? buffer.data() : hostile.OnBegin(header, bytes);
    }
    void OnMessage(const MessageHeader& header, std::byte* payload, uint32_t bytes) {
      if (!honest) return hostile.OnMessage(header, payload, bytes);
      victim->OnAnswer(header, payload, bytes);
    }
    void OnAbort(const MessageHeader& header, std::byte* payload) {
      if (!honest) return hostile.OnAbort(header, payload);
      ++victim->wrong_;
    }
    void OnNoBudget(const MessageHeader&, uint32_t) {}
    Victim* victim = nullptr;
    bool honest = false;
    CanarySink hostile;
    std::array<std::byte, 4096> buffer;
  };
  Sink& SinkFor(Channel& channel) {
    sink_.victim = this;
    sink_.honest = &channel == honest_.get();
    return sink_;
  }
  void OnClosed(Channel& channel) {
    ASSERT_NE(&channel, honest_.get()) << PoisonReasonText(channel.poison_reason());
    ++closings_;
    ++reasons_[static_cast<std::size_t>(channel.poison_reason())];
    to_reopen_.push_back(static_cast<int>(reinterpret_cast<intptr_t>(channel.user_data)));
  }

 private:
  struct Front {
    std::optional<Doorbell> bell;
    std::unique_ptr<Channel> channel;
  };

  bool EveryReasonSeen() const {
    return std::all_of(reasons_.begin(), reasons_.end(), [](uint64_t count) { return count != 0; });
  }

  void Open(int slot) {
    Front& front = fronts_[slot];
    if (front.bell.has_value()) poller_->RemoveDoorbell(&*front.bell);
    front.channel.reset();
    auto pair = *MakeDoorbellPair();
    front.bell.emplace(*Doorbell::Create(std::move(pair.first)));
    front.channel = *Channel::Create(SmallOptions());
    front.channel->user_data = reinterpret_cast<void*>(static_cast<intptr_t>(slot));
    const std::array<int, 2> fds = {front.channel->memory_fd(), pair.second.get()};
    ASSERT_TRUE(SendMessage(control_.get(), std::string(1, static_cast<char>(slot)), fds).ok());
  }

  void TakeReplies() {
    for (;;) {
      absl::StatusOr<ReceivedMessage> reply = ReceiveMessage(control_.get());
      if (absl::IsUnavailable(reply.status())) return;
      ASSERT_TRUE(reply.ok() && reply->fds.size() == 1) << "the hostile process died";
      Front& front = fronts_[static_cast<std::size_t>(reply->bytes[0])];
      ASSERT_TRUE(front.channel->Connect(std::move(reply->fds[0]), &*front.bell).ok());
      ASSERT_TRUE(poller_->AddDoorbell(&*front.bell).ok());
      ASSERT_TRUE(poller_->AddChannel(front.channel.get()).ok());
    }
  }

  void TalkToHonest() {
    if (streaming_) {
      const StreamState state = honest_->Pump(stream_, NowNs());
      ASSERT_NE(state, StreamState::kClosed);
      // A stall of 100 ms is possible where the machine is busy; then the message is not counted.
      if (state == StreamState::kStalled) expected_.erase(stream_.header.request_id);
      streaming_ = state == StreamState::kMoreToSend;
    }
    while (!stop_sending_ && !streaming_ && expected_.size() < 16) {
      const std::size_t bytes =
          random_.Below(20) == 0 ? 1 + random_.Below(payload_.size()) : random_.Below(3000);
      MessageHeader header;
      header.request_id = ++next_id_;
      for (std::size_t i = 0; i + 8 <= bytes; i += 512) {
        const uint64_t word = random_.Next();
        std::memcpy(payload_.data() + i, &word, 8);
      }
      const std::span<const std::byte> payload(payload_.data(), bytes);
      if (bytes > honest_->whole_bytes_max()) {
        if (!honest_->TryStart(stream_, header, payload, Lane::kRequest, NowNs())) break;
        streaming_ = honest_->Pump(stream_, NowNs()) == StreamState::kMoreToSend;
      } else if (!honest_->TrySend(header, payload, Lane::kRequest)) {
        break;
      }
      expected_[header.request_id] = ChecksumOf(payload.data(), bytes);
    }
    honest_->Publish();
  }

  void OnAnswer(const MessageHeader& header, const std::byte* payload, uint32_t bytes) {
    auto found = expected_.find(header.request_id);
    uint64_t sum = 0;
    if (bytes == sizeof(sum)) std::memcpy(&sum, payload, sizeof(sum));
    if (found == expected_.end() || found->second != sum) {
      ++wrong_;
      return;
    }
    expected_.erase(found);
    ++answered_;
  }

  pid_t honest_pid_ = -1;
  pid_t hostile_pid_ = -1;
  UniqueFd control_;
  std::optional<Doorbell> honest_bell_;
  std::unique_ptr<Channel> honest_;
  std::array<Front, kSlots> fronts_;
  std::unique_ptr<Poller> poller_;  // Ends before what it borrows.
  std::vector<int> to_reopen_;
  Sink sink_;
  Random random_{99};
  std::vector<std::byte> payload_;
  SendStream stream_;
  bool streaming_ = false;
  bool stop_sending_ = false;
  uint32_t next_id_ = 0;
  std::map<uint32_t, uint64_t> expected_;
  uint64_t answered_ = 0;
  uint64_t wrong_ = 0;
  int closings_ = 0;
  std::array<uint64_t, kPoisonReasons> reasons_{};
};

TEST(HostileTest, TenThousandClosingsHarmNoHonestNeighbour) {
  Victim victim;
  victim.StartHostile();
  if (HasFatalFailure()) return;
  victim.StartHonest();
  if (HasFatalFailure()) return;
  victim.OpenAll();
  victim.Run(NowNs() + 75 * kNsPerSecond);
  victim.Check();
}

}  // namespace
}  // namespace weft
