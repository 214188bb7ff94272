// SPDX-License-Identifier: Apache-2.0
#include "dataplane/port/xsk.h"

#include <bpf/bpf.h>
#include <linux/if_link.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/check.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"

namespace weft::port {
namespace {

// A queue whose last owner was killed is free some 20 ms later.
constexpr uint64_t kQueueRebindNs = 200 * kNsPerMs;
constexpr std::size_t kHugePageBytes = 2 << 20;

// Without CAP_IPC_LOCK the umem counts against this limit; raising it to the hard limit is all one can do.
void RaiseLockedMemoryLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return;
  rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
  if (setrlimit(RLIMIT_MEMLOCK, &unlimited) == 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_MEMLOCK, &limit);
}

absl::Status Explain(int error, const XskOptions& options) {
  const std::string what =
      absl::StrCat("AF_XDP socket on ", options.interface, " queue ", options.queue, ": ");
  switch (error) {
    case EPERM:
      return absl::PermissionDeniedError(absl::StrCat(what, "CAP_NET_RAW is needed"));
    case ENOBUFS:
    case ENOMEM:
      return absl::ResourceExhaustedError(
          absl::StrCat(what, "memory cannot be locked; CAP_IPC_LOCK or a higher LimitMEMLOCK is needed"));
    case EBUSY:
      return absl::UnavailableError(absl::StrCat(what, "another socket has the queue"));
    case EAFNOSUPPORT:
    case ENOPROTOOPT:
      return absl::UnimplementedError(absl::StrCat(what, "the kernel has no AF_XDP"));
    case ENODEV:
    case ENXIO:
      return absl::NotFoundError(absl::StrCat(what, "no such interface"));
    case EINVAL:
      return absl::InvalidArgumentError(absl::StrCat(what, "the interface has no such queue"));
    case ENETDOWN:
      return absl::UnavailableError(absl::StrCat(what, "the interface is down"));
    default:
      return absl::ErrnoToStatus(error, absl::StrCat(what, "open"));
  }
}

}  // namespace

absl::Status Xsk::MapMemory(PortStatus* status) {
  RaiseLockedMemoryLimit();
  const std::size_t wanted =
      static_cast<std::size_t>(options_.receive_frames + options_.send_frames) * options_.frame_bytes;
  bytes_ = (wanted + kHugePageBytes - 1) & ~(kHugePageBytes - 1);
  // Shared, so that after a fork both sides and the kernel still see the same memory.
  void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0);
  if (memory != MAP_FAILED) {
    status->choices.push_back({"memory", absl::StrCat(bytes_ >> 20, " MiB in huge pages"), ""});
  } else {
    const std::string why = absl::StrCat("no huge pages: ", std::strerror(errno));
    bytes_ = wanted;
    memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return absl::ErrnoToStatus(errno, absl::StrCat("map ", bytes_, " bytes"));
    status->choices.push_back({"memory", absl::StrCat(bytes_ >> 10, " KiB in normal pages, locked"), why});
  }
  memory_ = static_cast<uint8_t*>(memory);
  return absl::OkStatus();
}

// 0 or an errno; on failure all that was opened is closed: a umem that stays keeps its socket and the queue.
int Xsk::Open(uint16_t bind_flags) {
  // Twice the frames: the kernel hands a frame over before it says that it has taken it from its ring, so a
  // frame can be given back while the ring still shows it.
  const xsk_umem_config umem_config = {.fill_size = 2 * options_.receive_frames,
                                       .comp_size = 2 * options_.send_frames,
                                       .frame_size = options_.frame_bytes,
                                       .frame_headroom = 0,
                                       .flags = 0};
  if (const int result = xsk_umem__create(&umem_, memory_, bytes_, &fill, &completion, &umem_config);
      result != 0) {
    umem_ = nullptr;
    return -result;
  }
  xsk_socket_config config{};
  config.rx_size = options_.receive_frames;
  config.tx_size = 2 * options_.send_frames;
  config.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD;
  config.bind_flags = bind_flags;
  if (const int result =
          xsk_socket__create(&socket_, options_.interface.c_str(), options_.queue, umem_, &rx, &tx, &config);
      result != 0) {
    socket_ = nullptr;
    Close();
    return -result;
  }
  return 0;
}

void Xsk::Close() {
  if (socket_ != nullptr) xsk_socket__delete(std::exchange(socket_, nullptr));
  if (umem_ != nullptr) WEFT_CHECK(xsk_umem__delete(std::exchange(umem_, nullptr)) == 0);
}

void Xsk::PostAll() {
  uint32_t first = 0;
  WEFT_CHECK(xsk_ring_prod__reserve(&fill, options_.receive_frames, &first) == options_.receive_frames);
  for (uint32_t i = 0; i < options_.receive_frames; ++i) {
    *xsk_ring_prod__fill_addr(&fill, first + i) = static_cast<uint64_t>(i) * options_.frame_bytes;
  }
  xsk_ring_prod__submit(&fill, options_.receive_frames);
}

absl::StatusOr<std::unique_ptr<Xsk>> Xsk::Create(const XskOptions& options, PortStatus* status) {
  if (!std::has_single_bit(options.receive_frames) || !std::has_single_bit(options.send_frames) ||
      (options.frame_bytes != 2048 && options.frame_bytes != 4096)) {
    return absl::InvalidArgumentError(
        "an AF_XDP socket's rings are powers of two, its frames 2,048 or 4,096 bytes");
  }
  std::unique_ptr<Xsk> xsk(new Xsk(options));
  WEFT_RETURN_IF_ERROR(xsk->MapMemory(status));
  const uint64_t begin_ns = NowNs();
  const auto open = [&xsk, begin_ns](uint16_t transfer) {
    for (;;) {
      const int error = xsk->Open(transfer | XDP_USE_NEED_WAKEUP);
      if (error != EBUSY || NowNs() - begin_ns > kQueueRebindNs) return error;
      usleep(1'000);
    }
  };
  // The queue's last owner is as much in the way of zero-copy as of copying.
  int error = open(XDP_ZEROCOPY);
  const int zero_copy_error = error;
  xsk->zero_copy_ = error == 0;
  if (error != 0) error = open(XDP_COPY);
  if (error != 0) return Explain(error, options);
  status->choices.push_back({"transfer", xsk->zero_copy_ ? "zero-copy" : "copy",
                             xsk->zero_copy_
                                 ? "the driver offers it"
                                 : absl::StrCat("no zero-copy: ", std::strerror(zero_copy_error))});
  status->choices.push_back({"wakeup", "when the driver asks", "the kernel has XDP_USE_NEED_WAKEUP"});
  xsk->PostAll();
  WEFT_RETURN_IF_ERROR(xsk->EnterInto(options.xsks_map_fd));
  return xsk;
}

absl::Status Xsk::EnterInto(int xsks_map_fd) const {
  const int fd = this->fd();
  if (bpf_map_update_elem(xsks_map_fd, &options_.queue, &fd, BPF_ANY) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("enter the AF_XDP socket of ", options_.interface, " queue ",
                                                 options_.queue, " into the XDP program's map"));
}

Xsk::~Xsk() {
  Close();
  if (memory_ != nullptr) munmap(memory_, bytes_);
}

}  // namespace weft::port
