// SPDX-License-Identifier: Apache-2.0
#include "bench/remote_dpdk.h"

#include <unistd.h>

#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/pair_row.h"
#include "bench/remote_network.h"
#include "bench/remote_rows.h"
#include "dataplane/base/check.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "dataplane/port/dpdk_device.h"
#include "dataplane/port/frame_headers.h"

namespace weft::bench {
namespace {

constexpr std::size_t kDatagramBytes = kEncryptedCallBytes;
constexpr std::size_t kFrameBytes = port::kHeaders4Bytes + kDatagramBytes;
constexpr uint64_t kStopId = 0;
constexpr uint64_t kGiveUpNs = 2 * kNsPerSecond;
// Between two tries of a memif client whose server is not there yet.
constexpr uint64_t kReconnectNs = 50 * kNsPerMs;

class DpdkRawRow final : public PairRow {
 public:
  DpdkRawRow()
      : PairRow({.name = "limit/dpdk_raw",
                 .bytes = 64,
                 .note = "frames as long as an encrypted call of 64 B, echoed in place, over net_memif"}) {}

 private:
  // DPDK's environment has threads: the device is made after the fork.
  absl::Status Prepare() override { return absl::OkStatus(); }

  absl::Status Open(int side) {
    if (device_ != nullptr) return absl::OkStatus();
    port::PortStatus status;
    WEFT_ASSIGN_OR_RETURN(device_, port::DpdkDevice::Create({.device = DpdkDeviceOf(side, "raw")}, &status));
    port::DpdkDevice::RegisterThread();
    const uint64_t begin_ns = NowNs();
    for (uint64_t tried_ns = begin_ns; !device_->LinkUp();) {
      const uint64_t now_ns = NowNs();
      if (now_ns - begin_ns > kGiveUpNs)
        return absl::DeadlineExceededError("the other side is not on the memif");
      if (now_ns - tried_ns > kReconnectNs) {
        tried_ns = now_ns;
        device_->Reconnect();
      }
    }
    return absl::OkStatus();
  }

  // False where nothing came in time.
  bool Receive(port::DpdkFrame* frame) {
    const uint64_t begin_ns = NowNs();
    for (uint32_t polls = 1; !device_->Receive(frame); ++polls) {
      if (polls % 65536 == 0 && NowNs() - begin_ns > kGiveUpNs) return false;
    }
    return true;
  }
  void Send(const port::DpdkFrame& frame) {
    while (!device_->Send(frame)) {
    }
  }
  static uint64_t Check(const port::DpdkFrame& frame, uint64_t* id) {
    if (frame.bytes != kFrameBytes) return 1;
    const uint8_t* const payload = frame.data + port::kHeaders4Bytes;
    std::memcpy(id, payload, sizeof(*id));
    return CheckPayload(payload + sizeof(*id), kDatagramBytes - sizeof(*id), *id) ? 0 : 1;
  }
  port::DpdkFrame NewRequest(uint64_t id) {
    port::DpdkFrame frame;
    while (!device_->New(&frame)) {
    }
    uint8_t* const payload = frame.data + port::kHeaders4Bytes;
    std::memcpy(payload, &id, sizeof(id));
    FillPayload(payload + sizeof(id), kDatagramBytes - sizeof(id), id);
    frame.bytes = kFrameBytes;
    return frame;
  }
  void SendRequest(const port::HeaderTemplate& headers, const port::DpdkFrame& request) {
    port::WriteHeaders(headers, request.data + port::kHeaders4Bytes, kDatagramBytes);
    Send(request);
  }

  Worker::Reply Call(uint32_t* out, uint64_t duration_ns) override {
    if (const absl::Status opened = Open(kNear); !opened.ok()) return Failed(opened.message());
    // A memif hands over all that it is given: the peer's address on the link does not matter.
    constexpr uint8_t kMac[6] = {2, 0, 0, 0, 0, 1};
    const port::HeaderTemplate headers =
        port::MakeHeaders(kMac, kMac, RemoteNetwork::AddressOf(kNear), RemoteNetwork::AddressOf(kFar));
    Samples samples(out, duration_ns);
    uint64_t id = kStopId, begin_ns = 0, end_ns = 0, errors = 0, answered = 0;
    port::DpdkFrame answer;
    do {
      const port::DpdkFrame request = NewRequest(++id);
      begin_ns = NowNs();
      SendRequest(headers, request);
      if (!Receive(&answer)) return Failed("no answer came");
      end_ns = NowNs();
      errors += Check(answer, &answered) + (answered == id ? 0 : 1);
      port::DpdkDevice::Free(answer);
    } while (samples.Add(begin_ns, end_ns));
    SendRequest(headers, NewRequest(kStopId));
    return {.messages = samples.count(),
            .samples = samples.count(),
            .elapsed_ns = samples.elapsed_ns(),
            .errors = errors};
  }

  Worker::Reply Answer() override {
    if (const absl::Status opened = Open(kFar); !opened.ok()) return Failed(opened.message());
    uint64_t errors = 0, id = 0;
    for (;;) {
      port::DpdkFrame request;
      if (!Receive(&request)) return Failed("no request came");
      errors += Check(request, &id);
      if (id == kStopId) {
        port::DpdkDevice::Free(request);
        return {.errors = errors};
      }
      uint8_t* const ip = request.data + port::kEthernetBytes;
      for (int i = 0; i < 4; ++i) std::swap(ip[12 + i], ip[16 + i]);  // The checksums stay right.
      Send(request);
    }
  }

  static Worker::Reply Failed(absl::string_view why) {
    Worker::Reply reply;
    std::strncpy(reply.failure, std::string(why).c_str(), sizeof(reply.failure) - 1);
    return reply;
  }

  std::unique_ptr<port::DpdkDevice> device_;  // Of a child; the coordinator has none.
};

}  // namespace

std::string DpdkDeviceOf(int side, absl::string_view row) {
  // An abstract socket, named by the run: both sides are children of one coordinator.
  return absl::StrCat("net_memif0,id=0,role=", side == kFar ? "server" : "client", ",socket=weft-bench-", row,
                      "-", getppid());
}

absl::StatusOr<std::unique_ptr<port::DpdkPort>> OpenDpdkPort(int side, uint64_t path) {
  WEFT_ASSIGN_OR_RETURN(auto made, port::DpdkPort::Create({.device = {.device = DpdkDeviceOf(side, "engine")},
                                                           .local = RemoteNetwork::AddressOf(side)}));
  WEFT_ASSIGN_OR_RETURN(const uint64_t named, made->AddPath(RemoteNetwork::AddressOf(1 - side)));
  WEFT_CHECK(named == path);
  // Both sides ask each other for their link addresses, and answer.
  for (const uint64_t begin_ns = NowNs(); !made->Ready(path);) {
    if (NowNs() - begin_ns > kGiveUpNs)
      return absl::DeadlineExceededError("the other side is not on the memif");
    port::ReceivedDatagram early;
    const std::size_t got = made->Receive(&early, 1);
    made->Release(&early, got);
  }
  return made;
}

std::unique_ptr<Row> NewDpdkRawRow() { return std::make_unique<DpdkRawRow>(); }

}  // namespace weft::bench
