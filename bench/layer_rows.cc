// SPDX-License-Identifier: Apache-2.0
#include "bench/layer_rows.h"

#include <fcntl.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "bench/pair_row.h"
#include "dataplane/base/check.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/status.h"
#include "dataplane/channel/channel.h"
#include "dataplane/channel/doorbell.h"
#include "dataplane/channel/poller.h"

namespace weft::bench {
namespace {

constexpr std::size_t kBytes = 64;
constexpr uint32_t kBurst = 32;
// The function that ends a block at the callee.
constexpr uint64_t kStopFunction = 1;

using Buffer = std::array<std::byte, kBytes>;

// One process's end of the channel: a poller, and a sink whose messages go to `take`.
template <class Take>
class End {
 public:
  End(Channel& channel, Take take) : channel_(channel), take_(std::move(take)) {
    absl::StatusOr<std::unique_ptr<Poller>> poller = Poller::Create({});
    WEFT_CHECK(poller.ok());
    poller_ = *std::move(poller);
    WEFT_CHECK(poller_->AddDoorbell(channel.doorbell()).ok() && poller_->AddChannel(&channel).ok());
  }
  ~End() {
    poller_->RemoveChannel(&channel_);
    poller_->RemoveDoorbell(channel_.doorbell());
  }
  void Wait() { poller_->Wait(*this, kNoDeadline); }
  void Send(const MessageHeader& header, const Buffer& payload) {
    while (!channel_.TrySend(header, Payload(payload), Lane::kRequest)) poller_->PollOnce(*this);
  }

  // One-ways with consecutive ids from the header's on.
  void SendRun(MessageHeader first, std::span<const std::span<const std::byte>> messages) {
    while (!messages.empty()) {
      const uint32_t sent = channel_.TrySendRun(first, messages, Lane::kRequest);
      if (sent == 0) {
        poller_->PollOnce(*this);
        continue;
      }
      first.request_id += sent;
      messages = messages.subspan(sent);
    }
  }

  // What the poller and the channel want of a handler and its sink.
  End& SinkFor(Channel&) { return *this; }
  void OnClosed(Channel&) { WEFT_CHECK(false); }
  std::byte* OnBegin(const MessageHeader&, uint32_t bytes) {
    return bytes <= kBytes ? buffer_.data() : nullptr;
  }
  void OnMessage(const MessageHeader& header, std::byte*, uint32_t) { take_(header, buffer_); }
  std::byte* OnRunBegin(const MessageHeader&, const MessageRun&) { return run_.data(); }
  void OnRun(const MessageHeader& first, const MessageRun& run, std::byte* payload) {
    MessageHeader header = first;
    for (uint32_t i = 0; i < run.count; ++i, ++header.request_id) {
      take_(header, *reinterpret_cast<const Buffer*>(payload));
      payload += RunStride(run.lengths[i]);
    }
  }
  void OnAbort(const MessageHeader&, std::byte*) {}
  void OnNoBudget(const MessageHeader&, uint32_t) {}

 private:
  Channel& channel_;
  Take take_;
  std::unique_ptr<Poller> poller_;
  Buffer buffer_;
  std::array<std::byte, kRunBytesMax> run_;
};

class ChannelRowBase : public PairRow {
 public:
  using PairRow::PairRow;

 protected:
  // Both ends are made before the fork; each process then uses its own.
  absl::Status Prepare() override {
    WEFT_ASSIGN_OR_RETURN(caller_, Channel::Create({}));
    WEFT_ASSIGN_OR_RETURN(callee_, Channel::Create({}));
    WEFT_ASSIGN_OR_RETURN(DoorbellPair bells, MakeDoorbellPair());
    WEFT_ASSIGN_OR_RETURN(Doorbell caller_bell, Doorbell::Create(std::move(bells.first)));
    WEFT_ASSIGN_OR_RETURN(Doorbell callee_bell, Doorbell::Create(std::move(bells.second)));
    caller_bell_.emplace(std::move(caller_bell));
    callee_bell_.emplace(std::move(callee_bell));
    auto copy = [](int fd) { return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0)); };
    WEFT_RETURN_IF_ERROR(caller_->Connect(copy(callee_->memory_fd()), &*caller_bell_));
    return callee_->Connect(copy(caller_->memory_fd()), &*callee_bell_);
  }
  void Release() override {
    caller_.reset();
    callee_.reset();
    caller_bell_.reset();
    callee_bell_.reset();
  }

  Channel& caller() { return *caller_; }
  Channel& callee() { return *callee_; }

