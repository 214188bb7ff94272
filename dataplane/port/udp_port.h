// SPDX-License-Identifier: Apache-2.0
// The UDP port: one socket of one worker, driven by io_uring where the kernel lets it and by plain system
// calls where it does not, so that there is a way between nodes on every machine. What a round has to do,
// sends and attempts to receive, is one io_uring_enter; a single operation is a plain system call, which
// costs less. The peer that gets most has a connected socket beside it (direct_socket.h). Sends to one peer
// of one size leave as one (UDP_SEGMENT), and in a stream the kernel hands several datagrams over as one
// (UDP_GRO). Made on any thread, used on the worker's only.
#ifndef WEFT_DATAPLANE_PORT_UDP_PORT_H_
#define WEFT_DATAPLANE_PORT_UDP_PORT_H_

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/base/fd.h"
#include "dataplane/port/direct_socket.h"
#include "dataplane/port/path_table.h"
#include "dataplane/port/port.h"
#include "dataplane/port/sleep_watch.h"
#include "dataplane/port/udp_ring.h"

namespace weft::port {

class UdpPort {
 public:
  using Received = ReceivedDatagram;

  struct Options {
    Address local;         // Where to bind; looked at only without `socket`.
    UniqueFd socket;       // A bound UDP socket from elsewhere, instead,
    UniqueFd twin = {};    // and, where its maker could make one, TwinOf() it.
    uint32_t workers = 1;  // That share the address; made one after the other, in the order of their hints.
    std::size_t datagram_bytes_max = 1472;
    std::size_t send_depth = 256;  // Datagrams finished and not yet taken by the kernel; a power of two.
    std::size_t receive_frames = 64;
    bool use_io_uring = true;  // False: plain system calls, as where io_uring is forbidden.
  };

  // INVALID_ARGUMENT names a wrong option; else the errno of what failed, named.
  static absl::StatusOr<std::unique_ptr<UdpPort>> Create(Options options);

  // port::Port. Receive and Flush make system calls, one a round.
  std::size_t Receive(Received* burst, std::size_t count);
  void Release(const Received* burst, std::size_t count);
  uint8_t* BeginSend();
  void FinishSend(uint64_t path, std::size_t bytes);
  void Flush();

  // port::NetworkPort.
  absl::StatusOr<uint64_t> AddPath(const Address& address, std::size_t bytes_least = kLargestDatagrams);
  absl::Status SetPath(uint64_t path, const Address& address, std::size_t bytes_least = kLargestDatagrams);
  void RemovePath(uint64_t path);
  Address SourceOf(const Received& received) const;
  int sleep_fd() const { return sleep_.fd(); }
  bool PrepareSleep();
  void EndSleep() { sleep_.Disarm(); }
  const PortStatus& status() const { return status_; }
  const PortCounters& counters() const { return counters_; }
  FrameCounts frames() const;

  const Address& local() const { return local_; }
  // Whether what is sent to `path` now leaves by the connected socket.
  bool IsDirect(uint64_t path) const { return direct_.Carries(path); }

