// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/udp_ring.h"

#include <liburing.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/attributes.h"
#include "dataplane/base/check.h"

namespace weft::port {
namespace {

constexpr unsigned kEntries = 128;
static_assert(kEntries >= kRoundSendsMax + kRoundReceivesMax);

// Tries to submit what is queued. The kernel takes less than all only for want of memory.
constexpr int kSubmitTriesMax = 8;

struct Mode {
  unsigned flags;
  const char* name;
  const char* why;
};

// Best first. A ring that is disabled until its first round belongs to the thread that makes it.
constexpr Mode kModes[] = {
    {IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, "DEFER_TASKRUN",
     "completions are handed over in the enter that asks for them"},
    {IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN, "COOP_TASKRUN", "DEFER_TASKRUN needs Linux 6.1"},
    {IORING_SETUP_R_DISABLED, "plain", "COOP_TASKRUN needs Linux 5.19"},
};

}  // namespace

UdpRing::UdpRing(std::unique_ptr<io_uring> ring, int socket, int direct)
    : ring_(std::move(ring)), sockets_{socket, direct} {}

UdpRing::~UdpRing() {
  // The kernel ends a ring some time after its last descriptor is closed, and would keep the socket so long.
  if (fixed_file_) io_uring_unregister_files(ring_.get());
  io_uring_queue_exit(ring_.get());
}

absl::StatusOr<std::unique_ptr<UdpRing>> UdpRing::Create(int socket, int direct, PortStatus* status) {
  auto ring = std::make_unique<io_uring>();
  int error = 0;
  const Mode* chosen = nullptr;
  for (const Mode& mode : kModes) {
    io_uring_params params{};
    params.flags = mode.flags;
    error = -io_uring_queue_init_params(kEntries, ring.get(), &params);
    chosen = &mode;
    if (error != EINVAL) break;
  }
  if (error != 0) return absl::ErrnoToStatus(error, "set up io_uring");
  std::unique_ptr<UdpRing> result(new UdpRing(std::move(ring), socket, direct));
  io_uring_probe* const probe = io_uring_get_probe_ring(result->ring_.get());
  const bool has_messages = probe != nullptr && io_uring_opcode_supported(probe, IORING_OP_SENDMSG) != 0 &&
                            io_uring_opcode_supported(probe, IORING_OP_RECVMSG) != 0;
  if (probe != nullptr) io_uring_free_probe(probe);
  if (!has_messages) return absl::UnimplementedError("this kernel's io_uring has no sendmsg and recvmsg");
  result->fixed_file_ =
      io_uring_register_files(result->ring_.get(), result->sockets_, direct < 0 ? 1 : 2) == 0;
  status->choices.push_back({"io_uring", chosen->name, chosen->why});
  status->choices.push_back({"receive", "inline; alone, by a plain system call",
                             "polling so costs less than multishot; sleeping waits on the socket"});
  return result;
}

bool UdpRing::Enable(int* error) {
  // liburing 2.3 declares io_uring_enable_rings and does not export it.
  if (syscall(SYS_io_uring_register, ring_->ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0) < 0) {
    *error = errno;
    return false;
  }
  io_uring_register_ring_fd(ring_.get());  // Saves a look-up an enter; as good without.
  enabled_ = true;
  return true;
}

WEFT_HOT bool UdpRing::Round(mmsghdr* sends, int* send_results, std::size_t send_count,
                             msghdr* const* receives, int* receive_results, std::size_t receive_count,
                             bool receive_direct, int* error) {
  if (!enabled_ && !Enable(error)) return false;
  const int files[2] = {fixed_file_ ? 0 : sockets_[0], fixed_file_ ? 1 : sockets_[1]};
  const unsigned flags = fixed_file_ ? IOSQE_FIXED_FILE : 0;
  for (std::size_t i = 0; i < send_count; ++i) {
    io_uring_sqe* const sqe = io_uring_get_sqe(ring_.get());
    WEFT_CHECK(sqe != nullptr);
    io_uring_prep_sendmsg(sqe, files[sends[i].msg_hdr.msg_name == nullptr], &sends[i].msg_hdr,
                          MSG_DONTWAIT | MSG_NOSIGNAL);
    io_uring_sqe_set_flags(sqe, flags);
    io_uring_sqe_set_data64(sqe, i);
  }
  for (std::size_t i = 0; i < receive_count; ++i) {
    io_uring_sqe* const sqe = io_uring_get_sqe(ring_.get());
    WEFT_CHECK(sqe != nullptr);
    io_uring_prep_recvmsg(sqe, files[receive_direct], receives[i], MSG_DONTWAIT);
    io_uring_sqe_set_flags(sqe, flags);
    io_uring_sqe_set_data64(sqe, kRoundSendsMax + i);
  }
  const std::size_t total = send_count + receive_count;
  std::size_t submitted = 0, done = 0;
  for (int tries = 0; done < total; ++tries) {
    // All has been completed when the first enter returns, unless memory is short; then later ones wait.
    const int result = tries == 0
                           ? io_uring_submit(ring_.get())
                           : io_uring_submit_and_wait(ring_.get(), static_cast<unsigned>(submitted - done));
    if (result < 0 && (result != -EINTR && result != -EAGAIN)) {
      *error = -result;
      return false;
    }
    if (result > 0) submitted += static_cast<std::size_t>(result);
    unsigned head = 0, seen = 0;
    io_uring_cqe* cqe = nullptr;
    io_uring_for_each_cqe(ring_.get(), head, cqe) {
      const std::size_t index = cqe->user_data;
      (index < kRoundSendsMax ? send_results[index] : receive_results[index - kRoundSendsMax]) = cqe->res;
      ++seen;
    }
    io_uring_cq_advance(ring_.get(), seen);
    done += seen;
    if (tries == kSubmitTriesMax) {
      *error = ENOMEM;
      return false;
    }
  }
  return true;
}

}  // namespace weft::port