 private:
  std::unique_ptr<Channel> caller_;
  std::unique_ptr<Channel> callee_;
  std::optional<Doorbell> caller_bell_;
  std::optional<Doorbell> callee_bell_;
};

class ChannelRow final : public ChannelRowBase {
 public:
  ChannelRow() : ChannelRowBase({.name = "layer/channel", .bytes = kBytes, .against = {"limit/shm_spin"}}) {}

 private:
  Worker::Reply Call(uint32_t* out, uint64_t duration_ns) override {
    uint32_t answered = 0, id = 0;
    uint64_t errors = 0, begin_ns = 0, end_ns = 0;
    End end(caller(), [&](const MessageHeader& header, const Buffer& answer) {
      end_ns = NowNs();
      answered = header.request_id;
      errors += CheckPayload(answer.data(), kBytes, header.request_id) ? 0 : 1;
    });
    Samples samples(out, duration_ns);
    Buffer request;
    do {
      FillPayload(request.data(), kBytes, ++id);
      begin_ns = NowNs();
      end.Send({.function_id = 0, .request_id = id}, request);
      caller().Publish();
      while (answered != id) end.Wait();
    } while (samples.Add(begin_ns, end_ns));
    end.Send({.function_id = kStopFunction}, request);
    caller().Publish();
    return {.messages = samples.count(),
            .samples = samples.count(),
            .elapsed_ns = samples.elapsed_ns(),
            .errors = errors};
  }

  Worker::Reply Answer() override {
    bool stop = false;
    uint64_t errors = 0;
    Buffer response;
    End end(callee(), [&](const MessageHeader& header, const Buffer& request) {
      stop = header.function_id == kStopFunction;
      if (stop) return;
      errors += CheckPayload(request.data(), kBytes, header.request_id) ? 0 : 1;
      FillPayload(response.data(), kBytes, header.request_id);
      WEFT_CHECK(callee().TrySend({.request_id = header.request_id, .kind = MessageKind::kResponse},
                                  Payload(response), Lane::kReply));
      callee().Publish();
    });
    while (!stop) end.Wait();
    return {.errors = errors};
  }
};

class ChannelBatchedRow final : public ChannelRowBase {
 public:
  ChannelBatchedRow()
      : ChannelRowBase({.name = "layer/channel_batched",
                        .bytes = kBytes,
                        .is_rate = true,
                        .against = {"limit/spsc_batched"}}) {}

 private:
  Worker::Reply Call(uint32_t*, uint64_t duration_ns) override {
    bool answered = false;
    End end(caller(), [&](const MessageHeader&, const Buffer&) { answered = true; });
    Buffer message;
    std::array<Buffer, kBurst> payloads;
    std::array<std::span<const std::byte>, kBurst> messages;
    for (uint32_t i = 0; i < kBurst; ++i) messages[i] = payloads[i];
    uint32_t id = 0;
    auto send_until = [&](uint64_t end_ns) {
      while (NowNs() < end_ns) {
        for (uint32_t burst = 0; burst < 32; ++burst) {
          const uint32_t first = id + 1;
          for (Buffer& payload : payloads) FillPayload(payload.data(), kBytes, ++id);
          end.SendRun({.function_id = 0, .request_id = first, .kind = MessageKind::kOneWay}, messages);
          caller().Publish();
        }
      }
    };
    const uint64_t start_ns = NowNs();
    send_until(start_ns + Samples::WarmUpOf(duration_ns));
    const uint64_t first_ns = NowNs();
    const uint32_t first = id;
    send_until(start_ns + duration_ns);
    end.Send({.function_id = kStopFunction}, message);
    caller().Publish();
    while (!answered) end.Wait();
    return {.messages = id - first, .elapsed_ns = NowNs() - first_ns};
  }

  Worker::Reply Answer() override {
    bool stop = false;
    uint64_t errors = 0;
    uint32_t expected = 0;
    End end(callee(), [&](const MessageHeader& header, const Buffer& message) {
      stop = header.function_id == kStopFunction;
      if (stop) return;
      ++expected;
      errors += header.request_id == expected && CheckPayload(message.data(), kBytes, expected) ? 0 : 1;
    });
    while (!stop) end.Wait();
    WEFT_CHECK(callee().TrySend({.kind = MessageKind::kResponse}, Payload(), Lane::kReply));
    callee().Publish();
    return {.errors = errors};
  }
};

}  // namespace

std::unique_ptr<Row> NewChannelRow() { return std::make_unique<ChannelRow>(); }
std::unique_ptr<Row> NewChannelBatchedRow() { return std::make_unique<ChannelBatchedRow>(); }

}  // namespace weft::bench