 private:
  // What UDP_GRO can hand over at once. Only the pages that are written are ever resident.
  static constexpr std::size_t kReceiveFrameBytes = 1 << 16;
  // One receive fills one frame, with one datagram or, where the kernel coalesced, with several of `segment`
  // bytes, the last one shorter.
  struct ReceiveFrame {
    uint8_t* data = nullptr;
    uint32_t bytes = 0;
    uint32_t segment = 0;
    uint32_t given = 0;  // Datagrams handed over so far, of `parts`,
    uint32_t parts = 0;
    uint32_t held = 0;  // and those not yet released.
    iovec vector = {};
    msghdr header = {};
    sockaddr_storage source = {};
    alignas(cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))] = {};
  };
  struct SendSlot {
    uint8_t* data = nullptr;
    uint64_t path = 0;
    uint32_t bytes = 0;
    bool done = false;   // Taken or lost; its place is free once all before it are.
    bool alone = false;  // Was refused in company.
    bool named = false;  // Was refused by the connected socket.
  };
  struct Target {
    Address address = {};
    sockaddr_storage name = {};
    socklen_t name_bytes = 0;
  };
  // Datagrams of slots [first, first + count) by one send.
  struct Message {
    std::size_t first = 0;
    uint32_t count = 0;
    uint32_t bytes = 0;
    uint32_t segment = 0;
    bool closed = false;  // Takes no more.
    enum : uint8_t { kNowhere, kByName, kDirect } way = kNowhere;
    alignas(cmsghdr) uint8_t control[CMSG_SPACE(sizeof(uint16_t))] = {};
  };

  UdpPort(Options options, UniqueFd socket, UniqueFd twin, SleepWatch sleep, Address local,
          PortStatus status);

  absl::StatusOr<Target> TargetOf(const Address& address, std::size_t bytes_least) const;
  std::size_t Round(bool receive);
  bool SendAlone();
  // Whether datagrams come in such a row that a send takes attempts to receive along.
  bool InStream() const { return attempts_[direct_.leads()].a_round > 1; }
  std::size_t BuildMessages();
  bool JoinMessage(Message* message, std::size_t slot) const;
  void FinishMessages(std::size_t count);
  bool TakeSendResult(const Message& message, int result);
  void CountLost(int error, uint32_t datagrams);
  bool ReceiveAlone();
  std::size_t PostReceives(bool direct);
  void NoteArrivals(bool direct, std::size_t arrived, std::size_t attempts);
  void TakeReceiveResult(uint32_t frame, bool direct, int result);
  void RoundBySystemCalls(std::size_t sends, std::size_t receives, bool direct);
  void ReviewDirect();
  void Coalesce();
  void LeaveRing(int error);
  SendSlot& Slot(std::size_t number) { return send_[number & send_mask_]; }

  UniqueFd socket_;
  DirectSocket direct_;
  SleepWatch sleep_;
  Address local_;
  sa_family_t family_;
  std::size_t datagram_bytes_max_;
  std::size_t send_mask_;
  PortStatus status_;
  PortCounters counters_;
  std::unique_ptr<UdpRing> ring_;  // Null: plain system calls.
  bool segmentation_ = false;
  bool may_coalesce_ = false;
  bool coalescing_ = false;
  uint32_t large_in_a_row_ = 0;
  PathTable<Target> paths_;

  // Receiving: a frame is in free_, posted (only inside Round), in ready_, or given out in all its parts
  // (held_).
  std::unique_ptr<uint8_t[]> receive_memory_;
  std::vector<ReceiveFrame> receive_;
  std::vector<uint32_t> free_;
  std::vector<uint32_t> ready_;  // A queue from ready_head_; emptied as a whole.
  std::size_t ready_head_ = 0;
  uint32_t held_ = 0;
  // Of either socket, the direct one second.
  struct Attempts {
    std::size_t a_round = 1;
    bool had_all = false;  // The last round received as often as it tried to.
  };
  Attempts attempts_[2];

  // Sending: slots [send_head_, send_tail_) are in use, less those done.
  std::unique_ptr<uint8_t[]> send_memory_;
  std::vector<SendSlot> send_;
  std::size_t send_head_ = 0;
  std::size_t send_tail_ = 0;

  Message messages_[kRoundSendsMax];
  mmsghdr send_headers_[kRoundSendsMax];
  int send_results_[kRoundSendsMax];
  std::vector<iovec> send_vectors_;  // One a slot.
  uint32_t posted_[kRoundReceivesMax];
  msghdr* receive_headers_[kRoundReceivesMax];
  int receive_results_[kRoundReceivesMax];
};

static_assert(NetworkPort<UdpPort>);

}  // namespace weft::port

#endif  // WEFT_DATAPLANE_PORT_UDP_PORT_H_
